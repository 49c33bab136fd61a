//! The devices that are available to pods on a node, and what the pods placed so far have taken.
//!
//! Determines what makes a device available, apart from requests: its holder, the remaining values of its counters, and
//! whether its unit is whole.
use std::collections::HashMap;
use std::rc::Rc;

use super::filters::Filters;
use super::steps::{CutShort, Steps};
use crate::cluster::devices::{Pool, PoolState};
use crate::devices::counters::Left;
use crate::devices::names::stem_of;
use crate::devices::offer::{Hold, Offered, Offers};
use crate::devices::unit;
use crate::object::Taint;
use crate::object::slice::Listed;
use crate::views::NodeView;

/// How many devices are cached. Above this number, the cache is cleared and nodes are examined again.
const KEPT: usize = 400_000;

/// How undecided questions are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Pessimistic: undecided selectors do not match, and devices with allocated shares are unavailable.
    Worst,
    /// Optimistic: undecided selectors match, and devices with allocated shares are available.
    Best,
    /// Optimistic, but a request for all matching devices takes no undecided device unless it needs one.
    Fewest,
}

/// What could not be decided so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Doubts {
    pub(super) of_selectors: bool,
    /// Selectors of a request for all matching devices: fewer devices may be easier to get than all.
    pub(super) of_all: bool,
    pub(super) of_shares: bool,
}

/// Identifies a device in the cluster: its pool and its position in the pool.
pub(super) type DeviceId = (u32, u32);

/// A device that may be available to pods on some node.
pub(super) struct CandidateDevice<'a> {
    pub(super) id: DeviceId,
    pub(super) listed: Listed<'a>,
    /// Its unit on the node. `None` if it is not on a single node, or forms no unit.
    unit: Option<u32>,
    /// Whether it is all of its unit.
    is_all: bool,
    hold: Option<Hold>,
    is_broken: bool,
    /// The taints that keep pods off.
    taints: Box<[&'a Taint]>,
}

/// The devices that a node offers.
pub(super) struct OnNode<'a> {
    /// In the order in which the scheduler tries them.
    pub(super) devices: Vec<CandidateDevice<'a>>,
    /// The number of held devices of each unit.
    units_held: Vec<u32>,
    /// Whether the node has a pool that the scheduler does not allocate from.
    pub(super) has_unusable_pool: bool,
}

/// See the module's documentation.
pub(super) struct Stock<'a> {
    pub(super) offers: &'a Offers,
    pub(super) filters: Filters,
    pub(super) reading: Reading,
    pub(super) doubts: Doubts,
    nodes: HashMap<usize, Rc<OnNode<'a>>>,
    kept: usize,
    /// The remaining counters of the pools that were examined.
    left: HashMap<u32, Left<'a>>,
    /// How often each device was allocated.
    given: HashMap<DeviceId, u32>,
    units_given: HashMap<(usize, u32), u32>,
    /// All allocations, in order.
    trail: Vec<Given<'a>>,
    /// Whether a device was allocated that pods on other nodes may now lack.
    pub(super) gave_wide: bool,
    wide: HashMap<u32, bool>,
}

/// An allocated device.
struct Given<'a> {
    id: DeviceId,
    listed: Listed<'a>,
    /// Node and unit.
    unit: Option<(usize, u32)>,
    use_of: Use,
}

/// What the allocation of a device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The device and its counters.
    Whole,
    /// A share of a device whose counters are already consumed.
    Share,
    /// Its counters, while the claims of one pod are allocated.
    Admin,
}

impl CandidateDevice<'_> {
    /// Whether a request tolerates all taints of the device.
    pub(super) fn is_tolerated(&self, tolerates: impl Fn(&Taint) -> bool) -> bool {
        self.taints.iter().all(|taint| tolerates(taint))
    }

    /// Whether several claims can each hold a share of it.
    pub(super) fn is_shareable(&self) -> bool {
        self.listed.described().is_shareable
    }

    /// The unit that it takes as a whole. `None` if it is a part of a unit, which is limited only by counters.
    pub(super) fn whole_unit(&self) -> Option<u32> {
        self.unit.filter(|_| self.is_all)
    }
}

impl<'a> Stock<'a> {
    pub(super) fn new(offers: &'a Offers) -> Self {
        Self {
            offers,
            filters: Filters::default(),
            reading: Reading::Worst,
            doubts: Doubts::default(),
            nodes: HashMap::new(),
            kept: 0,
            left: HashMap::new(),
            given: HashMap::new(),
            units_given: HashMap::new(),
            trail: Vec::new(),
            gave_wide: false,
            wide: HashMap::new(),
        }
    }

    /// The devices of the node at a position.
    pub(super) fn on(&mut self, place: usize, view: &NodeView, steps: &mut Steps) -> Result<Rc<OnNode<'a>>, CutShort> {
        if let Some(known) = self.nodes.get(&place) {
            return Ok(known.clone());
        }
        let on = Rc::new(OnNode::new(self.offers, view, steps)?);
        if self.kept > KEPT {
            self.nodes.clear();
            self.kept = 0;
        }
        self.kept += on.devices.len();
        self.nodes.insert(place, on.clone());
        Ok(on)
    }

    /// How a device could be allocated to pods on the node at a position, apart from requests and taints. `None` if it
    /// is not available.
    pub(super) fn available(&mut self, place: usize, on: &OnNode<'a>, device: &CandidateDevice<'a>) -> Option<Use> {
        if device.is_broken || device.hold == Some(Hold::Whole) {
            return None;
        }
        let given = self.given.get(&device.id).copied().unwrap_or(0);
        let is_out = given > 0 || device.hold.is_some();
        if is_out && !device.is_shareable() {
            return None;
        }
        if let Some(unit) = device.whole_unit() {
            let held = on.units_held.get(unit as usize).copied().unwrap_or(0);
            let all = held + self.units_given.get(&(place, unit)).copied().unwrap_or(0);
            if all > given + u32::from(device.hold.is_some()) {
                return None;
            }
        }
        if is_out {
            if self.reading == Reading::Worst {
                self.doubts.of_shares = true;
                return None;
            }
            return Some(Use::Share);
        }
        self.has_counters(device).then_some(Use::Whole)
    }

    /// Whether the counters that a device consumes have enough left.
    pub(super) fn has_counters(&mut self, device: &CandidateDevice<'a>) -> bool {
        device.listed.described().consumes.is_empty() || self.left_of(device.id.0).has(device.listed)
    }

    /// The remaining counters of a pool.
    pub(super) fn left_of(&mut self, pool: u32) -> &mut Left<'a> {
        let offers = self.offers;
        self.left.entry(pool).or_insert_with(|| {
            let offered = &offers.pools[pool as usize];
            let mut left = Left::of(&offered.pool);
            let held = offered.pool.listed().filter(|listed| offered.hold(listed.name()).is_some());
            held.for_each(|listed| left.take(listed));
            left
        })
    }

    /// Allocates a device to a pod on the node at a position.
    pub(super) fn give(&mut self, place: usize, device: &CandidateDevice<'a>, use_of: Use) {
        let unit = device.unit.map(|unit| (place, unit));
        if use_of != Use::Share && !device.listed.described().consumes.is_empty() {
            self.left_of(device.id.0).take(device.listed);
        }
        if use_of != Use::Admin {
            *self.given.entry(device.id).or_default() += 1;
            if let Some(unit) = unit {
                *self.units_given.entry(unit).or_default() += 1;
            }
            let offers = self.offers;
            let pool = device.id.0;
            self.gave_wide |= *self.wide.entry(pool).or_insert_with(|| offers.pools[pool as usize].is_wide());
        }
        self.trail.push(Given { id: device.id, listed: device.listed, unit, use_of });
    }

    /// The number of allocations so far, for [`Self::take_back`].
    pub(super) fn mark(&self) -> usize {
        self.trail.len()
    }

    /// Undoes the allocations since a mark.
    pub(super) fn take_back(&mut self, mark: usize) {
        while self.trail.len() > mark
            && let Some(given) = self.trail.pop()
        {
            self.undo(&given);
        }
    }

    /// Called when the claims of a pod are allocated: administrative access consumes nothing from then on.
    pub(super) fn settle(&mut self, mark: usize) {
        let of_pod = self.trail.split_off(mark);
        for given in of_pod {
            if given.use_of == Use::Admin {
                self.undo(&given);
            } else {
                self.trail.push(given);
            }
        }
    }

    fn undo(&mut self, given: &Given<'a>) {
        if given.use_of != Use::Share && !given.listed.described().consumes.is_empty() {
            self.left_of(given.id.0).give_back(given.listed);
        }
        if given.use_of == Use::Admin {
            return;
        }
        if let Some(count) = self.given.get_mut(&given.id) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = given.unit.and_then(|unit| self.units_given.get_mut(&unit)) {
            *count = count.saturating_sub(1);
        }
    }
}

/// A device on the node itself, in a pool that may not be usable.
struct Local<'a> {
    /// Its position among the offered devices.
    place: usize,
    pool: &'a Pool,
    listed: Listed<'a>,
    is_held: bool,
}

impl<'a> OnNode<'a> {
    fn new(offers: &'a Offers, view: &NodeView, steps: &mut Steps) -> Result<Self, CutShort> {
        let node = &view.node;
        let mut on = Self { devices: Vec::new(), units_held: Vec::new(), has_unusable_pool: false };
        steps.go(offers.devices_off_nodes)?;
        let pools = offers.pools_of(node);
        for of_driver in pools.chunk_by(|a, b| driver(offers, *a) == driver(offers, *b)) {
            let mut local: Vec<Local<'a>> = Vec::new();
            for &at in of_driver {
                let offered = &offers.pools[at as usize];
                let pool: &'a Pool = &offered.pool;
                let is_usable = pool.state == PoolState::Usable;
                on.has_unusable_pool |= !is_usable;
                for (id, listed) in (0_u32..).zip(pool.listed()) {
                    steps.go(1 + offers.rules.len())?;
                    if !listed.reach().includes(node) {
                        continue;
                    }
                    let hold = offered.hold(listed.name());
                    let is_local = listed.node().is_some() && offers.mapped.resource_of(&pool.name.driver).is_some();
                    // A device that is not offered still belongs to its unit.
                    let place = if is_usable { on.devices.len() } else { usize::MAX };
                    if is_local {
                        local.push(Local { place, pool, listed, is_held: hold.is_some() });
                    }
                    if is_usable {
                        let ruled = offers.rules.iter().filter(|rule| rule.selects(listed)).map(|rule| &rule.taint);
                        let taints = listed.described().taints.iter().chain(ruled);
                        on.devices.push(CandidateDevice {
                            id: (at, id),
                            listed,
                            unit: None,
                            is_all: is_local && unit::is_all(pool, listed),
                            hold,
                            is_broken: is_local && offers.is_broken(&node.name, &pool.name, listed.name()),
                            taints: taints.filter(|taint| taint.effect.repels()).collect(),
                        });
                    }
                }
            }
            on.join(&local, of_driver.iter().map(|at| &offers.pools[*at as usize]));
        }
        Ok(on)
    }

    /// Records which devices of a driver belong to one unit, and how many of each unit are held.
    fn join<'o>(&mut self, local: &[Local<'a>], pools: impl Iterator<Item = &'o Offered>) {
        if local.is_empty() {
            return;
        }
        let parts: Vec<(&Pool, Listed<'_>)> = local.iter().map(|of| (of.pool, of.listed)).collect();
        let mut units: HashMap<usize, u32> = HashMap::new();
        let mut unit_of = Vec::with_capacity(local.len());
        for root in unit::roots(&parts) {
            let known = *units.entry(root).or_insert_with(|| {
                self.units_held.push(0);
                self.units_held.len() as u32 - 1
            });
            unit_of.push(known);
        }
        for (of, unit) in local.iter().zip(&unit_of) {
            if let Some(device) = self.devices.get_mut(of.place) {
                device.unit = Some(*unit);
            }
        }
        let mut hold = |at: usize| {
            if let Some(count) = unit_of.get(at).and_then(|unit| self.units_held.get_mut(*unit as usize)) {
                *count += 1;
            }
        };
        (0..local.len()).filter(|at| local[*at].is_held).for_each(&mut hold);
        // A device that no slice lists holds the unit of its stem.
        for offered in pools {
            let driver = &*offered.pool.name.driver;
            for device in offered.unlisted() {
                let stem = stem_of(driver, device);
                let of_stem =
                    |of: &Local<'_>| of.pool.name == offered.pool.name && stem_of(driver, of.listed.name()) == stem;
                if let Some(at) = local.iter().position(of_stem) {
                    hold(at);
                }
            }
        }
    }
}

fn driver(offers: &Offers, pool: u32) -> &str {
    &offers.pools[pool as usize].pool.name.driver
}
