//! Why an AppWrapper waits, in a sentence: which constraint stops it, where that can be said honestly.
//!
//! Whether it fits is [`crate::fit`]'s verdict, from this snapshot or one a few seconds older. Here a verdict that it does
//! not is traced to conditions that no placement could meet: more in all than there is, more in one pod than on any node,
//! no node that may be used. Where none of them holds, the pieces do not go together, and the count of pods placed says so.
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::rc::Rc;

use serde::Serialize;

use super::amount::{Rounding, count, list, number, words};
use crate::demand::PodGroup;
use crate::fit::{self, Choice, Verdict};
use crate::ladder::NodeState;
use crate::object::{AppWrapper, Version};
use crate::resource::{Amounts, Resource, Triple};
use crate::snapshot::{Snapshot, Waiting};
use crate::views::NodeView;

/// What keeps an AppWrapper from starting.
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
    nodes: Vec<(&'a NodeView, Amounts)>,
    known: HashMap<Choice, Rc<Place>>,
}

/// Where pods of one kind may go.
struct Place {
    /// Nodes with the labels that they demand, tainted or not.
    selected: u64,
    /// Those of them that they may use.
    allowed: Vec<usize>,
    /// These are the admissible nodes, exactly: what is free there is what the ladder calls free.
    is_everywhere: bool,
    /// What is free there in all.
    free: Amounts,
    /// The most that is free on one of them, resource by resource.
    most: Amounts,
}

/// Groups of pods that may go to the same nodes.
struct Class<'a> {
    place: Rc<Place>,
    groups: Vec<&'a PodGroup>,
}

impl<'a> Places<'a> {
    /// Of the nodes of a snapshot.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let nodes = snapshot.nodes.iter().flat_map(|nodes| &nodes.nodes).filter(|view| fit::takes_pods(view));
        Self { snapshot, nodes: nodes.map(|view| (&**view, fit::room(view))).collect(), known: HashMap::new() }
    }

    /// Why this one waits.
    pub fn why(&mut self, appwrapper: &AppWrapper, waiting: &Waiting) -> Why {
        let mut why = match appwrapper.version {
            Version::V1Beta1 => self.why_with_sum(appwrapper, waiting),
            Version::V1Beta2 => self.why_with_queue(appwrapper, waiting),
        };
        if appwrapper.demand.unreadable > 0 {
            let unreadable = count(appwrapper.demand.unreadable.into(), "part", "parts");
            why.sentence = format!("{}; {unreadable} of its demand can't be read", why.sentence);
        }
        why
    }

    /// MCAD decides by its sum, and pods then have to find a node.
    fn why_with_sum(&mut self, appwrapper: &AppWrapper, waiting: &Waiting) -> Why {
        let nodes = waiting.nodes.as_ref().map(|verdict| self.nodes(appwrapper, verdict));
        let missing = missing(waiting.shortfall);
        let sum = (!missing.is_empty()).then(|| format!("needs {missing} more than MCAD's sum has"));
        let stopped_by = sum.iter().map(|_| StoppedBy::McadSum);
        let stopped_by = stopped_by.chain(nodes.iter().flatten().flat_map(|why| why.stopped_by.clone())).collect();
        let sentence = match (sum, nodes) {
            (None, None) => "fits MCAD's sum; whether it fits the nodes is not known yet".to_owned(),
            (Some(sum), None) => format!("{sum}; whether it fits the nodes is not known yet"),
            (None, Some(None)) => "fits MCAD's sum, and the nodes".to_owned(),
            (Some(sum), Some(None)) => format!("{sum}; it fits the nodes"),
            (None, Some(Some(why))) => format!("{}; it fits MCAD's sum", why.sentence),
            (Some(sum), Some(Some(why))) => format!("{sum}; on the nodes: {}", why.sentence),
        };
        Why { sentence, stopped_by }
    }

    /// A queue decides, by quotas that are not known here.
    fn why_with_queue(&mut self, appwrapper: &AppWrapper, waiting: &Waiting) -> Why {
        match waiting.nodes.as_ref().map(|verdict| self.nodes(appwrapper, verdict)) {
            Some(Some(why)) => why,
            Some(None) => Why {
                sentence: "fits the nodes; whether its queue admits it is not known here".to_owned(),
                stopped_by: Vec::new(),
            },
            None => Why { sentence: "whether it fits the nodes is not known yet".to_owned(), stopped_by: Vec::new() },
        }
    }

    /// Why it does not fit the nodes; nothing where it does.
    fn nodes(&mut self, appwrapper: &AppWrapper, verdict: &Verdict) -> Option<Why> {
        if verdict.fits() {
            return None;
        }
        let why = |stopped_by, sentence| Some(Why { sentence, stopped_by: vec![stopped_by] });
        if self.nodes.is_empty() {
            return why(StoppedBy::NoNode, format!("needs {}; no node takes new pods", demand(appwrapper)));
        }
        // With fewer pods than all it could start, so what stops some of them need not stop it.
        let pods = appwrapper.demand.pods();
        if verdict.needed != pods {
            let (needed, placed) = (count(verdict.needed, "pod", "pods"), verdict.placed);
            let sentence = format!("needs places for {needed} of {pods}; the nodes have {placed}");
            return why(StoppedBy::Placement, sentence);
        }
        for class in self.classes(appwrapper) {
            let whose =
                if class.pods() == pods { String::new() } else { format!("for {} of its pods it ", class.pods()) };
            if let Some((stopped_by, sentence)) = class.unusable().or_else(|| class.too_little(&self.nodes)) {
                return Some(Why { sentence: format!("{whose}{sentence}"), stopped_by });
            }
        }
        let placed = verdict.placed;
        let sentence = format!(
            "needs {} in {}; the nodes have places for {placed}",
            demand(appwrapper),
            count(pods, "pod", "pods")
        );
        why(StoppedBy::Placement, sentence)
    }

    /// The groups of an AppWrapper, the largest first, by where they may go.
    fn classes<'b>(&mut self, appwrapper: &'b AppWrapper) -> Vec<Class<'b>> {
        let mut groups: Vec<&PodGroup> = appwrapper.demand.groups.iter().filter(|group| group.count > 0).collect();
        groups.sort_by_key(|group| Reverse(fit::left(&group.requests)));
        let mut classes: Vec<Class<'b>> = Vec::new();
        for group in groups {
            let place = self.place(group);
            match classes
                .iter_mut()
                .find(|class| Rc::ptr_eq(&class.place, &place) || class.place.allowed == place.allowed)
            {
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

impl Place {
    fn new(choice: &Choice, nodes: &[(&NodeView, Amounts)]) -> Self {
        let selected = nodes.iter().filter(|(view, _)| choice.selects(view)).count() as u64;
        let allowed: Vec<usize> = (0..nodes.len()).filter(|at| choice.allows(nodes[*at].0)).collect();
        let admissible = (0..nodes.len()).filter(|at| nodes[*at].0.state == NodeState::Admissible);
        let is_everywhere = admissible.eq(allowed.iter().copied());
        let (mut free, mut most) = (Amounts::default(), Amounts::default());
        for (_, room) in allowed.iter().map(|at| &nodes[*at]) {
            free.add_times(room, 1);
            for (resource, amount) in room.iter() {
                most.add(&resource, (amount - most.get(&resource)).max(0));
            }
        }
        Self { selected, allowed, is_everywhere, free, most }
    }
}

impl Class<'_> {
    fn pods(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.count)).sum()
    }

    fn total(&self) -> Amounts {
        let mut total = Amounts::default();
        for group in &self.groups {
            total.add_times(&group.requests, group.count.into());
        }
        total
    }

    /// There is no node that its pods may use.
    fn unusable(&self) -> Option<(Vec<StoppedBy>, String)> {
        if !self.place.allowed.is_empty() {
            return None;
        }
        let needs = amounts(&self.total());
        Some(match self.place.selected {
            0 => (
                vec![StoppedBy::Labels],
                format!(
                    "needs {needs}; no node that takes pods is one that they are meant for (node selector, affinity)"
                ),
            ),
            selected => (
                vec![StoppedBy::Taints],
                format!(
                    "needs {needs}; the {} that its pods are meant for {} tainted, which they do not tolerate",
                    if selected == 1 { "node".to_owned() } else { format!("{selected} nodes") },
                    if selected == 1 { "is" } else { "are" },
                ),
            ),
        })
    }

    /// There is less than it needs, in all or on any one node.
    fn too_little(&self, nodes: &[(&NodeView, Amounts)]) -> Option<(Vec<StoppedBy>, String)> {
        let Place { free, most, allowed, is_everywhere, .. } = &*self.place;
        let total = self.total();
        let mut stopped_by = Vec::new();
        let mut sentences = Vec::new();
        for (resource, needed) in in_order(&total) {
            let (free, most) = (free.get(&resource), most.get(&resource));
            let largest = self.groups.iter().map(|group| group.requests.get(&resource)).max().unwrap_or(0);
            let (in_all, on_one) = (needed > free, largest > most);
            stopped_by.extend(in_all.then_some(StoppedBy::Total));
            stopped_by.extend(on_one.then_some(StoppedBy::OneNode));
            if !in_all && !on_one {
                continue;
            }
            let down = |amount: i128| number(&resource, amount as f64, Rounding::Down);
            // Writing to a String has no error.
            let mut sentence = format!("needs {}; {} free", words(&resource, needed, Rounding::Up), down(free));
            if !is_everywhere {
                let _ = write!(sentence, " on the {} its pods may use", count(allowed.len() as u64, "node", "nodes"));
            }
            if on_one && most < free {
                let but = if in_all { "" } else { "but " };
                let _ = write!(sentence, ", {but}at most {} on one node", down(most));
                if largest != needed {
                    let _ = write!(sentence, ", and one pod needs {}", number(&resource, largest as f64, Rounding::Up));
                }
            }
            sentences.push(sentence);
        }
        if sentences.is_empty() {
            // Each is there on some node, but not all on the same.
            let nowhere =
                |group: &&&PodGroup| allowed.iter().all(|at| fit::fitting(&nodes[*at].1, &group.requests) == 0);
            let group = self.groups.iter().find(nowhere)?;
            let each = amounts(&group.requests);
            let sentence = format!("needs {}; one pod needs {each}, and no node has all of that free", amounts(&total));
            return Some((vec![StoppedBy::OneNode], sentence));
        }
        stopped_by.sort_unstable();
        stopped_by.dedup();
        Some((stopped_by, sentences.join("; ")))
    }
}

/// Scarce things first.
fn in_order(amounts: &Amounts) -> Vec<(Resource, i128)> {
    let mut all: Vec<_> = amounts.iter().filter(|(_, amount)| *amount > 0).collect();
    all.sort_by_key(|(resource, _)| (!resource.is_extended(), resource.clone()));
    all
}

fn amounts(amounts: &Amounts) -> String {
    let all: Vec<_> =
        in_order(amounts).iter().map(|(resource, amount)| words(resource, *amount, Rounding::Up)).collect();
    if all.is_empty() { "nothing".to_owned() } else { list(&all) }
}

fn demand(appwrapper: &AppWrapper) -> String {
    amounts(&appwrapper.demand.total)
}

fn missing(shortfall: Triple) -> String {
    let shortfall = Amounts::from(shortfall);
    if in_order(&shortfall).is_empty() { String::new() } else { amounts(&shortfall) }
}
