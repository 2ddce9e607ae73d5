//! The stack's promises, on real servers: several at once, gone with their owner, data kept over restarts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use auditstream_stack::{Options, Role, Stack, StackError, State, clickhouse_answers, kafka_answers};

const EXE: &str = env!("CARGO_BIN_EXE_auditstream-stack");

fn start() -> Stack {
    Stack::start(Options { exe: Some(EXE.into()), ..Options::default() }).unwrap()
}

/// A zombie has ended; who reaps it is not our business.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn pids(state: &State) -> Vec<u32> {
    [Some(state.supervisor_pid), state.kafka_pid, state.clickhouse_pid].into_iter().flatten().collect()
}

fn wait_until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn assert_gone(pids: &[u32], dir: &Path) {
    wait_until("no process and no folder", Duration::from_secs(10), || {
        !pids.iter().any(|pid| lives(*pid)) && !dir.exists()
    });
}

fn sql(state: &State, role: Role, statement: &str) -> String {
    let user = state.credentials(role).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", state.clickhouse_http_port)).unwrap();
    write!(
        stream,
        "POST / HTTP/1.0\r\nX-ClickHouse-User: {}\r\nX-ClickHouse-Key: {}\r\nContent-Length: {}\r\n\r\n{statement}",
        user.user,
        user.password,
        statement.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.trim().to_owned()
}

/// Kafka's error code for making a topic: 0 made, 36 it exists (protocol: CreateTopics, version 2).
fn create_topic(port: u16, name: &str) -> i16 {
    let string = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat();
    let body = [
        &19i16.to_be_bytes()[..],
        &2i16.to_be_bytes(),
        &7i32.to_be_bytes(),
        &string("test"),
        &1i32.to_be_bytes(), // topics
        &string(name),
        &1i32.to_be_bytes(),      // partitions
        &1i16.to_be_bytes(),      // replicas
        &0i32.to_be_bytes(),      // assignments
        &0i32.to_be_bytes(),      // settings
        &10_000i32.to_be_bytes(), // patience, ms
        &[0],                     // not only to validate
    ]
    .concat();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(&u32::try_from(body.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    // Correlation, throttle time, number of topics, name.
    let at = 4 + 4 + 4 + 2 + name.len();
    i16::from_be_bytes(answer[at..at + 2].try_into().unwrap())
}

#[test]
fn two_at_once_are_apart_and_leave_nothing() {
    let (one, two) = thread::scope(|scope| {
        let (one, two) = (scope.spawn(start), scope.spawn(start));
        (one.join().unwrap(), two.join().unwrap())
    });
    let (a, b) = (one.state().unwrap(), two.state().unwrap());
    assert_ne!(a.dir, b.dir);
    for state in [&a, &b] {
        assert!(kafka_answers(state.kafka_port), "{}", state.name);
        assert!(clickhouse_answers(state.clickhouse_http_port), "{}", state.name);
        assert_eq!(sql(state, Role::Admin, "EXISTS DATABASE audit"), "1");
        assert_eq!(sql(state, Role::Analyst, "SELECT currentUser() FORMAT TSV"), "audit_analyst");
    }
    // One's passwords are worth nothing at the other.
    let mut mixed = a.clone();
    mixed.users.clone_from(&b.users);
    assert!(sql(&mixed, Role::Admin, "SELECT 1").contains("AUTHENTICATION_FAILED"));

    let taken = Stack::start(Options { exe: Some(EXE.into()), ..Options::named(one.name()) });
    assert!(matches!(taken, Err(StackError::InUse(_))), "{taken:?}");

    let logs = std::env::temp_dir().join(format!("auditstream-logs-{}", std::process::id()));
    let kept = one.keep_logs(&logs).unwrap();
    assert!(kept.iter().any(|path| path.ends_with("kafka.log")));
    assert!(fs::read_to_string(logs.join("clickhouse.log")).unwrap().contains("Listening for http"));
    fs::remove_dir_all(logs).unwrap();

    drop(one);
    assert_gone(&pids(&a), &a.dir);
    assert!(kafka_answers(b.kafka_port), "the other lives on");
    drop(two);
    assert_gone(&pids(&b), &b.dir);
}

#[test]
fn kill_9_of_the_owner_leaves_nothing() {
    let mut owner =
        Command::new(EXE).arg("hold").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start the owner");
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let state: State = serde_json::from_str(&line).unwrap();
    assert!(pids(&state).iter().all(|pid| lives(*pid)));
    assert!(state.dir.exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert_gone(&pids(&state), &state.dir);
}

#[test]
fn kill_9_of_the_supervisor_takes_the_servers_along() {
    let stack = start();
    let state = stack.state().unwrap();
    assert!(Command::new("kill").args(["-9", &state.supervisor_pid.to_string()]).status().unwrap().success());
    wait_until("no process", Duration::from_secs(10), || !pids(&state).iter().any(|pid| lives(*pid)));
    assert!(matches!(stack.kafka().start(), Err(StackError::Supervisor(_))));
    drop(stack);
    assert!(!state.dir.exists());
}

#[test]
fn a_detached_stack_outlives_its_owner_until_down() {
    let state = start().detach().unwrap();
    assert!(kafka_answers(state.kafka_port));
    assert_eq!(auditstream_stack::find(&state.name).unwrap().unwrap().supervisor_pid, state.supervisor_pid);
    auditstream_stack::down(&state.name).unwrap();
    assert_gone(&pids(&state), &state.dir);
    assert!(matches!(auditstream_stack::down(&state.name), Err(StackError::NotUp(_))));
}

#[test]
fn servers_come_back_on_the_same_ports_with_their_data() {
    let stack = start();
    let before = stack.state().unwrap();
    assert_eq!(create_topic(before.kafka_port, "kept"), 0);
    sql(&before, Role::Admin, "CREATE TABLE audit.kept (n Int64) ENGINE = MergeTree ORDER BY n");
    sql(&before, Role::Admin, "INSERT INTO audit.kept SELECT number FROM system.numbers LIMIT 1000");

    stack.clickhouse().kill().unwrap();
    assert_eq!(stack.clickhouse().pid(), None);
    assert!(!clickhouse_answers(before.clickhouse_http_port));
    stack.clickhouse().start().unwrap();
    stack.kafka().kill().unwrap();
    assert!(!kafka_answers(before.kafka_port));
    stack.kafka().start().unwrap();

    let after = stack.state().unwrap();
    assert_ne!(after.kafka_pid, before.kafka_pid);
    assert_eq!(create_topic(before.kafka_port, "kept"), 36);
    assert_eq!(sql(&before, Role::Admin, "SELECT count() FROM audit.kept"), "1000");

    stack.clickhouse().stop().unwrap();
    stack.kafka().stop().unwrap();
    assert_eq!((stack.kafka().pid(), stack.clickhouse().pid()), (None, None));
    stack.clickhouse().start().unwrap();
    stack.kafka().start().unwrap();
    assert_eq!(create_topic(before.kafka_port, "kept"), 36);
    assert_eq!(sql(&before, Role::Admin, "SELECT count() FROM audit.kept"), "1000");
    assert!(stack.kafka().start().is_err(), "it runs already");
}

#[test]
fn a_paused_server_is_silent_and_then_answers_again() {
    let stack = start();
    let state = stack.state().unwrap();
    stack.clickhouse().pause().unwrap();
    stack.kafka().pause().unwrap();
    assert!(!clickhouse_answers(state.clickhouse_http_port));
    assert!(!kafka_answers(state.kafka_port));
    stack.clickhouse().resume().unwrap();
    stack.kafka().resume().unwrap();
    wait_until("ClickHouse answers", Duration::from_secs(20), || clickhouse_answers(state.clickhouse_http_port));
    wait_until("Kafka answers", Duration::from_secs(20), || kafka_answers(state.kafka_port));
    // Paused servers can be stopped, too.
    stack.clickhouse().pause().unwrap();
    drop(stack);
    assert_gone(&pids(&state), &state.dir);
}

#[test]
fn a_folder_of_ones_own_choice() {
    let dir: PathBuf = std::env::temp_dir().join(format!("auditstream-own-{}", std::process::id()));
    let options = Options { exe: Some(EXE.into()), dir: Some(dir.clone()), ..Options::default() };
    let stack = Stack::start(options).unwrap();
    assert_eq!(stack.dir(), dir);
    assert!(dir.join("auditstream-admin.toml").is_file());
    drop(stack);
    assert!(!dir.exists());
}
