//! Who the client is when proxies stand between: the walk over `X-Forwarded-For` or `Forwarded` from the right.
//!
//! Each proxy appends the address that it was called from. What a trusted proxy wrote is believed, and nothing to the left
//! of it: that part came with the request, and whoever sent it may have written what he liked. So the walk begins at the
//! peer, goes on as long as the address found is a trusted proxy's, and its last address is the client's. One header is
//! read, the one that the proxies are known to write: the other one would be the client's to invent.
//!
//! Elements are cut off from the right as well, so that no unfinished quotation at the left can swallow what a proxy wrote.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};

use super::cidr::IpRange;

/// The header in which the proxies write the client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: client, proxy, proxy`: what most proxies write.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=client;proto=https, for="[2001:db8::1]:4711"` (<https://www.rfc-editor.org/rfc/rfc7239>).
    Forwarded,
}

impl ForwardedHeader {
    fn name(self) -> HeaderName {
        match self {
            ForwardedHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            ForwardedHeader::Forwarded => header::FORWARDED,
        }
    }
}

/// More proxies than this stand in front of no service; the walk ends there.
const MAX_HOPS: usize = 32;

/// The client's address. `None` when it is not known: a trusted proxy says that it does not know it, or says it under a
/// name that is no address, or writes nonsense.
pub(super) fn client_ip(
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
    header: ForwardedHeader,
    trusted: &[IpRange],
) -> Option<IpAddr> {
    let mut client = peer?.ip().to_canonical();
    let is_trusted = |ip: IpAddr| trusted.iter().any(|range| range.contains(ip));
    if !is_trusted(client) {
        return Some(client);
    }
    let mut hops = 0;
    // Several lines of a header are one list, in their order.
    for line in headers.get_all(header.name()).iter().rev() {
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            let (left, element) = match header {
                ForwardedHeader::XForwardedFor => last_of_list(rest),
                ForwardedHeader::Forwarded => last_element(rest, b',')?,
            };
            rest = left;
            let element = element.trim_ascii();
            if element.is_empty() {
                continue;
            }
            hops += 1;
            if hops > MAX_HOPS {
                return None;
            }
            client = match header {
                ForwardedHeader::XForwardedFor => node_ip(std::str::from_utf8(element).ok()?)?,
                ForwardedHeader::Forwarded => forwarded_for(element)?,
            };
            if !is_trusted(client) {
                return Some(client);
            }
        }
    }
    Some(client)
}

/// What stands behind the last comma, and what is left of it.
fn last_of_list(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().rposition(|b| *b == b',') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (&[], text),
    }
}

/// The same with quoted strings, in which a separator is text. `None` when the quotes don't match.
fn last_element(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let mut quoted = false;
    for (at, byte) in text.iter().enumerate().rev() {
        if *byte == b'"' {
            let backslashes = text[..at].iter().rev().take_while(|b| **b == b'\\').count();
            let escaped = backslashes % 2 == 1;
            match (quoted, escaped) {
                // From the right a quotation begins with its closing quote, which is never escaped.
                (false, true) => return None,
                (false, false) => quoted = true,
                (true, escaped) => quoted = escaped,
            }
        } else if *byte == separator && !quoted {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    (!quoted).then_some((&[], text))
}

/// The address behind `for=` in one element of `Forwarded`. `None` when there is none, or two.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    let mut rest = element;
    while !rest.is_empty() {
        let (left, pair) = last_element(rest, b';')?;
        rest = left;
        let pair = std::str::from_utf8(pair).ok()?.trim_ascii();
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=')?;
        if !name.trim_ascii().eq_ignore_ascii_case("for") {
            continue;
        }
        let value = value.trim_ascii();
        let node = match value.strip_prefix('"') {
            // A backslash is possible there and never needed in an address.
            Some(quoted) => quoted.strip_suffix('"')?,
            None => value,
        };
        if found.replace(node_ip(node)?).is_some() {
            return None;
        }
    }
    found
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`. RFC 7239 allows the
/// port to be a name (`_x`); a zone (`fe80::1%eth0`) means something to the proxy only and is cut off.
fn node_ip(node: &str) -> Option<IpAddr> {
    let is_port = |port: &str| match port.strip_prefix('_') {
        Some(name) => !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
        None => port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok(),
    };
    let address = match node.strip_prefix('[') {
        Some(bracketed) => {
            let (address, behind) = bracketed.split_once(']')?;
            if !(behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port)) || !address.contains(':') {
                return None;
            }
            address
        }
        None => match node.split_once(':') {
            // One colon is a port's, two are IPv6.
            Some((address, port)) if !port.contains(':') => {
                if !is_port(port) {
                    return None;
                }
                address
            }
            _ => node,
        },
    };
    let address = match address.split_once('%') {
        Some((address, zone)) if !zone.is_empty() && address.contains(':') => address,
        Some(_) => return None,
        None => address,
    };
    address.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const TRUSTED: [&str; 3] = ["10.0.0.0/8", "192.0.2.1", "2001:db8:aaaa::/48"];

    fn walk(peer: &str, header: ForwardedHeader, lines: &[&[u8]]) -> Option<String> {
        let trusted = TRUSTED.map(|range| range.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header.name(), HeaderValue::from_bytes(line).unwrap());
        }
        client_ip(Some(peer.parse().unwrap()), &headers, header, &trusted).map(|ip| ip.to_string())
    }

    #[test]
    fn x_forwarded_for() {
        let proxy = "10.0.0.1:5000";
        let cases: &[(&str, &[&str], Option<&str>)] = &[
            // No header: the peer is the client, proxy or not.
            (proxy, &[], Some("10.0.0.1")),
            ("203.0.113.9:1", &[], Some("203.0.113.9")),
            // An untrusted peer's header is not read.
            ("203.0.113.9:1", &["198.51.100.7"], Some("203.0.113.9")),
            ("203.0.113.9:1", &["garbage"], Some("203.0.113.9")),
            // One proxy, several, several lines.
            (proxy, &["198.51.100.7"], Some("198.51.100.7")),
            (proxy, &["198.51.100.7, 192.0.2.1"], Some("198.51.100.7")),
            (proxy, &["198.51.100.7", "10.9.9.9,192.0.2.1"], Some("198.51.100.7")),
            ("[2001:db8:aaaa::1]:80", &["2001:db8::9"], Some("2001:db8::9")),
            ("[::ffff:10.0.0.1]:80", &["198.51.100.7"], Some("198.51.100.7")),
            // Spoofed: what the client wrote stands to the left of what the proxy wrote.
            (proxy, &["127.0.0.1, 198.51.100.7"], Some("198.51.100.7")),
            (proxy, &["10.0.0.5, 198.51.100.7, 10.0.0.2"], Some("198.51.100.7")),
            (proxy, &["\", 198.51.100.7"], Some("198.51.100.7")),
            (proxy, &["127.0.0.1", "198.51.100.7"], Some("198.51.100.7")),
            (proxy, &["\u{1F4A9}, 198.51.100.7"], Some("198.51.100.7")),
            // Everybody is trusted: a request from inside.
            (proxy, &["10.0.0.5, 10.0.0.2"], Some("10.0.0.5")),
            // Ports, brackets, zones, spaces, empty elements, IPv4 inside of IPv6.
            (proxy, &["198.51.100.7:4711"], Some("198.51.100.7")),
            (proxy, &["[2001:db8::9]:4711"], Some("2001:db8::9")),
            (proxy, &["[2001:db8::9]"], Some("2001:db8::9")),
            (proxy, &["fe80::9%eth0"], Some("fe80::9")),
            (proxy, &["  198.51.100.7 ,, "], Some("198.51.100.7")),
            (proxy, &["::ffff:198.51.100.7"], Some("198.51.100.7")),
            (proxy, &["198.51.100.7, ::ffff:10.0.0.2"], Some("198.51.100.7")),
            // A trusted proxy that does not know, or writes nonsense.
            (proxy, &["unknown"], None),
            (proxy, &["198.51.100.7, unknown"], None),
            (proxy, &["198.51.100.300"], None),
            (proxy, &["198.51.100.7:99999"], None),
            (proxy, &["198.51.100.7:"], None),
            (proxy, &["[198.51.100.7]"], None),
            (proxy, &["[2001:db8::9"], None),
            (proxy, &["1%eth0"], None),
            (proxy, &["0x7f.1"], None),
            (proxy, &["client.example"], None),
        ];
        for (peer, lines, expected) in cases {
            let bytes: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            let found = walk(peer, ForwardedHeader::XForwardedFor, &bytes);
            assert_eq!(found.as_deref(), *expected, "{peer} {lines:?}");
        }
        let long = ["10.0.0.2"; MAX_HOPS].join(",");
        assert_eq!(walk(proxy, ForwardedHeader::XForwardedFor, &[long.as_bytes()]).as_deref(), Some("10.0.0.2"));
        let too_long = format!("198.51.100.7,{long}");
        assert_eq!(walk(proxy, ForwardedHeader::XForwardedFor, &[too_long.as_bytes()]), None);
    }

    #[test]
    fn forwarded() {
        let proxy = "10.0.0.1:5000";
        let cases: &[(&[&str], Option<&str>)] = &[
            (&["for=198.51.100.7"], Some("198.51.100.7")),
            (&["For=\"198.51.100.7:4711\";proto=https;by=10.0.0.1"], Some("198.51.100.7")),
            (&["proto=https ; FOR = \"[2001:db8::9]:4711\""], Some("2001:db8::9")),
            (&["for=\"[2001:db8::9]\", for=192.0.2.1"], Some("2001:db8::9")),
            (&["for=198.51.100.7:_port"], Some("198.51.100.7")),
            (&["for=198.51.100.7", "for=10.1.1.1;by=_a, for=10.1.1.2"], Some("198.51.100.7")),
            (&["for=198.51.100.7;host=\"a,b;c\\\"for=1.2.3.4\""], Some("198.51.100.7")),
            // Spoofed, also with quotations that are never closed.
            (&["for=127.0.0.1, for=198.51.100.7"], Some("198.51.100.7")),
            (&["for=\"127.0.0.1, for=198.51.100.7"], Some("198.51.100.7")),
            (&["for=127.0.0.1;x=\"", "for=198.51.100.7"], Some("198.51.100.7")),
            (&["for=127.0.0.1;x=\"\\, for=198.51.100.7"], Some("198.51.100.7")),
            // Not known.
            (&["for=unknown"], None),
            (&["for=_hidden"], None),
            (&["for=198.51.100.7, for=_gazonk"], None),
            (&["proto=https"], None),
            (&["for=198.51.100.7;for=127.0.0.1"], None),
            (&["for=\"198.51.100.7"], None),
            (&["for=198.51.100.7\""], None),
            (&["198.51.100.7"], None),
            (&["for="], None),
            (&["for=\"\""], None),
            (&["for=[2001:db8::9]:99999"], None),
        ];
        for (lines, expected) in cases {
            let bytes: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            assert_eq!(walk(proxy, ForwardedHeader::Forwarded, &bytes).as_deref(), *expected, "{lines:?}");
            // From anybody else nothing of it is read.
            let found = walk("203.0.113.9:1", ForwardedHeader::Forwarded, &bytes);
            assert_eq!(found.as_deref(), Some("203.0.113.9"));
        }
    }

    #[test]
    fn without_a_peer_nobody_is_trusted() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("198.51.100.7"));
        assert_eq!(client_ip(None, &headers, ForwardedHeader::XForwardedFor, &["::/0".parse().unwrap()]), None);
    }

    proptest! {
        /// Whatever the client sends, what the proxy appended is what counts.
        #[test]
        fn nothing_at_the_left_changes_the_answer(junk in "[ -~]{0,40}", same_line: bool) {
            for (header, appended) in [
                (ForwardedHeader::XForwardedFor, "198.51.100.7"),
                (ForwardedHeader::Forwarded, "for=198.51.100.7;proto=https"),
            ] {
                let joined = format!("{junk}, {appended}");
                let found = if same_line {
                    walk("10.0.0.1:1", header, &[joined.as_bytes()])
                } else {
                    walk("10.0.0.1:1", header, &[junk.as_bytes(), appended.as_bytes()])
                };
                prop_assert_eq!(found.as_deref(), Some("198.51.100.7"));
            }
        }

        #[test]
        fn garbage_never_panics(line in prop::collection::vec(0x20_u8..=0x7e, 0..60)) {
            walk("10.0.0.1:1", ForwardedHeader::XForwardedFor, &[&line]);
            walk("10.0.0.1:1", ForwardedHeader::Forwarded, &[&line]);
        }
    }
}
