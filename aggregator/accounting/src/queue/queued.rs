//! Where an AppWrapper is queued, for people who read why it waits: names, flavors, Kueue's own words.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::FlavorResource;
use super::assignment::Assigned;
use super::facts::Facts;
use super::reason::local_queue;
use crate::object::workload::Words;
use crate::object::{AppWrapper, QueueName, Workload};
use crate::resource::amount::Amount;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queued {
    /// Name of its Workload. `None` if it has none that is not finished.
    pub workload: Option<Arc<str>>,
    /// Name of its LocalQueue; empty if it names none.
    pub local_queue: Arc<str>,
    /// The ClusterQueue that it takes quota from, else the one that its LocalQueue leads to. `None` if there is neither.
    pub cluster_queue: Option<Arc<str>>,
    /// Whether it reserves quota.
    pub reserves: bool,
    /// Quota of each flavor that it reserves or, if it waits, would be assigned.
    pub flavors: BTreeMap<FlavorResource, Amount>,
    /// Kueue's own words on why it reserves no quota. `None` if there are none.
    pub words: Option<Words>,
    /// The first in line for its ClusterQueue, if that is another one before it, and its priority.
    pub first: Option<(QueueName, i64)>,
    /// In how many seconds Kueue tries it again. `None` if it does not wait for that.
    pub retry_seconds: Option<f64>,
}

impl Queued {
    /// Of an AppWrapper with this Workload, which would be assigned that.
    pub(super) fn new(
        facts: &Facts,
        appwrapper: &AppWrapper,
        workload: Option<&Arc<Workload>>,
        assigned: Option<&Assigned>,
        now_ms: Option<i64>,
    ) -> Self {
        let open = workload.and_then(|workload| workload.open.as_deref());
        let local_queue = local_queue(appwrapper, open);
        let admission = workload.and_then(|workload| Some(workload.reserving()?.1));
        let lead = || Some(&facts.local_queue(&appwrapper.name.namespace, local_queue)?.cluster_queue);
        let mut flavors = assigned.map(|assigned| assigned.used.clone()).unwrap_or_default();
        for (resource, flavor, amount) in admission.iter().flat_map(|all| &all.assignments).flat_map(|one| &*one.usage)
        {
            let sum = flavors.entry((flavor.clone(), resource.clone())).or_default();
            *sum = sum.plus(Amount::of(*amount));
        }
        let retry_ms = open.and_then(|open| open.requeue_at_ms).zip(now_ms).map(|(at, now)| at - now);
        Self {
            workload: workload.map(|workload| workload.name.name.clone()),
            local_queue: local_queue.clone(),
            reserves: admission.is_some(),
            cluster_queue: admission.map(|admission| &admission.cluster_queue).or_else(lead).cloned(),
            flavors,
            words: open.and_then(|open| open.words.as_deref()).cloned(),
            first: None,
            retry_seconds: retry_ms.filter(|ms| *ms > 0).map(|ms| ms as f64 / 1000.0),
        }
    }
}
