//! What the pods of a Workload hold, by the flavors that were assigned to it.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::FlavorResource;
use crate::object::Pod;
use crate::object::workload::Admission;
use crate::resource::{Amounts, Resource};

/// The resource of which every pod takes one.
pub(super) const PODS: &str = "pods";

/// What the pods of a Workload request, by the pod set that their label names. `None` for pods without that label.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(BTreeMap<Option<Arc<str>>, Sums>);

#[derive(Clone, Debug, Default)]
struct Sums {
    pods: i128,
    requests: Amounts,
    /// Requests of resources without a ladder.
    others: BTreeMap<Arc<str>, i128>,
}

impl Held {
    /// Adds a pod.
    pub(super) fn add(&mut self, pod: &Pod) {
        let rare = pod.rare.as_deref();
        let sums = self.0.entry(rare.and_then(|rare| rare.pod_set.clone())).or_default();
        sums.pods += 1;
        sums.requests.add_times(&pod.requests, 1);
        for (name, amount) in rare.iter().flat_map(|rare| rare.others.iter()) {
            let sum = sums.others.entry(name.clone()).or_default();
            *sum = sum.saturating_add(amount);
        }
    }

    /// What they hold of each flavor. A pod whose label does not name an assignment takes the flavors in the order of the
    /// assignments, as far as these go, and the rest from the first.
    pub(super) fn by_flavor(&self, admission: &Admission) -> BTreeMap<FlavorResource, i128> {
        let mut held: BTreeMap<FlavorResource, i128> = BTreeMap::new();
        let mut unnamed: BTreeMap<Resource, i128> = BTreeMap::new();
        for (set, sums) in &self.0 {
            let assignment = admission.assignments.iter().find(|one| Some(&one.pod_set) == set.as_ref());
            for (resource, amount) in sums.iter() {
                let assigned = assignment.and_then(|one| one.usage.iter().find(|(known, ..)| *known == resource));
                match assigned {
                    Some((_, flavor, _)) => *held.entry((flavor.clone(), resource)).or_default() += amount,
                    None => *unnamed.entry(resource).or_default() += amount,
                }
            }
        }
        for (resource, amount) in unnamed {
            fill(&mut held, admission, &resource, amount);
        }
        held
    }
}

fn fill(held: &mut BTreeMap<FlavorResource, i128>, admission: &Admission, resource: &Resource, amount: i128) {
    let mut flavors: Vec<(FlavorResource, i128)> = Vec::new();
    let usage = admission.assignments.iter().flat_map(|one| one.usage.iter());
    for (_, flavor, used) in usage.filter(|(known, ..)| known == resource) {
        match flavors.iter_mut().find(|((known, _), _)| known == flavor) {
            Some((_, sum)) => *sum += used,
            None => flavors.push(((flavor.clone(), resource.clone()), *used)),
        }
    }
    let mut rest = amount;
    for (of, reserved) in &flavors {
        let taken = held.entry(of.clone()).or_default();
        let more = rest.min((*reserved - *taken).max(0));
        *taken += more;
        rest -= more;
    }
    if let Some((of, _)) = flavors.into_iter().next() {
        *held.entry(of).or_default() += rest;
    }
}

impl Sums {
    /// The amount of each resource, `pods` included.
    fn iter(&self) -> impl Iterator<Item = (Resource, i128)> {
        let others = self.others.iter().map(|(name, amount)| (Resource::Extended(name.clone()), *amount));
        self.requests.iter().chain(others).chain([(Resource::Extended(PODS.into()), self.pods)])
    }
}
