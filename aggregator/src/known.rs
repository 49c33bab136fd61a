//! The cluster, the reports of its nodes, and the last computed fit. Owns the lock: cluster and nodes share one lock, since nearly
//! all operations need both, and it is held for one report, one event or one snapshot.
//!
//! Without Kubernetes (`--cluster local`) the cluster consists of the machines whose agents report.
mod imagined;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use mcad_accounting::cluster::{Cluster, Event, Source};
use mcad_accounting::fit;
use mcad_accounting::input::Input;
use mcad_accounting::merge::{self, Ages, View};
use mcad_accounting::node_name::NodeName;
use mcad_accounting::nodes::{Limits, Nodes, Outcome};
use mcad_accounting::now::Now;
use mcad_accounting::object::{Kind, Object, Origin, Served};
use mcad_accounting::options::{Options, QueueMetrics};
use mcad_accounting::queue::Accounts;
use mcad_accounting::queue::facts::Facts;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::lines::Lines;
use mcad_accounting::snapshot::verdict::Fits;
use mcad_accounting::totals::{Differ, Jumps};
use mcad_wire::state_transfer::{STATE_TRANSFER_VERSION, StateTransfer};

use crate::receive::{Received, Refusal};
use crate::trust::verdict::{Distrust, PodId};

/// Objects of a list that are applied under one lock: about a millisecond.
pub(crate) const SLICE: usize = 256;
/// How long the lock is then free for others.
const REST: Duration = Duration::from_micros(100);

/// The state of the cluster in a replica.
#[derive(Debug)]
pub struct Known {
    /// Where the nodes of the cluster come from.
    origin: Origin,
    state: Mutex<State>,
    /// Never locked together with `state`.
    fits: Mutex<Fitted>,
    /// The number of changes that fit may depend on.
    changes: AtomicU64,
    ages: Ages,
    /// `None` if the objects do not come from a dump.
    dump: Option<Dumped>,
}

/// The state that events and reports change.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cluster: Cluster,
    pub(crate) nodes: Nodes,
}

/// The dump that the objects come from.
#[derive(Clone, Debug)]
pub struct Dumped {
    /// When it was made, in ms since the Unix epoch: ages are relative to it. `None` if not known.
    pub unix_ms: Option<i64>,
    /// Facts about it.
    pub input: Arc<Input>,
}

/// The last computed fit on nodes, and when the snapshot was made that it was computed from.
#[derive(Clone, Debug, Default)]
struct Fitted {
    fits: Arc<Fits>,
    /// Absent: queues are not known, or not shown.
    queues: Option<Arc<Accounts>>,
    /// Absent where `queues` is.
    lines: Option<Arc<Lines>>,
    made: Option<Now>,
}

impl Known {
    /// A cluster with these options.
    pub fn new(cluster: Cluster, options: Options, ages: Ages) -> Self {
        let limits = match (cluster.origin(), ages) {
            (Origin::Agent, _) => Limits::LOCAL,
            (Origin::Kubernetes, Ages::Count) => Limits::KUBERNETES,
            (Origin::Kubernetes, Ages::DoNot) => Limits::REPLAY,
        };
        Self {
            origin: cluster.origin(),
            state: Mutex::new(State { cluster, nodes: Nodes::new(limits, options) }),
            fits: Mutex::default(),
            changes: AtomicU64::new(0),
            ages,
            dump: None,
        }
    }

    /// A cluster without Kubernetes, from which no agent has reported yet.
    pub fn of_agents() -> Self {
        Self::new(Cluster::of_agents(), Options::without_kubernetes(), Ages::Count)
    }

    /// The same with a limit on the memory of reports, at least what they use already.
    #[must_use]
    pub fn bounded(self, bytes: u64) -> Self {
        let State { cluster, nodes } = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Self { state: Mutex::new(State { cluster, nodes: nodes.bounded(bytes) }), ..self }
    }

    /// The same with the facts of a dump.
    #[must_use]
    pub fn of_dump(self, dump: Dumped) -> Self {
        Self { dump: Some(dump), ..self }
    }

    /// Applies an event.
    pub fn apply(&self, event: Event, now: Now) {
        if let Event::Reset(source, objects) = event {
            return self.reset(source, objects);
        }
        let State { cluster, nodes } = &mut *self.lock();
        if let Event::Delete(Object::Pod(pod)) = &event {
            nodes.pod_gone(cluster, pod, now);
        }
        cluster.apply(event);
        self.note_change();
    }

    /// Applies a list in slices, so that reports, probes and the Lease wait for at most one slice.
    fn reset(&self, source: Source, objects: Vec<Object>) {
        self.lock().cluster.begin_reset(source, &objects);
        let mut objects = objects.into_iter();
        while !objects.as_slice().is_empty() {
            let mut state = self.lock();
            objects.by_ref().take(SLICE).for_each(|object| state.cluster.apply(Event::Apply(object)));
            drop(state);
            // A lock that is taken again immediately is not available to waiting threads.
            thread::sleep(REST);
        }
        self.lock().cluster.end_reset(source);
        self.note_change();
    }

    /// Sets which versions of AppWrappers the API server serves.
    pub fn serve(&self, served: impl IntoIterator<Item = Served>) {
        self.lock().cluster.serve(served);
        self.note_change();
    }

    /// Sets which kinds of Dynamic Resource Allocation the API server serves. `None` if not known.
    pub fn serve_devices(&self, served: Option<BTreeSet<Kind>>) {
        let mut state = self.lock();
        match served {
            Some(served) => state.cluster.serve_devices(served),
            None => state.cluster.serves_unknown_devices(),
        }
        drop(state);
        self.note_change();
    }

    /// Sets which kinds of Kueue the API server serves. `None` if it does not report that, so that its last report is still used, or if
    /// they are not watched.
    pub fn serve_queues(&self, served: Option<BTreeSet<Kind>>) {
        if let Some(served) = served {
            self.lock().cluster.serve_queues(served);
        }
        self.note_change();
    }

    /// Relaxed ordering is enough: the counter is only compared with itself, and the changes are read under the lock.
    fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of changes that fit may depend on.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Removes from a report what is not used. Only the cgroups of pods count, which include the values of their containers, and no
    /// path is used. Ended pods that the cluster does not have, and did not have within the hour, are removed; agents report
    /// them again. Without Kubernetes, all cgroups are kept.
    pub(crate) fn leave_out_unshown(&self, received: &mut Received<'_>) {
        if self.origin == Origin::Agent {
            return;
        }
        received.leave_out(|node, cgroups| {
            let (all, all_ended) = (cgroups.cgroups.len(), cgroups.ended_pods.len());
            cgroups.cgroups.retain(|cgroup| cgroup.container_id.is_empty());
            let mut is_cut = cgroups.cgroups.len() < all;
            for cgroup in &mut cgroups.cgroups {
                is_cut |= !cgroup.path.is_empty() || cgroup.detail.is_some();
                (cgroup.path, cgroup.detail) = ("", None);
            }
            if all_ended > 0 {
                let state = self.lock();
                let is_known =
                    |uid| state.cluster.pod_of_uid(uid).is_some() || state.nodes.remembers(node.as_str(), uid);
                cgroups.ended_pods.retain(|pod| is_known(pod.uid));
            }
            is_cut || cgroups.ended_pods.len() < all_ended
        });
    }

    /// Applies a report if it is new, and returns the number of impossible increases of each counter.
    pub(crate) fn take(&self, received: &Received<'_>, now: Now) -> Result<(Outcome, Jumps), Refusal> {
        let State { cluster, nodes } = &mut *self.lock();
        let taken = nodes.take(cluster, (&received.node, &received.report, received.encoded()), now)?;
        if taken.0 == Outcome::Taken {
            self.note_change();
        }
        Ok(taken)
    }

    /// Counts one more report of a node, or refuses it.
    pub(crate) fn admit_one_more(&self, node: &NodeName, now: Now) -> Result<(), Refusal> {
        if self.lock().nodes.admits(node, now) { Ok(()) } else { Err(Refusal::TooOften(node.to_string())) }
    }

    /// Whether the cluster has a history: without Kubernetes it has none.
    pub(crate) fn has_history(&self) -> bool {
        self.origin == Origin::Kubernetes
    }

    /// Whether all lists that metrics depend on were received and are not lost.
    pub fn is_known(&self) -> bool {
        self.lock().cluster.is_listed()
    }

    /// The node that a pod runs on.
    pub(crate) fn node_of(&self, pod: &PodId) -> Result<NodeName, Refusal> {
        let State { cluster, .. } = &*self.lock();
        if !cluster.knows_pods() {
            return Err(Refusal::NotReady);
        }
        let found = cluster.pod(&pod.namespace, &pod.name).filter(|found| *found.uid == *pod.uid);
        let node = found.and_then(|found| NodeName::new(found.node.as_ref()?).ok());
        node.ok_or_else(|| Distrust::PodUnknown(format!("{}/{}", pod.namespace, pod.name)).into())
    }

    /// Refuses reports of nodes that the cluster does not have: they must not create series. With a dump, unknown nodes are accepted up
    /// to the limit without Kubernetes, since agents may run on other nodes than those of the dump. Without Kubernetes, only the number
    /// of nodes is limited.
    pub(crate) fn admit(&self, node: &NodeName) -> Result<(), Refusal> {
        if self.origin == Origin::Agent {
            return Ok(());
        }
        let State { cluster, nodes } = &*self.lock();
        match self.ages {
            // Its pods could not be joined with the cluster's.
            Ages::Count if !(cluster.knows_nodes() && cluster.knows_pods()) => Err(Refusal::NotReady),
            _ if cluster.has_node(node.as_str()) => Ok(()),
            Ages::Count => Err(Refusal::UnknownNode(node.to_string())),
            Ages::DoNot => {
                let most = Limits::LOCAL.nodes;
                let strangers = || nodes.reporting().filter(|node| !cluster.has_node(node)).count();
                let has_room = nodes.latest(node.as_str()).is_some() || strangers() < most;
                if has_room { Ok(()) } else { Err(Refusal::TooManyNodes(most)) }
            }
        }
    }

    /// Whether reports of that node can count: without Kubernetes, those of every node do.
    pub(crate) fn has_node(&self, node: &NodeName) -> bool {
        self.origin == Origin::Agent || self.lock().cluster.has_node(node.as_str())
    }

    /// Applies a report that does not come from an agent, such as from a file.
    pub fn replay(&self, received: &Received<'_>, now: Now) -> Result<Outcome, Refusal> {
        let (outcome, jumps) = self.take(received, now)?;
        if jumps.iter().any(|times| *times > 0) {
            tracing::warn!(node = %received.node, "counters of this report increased by more than is possible in the elapsed time; these increases are ignored");
        }
        // The time of reading does not tell the age of the report.
        self.lock().nodes.came_from_file(&received.node);
        Ok(outcome)
    }

    /// A snapshot at an instant.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        self.snapshot_and(now, |_, _| {})
    }

    /// What ages of objects are told against. Absent: it is not known.
    fn told_at_ms(&self, now: Now) -> Option<i64> {
        match &self.dump {
            Some(dump) => dump.unix_ms,
            None => Some(now.unix_ms as i64),
        }
    }

    /// The same; `add` extends it while the cluster is still locked.
    fn snapshot_and(&self, now: Now, add: impl FnOnce(&mut Snapshot, &Cluster)) -> Snapshot {
        let Fitted { fits, queues, lines, made: fitted } = lock(&self.fits).clone();
        let State { cluster, nodes } = &mut *self.lock();
        nodes.tidy(cluster, now);
        cluster.follow(nodes.reporting());
        cluster.observe();
        let told_at_ms = self.told_at_ms(now);
        let view = View { cluster, nodes, fits: &fits, fitted, queues: queues.as_ref(), ages: self.ages, told_at_ms };
        let mut snapshot = merge::merge(view, now).with_lines(lines);
        add(&mut snapshot, cluster);
        Snapshot { input: self.dump.as_ref().map(|dump| Arc::clone(&dump.input)), ..snapshot }
    }

    /// Recomputes fit on nodes. The computation takes time, but holds no lock.
    pub fn refit(&self, now: Now) {
        let mut facts = None;
        let snapshot = self.snapshot_and(now, |snapshot, cluster| {
            snapshot.with_offers(cluster);
            facts = facts_of(cluster, &snapshot.options);
        });
        // If the cluster is not known, there is no fit, so it has no age, even if queues are known.
        let made = snapshot.complete().map(|_| now);
        let (queues, lines) = match facts {
            Some(facts) => {
                let told_at_ms = self.told_at_ms(now);
                let lines = Lines::of(&facts, told_at_ms);
                (Some(Arc::new(snapshot.accounts(&facts, told_at_ms))), Some(Arc::new(lines)))
            }
            None => (None, None),
        };
        *lock(&self.fits) = Fitted { fits: Arc::new(fit::fits(&snapshot)), queues, lines, made };
    }

    /// The state transfer for another replica, without this replica's identity.
    pub(crate) fn state_transfer(&self) -> StateTransfer {
        // Under one lock, so that no event is in one part only.
        let State { cluster, nodes } = &mut *self.lock();
        let mut transfer = StateTransfer {
            version: STATE_TRANSFER_VERSION,
            requests: Some(cluster.tell()),
            ..StateTransfer::default()
        };
        nodes.tell(&mut transfer);
        transfer
    }

    /// Applies the state transfer of another replica.
    pub(crate) fn apply_transfer(&self, transfer: &StateTransfer) -> Result<(), Differ> {
        let State { cluster, nodes } = &mut *self.lock();
        nodes.learn(cluster, transfer)?;
        if let Some(requests) = &transfer.requests {
            cluster.learn(requests);
        }
        Ok(())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The facts about Kueue's queues. `None` if Kueue is not there, or its objects are not known or not read.
fn facts_of(cluster: &Cluster, options: &Options) -> Option<Facts> {
    match options.queue_metrics {
        QueueMetrics::On => Facts::of(cluster),
        QueueMetrics::Off => None,
    }
}

/// Locks a mutex, even if it is poisoned: every change under these locks is complete before a panic is possible.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
