//! Certificates as bytes: made, signed and read. Owns what stands in them; when one is due is `rotation`'s.
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

/// A certificate begins so long before it is made: clocks of nodes may be behind.
const BACKDATED_S: u64 = 86_400;

/// An authority with its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// What a server shows, and the key that it proves it with.
#[derive(Debug)]
pub struct Shown {
    /// Its certificate and those between it and an authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
}

/// What of a certificate decides about rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// SHA-256 of it.
    pub id: Fingerprint,
    /// Since when it is valid, in s since the Unix epoch.
    pub not_before_s: u64,
    /// Until when it is valid, in s since the Unix epoch.
    pub not_after_s: u64,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It could not be made.
    #[error("a certificate could not be made")]
    Make(#[source] rcgen::Error),
    /// Its key fits no authority, or is none.
    #[error("the key of an authority can't be read")]
    Key(#[source] rcgen::Error),
    /// It is no certificate.
    #[error("not a certificate in PEM")]
    NotCertificate,
    /// It is a key of another certificate.
    #[error("the key is not that of the certificate")]
    OtherKey,
}

/// Keys stay out of logs.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one, valid from now on.
    pub fn make(now_s: u64) -> Result<Self, CertificateError> {
        let key = KeyPair::generate().map_err(CertificateError::Make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("mcad-metrics authority");
        // It signs servers, and no other authority.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        valid(&mut params, now_s, now_s + AUTHORITY_S)?;
        let certificate = params.self_signed(&key).map_err(CertificateError::Make)?.pem();
        Ok(Self { certificate, key: key.serialize_pem() })
    }

    /// Takes one from its parts, if they belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CertificateError> {
        let pair = KeyPair::from_pem(key).map_err(CertificateError::Key)?;
        let der = parse(certificate)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| CertificateError::NotCertificate)?;
        if parsed.public_key().subject_public_key.data != pair.public_key_raw() {
            return Err(CertificateError::OtherKey);
        }
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned() })
    }

    /// Signs a certificate for a server of these names, with a key of its own that leaves this process never. It begins a day
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

/// Reads one certificate in PEM.
pub fn read(pem: &str) -> Result<Read, CertificateError> {
    read_der(&parse(pem)?)
}

/// Reads one certificate.
pub fn read_der(der: &CertificateDer<'_>) -> Result<Read, CertificateError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|_| CertificateError::NotCertificate)?;
    let unix_s = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let (not_before_s, not_after_s) = (unix_s(parsed.validity().not_before), unix_s(parsed.validity().not_after));
    let mut id = Fingerprint::default();
    id.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
    Ok(Read { id, not_before_s, not_after_s })
}

/// The certificates of a bundle, each with its PEM; what is none is passed over.
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
        let one = Authority::make(NOW_S).unwrap();
        assert_eq!(Authority::from_pem(&one.certificate, &one.key).unwrap(), one);
        assert_eq!(read(&one.certificate).unwrap().not_after_s, NOW_S + AUTHORITY_S);
        let other = Authority::make(NOW_S).unwrap();
        assert!(matches!(Authority::from_pem(&one.certificate, &other.key), Err(CertificateError::OtherKey)));
        assert!(matches!(Authority::from_pem("x", &other.key), Err(CertificateError::NotCertificate)));
        assert!(matches!(Authority::from_pem(&one.certificate, "x"), Err(CertificateError::Key(_))));
    }

    #[test]
    fn a_bundle_is_read_past_what_is_no_certificate() {
        let (one, two) = (Authority::make(NOW_S).unwrap().certificate, Authority::make(NOW_S).unwrap().certificate);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let read = read_bundle(&format!("# a comment\n{one}{broken}\n{two}-----BEGIN CERTIFICATE-----"));
        let pems: Vec<_> = read.iter().map(|(_, pem)| pem.replace("\r\n", "\n")).collect();
        assert_eq!(pems, [one.replace("\r\n", "\n"), two.replace("\r\n", "\n")]);
    }

    #[test]
    fn no_key_is_shown_in_a_log() {
        let one = Authority::make(NOW_S).unwrap();
        assert!(!format!("{one:?}").contains("PRIVATE"));
    }
}
