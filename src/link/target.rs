//! Where to: `"host:port"`, `"[::1]:9988"`, `(host, port)`, `"tcp://…"`; for listeners also a port alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::proto::options::Invalid;

/// A name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
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
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = Some(port).filter(|_| is_number).ok_or_else(no_port)?;
        // Digits only, so that what does not fit is too large.
        Ok(Self { host: host.to_owned(), port: check_port(port.parse().unwrap_or(i64::MAX))? })
    }
}

/// Reads what a listener was given; an empty host is 127.0.0.1.
///
/// # Errors
/// When the text is no target, or its host is neither an address nor `localhost`.
pub fn listen_address(text: &str) -> Result<SocketAddr, Invalid> {
    let Target { host, port } = Target::parse_any(text)?;
    listen_address_of(&host, i64::from(port))
}

/// A host and a port to listen on; port 0 picks one.
///
/// # Errors
/// When the host is neither an address nor `localhost`, or the port is above 65535.
pub fn listen_address_of(host: &str, port: i64) -> Result<SocketAddr, Invalid> {
    let port = check_port(port)?;
    let address = match host {
        "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => host.parse().map_err(|_| {
            Invalid(format!("a listener's host must be a numeric address or 'localhost', not {host:?}"))
        })?,
    };
    Ok(SocketAddr::new(address, port))
}

/// `"host"` or `"host:port"`: where a dial comes from.
///
/// # Errors
/// When the text is neither.
pub fn local_address(text: &str) -> Result<SocketAddr, Invalid> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, 0));
    }
    let no_address = || Invalid(format!("local_address must be 'address' or 'address:port', not {text:?}"));
    if text == "localhost" {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    }
    listen_address(text).map_err(|_| no_address())
}

fn check_port(port: i64) -> Result<u16, Invalid> {
    u16::try_from(port).map_err(|_| Invalid(format!("a port must be between 0 and 65535, not {port}")))
}

fn check_host(host: &str) -> Result<String, Invalid> {
    let is_name = !host.is_empty() && host.len() <= 253 && host.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if !is_name || host.contains(['/', '@', '[', ']', '\0']) {
        return Err(Invalid(format!("a host must be a name or an address of at most 253 characters, not {host:?}")));
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
