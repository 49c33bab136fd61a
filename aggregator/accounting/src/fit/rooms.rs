//! The nodes that may take pods, what is left on each, and best fit on them.
//!
//! Identical pods fill a node at once. The result is the same as placing them one by one, because a node that takes a
//! pod has less left than before and therefore stays the first choice for the next pod.
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::choice::Choice;
use super::columns::Columns;
use super::pods::{Left, Pods, Room, conflict, declared_room, fitting, left, room, takes, takes_pods, whole};
use super::settle::settle;
use super::steps::Steps;
use crate::object::demand::PodGroup;
use crate::object::{AppWrapperName, Constraints, HostPort};
use crate::options::tolerated::Tolerated;
use crate::resource::Amounts;
use crate::snapshot::Unplaced;
use crate::snapshot::verdict::{Outcome, Verdict};
use crate::views::NodeView;

/// See the module's documentation.
pub(super) struct Rooms<'a> {
    /// The nodes with least left first, then by name; what is left includes devices that are available only through
    /// claims. A node's position in this list identifies it.
    by_room: Vec<Room<'a>>,
    columns: Columns<'a>,
    tolerated: &'a Tolerated,
    /// The nodes that pods may run on, for each set of constraints so far.
    selected: HashMap<Choice, Rc<[bool]>>,
    /// Whether the current AppWrapper uses a node, by position.
    touched: Vec<bool>,
    /// How many pods best fit placed last on which node, by position. `None` if nobody wants to know.
    pub(super) placed: Option<Vec<(usize, u64)>>,
}

/// How many bytes of text are hashed in the time that examining a node takes.
const BYTES_PER_LOOK: u64 = 16;

/// What the placed pods of the current AppWrapper have taken.
#[derive(Default)]
pub(super) struct Taken<'g> {
    /// What is left on their nodes, by sort key.
    rooms: BTreeMap<(Left, usize), TakenRoom>,
    /// Host ports, by node position.
    pub(super) ports: Vec<(usize, &'g [HostPort])>,
}

struct TakenRoom {
    place: usize,
    amounts: Amounts,
    pods: i128,
    /// What is left for the sort key of nodes.
    order: Left,
}

/// Pods that go to one node.
struct Move {
    place: usize,
    /// What was left there, if the node already took pods.
    before: Option<(Left, usize)>,
    pods: u64,
}

impl<'a> Rooms<'a> {
    pub(super) fn new(nodes: impl Iterator<Item = &'a NodeView>, tolerated: &'a Tolerated) -> Self {
        let room = |(name, view): (usize, &'a NodeView)| Room {
            amounts: declared_room(view),
            order: left(&room(view)),
            pods: view.room.for_pods(),
            has_nominated: !view.room.nominated().is_empty(),
            view,
            name,
        };
        let mut by_room: Vec<_> = nodes.filter(|view| takes_pods(view)).enumerate().map(room).collect();
        by_room.sort_by_key(Room::key);
        let columns = Columns::new(by_room.iter().map(|room| &*room.view.node).collect());
        let touched = vec![false; by_room.len()];
        Self { by_room, columns, tolerated, selected: HashMap::new(), touched, placed: None }
    }

    /// Tries to place the pods of an AppWrapper that need a node.
    pub(super) fn place(&mut self, owner: &AppWrapperName, unplaced: &Unplaced, steps: &mut Steps) -> Verdict {
        if !self.affords(&unplaced.groups, steps) {
            let outcome = Outcome::Unproven;
            return Verdict { part: unplaced.part, needed: unplaced.needed, placed: 0, outcome, about: None };
        }
        let groups = unplaced.groups.iter().filter(|group| group.count > 0);
        let mut pods: Vec<Pods<'_>> =
            groups.map(|group| Pods { group, selected: self.selected(group), owner }).collect();
        pods.sort_by_key(|pods| Reverse(left(&pods.group.requests)));
        let (outcome, placed) = self.settle(&pods, unplaced.needed, steps);
        Verdict { part: unplaced.part, needed: unplaced.needed, placed, outcome, about: None }
    }

    /// Whether the limit allows as many examined nodes as these groups need.
    pub(super) fn affords(&self, groups: &[PodGroup], steps: &mut Steps) -> bool {
        steps.affords(self.looks(groups))
    }

    /// The number of nodes that may take pods. Positions are below this number.
    pub(super) fn count(&self) -> usize {
        self.by_room.len()
    }

    /// Whether pods are nominated to any node. They count for some AppWrappers.
    pub(super) fn have_nominated(&self) -> bool {
        self.by_room.iter().any(|room| room.has_nominated)
    }

    /// The node at a position.
    pub(super) fn view(&self, place: usize) -> &'a NodeView {
        self.by_room[place].view
    }

    /// The sort key of the node at a position if no pod is placed.
    pub(super) fn key(&self, place: usize) -> (Left, usize) {
        self.by_room[place].key()
    }

    /// What is left on the node at a position if no pod is placed: amounts, pods, and the sort key.
    pub(super) fn room_at(&self, place: usize) -> (&Amounts, i128, Left) {
        let room = &self.by_room[place];
        (&room.amounts, room.pods, room.order)
    }

    /// The maximum number of times that nodes are examined for these groups: all nodes once for each group and once for
    /// each of its constraints. Includes the time to hash the constraints of each group.
    fn looks(&self, groups: &[PodGroup]) -> u64 {
        let nodes = self.by_room.len() as u64;
        let mut known: HashMap<*const Constraints, u64> = HashMap::new();
        let of_group = |group: &PodGroup| {
            let mut looks = nodes;
            let constraints = &group.constraints;
            let hashed = *known.entry(Arc::as_ptr(constraints)).or_insert_with(|| {
                let (conditions, values) = constraints.size();
                looks += nodes * (conditions + values) as u64;
                constraints.text_bytes() as u64 / BYTES_PER_LOOK
            });
            looks + hashed
        };
        groups.iter().map(of_group).sum()
    }

    pub(super) fn settle(&mut self, pods: &[Pods<'_>], needed: u64, steps: &mut Steps) -> (Outcome, u64) {
        let placed_of = self.best_fit(pods);
        let placed = placed_of.iter().sum();
        if placed >= needed {
            return (Outcome::Fits, placed);
        }
        // How many pods could be placed if each group were alone. For the first group, that is what best fit found.
        let mut at_most: u64 = pods.iter().map(Pods::count).sum();
        for (at, (pods, placed)) in pods.iter().zip(&placed_of).enumerate() {
            if *placed == pods.count() {
                continue;
            }
            let alone = if at == 0 { *placed } else { self.place_group(pods, &Taken::default()).0 };
            at_most -= pods.count() - alone;
            if at_most < needed {
                return (Outcome::Never, placed_of.iter().sum());
            }
        }
        let (outcome, found) = settle(pods, &self.by_room, needed, steps);
        (outcome, found.max(placed))
    }

    /// How many pods of each group best fit places, the largest pods first.
    fn best_fit(&mut self, pods: &[Pods<'_>]) -> Vec<u64> {
        let mut taken = Taken::default();
        let mut placed_of = Vec::with_capacity(pods.len());
        if let Some(places) = &mut self.placed {
            places.clear();
        }
        for (at, pods_of_one) in pods.iter().enumerate() {
            let (placed, moves) = self.place_group(pods_of_one, &taken);
            placed_of.push(placed);
            if let Some(places) = &mut self.placed {
                places.extend(moves.iter().map(|to| (to.place, to.pods)));
            }
            // What the last group leaves is not needed any more.
            if at + 1 < pods.len() {
                self.note(pods_of_one.group, moves, &mut taken);
            }
        }
        for room in taken.rooms.into_values() {
            self.touched[room.place] = false;
        }
        placed_of
    }

    /// Places as many pods of a group as fit. Returns their number, and how many go to each node.
    fn place_group(&self, pods: &Pods<'_>, taken: &Taken<'_>) -> (u64, Vec<Move>) {
        let mut wanting = pods.count();
        let mut moves = Vec::new();
        // Nodes with too few GPUs come first in the order; the group fits on none of them.
        let gpus = pods.group.requests.gpus;
        let start = self.by_room.partition_point(|room| room.order.0 < gpus);
        let offer = |place: usize, amounts: &Amounts, left: i128| {
            if left > 0 && pods.selected[place] && takes(amounts, &pods.group.requests) {
                self.offer(pods, place, amounts, left, taken)
            } else {
                0
            }
        };
        let of_untouched = |at: usize| {
            let room = &self.by_room[at];
            (at, if self.touched[at] { 0 } else { offer(at, &room.amounts, room.pods) })
        };
        let mut untouched =
            (start..self.by_room.len()).map(of_untouched).filter(|(_, offered)| *offered > 0).peekable();
        let of_taken =
            |(key, room): (&(Left, usize), &TakenRoom)| (*key, room.place, offer(room.place, &room.amounts, room.pods));
        let mut reused = taken.rooms.iter().map(of_taken).filter(|(.., offered)| *offered > 0).peekable();
        while wanting > 0 {
            let again =
                reused.next_if(|(key, ..)| untouched.peek().is_none_or(|(at, _)| *key < self.by_room[*at].key()));
            let (place, before, offered) = match again {
                Some((key, place, offered)) => (place, Some(key), offered),
                None => match untouched.next() {
                    Some((at, offered)) => (at, None, offered),
                    None => break,
                },
            };
            let placed = offered.min(wanting);
            wanting -= placed;
            moves.push(Move { place, before, pods: placed });
        }
        (pods.count() - wanting, moves)
    }

    /// How many pods fit on a node that has this much left and on which one of them fits, apart from ports and
    /// nominated pods. Takes ports and nominated pods into account.
    pub(super) fn offer(&self, pods: &Pods<'_>, place: usize, amounts: &Amounts, left: i128, taken: &Taken<'_>) -> u64 {
        let room = &self.by_room[place];
        let requests = &pods.group.requests;
        let offered = if room.has_nominated {
            let (mut amounts, mut left) = (amounts.clone(), left);
            for nominated in pods.preceded_by(room.view) {
                left -= 1;
                amounts.add_times(&nominated.needs(), -1);
            }
            if left > 0 && takes(&amounts, requests) { fitting(&amounts, requests).min(whole(left)) } else { 0 }
        } else {
            fitting(amounts, requests).min(whole(left))
        };
        if pods.group.ports.is_empty() || offered == 0 {
            return offered;
        }
        let in_use = taken.ports.iter().filter(|(at, _)| *at == place).flat_map(|(_, ports)| *ports);
        let is_free = pods.finds_its_ports(room.view) && !conflict(&pods.group.ports, in_use);
        u64::from(is_free)
    }

    /// Subtracts what was placed from what is left.
    fn note<'g>(&mut self, group: &'g PodGroup, moves: Vec<Move>, taken: &mut Taken<'g>) {
        for Move { place, before, pods } in moves {
            let known = before.and_then(|before| taken.rooms.remove(&before));
            let room = &self.by_room[place];
            let mut after = known.unwrap_or_else(|| TakenRoom {
                place,
                amounts: room.amounts.clone(),
                pods: room.pods,
                order: room.order,
            });
            let (gpus, millicores, bytes) = left(&group.requests);
            let times = |amount: i128| amount.saturating_mul(pods.into());
            after.order =
                (after.order.0 - times(gpus), after.order.1 - times(millicores), after.order.2 - times(bytes));
            after.amounts.add_times(&group.requests, -i128::from(pods));
            after.pods -= i128::from(pods);
            taken.rooms.insert((after.order, room.name), after);
            self.touched[place] = true;
            if !group.ports.is_empty() {
                taken.ports.push((place, &group.ports));
            }
        }
    }

    pub(super) fn selected(&mut self, group: &PodGroup) -> Rc<[bool]> {
        let choice = Choice::of(group, self.tolerated);
        if let Some(selected) = self.selected.get(&choice) {
            return selected.clone();
        }
        let selected: Rc<[bool]> = choice.places(&self.columns).into();
        self.selected.insert(choice, selected.clone());
        selected
    }
}
