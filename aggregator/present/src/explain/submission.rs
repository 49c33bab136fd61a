//! Whether what a manifest submits would fit now: in all, on nodes, by quota, by MCAD's sum.
use std::sync::Arc;

use mcad_accounting::now::Now;
use mcad_accounting::object::Version;
use mcad_accounting::object::submission::Submission as Submitted;
use mcad_accounting::queue::FlavorResource;
use mcad_accounting::queue::admission::{Admission, Taken};
use mcad_accounting::queue::reason::WaitingReason;
use mcad_accounting::resource::Resource;
use mcad_accounting::resource::amount::Amount;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::verdict::Verdict;
use mcad_accounting::trial::{Copies, Tried};
use serde::Serialize;

use super::amount::{Rounding, count, list, words};
use super::ladder::ByResource;
use super::quota::Quota;
use super::why::{Places, StoppedBy, unknown_parts};
use super::{Answer, is_zero};

/// So many nodes are named.
pub const NAMED: usize = 5;

/// The answer to `fit`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// What it was made from.
    #[serde(flatten)]
    pub of: Answer,
    /// Whether everything fits now. `None` if that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits: Option<bool>,
    /// What was submitted, in the order of the file.
    pub submissions: Vec<Submission>,
    /// What else there is to know, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One submission.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Submission {
    /// The number of the document in the file, from 1.
    pub document: usize,
    /// The index of the item in a list, from 0. `None` if the document is no list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<usize>,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name; with `generateName`, the beginning of it and `…`.
    pub name: String,
    /// Its queue. Empty if it names none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub queue: String,
    /// The number of pods of one copy.
    pub pods: u64,
    /// The resources that one copy requests.
    pub requested: ByResource<i64>,
    /// How many times it is submitted.
    pub copies: u32,
    /// How many copies fit now in every way. `None` if that is not known exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_fit: Option<u32>,
    /// If it is not known exactly: so many copies certainly fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_fit_at_least: Option<u32>,
    /// Whether all copies fit now. `None` if that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits: Option<bool>,
    /// On nodes.
    pub nodes: OnNodes,
    /// By Kueue's quotas. `None` if Kueue has nothing to do with it, or is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<ByQuota>,
    /// By MCAD's sum, for a v1beta1 AppWrapper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcad_sum: Option<Sum>,
}

/// Whether real nodes have places for the pods.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OnNodes {
    /// Whether they have places for one copy, if nothing else needs a node. `None` if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits: Option<bool>,
    /// Why that is not known: a reason of `mcad_appwrapper_fit_unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit_unknown: Option<&'static str>,
    /// How many pods of one copy must be placed. `None` if Nodes or Pods are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_needed: Option<u64>,
    /// How many of these find a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_placed: Option<u64>,
    /// How many copies find places, beside the earlier submissions of the file. `None` if that is not known exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_fit: Option<u32>,
    /// If it is not known exactly: so many copies certainly find places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_fit_at_least: Option<u32>,
    /// Whether the flavors that Kueue would assign change where the pods may run. Then all of this is about the changed pods, and only the
    /// copies that Kueue would admit are tried.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_flavors: bool,
    /// Some of the nodes with places, those for most pods first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
    /// How many more nodes have places.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_places: usize,
    /// The constraints that are known to stop one copy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stopped_by: Vec<StoppedBy>,
    /// The same as a sentence.
    pub why: String,
}

/// Pods on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The node.
    pub node: String,
    /// How many pods of all copies find a place there.
    pub pods: u64,
}

/// What Kueue would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByQuota {
    /// The ClusterQueue. `None` if there is none, or it is not active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_queue: Option<String>,
    /// Whether the first copy fits its quota. `None` if no active queue decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits: Option<bool>,
    /// Why it would wait: a reason of `mcad_appwrapper_waiting_reason`. `pending` if nothing prevents that it is admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// How many Workloads all copies are.
    pub workloads: u64,
    /// How many of them would be admitted.
    pub workloads_admitted: u64,
    /// What these take.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<QuotaAmount>,
    /// What the first that is not admitted misses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shortfall: Vec<QuotaAmount>,
    /// The same as a sentence.
    pub why: String,
}

/// An amount of one flavor and resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuotaAmount {
    /// The flavor.
    pub flavor: String,
    /// The resource.
    pub resource: String,
    /// The amount.
    pub amount: Quota,
    /// How much of that is borrowed. `None` for a shortfall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub borrowed: Option<Quota>,
}

/// By MCAD's sum over all nodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sum {
    /// How many copies fit. `None` if MCAD's sum is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_fit: Option<u32>,
    /// What one copy misses. Empty if it fits, or if that is not known.
    #[serde(skip_serializing_if = "ByResource::is_empty")]
    pub shortfall: ByResource<i64>,
    /// The same as a sentence.
    pub why: String,
}

impl Fit {
    /// The answer for these submissions, tried on this snapshot; ages are those at `now`.
    pub fn new(snapshot: &Snapshot, submissions: Vec<Submission>, notes: Vec<String>, now: Now) -> Self {
        let all = submissions.iter().map(|one| one.fits);
        let fits =
            if all.clone().any(|fits| fits == Some(false)) { Some(false) } else { all.fold(Some(true), Option::and) };
        Self { of: Answer::of(snapshot, now), fits, submissions, notes }
    }
}

impl Submission {
    /// The outcome for one submission. `place` is the number of its document, and of the item in that.
    pub fn new(of: &Submitted, tried: &Tried, place: (usize, Option<usize>), places: &mut Places<'_>) -> Self {
        let appwrapper = &tried.view.appwrapper;
        let (named, more_places) = few(&tried.places);
        Self {
            document: place.0,
            item: place.1,
            kind: of.kind.clone(),
            namespace: (*appwrapper.name.namespace).to_owned(),
            name: of.name.clone(),
            queue: (*appwrapper.queue).to_owned(),
            pods: tried.view.pods.wanted,
            requested: ByResource::from(&appwrapper.demand.total),
            copies: tried.copies,
            copies_fit: exactly(tried.fit),
            copies_fit_at_least: at_least(tried.fit),
            fits: tried.fits,
            nodes: OnNodes::new(tried, named, more_places, places),
            quota: tried.quota.as_ref().map(|quota| ByQuota::new(of, tried, quota)),
            mcad_sum: (appwrapper.version == Version::V1Beta1).then(|| Sum::new(tried)),
        }
    }
}

/// How many copies fit, if that is known exactly.
fn exactly(copies: Option<Copies>) -> Option<u32> {
    copies.filter(|copies| copies.is_most).map(|copies| copies.fit)
}

/// How many copies certainly fit, if some do and that is all that is known.
fn at_least(copies: Option<Copies>) -> Option<u32> {
    copies.filter(|copies| !copies.is_most && copies.fit > 0).map(|copies| copies.fit)
}

impl OnNodes {
    fn new(tried: &Tried, named: Vec<Place>, more_places: usize, places: &mut Places<'_>) -> Self {
        let verdict = tried.view.unplaced.as_ref().and_then(|unplaced| unplaced.verdict.as_ref());
        let fits = match tried.view.unplaced {
            // It has no pods, or they are not known.
            None => tried.view.appwrapper.demand.unknown_kinds.is_empty().then_some(true),
            Some(_) => verdict.and_then(Verdict::fits),
        };
        let why = places.why_in_part(&tried.view);
        let mut on_nodes = Self {
            fits,
            fit_unknown: verdict.and_then(|verdict| verdict.outcome.unknown()),
            pods_needed: verdict.map(|verdict| verdict.needed),
            pods_placed: verdict.map(|verdict| verdict.placed.min(verdict.needed)),
            copies_fit: exactly(tried.nodes),
            copies_fit_at_least: at_least(tried.nodes),
            has_flavors: tried.is_flavored,
            places: named,
            more_places,
            stopped_by: if fits == Some(true) { Vec::new() } else { why.stopped_by },
            why: String::new(),
        };
        on_nodes.why = if fits == Some(true) { on_nodes.of_copies(tried, places) } else { why.sentence };
        if tried.is_flavored {
            on_nodes.why += "; with the node labels and tolerations of the flavors that Kueue would assign";
        }
        on_nodes
    }

    /// The sentence if one copy fits.
    fn of_copies(&self, tried: &Tried, places: &mut Places<'_>) -> String {
        let (wanted, needed) = (tried.view.pods.wanted, self.pods_needed.unwrap_or(0));
        let copies = tried.tried_on_nodes();
        let of_copies = if copies == tried.copies { "copies" } else { "copies that Kueue would admit" };
        let sentence = match tried.nodes {
            _ if wanted == 0 => "it requests no pods".to_owned(),
            Some(nodes) if nodes.fit < copies && copies == 1 => {
                let not = if nodes.is_most {
                    "not beside what stands before it in the file"
                } else {
                    "whether also beside what stands before it in the file is not known"
                };
                format!("places for {} if it were alone, {not}", all_of(needed, wanted))
            }
            Some(Copies { fit: 0, is_most: false }) => format!(
                "places for {} of one copy if it were alone; for how many of {copies} {of_copies} beside each other and \
                 beside what stands before them in the file is not known",
                all_of(needed, wanted)
            ),
            Some(nodes) if nodes.fit < copies => {
                let least = if nodes.is_most { "" } else { "at least " };
                let unknown = if nodes.is_most {
                    ""
                } else {
                    "; whether for more is not known, because the search was cut short"
                };
                let short =
                    tried.short.as_ref().filter(|_| nodes.is_most).map(|short| places.why_in_part(short).sentence);
                let short = short.map_or_else(String::new, |why| format!("; {} copies together: {why}", nodes.fit + 1));
                format!("places for {least}{} of {copies} {of_copies}{unknown}{short}", nodes.fit)
            }
            _ if tried.copies > 1 => {
                let all = match copies {
                    1 => "the one copy that Kueue would admit".to_owned(),
                    copies => format!("all {copies} {of_copies}"),
                };
                format!("places for {all}, {} in all{}", pods(needed * u64::from(copies)), self.named(tried))
            }
            _ if needed < wanted => {
                format!("places for {needed} of {} that are enough{}", pods(wanted), self.named(tried))
            }
            _ => format!("places for {}{}", all_of(needed, wanted), self.named(tried)),
        };
        std::iter::once(sentence).chain(unknown_parts(&tried.view.appwrapper)).collect::<Vec<_>>().join("; ")
    }

    /// On which nodes, if all of them are known.
    fn named(&self, tried: &Tried) -> String {
        on_which(&tried.places, self.pods_needed.unwrap_or(0).saturating_mul(tried.tried_on_nodes().into()))
    }
}

/// The nodes with places for most pods, and how many more nodes there are.
pub(super) fn few(places: &[(Arc<str>, u64)]) -> (Vec<Place>, usize) {
    let mut named = places.to_vec();
    named.sort_by(|(a, some), (b, others)| others.cmp(some).then(a.cmp(b)));
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    (named.into_iter().map(|(node, pods)| Place { node: (*node).to_owned(), pods }).collect(), more)
}

/// The end of a sentence: on which nodes the pods have places. Empty if these are not places for all.
pub(super) fn on_which(places: &[(Arc<str>, u64)], needed: u64) -> String {
    let all: u64 = places.iter().map(|(_, pods)| pods).sum();
    if all < needed || places.is_empty() {
        return String::new();
    }
    let (few, more) = few(places);
    let mut named: Vec<_> = few.iter().map(|place| format!("{} on {}", place.pods, place.node)).collect();
    if more > 0 {
        let pods = few.iter().map(|place| place.pods).sum::<u64>();
        named.push(format!("{} on {}", all - pods, count(more as u64, "more node", "more nodes")));
    }
    format!(": {}", list(&named))
}

impl ByQuota {
    fn new(of: &Submitted, tried: &Tried, quota: &Admission) -> Self {
        let workloads = u64::from(of.workloads) * u64::from(tried.copies);
        let amount = |(flavor, resource): &FlavorResource, amount: Amount, borrowed: Option<Amount>| QuotaAmount {
            flavor: (**flavor).to_owned(),
            resource: resource.name().to_owned(),
            amount: amount.into(),
            borrowed: borrowed.map(Quota::from),
        };
        Self {
            cluster_queue: quota.cluster_queue.as_deref().map(str::to_owned),
            fits: quota.fits,
            reason: quota.reason.map(WaitingReason::label),
            workloads,
            workloads_admitted: quota.workloads,
            taken: quota.taken.iter().map(|(of, taken)| amount(of, taken.amount, Some(taken.borrowed))).collect(),
            shortfall: quota.shortfall.iter().map(|(of, missing)| amount(of, *missing, None)).collect(),
            why: why(tried, quota, workloads),
        }
    }
}

/// What Kueue would do, as a sentence.
fn why(tried: &Tried, quota: &Admission, workloads: u64) -> String {
    let local = format!("LocalQueue {}/{}", tried.view.appwrapper.name.namespace, tried.view.appwrapper.queue);
    if quota.reason == Some(WaitingReason::ManagedElsewhere) {
        return "not known: another controller than the AppWrapper controller manages it (spec.managedBy)".to_owned();
    }
    let Some(queue) = quota.cluster_queue.as_deref() else {
        return match quota.reason {
            None | Some(WaitingReason::Starting) => "none: it names no queue of Kueue".to_owned(),
            Some(WaitingReason::NoQueue) => "it is suspended and names no queue, so nothing starts it".to_owned(),
            Some(WaitingReason::LocalQueueMissing) => format!("{local} does not exist"),
            Some(WaitingReason::LocalQueueStopped) => format!("{local} is stopped"),
            Some(WaitingReason::ClusterQueueMissing) => format!("the ClusterQueue of {local} does not exist"),
            Some(WaitingReason::ClusterQueueStopped) => format!("the ClusterQueue of {local} is stopped"),
            Some(WaitingReason::FlavorMissing) => {
                format!("a flavor of the ClusterQueue of {local} has no ResourceFlavor")
            }
            Some(WaitingReason::AdmissionCheckMissing) => {
                format!("an admission check of the ClusterQueue of {local} does not exist or is not active")
            }
            Some(_) => format!("the ClusterQueue of {local} is not active"),
        };
    };
    let missing = |(of, amount): &(FlavorResource, Amount)| in_flavor(of, *amount, " more");
    let short = list(&quota.shortfall.iter().map(missing).collect::<Vec<_>>());
    // What is missing may not be known, as where Kueue itself says that quota is short.
    let short = if short.is_empty() { "more".to_owned() } else { short };
    let refusal = match quota.reason {
        Some(WaitingReason::Pending) => None,
        Some(WaitingReason::LocalQueueStopped) => Some(format!("{local} is stopped")),
        Some(WaitingReason::NoFlavor) => Some(format!(
            "no flavor of ClusterQueue {queue} is for these pods, or it has no quota for a resource that they request"
        )),
        Some(WaitingReason::QuotaExceeded) => {
            Some(format!("more than ClusterQueue {queue} could ever have: needs {short} than is left"))
        }
        Some(WaitingReason::QuotaShort) => Some(format!("needs {short} than ClusterQueue {queue} has left")),
        Some(WaitingReason::BehindOthers) => {
            Some(format!("fits, but others are before it in line, and ClusterQueue {queue} is StrictFIFO"))
        }
        Some(other) => Some(format!("Kueue would not admit it: {}", other.label().replace('_', " "))),
        None => Some("not known".to_owned()),
    };
    let taken = |(of, taken): &(FlavorResource, Taken)| {
        let borrowed = match taken.borrowed {
            Amount::ZERO => String::new(),
            all if all == taken.amount => " (all borrowed)".to_owned(),
            some => format!(" ({} borrowed)", named_amount(&of.1, some)),
        };
        format!("{}{borrowed}", in_flavor(of, taken.amount, ""))
    };
    let of = list(&quota.taken.iter().map(taken).collect::<Vec<_>>());
    let of = if of.is_empty() { "nothing".to_owned() } else { of };
    match refusal {
        None => format!("ClusterQueue {queue} has enough: it takes {of}"),
        Some(refusal) if quota.workloads == 0 => refusal,
        Some(refusal) => {
            let admitted = quota.workloads;
            let take = if admitted == 1 { "takes" } else { "take" };
            let all = count(workloads, "Workload", "Workloads");
            format!(
                "ClusterQueue {queue} has enough for {admitted} of {all}, which {take} {of}; the next one: {refusal}"
            )
        }
    }
}

fn in_flavor((flavor, resource): &FlavorResource, amount: Amount, more: &str) -> String {
    format!("{}{more} of flavor {flavor}", named_amount(resource, amount))
}

fn named_amount(resource: &Resource, amount: Amount) -> String {
    Quota::from(amount).words(resource, Rounding::Up)
}

impl Sum {
    fn new(tried: &Tried) -> Self {
        let shortfall = tried.shortfall.map(ByResource::<i64>::from).unwrap_or_default();
        let missing = shortfall.iter().filter(|(_, amount)| **amount > 0);
        let shortfall: ByResource<i64> = missing.map(|(resource, amount)| (resource, *amount)).collect();
        let short: Vec<_> =
            shortfall.iter().map(|(resource, amount)| words(&resource, (*amount).into(), Rounding::Up)).collect();
        let why = match tried.by_sum {
            None => "MCAD's sum is not known".to_owned(),
            Some(_) if !short.is_empty() => format!("needs {} more than MCAD's sum has", list(&short)),
            Some(fit) if fit < tried.copies => {
                let fits = if fit == 1 { "fits" } else { "fit" };
                format!("{fit} of {} copies {fits} MCAD's sum", tried.copies)
            }
            Some(_) if tried.copies > 1 => "all copies fit MCAD's sum".to_owned(),
            Some(_) => "fits MCAD's sum".to_owned(),
        };
        Self { copies_fit: tried.by_sum, shortfall, why }
    }
}

/// How many pods, in words.
pub fn pods(number: u64) -> String {
    count(number, "pod", "pods")
}

fn all_of(needed: u64, all: u64) -> String {
    match (needed, all) {
        (1, 1) => "its pod".to_owned(),
        (needed, all) if needed < all => format!("{needed} of {}", pods(all)),
        (_, all) => format!("all {}", pods(all)),
    }
}
