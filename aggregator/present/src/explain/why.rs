//! Why an AppWrapper, or some of its pods, has no place yet: a sentence that names the constraint if one is certain.
//!
//! [`mcad_accounting::fit`] decides whether it fits, from this snapshot or one a few seconds older. If it does not fit, this
//! module looks for conditions that no placement can meet: the total exceeds what is free, one pod needs more than any node has, or
//! no node may be used. If none of these holds, the pods do not fit together, and the sentence gives the number of pods placed.
mod place;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::Rc;

use mcad_accounting::cluster::Missing;
use mcad_accounting::fit::{self, Choice};
use mcad_accounting::object::demand::PodGroup;
use mcad_accounting::object::{AppWrapper, Version};
use mcad_accounting::queue::reason::WaitingReason;
use mcad_accounting::resource::{Amounts, Triple};
use mcad_accounting::snapshot::verdict::{Outcome, Undecided, Verdict};
use mcad_accounting::snapshot::{AppWrapperView, Snapshot, Unplaced, Waiting};
use serde::Serialize;

use self::place::{Class, NodeRoom, Place, in_order, total};
use super::amount::{Rounding, count, list, words};
use super::queues::NoQueues;

/// What keeps pods of an AppWrapper from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoppedBy {
    /// The capacity that MCAD assumes is not enough.
    McadSum,
    /// The quota of its queue is not enough, or not for it.
    Quota,
    /// No node accepts new pods.
    NoNode,
    /// No node that accepts pods has the labels that its pods require.
    Labels,
    /// All nodes with those labels are tainted, and its pods do not tolerate the taints.
    Taints,
    /// All nodes together do not have enough free.
    Total,
    /// No node has as much free as one pod requests.
    OneNode,
    /// The host ports that its pods need are in use.
    HostPorts,
    /// Some nodes have enough free, but not for all of its pods.
    Placement,
}

/// The sentence and its constraints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// For people.
    pub sentence: String,
    /// For machines.
    pub stopped_by: Vec<StoppedBy>,
}

/// The nodes that accept pods, and what is free on the nodes that each kind of pods may use.
pub struct Places<'a> {
    snapshot: &'a Snapshot,
    nodes: Vec<NodeRoom<'a>>,
    known: HashMap<Choice, Rc<Place>>,
}

/// Whether the pods fit the nodes.
enum OnNodes {
    Fits,
    FitsNot(Why),
    Unknown(String),
}

impl<'a> Places<'a> {
    /// From the nodes of a snapshot.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let nodes = snapshot.nodes.iter().flat_map(|nodes| &nodes.nodes).filter(|view| fit::takes_pods(view));
        Self { snapshot, nodes: nodes.map(|view| NodeRoom::new(view)).collect(), known: HashMap::new() }
    }

    /// The snapshot.
    pub(super) fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// Why an AppWrapper waits. `of_kueue` is the reason that Kueue has for it, and its sentence.
    pub(super) fn why(
        &mut self,
        view: &AppWrapperView,
        waiting: &Waiting,
        of_kueue: Option<(WaitingReason, &str)>,
    ) -> Why {
        let on_nodes = self.on_nodes(view);
        let why = match (view.appwrapper.version, of_kueue) {
            (Version::V1Beta1, _) => why_with_sum(waiting, on_nodes),
            (Version::V1Beta2, Some((reason, sentence))) => why_with_reason(reason, sentence, on_nodes),
            (Version::V1Beta2, None) => why_with_queue(NoQueues::of(self.snapshot), on_nodes),
        };
        with_unknown_parts(why, &view.appwrapper)
    }

    /// Why some pods of an AppWrapper have no node, although it was started.
    pub fn why_in_part(&mut self, view: &AppWrapperView) -> Why {
        let fits = "the nodes have room for these pods; the scheduler has not placed them yet".to_owned();
        with_unknown_parts(why_on_nodes(self.on_nodes(view), fits), &view.appwrapper)
    }

    /// What the nodes do not have for the pods without a node of an AppWrapper that was started.
    pub(super) fn lacks_of_rest(&mut self, view: &AppWrapperView) -> String {
        let groups = view.unplaced.as_ref().map(|unplaced| unplaced.groups.clone());
        let each = groups.and_then(|groups| match &self.classes(&groups)[..] {
            [class] => class.too_little_for_each(),
            _ => None,
        });
        each.unwrap_or_else(|| self.why_in_part(view).sentence)
    }

    fn on_nodes(&mut self, view: &AppWrapperView) -> OnNodes {
        let Some(unplaced) = &view.unplaced else { return OnNodes::Unknown(unknown_pods(&view.appwrapper)) };
        if self.snapshot.complete().is_none() {
            return OnNodes::Unknown(format!("whether it fits is not known, because {} are missing", self.missing()));
        }
        let Some(verdict) = &unplaced.verdict else {
            return OnNodes::Unknown("whether it fits the nodes is not known yet".to_owned());
        };
        match verdict.outcome {
            Outcome::Fits => OnNodes::Fits,
            Outcome::Never => OnNodes::FitsNot(self.why_not(unplaced, verdict)),
            Outcome::Undecided(why) => OnNodes::Unknown(undecided(why, verdict)),
            Outcome::Unproven => OnNodes::Unknown(format!(
                "whether the nodes have places for {} is not known: the search was cut short after it found places for {} of them",
                count(verdict.needed, "pod", "pods"),
                verdict.placed,
            )),
        }
    }

    /// The missing kinds of objects that fit depends on.
    fn missing(&self) -> String {
        let missing = &self.snapshot.missing;
        let kinds = [(Missing::Nodes, "Nodes"), (Missing::Pods, "Pods")];
        let missing = kinds.into_iter().filter(|(kind, _)| missing.contains(kind));
        list(&missing.map(|(_, name)| name.to_owned()).collect::<Vec<_>>())
    }

    /// Why it does not fit the nodes.
    fn why_not(&mut self, unplaced: &Unplaced, verdict: &Verdict) -> Why {
        let why = |stopped_by, sentence| Why { sentence, stopped_by: vec![stopped_by] };
        let demand = amounts(&total(&*unplaced.groups));
        if self.nodes.is_empty() {
            return why(StoppedBy::NoNode, format!("needs {demand}; no node accepts new pods"));
        }
        if let Some(about) = &verdict.about {
            return why(StoppedBy::Placement, format!("its pods need devices of {about}, which does not exist"));
        }
        // It could start with fewer pods than all, so a constraint on some pods need not stop it.
        let pods: u64 = unplaced.groups.iter().map(|group| u64::from(group.count)).sum();
        if verdict.needed != pods {
            let (needed, placed) = (count(verdict.needed, "pod", "pods"), verdict.placed);
            let sentence = format!("needs places for {needed} of {pods}; the nodes have {placed}");
            return why(StoppedBy::Placement, sentence);
        }
        for class in self.classes(&unplaced.groups) {
            let whose =
                if class.pods() == pods { String::new() } else { format!("for {} of its pods it ", class.pods()) };
            if let Some((stopped_by, sentence)) = class.unusable().or_else(|| class.too_little(&self.nodes)) {
                return Why { sentence: format!("{whose}{sentence}"), stopped_by };
            }
        }
        let placed = verdict.placed;
        let claims = if unplaced.groups.iter().any(|group| !group.claims.is_empty()) {
            " with the devices that they claim"
        } else {
            ""
        };
        let pods = count(pods, "pod", "pods");
        let sentence = format!("needs {demand} in {pods}{claims}; the nodes have places for {placed}");
        why(StoppedBy::Placement, sentence)
    }

    /// The groups of pods, largest first, grouped by the nodes that they may use.
    fn classes<'b>(&mut self, groups: &'b [PodGroup]) -> Vec<Class<'b>> {
        let mut groups: Vec<&PodGroup> = groups.iter().filter(|group| group.count > 0).collect();
        groups.sort_by_key(|group| Reverse(fit::left(&group.requests)));
        let mut classes: Vec<Class<'b>> = Vec::new();
        for group in groups {
            let place = self.place(group);
            match classes.iter_mut().find(|class| class.is_of(&place)) {
                Some(class) => class.groups.push(group),
                None => classes.push(Class { place, groups: vec![group] }),
            }
        }
        classes
    }

    fn place(&mut self, group: &PodGroup) -> Rc<Place> {
        let choice = Choice::of(group, &self.snapshot.options.tolerated);
        if let Some(known) = self.known.get(&choice) {
            return known.clone();
        }
        let place = Rc::new(Place::new(&choice, &self.nodes));
        self.known.insert(choice, place.clone());
        place
    }
}

/// For v1beta1: MCAD decides by its sum, and the pods then need nodes.
fn why_with_sum(waiting: &Waiting, nodes: OnNodes) -> Why {
    // If the sum is not known, fit on nodes is not known either, and the sentence has the reason.
    let Some(shortfall) = waiting.shortfall else {
        return why_on_nodes(nodes, "fits the nodes; whether it fits MCAD's sum is unknown".to_owned());
    };
    let missing = missing(shortfall);
    let sum = (!missing.is_empty()).then(|| format!("needs {missing} more than MCAD's sum has"));
    let mut stopped_by: Vec<_> = sum.iter().map(|_| StoppedBy::McadSum).collect();
    let sentence = match (sum, nodes) {
        (None, OnNodes::Unknown(unknown)) => format!("fits MCAD's sum; {unknown}"),
        (Some(sum), OnNodes::Unknown(unknown)) => format!("{sum}; {unknown}"),
        (None, OnNodes::Fits) => "fits MCAD's sum and the nodes".to_owned(),
        (Some(sum), OnNodes::Fits) => format!("{sum}; it fits the nodes"),
        (sum, OnNodes::FitsNot(why)) => {
            stopped_by.extend(why.stopped_by);
            match sum {
                None => format!("{}; it fits MCAD's sum", why.sentence),
                Some(sum) => format!("{sum}; on the nodes: {}", why.sentence),
            }
        }
    };
    Why { sentence, stopped_by }
}

/// For v1beta2 with Kueue: the reason, and whether the pods would have a place.
fn why_with_reason(reason: WaitingReason, sentence: &str, nodes: OnNodes) -> Why {
    use WaitingReason::{NoFlavor, QuotaExceeded, QuotaShort};
    let of_quota = matches!(reason, NoFlavor | QuotaExceeded | QuotaShort);
    let mut stopped_by: Vec<_> = of_quota.then_some(StoppedBy::Quota).into_iter().collect();
    let nodes = match nodes {
        OnNodes::Fits => "it fits the nodes".to_owned(),
        OnNodes::Unknown(unknown) => unknown,
        OnNodes::FitsNot(why) => {
            stopped_by.extend(why.stopped_by);
            format!("on the nodes: {}", why.sentence)
        }
    };
    Why { sentence: format!("{sentence}; {nodes}"), stopped_by }
}

/// For v1beta2 if Kueue has no reason for it, or if that is not known.
fn why_with_queue(no_queues: Option<NoQueues>, nodes: OnNodes) -> Why {
    let admission = match no_queues {
        Some(no @ NoQueues::NotInstalled) => no.to_string(),
        Some(no @ NoQueues::NotKnown) => format!("whether its queue admits it is unknown, because {no}"),
        None => "whether its queue admits it is unknown".to_owned(),
    };
    why_on_nodes(nodes, format!("fits the nodes; {admission}"))
}

/// What the nodes say alone. `fits` is the sentence if the pods fit.
fn why_on_nodes(nodes: OnNodes, fits: String) -> Why {
    match nodes {
        OnNodes::FitsNot(why) => why,
        OnNodes::Fits => Why { sentence: fits, stopped_by: Vec::new() },
        OnNodes::Unknown(sentence) => Why { sentence, stopped_by: Vec::new() },
    }
}

/// Why it is not known whether pods with claims fit.
fn undecided(why: Undecided, verdict: &Verdict) -> String {
    let about = |other: &str| verdict.about.as_deref().unwrap_or(other).to_owned();
    match why {
        Undecided::ClaimMissing => {
            let about = about("a claim");
            format!("whether it fits the nodes is not known: its pods use {about}, which does not exist or could not be listed")
        }
        Undecided::Request => format!(
            "whether it fits the nodes is not known: {} requests devices in a way that this version cannot evaluate",
            about("a claim of its pods"),
        ),
        Undecided::Selector => {
            "whether it fits the nodes is not known: it depends on a device selector (CEL) that cannot be evaluated here".to_owned()
        }
        Undecided::SharedDevice => {
            "whether it fits the nodes is not known: it depends on devices that several claims share, and on how much of them is left"
                .to_owned()
        }
    }
}

/// Why there are no pods to place.
fn unknown_pods(appwrapper: &AppWrapper) -> String {
    if appwrapper.demand.unknown_kinds.is_empty() {
        return "it requests no pods".to_owned();
    }
    format!("its pods are not known: {}", unknown_kinds(appwrapper))
}

fn unknown_kinds(appwrapper: &AppWrapper) -> String {
    let lacking = match appwrapper.version {
        Version::V1Beta1 => "custompodresources",
        Version::V1Beta2 => "podSets",
    };
    format!("{} without {lacking}", list(&appwrapper.demand.unknown_kinds))
}

/// Adds which parts of an AppWrapper were not considered.
fn with_unknown_parts(mut why: Why, appwrapper: &AppWrapper) -> Why {
    let parts = unknown_parts(appwrapper);
    why.sentence = std::iter::once(why.sentence).chain(parts).collect::<Vec<_>>().join("; ");
    why
}

/// Which parts of an AppWrapper are not considered, a part of a sentence each.
pub(super) fn unknown_parts(appwrapper: &AppWrapper) -> impl Iterator<Item = String> {
    let demand = &appwrapper.demand;
    let further = demand.pods() > 0 && !demand.unknown_kinds.is_empty();
    let further = further.then(|| format!("further pods may be in {}", unknown_kinds(appwrapper)));
    let unreadable = (demand.unreadable > 0)
        .then(|| format!("{} of its demand could not be parsed", count(demand.unreadable.into(), "part", "parts")));
    further.into_iter().chain(unreadable)
}

fn amounts(amounts: &Amounts) -> String {
    let all: Vec<_> =
        in_order(amounts).iter().map(|(resource, amount)| words(resource, *amount, Rounding::Up)).collect();
    if all.is_empty() { "nothing".to_owned() } else { list(&all) }
}

fn missing(shortfall: Triple) -> String {
    let shortfall = Amounts::from(shortfall);
    if in_order(&shortfall).is_empty() { String::new() } else { amounts(&shortfall) }
}
