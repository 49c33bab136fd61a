//! What one running aggregator holds: the store behind its lock, the clock, the figures about itself. Owns the order of the
//! steps from a body to the store and from the store to a snapshot; knows no transport.
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use mcad_accounting::cluster::{Event, Source};
use mcad_accounting::merge::{self, Role, Snapshot, View};
use mcad_accounting::node_name::NodeName;
use mcad_accounting::now::Now;
use mcad_accounting::reported::Stored;
use mcad_accounting::totals::{Counter, Jumps};
use mcad_present::exposition::{Closed, Exposition, Sink};
use mcad_present::metrics;
use mcad_wire::seed::{SEED_VERSION, Seed};

use crate::clock::Clock;
use crate::kubernetes::{Kubernetes, lock};
use crate::leader::Leadership;
use crate::leader::election::Standing;
use crate::past::{Past, SeedError};
use crate::receive::{self, LeftOut, Part, Refusal};
use crate::seldom::Repeated;
use crate::self_metrics::SelfMetrics;
use crate::store::{Outcome, Store};
use crate::trust::pace::Pace;
use crate::trust::verdict::{Bearer, Distrust};
use crate::watch::Told;

/// One running aggregator.
#[derive(Debug)]
pub struct Replica {
    clock: Clock,
    mode: Mode,
    store: Mutex<Store>,
    figures: SelfMetrics,
    leadership: Leadership,
    /// Which replica, in which life of it.
    identity: String,
    past: Mutex<Past>,
    pace: Pace,
    warned: Repeated<Warned>,
}

/// What is warned of again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Warned {
    /// Reports are refused, for this reason.
    Refused(&'static str),
    /// A part of a report is left out, for this reason.
    LeftOut(Part, &'static str),
    /// A counter grew by more than it can.
    Jumped(Counter),
    /// Objects of a list can't be decoded.
    Undecodable(Source),
    /// A list's watch breaks, for this reason.
    Broke(Source, &'static str),
}

/// Where the cluster is read from.
#[derive(Debug)]
pub enum Mode {
    /// No Kubernetes: the agents are the nodes.
    Local,
    /// Kubernetes' objects, from an API server or a dump.
    Kubernetes(Box<Kubernetes>),
}

impl Replica {
    /// One that has heard nothing yet.
    pub fn new(clock: Clock, mode: Mode, store: Store, figures: SelfMetrics) -> Self {
        let (leadership, past) = (Leadership::sole(), Mutex::new(Past::Known));
        Self {
            clock,
            mode,
            store: Mutex::new(store),
            figures,
            leadership,
            identity: String::new(),
            past,
            pace: Pace::default(),
            warned: Repeated::default(),
        }
    }

    /// The same as one of several: it speaks when it is elected, and asks another for the past first.
    #[must_use]
    pub fn among_others(self, identity: String, leadership: Leadership) -> Self {
        Self { leadership, identity, past: Mutex::new(Past::Asked), ..self }
    }

    /// The figures about itself.
    pub fn figures(&self) -> &SelfMetrics {
        &self.figures
    }

    /// What time it is here.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Takes the body of a report and counts what became of it. `sender` is the node whose agent sent it, where that is
    /// known.
    pub fn take(&self, sender: Option<&NodeName>, body: Result<&[u8], Refusal>) -> Result<Outcome, Refusal> {
        let outcome = body.and_then(receive::receive).and_then(|mut received| {
            if *lock(&self.past) == Past::Asked {
                return Err(Refusal::NotReady);
            }
            let node = &received.node;
            if let Some(sender) = sender.filter(|sender| *sender != node) {
                let (token, report) = (sender.to_string(), node.to_string());
                return Err(Refusal::Untrusted(Distrust::OtherNode { token, report }));
            }
            if let Mode::Kubernetes(kubernetes) = &self.mode {
                kubernetes.admit(node, &self.store)?;
            }
            // Where the sender is known it was admitted before its body was read.
            if sender.is_none() {
                self.admit_one_more(node)?;
            }
            received.left_out.iter().for_each(|left_out| self.count_left_out(&received.node, left_out));
            if let Mode::Kubernetes(kubernetes) = &self.mode {
                kubernetes.leave_out_unshown(&mut received);
            }
            let (now, node) = (self.now(), &received.node);
            let outcome = self.store().insert(&received, now)?;
            tracing::debug!(%node, ?outcome, "report received");
            if let Mode::Kubernetes(kubernetes) = &self.mode
                && outcome == Outcome::Taken
                && let Some(stored) = self.latest(node)
            {
                let jumps = kubernetes.add(&stored, &received.report, now);
                self.count_jumps(node, jumps);
            }
            Ok(outcome)
        });
        match &outcome {
            Ok(Outcome::Taken) => self.figures.received.inc(),
            Ok(Outcome::Dropped(reason)) => self.figures.dropped(*reason),
            Err(refusal) => self.count_refusal(refusal),
        }
        outcome
    }

    /// The node that a sender's agent runs on.
    pub fn node_of(&self, bearer: Bearer) -> Result<NodeName, Refusal> {
        let pod = match bearer {
            Bearer::OnNode(node) => return Ok(node),
            Bearer::InPod(pod) => pod,
        };
        let Mode::Kubernetes(kubernetes) = &self.mode else { return Err(Refusal::NotReady) };
        let cluster = lock(&kubernetes.cluster);
        if !cluster.knows_pods() {
            return Err(Refusal::NotReady);
        }
        let found = cluster.pod(&pod.namespace, &pod.name).filter(|found| *found.uid == *pod.uid);
        let node = found.and_then(|found| NodeName::new(found.node.as_ref()?).ok());
        node.ok_or_else(|| Distrust::PodUnknown(format!("{}/{}", pod.namespace, pod.name)).into())
    }

    /// Takes note that a node sends one more report, or refuses it.
    pub fn admit_one_more(&self, node: &NodeName) -> Result<(), Refusal> {
        if self.pace.admits(node, self.now()) { Ok(()) } else { Err(Refusal::TooOften(node.to_string())) }
    }

    /// Takes in what a watch tells.
    pub fn hear(&self, told: Told) {
        let Mode::Kubernetes(kubernetes) = &self.mode else { return };
        match told {
            Told::Event(event) => {
                if let Event::Lost(source) = &event {
                    tracing::warn!(%source, "out of reach for too long: its figures are absent until it is listed anew");
                }
                kubernetes.apply(event, self.now());
            }
            Told::Serves(served) => {
                lock(&kubernetes.cluster).serve(served);
                kubernetes.note_change();
            }
            Told::Undecodable(source, why) => {
                if let Some(unsaid) = self.warned.again(Warned::Undecodable(source), self.now()) {
                    tracing::warn!(%source, why, unsaid, "an object is left out: it can't be decoded");
                }
                self.figures.undecodable(source);
            }
            Told::Broke(source, reason) => {
                self.figures.watch_broke(source, reason);
                if let Some(unsaid) = self.warned.again(Warned::Broke(source, reason), self.now()) {
                    tracing::warn!(%source, reason, unsaid, "a watch broke; it is resumed");
                }
            }
        }
    }

    /// How often something was told that fit on nodes may rest on: where this is what it was, fit is what it was.
    pub fn changes(&self) -> u64 {
        match &self.mode {
            Mode::Local => 0,
            Mode::Kubernetes(kubernetes) => kubernetes.changes.load(Ordering::Relaxed),
        }
    }

    /// Works out anew what fits on nodes; false where the cluster is not known.
    pub fn refit(&self) -> bool {
        let Mode::Kubernetes(kubernetes) = &self.mode else { return false };
        let now = self.now();
        let reports = self.store().reports(now);
        kubernetes.refit(&reports, now);
        kubernetes.is_known()
    }

    /// Whether it has all that it shows, and takes reports.
    pub fn is_ready(&self) -> bool {
        self.knows_cluster() && *lock(&self.past) != Past::Asked
    }

    /// What it is fit for among others.
    pub fn standing(&self) -> Standing {
        match *lock(&self.past) {
            _ if !self.knows_cluster() => Standing::NotReady,
            Past::Asked => Standing::NotReady,
            Past::Unknown => Standing::Unseeded,
            Past::Known => Standing::Ready,
        }
    }

    /// What is known of the time before it started.
    pub fn past_is(&self, past: Past) {
        *lock(&self.past) = past;
    }

    /// All that another replica can learn. Absent: there is no cluster that it could be of.
    pub fn tell(&self) -> Option<Seed> {
        let Mode::Kubernetes(kubernetes) = &self.mode else { return None };
        let mut seed = Seed { version: SEED_VERSION, identity: self.identity.clone(), ..Seed::default() };
        // Both at one instant: no event is in one and not in the other.
        let mut cluster = lock(&kubernetes.cluster);
        seed.requests = Some(cluster.tell());
        lock(&kubernetes.totals).tell(&mut seed);
        Some(seed)
    }

    /// Learns what another replica knows of the past.
    pub fn learn(&self, seed: &Seed) -> Result<(), SeedError> {
        let Mode::Kubernetes(kubernetes) = &self.mode else { return Err(SeedError::NoCluster) };
        if seed.identity == self.identity {
            return Err(SeedError::Itself);
        }
        let mut cluster = lock(&kubernetes.cluster);
        lock(&kubernetes.totals).learn(&cluster, seed)?;
        if let Some(requests) = &seed.requests {
            cluster.learn(requests);
        }
        drop(cluster);
        self.past_is(Past::Known);
        Ok(())
    }

    /// The first full list of everything.
    pub fn knows_cluster(&self) -> bool {
        match &self.mode {
            Mode::Local => true,
            Mode::Kubernetes(kubernetes) => kubernetes.is_known(),
        }
    }

    /// The snapshot of this instant.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.now();
        let reports = self.store().reports(now);
        let snapshot = match &self.mode {
            Mode::Local => merge::merge(View::Local, &reports, now),
            Mode::Kubernetes(kubernetes) => kubernetes.snapshot(&reports, now),
        };
        Snapshot { role: self.leadership.role(now), ..snapshot }
    }

    /// Writes `/metrics`, all from one snapshot, and says how many bytes it was.
    pub fn expose(&self, sink: &mut dyn Sink) -> Result<u64, Closed> {
        let began = self.now();
        let snapshot = self.snapshot();
        let role = snapshot.role;
        let mut guarded = Guarded { replica: self, role, sink };
        let mut out = Exposition::new(&mut guarded);
        metrics::write(&snapshot, self.now(), &mut out);
        match self.figures.text() {
            Ok(text) => out.raw(&text),
            // Without them the rest is still right.
            Err(error) => tracing::error!(%error, "the figures about itself could not be written"),
        }
        let result = out.finish();
        match result {
            Ok(bytes) => {
                self.figures.scraped(self.now().since(began), bytes);
                self.leadership.scraped(role);
            }
            Err(Closed) => self.figures.scrapes_cut.inc(),
        }
        result
    }

    fn count_jumps(&self, node: &NodeName, jumps: Jumps) {
        for (counter, times) in Counter::ALL.into_iter().zip(jumps).filter(|(_, times)| *times > 0) {
            self.figures.jumped(counter, times);
            if let Some(unsaid) = self.warned.again(Warned::Jumped(counter), self.now()) {
                let counter = counter.label();
                tracing::warn!(%node, counter, unsaid, "a counter grew by more than it can: nothing of that step counts");
            }
        }
    }

    fn count_left_out(&self, node: &NodeName, LeftOut { part, why }: &LeftOut) {
        self.figures.part_left_out(*part, why);
        let (name, reason) = (part.label(), why.reason());
        if let Some(unsaid) = self.warned.again(Warned::LeftOut(*part, reason), self.now()) {
            tracing::warn!(%node, part = name, reason, unsaid, "a part of a report is left out: {why}");
        }
    }

    fn count_refusal(&self, refusal: &Refusal) {
        self.figures.refused(refusal);
        let reason = refusal.reason();
        if let Some(unsaid) = self.warned.again(Warned::Refused(reason), self.now()) {
            tracing::warn!(reason, %refusal, unsaid, "a report is refused");
        } else {
            tracing::debug!(reason, %refusal, "a report is refused");
        }
    }

    fn latest(&self, node: &NodeName) -> Option<Arc<Stored>> {
        self.store().latest(node)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }
}

/// Hands a scrape on for as long as the replica is what it was when the scrape began: one that lost the Lease half way,
/// or was paused until it had, must not tell the rest.
struct Guarded<'a> {
    replica: &'a Replica,
    role: Role,
    sink: &'a mut dyn Sink,
}

impl Sink for Guarded<'_> {
    fn take(&mut self, chunk: Vec<u8>) -> Result<(), Closed> {
        if self.role == Role::Leader && self.replica.leadership.role(self.replica.now()) != Role::Leader {
            return Err(Closed);
        }
        self.sink.take(chunk)
    }
}
