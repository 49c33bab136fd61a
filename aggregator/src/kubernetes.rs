//! Kubernetes' objects, what reports add to them, and what was last worked out of both, behind their locks. Owns the order of the locks.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use mcad_accounting::cluster::{Cluster, Event, Source};
use mcad_accounting::fit;
use mcad_accounting::input::Input;
use mcad_accounting::measure::{NamedPods, Places};
use mcad_accounting::merge::{self, Ages, Snapshot, View};
use mcad_accounting::node_name::NodeName;
use mcad_accounting::now::Now;
use mcad_accounting::object::Object;
use mcad_accounting::options::Options;
use mcad_accounting::reported::Stored;
use mcad_accounting::snapshot::verdict::Fits;
use mcad_accounting::totals::{Jumps, Totals};
use mcad_accounting::views::Views;
use mcad_wire::reading::Report;

use crate::receive::{Received, Refusal};
use crate::store::{self, Outcome, Store};

/// Objects of a list that are taken in before others may look at the cluster: about a millisecond's.
pub(crate) const SLICE: usize = 256;
/// How long they may then come first.
const REST: Duration = Duration::from_micros(100);

/// Kubernetes' objects, and what was last worked out from them.
#[derive(Debug)]
pub struct Kubernetes {
    /// Locked before `totals`, and that before `views`, where they are locked together.
    pub(crate) cluster: Mutex<Cluster>,
    pub(crate) totals: Mutex<Totals>,
    views: Mutex<Views>,
    fits: Mutex<Fitted>,
    /// How often something was told that fit may rest on.
    pub(crate) changes: AtomicU64,
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
    pub(crate) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes out of a report what nobody is shown. Of the cgroups a pod's own alone counts, which has its containers' figures in
    /// it, and none is shown by its path. Ended pods that the cluster does not have, nor had within the hour, are strangers; agents
    /// tell of them again.
    pub(crate) fn leave_out_unshown(&self, received: &mut Received<'_>) {
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
    pub(crate) fn add(&self, stored: &Arc<Stored>, report: &Report<'_>, now: Now) -> Jumps {
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
    pub(crate) fn admit(&self, node: &NodeName, store: &Mutex<Store>) -> Result<(), Refusal> {
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
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
