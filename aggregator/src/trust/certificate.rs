//! Creates, signs and parses certificates. Owns their content; `rotation` decides when one is due.
use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use ring::digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use super::rotation::{AUTHORITY_S, Fingerprint};

/// A certificate is valid from this long before it is made, since clocks of nodes may be behind.
const BACKDATED_S: u64 = 86_400;

/// A CA with its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateAuthority {
    /// Its certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// The certificate chain and private key of a server.
#[derive(Debug)]
pub struct Shown {
    /// Its certificate, followed by intermediate certificates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
}

/// The fields of a certificate that matter for rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its SHA-256 fingerprint.
    pub id: Fingerprint,
    /// Since when it is valid, in s since the Unix epoch.
    pub not_before_s: u64,
    /// Until when it is valid, in s since the Unix epoch.
    pub not_after_s: u64,
}

/// Why a certificate cannot be created or used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It could not be created.
    #[error("a certificate could not be created")]
    Make(#[source] rcgen::Error),
    /// The private key cannot be parsed or used.
    #[error("the private key of the CA cannot be read")]
    Key(#[source] rcgen::Error),
    /// The text is not a certificate.
    #[error("not a certificate in PEM")]
    NotCertificate,
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    OtherKey,
}

/// Does not print the key, to keep it out of logs.
impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// Creates a CA, valid from now on.
    pub fn make(now_s: u64) -> Result<Self, CertificateError> {
        let key = KeyPair::generate().map_err(CertificateError::Make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("mcad-metrics authority");
        // It signs certificates of servers, but not of other CAs.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        valid(&mut params, now_s, now_s + AUTHORITY_S)?;
        let certificate = params.self_signed(&key).map_err(CertificateError::Make)?.pem();
        Ok(Self { certificate, key: key.serialize_pem() })
    }

    /// A CA from its parts, if they belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CertificateError> {
        let pair = KeyPair::from_pem(key).map_err(CertificateError::Key)?;
        let der = parse(certificate)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| CertificateError::NotCertificate)?;
        if parsed.public_key().subject_public_key.data != pair.public_key_raw() {
            return Err(CertificateError::OtherKey);
        }
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned() })
    }

    /// Signs a certificate for a server with these names and a new key, which never leaves this process. It is valid from a day
    /// before `now_s`.
    pub fn sign(&self, names: &[String], now_s: u64, not_after_s: u64) -> Result<Shown, CertificateError> {
        let authority = KeyPair::from_pem(&self.key).map_err(CertificateError::Key)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, authority).map_err(CertificateError::Key)?;
        let key = KeyPair::generate().map_err(CertificateError::Make)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(CertificateError::Make)?;
        params.distinguished_name = name("mcad-aggregator");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now_s, not_after_s)?;
        let certificate = params.signed_by(&key, &issuer).map_err(CertificateError::Make)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(Shown { chain: vec![certificate.der().clone()], key })
    }
}

/// Parses one certificate in PEM.
pub fn read(pem: &str) -> Result<Read, CertificateError> {
    read_der(&parse(pem)?)
}

/// Parses one certificate in DER.
pub fn read_der(der: &CertificateDer<'_>) -> Result<Read, CertificateError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|_| CertificateError::NotCertificate)?;
    let unix_s = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let (not_before_s, not_after_s) = (unix_s(parsed.validity().not_before), unix_s(parsed.validity().not_after));
    let mut id = Fingerprint::default();
    id.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
    Ok(Read { id, not_before_s, not_after_s })
}

/// The certificates of a bundle, each with its PEM; everything else is skipped.
pub fn read_bundle(pem: &str) -> Vec<(Read, String)> {
    let mut found = Vec::new();
    for (at, _) in pem.match_indices("-----BEGIN CERTIFICATE-----") {
        const END: &str = "-----END CERTIFICATE-----";
        let Some(end) = pem[at..].find(END) else { break };
        let one = &pem[at..at + end + END.len()];
        if let Ok(read) = read(one) {
            found.push((read, format!("{one}\n")));
        }
    }
    found
}

fn parse(pem: &str) -> Result<CertificateDer<'static>, CertificateError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertificateError::NotCertificate)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn valid(params: &mut CertificateParams, now_s: u64, not_after_s: u64) -> Result<(), CertificateError> {
    let time = |unix_s: u64| {
        let unix_s = i64::try_from(unix_s).map_err(|_| rcgen::Error::Time)?;
        OffsetDateTime::from_unix_timestamp(unix_s).map_err(|_| rcgen::Error::Time)
    };
    params.not_before = time(now_s.saturating_sub(BACKDATED_S)).map_err(CertificateError::Make)?;
    params.not_after = time(not_after_s).map_err(CertificateError::Make)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    #[test]
    fn what_was_made_is_read_back() {
        let one = CertificateAuthority::make(NOW_S).unwrap();
        assert_eq!(CertificateAuthority::from_pem(&one.certificate, &one.key).unwrap(), one);
        assert_eq!(read(&one.certificate).unwrap().not_after_s, NOW_S + AUTHORITY_S);
        let other = CertificateAuthority::make(NOW_S).unwrap();
        assert!(matches!(
            CertificateAuthority::from_pem(&one.certificate, &other.key),
            Err(CertificateError::OtherKey)
        ));
        assert!(matches!(CertificateAuthority::from_pem("x", &other.key), Err(CertificateError::NotCertificate)));
        assert!(matches!(CertificateAuthority::from_pem(&one.certificate, "x"), Err(CertificateError::Key(_))));
    }

    #[test]
    fn a_bundle_is_read_past_what_is_no_certificate() {
        let (one, two) = (
            CertificateAuthority::make(NOW_S).unwrap().certificate,
            CertificateAuthority::make(NOW_S).unwrap().certificate,
        );
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let read = read_bundle(&format!("# a comment\n{one}{broken}\n{two}-----BEGIN CERTIFICATE-----"));
        let pems: Vec<_> = read.iter().map(|(_, pem)| pem.replace("\r\n", "\n")).collect();
        assert_eq!(pems, [one.replace("\r\n", "\n"), two.replace("\r\n", "\n")]);
    }

    #[test]
    fn no_key_is_shown_in_a_log() {
        let one = CertificateAuthority::make(NOW_S).unwrap();
        assert!(!format!("{one:?}").contains("PRIVATE"));
    }
}
