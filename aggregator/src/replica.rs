//! What one running aggregator holds: the store behind its lock, the clock, the figures about itself. Owns the order of the
//! steps from a body to the store and from the store to a snapshot; knows no transport.
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use mcad_accounting::cluster::{Cluster, Event, Source};
use mcad_accounting::fit;
use mcad_accounting::input::Input;
use mcad_accounting::measure::{NamedPods, Places};
use mcad_accounting::merge::{self, Ages, Role, Snapshot, View};
use mcad_accounting::node_name::NodeName;
use mcad_accounting::now::Now;
use mcad_accounting::object::Object;
use mcad_accounting::options::Options;
use mcad_accounting::reported::Stored;
use mcad_accounting::snapshot::verdict::Fits;
use mcad_accounting::totals::{Counter, Jumps, Totals};
use mcad_accounting::views::Views;
use mcad_present::exposition::{Closed, Exposition, Sink};
use mcad_present::metrics;
use mcad_wire::reading::Report;
use mcad_wire::seed::{SEED_VERSION, Seed};

use crate::clock::Clock;
use crate::leader::Leadership;
use crate::leader::election::Standing;
use crate::past::{Past, SeedError};
use crate::receive::{self, LeftOut, Part, Received, Refusal};
use crate::seldom::Repeated;
use crate::self_metrics::SelfMetrics;
use crate::store::{self, Outcome, Store};
use crate::trust::pace::Pace;
use crate::trust::verdict::{Bearer, Distrust};
use crate::watch::Told;

/// Objects of a list that are taken in before others may look at the cluster: about a millisecond's.
const SLICE: usize = 256;
/// How long they may then come first.
const REST: Duration = Duration::from_micros(100);

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

/// Kubernetes' objects, and what was last worked out from them.
#[derive(Debug)]
pub struct Kubernetes {
    /// Locked before `totals`, and that before `views`, where they are locked together.
    cluster: Mutex<Cluster>,
    totals: Mutex<Totals>,
    views: Mutex<Views>,
    fits: Mutex<Fitted>,
    /// How often something was told that fit may rest on.
    changes: AtomicU64,
    ages: Ages,
    /// Absent: they are watched.
    dump: Option<Dumped>,
}

/// The dump that the objects come from.
#[derive(Clone, Debug)]
pub struct Dumped {
    /// When it was made, in ms since the Unix epoch: ages are told against it. Absent: it is not known.
    pub unix_ms: Option<i64>,
    /// What is said of it.
    pub input: Arc<Input>,
}

/// What was last worked out about fit on nodes, and when the snapshot was made that it was worked out from.
#[derive(Clone, Debug, Default)]
struct Fitted {
    fits: Arc<Fits>,
    made: Option<Now>,
}

impl Kubernetes {
    /// A cluster that is shown by these options.
    pub fn new(cluster: Cluster, options: Options, ages: Ages) -> Self {
        Self {
            cluster: Mutex::new(cluster),
            totals: Mutex::default(),
            views: Mutex::new(Views::new(options)),
            fits: Mutex::default(),
            changes: AtomicU64::new(0),
            ages,
            dump: None,
        }
    }

    /// The same of a dump.
    #[must_use]
    pub fn of_dump(self, dump: Dumped) -> Self {
        Self { dump: Some(dump), ..self }
    }

    /// Takes in an event.
    pub fn apply(&self, event: Event, now: Now) {
        if let Event::Reset(source, objects) = event {
            return self.reset(source, objects);
        }
        let mut cluster = lock(&self.cluster);
        if let Event::Delete(Object::Pod(pod)) = &event {
            lock(&self.totals).pod_gone(&cluster, pod, now);
        }
        cluster.apply(event);
        self.note_change();
    }

    /// Takes in a list a slice at a time, so that reports, probes and the Lease wait for no more than one.
    fn reset(&self, source: Source, objects: Vec<Object>) {
        lock(&self.cluster).begin_reset(source, &objects);
        let mut objects = objects.into_iter();
        while !objects.as_slice().is_empty() {
            let mut cluster = lock(&self.cluster);
            objects.by_ref().take(SLICE).for_each(|object| cluster.apply(Event::Apply(object)));
            drop(cluster);
            // A lock that is taken again at once is not had by those who wait for it.
            thread::sleep(REST);
        }
        lock(&self.cluster).end_reset(source);
        self.note_change();
    }

    /// It is only ever compared with itself, and whoever finds it changed looks at what changed under a lock.
    fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes out of a report what nobody is shown. Of the cgroups a pod's own alone counts, which has its containers' figures in
    /// it, and none is shown by its path. Ended pods that the cluster does not have, nor had within the hour, are strangers; agents
    /// tell of them again.
    fn leave_out_unshown(&self, received: &mut Received<'_>) {
        received.leave_out(|node, cgroups| {
            let (all, all_ended) = (cgroups.cgroups.len(), cgroups.ended_pods.len());
            cgroups.cgroups.retain(|cgroup| cgroup.container_id.is_empty());
            let mut is_cut = cgroups.cgroups.len() < all;
            for cgroup in &mut cgroups.cgroups {
                is_cut |= !cgroup.path.is_empty() || cgroup.detail.is_some();
                (cgroup.path, cgroup.detail) = ("", None);
            }
            if all_ended > 0 {
                let (cluster, totals) = (lock(&self.cluster), lock(&self.totals));
                let is_known = |uid| cluster.pod_of_uid(uid).is_some() || totals.remembers(node.as_str(), uid);
                cgroups.ended_pods.retain(|pod| is_known(pod.uid));
            }
            is_cut || cgroups.ended_pods.len() < all_ended
        });
    }

    /// Takes in a report that is news: what it tells of totals, and its node's view.
    fn add(&self, stored: &Arc<Stored>, report: &Report<'_>, now: Now) -> Jumps {
        let (cluster, mut totals, mut views) = (lock(&self.cluster), lock(&self.totals), lock(&self.views));
        let named = NamedPods::find(&cluster, report, views.places(report.node).unwrap_or(&Places::default()));
        let jumps = totals.take(&cluster, report, &named, now);
        views.take(&cluster, stored, report, &named);
        self.note_change();
        jumps
    }

    /// Whether all that figures rest on has been listed, and is not lost.
    pub fn is_known(&self) -> bool {
        let cluster = lock(&self.cluster);
        cluster.is_listed()
    }

    /// Refuses what comes for a node that the cluster does not have: it must not make a series. Beside a dump so many are taken as
    /// without Kubernetes, as there agents may be others' than those of the dump.
    fn admit(&self, node: &NodeName, store: &Mutex<Store>) -> Result<(), Refusal> {
        let cluster = lock(&self.cluster);
        match self.ages {
            // What it says of pods could not be joined to them.
            Ages::Count if !(cluster.knows_nodes() && cluster.knows_pods()) => Err(Refusal::NotReady),
            _ if cluster.has_node(node.as_str()) => Ok(()),
            Ages::Count => Err(Refusal::UnknownNode(node.to_string())),
            Ages::DoNot => {
                let (store, most) = (lock(store), store::Limits::LOCAL.nodes);
                let is_known = store.latest(node).is_some();
                let strangers = || store.nodes().filter(|node| !cluster.has_node(node.as_str())).count();
                if is_known || strangers() < most { Ok(()) } else { Err(Refusal::TooManyNodes(most)) }
            }
        }
    }

    /// Takes a report that comes another way than from an agent, such as from a file.
    pub fn replay(&self, store: &mut Store, received: &Received<'_>, now: Now) -> Result<Outcome, Refusal> {
        let outcome = store.insert(received, now)?;
        if outcome == Outcome::Taken
            && let Some(stored) = store.latest(&received.node)
        {
            let jumps = self.add(&stored, &received.report, now);
            if jumps.iter().any(|times| *times > 0) {
                tracing::warn!(node = %received.node, "counters of this report grew by more than there was time for; that counts for nothing");
            }
            // When it is read says nothing of how long ago it was made.
            lock(&self.totals).came_from_file(received.node.as_str());
        }
        Ok(outcome)
    }

    /// The snapshot of an instant, with these reports in order of node.
    pub fn snapshot(&self, reports: &[(NodeName, Arc<Stored>)], now: Now) -> Snapshot {
        let Fitted { fits, made: fitted } = lock(&self.fits).clone();
        let mut cluster = lock(&self.cluster);
        cluster.observe();
        let mut totals = lock(&self.totals);
        totals.tidy(&cluster, now);
        let mut views = lock(&self.views);
        let view = View::Kubernetes {
            cluster: &cluster,
            fits: &fits,
            fitted,
            totals: &totals,
            views: &mut views,
            ages: self.ages,
            told_at_ms: match &self.dump {
                Some(dump) => dump.unix_ms,
                None => Some(now.unix_ms as i64),
            },
        };
        Snapshot { input: self.dump.as_ref().map(|dump| Arc::clone(&dump.input)), ..merge::merge(view, reports, now) }
    }

    /// Works out anew what fits on nodes. It takes a while; others wait for none of it.
    pub fn refit(&self, reports: &[(NodeName, Arc<Stored>)], now: Now) {
        if let Some(snapshot) = self.snapshot(reports, now).kubernetes {
            // Where the cluster is not known there is nothing that an age could be of.
            let made = (snapshot.missing.is_empty()).then_some(now);
            *lock(&self.fits) = Fitted { fits: Arc::new(fit::fits(&snapshot)), made };
        }
    }
}

/// Every change behind these locks is whole before it can panic, so a thread that died in between left it so.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
