//! The aggregator's own CA: its keys are in a Secret that the replicas share, its certificates in a ConfigMap that agents mount.
//! Owns reading and writing both; `rotation` decides what is due.
//!
//! Every write names the version that it is based on. If another replica was first, the write is refused, both objects are read
//! again, and the next step is decided from their current content.
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::certificate::{self, CertificateAuthority, CertificateError};
use super::rotation::{self, Fingerprint, Leaf, SecretContents, Step};
use super::tls::{Certificates, UnusableError};
use crate::clock::api::{ApiClock, Times};
use crate::seldom::Seldom;

/// How often both are checked. Steps are days apart; a deleted Secret or ConfigMap is replaced within this time.
const EVERY: Duration = Duration::from_mins(1);
/// The pause after a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// The time limit of one check.
const DEADLINE: Duration = Duration::from_secs(20);
/// A check takes at most four steps (found, publish, note, and a conflict or two); more means that two writers conflict.
const MAX_STEPS: usize = 16;
/// The key of the bundle, as in Kubernetes' own `kube-root-ca.crt`.
const BUNDLE_KEY: &str = "ca.crt";

/// The objects that hold the CA.
#[derive(Clone, Debug)]
pub struct Places {
    /// The namespace of both.
    pub namespace: String,
    /// The Secret with the keys.
    pub secret: String,
    /// The ConfigMap with the bundle.
    pub config_map: String,
}

/// Maintains the CA and this replica's certificate.
#[derive(Debug)]
pub struct Keeper {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    places: Places,
    /// The DNS names by which agents connect to the server.
    names: Vec<String>,
    clock: ApiClock,
    certificates: Certificates,
    leaf: Option<Leaf>,
}

/// Why the CA or the certificate cannot be maintained.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The API server did not answer in time.
    #[error("no answer from the API server in time")]
    Deadline,
    /// An object cannot be read or written.
    #[error("{doing} {object}")]
    Api {
        /// `read` or `write`.
        doing: &'static str,
        /// The object.
        object: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
    /// The Secret does not contain a CA.
    #[error("Secret {secret} does not contain a valid CA: delete it, and a new one is created")]
    NotAuthority {
        /// The Secret.
        secret: String,
        /// The cause.
        #[source]
        source: CertificateError,
    },
    /// A certificate could not be created.
    #[error("create a certificate")]
    Make(#[source] CertificateError),
    /// A certificate cannot be used by the server.
    #[error("use the certificate")]
    Show(#[source] UnusableError),
    /// This machine's clock and the API server's disagree, and it is not known which is wrong.
    #[error(
        "this machine's clock is at {own_s} s since 1970 and the API server's at {api_s} s: nothing is changed until they agree"
    )]
    Clock {
        /// This machine's.
        own_s: u64,
        /// The API server's.
        api_s: u64,
    },
    /// The objects change all the time.
    #[error("Secret {secret} and ConfigMap {config_map} change faster than they can be read")]
    Contended {
        /// The Secret.
        secret: String,
        /// The ConfigMap.
        config_map: String,
    },
}

/// Certificates by fingerprint, with their keys if known.
type Pems = BTreeMap<Fingerprint, (String, Option<String>)>;

/// Both objects as read.
struct Seen {
    secret: Option<Secret>,
    config_map: Option<ConfigMap>,
    held: Option<SecretContents>,
    /// The certificates of the bundle, and until when each is valid.
    bundle: BTreeMap<Fingerprint, u64>,
    pems: Pems,
}

impl Keeper {
    /// A keeper before its first check.
    pub fn new(
        client: Client,
        places: Places,
        names: Vec<String>,
        clock: ApiClock,
        certificates: Certificates,
    ) -> Self {
        let secrets = Api::namespaced(client.clone(), &places.namespace);
        let config_maps = Api::namespaced(client, &places.namespace);
        Self { secrets, config_maps, places, names, clock, certificates, leaf: None }
    }

    /// Maintains both until it is dropped.
    pub async fn keep(mut self) -> Infallible {
        let (mut failing, mut warned) = (false, Seldom::default());
        loop {
            let looked = tokio::time::timeout(DEADLINE, self.look()).await.unwrap_or(Err(AuthorityError::Deadline));
            let pause = match looked {
                Ok(()) => {
                    if failing {
                        tracing::info!("the CA can be maintained again");
                    }
                    failing = false;
                    EVERY
                }
                Err(error) => {
                    if let Some(unsaid) = warned.again(self.clock.now()) {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(cause, unsaid, "certificates: {error}; retrying");
                    }
                    failing = true;
                    AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes every step that is due, and renews the certificate if it is due.
    pub async fn look(&mut self) -> Result<(), AuthorityError> {
        for _ in 0..MAX_STEPS {
            let seen = self.read().await?;
            // The answers that were just read contain the API server's time.
            let times = self.clock.times();
            let now_s = times.own_s;
            if let Some(api_s) = times.other_s() {
                self.renew(&seen, times)?;
                return Err(AuthorityError::Clock { own_s: now_s, api_s });
            }
            let bundle: Vec<_> = seen.bundle.keys().copied().collect();
            let Some(step) = rotation::step(seen.held.as_ref(), &bundle, now_s) else {
                return self.renew(&seen, times);
            };
            let written = self.take(&step, &seen, now_s).await;
            if written.is_err() {
                // The existing CA is enough to serve with.
                self.renew(&seen, times)?;
            }
            if written? {
                tracing::info!(step = name(&step), "CA updated");
            }
        }
        let Places { secret, config_map, .. } = self.places.clone();
        Err(AuthorityError::Contended { secret, config_map })
    }

    /// Renews this replica's certificate if it is due. If the clocks disagree, only a replica without a certificate signs one, which
    /// is valid by both clocks.
    fn renew(&mut self, seen: &Seen, times: Times) -> Result<(), AuthorityError> {
        let Some(held) = &seen.held else { return Ok(()) };
        let is_due = match times.other_s() {
            Some(_) => self.leaf.is_none(),
            None => rotation::is_leaf_due(held, self.leaf.as_ref(), times.own_s),
        };
        if !is_due {
            return Ok(());
        }
        let Some((certificate, Some(key))) = seen.pems.get(&held.signing.id).cloned() else { return Ok(()) };
        let not_after_s = rotation::leaf_not_after_s(held, times.latest_s());
        let authority = CertificateAuthority { certificate, key };
        let shown = authority.sign(&self.names, times.earliest_s(), not_after_s).map_err(AuthorityError::Make)?;
        self.certificates.renew(shown).map_err(AuthorityError::Show)?;
        self.leaf = Some(Leaf { authority: held.signing.id, not_after_s });
        let days = not_after_s.saturating_sub(times.own_s) / 86_400;
        tracing::info!(names = ?self.names, days, "certificate for the report port was renewed");
        Ok(())
    }

    async fn read(&self) -> Result<Seen, AuthorityError> {
        let secret = self.secrets.get_opt(&self.places.secret).await;
        let secret = secret.map_err(|source| self.failed("read", "Secret", source))?;
        let config_map = self.config_maps.get_opt(&self.places.config_map).await;
        let config_map = config_map.map_err(|source| self.failed("read", "ConfigMap", source))?;
        let mut pems = Pems::new();
        let text = config_map.as_ref().and_then(|map| map.data.as_ref()?.get(BUNDLE_KEY));
        let mut bundle = BTreeMap::new();
        for (read, pem) in text.map(|text| certificate::read_bundle(text)).unwrap_or_default() {
            bundle.insert(read.id, read.not_after_s);
            pems.insert(read.id, (pem, None));
        }
        let data = secret.as_ref().and_then(|secret| secret.data.as_ref()).filter(|data| !data.is_empty());
        let held = data.map(|data| held(data, &mut pems)).transpose();
        let held = held.map_err(|source| {
            let secret = format!("{}/{}", self.places.namespace, self.places.secret);
            AuthorityError::NotAuthority { secret, source }
        })?;
        Ok(Seen { secret, config_map, held, bundle, pems })
    }

    /// Writes what a step changes. False: somebody else was first.
    async fn take(&self, step: &Step, seen: &Seen, now_s: u64) -> Result<bool, AuthorityError> {
        if let Step::Publish(wanted) = step {
            return self.publish(wanted, seen).await;
        }
        let mut pems = seen.pems.clone();
        // Only steps that make one look at it, and making one costs less than a millisecond.
        let made = CertificateAuthority::make(now_s).map_err(AuthorityError::Make)?;
        let read = certificate::read(&made.certificate).map_err(AuthorityError::Make)?;
        pems.insert(read.id, (made.certificate, Some(made.key)));
        let made = known(&read, None);
        let held = rotation::stepped(seen.held.as_ref(), step, &seen.bundle, made, now_s);
        let mut secret = seen.secret.clone().unwrap_or_default();
        secret.data = Some(data(&held, &pems));
        let (api, name, is_new) = (&self.secrets, &self.places.secret, seen.secret.is_none());
        secret.metadata = named(secret.metadata, name);
        let written = if is_new {
            api.create(&PostParams::default(), &secret).await
        } else {
            api.replace(name, &PostParams::default(), &secret).await
        };
        won(written).map_err(|source| self.failed("write", "Secret", source))
    }

    async fn publish(&self, wanted: &[Fingerprint], seen: &Seen) -> Result<bool, AuthorityError> {
        let pems = wanted.iter().filter_map(|id| seen.pems.get(id));
        let text: String = pems.map(|(certificate, _)| certificate.as_str()).collect();
        let mut map = seen.config_map.clone().unwrap_or_default();
        map.data.get_or_insert_default().insert(BUNDLE_KEY.to_owned(), text);
        let (api, name, is_new) = (&self.config_maps, &self.places.config_map, seen.config_map.is_none());
        map.metadata = named(map.metadata, name);
        let written = if is_new {
            api.create(&PostParams::default(), &map).await
        } else {
            api.replace(name, &PostParams::default(), &map).await
        };
        won(written).map_err(|source| self.failed("write", "ConfigMap", source))
    }

    fn failed(&self, doing: &'static str, kind: &str, source: kube::Error) -> AuthorityError {
        let name = if kind == "Secret" { &self.places.secret } else { &self.places.config_map };
        AuthorityError::Api { doing, object: format!("{kind} {}/{name}", self.places.namespace), source }
    }
}

fn named(metadata: ObjectMeta, name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..metadata }
}

/// Whether a write succeeded; false if another replica was first.
fn won<T>(written: kube::Result<T>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        // The object was changed, created or deleted since it was read.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(false),
        Err(error) => Err(error),
    }
}

fn known(read: &certificate::Read, published_s: Option<u64>) -> rotation::CertificateAuthority {
    let certificate::Read { id, not_before_s, not_after_s } = *read;
    rotation::CertificateAuthority { id, not_before_s, not_after_s, published_s }
}

/// Parses the data of the Secret.
fn held(data: &BTreeMap<String, ByteString>, pems: &mut Pems) -> Result<SecretContents, CertificateError> {
    let text = |key: &str| data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
    let mut keyed = |role: &str| -> Result<Option<rotation::CertificateAuthority>, CertificateError> {
        let Some(certificate) = text(&format!("{role}.crt")) else { return Ok(None) };
        let authority =
            CertificateAuthority::from_pem(&certificate, &text(&format!("{role}.key")).unwrap_or_default())?;
        let read = certificate::read(&authority.certificate)?;
        pems.insert(read.id, (authority.certificate, Some(authority.key)));
        let published_s = text(&format!("{role}.published")).and_then(|seconds| seconds.parse().ok());
        Ok(Some(known(&read, published_s)))
    };
    let signing = keyed("signing")?.ok_or(CertificateError::NotCertificate)?;
    let next = keyed("next")?;
    let mut retired = BTreeMap::new();
    for (read, pem) in certificate::read_bundle(&text("retired.crt").unwrap_or_default()) {
        retired.insert(read.id, read.not_after_s);
        pems.entry(read.id).or_insert((pem, None));
    }
    Ok(SecretContents { signing, next, retired })
}

/// The data of a Secret with this content.
fn data(held: &SecretContents, pems: &Pems) -> BTreeMap<String, ByteString> {
    let mut data = BTreeMap::new();
    let mut set = |key: String, text: String| drop(data.insert(key, ByteString(text.into_bytes())));
    for (role, authority) in [("signing", Some(held.signing)), ("next", held.next)] {
        let Some(authority) = authority else { continue };
        let Some((certificate, Some(key))) = pems.get(&authority.id) else { continue };
        set(format!("{role}.crt"), certificate.clone());
        set(format!("{role}.key"), key.clone());
        if let Some(published_s) = authority.published_s {
            set(format!("{role}.published"), published_s.to_string());
        }
    }
    let retired = held.retired.keys().filter_map(|id| pems.get(id));
    let retired: String = retired.map(|(certificate, _)| certificate.as_str()).collect();
    if !retired.is_empty() {
        set("retired.crt".to_owned(), retired);
    }
    data
}

fn name(step: &Step) -> &'static str {
    match step {
        Step::Found => "CA created",
        Step::Publish(_) => "bundle published",
        Step::NotePublished => "publication recorded",
        Step::MakeNext => "next CA created",
        Step::Promote => "next CA signs",
        Step::Forget => "expired certificates removed",
    }
}

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod limits;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_secret_holds_is_read_as_it_was_written() {
        let now_s = 1_800_000_000;
        let mut pems = Pems::new();
        let mut made = |published_s| {
            let one = CertificateAuthority::make(now_s).unwrap();
            let read = certificate::read(&one.certificate).unwrap();
            pems.insert(read.id, (one.certificate, Some(one.key)));
            known(&read, published_s)
        };
        let (signing, next, old) = (made(Some(7)), made(None), made(None));
        let all = SecretContents { signing, next: Some(next), retired: BTreeMap::from([(old.id, old.not_after_s)]) };
        let written = data(&all, &pems);
        let names: Vec<_> = written.keys().map(String::as_str).collect();
        assert_eq!(names, ["next.crt", "next.key", "retired.crt", "signing.crt", "signing.key", "signing.published"]);
        let mut read = Pems::new();
        assert_eq!(held(&written, &mut read).unwrap(), all);
        // The key of a retired CA is gone for good.
        assert_eq!(read[&old.id].1, None);
    }
}
