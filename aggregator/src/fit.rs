//! Whether a waiting AppWrapper would fit on real nodes (docs/accounting.md §5).
//!
//! Pure, from a snapshot alone, so that it can be worked out elsewhere and later; the answer says only what it is about.
//! Alike pods fill a node at once: that is what placing them one by one comes to, because a node that takes one has less
//! left than before, and so stays the first choice for the next.
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use crate::demand::PodGroup;
use crate::ladder::{NodeState, Reason};
use crate::object::{AppWrapper, AppWrapperName, Constraints};
use crate::resource::{Amounts, Resource};
use crate::snapshot::{NodeView, Snapshot};

/// What became of the attempt to place one AppWrapper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Pods that must be placed.
    pub needed: u64,
    /// Pods that could be placed.
    pub placed: u64,
}

impl Verdict {
    /// It fits.
    pub fn fits(&self) -> bool {
        self.placed >= self.needed
    }
}

/// Verdicts on all waiting AppWrappers of one snapshot, each as if it were the only one.
pub type Fits = BTreeMap<AppWrapperName, Verdict>;

/// Works out the verdicts of a snapshot; none where nodes or AppWrappers are not known.
pub fn fits(snapshot: &Snapshot) -> Fits {
    let (Some(nodes), Some(appwrappers)) = (&snapshot.nodes, &snapshot.appwrappers) else { return Fits::new() };
    let mut rooms = Rooms::new(nodes.nodes.iter(), |key| snapshot.options.tolerated.contains(key));
    let waiting = appwrappers.appwrappers.iter().filter(|view| view.waiting.is_some());
    waiting.map(|view| (view.appwrapper.name.clone(), rooms.place(&view.appwrapper))).collect()
}

/// The nodes that may take pods, and what is left on each.
struct Rooms<'a, T> {
    /// In order of name; what is known of a node is known by its place here.
    nodes: Vec<(&'a NodeView, Amounts)>,
    /// Places, those with least left first.
    order: Vec<usize>,
    tolerated: T,
    /// Where pods may go, for each kind of demand on nodes that was met so far.
    selected: HashMap<Choice, Rc<[bool]>>,
    /// Whether a place is in use by the AppWrapper at hand.
    touched: Vec<bool>,
}

/// What decides where a pod may go, amounts apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Choice {
    constraints: Arc<Constraints>,
    /// Resources whose own taint it passes.
    extended: Vec<Resource>,
}

/// GPUs, millicores, bytes.
pub(crate) type Left = (i128, i128, i128);

impl<'a, T: Fn(&str) -> bool> Rooms<'a, T> {
    fn new(nodes: impl Iterator<Item = &'a NodeView>, tolerated: T) -> Self {
        let nodes: Vec<_> = nodes.filter(|view| takes_pods(view)).map(|view| (view, room(view))).collect();
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by_key(|&at| (left(&nodes[at].1), at));
        let touched = vec![false; nodes.len()];
        Self { nodes, order, tolerated, selected: HashMap::new(), touched }
    }

    fn place(&mut self, appwrapper: &AppWrapper) -> Verdict {
        let demand = &appwrapper.demand;
        let needed = appwrapper.min_available.map_or_else(|| demand.pods(), u64::from);
        let mut groups: Vec<&PodGroup> = demand.groups.iter().filter(|group| group.count > 0).collect();
        groups.sort_by_key(|group| Reverse(left(&group.requests)));
        // What is left on the nodes that have taken pods of this AppWrapper.
        let mut taken: BTreeMap<(Left, usize), Amounts> = BTreeMap::new();
        let placed = groups.into_iter().map(|group| self.place_group(group, &mut taken)).sum();
        for (_, at) in taken.into_keys() {
            self.touched[at] = false;
        }
        Verdict { needed, placed }
    }

    /// Places as many pods of a group as fit, and says how many.
    fn place_group(&mut self, group: &PodGroup, taken: &mut BTreeMap<(Left, usize), Amounts>) -> u64 {
        let selected = self.selected(group);
        let requests = &group.requests;
        let mut wanting = u64::from(group.count);
        let mut moves = Vec::new();
        // Nodes with too few GPUs come first in the order: none of them fits.
        let start = self.order.partition_point(|&at| self.nodes[at].1.gpus < requests.gpus);
        let mut untouched = self.order[start..].iter().copied().filter(|&at| !self.touched[at]).peekable();
        let mut reused = taken.iter().peekable();
        while wanting > 0 {
            let next = untouched.peek().map(|&at| (left(&self.nodes[at].1), at));
            let again = reused.peek().map(|(key, _)| **key);
            let (key, room) = match (next, again) {
                (Some(next), Some(again)) if again < next => (again, reused.next().map(|(_, room)| room)),
                (None, Some(again)) => (again, reused.next().map(|(_, room)| room)),
                (Some(next), _) => (next, untouched.next().map(|at| &self.nodes[at].1)),
                (None, None) => break,
            };
            let Some(room) = room.filter(|_| selected[key.1]) else { continue };
            let taking = fitting(room, requests).min(wanting);
            if taking > 0 {
                let mut rest = room.clone();
                rest.add_times(requests, -i128::from(taking));
                moves.push((key, rest));
                wanting -= taking;
            }
        }
        for ((before, at), rest) in moves {
            taken.remove(&(before, at));
            taken.insert((left(&rest), at), rest);
            self.touched[at] = true;
        }
        u64::from(group.count) - wanting
    }

    fn selected(&mut self, group: &PodGroup) -> Rc<[bool]> {
        let choice = Choice::of(group, &self.tolerated);
        if let Some(selected) = self.selected.get(&choice) {
            return selected.clone();
        }
        let selected: Rc<[bool]> = self.nodes.iter().map(|(view, _)| choice.allows(view)).collect();
        self.selected.insert(choice, selected.clone());
        selected
    }
}

impl Choice {
    /// What a group's pods demand, given the taint keys that may name a resource.
    pub(crate) fn of(group: &PodGroup, tolerated: impl Fn(&str) -> bool) -> Self {
        let requested = group.requests.iter().filter(|(resource, amount)| resource.is_extended() && *amount > 0);
        let extended = requested.map(|(resource, _)| resource).filter(|r| tolerated(r.name())).collect();
        Self { constraints: group.constraints.clone(), extended }
    }

    /// Whether the pods may go there.
    pub(crate) fn allows(&self, view: &NodeView) -> bool {
        self.selects(view) && self.passes(view)
    }

    /// Whether the node's labels and name are as the pods demand.
    pub(crate) fn selects(&self, view: &NodeView) -> bool {
        self.constraints.select(&view.node)
    }

    /// Whether no taint of the node keeps the pods off.
    fn passes(&self, view: &NodeView) -> bool {
        let passes = |key: &str| self.extended.iter().any(|resource| resource.name() == key);
        let mut repelling = view.node.taints.iter().filter(|taint| taint.effect.repels());
        repelling.all(|taint| self.constraints.tolerates(taint) || passes(&taint.key))
    }
}

/// Whether some pods may land there.
pub(crate) fn takes_pods(view: &NodeView) -> bool {
    matches!(view.state, NodeState::Admissible | NodeState::Tainted)
}

/// What a pod that passes the node's taints could get there.
pub(crate) fn room(view: &NodeView) -> Amounts {
    let mut room = Amounts::default();
    for (resource, rung) in &view.rungs {
        room.add(resource, rung.free + rung.withheld.get(Reason::Tainted));
    }
    room
}

/// By what pods and nodes are ordered.
pub(crate) fn left(amounts: &Amounts) -> Left {
    (amounts.gpus, amounts.millicores, amounts.bytes)
}

/// How many pods of these requests fit.
pub(crate) fn fitting(room: &Amounts, requests: &Amounts) -> u64 {
    let of = |room: i128, request: i128| if request > 0 { (room / request).max(0) } else { i128::MAX };
    let mut pods =
        of(room.gpus, requests.gpus).min(of(room.millicores, requests.millicores)).min(of(room.bytes, requests.bytes));
    for (name, request) in requests.extended() {
        pods = pods.min(of(room.get(&Resource::Extended(name.clone())), *request));
    }
    u64::try_from(pods).unwrap_or(u64::MAX)
}
