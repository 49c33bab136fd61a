//! TLS 1.3 for a listener. Owns what is negotiated; which certificate is shown comes through [`Certificates`].
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;

use super::certificate::{Shown, read_der};

/// Why a certificate can't be shown.
#[derive(Debug, thiserror::Error)]
#[error("this certificate and key can't be used")]
pub struct UnusableError(#[source] rustls::Error);

/// The certificate that a listener shows, as it is renewed. Connections that are open keep theirs.
#[derive(Clone, Debug, Default)]
pub struct Certificates(Arc<RwLock<Option<Current>>>);

#[derive(Clone, Debug)]
struct Current {
    config: Arc<ServerConfig>,
    not_after_s: Option<u64>,
}

impl Certificates {
    /// What new connections are shown. Absent: there is none yet, and no connection can be made.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        self.current().map(|current| current.config)
    }

    /// Until when the certificate is valid, in s since the Unix epoch.
    pub fn not_after_s(&self) -> Option<u64> {
        self.current()?.not_after_s
    }

    /// Shows another one from now on.
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
    // Agents keep their connection: a session to resume would only be memory.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
