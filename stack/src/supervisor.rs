//! The supervisor: the process that owns a stack's servers and folder.
//!
//! It lives in its own session, so Ctrl-C on a terminal reaches only its owner. It ends, takes the servers along and
//! removes the folder when the owner asks, when the owner dies in whatever way (its stdin closes), or by SIGTERM. The
//! servers are bound to this process by the kernel, so even kill -9 of the supervisor leaves no server.
//! Everything that starts a process happens on the main thread, because that bond is to a thread.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Stdin, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::answers::{clickhouse_answers, clickhouse_execute, kafka_answers, registry_answers};
use crate::claim::Claim;
use crate::config;
use crate::error::{StackError, Tried as _, chain};
use crate::install::Registry;
use crate::ports;
use crate::protocol::{Reply, Request, Spec, VERSION};
use crate::random;
use crate::registry;
use crate::server::{Servers, tail};
use crate::state::{Credentials, Role, ServerKind, State, write_private};

/// Patience for a server to answer after its start; a Kafka killed under load recovers its log first.
const READY: Duration = Duration::from_secs(90);
/// How often ports are picked anew when another process was quicker.
const PORT_TRIES: usize = 5;

enum Event {
    Request(Request),
    /// A signal came or the owner went: look at the flags and the children.
    Wake,
}

/// The hidden role's `main`.
pub(crate) fn main() -> i32 {
    // Failing only means that this process leads a session already.
    let _ = unistd::setsid();
    let mut input = BufReader::new(io::stdin());
    let mut line = String::new();
    if input.read_line(&mut line).unwrap_or(0) == 0 {
        return 0;
    }
    let spec = match serde_json::from_str::<Spec>(&line) {
        Ok(spec) if spec.version == VERSION => spec,
        _ => {
            say(&Reply::Failed("the supervisor's executable is of another version: build it again".into()));
            return 1;
        }
    };
    match Supervisor::begin(spec, input) {
        Ok(mut supervisor) => supervisor.run(),
        Err(StackError::InUse(_)) => {
            say(&Reply::InUse);
            1
        }
        Err(error) => {
            say(&Reply::Failed(chain(&error)));
            1
        }
    }
}

fn say(reply: &Reply) {
    let Ok(mut line) = serde_json::to_string(reply) else { return };
    line.push('\n');
    // An owner that is gone does not listen; its end shows on stdin.
    let _ = io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush());
}

struct Supervisor {
    spec: Spec,
    claim: Option<Claim>,
    state: State,
    servers: Servers,
    events: Receiver<Event>,
    closing: Arc<AtomicBool>,
}

impl Supervisor {
    fn begin(spec: Spec, input: BufReader<Stdin>) -> Result<Self, StackError> {
        let (sender, events) = mpsc::channel();
        let closing = Arc::new(AtomicBool::new(false));
        listen_to_signals(sender.clone(), Arc::clone(&closing))?;
        listen_to_owner(input, sender, Arc::clone(&closing));
        let claim = Claim::take(&spec.root, spec.dir.clone(), &spec.name)?;
        let mut users = Vec::new();
        for role in Role::ALL {
            users.push(Credentials::new(role, random::password().tried("read random bytes for", &claim.dir)?));
        }
        let state = State {
            name: spec.name.clone(),
            dir: claim.dir.clone(),
            supervisor_pid: std::process::id(),
            detached: false,
            throughput: spec.throughput,
            kafka_bootstrap: String::new(),
            kafka_port: 0,
            kafka_listener_ports: BTreeMap::new(),
            kafka_controller_port: 0,
            kafka_pid: None,
            clickhouse_url: String::new(),
            clickhouse_http_port: 0,
            clickhouse_tcp_port: 0,
            clickhouse_pid: None,
            registry_url: None,
            registry_port: 0,
            registry_pid: None,
            users,
        };
        let servers = Servers::new(claim.dir.clone(), spec.throughput, spec.servers.clone());
        Ok(Self { spec, claim: Some(claim), state, servers, events, closing })
    }

    fn run(&mut self) -> i32 {
        let begun = self.start_all();
        let code = match begun {
            Ok(()) => {
                say(&Reply::Done(Box::new(self.state.clone())));
                self.serve();
                0
            }
            Err(error) => {
                let message = chain(&error);
                self.clear();
                say(&Reply::Failed(message));
                return 1;
            }
        };
        self.clear();
        say(&Reply::Done(Box::new(self.state.clone())));
        code
    }

    /// Kills what runs and removes the folder. The data goes with it, so there is nothing a server could still save.
    fn clear(&mut self) {
        self.servers.kill_all();
        if let Some(claim) = self.claim.take() {
            claim.remove(&self.spec.root);
        }
    }

    fn serve(&mut self) {
        while !self.closing() {
            let Ok(event) = self.events.recv() else { return };
            self.servers.reap();
            match event {
                Event::Wake => {
                    // A state file that cannot be written costs only what `status` shows.
                    let _ = self.note_pids();
                }
                Event::Request(Request::Shutdown) => return,
                Event::Request(request) => {
                    let reply = match self.handle(request).and_then(|()| self.note_pids()) {
                        Ok(()) => Reply::Done(Box::new(self.state.clone())),
                        Err(error) => Reply::Failed(chain(&error)),
                    };
                    say(&reply);
                }
            }
        }
    }

    fn handle(&mut self, request: Request) -> Result<(), StackError> {
        match request {
            Request::Kill(server) => self.servers.kill(server),
            Request::Stop(server) => self.servers.stop(server),
            Request::Pause(server) => self.servers.pause(server)?,
            Request::Resume(server) => self.servers.resume(server)?,
            Request::Start(server) => {
                self.servers.start(server)?;
                self.wait_until_ready(&[server])?;
            }
            Request::AddRegistry(installed) => self.add_registry(&installed)?,
            Request::Detach => self.state.detached = true,
            Request::Look | Request::Shutdown => {}
        }
        Ok(())
    }

    /// Writes the state when a process has come or gone, or the owner is to go.
    fn note_pids(&mut self) -> Result<(), StackError> {
        self.state.kafka_pid = self.servers.pid(ServerKind::Kafka);
        self.state.clickhouse_pid = self.servers.pid(ServerKind::Clickhouse);
        self.state.registry_pid = self.servers.pid(ServerKind::Registry);
        self.state.write()
    }

    fn start_all(&mut self) -> Result<(), StackError> {
        let mut tries = 0;
        loop {
            tries += 1;
            self.configure()?;
            let started = ServerKind::ALWAYS.iter().try_for_each(|server| self.servers.start(*server));
            match started.and_then(|()| self.wait_until_ready(&ServerKind::ALWAYS)) {
                Ok(()) => break,
                Err(error) => {
                    self.servers.kill_all();
                    if !is_taken(&error) || tries == PORT_TRIES {
                        return Err(error);
                    }
                    fs::remove_dir_all(self.state.dir.join("kafka")).tried("clear", &self.state.dir)?;
                    fs::remove_dir_all(self.state.dir.join("clickhouse")).tried("clear", &self.state.dir)?;
                }
            }
        }
        let admin = &self.state.users[0];
        clickhouse_execute(
            self.state.clickhouse_http_port,
            &admin.user,
            &admin.password,
            "CREATE DATABASE IF NOT EXISTS audit",
        )
        .tried("create the database audit of", &self.state.dir)?;
        self.note_pids()
    }

    /// Picks ports and writes every configuration file.
    fn configure(&mut self) -> Result<(), StackError> {
        let dir = self.state.dir.clone();
        let [kafka, controller, http, tcp] = ports::pick::<4>().tried("find free ports for", &dir)?;
        self.state.kafka_port = kafka;
        self.state.kafka_controller_port = controller;
        self.state.kafka_bootstrap = format!("127.0.0.1:{kafka}");
        self.state.clickhouse_http_port = http;
        self.state.clickhouse_tcp_port = tcp;
        self.state.clickhouse_url = format!("http://127.0.0.1:{http}");
        let mut properties = config::server_properties(&dir.join("kafka"), kafka, controller);
        if self.spec.throughput {
            properties.push_str(config::WAIT_FOR_MEMBERS);
        }
        if !self.spec.kafka_listeners.is_empty() {
            let mut listeners = Vec::new();
            for listener in &self.spec.kafka_listeners {
                let [port] = ports::pick::<1>().tried("find free ports for", &dir)?;
                listeners.push((listener, port));
            }
            properties.push_str(&config::listener_properties(kafka, controller, &listeners));
            self.state.kafka_listener_ports =
                listeners.into_iter().map(|(listener, port)| (listener.name.clone(), port)).collect();
        }
        write_private(&dir.join("server.properties"), &properties)?;
        self.servers.format_kafka(&self.spec.kafka_scram_users)?;
        let clickhouse = config::clickhouse_config(&dir, http, tcp, self.spec.clickhouse_memory);
        write_private(&dir.join("clickhouse.xml"), &clickhouse)?;
        let users = config::users_file(config::USERS_TEMPLATE, &self.state.users).map_err(StackError::Failed)?;
        write_private(&dir.join("users.xml"), &users)?;
        fs::create_dir_all(dir.join("clickhouse")).tried("create", &dir.join("clickhouse"))?;
        self.write_client_files()
    }

    /// What clients need to connect.
    fn write_client_files(&self) -> Result<(), StackError> {
        let dir = &self.state.dir;
        for (role, file, other) in [
            (Role::Ingest, "auditstream.toml", "As administrator (for `auditstream migrate`): auditstream-admin.toml."),
            (Role::Admin, "auditstream-admin.toml", "For the worker and everything else: auditstream.toml."),
        ] {
            if let Some(user) = self.state.credentials(role) {
                write_private(&dir.join(file), &config::client_toml(&self.state, user, other))?;
            }
        }
        Ok(())
    }

    fn add_registry(&mut self, installed: &Registry) -> Result<(), StackError> {
        if self.state.registry_url.is_some() {
            return Ok(());
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let [port, management_port] = ports::pick::<2>().tried("find free ports for", &self.state.dir)?;
            let plan = registry::Plan { installed: installed.clone(), port, management_port };
            let url = plan.url();
            self.state.registry_port = port;
            self.servers.plan_registry(plan);
            let started = self.servers.start(ServerKind::Registry);
            match started.and_then(|()| self.wait_until_ready(&[ServerKind::Registry])) {
                Ok(()) => self.state.registry_url = Some(url),
                Err(error) => {
                    self.servers.kill(ServerKind::Registry);
                    if !is_taken(&error) || tries == PORT_TRIES {
                        return Err(error);
                    }
                    continue;
                }
            }
            return self.write_client_files();
        }
    }

    fn wait_until_ready(&mut self, which: &[ServerKind]) -> Result<(), StackError> {
        let deadline = Instant::now() + READY;
        let mut waiting = which.to_vec();
        while !waiting.is_empty() {
            if self.closing() {
                return Err(StackError::Failed("the start was broken off".into()));
            }
            self.servers.reap();
            for server in &waiting {
                let late = Instant::now() >= deadline;
                if self.servers.pid(*server).is_none() || late {
                    let what = if late { "did not answer in time" } else { "ended while it started" };
                    let log = tail(&self.state.dir, *server, 20);
                    return Err(StackError::Failed(format!("{} {what}; the end of its log:\n{log}", server.name())));
                }
            }
            waiting.retain(|server| match server {
                ServerKind::Kafka => !kafka_answers(self.state.kafka_port),
                ServerKind::Clickhouse => !clickhouse_answers(self.state.clickhouse_http_port),
                ServerKind::Registry => !registry_answers(self.state.registry_port),
            });
            if !waiting.is_empty() {
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

/// Whether another process was quicker to take a port, by what the servers' logs say of it.
fn is_taken(error: &StackError) -> bool {
    let text = error.to_string();
    ["Address already in use", "BindException", "already bound", "already in use"]
        .iter()
        .any(|sign| text.contains(sign))
}

fn listen_to_signals(sender: Sender<Event>, closing: Arc<AtomicBool>) -> Result<(), StackError> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD])
        .map_err(|source| StackError::Io { what: "listen to signals".into(), source })?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if signal != SIGCHLD {
                closing.store(true, Ordering::Release);
            }
            if sender.send(Event::Wake).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Passes requests on. When the lines end, the owner is gone: unless it had asked to detach, so is the stack.
fn listen_to_owner(input: BufReader<Stdin>, sender: Sender<Event>, closing: Arc<AtomicBool>) {
    thread::spawn(move || {
        let mut detached = false;
        for line in input.lines() {
            let Some(request) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
            detached |= matches!(request, Request::Detach);
            if sender.send(Event::Request(request)).is_err() {
                return;
            }
        }
        if !detached {
            closing.store(true, Ordering::Release);
        }
        let _ = sender.send(Event::Wake);
    });
}
