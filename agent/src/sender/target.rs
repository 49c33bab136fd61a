//! The destination of reports. It enforces that reports leave the machine only over TLS, to a server whose certificate
//! is verified.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use hyper::Uri;
use rustls::pki_types::ServerName;

use super::credentials::Credentials;

/// An aggregator's report port.
#[derive(Clone, Debug)]
pub struct Target {
    scheme: Scheme,
    authority: String,
    /// The host, without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// Fixed addresses. Empty: the host's name is resolved.
    addresses: Vec<SocketAddr>,
    credentials: Arc<Credentials>,
}

/// The transport of reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Unencrypted, on loopback.
    Http,
    /// TLS, to a server with this name.
    Https(ServerName<'static>),
}

/// Why a URL cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is not a URL.
    #[error("not a URL such as https://mcad-aggregator-reports.NAMESPACE.svc:10911")]
    NotUrl,
    /// Its scheme is neither http nor https.
    #[error("the scheme must be https, or http on loopback")]
    Scheme,
    /// It has a path, a query or a user.
    #[error("give only scheme, host and port: the path is fixed")]
    MoreThanAddress,
    /// Its host is another machine.
    #[error(
        "{host} is not a loopback address: over http reports are not encrypted, so they may not leave the machine; use \
         https, or 127.0.0.1, [::1] or localhost"
    )]
    NotLoopback {
        /// The host as written.
        host: String,
    },
    /// No CA certificates are given.
    #[error("https needs --aggregator-ca: the CA certificates that verify the aggregator")]
    NoAuthority,
}

impl Target {
    /// The same target with these credentials.
    pub fn trusting(self, credentials: Credentials) -> Result<Self, TargetError> {
        if self.scheme != Scheme::Http && !credentials.has_authorities() {
            return Err(TargetError::NoAuthority);
        }
        Ok(Self { credentials: Arc::new(credentials), ..self })
    }

    /// The same aggregator, or another replica of it, at this address: its certificate has the same name.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { addresses: vec![address], ..self.clone() }
    }

    /// The host as written, a name or an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the same on every address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where to connect, in this order. A name is resolved each time.
    pub(super) async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if self.addresses.is_empty() {
            return Ok(tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect());
        }
        Ok(self.addresses.clone())
    }

    /// The name to look up, and the port. `None` if the addresses are known.
    pub(super) fn name(&self) -> Option<(String, u16)> {
        self.addresses.is_empty().then(|| (self.host.clone(), self.port))
    }

    /// Host and port, for the `Host` header.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }
}

#[cfg(test)]
impl Target {
    /// A name that has to be looked up, whose servers use plain HTTP.
    pub(super) fn named(authority: &str) -> Self {
        let known: Self = "http://localhost".parse().unwrap();
        let (host, port) = authority.split_once(':').unwrap();
        let (host, port) = (host.to_owned(), port.parse().unwrap());
        Self { authority: authority.to_owned(), host, port, addresses: Vec::new(), ..known }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let uri: Uri = text.parse().map_err(|_| TargetError::NotUrl)?;
        let authority = uri.authority().ok_or(TargetError::NotUrl)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (scheme, default_port) = match uri.scheme_str() {
            Some("http") => (Scheme::Http, 80),
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| TargetError::NotUrl)?;
                (Scheme::Https(name), 443)
            }
            Some(_) => return Err(TargetError::Scheme),
            None => return Err(TargetError::NotUrl),
        };
        if uri.path() != "/" || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(TargetError::MoreThanAddress);
        }
        let port = authority.port_u16().unwrap_or(default_port);
        let ips = match host.parse::<IpAddr>().ok() {
            Some(ip) if ip.is_loopback() || scheme != Scheme::Http => vec![ip],
            // RFC 6761 reserves this name for loopback, so no resolver is queried.
            None if host.eq_ignore_ascii_case("localhost") => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            None if scheme != Scheme::Http => Vec::new(),
            _ => return Err(TargetError::NotLoopback { host: authority.host().to_owned() }),
        };
        let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        let authority = authority.to_string();
        Ok(Self { scheme, authority, host, port, addresses, credentials: Arc::default() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.scheme == Scheme::Http { "http" } else { "https" };
        write!(formatter, "{scheme}://{}", self.authority)
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
    fn a_target_is_http_on_loopback_or_https_anywhere() {
        check("http://127.0.0.1:9440", "[127.0.0.1:9440]");
        check("http://127.9.9.9:1/", "[127.9.9.9:1]");
        check("http://[::1]:9440", "[[::1]:9440]");
        check("http://localhost:9440", "[127.0.0.1:9440, [::1]:9440]");
        check("http://127.0.0.1", "[127.0.0.1:80]");
        check("https://10.0.0.1:9440", "[10.0.0.1:9440]");
        check("https://[2001:db8::1]", "[[2001:db8::1]:443]");
        check("https://localhost:1", "[127.0.0.1:1, [::1]:1]");
        // Resolved when the agent connects to it.
        check("https://mcad-aggregator-reports.metrics.svc:10911", "[]");
    }

    #[test]
    fn anything_else_is_refused_with_why() {
        check("http://10.0.0.1:9440", "10.0.0.1 is not a loopback address");
        check("http://0.0.0.0:9440", "0.0.0.0 is not a loopback address");
        check("http://localhost.example.org:1", "localhost.example.org is not a loopback address");
        check("ftp://127.0.0.1:9440", "the scheme must be https, or http on loopback");
        check("https://a_b/", "[]");
        check("https://a..b", "not a URL such as https");
        check("http://127.0.0.1:9440/v1/report", "give only scheme, host and port");
        check("http://127.0.0.1:9440/?a=b", "give only scheme, host and port");
        check("http://me@127.0.0.1:9440", "give only scheme, host and port");
        check("127.0.0.1:9440", "not a URL such as https");
        check("", "not a URL such as https");
        check("http://", "not a URL such as https");
    }

    #[test]
    fn https_needs_somebody_who_vouches_and_has_no_switch_to_do_without() {
        let target = |url: &str| url.parse::<Target>().unwrap();
        assert!(target("https://127.0.0.1:1").trusting(Credentials::default()).is_err());
        assert!(target("https://127.0.0.1:1").trusting(Credentials::new(None, Some("t".into()))).is_err());
        assert!(target("https://127.0.0.1:1").trusting(Credentials::new(Some("ca".into()), None)).is_ok());
        assert!(target("http://127.0.0.1:1").trusting(Credentials::default()).is_ok());
    }

    #[test]
    fn a_replica_is_at_an_address_and_keeps_the_name() {
        let replica = target_of("https://reports.metrics.svc:7").at("10.0.0.9:7".parse().unwrap());
        assert_eq!(replica.addresses, ["10.0.0.9:7".parse().unwrap()]);
        assert_eq!(
            (replica.authority(), replica.host(), replica.port()),
            ("reports.metrics.svc:7", "reports.metrics.svc", 7)
        );
    }

    fn target_of(url: &str) -> Target {
        url.parse().unwrap()
    }
}
