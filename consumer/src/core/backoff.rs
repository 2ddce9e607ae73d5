//! Exponential back-off with jitter that needs no random source.

use std::time::Duration;

/// Waiting times between attempts: `base * 2^attempt`, at most `cap`, of which between a half and the whole is waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Longest wait before the second attempt.
    pub base: Duration,
    /// Longest wait at all.
    pub cap: Duration,
    /// Spreads the waits of several workers; the same seed gives the same waits.
    pub seed: u64,
}

impl Backoff {
    /// How long to wait after the failure of `attempt` (0 is the first) of the work numbered `work`.
    #[must_use]
    pub fn delay(&self, work: u64, attempt: u32) -> Duration {
        let longest = self.base.saturating_mul(1u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX)).min(self.cap);
        let half = longest / 2;
        let thousandths = mix(self.seed ^ work.rotate_left(32) ^ u64::from(attempt)) % 1001;
        // At most 1000 thousandths of a half: the product fits because `cap` is a duration of seconds, not of centuries.
        half + half.saturating_mul(u32::try_from(thousandths).unwrap_or(1000)) / 1000
    }
}

/// SplitMix64's finalizer: spreads neighbouring numbers over all 64 bits (Steele, Lea and Flood, OOPSLA 2014).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_stays_between_half_and_whole() {
        let backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(3), seed: 7 };
        for attempt in 0..40 {
            let longest = Duration::from_millis(100 * (1 << attempt.min(5))).min(backoff.cap);
            for work in 0..50 {
                let delay = backoff.delay(work, attempt);
                assert!(delay >= longest / 2 && delay <= longest, "{attempt}: {delay:?}");
            }
        }
    }

    #[test]
    fn two_workers_do_not_wait_alike() {
        let delays = |seed| {
            let backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(1), seed };
            (0..20).map(|work| backoff.delay(work, 0)).collect::<Vec<_>>()
        };
        assert_ne!(delays(1), delays(2));
        assert_eq!(delays(1), delays(1));
    }
}
