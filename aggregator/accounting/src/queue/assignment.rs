//! Whether Kueue could assign flavors to a Workload now, from the first flavor on and without preempting others.
//!
//! Source: kubernetes-sigs/kueue `pkg/scheduler/flavorassigner/flavorassigner.go`.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::FlavorResource;
use super::held::PODS;
use super::quota::QueueNode;
use crate::object::quotas::{FlavorQuotas, ResourceGroup};
use crate::object::workload::{OpenWorkload, PodSet};
use crate::object::{ClusterQueue, ResourceFlavor};
use crate::resource::Resource;
use crate::resource::amount::Amount;

/// The outcome, the worst last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// It fits.
    #[default]
    Fits,
    /// It would fit if others used less.
    Short,
    /// It is more than the queue could ever have.
    Exceeded,
    /// No flavor is for its pods, or a resource has no quota.
    NoFlavor,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Assigned {
    /// The worst outcome of its pod sets.
    pub(super) outcome: Outcome,
    /// What it would use of each flavor and resource.
    pub(super) used: BTreeMap<FlavorResource, Amount>,
    /// What it misses of each flavor and resource.
    pub(super) shortfall: BTreeMap<FlavorResource, Amount>,
}

impl Assigned {
    /// Whether it fits.
    pub(super) fn fits(&self) -> bool {
        self.outcome == Outcome::Fits
    }
}

/// A ClusterQueue, prepared for many Workloads: what is left of each of its quotas, and the most that there can be.
#[derive(Debug)]
pub(super) struct Assigner<'a> {
    queue: &'a ClusterQueue,
    node: QueueNode<'a>,
    flavors: &'a BTreeMap<Arc<str>, Arc<ResourceFlavor>>,
    limits: HashMap<FlavorResource, Limits>,
    counts_pods: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    /// What is left, 0 if less.
    available: Amount,
    most: Amount,
}

/// What pod sets request together.
struct Group<'w> {
    name: Option<&'w Arc<str>>,
    sets: Vec<&'w PodSet>,
    requests: BTreeMap<Resource, i128>,
}

/// A flavor that was tried.
struct Tried {
    outcome: Outcome,
    /// How far above the queue it must borrow.
    level: u32,
    /// Of each resource what is used with the earlier pod sets.
    used: Vec<(FlavorResource, Amount)>,
}

impl<'a> Assigner<'a> {
    /// For this ClusterQueue, which has this place in the tree.
    pub(super) fn new(
        queue: &'a ClusterQueue,
        node: QueueNode<'a>,
        flavors: &'a BTreeMap<Arc<str>, Arc<ResourceFlavor>>,
    ) -> Self {
        let all = queue.groups.iter().flat_map(|group| &group.flavors);
        let of =
            all.flat_map(|flavor| flavor.quotas.iter().map(|(resource, _)| (flavor.name.clone(), resource.clone())));
        let limits = |of: FlavorResource| {
            let limits = Limits { available: node.available(&of).or_zero(), most: node.most(&of) };
            (of, limits)
        };
        let pods = Resource::Extended(PODS.into());
        Self { limits: of.map(limits).collect(), counts_pods: queue.covers(&pods), queue, node, flavors }
    }

    /// Tries to assign flavors to a Workload.
    pub(super) fn assign(&self, workload: &OpenWorkload) -> Assigned {
        self.assign_after(&mut HashMap::new(), workload, |_, _| {})
    }

    /// The same after others that use what is `assumed`, to which this one is added. `note` learns the flavors of each pod set.
    pub(super) fn assign_after(
        &self,
        assumed: &mut HashMap<FlavorResource, Amount>,
        workload: &OpenWorkload,
        mut note: impl FnMut(&PodSet, &Arc<str>),
    ) -> Assigned {
        let mut assigned = Assigned::default();
        for group in self.groups(workload) {
            let covers = |of: &&ResourceGroup| group.requests.keys().any(|resource| of.covered.contains(resource));
            if group.requests.iter().any(|(resource, amount)| *amount != 0 && !self.queue.covers(resource)) {
                // What the other resources of these pod sets miss is still told.
                assigned.outcome = Outcome::NoFlavor;
            }
            let mut chosen = Vec::new();
            for of in self.queue.groups.iter().filter(covers) {
                let Some(tried) = self.choose(of, &group, assumed) else {
                    assigned.outcome = Outcome::NoFlavor;
                    continue;
                };
                assigned.outcome = assigned.outcome.max(tried.outcome);
                for (of, used) in &tried.used {
                    // As with what is missing, the last pod set counts.
                    assigned.used.insert(of.clone(), *used);
                    let missing = used.minus(self.limits(of).available);
                    if missing > Amount::ZERO {
                        // The last pod set counts: those before it that could fit are in what it uses.
                        assigned.shortfall.insert(of.clone(), missing);
                    }
                }
                if tried.outcome <= Outcome::Short {
                    for ((flavor, _), _) in tried.used.iter().take(1) {
                        group.sets.iter().for_each(|set| note(set, flavor));
                    }
                    chosen.extend(tried.used);
                }
            }
            // Earlier pod sets count, not the other resources of this one.
            assumed.extend(chosen);
        }
        assigned
    }

    fn limits(&self, of: &FlavorResource) -> Limits {
        self.limits.get(of).copied().unwrap_or_default()
    }

    /// The pod sets, those of one group together.
    fn groups<'w>(&self, workload: &'w OpenWorkload) -> Vec<Group<'w>> {
        let pods = Resource::Extended(PODS.into());
        let mut groups: Vec<Group<'w>> = Vec::new();
        for (set, requests) in workload.requests() {
            let name = set.group.as_ref();
            let known = groups.iter().position(|group| name.is_some() && group.name == name);
            let at = known.unwrap_or_else(|| {
                groups.push(Group { name, sets: Vec::new(), requests: BTreeMap::new() });
                groups.len() - 1
            });
            let group = &mut groups[at];
            group.sets.push(set);
            let one = self.counts_pods.then(|| (pods.clone(), i128::from(set.count)));
            for (resource, amount) in
                requests.into_iter().filter(|(known, _)| !self.counts_pods || *known != pods).chain(one)
            {
                let sum = group.requests.entry(resource).or_default();
                *sum = sum.saturating_add(amount);
            }
        }
        groups
    }

    /// The flavor that these pod sets get for the resources of a group. `None` if there is none for them.
    fn choose(
        &self,
        of: &ResourceGroup,
        group: &Group<'_>,
        assumed: &HashMap<FlavorResource, Amount>,
    ) -> Option<Tried> {
        let mut best: Option<Tried> = None;
        for flavor in &of.flavors {
            let is_for_them = self
                .flavors
                .get(&flavor.name)
                .is_some_and(|object| group.sets.iter().all(|set| object.takes(&set.shape.constraints)));
            if !is_for_them {
                continue;
            }
            let tried = self.attempt(of, flavor, group, assumed);
            if tried.outcome == Outcome::Fits && (tried.level == 0 || !self.queue.avoids_borrowing) {
                return Some(tried);
            }
            let rank = |tried: &Tried| (tried.outcome, tried.level);
            if best.as_ref().is_none_or(|best| rank(&tried) < rank(best)) {
                best = Some(tried);
            }
        }
        best
    }

    fn attempt(
        &self,
        of: &ResourceGroup,
        flavor: &FlavorQuotas,
        group: &Group<'_>,
        assumed: &HashMap<FlavorResource, Amount>,
    ) -> Tried {
        let mut tried = Tried { outcome: Outcome::Fits, level: 0, used: Vec::new() };
        for (resource, amount) in group.requests.iter().filter(|(resource, _)| of.covered.contains(resource)) {
            let key = (flavor.name.clone(), resource.clone());
            let used = assumed.get(&key).copied().unwrap_or_default().plus(Amount::of(*amount));
            let Limits { available, most } = self.limits(&key);
            let outcome = if used > most {
                Outcome::Exceeded
            } else if used > available {
                Outcome::Short
            } else {
                Outcome::Fits
            };
            tried.outcome = tried.outcome.max(outcome);
            if self.queue.avoids_borrowing && outcome == Outcome::Fits {
                tried.level = tried.level.max(self.node.level(&key, used));
            }
            tried.used.push((key, used));
        }
        if tried.outcome != Outcome::Fits {
            // The first of these counts.
            tried.level = 0;
        }
        tried
    }
}
