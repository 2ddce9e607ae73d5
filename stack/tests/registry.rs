//! The schema registry of a stack: only for who asks, controlled like the other servers, and gone with the stack.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use auditstream_stack::{Lines, Options, Stack, registry_answers};

/// A zombie has ended; who reaps it is not our business.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The local addresses of the process' listening sockets, as the kernel writes them: 0A is LISTEN.
fn listens_on(pid: u32) -> Vec<String> {
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|fd| {
            Some(
                fs::read_link(fd.ok()?.path())
                    .ok()?
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .trim_end_matches(']')
                    .to_owned(),
            )
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        for line in fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == "0A" && inodes.iter().any(|inode| inode == fields[9]) {
                found.push(fields[1].split(':').next().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn it_starts_for_who_asks_comes_back_on_its_port_and_leaves_nothing() {
    let options = Options { exe: Some(env!("CARGO_BIN_EXE_auditstream-stack").into()), ..Options::default() };
    let stack = Stack::start(options).unwrap();
    assert_eq!((stack.registry_url(), stack.state().unwrap().registry_pid), (None, None));
    let refused = stack.registry().start().unwrap_err().to_string();
    assert!(refused.contains("no schema registry"), "{refused}");

    let url = stack.add_registry(&Lines::default()).unwrap().to_owned();
    let state = stack.state().unwrap();
    let port = state.registry_port;
    assert_eq!(url, format!("http://127.0.0.1:{port}/apis/ccompat/v7"));
    assert_eq!(state.registry_url.as_deref(), Some(&*url));
    assert!(registry_answers(port));
    let first = stack.registry().pid().unwrap();
    assert_eq!(stack.add_registry(&Lines::default()).unwrap(), url, "asked again, there is still one");
    assert_eq!(stack.registry().pid(), Some(first));
    // 127.0.0.1, as IPv4 or mapped into IPv6, in the byte order of the machine.
    let addresses = listens_on(first);
    assert!(!addresses.is_empty());
    assert!(addresses.iter().all(|address| address.ends_with("0100007F")), "{addresses:?}");
    let config = fs::read_to_string(stack.dir().join("auditstream.toml")).unwrap();
    assert!(config.contains(&format!("[schema]\nregistry_url = \"{url}\"\n")), "{config}");

    stack.registry().kill().unwrap();
    assert!(!registry_answers(port) && stack.registry().pid().is_none());
    stack.registry().start().unwrap();
    assert!(registry_answers(port));
    let second = stack.registry().pid().unwrap();
    assert_ne!(first, second);

    // kill -9 of the supervisor takes it along.
    assert!(Command::new("kill").args(["-9", &state.supervisor_pid.to_string()]).status().unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(10);
    while lives(second) {
        assert!(Instant::now() < deadline, "the registry outlives the stack");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(stack);
    assert!(!state.dir.exists());
}
