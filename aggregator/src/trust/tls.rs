//! TLS 1.3 for a listener. Owns the negotiated parameters; [`Certificates`] holds the current certificate.
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;

use super::certificate::{Shown, read_der};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("this certificate and key cannot be used")]
pub struct UnusableError(#[source] rustls::Error);

/// The current certificate of a listener. Open connections keep the certificate that they started with.
#[derive(Clone, Debug, Default)]
pub struct Certificates(Arc<RwLock<Option<Current>>>);

#[derive(Clone, Debug)]
struct Current {
    config: Arc<ServerConfig>,
    not_after_s: Option<u64>,
}

impl Certificates {
    /// The configuration for new connections. `None` if there is no certificate yet, so that no connection is possible.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        self.current().map(|current| current.config)
    }

    /// Until when the certificate is valid, in s since the Unix epoch.
    pub fn not_after_s(&self) -> Option<u64> {
        self.current()?.not_after_s
    }

    /// Replaces the certificate.
    pub fn renew(&self, shown: Shown) -> Result<(), UnusableError> {
        let not_after_s = shown.chain.first().and_then(|leaf| Some(read_der(leaf).ok()?.not_after_s));
        let config = Arc::new(server(shown)?);
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(Current { config, not_after_s });
        Ok(())
    }

    fn current(&self) -> Option<Current> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn server(shown: Shown) -> Result<ServerConfig, UnusableError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(UnusableError)?;
    let mut config = builder.with_no_client_auth().with_single_cert(shown.chain, shown.key).map_err(UnusableError)?;
    // Agents keep their connections, so session resumption would only cost memory.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
