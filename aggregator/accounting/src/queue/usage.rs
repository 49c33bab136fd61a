//! What Workloads use of each queue's quotas: reserved, admitted, and what their pods hold of it.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::FlavorResource;
use super::facts::Facts;
use crate::cluster::owner::ByOwner;
use crate::object::workload::Flag;
use crate::resource::amount::Amount;

/// The usage of one flavor and resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of Workloads that reserve quota.
    pub reserved: i128,
    /// Of those that are admitted.
    pub admitted: i128,
    /// Reserved, but no pod holds it.
    pub unheld: i128,
    /// Held by pods beyond what their Workload reserves.
    pub excess: i128,
}

/// What Workloads of AppWrappers and all others use of one flavor and resource.
pub type UsageByOwner = ByOwner<Usage>;

impl UsageByOwner {
    /// What is reserved in all.
    pub fn reserved(&self) -> Amount {
        Amount::of(self.appwrapper.reserved.saturating_add(self.other.reserved))
    }
}

/// The usage of each ClusterQueue that is used.
pub(super) fn of(facts: &Facts) -> BTreeMap<Arc<str>, BTreeMap<FlavorResource, UsageByOwner>> {
    let mut all: BTreeMap<Arc<str>, BTreeMap<FlavorResource, UsageByOwner>> = BTreeMap::new();
    for (at, workload) in facts.workloads.iter().enumerate() {
        let Some((open, admission)) = workload.reserving() else { continue };
        let mut reserved: BTreeMap<FlavorResource, i128> = BTreeMap::new();
        for (resource, flavor, amount) in admission.assignments.iter().flat_map(|one| one.usage.iter()) {
            let sum = reserved.entry((flavor.clone(), resource.clone())).or_default();
            *sum = sum.saturating_add(*amount);
        }
        let held = facts.held.get(&at).map(|held| held.by_flavor(admission)).unwrap_or_default();
        let of_queue = all.entry(admission.cluster_queue.clone()).or_default();
        for (of, reserved) in reserved {
            let held = held.get(&of).copied().unwrap_or(0);
            let usage = of_queue.entry(of).or_default();
            let usage = if open.is_of_appwrapper() { &mut usage.appwrapper } else { &mut usage.other };
            usage.reserved = usage.reserved.saturating_add(reserved);
            if open.flags.has(Flag::Admitted) {
                usage.admitted = usage.admitted.saturating_add(reserved);
            }
            usage.unheld += (reserved - held).max(0);
            usage.excess += (held - reserved).max(0);
        }
    }
    all
}
