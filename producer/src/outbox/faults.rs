//! Where a test may end the relay, as kill -9 would. Without the feature `faults` no point exists and no environment is read; the shipped program is
//! built without it.

/// A moment of a relay's round, or of its leases.
///
/// The environment variable `FAILPOINTS` sets points by name, in the notation of the `fail` crate, once somebody has set that crate up:
/// `relay-taken=3*off->return` strikes at the fourth time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// The leases of this relay are renewed; it has not looked at its share yet.
    LeasesRenewed,
    /// Free shards are taken; this relay does not know yet which.
    ShardsTaken,
    /// Delayed rows whose time has come are pending.
    DelayedWoken,
    /// Rows are read; none of them is with Kafka.
    Taken,
    /// All rows are with Kafka, whose answers are not heard.
    Sent,
    /// Kafka's answers are heard; nothing of them is in the database.
    Acknowledged,
    /// Some of the rows that were sent are settled, others are not.
    HalfSettled,
    /// All rows are settled.
    Settled,
}

impl Point {
    /// All of them, in the order of a round.
    pub const ALL: [Self; 8] = [
        Self::LeasesRenewed,
        Self::ShardsTaken,
        Self::DelayedWoken,
        Self::Taken,
        Self::Sent,
        Self::Acknowledged,
        Self::HalfSettled,
        Self::Settled,
    ];

    /// Its name in `FAILPOINTS`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LeasesRenewed => "relay-leases-renewed",
            Self::ShardsTaken => "relay-shards-taken",
            Self::DelayedWoken => "relay-delayed-woken",
            Self::Taken => "relay-taken",
            Self::Sent => "relay-sent",
            Self::Acknowledged => "relay-acknowledged",
            Self::HalfSettled => "relay-half-settled",
            Self::Settled => "relay-settled",
        }
    }
}

/// Dies here, if a test wants that.
#[cfg(all(feature = "relay", not(feature = "faults")))]
#[inline(always)]
pub(crate) fn crash_point(_point: Point) {}

/// Dies with everything sent and no answer heard, if a test wants that.
#[cfg(all(feature = "relay", not(feature = "faults")))]
#[inline(always)]
pub(crate) async fn crash_unheard() {}

#[cfg(feature = "faults")]
mod armed {
    use std::time::Duration;

    use super::Point;

    /// So long after a send its bytes are with the broker, and its answer perhaps on the way back: longer than a producer lingers.
    const ON_THE_WAY: Duration = Duration::from_millis(100);

    fn strikes(point: Point) -> bool {
        let strikes = || {
            fail::fail_point!(point.name(), |_| true);
            false
        };
        strikes()
    }

    /// Dies here, if a test wants that: nothing is flushed, closed or said, as after kill -9.
    pub(crate) fn crash_point(point: Point) {
        if strikes(point) {
            std::process::abort();
        }
    }

    /// Dies with everything sent and no answer heard, if a test wants that.
    pub(crate) async fn crash_unheard() {
        if strikes(Point::Sent) {
            tokio::time::sleep(ON_THE_WAY).await;
            std::process::abort();
        }
    }
}

#[cfg(feature = "faults")]
pub(crate) use armed::{crash_point, crash_unheard};
