//! What best fit left undecided, without names: kinds of pods, nodes that can take some of them, and numbers.
//!
//! The rules by which pods share a node concern one node at a time. A placement is therefore one combination per node,
//! of how many pods of each kind it takes; the bounds and the search need to know only which combinations each node
//! has.
use std::collections::{BTreeSet, HashMap};

use super::pods::{Pods, Room, conflict};
use super::steps::{CutShort, Steps};
use crate::object::HostPort;
use crate::resource::{Amounts, Resource};

/// The maximum number of kinds: each has a bit in [`NodeCapacity::takes`].
const MOST_KINDS: usize = 64;

/// See the module's documentation.
pub(super) struct Problem {
    /// Kinds of low priority first. A node that takes pods in this order takes the most, because fewer nominated pods
    /// count for pods of high priority.
    pub(super) kinds: Vec<Kind>,
    pub(super) nodes: Vec<NodeCapacity>,
    /// The number of pods that must be placed.
    pub(super) needed: u64,
}

/// Identical pods.
#[derive(Clone)]
pub(super) struct Kind {
    pub(super) count: u32,
    /// What one pod needs of each resource that some kind needs, and 1 of `pods`.
    pub(super) requests: Box<[i128]>,
    /// The kinds, including this one, whose pods cannot be on the same node: a bit set.
    pub(super) conflicts: u64,
    pub(super) priority: i64,
}

/// A node that can take pods of some kind.
pub(super) struct NodeCapacity {
    /// What is left of each of those resources.
    pub(super) room: Box<[i128]>,
    /// The kinds that it can take a pod of: a bit set.
    pub(super) takes: u64,
    /// For each kind, what the nominated pods need that count as bound for it. Empty if there are none.
    pub(super) preceded: Box<[Box<[i128]>]>,
}

impl Problem {
    /// The problem for these groups of pods and these nodes.
    pub(super) fn new(pods: &[Pods<'_>], rooms: &[Room<'_>], needed: u64, steps: &mut Steps) -> Result<Self, CutShort> {
        let mut distinct = distinct(pods);
        if distinct.len() > MOST_KINDS {
            return Err(CutShort);
        }
        distinct.sort_by_key(|(pods, _)| pods.group.priority);
        let amounts = distinct.iter().flat_map(|(pods, _)| pods.group.requests.iter());
        let resources: BTreeSet<Resource> =
            amounts.filter(|(_, amount)| *amount > 0).map(|(resource, _)| resource).collect();
        let row = |amounts: &Amounts, pods: i128| {
            resources.iter().map(|resource| amounts.get(resource)).chain([pods]).collect::<Box<[i128]>>()
        };
        let kind = |(pods, count): &(&Pods<'_>, u64)| Kind {
            count: u32::try_from(*count).unwrap_or(u32::MAX),
            requests: row(&pods.group.requests, 1),
            conflicts: bits(distinct.iter().map(|(other, _)| conflict(&pods.group.ports, other.group.ports.iter()))),
            priority: pods.group.priority,
        };
        let kinds: Vec<Kind> = distinct.iter().map(kind).collect();
        let mut nodes = Vec::new();
        for (at, room) in rooms.iter().enumerate() {
            steps.go(kinds.len())?;
            if !distinct.iter().any(|(pods, _)| pods.selected[at]) {
                continue;
            }
            let has_nominated = !room.view.room.nominated().is_empty();
            let preceded = |(pods, _): &(&Pods<'_>, u64)| {
                let (mut sum, mut count) = (Amounts::default(), 0);
                for nominated in pods.preceded_by(room.view) {
                    sum.add_times(&nominated.needs(), 1);
                    count += 1;
                }
                row(&sum, count)
            };
            let preceded = if has_nominated { distinct.iter().map(preceded).collect() } else { Box::default() };
            let mut node = NodeCapacity { room: row(&room.amounts, room.pods), takes: 0, preceded };
            let takes = |(kind, (pods, _)): (usize, &(&Pods<'_>, u64))| {
                pods.selected[at] && node.has_room_for(kind, &kinds[kind]) && pods.finds_its_ports(room.view)
            };
            node.takes = bits(distinct.iter().enumerate().map(takes));
            if node.takes != 0 {
                nodes.push(node);
            }
        }
        Ok(Self { kinds, nodes, needed })
    }

    /// The number of all pods.
    pub(super) fn pods(&self) -> u64 {
        self.kinds.iter().map(|kind| u64::from(kind.count)).sum()
    }

    /// Splits the problem: kinds that share no node are decided separately, if all pods are needed.
    pub(super) fn parts(&self) -> Vec<Self> {
        let mut masks: Vec<u64> = (0..self.kinds.len()).map(|kind| 1 << kind).collect();
        if self.needed < self.pods() {
            masks = vec![masks.iter().sum()];
        }
        for node in &self.nodes {
            let (touched, mut rest): (Vec<u64>, Vec<u64>) = masks.iter().partition(|mask| **mask & node.takes != 0);
            rest.push(touched.into_iter().fold(0, |all, mask| all | mask));
            masks = rest;
        }
        masks.into_iter().filter(|mask| *mask != 0).map(|mask| self.part(mask)).collect()
    }

    fn part(&self, mask: u64) -> Self {
        let chosen: Vec<usize> = (0..self.kinds.len()).filter(|kind| mask >> kind & 1 == 1).collect();
        let narrow = |wide: u64| bits(chosen.iter().map(|kind| wide >> kind & 1 == 1));
        let kind = |kind: &usize| Kind { conflicts: narrow(self.kinds[*kind].conflicts), ..self.kinds[*kind].clone() };
        let kinds: Vec<Kind> = chosen.iter().map(kind).collect();
        let nodes = self.nodes.iter().filter(|node| node.takes & mask != 0).map(|node| NodeCapacity {
            room: node.room.clone(),
            takes: narrow(node.takes),
            preceded: chosen.iter().filter_map(|kind| node.preceded.get(*kind).cloned()).collect(),
        });
        let nodes = nodes.collect();
        let pods: u64 = kinds.iter().map(|kind| u64::from(kind.count)).sum();
        Self { kinds, nodes, needed: self.needed.min(pods) }
    }
}

impl NodeCapacity {
    pub(super) fn takes(&self, kind: usize) -> bool {
        self.takes >> kind & 1 == 1
    }

    /// Whether one pod of a kind fits there if no other is placed.
    fn has_room_for(&self, at: usize, kind: &Kind) -> bool {
        let preceded = |resource: usize| self.preceded.get(at).map_or(0, |preceded| preceded[resource]);
        let mut requests = kind.requests.iter().enumerate();
        requests.all(|(resource, request)| {
            *request <= 0 || request.saturating_add(preceded(resource)) <= self.room[resource]
        })
    }
}

/// Each kind of pods once, in order, and its number of pods.
fn distinct<'p, 'g>(pods: &'p [Pods<'g>]) -> Vec<(&'p Pods<'g>, u64)> {
    let mut distinct: Vec<(&Pods<'_>, u64)> = Vec::new();
    let mut known: HashMap<(&Amounts, &[HostPort], i64, *const bool), usize> = HashMap::new();
    for pods in pods {
        let group = pods.group;
        let key = (&group.requests, &*group.ports, group.priority, pods.selected.as_ptr());
        let at = *known.entry(key).or_insert_with(|| {
            distinct.push((pods, 0));
            distinct.len() - 1
        });
        distinct[at].1 += pods.count();
    }
    distinct
}

fn bits(set: impl Iterator<Item = bool>) -> u64 {
    set.enumerate().fold(0, |bits, (at, is_set)| bits | u64::from(is_set) << at)
}
