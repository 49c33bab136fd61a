//! Certificates from files, as written by cert-manager, OpenShift's service CA or a person. Reads them again when they change; if
//! the new pair cannot be used, the previous pair stays in use.
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::Shown;
use super::tls::{Certificates, UnusableError};

/// How often they are checked. Kubelet updates mounted files about once a minute.
const EVERY: Duration = Duration::from_secs(10);
/// The longest file. A chain of certificates has a few kB; a longer file is something else.
const MAX_BYTES: u64 = 256 * 1024;

/// A certificate and its key, as files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, followed by intermediate certificates.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file is too long.
    #[error("{} is longer than {MAX_BYTES} bytes", .0.display())]
    TooLong(PathBuf),
    /// The file contains no certificate.
    #[error("{} has no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// The file contains no private key.
    #[error("{} has no private key in PEM", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: pem::Error,
    },
    /// The certificate and the key cannot be used together.
    #[error("{} and its key cannot be used", path.display())]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// The cause.
        #[source]
        source: UnusableError,
    },
}

/// The content of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    /// Uses the certificate in the files and returns their content.
    pub fn show(&self, certificates: &Certificates) -> Result<Contents, FilesError> {
        let contents = self.contents()?;
        self.renew(&contents, certificates)?;
        Ok(contents)
    }

    /// Uses the certificate in the files whenever their content changes from `shown`.
    pub async fn follow(&self, certificates: &Certificates, mut shown: Contents) -> Infallible {
        let mut failing = false;
        loop {
            tokio::time::sleep(EVERY).await;
            match self.look(certificates, &shown) {
                Ok(None) => failing = false,
                Ok(Some(changed)) => {
                    tracing::info!(path = %self.certificate.display(), "a changed certificate is in use");
                    (shown, failing) = (changed, false);
                }
                // The two files are written one after the other; the next check finds both.
                Err(error) => {
                    if !failing {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(cause, "{error}; the previous certificate stays in use");
                    }
                    failing = true;
                }
            }
        }
    }

    /// Uses the certificate in the files if their content differs from `shown`.
    pub fn look(&self, certificates: &Certificates, shown: &Contents) -> Result<Option<Contents>, FilesError> {
        let contents = self.contents()?;
        if contents == *shown {
            return Ok(None);
        }
        self.renew(&contents, certificates)?;
        Ok(Some(contents))
    }

    fn contents(&self) -> Result<Contents, FilesError> {
        Ok(Contents { certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    fn renew(&self, contents: &Contents, certificates: &Certificates) -> Result<(), FilesError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents.certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| FilesError::NoCertificate(self.certificate.clone()))?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key);
        let key = key.map_err(|source| FilesError::NoKey { path: self.key.clone(), source })?;
        let unusable = |source| FilesError::Unusable { path: self.certificate.clone(), source };
        certificates.renew(Shown { chain, key }).map_err(unusable)
    }
}

/// Reads a file of at most [`MAX_BYTES`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FilesError> {
    let failed = |source| FilesError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(FilesError::TooLong(path.to_owned()));
    }
    std::fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::certificate::{CertificateAuthority, read as read_pem};

    const NOW_S: u64 = 1_800_000_000;

    /// A folder with a CA's own certificate and key.
    fn write(folder: &Path, not_after_s: u64) -> (Files, CertificateAuthority) {
        let files = Files { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        let authority = CertificateAuthority::make(not_after_s).unwrap();
        std::fs::write(&files.certificate, &authority.certificate).unwrap();
        std::fs::write(&files.key, &authority.key).unwrap();
        (files, authority)
    }

    #[test]
    fn files_that_change_are_shown_and_those_that_do_not_fit_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates::default();
        let (files, first) = write(folder.path(), NOW_S);
        let shown = files.show(&certificates).unwrap();
        assert_eq!(certificates.not_after_s(), Some(read_pem(&first.certificate).unwrap().not_after_s));
        assert!(files.look(&certificates, &shown).unwrap().is_none());
        // Half of a change: the old key with the new certificate.
        let (_, second) = write(folder.path(), NOW_S + 7);
        std::fs::write(&files.key, &first.key).unwrap();
        let error = files.look(&certificates, &shown).unwrap_err();
        assert!(matches!(error, FilesError::Unusable { .. }), "{error:?}");
        assert_eq!(certificates.not_after_s(), Some(read_pem(&first.certificate).unwrap().not_after_s));
        std::fs::write(&files.key, &second.key).unwrap();
        assert!(files.look(&certificates, &shown).unwrap().is_some());
        assert_eq!(certificates.not_after_s(), Some(read_pem(&second.certificate).unwrap().not_after_s));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (files, authority) = write(folder.path(), NOW_S);
        let refusal = || files.show(&Certificates::default()).unwrap_err().to_string();
        std::fs::write(&files.key, "no key").unwrap();
        assert!(refusal().ends_with("tls.key has no private key in PEM"), "{}", refusal());
        std::fs::write(&files.key, &authority.key).unwrap();
        std::fs::write(&files.certificate, "").unwrap();
        assert!(refusal().ends_with("tls.crt has no certificate in PEM"), "{}", refusal());
        std::fs::write(&files.certificate, vec![b'x'; MAX_BYTES as usize]).unwrap();
        assert!(refusal().ends_with("tls.crt has no certificate in PEM"), "{}", refusal());
        std::fs::write(&files.certificate, vec![b'x'; MAX_BYTES as usize + 1]).unwrap();
        assert!(refusal().contains("longer than"), "{}", refusal());
        std::fs::remove_file(&files.certificate).unwrap();
        assert!(refusal().ends_with("tls.crt cannot be read"), "{}", refusal());
    }
}
