//! Which loads are measured, and who drains them.

use auditstream_producer::Compression;

/// Who takes the events from the topic into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Side {
    /// `auditstream consume`, so many of them.
    Ours(u32),
    /// ClickHouse's own Kafka engine.
    Engine,
}

impl Side {
    /// As tables say it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Ours(1) => "ours, 1 worker".to_owned(),
            Self::Ours(workers) => format!("ours, {workers} workers"),
            Self::Engine => "Kafka engine".to_owned(),
        }
    }

    /// As part of a name of a group or a log.
    pub(super) fn short(self) -> String {
        match self {
            Self::Ours(workers) => format!("ours{workers}"),
            Self::Engine => "engine".to_owned(),
        }
    }
}

/// What a scenario varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Factor {
    /// Nothing: all sides and the ceilings.
    Base,
    /// Settings of ClickHouse's Kafka engine; the fastest are taken for the rest.
    Settings,
    /// Bytes of an event: 150, 1,600, 16,000.
    Size,
    /// zstd and none beside lz4.
    Compression,
    /// 1 and 48 beside 6.
    Partitions,
    /// 10 million events, and more if allowed.
    Rows,
}

impl Factor {
    pub(super) const ALL: [Self; 6] =
        [Self::Settings, Self::Base, Self::Size, Self::Compression, Self::Partitions, Self::Rows];
}

impl std::fmt::Display for Factor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Settings => "settings",
            Self::Size => "size",
            Self::Compression => "compression",
            Self::Partitions => "partitions",
            Self::Rows => "rows",
        })
    }
}

/// A load on a topic of its own.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Load {
    pub(super) events: u64,
    /// Mean bytes of an event; `None`: as the generator makes them, about 300.
    pub(super) bytes: Option<u32>,
    /// Field changes of each event; `None`: as the generator makes them.
    pub(super) changes: Option<u32>,
    pub(super) compression: Compression,
    pub(super) partitions: u32,
}

impl Load {
    /// The one around which everything is varied.
    pub(super) fn base(events: u64) -> Self {
        Self { events, bytes: None, changes: None, compression: Compression::Lz4, partitions: 6 }
    }
}

/// A load and who drains it, how often.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scenario {
    pub(super) factor: Factor,
    /// What is different: `1 partition`.
    pub(super) name: String,
    pub(super) load: Load,
    pub(super) sides: Vec<Side>,
    pub(super) rounds: u32,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) only: Vec<Factor>,
    /// Events of the base.
    pub(super) events: u64,
    /// Rounds of the base.
    pub(super) rounds: u32,
    /// No scenario of the factor `Rows` has more.
    pub(super) rows_up_to: u64,
}

/// The scenarios in the order in which they run, without the base, which is [`base`].
pub(super) fn around(wish: &Wish) -> Vec<Scenario> {
    let one = Side::Ours(1);
    let base = Load::base(wish.events);
    // As many as take a few seconds, in proportion to the base.
    let share = |of_base: u64| (wish.events * of_base / 2_000_000).max(1_000);
    let scenario = |factor, name: &str, load: Load, sides: &[Side], rounds| Scenario {
        factor,
        name: name.to_owned(),
        load,
        sides: sides.to_vec(),
        rounds,
    };
    let sized = |bytes, events| Load { bytes: Some(bytes), events: share(events), ..base.clone() };
    let compressed = |compression| Load { compression, ..base.clone() };
    let parted = |partitions| Load { partitions, ..base.clone() };
    let mut all = vec![
        scenario(Factor::Size, "150 bytes", sized(150, 2_000_000), &[one], 2),
        scenario(Factor::Size, "1,600 bytes", sized(1_600, 500_000), &[one, Side::Ours(2), Side::Engine], 2),
        scenario(Factor::Size, "16,000 bytes", sized(16_000, 100_000), &[one], 2),
        scenario(Factor::Compression, "zstd", compressed(Compression::Zstd), &[one], 2),
        scenario(Factor::Compression, "none", compressed(Compression::None), &[one], 2),
        scenario(Factor::Partitions, "1 partition", parted(1), &[one], 2),
        scenario(Factor::Partitions, "48 partitions", parted(48), &[one], 2),
    ];
    for millions in [10, 50] {
        let load = Load { events: millions * 1_000_000, ..base.clone() };
        if load.events <= wish.rows_up_to {
            all.push(scenario(Factor::Rows, &format!("{millions} million events"), load, &[one, Side::Ours(2)], 1));
        }
    }
    all.retain(|scenario| wish.only.contains(&scenario.factor));
    all
}

/// All sides, alternating.
pub(super) fn base(wish: &Wish) -> Scenario {
    Scenario {
        factor: Factor::Base,
        name: "base".to_owned(),
        load: Load::base(wish.events),
        sides: vec![Side::Ours(1), Side::Engine, Side::Ours(2)],
        rounds: wish.rounds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish { only: Factor::ALL.to_vec(), events: 2_000_000, rounds: 3, rows_up_to: 10_000_000 }
    }

    #[test]
    fn each_scenario_differs_from_the_base_in_one_thing() {
        let base = Load::base(2_000_000);
        for Scenario { name, load, factor, .. } in around(&wish()) {
            let differs = [
                load.bytes != base.bytes,
                load.compression != base.compression,
                load.partitions != base.partitions,
                load.events != base.events && factor == Factor::Rows,
            ];
            assert_eq!(differs.iter().filter(|differs| **differs).count(), 1, "{name}");
        }
    }

    #[test]
    fn fifty_million_only_when_asked_for() {
        let most = |rows_up_to| around(&Wish { rows_up_to, ..wish() }).iter().map(|one| one.load.events).max();
        assert_eq!(most(10_000_000), Some(10_000_000));
        assert_eq!(most(50_000_000), Some(50_000_000));
    }

    #[test]
    fn what_is_not_chosen_does_not_run() {
        let all = around(&Wish { only: vec![Factor::Base, Factor::Partitions], ..wish() });
        assert!(all.iter().all(|scenario| scenario.factor == Factor::Partitions));
        assert_eq!(all.len(), 2);
    }
}
