//! Whether pods that are not submitted yet would fit now: on nodes, by quota, by MCAD's sum (docs/accounting.md §11).
//!
//! Submissions are tried one after the other. What fits takes its place from the later ones. The first is judged exactly as an AppWrapper
//! that waits: by [`crate::fit`] and [`crate::queue`].
use std::sync::Arc;

use crate::cluster::{Cluster, Event};
use crate::fit::{Fitter, PodsOnNodes};
use crate::object::demand::PodGroup;
use crate::object::submission::Submission;
use crate::object::{Object, Version};
use crate::queue::admission::{Admission, Line};
use crate::queue::facts::Facts;
use crate::resource::Triple;
use crate::snapshot::verdict::Outcome;
use crate::snapshot::{AppWrapperView, Part, Snapshot, Unplaced};

/// What submissions are tried on.
#[derive(Debug)]
pub struct Ground {
    /// The cluster, with the devices that the submissions may use.
    pub snapshot: Snapshot,
    /// The facts about Kueue's queues. `None` if Kueue is not there, or its objects are not known.
    pub facts: Option<Facts>,
    /// Whether Kueue is certainly not there.
    pub is_without_queues: bool,
    /// What MCAD believes to have for one more AppWrapper. `None` if that is not known.
    pub available: Option<Triple>,
    /// The time that back-off of Kueue is compared with, in ms since the Unix epoch.
    pub now_ms: Option<i64>,
}

/// A node that is imagined to be different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The node of this name is gone.
    Without(String),
    /// The node of this name is not cordoned.
    Uncordon(String),
}

impl Change {
    /// The name of the node.
    pub fn node(&self) -> &str {
        match self {
            Self::Without(name) | Self::Uncordon(name) => name,
        }
    }

    /// The event that makes the change. `None` if there is no such node.
    pub fn event(&self, cluster: &Cluster) -> Option<Event> {
        let mut node = cluster.node(self.node())?.clone();
        Some(match self {
            Self::Without(_) => Event::Delete(Object::Node(node)),
            Self::Uncordon(_) => {
                node.cordoned = false;
                node.taints = node.taints.into_iter().filter(|taint| *taint.key != *CORDONED).collect();
                Event::Apply(Object::Node(node))
            }
        })
    }
}

/// The taint that Kubernetes adds to a cordoned node.
const CORDONED: &str = "node.kubernetes.io/unschedulable";

/// See the module's documentation.
pub struct Trial<'a> {
    ground: &'a Ground,
    line: Option<Line<'a>>,
    available: Option<Triple>,
    /// The pods of earlier submissions that fit.
    before: Vec<PodGroup>,
    /// Whether some of these need not be placed, so that a later submission that does not fit with all of them may fit.
    is_before_too_much: bool,
}

/// How many of several copies fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// So many fit.
    pub fit: u32,
    /// Whether one more certainly does not fit. If all fit, it is `true`.
    pub is_most: bool,
}

/// Where copies find places.
struct Placing {
    copies: Copies,
    /// How many pods of all copies were placed on which node.
    places: PodsOnNodes,
    /// The fewest copies that do not find places. `None` if there are none, or they were not tried alone.
    short: Option<Unplaced>,
}

/// The outcome for one submission.
#[derive(Clone, Debug)]
pub struct Tried {
    /// How many times it is submitted.
    pub copies: u32,
    /// One copy as an AppWrapper that waits, with the verdict that it would have if nothing else needed a node.
    pub view: AppWrapperView,
    /// How many copies find places on nodes beside the earlier submissions. `None` if Nodes, Pods or devices are not known.
    pub nodes: Option<Copies>,
    /// How many pods of all copies were placed on which node, of its flavors if they restrict the nodes. Not complete if only the search
    /// found a place for all.
    pub places: PodsOnNodes,
    /// What Kueue would admit. `None` if Kueue is not there or not known, or has nothing to do with it.
    pub quota: Option<Admission>,
    /// The fewest copies that do not find places, as pods that need a node. `None` if all fit, or if it is not known which these are.
    pub short: Option<AppWrapperView>,
    /// The same on the nodes of the flavors that Kueue would assign.
    pub short_of_flavors: Option<AppWrapperView>,
    /// How many copies Kueue would admit. `None` if no active queue decides.
    pub admitted: Option<u32>,
    /// How many of these find places on the nodes of the flavors that Kueue would assign. `None` if no flavor restricts the nodes.
    pub on_flavors: Option<Copies>,
    /// For a v1beta1 AppWrapper, what one copy misses of MCAD's sum. `None` for others, or if that is not known.
    pub shortfall: Option<Triple>,
    /// How many copies fit MCAD's sum. `None` as above.
    pub by_sum: Option<u32>,
    /// Whether it names a queue of Kueue, and queues are not known.
    pub is_queue_unknown: bool,
    /// How many copies fit in every way, as far as known.
    pub fit: u32,
    /// Whether all copies fit now. `None` if that cannot be told.
    pub fits: Option<bool>,
}

impl Copies {
    /// Whether so many fit. `None` if that cannot be told.
    pub fn all(self, copies: u32) -> Option<bool> {
        if self.fit >= copies { Some(true) } else { self.is_most.then_some(false) }
    }
}

impl<'a> Trial<'a> {
    /// Before anything is submitted.
    pub fn new(ground: &'a Ground) -> Self {
        Self {
            line: ground.facts.as_ref().map(|facts| Line::new(facts, ground.now_ms)),
            available: ground.available,
            ground,
            before: Vec::new(),
            is_before_too_much: false,
        }
    }

    /// Tries so many copies of a submission, at least one.
    pub fn submit(&mut self, submission: &Submission, copies: u32) -> Tried {
        let appwrapper = &submission.appwrapper;
        let groups = &*appwrapper.demand.groups;
        let on_nodes = self.on_nodes(submission, copies, |copies| times(groups, copies));
        let nodes = on_nodes.as_ref().map(|found| found.copies);
        let wanted = u64::from(submission.workloads);
        let quota = self.line.as_mut().filter(|_| appwrapper.demand.pods() > 0);
        let quota = quota.and_then(|line| line.submit(submission, wanted.saturating_mul(copies.into())));
        let admitted = quota.as_ref().filter(|quota| quota.cluster_queue.is_some() || quota.is_refused() == Some(true));
        let admitted = admitted.map(|quota| u32::try_from(quota.workloads / wanted.max(1)).unwrap_or(u32::MAX));
        let on_flavors = self.on_flavors(submission, quota.as_ref(), admitted.unwrap_or(0));
        let (shortfall, by_sum) = self.by_sum(submission, copies);
        let flavored = on_flavors.as_ref().map(|(found, _)| found.copies);
        let least = [nodes.map(|nodes| nodes.fit), admitted, flavored.map(|copies| copies.fit), by_sum];
        let fit = if nodes.is_some() { least.into_iter().flatten().fold(copies, u32::min) } else { 0 };
        let short = |found: &Placing| Some(AppWrapperView::of_pods(Arc::new(appwrapper.clone()), found.short.clone()?));
        let mut tried = Tried {
            view: self.view(submission),
            nodes,
            short: on_nodes.as_ref().and_then(short),
            short_of_flavors: on_flavors.as_ref().and_then(|(found, _)| short(found)),
            places: match &on_flavors {
                Some((found, _)) if found.copies.fit == copies => found.places.clone(),
                _ => on_nodes.map(|found| found.places).unwrap_or_default(),
            },
            admitted,
            on_flavors: flavored,
            shortfall,
            by_sum,
            is_queue_unknown: self.line.is_none()
                && !self.ground.is_without_queues
                && submission.workload.is_some()
                && !appwrapper.queue.is_empty(),
            quota,
            copies,
            fit,
            fits: None,
        };
        tried.fits = tried.concluded();
        self.keep(submission, &tried, on_flavors.map(|(_, groups)| groups));
        tried
    }

    /// One copy as an AppWrapper that waits.
    fn view(&self, submission: &Submission) -> AppWrapperView {
        let appwrapper = &submission.appwrapper;
        let (groups, needed) = (appwrapper.demand.groups.clone(), appwrapper.needed());
        let mut unplaced = Unplaced { part: Part::All, groups, needed, verdict: None };
        let mut fitter = Fitter::new(&self.ground.snapshot);
        unplaced.verdict = fitter.as_mut().and_then(|fitter| fitter.place(&appwrapper.name, &unplaced));
        AppWrapperView::of_pods(Arc::new(appwrapper.clone()), unplaced)
    }

    /// How many copies find places beside the earlier submissions, and where. `groups` are the pods of so many copies.
    fn on_nodes(&self, submission: &Submission, copies: u32, groups: impl Fn(u32) -> Vec<PodGroup>) -> Option<Placing> {
        let mut fitter = Fitter::new(&self.ground.snapshot)?;
        let appwrapper = &submission.appwrapper;
        let is_alone = self.before.is_empty();
        let uses_claims = |groups: &[PodGroup]| groups.iter().any(|group| !group.claims.is_empty());
        if !is_alone && (uses_claims(&self.before) || uses_claims(&appwrapper.demand.groups)) {
            // Which claim a name means depends on the object. So pods of several objects cannot be placed together.
            return Some(Placing { copies: Copies { fit: 0, is_most: false }, places: Vec::new(), short: None });
        }
        let needs_all = appwrapper.needed() == appwrapper.demand.pods();
        let (mut places, mut short) = (None, None);
        let mut outcome = |copies: u32| {
            let mut all = groups(copies);
            all.extend_from_slice(&self.before);
            let pods: u64 = all.iter().map(|group| u64::from(group.count)).sum();
            let needed = if is_alone { appwrapper.needed().saturating_mul(copies.into()).min(pods) } else { pods };
            if needed == 0 {
                return Some(Outcome::Fits);
            }
            let mut unplaced = Unplaced { part: Part::All, groups: all.into(), needed, verdict: None };
            let (verdict, found) = fitter.place_and_name(&appwrapper.name, &unplaced)?;
            if places.is_none() {
                places = Some(found);
            }
            // If not all pods have to be placed, it proves nothing that they cannot be placed with all others.
            let is_certain = verdict.outcome != Outcome::Never || is_alone || needs_all && !self.is_before_too_much;
            let outcome = if is_certain { verdict.outcome } else { Outcome::Unproven };
            if outcome != Outcome::Fits && is_alone {
                unplaced.verdict = Some(verdict);
                short = Some(unplaced);
            }
            Some(outcome)
        };
        let last = outcome(copies)?;
        // More copies never fit better than fewer.
        let (mut fit, mut over, mut last) =
            if last == Outcome::Fits { (copies, copies, last) } else { (0, copies, last) };
        while over > fit + 1 {
            let middle = fit + (over - fit) / 2;
            match outcome(middle) {
                Some(Outcome::Fits) => fit = middle,
                other => (over, last) = (middle, other.unwrap_or(Outcome::Unproven)),
            }
        }
        let is_most = fit == copies || last == Outcome::Never;
        // Beside earlier submissions, some of the places are theirs.
        let places = places.filter(|_| is_alone).unwrap_or_default();
        Some(Placing { copies: Copies { fit, is_most }, places, short })
    }

    /// How many of the copies that Kueue would admit find places on the nodes of their flavors, and the pods of these.
    fn on_flavors(
        &self,
        submission: &Submission,
        quota: Option<&Admission>,
        admitted: u32,
    ) -> Option<(Placing, Vec<PodGroup>)> {
        let (quota, facts) = (quota?, self.ground.facts.as_ref()?);
        if admitted == 0 {
            return None;
        }
        let one = of_one_workload(submission);
        let groups =
            |copies: u32| quota.constrained(facts, &one, u64::from(submission.workloads).saturating_mul(copies.into()));
        let is_free = |group: &PodGroup| one.iter().any(|known| known.constraints == group.constraints);
        if groups(admitted).iter().all(is_free) {
            return None;
        }
        let found = self.on_nodes(submission, admitted, groups)?;
        let fit = found.copies.fit;
        Some((found, groups(fit)))
    }

    /// For v1beta1: what one copy misses of MCAD's sum, and how many copies fit it.
    fn by_sum(&self, submission: &Submission, copies: u32) -> (Option<Triple>, Option<u32>) {
        let available = self.available.filter(|_| submission.appwrapper.version == Version::V1Beta1);
        let Some(available) = available else { return (None, None) };
        let each = Triple::from(&submission.appwrapper.demand.total);
        let most = |each: i128, available: i128| if each > 0 { available.max(0) / each } else { copies.into() };
        let Triple { cpu, memory, gpu } = each.zip(available, most);
        let fit = i128::from(copies).min(cpu).min(memory).min(gpu);
        (Some(each.minus(available).clamped()), Some(u32::try_from(fit).unwrap_or(copies)))
    }

    /// Subtracts what fits from what later submissions find.
    fn keep(&mut self, submission: &Submission, tried: &Tried, on_flavors: Option<Vec<PodGroup>>) {
        let appwrapper = &submission.appwrapper;
        if tried.fit == 0 {
            return;
        }
        // Kueue admits what does not fit on nodes, too. The quota that it takes is subtracted by the line.
        self.before.extend(on_flavors.unwrap_or_else(|| times(&appwrapper.demand.groups, tried.fit)));
        self.is_before_too_much |= appwrapper.needed() != appwrapper.demand.pods();
        if let (Some(available), Version::V1Beta1) = (&mut self.available, appwrapper.version) {
            let each = Triple::from(&appwrapper.demand.total);
            *available = available.zip(each, |available, each| available - each * i128::from(tried.fit));
        }
    }
}

impl Tried {
    fn concluded(&self) -> Option<bool> {
        let quota = match &self.quota {
            None => (!self.is_queue_unknown).then_some(true),
            Some(quota) => quota.is_refused().map(|is_refused| !is_refused),
        };
        let is_v1 = self.view.appwrapper.version == Version::V1Beta1;
        let sum = if is_v1 { self.by_sum.map(|fit| fit >= self.copies) } else { Some(true) };
        let alone = self.view.unplaced.as_ref().and_then(|unplaced| unplaced.verdict.as_ref()?.fits());
        let nodes = self.nodes.and_then(|nodes| nodes.all(self.copies)).or(alone.filter(|fits| !fits));
        // If quota admits fewer copies than there are, the answer is known already.
        let on_flavors = self.on_flavors.map_or(Some(true), |copies| copies.all(self.copies));
        let demand = &self.view.appwrapper.demand;
        let readable = (demand.unreadable == 0 && demand.unknown_kinds.is_empty()).then_some(true);
        let all = [nodes, quota, sum, on_flavors, readable];
        if all.contains(&Some(false)) {
            return Some(false);
        }
        all.into_iter().collect::<Option<Vec<bool>>>().map(|_| true)
    }
}

/// The pods of so many copies.
fn times(groups: &[PodGroup], copies: u32) -> Vec<PodGroup> {
    groups.iter().map(|group| PodGroup { count: group.count.saturating_mul(copies), ..group.clone() }).collect()
}

/// The pods of one of its Workloads.
fn of_one_workload(submission: &Submission) -> Vec<PodGroup> {
    let workloads = submission.workloads.max(1);
    let groups = submission.appwrapper.demand.groups.iter();
    groups.map(|group| PodGroup { count: group.count / workloads, ..group.clone() }).collect()
}
