//! Throw-away PostgreSQL and MariaDB servers from Debian's packages, for tests of what uses a service's own database.
//!
//! Each has a data folder of its own in the system's temporary folder, a free loopback port and a random password, never touches a cluster of the
//! system's, and runs as an unprivileged user when we are root. It ends when it is dropped and when this process dies in whatever way, and
//! leaves no process, no file and no shared memory. Nothing is synced to disk: a crash of the machine costs the data.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User, chown};

use crate::error::{InstallError, StackError, Tried as _};
use crate::hook::{GUARD, bound, executable, remove_folder};
use crate::install::{DatabasePackage, ensure_database};
use crate::ports;
use crate::progress::{Lines, Progress};
use crate::random;
use crate::server::tail_of;

/// Patience for a server to answer after its start.
const READY: Duration = Duration::from_secs(60);
/// Patience for SIGQUIT or SIGTERM before SIGKILL follows.
const STOP: Duration = Duration::from_secs(10);

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    Mariadb,
}

/// A running database server with one empty database. Dropping it, or the death of this process, ends it and removes its folder.
#[derive(Debug)]
pub struct DatabaseServer {
    url: String,
    port: u16,
    kind: Kind,
    settings: Vec<String>,
    plan: Plan,
    // Dropped in this order: the server, then the guard that removes its folder.
    keeper: Option<Keeper>,
    guard: Child,
}

/// The thread that holds the server.
#[derive(Debug)]
struct Keeper {
    pid: u32,
    /// Ends the server by that signal; dropped, by the one that is quickest.
    stop: Sender<Signal>,
    thread: JoinHandle<()>,
}

impl DatabaseServer {
    /// PostgreSQL, installed when it is missing.
    ///
    /// # Errors
    /// It can't be installed (the message has the command to run) or does not start (the message has the end of its log).
    pub fn postgres() -> Result<Self, StackError> {
        Self::postgres_with(&[])
    }

    /// PostgreSQL with settings beyond the harness's own, or other than those: name and value, as in postgresql.conf.
    ///
    /// # Errors
    /// As for [`Self::postgres`]; an unknown setting stands in the end of the log.
    pub fn postgres_with(settings: &[(&str, &str)]) -> Result<Self, StackError> {
        let settings = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Self::start(Kind::Postgres, settings, &Lines::default())
    }

    /// MariaDB, installed when it is missing.
    ///
    /// # Errors
    /// As for [`Self::postgres`].
    pub fn mariadb() -> Result<Self, StackError> {
        Self::start(Kind::Mariadb, Vec::new(), &Lines::default())
    }

    /// The URL of its database with user and password, as sqlx takes it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where its files lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.plan.folder
    }

    /// The server's process, the parent of its others. None after a [`Self::restart`] that failed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.keeper.as_ref().map(|keeper| keeper.pid)
    }

    /// Ends it as an operator does, data written, connections cut, and starts it again at the same port with the same data.
    ///
    /// # Errors
    /// It does not start again; the message has the end of its log.
    pub fn restart(&mut self) -> Result<(), StackError> {
        if let Some(keeper) = self.keeper.take() {
            // It may have ended already.
            let _ = keeper.stop.send(if self.kind == Kind::Postgres { Signal::SIGINT } else { Signal::SIGTERM });
            let _ = keeper.thread.join();
        }
        self.launch()
    }

    fn start(kind: Kind, settings: Vec<String>, progress: &dyn Progress) -> Result<Self, StackError> {
        let package = match kind {
            Kind::Postgres => DatabasePackage::Postgres,
            Kind::Mariadb => DatabasePackage::Mariadb,
        };
        let programs = ensure_database(package, progress)?;
        let user = unprivileged(kind)?;
        let (folder, guard) = folder(user.as_ref())?;
        let plan = Plan { folder, programs, user };
        // From here on dropping it cleans up.
        let mut server = Self { url: String::new(), port: 0, kind, settings, plan, keeper: None, guard };
        let folder = &server.plan.folder;
        let [port] = ports::pick::<1>().tried("find a free port for", folder)?;
        let password = random::password().tried("read random bytes for", folder)?;
        let scheme = match kind {
            Kind::Postgres => {
                server.plan.init_postgres(&password)?;
                "postgres"
            }
            Kind::Mariadb => {
                server.plan.init_mariadb(&password)?;
                "mysql"
            }
        };
        server.port = port;
        server.url = format!("{scheme}://audit:{password}@127.0.0.1:{port}/audit");
        server.launch()?;
        Ok(server)
    }

    /// Starts it on what is in its folder, and waits until it answers.
    fn launch(&mut self) -> Result<(), StackError> {
        // MariaDB greets whoever connects.
        let (command, quickest, greeting) = match self.kind {
            Kind::Postgres => (self.plan.postgres(self.port, &self.settings)?, Signal::SIGQUIT, None),
            Kind::Mariadb => (self.plan.mariadb(self.port)?, Signal::SIGKILL, Some(1)),
        };
        self.keeper = Some(keep(command, quickest)?);
        self.wait(self.port, greeting)
    }

    fn wait(&self, port: u16, greeting: Option<usize>) -> Result<(), StackError> {
        let deadline = Instant::now() + READY;
        loop {
            if self.keeper.as_ref().is_none_or(|keeper| keeper.thread.is_finished()) || Instant::now() >= deadline {
                let log = tail_of(&self.plan.folder.join("server.log"), 20);
                return Err(StackError::Failed(format!(
                    "the database server did not start; the end of its log:\n{log}"
                )));
            }
            if answers(port, greeting).is_ok_and(|answers| answers) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for DatabaseServer {
    fn drop(&mut self) {
        if let Some(Keeper { stop, thread, .. }) = self.keeper.take() {
            drop(stop);
            let _ = thread.join();
        }
        // Its end is the sign for the guard.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        remove_folder(&self.plan.folder, Duration::from_secs(5));
    }
}

/// PostgreSQL answers a request for TLS with one byte, also while it starts, when it says no more than that; so a second look asks for a login.
fn answers(port: u16, greeting: Option<usize>) -> std::io::Result<bool> {
    use std::io::Read as _;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    if greeting.is_none() {
        // StartupMessage 3.0 of a user; the answer is R (log in) when it is up and E (starting) when not
        // (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).
        let body = b"\x00\x03\x00\x00user\0audit\0database\0audit\0\0";
        let length = u32::try_from(body.len() + 4).unwrap_or_default();
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(body)?;
    }
    let mut first = [0; 5];
    stream.read_exact(&mut first)?;
    // MariaDB: three bytes of length, a number, and the protocol's version, 10; 0xff is an error.
    Ok(if greeting.is_none() { first[0] == b'R' } else { first[4] == 10 })
}

/// Starts the command on a thread that stays, because the server's life is bound to a thread; it ends the server when it is told to, and when the sender is dropped.
fn keep(mut command: Command, quickest: Signal) -> Result<Keeper, StackError> {
    let (stop, stopped) = mpsc::channel::<Signal>();
    let (started, begun) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let _ = started.send(Ok(child.id()));
        let mut end = quickest;
        while matches!(child.try_wait(), Ok(None)) {
            match stopped.recv_timeout(Duration::from_millis(100)) {
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Ok(signal) => {
                    end = signal;
                    break;
                }
            }
        }
        finish(&mut child, end);
    });
    let failed = |source| StackError::Io { what: "start a database server".to_owned(), source };
    let pid = begun.recv().unwrap_or_else(|_| Err(std::io::ErrorKind::BrokenPipe.into())).map_err(failed)?;
    Ok(Keeper { pid, stop, thread })
}

fn finish(child: &mut Child, end: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have ended already.
        let _ = kill(Pid::from_raw(pid), end);
    }
    let deadline = Instant::now() + STOP;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            let _ = child.kill();
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A fresh folder of `user`'s, and the guard that removes it when this process ends.
fn folder(user: Option<&User>) -> Result<(PathBuf, Child), StackError> {
    let name = random::kafka_uuid().tried("make a name in", &std::env::temp_dir())?;
    let folder = std::env::temp_dir().join(format!("auditstream-database-{name}"));
    fs::DirBuilder::new().mode(0o700).create(&folder).tried("create", &folder)?;
    let guard = Command::new(executable()?)
        .arg(GUARD)
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .tried("start the guard of", &folder)?;
    if let Some(user) = user {
        chown(&folder, Some(user.uid), Some(user.gid))
            .map_err(std::io::Error::from)
            .tried("give away the folder", &folder)?;
    }
    Ok((folder, guard))
}

/// Whom the server runs as when we are root: PostgreSQL refuses to be root, and MariaDB should not be.
fn unprivileged(kind: Kind) -> Result<Option<User>, StackError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let names: &[&str] = if kind == Kind::Postgres { &["postgres", "nobody"] } else { &["nobody"] };
    let found = names.iter().find_map(|name| User::from_name(name).ok().flatten());
    found
        .map(Some)
        .ok_or_else(|| StackError::Failed("there is no user `nobody` to run a database server as".to_owned()))
}

/// Where everything of one server lies.
#[derive(Debug)]
struct Plan {
    folder: PathBuf,
    programs: PathBuf,
    user: Option<User>,
}

impl Plan {
    /// A command that runs `program` as the unprivileged user and dies with the calling thread.
    fn command(&self, program: &Path, end: &str) -> Result<Command, StackError> {
        let mut command = match &self.user {
            None => bound(program)?,
            Some(user) => {
                // The kernel forgets the bond when the user changes, so it is made again.
                let mut command = bound(Path::new("setpriv"))?;
                command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
                command.args(["--clear-groups", "--pdeathsig", end]).arg(program);
                command
            }
        };
        let log = self.folder.join("server.log");
        let out = File::options().append(true).create(true).open(&log).tried("create", &log)?;
        let errors = out.try_clone().tried("open", &log)?;
        command.current_dir(&self.folder).env("HOME", &self.folder).env_remove("PGPORT").env_remove("PGDATA");
        command.stdin(Stdio::null()).stdout(out).stderr(errors);
        Ok(command)
    }

    /// Runs a step of the preparation to its end.
    fn run(&self, mut command: Command, what: &str) -> Result<(), StackError> {
        let status = command.status().tried(what, &self.folder)?;
        if status.success() {
            return Ok(());
        }
        let output = tail_of(&self.folder.join("server.log"), 20);
        Err(InstallError::Command { what: what.to_owned(), status: status.to_string(), output }.into())
    }

    /// A file that only the server's user can read.
    fn write(&self, name: &str, text: &str) -> Result<PathBuf, StackError> {
        let path = self.folder.join(name);
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&path).tried("create", &path)?;
        file.write_all(text.as_bytes()).tried("write", &path)?;
        if let Some(user) = &self.user {
            chown(&path, Some(user.uid), Some(user.gid)).map_err(std::io::Error::from).tried("give away", &path)?;
        }
        Ok(path)
    }

    fn init_postgres(&self, password: &str) -> Result<(), StackError> {
        let data = self.folder.join("data");
        let password = self.write("password", password)?;
        let mut init = self.command(&self.programs.join("initdb"), "QUIT")?;
        init.arg("-D").arg(&data).arg("--pwfile").arg(&password);
        init.args(["--username=audit", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        self.run(init, "initdb")?;
        // The database `audit` is made by a server for one user, which reads statements.
        let create = self.write("create.sql", "CREATE DATABASE audit;\n")?;
        let mut single = self.command(&self.programs.join("postgres"), "QUIT")?;
        single.args(["--single", "-F", "-D"]).arg(&data).arg("postgres");
        single.stdin(File::open(&create).tried("open", &create)?);
        self.run(single, "make the database")
    }

    fn postgres(&self, port: u16, settings: &[String]) -> Result<Command, StackError> {
        let mut command = self.command(&self.programs.join("postgres"), "QUIT")?;
        command.arg("-D").arg(self.folder.join("data")).arg("-F");
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            // In the data folder, which goes with the server.
            "dynamic_shared_memory_type=mmap",
            "shared_buffers=64MB",
            "max_connections=50",
            "full_page_writes=off",
            "synchronous_commit=off",
            "max_wal_size=1GB",
        ] {
            command.args(["-c", setting]);
        }
        // Of two values of one setting the later holds.
        for setting in settings {
            command.args(["-c", setting]);
        }
        command.args(["-c", &format!("port={port}")]);
        Ok(command)
    }

    fn init_mariadb(&self, password: &str) -> Result<(), StackError> {
        let data = self.folder.join("data");
        let mut init = self.command(&self.programs.join("mariadb-install-db"), "KILL")?;
        init.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
        init.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
        self.run(init, "mariadb-install-db")?;
        // Read at each start.
        let users = format!(
            "CREATE DATABASE IF NOT EXISTS audit;\nCREATE USER IF NOT EXISTS 'audit'@'127.0.0.1' IDENTIFIED BY '{password}';\n\
             GRANT ALL ON audit.* TO 'audit'@'127.0.0.1';\nALTER USER 'root'@'localhost' IDENTIFIED BY '{password}';\n"
        );
        self.write("users.sql", &users).map(drop)
    }

    fn mariadb(&self, port: u16) -> Result<Command, StackError> {
        let mut command = self.command(Path::new("/usr/sbin/mariadbd"), "KILL")?;
        command.arg("--no-defaults").arg(format!("--datadir={}", self.folder.join("data").display()));
        command.arg(format!("--port={port}")).arg(format!("--init-file={}", self.folder.join("users.sql").display()));
        command.arg(format!("--socket={}", self.folder.join("socket").display()));
        command.arg(format!("--tmpdir={}", self.folder.display()));
        command.args([
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-doublewrite=0",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=32M",
        ]);
        Ok(command)
    }
}
