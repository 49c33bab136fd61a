//! Certificates that are given as files, by cert-manager, OpenShift's service CA or a person. Owns reading them anew when
//! they change; a pair that can't be used leaves the one before in place.
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::Shown;
use super::tls::{Certificates, UnusableError};

/// How often they are looked at. Kubelet renews what it mounts once a minute or so.
const EVERY: Duration = Duration::from_secs(10);
/// A chain of certificates has a few kB; what is longer is something else.
const MAX_BYTES: u64 = 256 * 1024;

/// A certificate and its key, as files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, followed by those between it and an authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why they can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// One can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// One is too long.
    #[error("{} is longer than {MAX_BYTES} bytes", .0.display())]
    TooLong(PathBuf),
    /// It has no certificate.
    #[error("{} has no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// It has no key.
    #[error("{} has no private key in PEM", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// They don't fit.
    #[error("{} and its key can't be used", path.display())]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// Why.
        #[source]
        source: UnusableError,
    },
}

/// What was in the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    /// Shows what is in the files; says what that was.
    pub fn show(&self, certificates: &Certificates) -> Result<Contents, FilesError> {
        let contents = self.contents()?;
        self.renew(&contents, certificates)?;
        Ok(contents)
    }

    /// Shows what is in the files whenever it is something else than `shown`.
    pub async fn follow(&self, certificates: &Certificates, mut shown: Contents) -> Infallible {
        let mut failing = false;
        loop {
            tokio::time::sleep(EVERY).await;
            match self.look(certificates, &shown) {
                Ok(None) => failing = false,
                Ok(Some(changed)) => {
                    tracing::info!(path = %self.certificate.display(), "certificate read anew");
                    (shown, failing) = (changed, false);
                }
                // A pair is written in two steps; the next look finds both.
                Err(error) => {
                    if !failing {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(cause, "{error}; the certificate before is shown on");
                    }
                    failing = true;
                }
            }
        }
    }

    /// Shows what is in the files, if it is something else than `shown`.
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

/// What is in a file, which has a length of its kind.
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
    use crate::trust::certificate::{Authority, read as read_pem};

    const NOW_S: u64 = 1_800_000_000;

    /// A folder with an authority's own certificate and key.
    fn write(folder: &Path, not_after_s: u64) -> (Files, Authority) {
        let files = Files { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        let authority = Authority::make(not_after_s).unwrap();
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
        assert!(refusal().ends_with("tls.crt can't be read"), "{}", refusal());
    }
}
