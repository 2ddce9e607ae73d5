//! A way to ClickHouse that misbehaves on demand: it cuts, delays, holds, swallows and forges, request by request.
//!
//! It takes HTTP apart only as far as it must: a client sends one request after another on a connection, so the first bytes after an answer are the
//! head of the next request.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server does it; its answer is thrown away and the connection closed.
    SwallowAnswer,
    /// The server does it; the client is told this instead, and the connection closed.
    Forge(&'static str),
    /// Both sides lose the connection when the server has so many bytes of the request.
    CutAfter(usize),
    /// The server has so many bytes of the request, and no more until [`Proxy::heal`] or [`Proxy::cut`].
    HoldAfter(usize),
    /// The answer comes so much later.
    Delay(Duration),
    /// The request is taken and never answered; the server does not see it.
    BlackHole,
}

#[derive(Debug)]
struct Rule {
    head_has: &'static str,
    times: u64,
    fault: Fault,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    rule: Mutex<Option<Rule>>,
    healed: Condvar,
    connections: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
    struck: AtomicU64,
    holding: AtomicU64,
}

/// The proxy, on a port of its own on loopback, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// In front of `upstream` (`http://HOST:PORT`).
    #[must_use]
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            upstream: upstream.trim_start_matches("http://").trim_end_matches('/').to_owned(),
            rule: Mutex::default(),
            healed: Condvar::new(),
            connections: Mutex::default(),
            stopping: AtomicBool::new(false),
            struck: AtomicU64::new(0),
            holding: AtomicU64::new(0),
        });
        let state = Arc::clone(&shared);
        spawn("proxy", move || {
            for client in listener.incoming() {
                if state.stopping.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(client) = client {
                    serve(&client, &state);
                }
            }
        });
        Self { address, shared }
    }

    /// What a client is given in place of the server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on the next `times` requests whose head contains `head_has` meet `fault`.
    pub fn strike(&self, head_has: &'static str, times: u64, fault: Fault) {
        *lock(&self.shared.rule) = Some(Rule { head_has, times, fault });
    }

    /// From now on nothing happens to requests, and those that were held go on.
    pub fn heal(&self) {
        *lock(&self.shared.rule) = None;
        self.shared.healed.notify_all();
    }

    /// Closes all connections.
    pub fn cut(&self) {
        for connection in lock(&self.shared.connections).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// How many requests met a fault so far.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.shared.struck.load(Ordering::Acquire)
    }

    /// How many requests are being held half sent.
    #[must_use]
    pub fn holding(&self) -> u64 {
        self.shared.holding.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.heal();
        self.cut();
        // Wakes the listener up.
        let _ = TcpStream::connect(self.address);
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread");
}

/// One connection: what both of its directions know.
struct Exchange {
    client: TcpStream,
    server: TcpStream,
    /// The server has begun to answer: what the client sends next is a new request.
    answered: AtomicBool,
    fault: Mutex<Option<Fault>>,
}

impl Exchange {
    fn close(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

fn serve(client: &TcpStream, shared: &Arc<Shared>) {
    let Ok(server) = TcpStream::connect(&shared.upstream) else {
        // As if nobody listened.
        let _ = client.shutdown(Shutdown::Both);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
    lock(&shared.connections).extend([clone(client), clone(&server)]);
    let exchange =
        Arc::new(Exchange { client: clone(client), server, answered: AtomicBool::new(true), fault: Mutex::default() });
    let (forth, back, state) = (Arc::clone(&exchange), exchange, Arc::clone(shared));
    spawn("proxy-requests", move || {
        requests(&forth, &state);
        forth.close();
    });
    spawn("proxy-answers", move || {
        answers(&back);
        back.close();
    });
}

/// Passes requests on, until one side closes or a fault ends the connection.
fn requests(exchange: &Exchange, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    let mut sent = 0;
    let mut fault = None;
    loop {
        let Ok(length @ 1..) = (&exchange.client).read(&mut buffer) else { return };
        let mut part = &buffer[..length];
        if exchange.answered.swap(false, Ordering::AcqRel) {
            fault = shared.fault_of(part);
            *lock(&exchange.fault) = fault;
            sent = 0;
        }
        match fault {
            Some(Fault::BlackHole) => continue,
            Some(Fault::CutAfter(limit) | Fault::HoldAfter(limit)) if sent + length > limit => {
                let (now, rest) = part.split_at(limit.saturating_sub(sent));
                if (&exchange.server).write_all(now).is_err() || matches!(fault, Some(Fault::CutAfter(_))) {
                    return;
                }
                shared.hold();
                (part, fault) = (rest, None);
            }
            _ => {}
        }
        sent += length;
        if (&exchange.server).write_all(part).is_err() {
            return;
        }
    }
}

/// Passes answers back, or what is to be there instead of them.
fn answers(exchange: &Exchange) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = (&exchange.server).read(&mut buffer) else { return };
        match lock(&exchange.fault).take() {
            Some(Fault::SwallowAnswer) => return,
            Some(Fault::Forge(answer)) => {
                let _ = (&exchange.client).write_all(answer.as_bytes());
                return;
            }
            // The fault itself, not a wait for something.
            Some(Fault::Delay(time)) => std::thread::sleep(time),
            _ => {}
        }
        exchange.answered.store(true, Ordering::Release);
        if (&exchange.client).write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

impl Shared {
    /// The fault for the request that begins with `head`.
    fn fault_of(&self, head: &[u8]) -> Option<Fault> {
        let mut rule = lock(&self.rule);
        let rule = rule.as_mut().filter(|rule| rule.times > 0)?;
        if !head.windows(rule.head_has.len()).any(|part| part == rule.head_has.as_bytes()) {
            return None;
        }
        rule.times -= 1;
        self.struck.fetch_add(1, Ordering::AcqRel);
        Some(rule.fault)
    }

    /// Waits until nothing is to be held any more.
    fn hold(&self) {
        let holds = |rule: &mut Option<Rule>| {
            matches!(rule, Some(Rule { fault: Fault::HoldAfter(_), .. })) && !self.stopping.load(Ordering::Acquire)
        };
        self.holding.fetch_add(1, Ordering::AcqRel);
        drop(self.healed.wait_while(lock(&self.rule), |rule| holds(rule)).unwrap_or_else(PoisonError::into_inner));
        self.holding.fetch_sub(1, Ordering::AcqRel);
    }
}
