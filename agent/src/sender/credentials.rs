//! The CA bundle that the agent trusts and the token that identifies it: files that kubelet renews. They are read again
//! for each connection and each report.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::HeaderValue;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// A bundle has a few certificates of 1 KiB, a token has 1 KiB; a longer file is something else.
pub(super) const MAX_BYTES: u64 = 256 * 1024;

/// Files that are needed to reach an aggregator on another machine.
#[derive(Debug, Default)]
pub struct Credentials {
    authorities: Option<PathBuf>,
    token: Option<PathBuf>,
    /// The bundle as it was last read, and the TLS configuration made from it.
    read: Mutex<Option<(Vec<u8>, Arc<ClientConfig>)>>,
}

/// Why the credentials cannot be used at the moment.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// A file is too long.
    #[error("{} is longer than {MAX_BYTES} bytes", .0.display())]
    TooLong(PathBuf),
    /// The bundle has no certificate.
    #[error("{} has no certificate in PEM", .0.display())]
    NoAuthority(PathBuf),
    /// The file contains no token that can be sent.
    #[error("{} has no token", .0.display())]
    NoToken(PathBuf),
    /// No bundle is configured.
    #[error("no CA certificates are configured to verify the aggregator; see --aggregator-ca")]
    NoBundle,
    /// TLS can't be configured.
    #[error("cannot configure TLS")]
    Setup(#[source] rustls::Error),
}

impl Credentials {
    /// Uses these files: CA certificates in PEM, and a token.
    pub fn new(authorities: Option<PathBuf>, token: Option<PathBuf>) -> Self {
        Self { authorities, token, read: Mutex::new(None) }
    }

    pub(super) fn has_authorities(&self) -> bool {
        self.authorities.is_some()
    }

    /// The TLS configuration for a new connection: TLS 1.3, with a server whose certificate a CA of the bundle issued.
    pub(super) fn tls(&self) -> Result<Arc<ClientConfig>, CredentialsError> {
        let path = self.authorities.as_ref().ok_or(CredentialsError::NoBundle)?;
        let bundle = read(path)?;
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = known.as_ref().filter(|(before, _)| *before == bundle) {
            return Ok(Arc::clone(config));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).filter_map(Result::ok));
        if roots.is_empty() {
            return Err(CredentialsError::NoAuthority(path.clone()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(CredentialsError::Setup)?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // One connection is kept; a new one is verified again.
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        *known = Some((bundle, Arc::clone(&config)));
        Ok(config)
    }

    /// The header that identifies the sender of a report. `None` if no token is configured.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, CredentialsError> {
        let Some(path) = &self.token else { return Ok(None) };
        let token = read(path)?;
        let token = token.trim_ascii();
        let value = [b"Bearer ", token].concat();
        let value = HeaderValue::from_bytes(&value).ok().filter(|_| !token.is_empty());
        let mut value = value.ok_or_else(|| CredentialsError::NoToken(path.clone()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Reads a whole file. It is short and local, so blocking is acceptable.
fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    let failed = |source| CredentialsError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(CredentialsError::TooLong(path.to_owned()));
    }
    std::fs::read(path).map_err(failed)
}
