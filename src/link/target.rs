//! Where to: `"host:port"`, `"[::1]:9988"`, `(host, port)`, `"tcp://…"`; for listeners also a port alone.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::net;
use crate::proto::options::Invalid;

/// A name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
}

/// Why an own address cannot be used.
#[derive(Debug)]
pub enum NoAddress {
    Invalid(Invalid),
    /// It names a network interface that the system does not find.
    System(io::Error),
}

impl From<Invalid> for NoAddress {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl Target {
    /// Reads what a dialler was given.
    ///
    /// # Errors
    /// When the text is no target.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let target = Self::parse_any(text)?;
        if target.host.is_empty() {
            return Err(Invalid(format!("a target needs a host, as in 'localhost:9988', not {text:?}")));
        }
        Self::new(&target.host, i64::from(target.port))
    }

    /// A host and a port to dial.
    ///
    /// # Errors
    /// When the port is not between 1 and 65535, or the host is no name and no address.
    pub fn new(host: &str, port: i64) -> Result<Self, Invalid> {
        if port == 0 {
            return Err(Invalid(String::from("the port to dial must be between 1 and 65535, not 0")));
        }
        Ok(Self { host: check_host(host)?, port: check_port(port)? })
    }

    fn parse_any(text: &str) -> Result<Self, Invalid> {
        let rest = match text.split_once("://") {
            Some(("tcp", rest)) => rest,
            Some((scheme, _)) => {
                return Err(Invalid(format!("the scheme must be 'tcp', not {scheme:?}")));
            }
            None => text,
        };
        let no_port = || Invalid(format!("a target is 'host:port' or '[address]:port', not {text:?}"));
        let (host, port) = rest.rsplit_once(':').ok_or_else(no_port)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(no_port)?,
            None if host.contains(':') => {
                return Err(Invalid(format!("an IPv6 address stands in brackets, as in '[::1]:9988', not {text:?}")));
            }
            None => host,
        };
        if let Some(wrong) = port.chars().find(|character| !character.is_ascii_digit()) {
            return Err(Invalid(format!("a port is a number, without {wrong:?} as in {text:?}")));
        }
        let port = Some(port).filter(|port| !port.is_empty()).ok_or_else(no_port)?;
        // Digits only, so that what does not fit is too large.
        Ok(Self { host: host.to_owned(), port: check_port(port.parse().unwrap_or(i64::MAX))? })
    }
}

/// Reads what a listener was given; an empty host is 127.0.0.1.
///
/// # Errors
/// When the text is no target, or its host is neither an address nor `localhost`.
pub fn listen_address(text: &str) -> Result<SocketAddr, NoAddress> {
    let Target { host, port } = Target::parse_any(text)?;
    listen_address_of(&host, i64::from(port))
}

/// A host and a port to listen on; port 0 picks one.
///
/// # Errors
/// When the host is neither an address nor `localhost`, or the port is above 65535.
pub fn listen_address_of(host: &str, port: i64) -> Result<SocketAddr, NoAddress> {
    let port = check_port(port)?;
    let no_address = || Invalid(format!("a listener's host must be a numeric address or 'localhost', not {host:?}"));
    let mut address = match host {
        "" | "localhost" => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        _ => numeric(host)?.ok_or_else(no_address)?,
    };
    address.set_port(port);
    Ok(address)
}

/// `"host"` or `"host:port"`: where a dial comes from.
///
/// # Errors
/// When the text is neither.
pub fn local_address(text: &str) -> Result<SocketAddr, NoAddress> {
    if let Some(address) = numeric(text)? {
        return Ok(address);
    }
    let no_address = || Invalid(format!("local_address must be 'address' or 'address:port', not {text:?}"));
    if text == "localhost" {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    }
    match listen_address(text) {
        Err(NoAddress::Invalid(_)) => Err(no_address().into()),
        address => address,
    }
}

/// An address with port 0; one of IPv6 may name its network interface, as in `fe80::1%eth0`. None when it is none.
fn numeric(host: &str) -> Result<Option<SocketAddr>, NoAddress> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Some(SocketAddr::new(address, 0)));
    }
    let scoped = host.split_once('%').and_then(|(address, zone)| Some((address.parse::<Ipv6Addr>().ok()?, zone)));
    let Some((address, zone)) = scoped.filter(|(_, zone)| !zone.is_empty()) else { return Ok(None) };
    let scope = net::interface(zone).map_err(NoAddress::System)?;
    Ok(Some(SocketAddr::V6(SocketAddrV6::new(address, 0, 0, scope))))
}

fn check_port(port: i64) -> Result<u16, Invalid> {
    u16::try_from(port).map_err(|_| Invalid(format!("a port must be between 0 and 65535, not {port}")))
}

fn check_host(host: &str) -> Result<String, Invalid> {
    let is_wrong = |c: char| c.is_whitespace() || c.is_control() || ['/', '@', '[', ']'].contains(&c);
    if let Some((place, wrong)) = host.chars().enumerate().find(|(_, c)| is_wrong(*c)) {
        return Err(Invalid(format!("a host has no {wrong:?} in it: character {} of {host:?}", place + 1)));
    }
    if host.is_empty() || host.len() > 253 {
        let length = host.len();
        return Err(Invalid(format!("a host must be a name or an address of 1 to 253 characters, not of {length}")));
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_target_is_read() {
        for (text, host, port) in [
            ("localhost:9988", "localhost", 9988),
            ("tcp://localhost:1", "localhost", 1),
            ("[::1]:9988", "::1", 9988),
            ("tcp://[fe80::1]:65535", "fe80::1", 65535),
        ] {
            assert_eq!(Target::parse(text), Ok(Target { host: host.into(), port }), "{text}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in [
            "",
            "localhost",
            ":9988",
            "localhost:",
            "localhost:x",
            "localhost:0",
            "localhost:65536",
            "::1:9988",
            "[::1:9988",
            "udp://localhost:1",
            "unix:/tmp/x",
            "a b:1",
            "localhost:+1",
            "user@host:1",
            "tcp://",
        ] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_target_is_named() {
        for (text, words) in [
            (" localhost:1", "' ' in it: character 1 of"),
            ("local\thost:1", "'\\t' in it: character 6 of"),
            ("user@host:1", "'@' in it: character 5 of"),
            ("localhost:1 ", "without ' '"),
            ("localhost:x1", "without 'x'"),
            (&format!("{}:1", "x".repeat(254)), "not of 254"),
        ] {
            let Err(Invalid(told)) = Target::parse(text) else { panic!("{text} is no target") };
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn an_address_may_name_its_interface() {
        let shown = |address: Result<SocketAddr, NoAddress>| address.unwrap().to_string();
        assert_eq!(shown(listen_address("[fe80::1%1]:7")), "[fe80::1%1]:7");
        assert_eq!(shown(listen_address("[fe80::1%lo]:7")), shown(listen_address_of("fe80::1%lo", 7)));
        assert_eq!(shown(local_address("fe80::1%1")), "[fe80::1%1]:0");
        assert_eq!(shown(local_address("[fe80::1%1]:7")), "[fe80::1%1]:7");
        assert_eq!(
            shown(listen_address(&shown(listen_address("[fe80::1%lo]:7")))),
            shown(listen_address("[fe80::1%lo]:7"))
        );
        let missing = listen_address("[fe80::1%no-such]:7");
        assert!(matches!(missing, Err(NoAddress::System(error)) if error.raw_os_error() == Some(libc::ENODEV)));
        for text in ["127.0.0.1%lo:7", "[fe80::1%]:7", "[fe80::%lo%lo]:7"] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_listener_means_loopback_unless_an_address_is_named() {
        assert_eq!(listen_address(":9988").unwrap().to_string(), "127.0.0.1:9988");
        assert_eq!(listen_address("0.0.0.0:0").unwrap().to_string(), "0.0.0.0:0");
        assert_eq!(listen_address("[::]:7").unwrap().to_string(), "[::]:7");
        assert!(listen_address("example.org:7").is_err());
        assert!(listen_address("9988").is_err());
    }

    #[test]
    fn a_local_address_may_have_a_port() {
        assert_eq!(local_address("127.0.0.2").unwrap().to_string(), "127.0.0.2:0");
        assert_eq!(local_address("::1").unwrap().to_string(), "[::1]:0");
        assert_eq!(local_address("127.0.0.2:77").unwrap().to_string(), "127.0.0.2:77");
        assert!(local_address("nowhere").is_err());
    }
}
