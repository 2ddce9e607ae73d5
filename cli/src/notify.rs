//! A service manager that wants to know: ready, alive, stopping. The protocol is systemd's: one datagram to the socket that `NOTIFY_SOCKET` names
//! (<https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>).
//!
//! Alive means what `/livez` says, asked over HTTP: so the watchdog looks at the loop, and at the runtime that answers. Ready means that `/livez`
//! answers at all: a worker that waits for Kafka is started, and does its work.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::time::Duration;

/// How long `/livez` may take.
const ASK: Duration = Duration::from_secs(2);
/// Between two tries until it answers for the first time.
const START: Duration = Duration::from_millis(100);
/// Between two looks when no watchdog waits.
const IDLE: Duration = Duration::from_secs(3_600);

/// Tells the service manager, if there is one, about the process whose probes are served at `address`. Returns at once.
pub(crate) fn start(address: Option<SocketAddr>) {
    let Some(socket) = socket() else { return };
    let watchdog = watchdog(
        std::env::var("WATCHDOG_USEC").ok().as_deref(),
        std::env::var("WATCHDOG_PID").ok().as_deref(),
        std::process::id(),
    );
    let tell = std::thread::Builder::new().name("notify".to_owned()).spawn(move || tend(&socket, address, watchdog));
    if let Err(error) = tell {
        tracing::warn!(%error, "the service manager is told nothing");
    }
}

/// Says that the process ends now by its own will.
pub(crate) fn stopping() {
    if let Some(socket) = socket() {
        say(&socket, "STOPPING=1");
    }
}

fn tend(socket: &UnixAddr, address: Option<SocketAddr>, watchdog: Option<Duration>) {
    // Without probes there is nothing to ask: the process runs, and that is all that is known.
    let alive = || address.is_none_or(is_alive);
    while !alive() {
        std::thread::sleep(START);
    }
    say(socket, "READY=1");
    // Twice within the time, as the protocol recommends, and once more.
    let interval = watchdog.map_or(IDLE, |limit| limit / 3);
    while watchdog.is_some() {
        if alive() {
            say(socket, "WATCHDOG=1");
        }
        std::thread::sleep(interval);
    }
}

fn say(socket: &UnixAddr, state: &str) {
    let sent = UnixDatagram::unbound().and_then(|from| from.send_to_addr(state.as_bytes(), socket));
    if let Err(error) = sent {
        tracing::warn!(%error, state, "the service manager does not listen");
    }
}

/// Where to say it; a name that begins with `@` is in the abstract namespace.
fn socket() -> Option<UnixAddr> {
    let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => UnixAddr::from_abstract_name(name).ok(),
        None => UnixAddr::from_pathname(&name).ok(),
    }
}

/// Within which time a sign of life is due, if this process is meant.
fn watchdog(micros: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let micros: u64 = micros?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

fn is_alive(mut address: SocketAddr) -> bool {
    // Who listens on every address is asked on the loopback.
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        });
    }
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, ASK)?;
        stream.set_read_timeout(Some(ASK))?;
        stream.set_write_timeout(Some(ASK))?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(answer.starts_with(b"HTTP/1.") && answer.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_watchdog_is_for_the_process_it_names() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(Some("1000000"), None, 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("7"), 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("8"), 7), None);
        assert_eq!(watchdog(Some("0"), None, 7), None);
        assert_eq!(watchdog(None, None, 7), None);
    }

    #[test]
    fn alive_is_what_the_probe_says() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = std::thread::spawn(move || {
            for status in ["200 OK", "503 Service Unavailable"] {
                let (mut socket, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let read = socket.read(&mut request).unwrap();
                assert!(request[..read].starts_with(b"GET /livez "));
                // In one piece: who asks goes away after the status.
                socket.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).unwrap();
            }
        });
        assert_eq!([is_alive(address), is_alive(address)], [true, false]);
        serve.join().unwrap();
        assert!(!is_alive(address), "nobody listens");
    }
}
