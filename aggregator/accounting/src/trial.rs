//! Whether pods that are not submitted yet would fit now: on nodes, by quota, by MCAD's sum (docs/accounting.md §12).
//!
//! Submissions are tried one after the other. What fits takes its place from the later ones. The first is judged exactly as an AppWrapper
//! that waits: by [`crate::fit`] and [`crate::queue`].
use std::sync::Arc;

use crate::fit::{Fitter, PodsOnNodes};
use crate::object::Version;
use crate::object::demand::{PodGroup, pods, uses_claims};
use crate::object::submission::Submission;
use crate::options::QueueMetrics;
use crate::queue::admission::{Admission, Line};
use crate::queue::facts::Facts;
use crate::resource::Triple;
use crate::snapshot::verdict::Outcome;
use crate::snapshot::{AppWrapperView, Part, Snapshot, Unplaced};
use crate::unread::Unread;

/// What submissions are tried on.
#[derive(Debug)]
pub struct Ground {
    /// The cluster, with the devices that the submissions may use.
    pub snapshot: Snapshot,
    /// The facts about Kueue's queues. `None` if Kueue is not there, or its objects are not known or not read.
    pub facts: Option<Facts>,
    /// What of the cluster could not be read.
    pub unread: Unread,
    /// What MCAD believes to have for one more AppWrapper. `None` if that is not known.
    pub available: Option<Triple>,
    /// The time that back-off of Kueue is compared with, in ms since the Unix epoch.
    pub now_ms: Option<i64>,
}

impl Ground {
    /// Whether Kueue is certainly not there. If queues are not read, nothing is known of them.
    pub fn is_without_queues(&self) -> bool {
        self.snapshot.options.queue_metrics == QueueMetrics::On && self.snapshot.serves_queues == Some(false)
    }
}

/// See the module's documentation.
pub struct Trial<'a> {
    ground: &'a Ground,
    /// `None` if Nodes or Pods are not known.
    fitter: Option<Fitter<'a>>,
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

/// The pods of a submission as the flavors that Kueue would assign change them.
struct Flavored<'a> {
    quota: &'a Admission,
    facts: &'a Facts,
    /// The pods of one Workload, unchanged.
    one: Vec<PodGroup>,
    /// How many Workloads one copy is.
    workloads: u64,
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
    /// Whether the flavors that Kueue would assign change where the pods may run. Then all that is said of nodes is about the changed pods,
    /// and only the copies that Kueue would admit are tried on nodes.
    pub is_flavored: bool,
    /// How many copies find places on nodes beside the earlier submissions. `None` if Nodes, Pods or devices are not known.
    pub nodes: Option<Copies>,
    /// How many pods of all copies that were tried were placed on which node. Not complete if only the search found a place for all.
    pub places: PodsOnNodes,
    /// What Kueue would admit. `None` if Kueue is not there or not known, or has nothing to do with it.
    pub quota: Option<Admission>,
    /// The fewest copies that do not find places, as pods that need a node. `None` if all fit, or if it is not known which these are.
    pub short: Option<AppWrapperView>,
    /// How many copies Kueue would admit. `None` if no quota decides, or if that is not known.
    pub admitted: Option<u32>,
    /// For a v1beta1 AppWrapper, what one copy misses of MCAD's sum. `None` for others, or if that is not known.
    pub shortfall: Option<Triple>,
    /// How many copies fit MCAD's sum. `None` as above.
    pub by_sum: Option<u32>,
    /// Whether it names a queue of Kueue, and queues are not known.
    pub is_queue_unknown: bool,
    /// How many copies fit in every way. `None` if something that matters is not known.
    pub fit: Option<Copies>,
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
            fitter: Fitter::new(&ground.snapshot),
            ground,
            before: Vec::new(),
            is_before_too_much: false,
        }
    }

    /// Tries so many copies of a submission, at least one.
    pub fn submit(&mut self, submission: &Submission, copies: u32) -> Tried {
        let appwrapper = &submission.appwrapper;
        let each = u64::from(submission.workloads);
        let quota = self.line.as_mut().filter(|_| appwrapper.demand.pods() > 0);
        let quota = quota.and_then(|line| line.submit(submission, each.saturating_mul(copies.into())));
        let admitted = quota.as_ref().and_then(Admission::admitted);
        let admitted = admitted.map(|workloads| u32::try_from(workloads / each.max(1)).unwrap_or(u32::MAX));
        let flavored = Flavored::of(submission, quota.as_ref(), self.ground.facts.as_ref(), admitted.unwrap_or(0));
        let groups = |copies: u32| match &flavored {
            Some(flavored) => flavored.times(copies),
            None => times(&appwrapper.demand.groups, copies),
        };
        // Which flavors a copy would get that Kueue does not admit is not known.
        let tried_on_nodes = admitted.filter(|_| flavored.is_some()).unwrap_or(copies);
        let on_nodes = self.on_nodes(submission, tried_on_nodes, &groups);
        let (shortfall, by_sum) = self.by_sum(submission, copies);
        let short = on_nodes.as_ref().and_then(|found| found.short.clone());
        let mut tried = Tried {
            view: self.view(submission, groups(1)),
            is_flavored: flavored.is_some(),
            nodes: on_nodes.as_ref().map(|found| found.copies),
            short: short.map(|short| AppWrapperView::of_pods(Arc::new(appwrapper.clone()), short)),
            places: on_nodes.map(|found| found.places).unwrap_or_default(),
            admitted,
            shortfall,
            by_sum,
            is_queue_unknown: self.line.is_none()
                && !self.ground.is_without_queues()
                && submission.workload.is_some()
                && !appwrapper.queue.is_empty(),
            quota: quota.clone(),
            copies,
            fit: None,
            fits: None,
        };
        if self.ground.unread.is_nothing_to(appwrapper.version) {
            (tried.fit, tried.fits) = (tried.copies_fit(), tried.concluded());
        }
        // What may fit takes its place. Kueue admits what does not fit on nodes, too: the quota of that is subtracted by the line.
        let kept = tried.by_what_is_known().map_or(0, |most| most.fit);
        if kept > 0 {
            self.keep(submission, kept, groups(kept));
        }
        tried
    }

    /// One copy as an AppWrapper that waits.
    fn view(&mut self, submission: &Submission, groups: Vec<PodGroup>) -> AppWrapperView {
        let appwrapper = &submission.appwrapper;
        let mut unplaced =
            Unplaced { part: Part::All, groups: groups.into(), needed: appwrapper.needed(), verdict: None };
        let fitter = self.fitter.as_mut().map(Fitter::renewed);
        unplaced.verdict = fitter.and_then(|fitter| fitter.place(&appwrapper.name, &unplaced));
        AppWrapperView::of_pods(Arc::new(appwrapper.clone()), unplaced)
    }

    /// How many copies find places beside the earlier submissions, and where. `groups` are the pods of so many copies.
    fn on_nodes(
        &mut self,
        submission: &Submission,
        copies: u32,
        groups: &dyn Fn(u32) -> Vec<PodGroup>,
    ) -> Option<Placing> {
        let fitter = self.fitter.as_mut()?.renewed();
        let appwrapper = &submission.appwrapper;
        let is_alone = self.before.is_empty();
        if !is_alone && (uses_claims(&self.before) || uses_claims(&appwrapper.demand.groups)) {
            // Which claim a name means depends on the object. So pods of several objects cannot be placed together.
            return Some(Placing { copies: Copies { fit: 0, is_most: false }, places: Vec::new(), short: None });
        }
        let needs_all = appwrapper.needed() == appwrapper.demand.pods();
        let (mut places, mut short) = (None, None);
        let mut outcome = |copies: u32| {
            let mut all = groups(copies);
            all.extend_from_slice(&self.before);
            let pods = pods(&all);
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

    /// Subtracts so many copies from what later submissions find. `groups` are their pods.
    fn keep(&mut self, submission: &Submission, copies: u32, groups: Vec<PodGroup>) {
        let appwrapper = &submission.appwrapper;
        self.before.extend(groups);
        self.is_before_too_much |= appwrapper.needed() != appwrapper.demand.pods();
        if let (Some(available), Version::V1Beta1) = (&mut self.available, appwrapper.version) {
            let each = Triple::from(&appwrapper.demand.total);
            *available = available.zip(each, |available, each| available - each * i128::from(copies));
        }
    }
}

impl<'a> Flavored<'a> {
    /// `None` if no flavor changes where the pods may run.
    fn of(
        submission: &Submission,
        quota: Option<&'a Admission>,
        facts: Option<&'a Facts>,
        admitted: u32,
    ) -> Option<Self> {
        let one = of_one_workload(submission);
        let flavored = Self { quota: quota?, facts: facts?, one, workloads: u64::from(submission.workloads) };
        let is_free = |group: &PodGroup| flavored.one.iter().any(|known| known.constraints == group.constraints);
        let is_changed = admitted > 0 && !flavored.times(admitted).iter().all(is_free);
        is_changed.then_some(flavored)
    }

    /// The pods of so many copies.
    fn times(&self, copies: u32) -> Vec<PodGroup> {
        self.quota.constrained(self.facts, &self.one, self.workloads.saturating_mul(copies.into()))
    }
}

impl Tried {
    /// How many copies were tried on nodes.
    pub fn tried_on_nodes(&self) -> u32 {
        self.admitted.filter(|_| self.is_flavored).unwrap_or(self.copies)
    }

    /// How many copies fit if nothing matters but what is known. `None` if it is not known how many find places on nodes.
    fn by_what_is_known(&self) -> Option<Copies> {
        let nodes = self.nodes?;
        let others = [self.admitted, self.by_sum].into_iter().flatten().fold(self.copies, u32::min);
        Some(if nodes.fit < others { nodes } else { Copies { fit: others, is_most: true } })
    }

    fn copies_fit(&self) -> Option<Copies> {
        let none = Copies { fit: 0, is_most: true };
        let is_sum_known = self.view.appwrapper.version == Version::V1Beta2 || self.by_sum.is_some();
        // One thing of which there is too little for any copy is enough.
        let is_too_much = [self.admitted, self.by_sum].contains(&Some(0)) || self.by_what_is_known() == Some(none);
        let is_known = self.is_readable() && is_sum_known && self.is_admitted().is_some();
        if is_too_much { Some(none) } else { self.by_what_is_known().filter(|_| is_known) }
    }

    /// Whether all of its pods, and all that they request, are known.
    fn is_readable(&self) -> bool {
        let demand = &self.view.appwrapper.demand;
        demand.unreadable == 0 && demand.unknown_kinds.is_empty()
    }

    /// Whether Kueue would admit all copies. `None` if that is not known.
    fn is_admitted(&self) -> Option<bool> {
        match &self.quota {
            None => (!self.is_queue_unknown).then_some(true),
            Some(quota) => quota.is_refused().map(|is_refused| !is_refused),
        }
    }

    fn concluded(&self) -> Option<bool> {
        let is_v1 = self.view.appwrapper.version == Version::V1Beta1;
        let sum = if is_v1 { self.by_sum.map(|fit| fit >= self.copies) } else { Some(true) };
        let alone = self.view.unplaced.as_ref().and_then(|unplaced| unplaced.verdict.as_ref()?.fits());
        // If quota admits fewer copies than there are, the answer is known already.
        let nodes = self.nodes.and_then(|nodes| nodes.all(self.tried_on_nodes())).or(alone.filter(|fits| !fits));
        let all = [nodes, self.is_admitted(), sum, self.is_readable().then_some(true)];
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
