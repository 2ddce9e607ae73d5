//! Every request that was answered against what ClickHouse has.
//!
//! A request's id is in its events, so the comparison is by request and action: as many events as there must be, each under an id of its own. What the
//! services without auditstream were asked must not be there at all.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::clerk::Expected;
use crate::clickhouse::{Asker, quoted};
use crate::table::Table;

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(100);

/// What became of the events of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Events that must be there.
    pub expected: u64,
    /// Events that are there.
    pub events: u64,
    /// Events that must be there and are not.
    pub lost: u64,
    /// Events of a request beyond those that must be there.
    pub double: u64,
    /// Events of requests that must not have left any.
    pub unknown: u64,
    /// The first of each fault.
    pub examples: Vec<String>,
}

/// Waits until as many events of this run are there as must be, or more; answers how many.
///
/// # Errors
/// They don't come within `patience`.
pub async fn wait(asker: &Asker, run: &str, expected: &[Expected], patience: Duration) -> Result<u64> {
    let goal: u64 = expected.iter().map(|expected| expected.events).sum();
    let begun = Instant::now();
    loop {
        let events = asker.number(&format!("SELECT count() FROM events FINAL WHERE {}", of_run(run))).await?;
        if events >= goal {
            return Ok(events);
        }
        if begun.elapsed() > patience {
            bail!("{events} of {goal} events of the order service arrived within {} s", patience.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Compares. `asker` sees all rows under `FINAL`.
///
/// # Errors
/// ClickHouse does not answer.
pub async fn judge(asker: &Asker, run: &str, expected: &[Expected]) -> Result<Found> {
    let sql = format!(
        "SELECT request_id, action, count() AS rows, uniqExact(event_id) AS ids FROM events FINAL WHERE {} \
         GROUP BY request_id, action",
        of_run(run)
    );
    compare(&asker.table(&sql).await?, expected)
}

fn of_run(run: &str) -> String {
    // The first two are the beginning of the table's order, so that this is no scan of everything.
    format!("tenant_id = 'acme' AND service = 'order-service' AND startsWith(request_id, {})", quoted(run))
}

fn compare(table: &Table, expected: &[Expected]) -> Result<Found> {
    let mut found = Found::default();
    let mut stored: HashMap<(&str, &str), u64> = HashMap::new();
    for row in &table.rows {
        let [request, action, rows, ids] = row.as_slice() else { bail!("ClickHouse answered in another form") };
        ensure!(rows == ids, "request {request} has {rows} rows of {ids} events under FINAL");
        let rows = rows.parse::<u64>()?;
        found.events += rows;
        stored.insert((request, action), rows);
    }
    for expected in expected {
        found.expected += expected.events;
        let rows = stored.remove(&(expected.request_id.as_str(), expected.action)).unwrap_or(0);
        let (fault, count) = match rows {
            rows if rows < expected.events => ("LOST", &mut found.lost),
            _ => ("DOUBLE", &mut found.double),
        };
        let off = rows.abs_diff(expected.events);
        if off > 0 && *count == 0 {
            found.examples.push(format!("{fault}: {} of request {}", expected.action, expected.request_id));
        }
        *count += off;
    }
    if let Some(((request, action), _)) = stored.iter().next() {
        found.examples.push(format!("UNKNOWN: {action} of request {request}"));
    }
    found.unknown = stored.values().sum();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn expected(request_id: &str, action: &'static str, events: u64) -> Expected {
        Expected { request_id: request_id.to_owned(), action, events, order: None }
    }

    fn table(rows: &[[&str; 4]]) -> Table {
        let rows = rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        Table { names: Vec::new(), rows }
    }

    #[test]
    fn what_is_as_it_must_be_is_no_fault() {
        let expected = [
            expected("r-1", "order.create", 20),
            expected("r-1", "order.bulk_create", 1),
            expected("r-2", "order.read", 1),
        ];
        let stored = table(&[
            ["r-2", "order.read", "1", "1"],
            ["r-1", "order.bulk_create", "1", "1"],
            ["r-1", "order.create", "20", "20"],
        ]);
        let found = compare(&stored, &expected).unwrap();
        assert_eq!(found, Found { expected: 22, events: 22, ..Found::default() });
    }

    #[test]
    fn each_fault_is_counted_and_named() {
        let expected =
            [expected("r-1", "order.create", 20), expected("r-2", "order.read", 1), expected("r-3", "order.read", 1)];
        let stored = table(&[
            ["r-1", "order.create", "18", "18"],
            ["r-2", "order.read", "2", "2"],
            ["r-9", "order.read", "4", "4"],
        ]);
        let found = compare(&stored, &expected).unwrap();
        assert_eq!((found.lost, found.double, found.unknown), (3, 1, 4));
        assert_eq!(
            found.examples,
            [
                "LOST: order.create of request r-1",
                "DOUBLE: order.read of request r-2",
                "UNKNOWN: order.read of request r-9"
            ]
        );
        assert!(compare(&table(&[["r-2", "order.read", "2", "1"]]), &expected).is_err());
    }
}
