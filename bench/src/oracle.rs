//! The oracle: what was acknowledged against what is stored.
//!
//! Both lists are real: one comes from the producer's acknowledgements, the other is read back from ClickHouse. Nothing is counted that was not compared.

use uuid::Uuid;

/// What the comparison found. Nothing lost and nothing double is a pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Different ids that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged ids that are neither in the table nor among the dead letters.
    pub lost: Vec<Uuid>,
    /// Ids that are stored more than once, each once for every row too many.
    pub double: Vec<Uuid>,
    /// Stored ids that nobody heard an acknowledgement of. No fault by itself: a producer may end before it hears.
    pub unheard: u64,
}

/// Compares the acknowledged ids with those stored (one for each row) and those in dead letters. An id in both counts as double.
#[must_use]
pub fn compare(mut acknowledged: Vec<Uuid>, stored: Vec<Uuid>, dead: Vec<Uuid>) -> Verdict {
    // The same id acknowledged twice is one event sent twice: one row is right.
    acknowledged.sort_unstable();
    acknowledged.dedup();
    let mut found = stored;
    found.extend(dead);
    found.sort_unstable();
    let mut verdict = Verdict { acknowledged: acknowledged.len() as u64, ..Verdict::default() };
    let mut found = found.into_iter().peekable();
    let mut wanted = acknowledged.into_iter().peekable();
    loop {
        match (wanted.peek().copied(), found.peek().copied()) {
            (None, None) => return verdict,
            (Some(id), there) if there.is_none_or(|there| id < there) => {
                verdict.lost.push(id);
                wanted.next();
            }
            (want, Some(there)) => {
                if want == Some(there) {
                    wanted.next();
                } else {
                    verdict.unheard += 1;
                }
                found.next();
                while found.next_if_eq(&there).is_some() {
                    verdict.double.push(there);
                }
            }
            // The first arm's guard holds whenever nothing is left in the table.
            (Some(_), None) => wanted.next().map_or((), |id| verdict.lost.push(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u128]) -> Vec<Uuid> {
        numbers.iter().map(|number| Uuid::from_u128(*number)).collect()
    }

    #[test]
    fn the_same_list_in_any_order_passes() {
        let verdict = compare(ids(&[3, 1, 2, 2]), ids(&[2, 3]), ids(&[1]));
        assert_eq!(verdict, Verdict { acknowledged: 3, ..Verdict::default() });
    }

    #[test]
    fn each_fault_is_named() {
        let verdict = compare(ids(&[1, 2, 3, 9]), ids(&[2, 2, 2, 5, 7, 7]), ids(&[3]));
        assert_eq!(verdict.lost, ids(&[1, 9]));
        assert_eq!(verdict.double, ids(&[2, 2, 7]));
        assert_eq!((verdict.acknowledged, verdict.unheard), (4, 2));
    }

    #[test]
    fn stored_and_dead_is_double() {
        assert_eq!(compare(ids(&[1]), ids(&[1]), ids(&[1])).double, ids(&[1]));
    }

    #[test]
    fn empty_lists_are_no_fault_and_an_empty_table_is_all_lost() {
        assert_eq!(compare(Vec::new(), Vec::new(), Vec::new()), Verdict::default());
        assert_eq!(compare(ids(&[1, 2]), Vec::new(), Vec::new()).lost, ids(&[1, 2]));
    }
}
