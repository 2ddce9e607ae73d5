//! A seeded simulation: several workers, a model of Kafka's group and a model of ClickHouse that loses answers.
//!
//! Every order that the protocols allow may happen: unknown outcomes, revocations, partitions lost without a word, crashes at any point, refused commits.
//! After every step the promises of the core are checked. A failing seed prints itself and replays to the same trace.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::{Action, Backoff, BatchId, Failure, Input, Limits, Now, Overload, StopReason, Targets, Verdict, Worker};

const PARTITIONS: i32 = 4;
const LARGEST_RECORD: usize = 200;

/// xorshift64*: small, seeded, good enough to pick the next step.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy)]
struct Record {
    bytes: usize,
    is_row: bool,
}

enum Task {
    Insert(BatchId),
    Deliver(BatchId),
    Ledger(BatchId),
    /// Partition, offset and the generation of the assignment under which the commit was sent.
    Commit(Vec<(i32, i64, u64)>),
}

/// A worker process as the simulation runs it.
struct Node {
    worker: Worker,
    tasks: Vec<Task>,
    filling: Vec<(i32, i64)>,
    batches: HashMap<BatchId, Vec<(i32, i64)>>,
    /// Where its client reads next, for each partition that it believes to own.
    positions: BTreeMap<i32, i64>,
    /// Partitions taken from it of which it has not heard yet.
    unaware: Vec<i32>,
    asked_back: BTreeSet<i32>,
    stopped: Option<StopReason>,
}

impl Node {
    fn new(seed: u64) -> Self {
        let limits = Limits {
            targets: Targets {
                floor_rows: 3,
                ceiling_rows: 12,
                max_age: Duration::from_millis(50),
                freshness: Duration::from_secs(10),
                max_parts: 100,
            },
            batch_max_bytes: 600,
            in_flight_bytes: 1500,
            max_inserts: 2,
            pause_after: Duration::from_millis(20),
            revoke_deadline: Duration::from_millis(400),
            drain_deadline: Duration::from_millis(3000),
            backoff: Backoff { base: Duration::from_millis(10), cap: Duration::from_millis(100), seed },
        };
        Self {
            worker: Worker::new(limits),
            tasks: Vec::new(),
            filling: Vec::new(),
            batches: HashMap::new(),
            positions: BTreeMap::new(),
            unaware: Vec::new(),
            asked_back: BTreeSet::new(),
            stopped: None,
        }
    }
}

struct World {
    seed: u64,
    random: Random,
    now: Now,
    logs: Vec<Vec<Record>>,
    inserted: BTreeSet<(i32, i64)>,
    delivered: BTreeSet<(i32, i64)>,
    /// Offsets that the ledger's spans cover.
    ledger: BTreeSet<(i32, i64)>,
    committed: Vec<i64>,
    owners: Vec<Option<usize>>,
    generations: Vec<u64>,
    nodes: Vec<Node>,
    faults: bool,
    trace: u64,
    /// Every input and action goes to stderr.
    shown: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now: Duration::ZERO,
            logs: vec![Vec::new(); PARTITIONS as usize],
            inserted: BTreeSet::new(),
            delivered: BTreeSet::new(),
            ledger: BTreeSet::new(),
            committed: vec![0; PARTITIONS as usize],
            owners: vec![None; PARTITIONS as usize],
            generations: vec![0; PARTITIONS as usize],
            nodes: (0..3).map(|node| Node::new(seed ^ node)).collect(),
            faults: true,
            trace: 0,
            shown: false,
        }
    }

    fn input(&mut self, node: usize, input: Input) {
        let mut actions = Vec::new();
        if self.shown {
            eprintln!("{:>8} ms worker {node} <- {input:?}", self.now.as_millis());
        }
        self.nodes[node].worker.handle(input, self.now, &mut actions);
        let mut queue: VecDeque<Action> = actions.into();
        while let Some(action) = queue.pop_front() {
            if self.shown {
                eprintln!("{:>8} ms worker {node} -> {action:?}", self.now.as_millis());
            }
            self.trace = self
                .trace
                .wrapping_mul(31)
                .wrapping_add(format!("{node}{action:?}").bytes().map(u64::from).sum::<u64>());
            self.act(node, action);
        }
        self.check(node);
    }

    fn act(&mut self, index: usize, action: Action) {
        let node = &mut self.nodes[index];
        match action {
            Action::Seal { batch, .. } => {
                let records = std::mem::take(&mut node.filling);
                node.batches.insert(batch, records);
            }
            Action::Insert { batch, .. } => node.tasks.push(Task::Insert(batch)),
            Action::SendDeadLetters { batch, .. } => node.tasks.push(Task::Deliver(batch)),
            Action::WriteLedger { batch, .. } => node.tasks.push(Task::Ledger(batch)),
            Action::Forget(batch) => {
                node.batches.remove(&batch);
            }
            Action::Commit(offsets) => {
                assert!(
                    !node.tasks.iter().any(|task| matches!(task, Task::Commit(_))),
                    "seed {}: two commits at once",
                    self.seed
                );
                let generations = &self.generations;
                node.tasks.push(Task::Commit(
                    offsets.into_iter().map(|(p, offset)| (p, offset, generations[p as usize])).collect(),
                ));
            }
            Action::Release(partitions) => {
                for partition in partitions {
                    node.positions.remove(&partition);
                    node.asked_back.remove(&partition);
                    if self.owners[partition as usize] == Some(index) {
                        self.owners[partition as usize] = None;
                    }
                }
            }
            Action::Tuned(decision) => {
                let (rows, age) = (decision.rows, decision.age);
                assert!(
                    (1..=12).contains(&rows) && age <= Duration::from_millis(400),
                    "seed {}: {decision:?}",
                    self.seed
                );
            }
            Action::Pause(_) | Action::Resume(_) => {}
            Action::Stop(reason) => node.stopped = Some(reason),
        }
    }

    fn check(&self, node: usize) {
        let held = self.nodes[node].worker.held_bytes();
        assert!(held <= 1500 + LARGEST_RECORD, "seed {}: {held} bytes held", self.seed);
        for partition in 0..PARTITIONS {
            for offset in 0..self.committed[partition as usize] {
                let at = (partition, offset);
                let stored = if self.logs[partition as usize][offset as usize].is_row {
                    &self.inserted
                } else {
                    &self.delivered
                };
                assert!(stored.contains(&at), "seed {}: {at:?} was committed but not stored", self.seed);
            }
        }
    }

    fn step(&mut self) {
        let node = self.random.below(self.nodes.len());
        match self.random.below(if self.faults { 16 } else { 12 }) {
            0..=1 if self.faults => self.produce(),
            0..=5 => self.poll(node),
            6..=8 => self.finish_task(node),
            9..=10 => {
                self.now += Duration::from_millis(1 + self.random.next() % 10);
                self.input(node, Input::Tick);
            }
            11 => self.assign_or_tell(node),
            12 => self.revoke(),
            13 => self.take_away(),
            14 if self.random.one_in(8) => self.crash(node),
            15 if self.random.one_in(20) => self.input(node, Input::Drain),
            15 if self.random.one_in(4) => {
                let told = self.random.next() % 200;
                let partition = self.random.below(PARTITIONS as usize);
                let end = self.logs[partition].len() as i64 + told as i64 - 50;
                let logs = Input::Logs(vec![(partition as i32, 0, end)]);
                self.input(node, if told < 100 { logs } else { Input::Parts(told) });
            }
            _ => {}
        }
        if self.nodes[node].stopped.is_some() {
            self.crash(node);
        }
    }

    fn produce(&mut self) {
        let partition = self.random.below(PARTITIONS as usize);
        for _ in 0..self.random.below(6) {
            let bytes = 1 + self.random.below(LARGEST_RECORD);
            let is_row = !self.random.one_in(10);
            self.logs[partition].push(Record { bytes, is_row });
        }
    }

    fn poll(&mut self, index: usize) {
        if !self.nodes[index].worker.wants_records() {
            return;
        }
        let ready: Vec<(i32, i64)> = self.nodes[index]
            .positions
            .iter()
            .filter(|&(&partition, &offset)| (offset as usize) < self.logs[partition as usize].len())
            .map(|(&partition, &offset)| (partition, offset))
            .collect();
        if ready.is_empty() {
            self.input(index, Input::CaughtUp);
            return;
        }
        let (partition, offset) = ready[self.random.below(ready.len())];
        let node = &mut self.nodes[index];
        if !node.worker.admit(partition, offset) {
            return;
        }
        node.positions.insert(partition, offset + 1);
        node.filling.push((partition, offset));
        let record = self.logs[partition as usize][offset as usize];
        let verdict = if record.is_row { Verdict::Row } else { Verdict::DeadLetter };
        self.input(index, Input::Record { partition, offset, bytes: record.bytes, verdict });
    }

    /// One task ends: with success, without effect, or with an effect that nobody hears of.
    fn finish_task(&mut self, index: usize) {
        if self.nodes[index].tasks.is_empty() {
            return;
        }
        let at = self.random.below(self.nodes[index].tasks.len());
        let task = self.nodes[index].tasks.swap_remove(at);
        let (effect, heard) =
            if self.faults && self.random.one_in(4) { (self.random.one_in(2), false) } else { (true, true) };
        if effect {
            self.take_effect(index, &task);
        }
        let input = match (task, heard) {
            (Task::Insert(batch), true) => Input::Inserted(batch),
            (Task::Insert(batch), false) => Input::InsertFailed(batch, self.insert_failure()),
            (Task::Deliver(batch), true) => Input::DeadLettersDelivered(batch),
            (Task::Deliver(batch), false) => Input::DeadLettersFailed(batch, Failure::Retry),
            (Task::Ledger(batch), true) => Input::LedgerWritten(batch),
            (Task::Ledger(batch), false) => Input::LedgerFailed(batch, Failure::Retry),
            (Task::Commit(offsets), true) if self.is_accepted(index, &offsets) => Input::Committed,
            (Task::Commit(_), _) => Input::CommitFailed,
        };
        self.input(index, input);
    }

    fn insert_failure(&mut self) -> Failure {
        match self.random.below(4) {
            0 => Failure::Overload(Overload::Parts),
            1 => Failure::Overload(Overload::Memory),
            _ => Failure::Retry,
        }
    }

    /// The broker refuses members that no longer own what they commit, and commits of an older generation.
    fn is_accepted(&self, index: usize, offsets: &[(i32, i64, u64)]) -> bool {
        let is_current = |&(partition, _, generation): &(i32, i64, u64)| {
            self.owners[partition as usize] == Some(index) && self.generations[partition as usize] == generation
        };
        offsets.iter().all(is_current)
    }

    fn take_effect(&mut self, index: usize, task: &Task) {
        let records = |batch: &BatchId| self.nodes[index].batches.get(batch).cloned().unwrap_or_default();
        let is_row = |&(partition, offset): &(i32, i64)| self.logs[partition as usize][offset as usize].is_row;
        match task {
            Task::Insert(batch) => {
                let rows: Vec<_> = records(batch).into_iter().filter(is_row).collect();
                self.inserted.extend(rows);
            }
            Task::Deliver(batch) => {
                let letters: Vec<_> = records(batch).into_iter().filter(|at| !is_row(at)).collect();
                self.delivered.extend(letters);
            }
            Task::Ledger(batch) => {
                for at in records(batch) {
                    let stored = if is_row(&at) { &self.inserted } else { &self.delivered };
                    assert!(stored.contains(&at), "seed {}: the ledger claims {at:?}", self.seed);
                }
                let spans = records(batch);
                self.ledger.extend(spans);
            }
            Task::Commit(offsets) if self.is_accepted(index, offsets) => {
                for &(partition, offset, _) in offsets {
                    let committed = &mut self.committed[partition as usize];
                    assert!(offset >= *committed, "seed {}: the commit of {partition} went back", self.seed);
                    *committed = offset;
                }
            }
            Task::Commit(_) => {}
        }
    }

    /// Tells a worker of partitions it has lost, or gives it those that nobody owns.
    fn assign_or_tell(&mut self, index: usize) {
        let unaware = std::mem::take(&mut self.nodes[index].unaware);
        if !unaware.is_empty() {
            self.input(index, Input::Lost(unaware));
            return;
        }
        if self.nodes[index].stopped.is_some() {
            return;
        }
        let free: Vec<i32> = (0..PARTITIONS)
            .filter(|&p| self.owners[p as usize].is_none() && !self.nodes[index].positions.contains_key(&p))
            .collect();
        if free.is_empty() {
            return;
        }
        let partition = free[self.random.below(free.len())];
        let start = self.committed[partition as usize];
        self.owners[partition as usize] = Some(index);
        self.generations[partition as usize] += 1;
        // The look-up may fail, then everything that is not committed is read again.
        let looks_up = start > 0 && !self.random.one_in(4);
        let landed =
            (start..).find(|&offset| !looks_up || !self.ledger.contains(&(partition, offset))).unwrap_or(start);
        self.nodes[index].positions.insert(partition, landed);
        self.input(index, Input::Assigned(vec![(partition, (start > 0).then_some(start))]));
        if landed > start {
            self.input(index, Input::Landed(vec![(partition, landed)]));
        }
    }

    fn revoke(&mut self) {
        let partition = self.random.below(PARTITIONS as usize);
        if let Some(owner) = self.owners[partition]
            && self.nodes[owner].asked_back.insert(partition as i32)
        {
            self.input(owner, Input::Revoked(vec![partition as i32]));
        }
    }

    /// The session ended: somebody else may own the partition before its old owner knows.
    fn take_away(&mut self) {
        let partition = self.random.below(PARTITIONS as usize);
        if let Some(owner) = self.owners[partition]
            && !self.nodes[owner].asked_back.contains(&(partition as i32))
        {
            self.owners[partition] = None;
            self.nodes[owner].unaware.push(partition as i32);
        }
    }

    fn crash(&mut self, index: usize) {
        // What was under way may still take effect, but for commits of a dead member.
        for task in std::mem::take(&mut self.nodes[index].tasks) {
            if self.random.one_in(2) && !matches!(task, Task::Commit(_)) {
                self.take_effect(index, &task);
            }
        }
        for owner in &mut self.owners {
            *owner = owner.filter(|&owner| owner != index);
        }
        self.nodes[index] = Node::new(self.seed ^ self.random.next());
    }

    fn is_done(&self) -> bool {
        (0..PARTITIONS as usize).all(|p| self.committed[p] as usize == self.logs[p].len())
    }
}

fn run(seed: u64) -> u64 {
    run_shown(seed, false)
}

fn run_shown(seed: u64, shown: bool) -> u64 {
    let mut world = World { shown, ..World::new(seed) };
    for _ in 0..600 {
        world.step();
    }
    world.faults = false;
    for turn in 0..40_000 {
        if world.is_done() {
            break;
        }
        world.step();
        assert!(turn < 39_999, "seed {seed}: no progress without faults");
    }
    world.trace
}

#[test]
fn promises_hold_for_every_seed() {
    let seeds: u64 = std::env::var("AUDITSTREAM_SIM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10_000);
    for seed in 0..seeds {
        run(seed);
    }
}

/// `cargo xtask sim --seed N`: one seed, shown.
#[test]
fn one_seed_shown() {
    if let Some(seed) = std::env::var("AUDITSTREAM_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        eprintln!("seed {seed}: trace {:016x}", run_shown(seed, true));
    }
}

#[test]
fn a_seed_replays_to_the_same_trace() {
    for seed in [1, 77, 4711] {
        assert_eq!(run(seed), run(seed));
    }
}
