//! The core's rules, one by one; `sim` tries their combinations.

use std::time::Duration;

use super::{
    Action, Backoff, BatchId, Cause, Decision, Failure, Input, Limits, Overload, SealReason, Span, StopReason, Targets,
    Verdict, Worker,
};

const MS: Duration = Duration::from_millis(1);

fn limits() -> Limits {
    Limits {
        targets: Targets {
            floor_rows: 3,
            ceiling_rows: 3,
            max_age: 100 * MS,
            freshness: Duration::from_secs(10),
            max_parts: 100,
        },
        batch_max_bytes: 1000,
        in_flight_bytes: 2000,
        max_inserts: 1,
        pause_after: 50 * MS,
        revoke_deadline: 500 * MS,
        drain_deadline: 1000 * MS,
        backoff: Backoff { base: 10 * MS, cap: 40 * MS, seed: 1 },
    }
}

fn worker() -> Worker {
    let mut worker = Worker::new(limits());
    handle(&mut worker, Input::Assigned(vec![(0, Some(0)), (1, Some(0))]), 0);
    worker
}

fn handle(worker: &mut Worker, input: Input, at_ms: u32) -> Vec<Action> {
    let mut actions = Vec::new();
    worker.handle(input, at_ms * MS, &mut actions);
    actions
}

fn record(worker: &mut Worker, partition: i32, offset: i64, bytes: usize, at_ms: u32) -> Vec<Action> {
    handle(worker, Input::Record { partition, offset, bytes, verdict: Verdict::Row }, at_ms)
}

fn dead_letter(worker: &mut Worker, partition: i32, offset: i64) -> Vec<Action> {
    handle(worker, Input::Record { partition, offset, bytes: 10, verdict: Verdict::DeadLetter }, 0)
}

fn seal_reason(actions: &[Action]) -> Option<SealReason> {
    actions.iter().find_map(|action| match action {
        Action::Seal { reason, .. } => Some(*reason),
        _ => None,
    })
}

/// Which attempt of an insert of this batch the actions start.
fn insert_attempt(actions: &[Action], of: BatchId) -> Option<u32> {
    actions.iter().find_map(|action| match action {
        Action::Insert { batch, attempt, .. } if *batch == of => Some(*attempt),
        _ => None,
    })
}

/// The spans, if writing the ledger is all that the actions ask for.
fn ledger_spans(actions: &[Action]) -> Option<&[Span]> {
    match actions {
        [Action::WriteLedger { batch: ONE, spans, attempt: 0 }] => Some(spans),
        _ => None,
    }
}

const ONE: BatchId = BatchId(1);

#[test]
fn a_full_batch_goes_insert_ledger_commit() {
    let mut worker = worker();
    assert!(record(&mut worker, 0, 0, 10, 0).is_empty());
    assert!(record(&mut worker, 0, 1, 10, 0).is_empty());
    let actions = record(&mut worker, 1, 0, 10, 0);
    assert_eq!(seal_reason(&actions), Some(SealReason::Rows));
    assert_eq!(insert_attempt(&actions, ONE), Some(0));
    let actions = handle(&mut worker, Input::Inserted(ONE), 1);
    let spans = ledger_spans(&actions)
        .map(|spans| spans.iter().map(|span| (span.partition, span.first, span.last, span.rows)).collect());
    assert_eq!(spans, Some(vec![(0, 0, 1, 2), (1, 0, 0, 1)]));
    assert_eq!(
        handle(&mut worker, Input::LedgerWritten(ONE), 2),
        [Action::Forget(ONE), Action::Commit(vec![(0, 2), (1, 1)])]
    );
    assert_eq!(handle(&mut worker, Input::Committed, 3), []);
    assert_eq!(worker.held_bytes(), 0);
}

#[test]
fn no_commit_before_the_dead_letter_is_acknowledged() {
    let mut worker = worker();
    dead_letter(&mut worker, 0, 0);
    record(&mut worker, 0, 1, 10, 0);
    let actions = record(&mut worker, 0, 2, 10, 0);
    assert!(actions.contains(&Action::SendDeadLetters { batch: ONE, attempt: 0 }));
    assert_eq!(handle(&mut worker, Input::Inserted(ONE), 1), []);
    assert_eq!(handle(&mut worker, Input::DeadLettersFailed(ONE, Failure::Retry), 2), []);
    let due = worker.next_wake();
    assert!(due.is_some_and(|due| due > 2 * MS && due <= 12 * MS), "{due:?}");
    assert_eq!(handle(&mut worker, Input::Tick, 12), [Action::SendDeadLetters { batch: ONE, attempt: 1 }]);
    assert!(ledger_spans(&handle(&mut worker, Input::DeadLettersDelivered(ONE), 13)).is_some());
}

#[test]
fn dead_letters_alone_need_no_insert() {
    let mut worker = worker();
    for offset in 0..3 {
        dead_letter(&mut worker, 0, offset);
    }
    assert!(ledger_spans(&handle(&mut worker, Input::DeadLettersDelivered(ONE), 1)).is_some());
}

#[test]
fn age_seals_when_a_slot_is_free() {
    let mut worker = worker();
    record(&mut worker, 0, 0, 10, 5);
    assert_eq!(worker.next_wake(), Some(105 * MS));
    assert_eq!(handle(&mut worker, Input::Tick, 104), []);
    assert_eq!(seal_reason(&handle(&mut worker, Input::Tick, 105)), Some(SealReason::Age));
    record(&mut worker, 0, 1, 10, 110);
    assert_eq!(seal_reason(&handle(&mut worker, Input::Tick, 400)), None, "one insert is under way");
    assert_eq!(seal_reason(&handle(&mut worker, Input::Inserted(ONE), 401)), Some(SealReason::Age));
}

#[test]
fn failed_inserts_are_tried_for_ever_and_in_order_of_batches() {
    let mut worker = worker();
    for offset in 0..3 {
        record(&mut worker, 0, offset, 10, 0);
    }
    let mut now = 0;
    for attempt in 1..50 {
        assert_eq!(handle(&mut worker, Input::InsertFailed(ONE, Failure::Retry), now), []);
        now += 41;
        assert_eq!(insert_attempt(&handle(&mut worker, Input::Tick, now), ONE), Some(attempt));
    }
}

#[test]
fn halting_commits_what_is_done_and_nothing_else() {
    let mut worker = worker();
    for offset in 0..3 {
        record(&mut worker, 0, offset, 10, 0);
    }
    let actions = handle(&mut worker, Input::InsertFailed(ONE, Failure::Halt("no table".into())), 1);
    assert_eq!(actions, [Action::Stop(StopReason::Halted("no table".into()))]);
    assert_eq!(handle(&mut worker, Input::Inserted(ONE), 2), [], "a stopped worker answers nothing");
}

#[test]
fn too_much_held_stops_reading_then_pauses_then_resumes() {
    let mut worker = worker();
    record(&mut worker, 0, 0, 1000, 0);
    assert!(worker.wants_records());
    record(&mut worker, 0, 1, 1000, 0);
    assert!(!worker.wants_records());
    assert!(handle(&mut worker, Input::Tick, 49).is_empty());
    assert_eq!(handle(&mut worker, Input::Tick, 50), [Action::Pause(vec![0, 1])]);
    handle(&mut worker, Input::Inserted(ONE), 60);
    let actions = handle(&mut worker, Input::LedgerWritten(ONE), 61);
    assert!(actions.contains(&Action::Resume(vec![0, 1])), "{actions:?}");
    assert!(worker.wants_records());
}

#[test]
fn who_is_suspended_stores_what_was_read_and_pauses_what_comes() {
    let mut worker = worker();
    record(&mut worker, 0, 0, 10, 0);
    let actions = handle(&mut worker, Input::Suspended(true), 1);
    assert_eq!(actions, [Action::Pause(vec![0, 1])], "at once");
    assert!(worker.is_paused());
    // A record that was fetched before is not lost.
    assert!(worker.admit(0, 1));
    record(&mut worker, 0, 1, 10, 2);
    let actions = handle(&mut worker, Input::CaughtUp, 3);
    assert!(actions.iter().any(|action| matches!(action, Action::Insert { .. })), "{actions:?}");
    handle(&mut worker, Input::Inserted(BatchId(1)), 4);
    let actions = handle(&mut worker, Input::LedgerWritten(BatchId(1)), 5);
    assert!(actions.contains(&Action::Commit(vec![(0, 2)])), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Resume(_))), "an empty worker stays paused");
    handle(&mut worker, Input::Committed, 6);
    let actions = handle(&mut worker, Input::Assigned(vec![(5, None)]), 7);
    assert_eq!(actions, [Action::Pause(vec![5])], "what is assigned meanwhile");
    assert_eq!(handle(&mut worker, Input::Suspended(true), 8), [], "said again");
    assert_eq!(worker.next_wake(), None);
    assert_eq!(handle(&mut worker, Input::Suspended(false), 9), [Action::Resume(vec![0, 1, 5])]);
    assert!(!worker.is_paused());
}

#[test]
fn an_end_of_suspension_does_not_end_a_wait_for_room() {
    let mut worker = worker();
    handle(&mut worker, Input::Suspended(true), 0);
    record(&mut worker, 0, 0, 1000, 1);
    record(&mut worker, 0, 1, 1000, 1);
    assert!(!worker.wants_records());
    let actions = handle(&mut worker, Input::Suspended(false), 2);
    assert!(!actions.iter().any(|action| matches!(action, Action::Resume(_))), "{actions:?}");
    assert!(worker.is_paused());
}

#[test]
fn revoked_work_is_finished_and_committed_before_release() {
    let mut worker = worker();
    record(&mut worker, 0, 0, 10, 0);
    record(&mut worker, 1, 0, 10, 0);
    let actions = handle(&mut worker, Input::Revoked(vec![0]), 1);
    assert_eq!(seal_reason(&actions), Some(SealReason::Revoke));
    assert!(!worker.admit(0, 1), "a revoked partition takes no more");
    assert!(worker.admit(1, 1), "the others go on");
    handle(&mut worker, Input::Inserted(ONE), 2);
    let actions = handle(&mut worker, Input::LedgerWritten(ONE), 3);
    assert!(!actions.iter().any(|action| matches!(action, Action::Release(_))), "the commit is not acknowledged");
    assert_eq!(handle(&mut worker, Input::Committed, 4), [Action::Release(vec![0])]);
}

#[test]
fn revoked_work_is_dropped_at_the_deadline() {
    let mut worker = worker();
    record(&mut worker, 0, 0, 10, 0);
    handle(&mut worker, Input::Revoked(vec![0]), 1);
    assert_eq!(handle(&mut worker, Input::Tick, 501), [Action::Release(vec![0])]);
    assert_eq!(handle(&mut worker, Input::InsertFailed(ONE, Failure::Retry), 502), [Action::Forget(ONE)]);
    assert_eq!(worker.held_bytes(), 0);
}

#[test]
fn an_old_assignment_never_commits() {
    let mut worker = worker();
    for offset in 0..3 {
        record(&mut worker, 0, offset, 10, 0);
    }
    assert_eq!(handle(&mut worker, Input::Lost(vec![0]), 1), [Action::Release(vec![0])]);
    handle(&mut worker, Input::Assigned(vec![(0, Some(0))]), 2);
    assert_eq!(handle(&mut worker, Input::Inserted(ONE), 3), [Action::Forget(ONE)]);
    assert!(worker.admit(0, 0), "the new assignment reads from its own start");
}

/// A partition is lost while its commit is on the way, and comes back at an older offset: the topic was made again, or a human set the offset back.
/// Answers what is committed when the new assignment has stored the same offsets and the answer to the old commit comes.
fn commit_after_an_old_answer(mut worker: Worker) -> Vec<Action> {
    for offset in 0..3 {
        record(&mut worker, 0, offset, 10, 0);
    }
    handle(&mut worker, Input::Inserted(ONE), 1);
    let actions = handle(&mut worker, Input::LedgerWritten(ONE), 2);
    assert!(actions.contains(&Action::Commit(vec![(0, 3)])));
    handle(&mut worker, Input::Lost(vec![0]), 3);
    handle(&mut worker, Input::Assigned(vec![(0, Some(0))]), 4);
    for offset in 0..3 {
        record(&mut worker, 0, offset, 10, 5);
    }
    handle(&mut worker, Input::Inserted(BatchId(2)), 6);
    assert_eq!(handle(&mut worker, Input::LedgerWritten(BatchId(2)), 7), [Action::Forget(BatchId(2))]);
    handle(&mut worker, Input::Committed, 8)
}

#[test]
fn the_answer_to_an_old_commit_says_nothing_of_the_new_assignment() {
    assert_eq!(commit_after_an_old_answer(worker()), [Action::Commit(vec![(0, 3)])]);
}

/// The negative control of the epoch check.
#[test]
fn without_epochs_the_new_assignment_would_never_commit() {
    let mut without = worker();
    without.ignore_epochs = true;
    assert_eq!(commit_after_an_old_answer(without), []);
}

#[test]
fn a_failed_commit_is_sent_again() {
    let mut worker = worker();
    for offset in 0..3 {
        record(&mut worker, 0, offset, 10, 0);
    }
    handle(&mut worker, Input::Inserted(ONE), 1);
    handle(&mut worker, Input::LedgerWritten(ONE), 2);
    assert_eq!(handle(&mut worker, Input::CommitFailed, 3), []);
    assert_eq!(handle(&mut worker, Input::Tick, 20), [Action::Commit(vec![(0, 3)])]);
}

#[test]
fn draining_stores_and_commits_everything_first() {
    let mut worker = worker();
    record(&mut worker, 0, 0, 10, 0);
    let actions = handle(&mut worker, Input::Drain, 1);
    assert_eq!(seal_reason(&actions), Some(SealReason::Drain));
    assert!(!worker.admit(0, 1));
    handle(&mut worker, Input::Inserted(ONE), 2);
    handle(&mut worker, Input::LedgerWritten(ONE), 3);
    assert_eq!(handle(&mut worker, Input::Committed, 4), [Action::Stop(StopReason::Drained)]);
}

#[test]
fn draining_ends_at_its_deadline() {
    let mut worker = worker();
    record(&mut worker, 0, 0, 10, 0);
    handle(&mut worker, Input::Drain, 1);
    assert_eq!(handle(&mut worker, Input::Tick, 1001), [Action::Stop(StopReason::DrainDeadline)]);
}

#[test]
fn refused_rows_are_delivered_before_the_ledger_and_counted_there() {
    let mut worker = worker();
    dead_letter(&mut worker, 0, 0);
    record(&mut worker, 0, 1, 10, 0);
    let actions = record(&mut worker, 0, 2, 10, 0);
    assert!(actions.contains(&Action::SendDeadLetters { batch: ONE, attempt: 0 }));
    assert_eq!(handle(&mut worker, Input::Refused(ONE, vec![(0, 1)]), 1), []);
    assert_eq!(handle(&mut worker, Input::Inserted(ONE), 1), []);
    let again = [Action::SendDeadLetters { batch: ONE, attempt: 0 }];
    assert_eq!(
        handle(&mut worker, Input::DeadLettersDelivered(ONE), 2),
        again,
        "the first delivery did not hold the refused row"
    );
    let actions = handle(&mut worker, Input::DeadLettersDelivered(ONE), 3);
    let spans = ledger_spans(&actions).map(|spans| (spans[0].rows, spans[0].dead_letters));
    assert_eq!(spans, Some((1, 2)));
}

#[test]
fn a_single_event_does_not_wait_when_there_is_no_more() {
    let mut worker = worker();
    assert_eq!(handle(&mut worker, Input::CaughtUp, 0), [], "nothing to seal");
    record(&mut worker, 0, 0, 10, 5);
    assert_eq!(seal_reason(&handle(&mut worker, Input::CaughtUp, 6)), Some(SealReason::CaughtUp));
    handle(&mut worker, Input::Inserted(ONE), 7);
    record(&mut worker, 0, 1, 10, 8);
    assert_eq!(seal_reason(&handle(&mut worker, Input::CaughtUp, 9)), None, "small batches are as rare as their age");
}

#[test]
fn a_large_batch_does_not_wait_when_there_is_no_more() {
    let targets = Targets { floor_rows: 2, ceiling_rows: 8, ..limits().targets };
    let mut worker = Worker::new(Limits { targets, ..limits() });
    handle(&mut worker, Input::Assigned(vec![(0, Some(0))]), 0);
    record(&mut worker, 0, 0, 10, 0);
    let actions = record(&mut worker, 0, 1, 10, 0);
    let grown = Decision { rows: 4, age: 100 * MS, cause: Cause::Backlog };
    assert!(actions.contains(&Action::Tuned(grown)), "{actions:?}");
    handle(&mut worker, Input::Inserted(ONE), 1);
    record(&mut worker, 0, 2, 10, 1);
    assert_eq!(seal_reason(&handle(&mut worker, Input::CaughtUp, 2)), None, "one row is not worth an insert so soon");
    record(&mut worker, 0, 3, 10, 3);
    assert_eq!(seal_reason(&handle(&mut worker, Input::CaughtUp, 4)), Some(SealReason::CaughtUp));
}

#[test]
fn what_needs_too_much_memory_goes_in_pieces() {
    let mut worker = worker();
    for offset in 0..3 {
        record(&mut worker, 0, offset, 10, 0);
    }
    let (mut now, mut pieces) = (0, Vec::new());
    for _ in 0..4 {
        let failed = Input::InsertFailed(ONE, Failure::Overload(Overload::Memory));
        handle(&mut worker, failed, now);
        now += 41;
        pieces.extend(handle(&mut worker, Input::Tick, now).iter().filter_map(|action| match action {
            Action::Insert { pieces, .. } => Some(*pieces),
            _ => None,
        }));
    }
    assert_eq!(pieces, [2, 3, 3, 3], "one row is the smallest piece");
    handle(&mut worker, Input::InsertFailed(ONE, Failure::Retry), now);
    let again = handle(&mut worker, Input::Tick, now + 41);
    assert!(again.iter().any(|action| matches!(action, Action::Insert { pieces: 3, attempt: 5, .. })), "{again:?}");
}

#[test]
fn a_batch_that_will_be_full_waits_for_the_rest() {
    let mut worker = worker();
    handle(&mut worker, Input::Logs(vec![(0, 0, 3), (7, 0, 100)]), 0);
    record(&mut worker, 0, 0, 10, 0);
    assert_eq!(worker.next_wake(), Some(10_000 * MS), "two more wait in the topic");
    assert_eq!(seal_reason(&handle(&mut worker, Input::CaughtUp, 200)), None, "fetching takes a moment");
    record(&mut worker, 0, 1, 10, 200);
    assert_eq!(seal_reason(&record(&mut worker, 0, 2, 10, 200)), Some(SealReason::Rows));
    handle(&mut worker, Input::Inserted(ONE), 200);
    handle(&mut worker, Input::LedgerWritten(ONE), 200);
    handle(&mut worker, Input::Committed, 200);
    record(&mut worker, 1, 0, 10, 300);
    assert_eq!(worker.next_wake(), Some(400 * MS), "nothing is known to wait");
}

#[test]
fn bytes_that_wait_in_the_topic_fill_a_batch_too() {
    let mut limits = limits();
    limits.targets.ceiling_rows = 1_000_000;
    limits.targets.floor_rows = 1_000_000;
    let mut worker = Worker::new(limits);
    handle(&mut worker, Input::Assigned(vec![(0, Some(0))]), 0);
    record(&mut worker, 0, 0, 100, 0);
    handle(&mut worker, Input::Logs(vec![(0, 0, 9)]), 0);
    assert_eq!(worker.next_wake(), Some(100 * MS), "900 of 1000 bytes");
    handle(&mut worker, Input::Logs(vec![(0, 0, 10)]), 0);
    assert_eq!(worker.next_wake(), Some(10_000 * MS));
}

#[test]
fn what_just_began_when_all_is_full_goes_on_later() {
    for (bytes, expected) in [(249, None), (250, Some(SealReason::Bytes))] {
        let mut worker = worker();
        for offset in 0..6 {
            record(&mut worker, 0, offset, 300, 0);
        }
        assert_eq!(seal_reason(&record(&mut worker, 0, 6, bytes, 0)), expected, "{bytes} bytes of 1000");
        assert!(!worker.wants_records());
        handle(&mut worker, Input::Inserted(ONE), 1);
        handle(&mut worker, Input::LedgerWritten(ONE), 1);
        assert!(worker.wants_records());
    }
}
