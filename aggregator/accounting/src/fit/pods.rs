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
    /// What is left of the resources that kubelet declares.
    pub(super) amounts: Amounts,
    /// The sort key of nodes. It includes devices that are available only through claims.
    pub(super) order: Left,
    /// How many more pods the node accepts.
    pub(super) pods: i128,
    /// Whether pods are nominated to the node. They count for some AppWrappers.
    pub(super) has_nominated: bool,
    pub(super) view: &'a NodeView,
    /// The node's position in the order of names.
    pub(super) name: usize,
}

/// Identical pods of the current AppWrapper.
pub(super) struct Pods<'g> {
    pub(super) group: &'g PodGroup,
    /// The nodes that they may run on.
    pub(super) selected: Rc<[bool]>,
    /// The AppWrapper they belong to. Nominated pods of the same AppWrapper are the pods that are placed here.
    pub(super) owner: &'g AppWrapperName,
}

/// GPUs, millicores, bytes.
pub(crate) type Left = (i128, i128, i128);

impl Room<'_> {
    pub(super) fn key(&self) -> (Left, usize) {
        (self.order, self.name)
    }
}

impl Pods<'_> {
    pub(super) fn count(&self) -> u64 {
        self.group.count.into()
    }

    /// The pods that are nominated to a node and that count as bound there for these pods.
    pub(super) fn preceded_by<'n>(&self, view: &'n NodeView) -> impl Iterator<Item = &'n Nominated> {
        let counts = |nominated: &&Nominated| {
            nominated.priority >= self.group.priority && nominated.owner.as_ref() != Some(self.owner)
        };
        view.room.nominated().iter().filter(counts)
    }

    /// Whether the host ports that one of them uses are free on a node.
    pub(super) fn finds_its_ports(&self, view: &NodeView) -> bool {
        let ports = &self.group.ports;
        let to_come = self.preceded_by(view).flat_map(|nominated| &nominated.ports);
        ports.is_empty() || !conflict(ports, view.room.ports().iter().chain(to_come))
    }
}

/// Whether a port of one list conflicts with a port of the other.
pub(super) fn conflict<'p>(ports: &[HostPort], mut others: impl Iterator<Item = &'p HostPort>) -> bool {
    others.any(|other| ports.iter().any(|port| port.conflicts(other)))
}

/// Whether some pods can be scheduled on the node.
pub fn takes_pods(view: &NodeView) -> bool {
    matches!(view.state, Some(NodeState::Admissible | NodeState::Tainted))
}

/// What is available to pods that tolerate the node's taints, except `pods`. Resources that have no ladder are included
/// as extended resources.
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

/// The same without devices that kubelet does not declare: they are available only through claims.
pub(super) fn declared_room(view: &NodeView) -> Amounts {
    let mut declared = room(view);
    for (resource, _) in view.rungs.iter().filter(|(resource, _)| resource.is_extended()) {
        if view.node.allocatable.get(resource).unwrap_or(0) == 0 {
            declared.add(resource, -declared.get(resource));
        }
    }
    declared
}

/// The sort key of pods and nodes.
pub fn left(amounts: &Amounts) -> Left {
    (amounts.gpus, amounts.millicores, amounts.bytes)
}

/// Whether one pod with these requests fits. This comparison comes first, because most nodes accept none and a division
/// is more expensive.
pub(super) fn takes(room: &Amounts, requests: &Amounts) -> bool {
    let enough = |room: i128, request: i128| request <= 0 || request <= room;
    enough(room.gpus, requests.gpus)
        && enough(room.millicores, requests.millicores)
        && enough(room.bytes, requests.bytes)
        && (requests.extended().iter())
            .all(|(name, request)| enough(room.get(&Resource::Extended(name.clone())), *request))
}

/// How many pods with these requests fit, regardless of the limit on `pods`.
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
