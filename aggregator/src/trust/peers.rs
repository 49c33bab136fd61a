//! Mutual authentication of replicas: the token that a replica sends, and the certificate that it expects. Owns the files of both,
//! which are read for each request; `peer` makes the request.
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::claims::Claims;
use super::files::{self, FilesError};

/// The credentials for a state transfer. By default plain HTTP without a token, which works only on loopback.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    authorities: Option<Authorities>,
    /// The file with this replica's own ServiceAccount token.
    token: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Authorities {
    bundle: PathBuf,
    /// The name that the other replica's certificate must be issued for.
    name: ServerName<'static>,
}

/// Why the credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FilesError),
    /// The bundle contains no certificate.
    #[error("{} has no CA certificate in PEM", .0.display())]
    NoAuthority(PathBuf),
    /// The name cannot be in a certificate.
    #[error("{0:?} is not a valid server name")]
    Name(String),
    /// The file contains no token.
    #[error("{} has no ServiceAccount token", .0.display())]
    NoToken(PathBuf),
    /// TLS cannot be set up.
    #[error("set up TLS")]
    Setup(#[source] rustls::Error),
}

impl Credentials {
    /// Requires a certificate of the other replica that is issued for this name and signed by a CA of this bundle.
    pub fn verify(mut self, bundle: PathBuf, name: &str) -> Result<Self, CredentialsError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| CredentialsError::Name(name.to_owned()))?;
        self.authorities = Some(Authorities { bundle, name });
        Ok(self)
    }

    /// Sends the token in this file.
    #[must_use]
    pub fn prove(mut self, token: PathBuf) -> Self {
        self.token = Some(token);
        self
    }

    /// The TLS configuration and the name to verify. `None` for plain HTTP.
    pub fn tls(&self) -> Result<Option<(Arc<ClientConfig>, ServerName<'static>)>, CredentialsError> {
        let Some(Authorities { bundle, name }) = &self.authorities else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        let pem = files::read(bundle)?;
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
        if roots.is_empty() {
            return Err(CredentialsError::NoAuthority(bundle.clone()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(CredentialsError::Setup)?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection has one request.
        config.resumption = Resumption::disabled();
        Ok(Some((Arc::new(config), name.clone())))
    }

    /// The token. `None` if none is sent.
    pub fn token(&self) -> Result<Option<String>, CredentialsError> {
        let Some(path) = &self.token else { return Ok(None) };
        let no_token = || CredentialsError::NoToken(path.clone());
        let text = String::from_utf8(files::read(path)?).map_err(|_| no_token())?;
        let token = text.trim();
        // An invalid token would only be refused, and could break the request.
        Claims::read(token).ok_or_else(no_token)?;
        Ok(Some(token.to_owned()))
    }

    /// The ServiceAccount of the token: all replicas have the same one, so it is the account that may request state transfers from
    /// this replica. The claims can be trusted, since kubelet wrote the file.
    pub fn service_account(&self) -> Result<Option<String>, CredentialsError> {
        let (Some(path), Some(token)) = (&self.token, self.token()?) else { return Ok(None) };
        let account = Claims::read(&token).and_then(|claims| claims.sub);
        account.map(Some).ok_or_else(|| CredentialsError::NoToken(path.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::certificate::CertificateAuthority;

    // {"sub":"system:serviceaccount:m:a"} and {}
    const OURS: &str = "e30.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6bTphIn0.c2ln";
    const NOBODYS: &str = "e30.e30.c2ln";

    #[test]
    fn a_token_says_whose_it_is_and_what_is_none_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let credentials = Credentials::default().prove(path.clone());
        assert!(matches!(credentials.token(), Err(CredentialsError::File(_))));
        std::fs::write(&path, format!("{OURS}\n")).unwrap();
        assert_eq!(credentials.token().unwrap().as_deref(), Some(OURS));
        assert_eq!(credentials.service_account().unwrap().as_deref(), Some("system:serviceaccount:m:a"));
        for none in ["", "a b", "x\r\ny: z", "\u{ff}"] {
            std::fs::write(&path, none).unwrap();
            assert!(matches!(credentials.token(), Err(CredentialsError::NoToken(_))), "{none:?}");
        }
        std::fs::write(&path, NOBODYS).unwrap();
        assert!(matches!(credentials.service_account(), Err(CredentialsError::NoToken(_))));
        assert_eq!(Credentials::default().service_account().unwrap(), None);
    }

    #[test]
    fn without_an_authority_nobody_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("ca.crt");
        assert!(Credentials::default().tls().unwrap().is_none());
        assert!(matches!(Credentials::default().verify(bundle.clone(), "a b"), Err(CredentialsError::Name(_))));
        let credentials = Credentials::default().verify(bundle.clone(), "reports.m.svc").unwrap();
        assert!(matches!(credentials.tls(), Err(CredentialsError::File(_))));
        std::fs::write(&bundle, "none").unwrap();
        assert!(matches!(credentials.tls(), Err(CredentialsError::NoAuthority(_))));
        std::fs::write(&bundle, CertificateAuthority::make(1_800_000_000).unwrap().certificate).unwrap();
        assert!(credentials.tls().unwrap().is_some());
    }
}
