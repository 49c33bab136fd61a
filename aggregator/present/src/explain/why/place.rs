//! The nodes that pods of one kind may use, what is free there, and what is not enough for them.
use std::fmt::Write as _;
use std::rc::Rc;

use mcad_accounting::fit::{self, Choice};
use mcad_accounting::ladder::NodeState;
use mcad_accounting::object::HostPort;
use mcad_accounting::object::demand::PodGroup;
use mcad_accounting::resource::{Amounts, Resource};
use mcad_accounting::views::NodeView;

use super::super::amount::{Rounding, count, list, number, words};
use super::{StoppedBy, amounts};

/// A node that accepts pods.
pub(super) struct NodeRoom<'a> {
    view: &'a NodeView,
    /// What is free of all declared resources except `pods`.
    room: Amounts,
    /// How many more pods it can run.
    pods: i128,
}

/// The nodes that pods of one kind may use.
pub(super) struct Place {
    /// Nodes with the labels that the pods require, tainted or not.
    selected: u64,
    /// Nodes that the pods may use.
    allowed: Vec<usize>,
    /// Whether these are exactly the admissible nodes, so that their free amounts are those of the ladder.
    is_everywhere: bool,
    /// The sum of what is free on these nodes.
    free: Amounts,
    /// The most that is free on one of these nodes, for each resource.
    most: Amounts,
    /// How many more pods these nodes can run in total.
    pods: i128,
}

/// Groups of pods that may use the same nodes.
pub(super) struct Class<'a> {
    pub(super) place: Rc<Place>,
    pub(super) groups: Vec<&'a PodGroup>,
}

impl<'a> NodeRoom<'a> {
    pub(super) fn new(view: &'a NodeView) -> Self {
        Self { view, room: fit::room(view), pods: view.room.for_pods() }
    }

    /// Whether the node has all that a pod requests, except host ports.
    fn has_room_for(&self, group: &PodGroup) -> bool {
        self.pods > 0 && fit::fitting(&self.room, &group.requests) > 0
    }
}

impl Place {
    pub(super) fn new(choice: &Choice, nodes: &[NodeRoom<'_>]) -> Self {
        let selected = nodes.iter().filter(|node| choice.selects(node.view)).count() as u64;
        let allowed: Vec<usize> = (0..nodes.len()).filter(|at| choice.allows(nodes[*at].view)).collect();
        let admissible = (0..nodes.len()).filter(|at| nodes[*at].view.state == Some(NodeState::Admissible));
        let is_everywhere = admissible.eq(allowed.iter().copied());
        let (mut free, mut most, mut pods) = (Amounts::default(), Amounts::default(), 0);
        for NodeRoom { room, pods: more, .. } in allowed.iter().map(|at| &nodes[*at]) {
            free.add_times(room, 1);
            pods += more;
            for (resource, amount) in room.iter() {
                most.add(&resource, (amount - most.get(&resource)).max(0));
            }
        }
        Self { selected, allowed, is_everywhere, free, most, pods }
    }

    /// The suffix of a free amount: which nodes it is on.
    fn on_nodes(&self) -> String {
        if self.is_everywhere {
            return String::new();
        }
        format!(" on the {} its pods may use", count(self.allowed.len() as u64, "node", "nodes"))
    }
}

impl Class<'_> {
    pub(super) fn is_of(&self, place: &Rc<Place>) -> bool {
        Rc::ptr_eq(&self.place, place) || self.place.allowed == place.allowed
    }

    pub(super) fn pods(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.count)).sum()
    }

    fn total(&self) -> Amounts {
        total(self.groups.iter().copied())
    }

    /// The sentence if there is no node that the pods may use.
    pub(super) fn unusable(&self) -> Option<(Vec<StoppedBy>, String)> {
        if !self.place.allowed.is_empty() {
            return None;
        }
        let needs = amounts(&self.total());
        Some(match self.place.selected {
            0 => (
                vec![StoppedBy::Labels],
                format!("needs {needs}; no node that accepts pods matches their node selector and affinity"),
            ),
            selected => (
                vec![StoppedBy::Taints],
                format!(
                    "needs {needs}; the {} its pods' node selector and affinity {} tainted, and the pods do not tolerate the taints",
                    if selected == 1 { "node that matches".to_owned() } else { format!("{selected} nodes that match") },
                    if selected == 1 { "is" } else { "are" },
                ),
            ),
        })
    }

    /// The sentence if less is free than needed, in total or on any one node.
    pub(super) fn too_little(&self, nodes: &[NodeRoom<'_>]) -> Option<(Vec<StoppedBy>, String)> {
        let total = self.total();
        let (mut stopped_by, mut sentences) = (Vec::new(), Vec::new());
        for (resource, needed) in in_order(&total) {
            if let Some((reasons, sentence)) = self.too_little_of(&resource, needed) {
                stopped_by.extend(reasons);
                sentences.push(sentence);
            }
        }
        let pods = self.pods();
        if i128::from(pods) > self.place.pods {
            stopped_by.push(StoppedBy::Total);
            sentences.push(format!(
                "needs {}; there is room for {} more{} (resource `pods`)",
                count(pods, "pod", "pods"),
                self.place.pods,
                self.place.on_nodes(),
            ));
        }
        if sentences.is_empty() {
            return self.nowhere(nodes);
        }
        stopped_by.sort_unstable();
        stopped_by.dedup();
        Some((stopped_by, sentences.join("; ")))
    }

    /// What one pod needs and no node has free, if all pods need the same: `8 GPUs each, at most 5 free on one node`.
    pub(super) fn too_little_for_each(&self) -> Option<String> {
        let [group] = self.groups[..] else { return None };
        let on = match self.place.allowed.len() as u64 {
            _ if self.place.is_everywhere => "one node".to_owned(),
            0 => return None,
            nodes => format!("one of the {} that they may use", count(nodes, "node", "nodes")),
        };
        let lacking = in_order(&group.requests).into_iter().filter_map(|(resource, each)| {
            let most = self.place.most.get(&resource);
            let free = number(&resource, most as f64, Rounding::Down);
            let each = (each > most).then(|| words(&resource, each, Rounding::Up))?;
            Some(format!("{each} each, at most {free} free on {on}"))
        });
        let lacking: Vec<_> = lacking.collect();
        (!lacking.is_empty()).then(|| list(&lacking))
    }

    fn too_little_of(&self, resource: &Resource, needed: i128) -> Option<(Vec<StoppedBy>, String)> {
        let (free, most) = (self.place.free.get(resource), self.place.most.get(resource));
        let largest = self.groups.iter().map(|group| group.requests.get(resource)).max().unwrap_or(0);
        let (in_all, on_one) = (needed > free, largest > most);
        if !in_all && !on_one {
            return None;
        }
        let down = |amount: i128| number(resource, amount as f64, Rounding::Down);
        let needs = words(resource, needed, Rounding::Up);
        let mut sentence = format!("needs {needs}; {} free{}", down(free), self.place.on_nodes());
        if on_one && most < free {
            let but = if in_all { "" } else { "but " };
            // Writing to a String never fails.
            let _ = write!(sentence, ", {but}at most {} on one node", down(most));
            if largest != needed {
                let _ = write!(sentence, ", and one pod needs {}", number(resource, largest as f64, Rounding::Up));
            }
        }
        let reasons = [in_all.then_some(StoppedBy::Total), on_one.then_some(StoppedBy::OneNode)];
        Some((reasons.into_iter().flatten().collect(), sentence))
    }

    /// The sentence if each resource is free on some node, but not all on the same node, or not with the host ports.
    fn nowhere(&self, nodes: &[NodeRoom<'_>]) -> Option<(Vec<StoppedBy>, String)> {
        let allowed = || self.place.allowed.iter().map(|at| &nodes[*at]);
        let needs = amounts(&self.total());
        if let Some(group) = self.groups.iter().find(|group| !allowed().any(|node| node.has_room_for(group))) {
            let each = amounts(&group.requests);
            let sentence = format!("needs {needs}; one pod needs {each}, and no node has all of that free");
            return Some((vec![StoppedBy::OneNode], sentence));
        }
        for group in self.groups.iter().filter(|group| !group.ports.is_empty()) {
            let with_room = || allowed().filter(|node| node.has_room_for(group));
            let taken =
                |port: &&HostPort, node: &NodeRoom<'_>| node.view.room.ports().iter().any(|p| p.conflicts(port));
            let is_free = |node: &NodeRoom<'_>| !group.ports.iter().any(|port| taken(&port, node));
            let free = with_room().filter(|node| is_free(node)).count() as u64;
            if free >= u64::from(group.count) {
                continue;
            }
            let ports: Vec<_> = group.ports.iter().map(ToString::to_string).collect();
            let ports = super::list(&ports);
            let sentence = format!(
                "needs host port {ports} on {}, one for each pod; the port is free on {free} of the {} with room for a pod",
                count(group.count.into(), "node", "nodes"),
                count(with_room().count() as u64, "node", "nodes"),
            );
            return Some((vec![StoppedBy::HostPorts], sentence));
        }
        None
    }
}

/// The total demand of groups of pods.
pub(super) fn total<'g>(groups: impl IntoIterator<Item = &'g PodGroup>) -> Amounts {
    let mut total = Amounts::default();
    for group in groups {
        total.add_times(&group.requests, group.count.into());
    }
    total
}

/// The positive amounts, extended resources first.
pub(super) fn in_order(amounts: &Amounts) -> Vec<(Resource, i128)> {
    let mut all: Vec<_> = amounts.iter().filter(|(_, amount)| *amount > 0).collect();
    all.sort_by_key(|(resource, _)| (!resource.is_extended(), resource.clone()));
    all
}
