//! What Kueue would admit of Workloads that do not exist yet, one after the other: how many, with which flavors, and how much of that is
//! borrowed.
//!
//! By the same rules as for a Workload that waits ([`super::reason`], `super::assignment`). Each one that is admitted takes its quota from
//! the later ones.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::FlavorResource;
use super::assignment::Outcome;
use super::facts::Facts;
use super::quota::{QueueNode, Tree};
use super::reason::{Reasons, Standing, WaitingReason};
use super::usage::{self, UsageByOwner};
use crate::object::demand::PodGroup;
use crate::object::submission::Submission;
use crate::resource::amount::Amount;

/// Workloads that are being submitted.
pub struct Line<'a> {
    facts: &'a Facts,
    now_ms: Option<i64>,
    usage: BTreeMap<Arc<str>, BTreeMap<FlavorResource, UsageByOwner>>,
    /// What those that were admitted take of each ClusterQueue.
    taken: BTreeMap<Arc<str>, BTreeMap<FlavorResource, Amount>>,
}

/// What Kueue would admit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The ClusterQueue that its LocalQueue leads to. `None` if there is none, or it is not active.
    pub cluster_queue: Option<Arc<str>>,
    /// Whether the first of them fits its quota. `None` if no active queue decides.
    pub fits: Option<bool>,
    /// Why the last one that was tried waits; if it fits, why it is not admitted at once: `pending` if nothing prevents it.
    pub reason: Option<WaitingReason>,
    /// What the first one that does not fit misses.
    pub shortfall: Vec<(FlavorResource, Amount)>,
    /// How many Workloads are admitted.
    pub workloads: u64,
    /// What these take.
    pub taken: Vec<(FlavorResource, Taken)>,
    /// The flavors of the pod sets, and how many Workloads in a row get these.
    flavors: Vec<(Flavors, u64)>,
}

/// The flavors of one Workload: of each, the position of its pod set, and its name.
type Flavors = Vec<(usize, Arc<str>)>;

/// What is taken of one flavor and resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How much.
    pub amount: Amount,
    /// How much of it the ClusterQueue does not have itself.
    pub borrowed: Amount,
}

impl<'a> Line<'a> {
    /// Before anything is submitted. `now_ms` is the time that back-off is compared with.
    pub fn new(facts: &'a Facts, now_ms: Option<i64>) -> Self {
        Self { facts, now_ms, usage: usage::of(facts), taken: BTreeMap::new() }
    }

    /// Submits so many Workloads. `None` if Kueue has nothing to do with them.
    pub fn submit(&mut self, submission: &Submission, workloads: u64) -> Option<Admission> {
        let workload = submission.workload.as_ref()?;
        let appwrapper = &submission.appwrapper;
        let facts = self.facts;
        let tree = Tree::new(&facts.cluster_queues, &facts.cohorts, |queue, add| {
            self.used(queue).iter().for_each(|(of, used)| add(of, *used));
        });
        let reasons = Reasons::new(facts, &tree, self.now_ms);
        let mut admission = Admission::default();
        if appwrapper.queue.is_empty() {
            // Without a queue there is no Workload, unless Kueue is configured to make one.
            admission.reason = waits(reasons.of(appwrapper, None, None));
            return Some(admission);
        }
        let Some((queue, assigner, open)) = reasons.assigner(appwrapper, workload) else {
            admission.reason = waits(reasons.of(appwrapper, Some(workload), None));
            return Some(admission);
        };
        admission.cluster_queue = Some(queue.name.clone());
        let mut assumed: HashMap<FlavorResource, Amount> = HashMap::new();
        for at in 0..workloads.max(1) {
            let mut next = assumed.clone();
            let mut flavors = Flavors::new();
            let mut outcome = assigner.assign_after(&mut next, open, |set, flavor| {
                let of = open.pod_sets.iter().position(|known| std::ptr::eq(known, set));
                flavors.extend(of.map(|at| (at, flavor.clone())));
            });
            if at == 0 {
                admission.fits = Some(outcome.fits());
            } else {
                // The one before it was admitted, and it requests the same.
                outcome.outcome = outcome.outcome.min(Outcome::Short);
            }
            admission.reason = waits(reasons.of(appwrapper, Some(workload), Some(&outcome)));
            if admission.reason != Some(WaitingReason::Pending) || !outcome.fits() {
                admission.shortfall = outcome.shortfall.into_iter().collect();
                break;
            }
            assumed = next;
            admission.admit(flavors);
        }
        admission.taken = tree.queue(&queue.name).map(|queue| taken(queue, &assumed)).unwrap_or_default();
        let of_queue = self.taken.entry(queue.name.clone()).or_default();
        for (of, amount) in assumed {
            let sum = of_queue.entry(of).or_default();
            *sum = sum.plus(amount);
        }
        Some(admission)
    }

    /// What is used of a ClusterQueue.
    fn used(&self, queue: &str) -> BTreeMap<FlavorResource, Amount> {
        let reserved = self.usage.get(queue).into_iter().flatten();
        let mut used: BTreeMap<FlavorResource, Amount> =
            reserved.map(|(of, usage)| (of.clone(), usage.reserved())).collect();
        for (of, taken) in self.taken.get(queue).into_iter().flatten() {
            let sum = used.entry(of.clone()).or_default();
            *sum = sum.plus(*taken);
        }
        used
    }
}

impl Admission {
    /// Whether the last Workload that was tried would not be admitted at once. `None` if another controller decides.
    pub fn is_refused(&self) -> Option<bool> {
        match (&self.cluster_queue, self.reason) {
            (_, Some(WaitingReason::ManagedElsewhere)) => None,
            // Without a queue, no quota keeps it from starting.
            (None, Some(WaitingReason::Starting) | None) => Some(false),
            (None, Some(_)) => Some(true),
            (Some(_), reason) => Some(reason != Some(WaitingReason::Pending)),
        }
    }

    /// How many Workloads quota lets start. `None` if no quota decides, or if another controller does.
    pub fn admitted(&self) -> Option<u64> {
        let is_refused = self.is_refused()?;
        (is_refused || self.cluster_queue.is_some()).then_some(self.workloads)
    }

    /// Counts one more Workload, with these flavors.
    fn admit(&mut self, flavors: Flavors) {
        self.workloads += 1;
        match self.flavors.last_mut() {
            Some((last, times)) if *last == flavors => *times += 1,
            _ => self.flavors.push((flavors, 1)),
        }
    }

    /// The pods of the first of its Workloads, so many, as their flavors constrain them. `groups` are the pod sets of one Workload.
    pub(crate) fn constrained(&self, facts: &Facts, groups: &[PodGroup], workloads: u64) -> Vec<PodGroup> {
        let mut left = workloads;
        let mut all = Vec::new();
        for (flavors, times) in &self.flavors {
            let times = left.min(*times);
            left -= times;
            for (at, group) in groups.iter().enumerate() {
                let mut constraints = group.constraints.clone();
                for (_, name) in flavors.iter().filter(|(of, _)| *of == at) {
                    let flavor = facts.flavors.get(name);
                    constraints = flavor.map_or(constraints.clone(), |of| Arc::new(of.constrain(&constraints)));
                }
                let count = u64::from(group.count).saturating_mul(times);
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                all.push(PodGroup { count, constraints, ..group.clone() });
            }
        }
        all
    }
}

fn waits(standing: Option<Standing>) -> Option<WaitingReason> {
    match standing? {
        Standing::Waits(reason) => Some(reason),
        Standing::Started => None,
    }
}

/// What is taken of a ClusterQueue beside what is used of it.
fn taken(queue: QueueNode<'_>, assumed: &HashMap<FlavorResource, Amount>) -> Vec<(FlavorResource, Taken)> {
    let of_one = |(of, amount): (&FlavorResource, &Amount)| {
        let before = queue.used(of);
        let beyond = |used: Amount| used.minus(queue.nominal(of)).or_zero();
        let borrowed = beyond(before.plus(*amount)).minus(beyond(before)).or_zero();
        (of.clone(), Taken { amount: *amount, borrowed })
    };
    let mut taken: Vec<_> = assumed.iter().filter(|(_, amount)| **amount > Amount::ZERO).map(of_one).collect();
    taken.sort_by(|(a, _), (b, _)| a.cmp(b));
    taken
}
