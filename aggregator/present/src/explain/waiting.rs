//! Why an AppWrapper of Kueue waits: one sentence for each reason of `mcad_appwrapper_waiting_reason`, with its numbers.
use std::collections::BTreeMap;

use mcad_accounting::queue::reason::WaitingReason;
use mcad_accounting::queue::{Accounts, AppWrapperQuota, Queued};
use mcad_accounting::snapshot::AppWrapperView;

use super::amount::{Rounding, count, list, span};
use super::ladder::ByResource;
use super::quota::{Quota, Shortfall};

/// What the sentences name.
pub(super) struct Case<'a> {
    /// The AppWrapper.
    pub(super) view: &'a AppWrapperView,
    /// What quota means for it. `None` without Kueue.
    pub(super) quota: Option<&'a AppWrapperQuota>,
    /// The queues. `None` without Kueue.
    pub(super) queues: Option<&'a Accounts>,
    /// What is missing from its quota, by flavor.
    pub(super) short: &'a BTreeMap<String, ByResource<Shortfall>>,
    /// What the nodes do not have for the rest of its pods. `None` if that is not the reason.
    pub(super) lacks: Option<&'a str>,
}

/// The sentence. Names in it are as they are in the cluster: who prints it makes them printable.
pub(super) fn sentence(reason: WaitingReason, case: &Case<'_>) -> String {
    let none = Queued::default();
    let queued = case.quota.map_or(&none, |quota| &quota.queued);
    let appwrapper = &case.view.appwrapper;
    let workload = named("Workload", queued.workload.as_deref());
    let local = named("LocalQueue", Some(&queued.local_queue));
    let queue = named("ClusterQueue", queued.cluster_queue.as_deref());
    let reserves = queued.reserves;
    match reason {
        WaitingReason::ManagedElsewhere => {
            format!("another controller manages it: its spec.managedBy is {}", appwrapper.managed_by)
        }
        WaitingReason::Evicted => {
            format!("Kueue has evicted it: it gives its quota back to {queue} and then waits again")
        }
        WaitingReason::Starting if reserves => format!("it has its quota in {queue} and is being started"),
        WaitingReason::Starting => "it is not suspended: the AppWrapper controller starts it next".to_owned(),
        WaitingReason::AdmissionCheck if reserves => {
            format!(
                "it has its quota in {queue}, but an admission check is not ready: see status.admissionChecks of {workload}"
            )
        }
        WaitingReason::AdmissionCheck => {
            format!(
                "an admission check has rejected it or demands another attempt: see status.admissionChecks of {workload}"
            )
        }
        WaitingReason::Topology if reserves => {
            format!("it has its quota in {queue}, and Kueue is still assigning nodes of the topology to it")
        }
        WaitingReason::Topology => format!("Kueue finds no part of the topology of {queue} with room for its pods"),
        WaitingReason::NoQueue => "it names no queue: it needs the label kueue.x-k8s.io/queue-name".to_owned(),
        WaitingReason::NoKueue => {
            "it is suspended, and Kueue, which could start it, is not installed: spec.suspend must be set to false"
                .to_owned()
        }
        WaitingReason::LocalQueueMissing => format!("namespace {} has no {local}", appwrapper.name.namespace),
        WaitingReason::LocalQueueStopped => format!("{local} is stopped by its spec.stopPolicy"),
        WaitingReason::ClusterQueueMissing => format!("{local} is for {queue}, which does not exist"),
        WaitingReason::ClusterQueueStopped => format!("{queue} is stopped by its spec.stopPolicy"),
        WaitingReason::FlavorMissing => {
            let missing = case.missing_flavors();
            let (flavors, have) = if missing.len() == 1 { ("flavor", "has") } else { ("flavors", "have") };
            format!("{queue} has quota in {flavors} {}, which {have} no ResourceFlavor", list(&missing))
        }
        WaitingReason::ClusterQueueInactive => {
            format!("{queue} is not active: its condition Active has the reason, or its Cohorts form a cycle")
        }
        WaitingReason::AdmissionCheckMissing => {
            format!("{queue} is not active, because one of its admission checks does not exist or is not active")
        }
        WaitingReason::NoWorkload => "Kueue has not created a Workload for it".to_owned(),
        WaitingReason::Deactivated => format!("its {workload} is deactivated: spec.active is false"),
        WaitingReason::Gated => {
            format!(
                "an admission gate holds back its {workload}: see the annotation kueue.x-k8s.io/admission-gated-by and its conditions"
            )
        }
        WaitingReason::Misconfigured => format!("Kueue refuses its {workload} as it is"),
        WaitingReason::Backoff => match queued.retry_seconds {
            Some(seconds) => format!("an earlier attempt failed: Kueue tries it again in {}", span(seconds)),
            None => "an earlier attempt failed: Kueue does not try it again yet".to_owned(),
        },
        WaitingReason::Preempting => format!("other Workloads are being preempted to make room for it in {queue}"),
        WaitingReason::NoFlavor => {
            let flavors = case.flavors();
            let flavors = if flavors.is_empty() { String::new() } else { format!(" ({})", list(&flavors)) };
            format!(
                "no flavor of {queue}{flavors} is for its pods, or the queue has no quota for a resource that they request"
            )
        }
        WaitingReason::QuotaExceeded => format!("{}; that is more than {queue} can ever have", case.shortfalls()),
        WaitingReason::QuotaShort => case.shortfalls(),
        WaitingReason::PodsReady => "Kueue waits until the pods of other admitted Workloads are ready".to_owned(),
        WaitingReason::BehindOthers => match &queued.first {
            Some((first, priority)) => format!(
                "{queue} admits in strict order, and Workload {}/{} with priority {priority} is first",
                first.namespace, first.name,
            ),
            None => format!("{queue} admits in strict order, and others are before it"),
        },
        WaitingReason::Pending => format!("it fits the quota of {queue}; Kueue has not admitted it yet"),
        WaitingReason::PodsUnready => match case.view.pods.wanted {
            1 => "its pod has a node, but is not ready".to_owned(),
            pods => format!("all its {pods} pods have a node, but not all of them are ready"),
        },
        WaitingReason::NodesShort => {
            format!("{}: {}", case.unplaced(), case.lacks.unwrap_or("the nodes do not have enough free"))
        }
        WaitingReason::PodsUnplaced => {
            format!("{}: the nodes have room, and the scheduler has not used it yet", case.unplaced())
        }
    }
}

/// `ClusterQueue a`.
fn named(kind: &str, name: Option<&str>) -> String {
    name.filter(|name| !name.is_empty()).map_or_else(|| kind.to_owned(), |name| format!("{kind} {name}"))
}

impl Case<'_> {
    /// `needs 4 GPUs more in flavor f: 4 of at most 32 left (16 of the 32 by borrowing)`, of each flavor and resource.
    fn shortfalls(&self) -> String {
        let mut sentences = Vec::new();
        for (flavor, resources) in self.short {
            for (resource, short) in resources.iter() {
                let Shortfall { missing, available, most, borrowed } = *short;
                let [left, most] = [available, most].map(|amount| amount.number(&resource, Rounding::Down));
                let needs = missing.words(&resource, Rounding::Up);
                let borrowed = match borrowed {
                    Quota::Units(0) => String::new(),
                    borrowed => format!(" ({} of the {most} by borrowing)", borrowed.number(&resource, Rounding::Down)),
                };
                sentences
                    .push(format!("needs {needs} more in flavor {flavor}: {left} of at most {most} left{borrowed}"));
            }
        }
        if sentences.is_empty() { "needs more quota than is left".to_owned() } else { sentences.join("; ") }
    }

    /// `1 of 2 pods has no node`.
    fn unplaced(&self) -> String {
        let pods = self.view.pods;
        let unbound = pods.unbound().unwrap_or(0);
        let have = if unbound == 1 { "has" } else { "have" };
        format!("{unbound} of {} {have} no node", count(pods.wanted, "pod", "pods"))
    }

    fn queue_flavors(&self) -> impl Iterator<Item = &str> {
        let name = self.quota.and_then(|quota| quota.queued.cluster_queue.as_ref());
        let queue = self.queues.and_then(|all| all.queues.iter().find(|account| Some(&account.queue.name) == name));
        queue
            .into_iter()
            .flat_map(|account| &*account.queue.groups)
            .flat_map(|group| &group.flavors)
            .map(|flavor| &*flavor.name)
    }

    fn flavors(&self) -> Vec<String> {
        self.queue_flavors().map(str::to_owned).collect()
    }

    /// The flavors of its queue that have no object.
    fn missing_flavors(&self) -> Vec<String> {
        let is_known =
            |name: &str| self.queues.is_some_and(|all| all.flavors.iter().any(|flavor| &*flavor.name == name));
        self.queue_flavors().filter(|name| !is_known(name)).map(str::to_owned).collect()
    }
}
