//! Identical pods of one AppWrapper, and what is left for them on one node.
use std::rc::Rc;

use crate::cluster::room::Nominated;
use crate::ladder::{NodeState, Reason};
use crate::object::demand::PodGroup;
use crate::object::{AppWrapperName, HostPort};
use crate::resource::{Amounts, Resource};
use crate::views::NodeView;

/// What is left on one node.
pub(super) struct Room<'a> {
    pub(super) amounts: Amounts,
    /// How many pods more.
    pub(super) pods: i128,
    /// Pods that are to come there count for some AppWrappers.
    pub(super) has_nominated: bool,
    pub(super) view: &'a NodeView,
    /// The node's place in the order of names.
    pub(super) name: usize,
}

/// Identical pods of the AppWrapper at hand.
pub(super) struct Pods<'g> {
    pub(super) group: &'g PodGroup,
    /// Where they may go.
    pub(super) selected: Rc<[bool]>,
    /// Whose they are: what is to come of the same AppWrapper is what is placed here.
    pub(super) owner: &'g AppWrapperName,
}

/// GPUs, millicores, bytes.
pub(crate) type Left = (i128, i128, i128);

impl Room<'_> {
    pub(super) fn key(&self) -> (Left, usize) {
        (left(&self.amounts), self.name)
    }
}

impl Pods<'_> {
    pub(super) fn count(&self) -> u64 {
        self.group.count.into()
    }

    /// Pods that are to come to a node, and count as bound there for these.
    pub(super) fn preceded_by<'n>(&self, view: &'n NodeView) -> impl Iterator<Item = &'n Nominated> {
        let counts = |nominated: &&Nominated| {
            nominated.priority >= self.group.priority && nominated.owner.as_ref() != Some(self.owner)
        };
        view.room.nominated().iter().filter(counts)
    }

    /// Whether the ports that one of them takes are free on a node.
    pub(super) fn finds_its_ports(&self, view: &NodeView) -> bool {
        let ports = &self.group.ports;
        let to_come = self.preceded_by(view).flat_map(|nominated| &nominated.ports);
        ports.is_empty() || !conflict(ports, view.room.ports().iter().chain(to_come))
    }
}

/// Whether some port of the one is also one of the other.
pub(super) fn conflict<'p>(ports: &[HostPort], mut others: impl Iterator<Item = &'p HostPort>) -> bool {
    others.any(|other| ports.iter().any(|port| port.conflicts(other)))
}

/// Whether some pods may land there.
pub fn takes_pods(view: &NodeView) -> bool {
    matches!(view.state, NodeState::Admissible | NodeState::Tainted)
}

/// What pods that pass the node's taints could get there, `pods` apart. Resources without a ladder are among the extended ones.
pub fn room(view: &NodeView) -> Amounts {
    let mut room = Amounts::default();
    for (resource, rung) in &view.rungs {
        if let Some(account) = &rung.account {
            room.add(resource, account.free + account.withheld.get(Reason::Tainted));
        }
    }
    for (name, amount) in view.room.others() {
        room.add(&Resource::Extended(name.clone()), amount);
    }
    room
}

/// By what pods and nodes are ordered.
pub fn left(amounts: &Amounts) -> Left {
    (amounts.gpus, amounts.millicores, amounts.bytes)
}

/// Whether one pod of these requests fits: compared first, because most nodes take none, and dividing costs more.
pub(super) fn takes(room: &Amounts, requests: &Amounts) -> bool {
    let enough = |room: i128, request: i128| request <= 0 || request <= room;
    enough(room.gpus, requests.gpus)
        && enough(room.millicores, requests.millicores)
        && enough(room.bytes, requests.bytes)
        && (requests.extended().iter())
            .all(|(name, request)| enough(room.get(&Resource::Extended(name.clone())), *request))
}

/// How many pods of these requests fit, as far as `pods` allows.
pub fn fitting(room: &Amounts, requests: &Amounts) -> u64 {
    let of = |room: i128, request: i128| if request > 0 { (room / request).max(0) } else { i128::MAX };
    let mut pods =
        of(room.gpus, requests.gpus).min(of(room.millicores, requests.millicores)).min(of(room.bytes, requests.bytes));
    for (name, request) in requests.extended() {
        pods = pods.min(of(room.get(&Resource::Extended(name.clone())), *request));
    }
    whole(pods)
}

pub(super) fn whole(pods: i128) -> u64 {
    u64::try_from(pods.max(0)).unwrap_or(u64::MAX)
}
