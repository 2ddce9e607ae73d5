//! The throw-away database servers: they answer, and leave nothing.
#![allow(clippy::unwrap_used, reason = "test code")]

use auditstream_stack::DatabaseServer;

fn left() -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().contains("auditstream-database-")).collect()
}

#[test]
fn both_start_and_start_again_and_leave_nothing() {
    let before = left();
    let mut servers = [DatabaseServer::postgres().unwrap(), DatabaseServer::mariadb().unwrap()];
    assert!(servers[0].url().starts_with("postgres://audit:"));
    assert!(servers[1].url().starts_with("mysql://audit:"));
    assert!(left().len() >= before.len() + 2);
    for server in &mut servers {
        let (url, pid) = (server.url().to_owned(), server.pid());
        // It returns once the server answers.
        server.restart().unwrap();
        assert!(pid.is_some() && server.pid().is_some() && server.pid() != pid, "another process");
        assert_eq!(server.url(), url);
        assert!(server.folder().join("data").is_dir());
    }
    drop(servers);
    assert_eq!(left().len(), before.len(), "{:?}", left());
}
