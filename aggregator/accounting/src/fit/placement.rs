//! Places pods with claims to devices one after the other, and tracks what they take of nodes and devices and what is
//! left.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::allocation::allocate;
use super::plans::Plan;
use super::pods::{Left, Pods, left, takes, whole};
use super::rooms::{Rooms, Taken};
use super::steps::{CutShort, Steps};
use super::stock::Stock;
use crate::object::constraints::NodeSelector;
use crate::object::demand::PodGroup;
use crate::object::slice::Reach;
use crate::object::{AppWrapperName, Node};
use crate::resource::{Amounts, Resource};

/// Identical pods, and the devices that they request.
pub(super) struct Kind<'g> {
    pub(super) count: u64,
    /// The group as in the spec.
    pub(super) group: &'g PodGroup,
    /// The group without the extended resources that become claims on a node, for each combination of
    /// [`Self::extended`] that become claims.
    pub(super) variants: Vec<(Vec<bool>, PodGroup)>,
    /// The nodes that they may run on.
    pub(super) selected: Rc<[bool]>,
    /// In the order of the template.
    pub(super) claims: Vec<Use>,
    /// Extended resources that a class is mapped to, and the claim that each becomes if kubelet declares none.
    pub(super) extended: Vec<(Resource, Rc<Plan>)>,
    /// The number of devices that one pod requests, by its first alternatives.
    pub(super) devices: i128,
    /// A class that they name and that does not exist.
    pub(super) missing_class: Option<Arc<str>>,
}

/// A claim that pods use.
#[derive(Clone)]
pub(super) enum Use {
    /// Each pod has a claim of its own.
    Own(Rc<Plan>),
    /// All pods share one claim, identified by its position among the shared claims.
    Shared(usize),
}

/// A claim that several pods share.
#[derive(Clone)]
pub(super) enum Shared<'a> {
    /// No devices are allocated to it.
    Free(Rc<Plan>),
    /// Devices are allocated to it, and its pods are restricted to these nodes. `None`: they are not restricted.
    Bound(Option<Arc<NodeSelector>>),
    /// Devices were allocated to it here. They are accessible from these nodes.
    Given(Vec<&'a Reach>),
}

/// What is left on a node.
#[derive(Clone)]
struct Occupied {
    amounts: Amounts,
    pods: i128,
    order: Left,
}

/// See the module's documentation.
pub(super) struct Placement<'r, 'a, 'g> {
    pub(super) rooms: &'r Rooms<'a>,
    pub(super) stock: &'r mut Stock<'a>,
    pub(super) owner: &'g AppWrapperName,
    pub(super) kinds: &'g [Kind<'g>],
    /// The shared claims, before any pod is placed and now.
    first_shared: &'g [Shared<'a>],
    pub(super) shared: Vec<Shared<'a>>,
    occupied: HashMap<usize, Occupied>,
    /// Occupied nodes, those with least left first.
    order: BTreeSet<(Left, usize, usize)>,
    taken: Taken<'g>,
}

/// What is needed to undo the placement of one pod.
pub(super) struct Undo<'a> {
    place: usize,
    before: Option<Occupied>,
    mark: usize,
    shared: Vec<(usize, Shared<'a>)>,
    has_ports: bool,
}

impl Shared<'_> {
    /// Whether pods that use it may run on a node.
    fn allows(&self, node: &Node) -> bool {
        match self {
            Self::Free(_) | Self::Bound(None) => true,
            Self::Bound(Some(nodes)) => nodes.selects(node),
            Self::Given(reaches) => reaches.iter().all(|reach| reach.includes(node)),
        }
    }
}

impl Kind<'_> {
    /// Whether it uses a shared claim that has no devices yet.
    pub(super) fn uses_free(&self, shared: &[Shared<'_>]) -> bool {
        let is_free = |of: &Use| matches!(of, Use::Shared(at) if matches!(shared.get(*at), Some(Shared::Free(_))));
        self.claims.iter().any(is_free)
    }

    /// Which of the extended resources become claims on a node.
    pub(super) fn claims_on(&self, node: &Node) -> Vec<bool> {
        self.extended.iter().map(|(resource, _)| !declares(node, resource)).collect()
    }

    fn variant(&self, is_claim: &[bool]) -> Option<&PodGroup> {
        self.variants.iter().find(|(known, _)| known == is_claim).map(|(_, group)| group)
    }
}

/// Whether kubelet declares some of an extended resource as allocatable.
pub(super) fn declares(node: &Node, resource: &Resource) -> bool {
    node.allocatable.get(resource).unwrap_or(0) > 0 || node.other_allocatable.get(resource.name()) > 0
}

impl<'r, 'a, 'g> Placement<'r, 'a, 'g> {
    pub(super) fn new(
        rooms: &'r Rooms<'a>,
        stock: &'r mut Stock<'a>,
        owner: &'g AppWrapperName,
        kinds: &'g [Kind<'g>],
        shared: &'g [Shared<'a>],
    ) -> Self {
        let (occupied, order, taken) = (HashMap::new(), BTreeSet::new(), Taken::default());
        Self { rooms, stock, owner, kinds, first_shared: shared, shared: shared.to_vec(), occupied, order, taken }
    }

    /// Removes all pods.
    pub(super) fn clear(&mut self) {
        self.stock.take_back(0);
        self.stock.gave_wide = false;
        self.shared = self.first_shared.to_vec();
        self.occupied.clear();
        self.order.clear();
        self.taken = Taken::default();
    }

    /// How many pods are on which node, by position.
    pub(super) fn placed(&self) -> Vec<(usize, u64)> {
        let on = |(place, left): (&usize, &Occupied)| (*place, whole(self.rooms.room_at(*place).1 - left.pods));
        self.occupied.iter().map(on).collect()
    }

    /// How many pods of a kind fit on the node at a position, apart from devices, if no other pod is placed. `is_claim`
    /// marks the extended resources that become claims there.
    pub(super) fn room_for(&self, kind: &Kind<'_>, is_claim: &[bool], place: usize) -> u64 {
        let Some(group) = kind.variant(is_claim) else { return 0 };
        let (amounts, pods_left, _) = self.rooms.room_at(place);
        if pods_left <= 0 || !takes(amounts, &group.requests) {
            return 0;
        }
        let pods = Pods { group, selected: kind.selected.clone(), owner: self.owner };
        self.rooms.offer(&pods, place, amounts, pods_left, &Taken::default())
    }

    /// Places as many pods of a kind as fit, up to `wanting`, on the nodes with least left first.
    pub(super) fn fill(&mut self, kind: usize, wanting: u64, steps: &mut Steps) -> Result<u64, CutShort> {
        self.fill_noting(kind, wanting, |_| {}, steps)
    }

    /// The same; passes what is needed to undo each placement to `note`.
    pub(super) fn fill_noting(
        &mut self,
        kind: usize,
        wanting: u64,
        mut note: impl FnMut(Undo<'a>),
        steps: &mut Steps,
    ) -> Result<u64, CutShort> {
        let mut placed = 0;
        loop {
            let was_free = self.kinds[kind].uses_free(&self.shared);
            let mut occupied: BTreeMap<(Left, usize), usize> =
                self.order.iter().map(|(left, name, place)| ((*left, *name), *place)).collect();
            let untouched = (0..self.rooms.count()).filter(|place| !self.occupied.contains_key(place));
            let mut untouched = untouched.collect::<Vec<_>>().into_iter().peekable();
            while placed < wanting {
                steps.go(1)?;
                let next = untouched.peek().map(|place| self.rooms.key(*place));
                let again = occupied.first_key_value().is_some_and(|(key, _)| next.is_none_or(|next| *key < next));
                let place = if again { occupied.pop_first().map(|(_, place)| place) } else { untouched.next() };
                let Some(place) = place else { return Ok(placed) };
                let mut is_new = false;
                while placed < wanting
                    && let Some(undo) = self.try_one(kind, place, steps)?
                {
                    note(undo);
                    (placed, is_new) = (placed + 1, true);
                }
                // When a shared claim gets its devices, nodes that could not take the first pod may take the others.
                if is_new && was_free {
                    break;
                }
            }
            if placed == wanting || !was_free || self.kinds[kind].uses_free(&self.shared) {
                return Ok(placed);
            }
        }
    }

    /// Places one pod of a kind on the node at a position, if it fits there.
    pub(super) fn try_one(
        &mut self,
        kind: usize,
        place: usize,
        steps: &mut Steps,
    ) -> Result<Option<Undo<'a>>, CutShort> {
        steps.go(1)?;
        let kinds = self.kinds;
        let kind = &kinds[kind];
        if kind.missing_class.is_some() || !kind.selected[place] {
            return Ok(None);
        }
        let view = self.rooms.view(place);
        let mut to_allocate: Vec<(Option<usize>, Rc<Plan>)> = Vec::new();
        for of in &kind.claims {
            match of {
                Use::Own(plan) => to_allocate.push((None, plan.clone())),
                Use::Shared(at) => match self.shared.get(*at) {
                    Some(Shared::Free(plan)) => to_allocate.push((Some(*at), plan.clone())),
                    Some(shared) if !shared.allows(&view.node) => return Ok(None),
                    _ => {}
                },
            }
        }
        let is_claim = kind.claims_on(&view.node);
        for ((_, plan), _) in kind.extended.iter().zip(&is_claim).filter(|(_, is_claim)| **is_claim) {
            to_allocate.push((None, plan.clone()));
        }
        let Some(group) = kind.variant(&is_claim) else { return Ok(None) };
        let pods = Pods { group, selected: kind.selected.clone(), owner: self.owner };
        let before = self.occupied.get(&place).cloned();
        let (amounts, pods_left, order) = match &before {
            Some(occupied) => (&occupied.amounts, occupied.pods, occupied.order),
            None => self.rooms.room_at(place),
        };
        if pods_left <= 0
            || !takes(amounts, &group.requests)
            || self.rooms.offer(&pods, place, amounts, pods_left, &self.taken) == 0
        {
            return Ok(None);
        }
        let mut after = Occupied { amounts: amounts.clone(), pods: pods_left - 1, order };
        let mark = self.stock.mark();
        let mut shared = Vec::new();
        let mut devices = 0_i128;
        if !to_allocate.is_empty() {
            let on = self.stock.on(place, view, steps)?;
            let plans: Vec<Rc<Plan>> = to_allocate.iter().map(|(_, plan)| plan.clone()).collect();
            let Some(allocated) = allocate(self.stock, (place, &on), &plans, steps)? else { return Ok(None) };
            for ((of, _), places) in to_allocate.iter().zip(allocated) {
                devices += places.len() as i128;
                let Some(known) = of.and_then(|of| self.shared.get_mut(of)) else { continue };
                let reaches = places.iter().map(|at| on.devices[*at].listed.reach()).collect();
                let was = std::mem::replace(known, Shared::Given(reaches));
                shared.extend(of.map(|of| (of, was)));
            }
        }
        after.amounts.add_times(&group.requests, -1);
        let (gpus, millicores, bytes) = left(&group.requests);
        after.order = (order.0 - gpus - devices, order.1 - millicores, order.2 - bytes);
        let has_ports = !kind.group.ports.is_empty();
        if has_ports {
            self.taken.ports.push((place, &kind.group.ports));
        }
        self.occupy(place, Some(after));
        Ok(Some(Undo { place, before, mark, shared, has_ports }))
    }

    /// Undoes the placement of the last pod.
    pub(super) fn undo(&mut self, undo: Undo<'a>) {
        let Undo { place, before, mark, shared, has_ports } = undo;
        self.stock.take_back(mark);
        for (at, was) in shared {
            self.shared[at] = was;
        }
        if has_ports {
            self.taken.ports.pop();
        }
        self.occupy(place, before);
    }

    fn occupy(&mut self, place: usize, now: Option<Occupied>) {
        let name = self.rooms.key(place).1;
        if let Some(before) = self.occupied.remove(&place) {
            self.order.remove(&(before.order, name, place));
        }
        if let Some(now) = now {
            self.order.insert((now.order, name, place));
            self.occupied.insert(place, now);
        }
    }
}
