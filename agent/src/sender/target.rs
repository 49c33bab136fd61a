//! Where reports go. It owns the rule that this version sends them to loopback alone.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use hyper::Uri;

/// The address of an aggregator's report port, on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    authority: String,
    addresses: Vec<SocketAddr>,
}

/// Why a URL is no target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is no URL.
    #[error("not a URL such as http://127.0.0.1:9440")]
    NotUrl,
    /// Its scheme is not http.
    #[error("the scheme must be http: this version has no TLS")]
    Scheme,
    /// It has a path, a query or a user.
    #[error("only scheme, host and port: the path of a report is fixed")]
    MoreThanAddress,
    /// Its host is some other machine.
    #[error(
        "{host} is not a loopback address: reports are not encrypted or authenticated in this version, \
             so they may not leave the machine; use 127.0.0.1, [::1] or localhost"
    )]
    NotLoopback {
        /// The host as written.
        host: String,
    },
}

impl Target {
    /// Where to connect, in this order.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The name to look up, and the port; none where the addresses are known.
    pub(super) fn name(&self) -> Option<(String, u16)> {
        let uri: Uri = self.authority.parse().ok()?;
        let name = Some(uri.host()?.to_owned()).filter(|_| self.addresses.is_empty());
        Some((name?, uri.port_u16().unwrap_or(80)))
    }

    /// The same, at one of the addresses that its name has.
    pub(super) fn at(&self, address: SocketAddr) -> Self {
        Self { addresses: vec![address], ..self.clone() }
    }

    /// Host and port, for the `Host` field.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }
}

#[cfg(test)]
impl Target {
    /// A name that has to be looked up.
    pub(super) fn named(authority: &str) -> Self {
        Self { authority: authority.to_owned(), addresses: Vec::new() }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let uri: Uri = text.parse().map_err(|_| TargetError::NotUrl)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(_) => return Err(TargetError::Scheme),
            None => return Err(TargetError::NotUrl),
        }
        let authority = uri.authority().ok_or(TargetError::NotUrl)?;
        if uri.path() != "/" || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(TargetError::MoreThanAddress);
        }
        let host = authority.host();
        let port = authority.port_u16().unwrap_or(80);
        let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        let addresses = match address {
            Some(address) if address.is_loopback() => vec![address],
            // RFC 6761 gives the name to loopback whatever a resolver says, so none is asked.
            None if host.eq_ignore_ascii_case("localhost") => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            _ => return Err(TargetError::NotLoopback { host: host.to_owned() }),
        };
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        Ok(Self { authority: authority.to_string(), addresses })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: &str) {
        let got = match url.parse::<Target>() {
            Ok(target) => format!("{:?}", target.addresses),
            Err(error) => error.to_string().split(':').next().unwrap_or_default().to_owned(),
        };
        assert_eq!(got, expected, "{url}");
    }

    #[test]
    fn a_target_is_http_on_loopback() {
        check("http://127.0.0.1:9440", "[127.0.0.1:9440]");
        check("http://127.9.9.9:1/", "[127.9.9.9:1]");
        check("http://[::1]:9440", "[[::1]:9440]");
        check("http://localhost:9440", "[127.0.0.1:9440, [::1]:9440]");
        check("http://127.0.0.1", "[127.0.0.1:80]");
    }

    #[test]
    fn anything_else_is_refused_with_why() {
        check("http://10.0.0.1:9440", "10.0.0.1 is not a loopback address");
        check("http://0.0.0.0:9440", "0.0.0.0 is not a loopback address");
        check("http://localhost.example.org:1", "localhost.example.org is not a loopback address");
        check("https://127.0.0.1:9440", "the scheme must be http");
        check("http://127.0.0.1:9440/v1/report", "only scheme, host and port");
        check("http://127.0.0.1:9440/?a=b", "only scheme, host and port");
        check("http://me@127.0.0.1:9440", "only scheme, host and port");
        check("127.0.0.1:9440", "not a URL such as http");
        check("", "not a URL such as http");
        check("http://", "not a URL such as http");
    }
}
