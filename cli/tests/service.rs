//! `auditstream service`, `completions` and `man`: what they write. No server needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::path::Path;
use std::process::{Command, Stdio};

fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_auditstream"));
    let output = command.env_clear().current_dir(folder).args(args).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// What `systemd-analyze verify` complains about; `None` where there is none.
fn verified(unit: &Path, is_user: bool) -> Option<String> {
    let mut command = Command::new("systemd-analyze");
    if is_user {
        command.arg("--user");
    }
    let output = match command.arg("verify").arg(unit).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: systemd-analyze (package systemd) can't be run: {error}");
            return None;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Other units of this machine, and a manager that a container has not, are no matter of ours.
    let name = unit.file_name().unwrap().to_str().unwrap();
    let ours: Vec<_> = said.lines().filter(|line| line.contains(name)).collect();
    Some(ours.join("\n"))
}

#[test]
fn a_service_is_installed_verified_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("auditstream.toml");
    std::fs::write(&config, "[consumer]\ndrain_deadline_ms = 20000\n").unwrap();
    let units = folder.path().join("units");
    let dir = units.to_str().unwrap();
    for (args, file, is_user) in [
        (&["install"][..], "auditstream.service", false),
        (&["install", "--name", "by-hand", "--run-as", "root", "--memory-max", "1G"], "by-hand.service", false),
        (&["install", "--user", "--name", "own"], "own.service", true),
    ] {
        let args = [&["service"], args, &["--dir", dir]].concat();
        let (code, stdout, stderr) = run(folder.path(), &args);
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains(&format!("wrote {dir}/{file}")) && stdout.contains("enable --now"), "{stdout}");
        let unit = units.join(file);
        let text = std::fs::read_to_string(&unit).unwrap();
        assert!(text.contains("TimeoutStopSec=30\n") && text.contains("WatchdogSec=90\n"), "{text}");
        assert!(text.contains(&format!("--config \"{}\" consume\n", config.display())), "{text}");
        if let Some(complaints) = verified(&unit, is_user) {
            assert_eq!(complaints, "", "{text}");
        }
    }
    // Again: its own unit is replaced; another's is not touched.
    let (code, ..) = run(folder.path(), &["service", "install", "--dir", dir]);
    assert_eq!(code, 0);
    std::fs::write(units.join("foreign.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    for word in ["install", "uninstall"] {
        let (code, _, stderr) = run(folder.path(), &["service", word, "--name", "foreign", "--dir", dir]);
        assert!(code == 1 && stderr.contains("was not written by auditstream"), "{stderr}");
    }
    let (code, stdout, _) = run(folder.path(), &["service", "uninstall", "--dir", dir, "--dry-run"]);
    assert!(code == 0 && stdout.contains("would be stopped"), "{stdout}");
    let (code, _, stderr) = run(folder.path(), &["service", "uninstall", "--dir", dir]);
    assert!(code == 1 && stderr.contains("--yes"), "{stderr}");
    assert!(units.join("auditstream.service").exists());
    assert_eq!(run(folder.path(), &["service", "uninstall", "--dir", dir, "--yes"]).0, 0);
    assert!(!units.join("auditstream.service").exists());
    // What can't run is not installed.
    let (code, _, stderr) = run(folder.path(), &["service", "install", "relay", "--dir", dir]);
    assert!(code == 2 && stderr.contains("outbox.url"), "{stderr}");
    let (code, stdout, _) = run(folder.path(), &["service", "install", "--dry-run"]);
    assert!(code == 0 && stdout.contains("Type=notify"), "{stdout}");
}

/// A relay on a SQLite outbox writes a file of another service's: the sandbox lets it, or the unit is not written.
#[test]
fn a_relay_may_write_its_sqlite_outbox() {
    let folder = tempfile::Builder::new().tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (units, config) = (folder.path().join("units"), folder.path().join("auditstream.toml"));
    let install = |url: &str, more: &[&str]| {
        std::fs::write(&config, format!("[outbox]\nurl = \"{url}\"\n")).unwrap();
        run(folder.path(), &[&["service", "install", "relay", "--dir", units.to_str().unwrap()], more].concat())
    };
    let database = format!("sqlite://{}/shop.db", folder.path().display());
    let (code, _, stderr) = install(&database, &["--run-as", "root"]);
    assert_eq!(code, 0, "{stderr}");
    let unit = units.join("auditstream.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    assert!(text.contains(&format!("\nReadWritePaths=\"{}\"\n", folder.path().display())), "{text}");
    if let Some(complaints) = verified(&unit, false) {
        assert_eq!(complaints, "", "{text}");
    }
    assert_eq!(install(&database, &["--user", "--name", "own"]).0, 0, "a user's own manager closes nothing");
    for (url, more, part) in [
        (&*database, &[][..], "give --run-as"),
        ("sqlite://shop.db", &["--run-as", "root"], "must be an absolute path"),
        ("sqlite:///tmp/shop.db", &["--run-as", "root"], "lies in /tmp"),
        ("sqlite:///no/such/folder/shop.db", &["--run-as", "root"], "there is no folder /no/such/folder"),
    ] {
        let (code, _, stderr) = install(url, more);
        assert!(code == 1 && stderr.contains(part), "{url}: {stderr}");
    }
    let (code, _, stderr) = install("postgres://shop:secret@db/shop", &[]);
    assert!(code == 0, "{stderr}");
    assert!(!std::fs::read_to_string(&unit).unwrap().contains("ReadWritePaths"));
}

/// A service is not removed before the audit trail knows of it.
#[test]
fn nothing_is_uninstalled_that_is_not_audited() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_auditstream"));
        let command = command.env_clear().env("XDG_CONFIG_HOME", folder.path()).current_dir(folder.path());
        let command = command.env("AUDITSTREAM_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9");
        let command = command.env("AUDITSTREAM_PRODUCER__DELIVERY_TIMEOUT_MS", "1000").args(args);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let units = folder.path().join("systemd/user");
    // Without telling the manager of whoever runs this test.
    let dir = ["--name", "by-test", "--dir", units.to_str().unwrap()];
    assert_eq!(run(&[&["service", "install", "--user"], &dir[..]].concat()).0, 0);
    let unit = units.join("by-test.service");
    assert!(unit.exists());
    let (code, stderr) = run(&["service", "uninstall", "--user", "--name", "by-test", "--yes"]);
    assert!(code == 1 && stderr.contains("nothing was done: the audit event was not acknowledged"), "{stderr}");
    assert!(unit.exists());
}

/// A worker tells its service manager that it is ready, that it is alive, and that it stops. It waits for servers that are not there.
#[test]
fn a_worker_tells_its_service_manager() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut worker = Command::new(env!("CARGO_BIN_EXE_auditstream"))
        .env_clear()
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "300000")
        .env("AUDITSTREAM_CONSUMER__HTTP_LISTEN", format!("127.0.0.1:{port}"))
        .env("AUDITSTREAM_CLICKHOUSE__URL", "http://127.0.0.1:9")
        .env("AUDITSTREAM_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9")
        .current_dir(folder.path())
        .arg("consume")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let hear = || {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).expect("the worker says something within 20 s");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!([hear(), hear(), hear()], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    let pid = worker.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while hear() != "STOPPING=1" {
        assert!(std::time::Instant::now() < until, "it never said that it stops");
    }
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let (code, stdout, _) = run(folder.path(), &["completions", shell]);
        assert_eq!(code, 0);
        assert!(stdout.contains("dlq") && stdout.contains("discard"), "{shell}: {stdout}");
    }
    let dir = folder.path().join("man");
    assert_eq!(run(folder.path(), &["man", "--dir", dir.to_str().unwrap()]).0, 0);
    let page = std::fs::read_to_string(dir.join("auditstream.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("Exit codes"), "{page}");
    assert!(dir.join("auditstream-dlq-retry.1").exists() && dir.join("auditstream-topics-create.1").exists());
}
