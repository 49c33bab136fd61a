//! The Lease, `coordination.k8s.io/v1`: reads and writes it as the election decides, until this replica ends. Owns the
//! requests, their time-outs and the fields of the Lease; decides nothing.
//!
//! docs/decisions/0007 says why none of the existing crates is used.
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{oneshot, watch};

use super::Leadership;
use super::election::{Action, Claim, Election, Event, Record, Settings, Standing};
use crate::clock::api::ApiClock;
use crate::seldom::Seldom;

/// The annotation with the address of the holder's report port, for a replica that starts and requests a state transfer.
const ADDRESS: &str = "mcad-metrics/reports";

/// The name of a Lease.
#[derive(Clone, Debug)]
pub struct Name {
    /// Its namespace. `None` for the client's default, which in a pod is the namespace of the pod.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// A replica that takes part in the election.
pub struct Candidate<S> {
    api: Api<Lease>,
    name: String,
    /// The address of this replica, for others.
    address: Option<String>,
    clock: ApiClock,
    leadership: Leadership,
    /// Returns whether this replica may become the leader now.
    standing: S,
    election: Election,
    /// The Lease as last read or written.
    lease: Option<Lease>,
    holder: watch::Sender<Holder>,
    /// Whether the last request failed; `None` before the first.
    failing: Option<bool>,
    warned: Seldom,
}

/// Who holds the Lease, as far as others need to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    /// The Lease was not read yet.
    #[default]
    Unknown,
    /// Nobody, this replica, or a replica without an address.
    Nobody,
    /// Another replica, with its address.
    At(String),
}

impl<S: Fn() -> Standing> Candidate<S> {
    /// A candidate that does not hold the Lease yet.
    pub fn new(
        client: Client,
        name: &Name,
        settings: Settings,
        address: Option<String>,
        clock: ApiClock,
        leadership: Leadership,
        standing: S,
    ) -> Self {
        let api = match &name.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::default_namespaced(client),
        };
        Self {
            api,
            name: name.name.clone(),
            address,
            clock,
            leadership,
            standing,
            election: Election::new(settings),
            lease: None,
            holder: watch::Sender::default(),
            failing: None,
            warned: Seldom::default(),
        }
    }

    /// Who holds the Lease, as it changes.
    pub fn holder(&self) -> watch::Receiver<Holder> {
        self.holder.subscribe()
    }

    /// Takes part until `leave` receives a message or its sender is dropped, and then until the Lease is released. If it cannot be
    /// released in time, it expires.
    pub async fn run(mut self, mut leave: oneshot::Receiver<()>) {
        let mut event = Event::Tick;
        let leaving = loop {
            match self.step(event) {
                Action::Wait(wait) => {
                    tokio::select! {
                        () = tokio::time::sleep(wait) => event = Event::Tick,
                        _ = &mut leave => break Event::Leave,
                    }
                }
                action => event = self.act(action).await,
            }
        };
        let limit = self.election.settings().request() * 2;
        if tokio::time::timeout(limit, self.give_back(leaving)).await.is_err() {
            tracing::warn!("the Lease could not be released: other replicas wait until it expires");
        }
    }

    async fn give_back(&mut self, mut event: Event) {
        loop {
            event = match self.step(event) {
                Action::Done => return,
                Action::Wait(wait) => {
                    tokio::time::sleep(wait).await;
                    Event::Tick
                }
                action => self.act(action).await,
            }
        }
    }

    fn step(&mut self, event: Event) -> Action {
        let held = self.election.renewed().is_some();
        let standing = (self.standing)();
        // If the clocks disagree, another replica should become the leader if there is one: act as if the history were missing.
        let standing = match (self.clock.times().other_s(), standing) {
            (Some(_), Standing::Ready) => Standing::WithoutHistory,
            _ => standing,
        };
        let action = self.election.step(event, standing, self.clock.now());
        self.leadership.renewed(self.election.renewed());
        let holds = self.election.renewed().is_some();
        if holds != held {
            let identity = &self.election.settings().identity;
            let by = self.election.seen().map_or("", |record| record.holder.as_str());
            if holds {
                tracing::info!(identity, lease = self.name, "this replica is the leader");
            } else {
                tracing::info!(identity, lease = self.name, holder = by, "this replica is not the leader any more");
            }
        }
        action
    }

    /// Carries out an action other than waiting or being done.
    async fn act(&mut self, action: Action) -> Event {
        let asked = self.clock.now();
        let limit = self.election.settings().request();
        let request = self.request(action);
        let result = tokio::time::timeout(limit, request).await.unwrap_or(Err(Failure::Silence(limit)));
        self.note(result.as_ref().err());
        let Ok(lease) = result else { return Event::Failed };
        let record = lease.as_ref().map(record);
        self.lease = lease;
        let me = &self.election.settings().identity;
        let holder = record.as_ref().filter(|record| record.holder != *me && !record.holder.is_empty());
        let address = holder.and_then(|record| record.address.clone());
        let holder = address.map_or(Holder::Nobody, Holder::At);
        self.holder.send_if_modified(|known| std::mem::replace(known, holder.clone()) != holder);
        match (action, record) {
            (Action::Write(_), Some(record)) => Event::Wrote { asked, record },
            (_, record) => Event::Read(record),
        }
    }

    async fn request(&self, action: Action) -> Result<Option<Lease>, Failure> {
        let parameters = PostParams::default();
        let claim = match action {
            Action::Write(claim) => claim,
            Action::Read | Action::Wait(_) | Action::Done => return Ok(self.api.get_opt(&self.name).await?),
        };
        let known = self.lease.clone().filter(|_| claim != Claim::Create);
        let wanted = self.claimed(claim, known);
        let lease = match claim {
            Claim::Create => self.api.create(&parameters, &wanted).await?,
            // The object has the version that was read, so the write fails if another replica has written meanwhile.
            Claim::Acquire | Claim::Renew | Claim::Release => {
                self.api.replace(&self.name, &parameters, &wanted).await?
            }
        };
        Ok(Some(lease))
    }

    fn claimed(&self, claim: Claim, known: Option<Lease>) -> Lease {
        let settings = self.election.settings();
        let Lease { mut metadata, spec } = known.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        let mut spec = spec.unwrap_or_default();
        // People and other programs compare it with the API server's time, whatever this machine's clock says.
        let time = self.clock.times().written_ms();
        let time = i64::try_from(time).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(MicroTime);
        let annotations = metadata.annotations.get_or_insert_default();
        if claim == Claim::Release {
            annotations.remove(ADDRESS);
            // Like client-go: the Lease shows that it is free, and since when.
            spec = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                renew_time: time.clone(),
                acquire_time: time,
                ..spec
            };
            return Lease { metadata, spec: Some(spec) };
        }
        if claim != Claim::Renew {
            let before = spec.lease_transitions.unwrap_or(0);
            spec.lease_transitions = Some(if claim == Claim::Create { 0 } else { before.saturating_add(1) });
            spec.acquire_time.clone_from(&time);
        }
        spec.holder_identity = Some(settings.identity.clone());
        spec.lease_duration_seconds = i32::try_from(settings.duration.as_secs()).ok();
        spec.renew_time = time;
        match &self.address {
            Some(address) => drop(annotations.insert(ADDRESS.to_owned(), address.clone())),
            None => drop(annotations.remove(ADDRESS)),
        }
        Lease { metadata, spec: Some(spec) }
    }

    /// Logs failures, at most one a minute, and their end.
    fn note(&mut self, failure: Option<&Failure>) {
        // If two replicas write at once, one loses: that is normal.
        let failure = failure.filter(|failure| !failure.is_lost_race());
        let before = self.failing.replace(failure.is_some());
        if let Some(failure) = failure {
            if let Some(unsaid) = self.warned.again(self.clock.now()) {
                let cause = std::error::Error::source(failure).map(ToString::to_string);
                tracing::warn!(lease = self.name, cause, unsaid, "{failure}");
            }
        } else if before != Some(false) {
            tracing::info!(lease = self.name, "the Lease can be read and written");
        }
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the Lease cannot be read or written")]
    Refused(#[from] kube::Error),
    #[error("no answer about the Lease within {0:?}")]
    Silence(Duration),
}

impl Failure {
    fn is_lost_race(&self) -> bool {
        matches!(self, Self::Refused(kube::Error::Api(status)) if status.code == 409)
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
    Record {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        address: lease.metadata.annotations.as_ref().and_then(|all| all.get(ADDRESS).cloned()),
    }
}

#[cfg(test)]
mod tests;
