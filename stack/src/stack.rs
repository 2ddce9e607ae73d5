//! A stack as its owner sees it: started, controlled, and gone when dropped.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::claim::check_name;
use crate::config::KafkaListener;
use crate::error::{StackError, Tried as _};
use crate::hook::{PROCESS_NAME, SUPERVISE, executable, remove_folder};
use crate::install::{Registry, cache_dir, ensure_registry, ensure_servers};
use crate::progress::{Lines, Progress};
use crate::protocol::{Reply, Request, Spec, VERSION};
use crate::state::{Role, ServerKind, State};

/// How to start a stack.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name; empty for one that nobody else has. Two living stacks never share a name.
    pub name: String,
    /// Its folder; by default one of its name in the cache. It is made, and removed in the end.
    pub dir: Option<PathBuf>,
    /// For benchmarks and the demo: Kafka with the full just-in-time compiler and a heap of 512 MiB instead of 256.
    pub throughput: bool,
    /// ClickHouse's memory limit in bytes; 6 GiB by default.
    pub clickhouse_memory: u64,
    /// Further listeners of Kafka on loopback, beside the plaintext one that brokers and tools use.
    pub kafka_listeners: Vec<KafkaListener>,
    /// Users and passwords for listeners with SCRAM-SHA-512.
    pub kafka_scram_users: Vec<(String, String)>,
    /// A schema registry too, as [`Stack::add_registry`] does.
    pub registry: bool,
    /// The executable that plays the supervisor. By default `AUDITSTREAM_STACK_EXE`, else this one when it called
    /// [`hook`](crate::hook()), else an `auditstream-stack` beside it or in the two folders above.
    pub exe: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: String::new(),
            dir: None,
            throughput: false,
            clickhouse_memory: 6 << 30,
            kafka_listeners: Vec::new(),
            kafka_scram_users: Vec::new(),
            registry: false,
            exe: None,
        }
    }
}

impl Options {
    /// Default options and that name.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// The folder that holds stacks.
pub(crate) fn root() -> Result<PathBuf, StackError> {
    Ok(cache_dir()?.join("stacks"))
}

/// A running Kafka and ClickHouse, and a schema registry if asked for. Dropping it, or the death of this process, stops them and removes their folder.
#[derive(Debug)]
pub struct Stack {
    /// As it was when it started; pids change.
    start: State,
    kafka: Server,
    clickhouse: Server,
    registry: Server,
    registry_url: OnceLock<String>,
    link: Arc<Mutex<Link>>,
}

impl Stack {
    /// Installs what is missing (shown on stderr), starts both servers and returns when both answer.
    ///
    /// # Errors
    /// See [`StackError`]; when a server does not start, the end of its log is in the message.
    pub fn start(options: Options) -> Result<Self, StackError> {
        Self::start_shown(options, &Lines::default())
    }

    /// The same, an installation shown by `progress`.
    ///
    /// # Errors
    /// As for [`Stack::start`].
    pub fn start_shown(options: Options, progress: &dyn Progress) -> Result<Self, StackError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = if options.name.is_empty() {
            format!("pid{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
        } else {
            options.name
        };
        check_name(&name)?;
        options.kafka_listeners.iter().try_for_each(|listener| listener.check().map_err(StackError::Failed))?;
        let servers = ensure_servers(progress)?;
        let registry = options.registry.then(|| ensure_registry(progress)).transpose()?;
        let root = root()?;
        let dir = match options.dir {
            Some(dir) => std::path::absolute(&dir).tried("find", &dir)?,
            None => root.join(&name),
        };
        let exe = options.exe.map_or_else(executable, Ok)?;
        let spec = Spec {
            version: VERSION,
            name,
            dir,
            root,
            throughput: options.throughput,
            clickhouse_memory: options.clickhouse_memory,
            kafka_listeners: options.kafka_listeners,
            kafka_scram_users: options.kafka_scram_users,
            servers,
        };
        let (link, start) = Link::open(&exe, &spec)?;
        let link = Arc::new(Mutex::new(link));
        let server = |kind| Server { kind, link: Arc::clone(&link) };
        let stack = Self {
            start,
            kafka: server(ServerKind::Kafka),
            clickhouse: server(ServerKind::Clickhouse),
            registry: server(ServerKind::Registry),
            registry_url: OnceLock::new(),
            link,
        };
        if let Some(registry) = &registry {
            stack.ask_for_registry(registry)?;
        }
        Ok(stack)
    }

    /// Starts a schema registry (Apicurio) beside the two servers, installed first when it is missing, and returns its base URL when it answers. It
    /// keeps what is registered in memory: a restart forgets all of it. Called again, it only returns the URL.
    ///
    /// # Errors
    /// As for [`Stack::start`].
    pub fn add_registry(&self, progress: &dyn Progress) -> Result<&str, StackError> {
        match self.registry_url() {
            Some(url) => Ok(url),
            None => self.ask_for_registry(&ensure_registry(progress)?),
        }
    }

    fn ask_for_registry(&self, installed: &Registry) -> Result<&str, StackError> {
        let state = lock(&self.link).ask(Request::AddRegistry(installed.clone()))?;
        let url = state.registry_url.ok_or_else(|| StackError::Supervisor("answers without a registry".into()))?;
        Ok(self.registry_url.get_or_init(|| url))
    }

    /// The schema registry's base URL, `http://127.0.0.1:PORT/apis/ccompat/v7`, when it was asked for.
    #[must_use]
    pub fn registry_url(&self) -> Option<&str> {
        self.registry_url.get().map(String::as_str)
    }

    /// The schema registry; a stack that was not asked for one can't start it.
    #[must_use]
    pub fn registry(&self) -> &Server {
        &self.registry
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn kafka_bootstrap(&self) -> &str {
        &self.start.kafka_bootstrap
    }

    /// The port on 127.0.0.1 of one of [`Options::kafka_listeners`].
    #[must_use]
    pub fn kafka_listener_port(&self, name: &str) -> Option<u16> {
        self.start.kafka_listener_ports.get(name).copied()
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn clickhouse_url(&self) -> &str {
        &self.start.clickhouse_url
    }

    /// The port of ClickHouse's native protocol.
    #[must_use]
    pub fn clickhouse_tcp_port(&self) -> u16 {
        self.start.clickhouse_tcp_port
    }

    /// User and password of a ClickHouse role.
    #[must_use]
    pub fn credentials(&self, role: Role) -> (&str, &str) {
        self.start.credentials(role).map_or(("", ""), |found| (&found.user, &found.password))
    }

    /// The stack's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.start.name
    }

    /// The folder of data, logs and configuration: `auditstream.toml` connects as ingest user, `auditstream-admin.toml`
    /// as administrator.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.start.dir
    }

    /// The servers' log files.
    #[must_use]
    pub fn log_paths(&self) -> Vec<PathBuf> {
        self.start.log_paths()
    }

    /// Everything known of the stack now, current pids included.
    ///
    /// # Errors
    /// The supervisor does not answer.
    pub fn state(&self) -> Result<State, StackError> {
        lock(&self.link).ask(Request::Look)
    }

    /// Kafka.
    #[must_use]
    pub fn kafka(&self) -> &Server {
        &self.kafka
    }

    /// ClickHouse.
    #[must_use]
    pub fn clickhouse(&self) -> &Server {
        &self.clickhouse
    }

    /// Copies the servers' logs to a folder that stays, and returns their new paths.
    ///
    /// # Errors
    /// The folder cannot be made or a log cannot be copied.
    pub fn keep_logs(&self, to: &Path) -> Result<Vec<PathBuf>, StackError> {
        fs::create_dir_all(to).tried("create", to)?;
        let mut kept = Vec::new();
        for log in self.log_paths() {
            let Some(name) = log.file_name().filter(|_| log.exists()) else { continue };
            let target = to.join(name);
            fs::copy(&log, &target).tried("copy", &log)?;
            kept.push(target);
        }
        Ok(kept)
    }

    /// Lets the stack live on without this process, until [`down`](crate::down()).
    ///
    /// # Errors
    /// The supervisor does not answer; then the stack goes.
    pub fn detach(self) -> Result<State, StackError> {
        let mut link = lock(&self.link);
        let state = link.ask(Request::Detach)?;
        // Without a child to wait for, dropping leaves the supervisor alone.
        link.child = None;
        drop(link);
        Ok(state)
    }
}

/// One server of a stack. Every call returns when its effect is there.
#[derive(Debug, Clone)]
pub struct Server {
    kind: ServerKind,
    link: Arc<Mutex<Link>>,
}

impl Server {
    /// Its process, `None` while it does not run.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        lock(&self.link).ask(Request::Look).ok()?.pid(self.kind)
    }

    /// kill -9. Nothing happens when it does not run.
    ///
    /// # Errors
    /// The supervisor does not answer.
    pub fn kill(&self) -> Result<(), StackError> {
        self.ask(Request::Kill(self.kind))
    }

    /// SIGTERM, and SIGKILL after 20 s. Nothing happens when it does not run.
    ///
    /// # Errors
    /// The supervisor does not answer.
    pub fn stop(&self) -> Result<(), StackError> {
        self.ask(Request::Stop(self.kind))
    }

    /// Starts it again on the same ports and data, and waits until it answers.
    ///
    /// # Errors
    /// It runs already, or it does not answer within 90 s.
    pub fn start(&self) -> Result<(), StackError> {
        self.ask(Request::Start(self.kind))
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<(), StackError> {
        self.ask(Request::Pause(self.kind))
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<(), StackError> {
        self.ask(Request::Resume(self.kind))
    }

    fn ask(&self, request: Request) -> Result<(), StackError> {
        lock(&self.link).ask(request).map(|_| ())
    }
}

fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    // A panic of another thread leaves the link between two requests at worst; the next answer shows it.
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pipes to the supervisor. Closing them ends it, unless it was told to detach.
#[derive(Debug)]
struct Link {
    dir: PathBuf,
    child: Option<Child>,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Link {
    fn open(exe: &Path, spec: &Spec) -> Result<(Self, State), StackError> {
        let mut child = Command::new(exe)
            .arg0(PROCESS_NAME)
            .arg(SUPERVISE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .tried("start the supervisor", exe)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(StackError::Supervisor("has no pipes".into()));
        };
        let mut link =
            Self { dir: spec.dir.clone(), child: Some(child), input: Some(input), output: BufReader::new(output) };
        link.send(spec)?;
        match link.receive() {
            Ok(Reply::Done(state)) => Ok((link, *state)),
            other => {
                // Nothing runs in that folder by our doing, and it may be another's.
                link.dir = PathBuf::new();
                match other? {
                    Reply::InUse => Err(StackError::InUse(spec.name.clone())),
                    Reply::Failed(message) => Err(StackError::Failed(message)),
                    Reply::Done(_) => Err(StackError::Supervisor("answers out of turn".into())),
                }
            }
        }
    }

    fn ask(&mut self, request: Request) -> Result<State, StackError> {
        self.send(&request)?;
        match self.receive()? {
            Reply::Done(state) => Ok(*state),
            Reply::Failed(message) => Err(StackError::Failed(message)),
            Reply::InUse => Err(StackError::Supervisor("answers out of turn".into())),
        }
    }

    fn send<T: serde::Serialize>(&mut self, message: &T) -> Result<(), StackError> {
        let mut line = serde_json::to_vec(message).map_err(|e| StackError::Supervisor(e.to_string()))?;
        line.push(b'\n');
        let input = self.input.as_mut().ok_or_else(|| StackError::Supervisor("was left".into()))?;
        input.write_all(&line).map_err(|e| StackError::Supervisor(format!("takes no requests ({e})")))
    }

    fn receive(&mut self) -> Result<Reply, StackError> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err(StackError::Supervisor("has ended".into())),
            Ok(_) => serde_json::from_str(&line)
                .map_err(|_| StackError::Supervisor("does not speak the protocol: build its executable again".into())),
            Err(e) => Err(StackError::Supervisor(format!("cannot be read ({e})"))),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = self.ask(Request::Shutdown);
        drop(self.input.take());
        let deadline = Instant::now() + Duration::from_secs(15);
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                // Its servers are bound to it and go along.
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        if !self.dir.as_os_str().is_empty() {
            remove_folder(&self.dir, Duration::from_secs(5));
        }
    }
}
