//! Why an AppWrapper, or a part of its pods, has no place yet, in a sentence: which constraint stops it, where that can be said
//! honestly.
//!
//! Whether it fits is [`mcad_accounting::fit`]'s verdict, from this snapshot or one a few seconds older. Here a verdict that it does
//! not is traced to conditions that no placement could meet: more in all than there is, more in one pod than on any node,
//! no node that may be used. Where none of them holds, the pieces do not go together, and the count of pods placed says so.
mod place;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::Rc;

use mcad_accounting::cluster::Missing;
use mcad_accounting::fit::{self, Choice};
use mcad_accounting::object::demand::PodGroup;
use mcad_accounting::object::{AppWrapper, Version};
use mcad_accounting::resource::{Amounts, Triple};
use mcad_accounting::snapshot::verdict::{Outcome, Verdict};
use mcad_accounting::snapshot::{AppWrapperView, Snapshot, Unplaced, Waiting};
use serde::Serialize;

use self::place::{Class, NodeRoom, Place, in_order, total};
use super::amount::{Rounding, count, list, words};

/// What keeps pods of an AppWrapper from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoppedBy {
    /// What MCAD believes to have is not enough.
    McadSum,
    /// No node takes new pods.
    NoNode,
    /// No node that takes pods has the labels that its pods demand.
    Labels,
    /// Nodes with those labels are tainted, and its pods do not tolerate that.
    Taints,
    /// On all nodes together there is not enough free.
    Total,
    /// No node has as much free as one pod asks for.
    OneNode,
    /// The host ports that its pods take are in use.
    HostPorts,
    /// Some nodes have enough free, but not for all of its pods.
    Placement,
}

/// The sentence, and its gist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// For people.
    pub sentence: String,
    /// For machines.
    pub stopped_by: Vec<StoppedBy>,
}

/// The nodes that take pods, and what is free on those that pods of each kind may use.
pub struct Places<'a> {
    snapshot: &'a Snapshot,
    nodes: Vec<NodeRoom<'a>>,
    known: HashMap<Choice, Rc<Place>>,
}

/// What is known of fit on nodes.
enum OnNodes {
    Fits,
    FitsNot(Why),
    Unknown(String),
}

impl<'a> Places<'a> {
    /// Of the nodes of a snapshot.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let nodes = snapshot.nodes.iter().flat_map(|nodes| &nodes.nodes).filter(|view| fit::takes_pods(view));
        Self { snapshot, nodes: nodes.map(|view| NodeRoom::new(view)).collect(), known: HashMap::new() }
    }

    /// Why this one waits.
    pub fn why(&mut self, view: &AppWrapperView, waiting: &Waiting) -> Why {
        let on_nodes = self.on_nodes(view);
        let why = match view.appwrapper.version {
            Version::V1Beta1 => why_with_sum(waiting, on_nodes),
            Version::V1Beta2 => why_with_queue(on_nodes),
        };
        with_unknown_parts(why, &view.appwrapper)
    }

    /// Why some of its pods have no node, although it was started.
    pub fn why_in_part(&mut self, view: &AppWrapperView) -> Why {
        let why = match self.on_nodes(view) {
            OnNodes::Fits => {
                let sentence =
                    "there is room for them on the nodes; their scheduler has not placed them yet".to_owned();
                Why { sentence, stopped_by: Vec::new() }
            }
            OnNodes::FitsNot(why) => why,
            OnNodes::Unknown(sentence) => Why { sentence, stopped_by: Vec::new() },
        };
        with_unknown_parts(why, &view.appwrapper)
    }

    fn on_nodes(&mut self, view: &AppWrapperView) -> OnNodes {
        let Some(unplaced) = &view.unplaced else { return OnNodes::Unknown(unknown_pods(&view.appwrapper)) };
        if self.snapshot.complete().is_none() {
            return OnNodes::Unknown(format!("whether it fits is not known: {} are missing", self.missing()));
        }
        let Some(verdict) = &unplaced.verdict else {
            return OnNodes::Unknown("whether it fits the nodes is not known yet".to_owned());
        };
        match verdict.outcome {
            Outcome::Fits => OnNodes::Fits,
            Outcome::Never => OnNodes::FitsNot(self.why_not(unplaced, verdict)),
            Outcome::Unproven => OnNodes::Unknown(format!(
                "whether the nodes have places for {} is not known: the search was cut short after places for {} of them were found",
                count(verdict.needed, "pod", "pods"),
                verdict.placed,
            )),
        }
    }

    /// The kinds of objects without which no fit is known.
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
            return why(StoppedBy::NoNode, format!("needs {demand}; no node takes new pods"));
        }
        // With fewer pods than all it could start, so what stops some of them need not stop it.
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
        let sentence = format!("needs {demand} in {}; the nodes have places for {placed}", count(pods, "pod", "pods"));
        why(StoppedBy::Placement, sentence)
    }

    /// The groups of pods, the largest first, by where they may go.
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

/// MCAD decides by its sum, and pods then have to find a node.
fn why_with_sum(waiting: &Waiting, nodes: OnNodes) -> Why {
    // Where the sum is not known, fit on nodes is not either, and the sentence says why.
    let Some(shortfall) = waiting.shortfall else { return why_with_queue(nodes) };
    let missing = missing(shortfall);
    let sum = (!missing.is_empty()).then(|| format!("needs {missing} more than MCAD's sum has"));
    let mut stopped_by: Vec<_> = sum.iter().map(|_| StoppedBy::McadSum).collect();
    let sentence = match (sum, nodes) {
        (None, OnNodes::Unknown(unknown)) => format!("fits MCAD's sum; {unknown}"),
        (Some(sum), OnNodes::Unknown(unknown)) => format!("{sum}; {unknown}"),
        (None, OnNodes::Fits) => "fits MCAD's sum, and the nodes".to_owned(),
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

/// A queue decides, by quotas that are not known here.
fn why_with_queue(nodes: OnNodes) -> Why {
    match nodes {
        OnNodes::FitsNot(why) => why,
        OnNodes::Fits => Why {
            sentence: "fits the nodes; whether its queue admits it is not known here".to_owned(),
            stopped_by: Vec::new(),
        },
        OnNodes::Unknown(sentence) => Why { sentence, stopped_by: Vec::new() },
    }
}

/// Why there is nothing to place.
fn unknown_pods(appwrapper: &AppWrapper) -> String {
    if appwrapper.demand.unknown_kinds.is_empty() {
        return "it asks for no pods".to_owned();
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

/// Says what of an AppWrapper is not among what was looked at.
fn with_unknown_parts(mut why: Why, appwrapper: &AppWrapper) -> Why {
    let demand = &appwrapper.demand;
    if demand.pods() > 0 && !demand.unknown_kinds.is_empty() {
        why.sentence = format!("{}; further pods may be in {}", why.sentence, unknown_kinds(appwrapper));
    }
    if demand.unreadable > 0 {
        let unreadable = count(demand.unreadable.into(), "part", "parts");
        why.sentence = format!("{}; {unreadable} of its demand can't be read", why.sentence);
    }
    why
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
