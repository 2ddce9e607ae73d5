//! Free loopback ports.
//!
//! Promise: the ports of one call are distinct, free at that moment, and outside the range the kernel gives to outgoing
//! connections. The last matters when a server is killed and started again: a client that keeps dialling a dead port
//! inside that range sooner or later gets the same number as its own source port, talks to itself and keeps the port taken.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use crate::random;

/// Below this are well-known services.
const LOWEST: u16 = 10_240;

/// `N` distinct free ports of 127.0.0.1.
pub(crate) fn pick<const N: usize>() -> io::Result<[u16; N]> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let below = ephemeral_start(&range);
    let mut held: Vec<(u16, TcpListener)> = Vec::with_capacity(N);
    let mut tries = 0;
    while held.len() < N {
        tries += 1;
        let port = if tries < 2_000 { LOWEST + random::number()? % (below - LOWEST) } else { 0 };
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((listener.local_addr()?.port(), listener));
        } else if tries > 4_000 {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "no free loopback port"));
        }
    }
    let mut ports = [0; N];
    for (slot, (port, _)) in ports.iter_mut().zip(&held) {
        *slot = *port;
    }
    Ok(ports)
}

/// First port of the kernel's range for outgoing connections; Linux' default where the text is unreadable or leaves no room.
fn ephemeral_start(range: &str) -> u16 {
    range
        .split_whitespace()
        .next()
        .and_then(|low| low.parse().ok())
        .filter(|low| *low > LOWEST + 1_000)
        .unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ports_are_distinct_and_free() {
        let ports = pick::<16>().unwrap();
        let mut sorted = ports.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 16);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn the_kernel_range_is_read_or_assumed() {
        assert_eq!(ephemeral_start("40000\t60999\n"), 40_000);
        assert_eq!(ephemeral_start("1024 65535"), 32_768);
        assert_eq!(ephemeral_start(""), 32_768);
    }
}
