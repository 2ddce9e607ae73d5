//! Ranges of addresses in CIDR notation, IPv4 and IPv6.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range such as `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpRange {
    network: IpAddr,
    prefix: u8,
}

impl IpRange {
    /// Whether the address is in the range. An IPv4 address inside of IPv6 (`::ffff:10.1.2.3`) counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let mask = |width: u32| (width - u32::from(self.prefix)).min(127);
        match (self.network, ip.to_canonical()) {
            _ if self.prefix == 0 => self.network.is_ipv4() == ip.to_canonical().is_ipv4(),
            (IpAddr::V4(network), IpAddr::V4(ip)) => network.to_bits() >> mask(32) == ip.to_bits() >> mask(32),
            (IpAddr::V6(network), IpAddr::V6(ip)) => network.to_bits() >> mask(128) == ip.to_bits() >> mask(128),
            _ => false,
        }
    }
}

/// The text is no range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a range of addresses, such as 10.0.0.0/8 or 2001:db8::/32: {0}")]
pub struct NotARange(&'static str);

impl FromStr for IpRange {
    type Err = NotARange;

    /// An address, or an address and a prefix length. Bits below the prefix must be zero: a typing error there
    /// would trust other machines than meant.
    fn from_str(text: &str) -> Result<IpRange, NotARange> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| NotARange("the address can't be read"))?;
        if network.to_canonical() != network {
            return Err(NotARange("an IPv4 address inside of IPv6; write it as IPv4"));
        }
        let width = if network.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| NotARange("the prefix length can't be read"))?
            }
            Some(_) => return Err(NotARange("the prefix length can't be read")),
        };
        if prefix > width {
            return Err(NotARange("the prefix is longer than the address"));
        }
        let host_bits = match network {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let free = u32::from(width - prefix);
        let low = if free == 128 { u128::MAX } else { (1 << free) - 1 };
        if host_bits & low != 0 {
            return Err(NotARange("there are bits set behind the prefix"));
        }
        Ok(IpRange { network, prefix })
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn ranges_hold_what_they_say() {
        for (range, ip, inside) in [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "a00::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("192.0.2.6/31", "192.0.2.7", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
            ("::1/128", "::2", false),
        ] {
            let parsed: IpRange = range.parse().unwrap();
            assert_eq!(parsed.contains(ip.parse().unwrap()), inside, "{range} {ip}");
        }
        assert_eq!("10.0.0.0/8".parse::<IpRange>().unwrap().to_string(), "10.0.0.0/8");
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.1/8",
            "10.0.0/8",
            "2001:db8::1/32",
            "::/129",
            "::ffff:10.0.0.0/104",
            "proxy.local",
            "10.0.0.0/8 ",
        ] {
            assert!(text.parse::<IpRange>().is_err(), "{text}");
        }
    }
}
