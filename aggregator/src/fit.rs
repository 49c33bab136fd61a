//! Whether a waiting AppWrapper would fit on real nodes (docs/accounting.md §5).
//!
//! Pure, from a snapshot alone, so that it can be worked out elsewhere and later; the answer says only what it is about.
//! Alike pods fill a node at once: that is what placing them one by one comes to, because a node that takes one has less
//! left than before, and so stays the first choice for the next.
mod columns;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use crate::demand::PodGroup;
use crate::ladder::{NodeState, Reason};
use crate::object::{AppWrapper, AppWrapperName, Constraints, Taint};
use crate::resource::{Amounts, Resource};
use crate::snapshot::Snapshot;
use crate::tolerated::{Tolerated, ToleratedTaint};
use crate::views::NodeView;

use self::columns::Columns;

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
    let mut rooms = Rooms::new(nodes.nodes.iter().map(|view| &**view), &snapshot.options.tolerated);
    let waiting = appwrappers.appwrappers.iter().filter(|view| view.waiting.is_some());
    waiting.map(|view| (view.appwrapper.name.clone(), rooms.place(&view.appwrapper))).collect()
}

/// The nodes that may take pods, and what is left on each.
struct Rooms<'a> {
    /// Those with least left first, then by name. What is known of a node is known by its place here.
    by_room: Vec<Room>,
    columns: Columns<'a>,
    tolerated: &'a Tolerated,
    /// Where pods may go, for each kind of demand on nodes that was met so far.
    selected: HashMap<Choice, Rc<[bool]>>,
    /// Whether a place is in use by the AppWrapper at hand.
    touched: Vec<bool>,
}

/// What is left on one node.
struct Room {
    amounts: Amounts,
    /// The node's place in the order of names.
    name: usize,
}

/// What decides where a pod may go, amounts apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Choice {
    constraints: Arc<Constraints>,
    /// Tolerated taints whose key is a resource that the pod requests.
    passed: Vec<ToleratedTaint>,
}

/// GPUs, millicores, bytes.
pub(crate) type Left = (i128, i128, i128);

/// What is left on the nodes that have taken pods of the AppWrapper at hand, in the order of the rooms; by place.
type Taken = BTreeMap<(Left, usize), (usize, Amounts)>;

impl<'a> Rooms<'a> {
    fn new(nodes: impl Iterator<Item = &'a NodeView>, tolerated: &'a Tolerated) -> Self {
        let room = |(name, view)| (Room { amounts: room(view), name }, &*view.node);
        let mut rooms: Vec<_> = nodes.filter(|view| takes_pods(view)).enumerate().map(room).collect();
        rooms.sort_by_key(|(room, _)| room.key());
        let (rooms, nodes): (Vec<_>, _) = rooms.into_iter().unzip();
        let touched = vec![false; rooms.len()];
        Self { by_room: rooms, columns: Columns::new(nodes), tolerated, selected: HashMap::new(), touched }
    }

    fn place(&mut self, appwrapper: &AppWrapper) -> Verdict {
        let demand = &appwrapper.demand;
        let needed = appwrapper.min_available.map_or_else(|| demand.pods(), u64::from);
        let mut groups: Vec<&PodGroup> = demand.groups.iter().filter(|group| group.count > 0).collect();
        groups.sort_by_key(|group| Reverse(left(&group.requests)));
        let mut taken = Taken::new();
        let mut placed = 0;
        if let Some((last, others)) = groups.split_last() {
            for group in others {
                let (pods, moves) = self.place_group(group, &taken);
                placed += pods;
                self.note(&group.requests, moves, &mut taken);
            }
            // Nobody asks any more what the last of them leave.
            placed += self.place_group(last, &taken).0;
        }
        for (place, _) in taken.into_values() {
            self.touched[place] = false;
        }
        Verdict { needed, placed }
    }

    /// Places as many pods of a group as fit, and says how many, and how many on each node.
    fn place_group(&mut self, group: &PodGroup, taken: &Taken) -> (u64, Vec<Move>) {
        let selected = self.selected(group);
        let requests = &group.requests;
        let mut wanting = u64::from(group.count);
        let mut moves = Vec::new();
        // Nodes with too few GPUs come first in the order: none of them fits.
        let start = self.by_room.partition_point(|room| room.amounts.gpus < requests.gpus);
        let fits = |place: usize, amounts: &Amounts| selected[place] && takes(amounts, requests);
        let mut untouched = (start..self.by_room.len())
            .filter(|&at| fits(at, &self.by_room[at].amounts) && !self.touched[at])
            .peekable();
        let mut reused = taken.iter().filter(|(_, (place, amounts))| fits(*place, amounts)).peekable();
        while wanting > 0 {
            let again = reused.next_if(|(key, _)| untouched.peek().is_none_or(|&at| **key < self.by_room[at].key()));
            let (place, before, amounts) = match again {
                Some((key, (place, amounts))) => (*place, Some(*key), amounts),
                None => match untouched.next() {
                    Some(at) => (at, None, &self.by_room[at].amounts),
                    None => break,
                },
            };
            let pods = fitting(amounts, requests).min(wanting);
            wanting -= pods;
            moves.push(Move { place, before, pods });
        }
        (u64::from(group.count) - wanting, moves)
    }

    /// Takes what was placed from what is left.
    fn note(&mut self, requests: &Amounts, moves: Vec<Move>, taken: &mut Taken) {
        for Move { place, before, pods } in moves {
            let known = before.and_then(|before| taken.remove(&before));
            let mut amounts = known.map_or_else(|| self.by_room[place].amounts.clone(), |(_, amounts)| amounts);
            amounts.add_times(requests, -i128::from(pods));
            taken.insert((left(&amounts), self.by_room[place].name), (place, amounts));
            self.touched[place] = true;
        }
    }

    fn selected(&mut self, group: &PodGroup) -> Rc<[bool]> {
        let choice = Choice::of(group, self.tolerated);
        if let Some(selected) = self.selected.get(&choice) {
            return selected.clone();
        }
        let selected: Rc<[bool]> = choice.places(&self.columns).into();
        self.selected.insert(choice, selected.clone());
        selected
    }
}

/// Pods that go to one node.
struct Move {
    place: usize,
    /// What was left there, if it has taken pods before.
    before: Option<(Left, usize)>,
    pods: u64,
}

impl Room {
    fn key(&self) -> (Left, usize) {
        (left(&self.amounts), self.name)
    }
}

impl Choice {
    /// What a group's pods demand, given the taints that pods pass if they request the resource of that name.
    pub(crate) fn of(group: &PodGroup, tolerated: &Tolerated) -> Self {
        let requests = |key: &str| Resource::named(key).is_some_and(|resource| group.requests.get(&resource) > 0);
        let passed = tolerated.iter().filter(|taint| requests(taint.key())).cloned().collect();
        Self { constraints: group.constraints.clone(), passed }
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
        self.passes_all(&view.node.taints)
    }

    fn passes_all(&self, taints: &[Taint]) -> bool {
        let passes = |taint: &Taint| self.passed.iter().any(|passed| passed.matches(taint));
        let mut repelling = taints.iter().filter(|taint| taint.effect.repels());
        repelling.all(|taint| self.constraints.tolerates(taint) || passes(taint))
    }

    /// Whether it allows a place, for each.
    fn places(&self, columns: &Columns<'_>) -> Vec<bool> {
        let mut nodes = columns.all();
        self.constraints.retain(&mut nodes);
        nodes.retain_by_taints(|taints| self.passes_all(taints));
        nodes.into_places()
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

/// Whether one pod of these requests fits: compared first, because most nodes take none, and dividing costs more.
fn takes(room: &Amounts, requests: &Amounts) -> bool {
    let enough = |room: i128, request: i128| request <= 0 || request <= room;
    enough(room.gpus, requests.gpus)
        && enough(room.millicores, requests.millicores)
        && enough(room.bytes, requests.bytes)
        && (requests.extended().iter())
            .all(|(name, request)| enough(room.get(&Resource::Extended(name.clone())), *request))
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
