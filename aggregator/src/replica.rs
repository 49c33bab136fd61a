//! One running aggregator: the state of the cluster, the clock, the self-metrics and the leadership. Owns the order of the steps from a
//! report's body to the state; knows no transport.
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Mutex;

use mcad_accounting::change::Change;
use mcad_accounting::cluster::{Event, Source};
use mcad_accounting::drain::Held;
use mcad_accounting::node_name::NodeName;
use mcad_accounting::nodes::Outcome;
use mcad_accounting::now::Now;
use mcad_accounting::object::{AppWrapper, Object, QUEUE_GROUP};
use mcad_accounting::snapshot::{Role, Snapshot};
use mcad_accounting::totals::{Counter, Jumps};
use mcad_accounting::trial::Ground;
use mcad_present::exposition::{Closed, Exposition, Sink};
use mcad_present::metrics;
use mcad_wire::state_transfer::StateTransfer;

use crate::clock::Clock;
use crate::known::{Known, lock};
use crate::leader::Leadership;
use crate::leader::election::Standing;
use crate::receive::{self, LeftOut, Part, Refusal};
use crate::seldom::Repeated;
use crate::self_metrics::SelfMetrics;
use crate::transfer_state::{StateTransferError, TransferState};
use crate::trust::verdict::{Bearer, Distrust};
use crate::watch::Told;

/// One running aggregator.
#[derive(Debug)]
pub struct Replica {
    clock: Clock,
    known: Known,
    self_metrics: SelfMetrics,
    leadership: Leadership,
    /// The identity of this process of this replica.
    identity: String,
    transfer: Mutex<TransferState>,
    warned: Repeated<Warned>,
    /// Lists that the account has no right to read and that are left out.
    unauthorized: Mutex<BTreeSet<Source>>,
}

/// A kind of repeated warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Warned {
    /// Reports are refused, for this reason.
    Refused(&'static str),
    /// A part of a report is left out, for this reason.
    LeftOut(Part, &'static str),
    /// A counter increased by more than is possible.
    Jumped(Counter),
    /// Objects of a list cannot be decoded.
    Undecodable(Source),
    /// The watch of a list breaks, for this reason.
    Broke(Source, &'static str),
}

impl Replica {
    /// A single replica without any events yet.
    pub fn new(clock: Clock, known: Known, self_metrics: SelfMetrics) -> Self {
        let (leadership, transfer) = (Leadership::sole(), Mutex::new(TransferState::Known));
        Self {
            clock,
            known,
            self_metrics,
            leadership,
            identity: String::new(),
            transfer,
            warned: Repeated::default(),
            unauthorized: Mutex::default(),
        }
    }

    /// The same as one of several replicas: it is the leader when elected, and first requests a state transfer from another.
    #[must_use]
    pub fn among_others(self, identity: String, leadership: Leadership) -> Self {
        Self { leadership, identity, transfer: Mutex::new(TransferState::Asking), ..self }
    }

    /// The self-metrics.
    pub fn self_metrics(&self) -> &SelfMetrics {
        &self.self_metrics
    }

    /// The current time.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Processes the body of a report and counts the outcome. `sender` is the node whose agent sent it; `None` if not known.
    pub fn take(&self, sender: Option<&NodeName>, body: Result<&[u8], Refusal>) -> Result<Outcome, Refusal> {
        let outcome = body.and_then(receive::receive).and_then(|mut received| {
            if *lock(&self.transfer) == TransferState::Asking {
                return Err(Refusal::NotReady);
            }
            let node = &received.node;
            if let Some(sender) = sender.filter(|sender| *sender != node) {
                let (token, report) = (sender.to_string(), node.to_string());
                return Err(Refusal::Untrusted(Distrust::OtherNode { token, report }));
            }
            self.known.admit(node)?;
            // A known sender was admitted before its body was read.
            if sender.is_none() {
                self.admit_one_more(node)?;
            }
            received.left_out.iter().for_each(|left_out| self.count_left_out(&received.node, left_out));
            self.known.leave_out_unshown(&mut received);
            let (now, node) = (self.now(), &received.node);
            let (outcome, jumps) = self.known.take(&received, now)?;
            tracing::debug!(%node, ?outcome, "report received");
            self.count_jumps(node, jumps);
            Ok(outcome)
        });
        match &outcome {
            Ok(Outcome::Taken) => self.self_metrics.received.inc(),
            Ok(Outcome::Dropped(reason)) => self.self_metrics.dropped(*reason),
            Err(refusal) => self.count_refusal(refusal),
        }
        outcome
    }

    /// The node that the bearer of a token runs on.
    pub fn node_of(&self, bearer: Bearer) -> Result<NodeName, Refusal> {
        match bearer {
            Bearer::OnNode(node) => Ok(node),
            Bearer::InPod(pod) => self.known.node_of(&pod),
        }
    }

    /// Counts one more report of a node, or refuses it.
    pub fn admit_one_more(&self, node: &NodeName) -> Result<(), Refusal> {
        self.known.admit_one_more(node, self.now())
    }

    /// Applies a message of a watch.
    pub fn hear(&self, told: Told) {
        match told {
            Told::Event(event) => {
                // A list that was never received is not reported as lost again and again.
                if let Event::Lost(source) = &event
                    && self.known.lock().cluster.knows(*source)
                {
                    tracing::warn!(%source, "this list was unreachable for too long: metrics that depend on it are absent until it is listed again");
                }
                if let Event::Reset(source, _) = &event {
                    lock(&self.unauthorized).remove(source);
                }
                self.known.apply(event, self.now());
            }
            Told::Serves(served) => self.known.serve(served),
            Told::ServesDevices(served) => self.known.serve_devices(served),
            Told::ServesQueues(served) => {
                let sources = served.iter().flatten().filter_map(|kind| Source::of_queues(*kind));
                sources.for_each(|source| self.self_metrics.watched(source));
                self.known.serve_queues(served);
            }
            Told::Undecodable(source, why) => {
                if let Some(unsaid) = self.warned.again(Warned::Undecodable(source), self.now()) {
                    tracing::warn!(%source, why, unsaid, "an object cannot be decoded and is left out");
                }
                self.self_metrics.undecodable(source);
            }
            Told::Broke(source, reason) => {
                self.self_metrics.watch_broke(source, reason);
                let is_of_devices = Source::DEVICES.contains(&source);
                let is_optional = is_of_devices || Source::QUEUES.contains(&source);
                if is_of_devices {
                    self.known.lock().cluster.list_failed(source);
                }
                if reason == "forbidden" && is_optional {
                    self.warn_of_rights(source);
                } else if let Some(unsaid) = self.warned.again(Warned::Broke(source, reason), self.now()) {
                    tracing::warn!(%source, reason, unsaid, "a watch broke and is resumed");
                }
            }
        }
    }

    /// The number of changes that fit on nodes may depend on: if it is unchanged, so is fit.
    pub fn changes(&self) -> u64 {
        self.known.changes()
    }

    /// Recomputes fit on nodes.
    pub fn refit(&self) {
        self.known.refit(self.now());
    }

    /// Whether the cluster is known and reports are accepted.
    pub fn is_ready(&self) -> bool {
        self.knows_cluster() && *lock(&self.transfer) != TransferState::Asking
    }

    /// Whether this replica may become the leader.
    pub fn standing(&self) -> Standing {
        match *lock(&self.transfer) {
            _ if !self.knows_cluster() => Standing::NotReady,
            TransferState::Asking => Standing::NotReady,
            TransferState::Unknown => Standing::WithoutHistory,
            TransferState::Known => Standing::Ready,
        }
    }

    /// Sets the state of the state transfer.
    pub fn past_is(&self, transfer: TransferState) {
        *lock(&self.transfer) = transfer;
    }

    /// The state transfer for another replica. `None` without Kubernetes, where there is no history.
    pub fn state_transfer(&self) -> Option<StateTransfer> {
        self.known
            .has_history()
            .then(|| StateTransfer { identity: self.identity.clone(), ..self.known.state_transfer() })
    }

    /// Applies the state transfer of another replica.
    pub fn apply_transfer(&self, transfer: &StateTransfer) -> Result<(), StateTransferError> {
        if !self.known.has_history() {
            return Err(StateTransferError::NoCluster);
        }
        if transfer.identity == self.identity {
            return Err(StateTransferError::Itself);
        }
        self.known.apply_transfer(transfer)?;
        self.past_is(TransferState::Known);
        Ok(())
    }

    /// Whether all lists have been received and are not lost.
    pub fn knows_cluster(&self) -> bool {
        self.known.is_known()
    }

    /// A snapshot at the current time.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.now();
        Snapshot { role: self.leadership.role(now), ..self.known.snapshot(now) }
    }

    /// What submissions are tried on that do not exist yet. `undecodable` are the lists with objects that could not be decoded.
    pub fn ground(&self, submitted: &[&AppWrapper], undecodable: &BTreeSet<Source>) -> Ground {
        self.known.ground(submitted, undecodable, self.now())
    }

    /// What draining these nodes would take from AppWrappers, and the snapshot without the nodes; or the name of a node that does not exist.
    pub fn drain(&self, nodes: &[String]) -> Result<(Held, Snapshot), String> {
        self.known.drain(nodes, self.now())
    }

    /// Imagines that an object exists.
    pub fn create(&self, object: Object) {
        self.known.apply(Event::Apply(object), self.now());
    }

    /// Imagines that a node is different; returns false if there is no such node.
    pub fn suppose(&self, change: &Change) -> bool {
        self.known.suppose(change, self.now())
    }

    /// Writes `/metrics` from one snapshot and returns the number of bytes.
    pub fn expose(&self, sink: &mut dyn Sink) -> Result<u64, Closed> {
        let began = self.now();
        let snapshot = self.snapshot();
        let role = snapshot.role;
        let mut guarded = Guarded { replica: self, role, sink };
        let mut out = Exposition::new(&mut guarded);
        metrics::write(&snapshot, self.now(), &mut out);
        match self.self_metrics.text() {
            Ok(text) => out.raw(&text),
            // The rest is still correct without them.
            Err(error) => tracing::error!(%error, "the self-metrics could not be written"),
        }
        let result = out.finish();
        match result {
            Ok(bytes) => {
                self.self_metrics.scraped(self.now().since(began), bytes);
                self.leadership.scraped(role);
            }
            Err(Closed) => self.self_metrics.scrapes_cut.inc(),
        }
        result
    }

    /// Warns of a missing optional right once, until the list can be read.
    fn warn_of_rights(&self, source: Source) {
        if lock(&self.unauthorized).insert(source) {
            let group = source.kind().group().unwrap_or_default();
            let what = if group == QUEUE_GROUP {
                "Queues are not known, so metrics of Kueue are absent"
            } else {
                "Devices and claims are not known, so metrics of GPUs that depend on them are absent"
            };
            tracing::warn!(
                "{source} cannot be listed: the aggregator's account has no right to list them. {what}; all other metrics are exported. The \
                 ClusterRole needs list and watch on {source} of {group}, as in deploy/base. Listing is retried; this warning is not repeated"
            );
        }
    }

    fn count_jumps(&self, node: &NodeName, jumps: Jumps) {
        for (counter, times) in Counter::ALL.into_iter().zip(jumps).filter(|(_, times)| *times > 0) {
            self.self_metrics.jumped(counter, times);
            if let Some(unsaid) = self.warned.again(Warned::Jumped(counter), self.now()) {
                let counter = counter.label();
                tracing::warn!(%node, counter, unsaid, "a counter increased by more than is possible in the elapsed time: the increase is ignored");
            }
        }
    }

    fn count_left_out(&self, node: &NodeName, LeftOut { part, why }: &LeftOut) {
        self.self_metrics.part_left_out(*part, why);
        let (name, reason) = (part.label(), why.reason());
        if let Some(unsaid) = self.warned.again(Warned::LeftOut(*part, reason), self.now()) {
            tracing::warn!(%node, part = name, reason, unsaid, "a part of a report is left out: {why}");
        }
    }

    fn count_refusal(&self, refusal: &Refusal) {
        self.self_metrics.refused(refusal);
        let reason = refusal.reason();
        if let Some(unsaid) = self.warned.again(Warned::Refused(reason), self.now()) {
            tracing::warn!(reason, %refusal, unsaid, "a report is refused");
        } else {
            tracing::debug!(reason, %refusal, "a report is refused");
        }
    }
}

/// Passes on a scrape as long as the replica keeps the role that it had when the scrape began: a replica that lost the Lease
/// meanwhile, or was paused until it had, must not write the rest.
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
