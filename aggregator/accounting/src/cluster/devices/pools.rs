//! Pools: the slices that have the same driver and pool name. Only the newest generation counts, if it is complete and
//! valid.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::cluster::same;
use crate::object::slice::{Counters, Listed};
use crate::object::{Granted, Slice};
use crate::table::Table;

/// Driver and name of a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolName {
    /// The driver.
    pub driver: Arc<str>,
    /// The name.
    pub pool: Arc<str>,
}

impl PoolName {
    /// The pool of a device that is allocated to a claim.
    pub(crate) fn of_granted(granted: &Granted) -> Self {
        Self { driver: granted.driver.clone(), pool: granted.pool.clone() }
    }

    fn of_slice(slice: &Slice) -> Self {
        Self { driver: slice.driver.clone(), pool: slice.pool.clone() }
    }
}

/// Whether the scheduler allocates devices of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolState {
    /// It does.
    #[default]
    Usable,
    /// It does not: slices of the newest generation are missing.
    Incomplete,
    /// It does not: the slices contradict one another.
    Invalid,
}

/// A pool. Its slices are shared, so a clone is cheap.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Driver and name.
    pub name: PoolName,
    /// Whether the scheduler allocates its devices.
    pub state: PoolState,
    /// The slices of its newest generation, by name.
    slices: Vec<Arc<Slice>>,
    /// The slices of older generations.
    stale: Vec<Arc<Slice>>,
    /// The nodes that its devices are on, sorted, each once.
    nodes: Box<[Arc<str>]>,
    /// The number of its devices that are on no node.
    on_no_node: usize,
}

impl Pool {
    /// Its devices, of the newest generation, by slice.
    pub fn listed(&self) -> impl Iterator<Item = Listed<'_>> {
        self.slices.iter().flat_map(|slice| slice.devices())
    }

    /// Whether it lists a device with that name.
    pub fn lists(&self, device: &str) -> bool {
        self.listed().any(|listed| **listed.name() == *device)
    }

    /// The slices of its newest generation, by name.
    pub fn slices(&self) -> &[Arc<Slice>] {
        &self.slices
    }

    /// The nodes that its devices are on, sorted, each once.
    pub fn nodes(&self) -> &[Arc<str>] {
        &self.nodes
    }

    /// The counters of a counter set.
    pub fn counter_set(&self, name: &str) -> Option<&Counters> {
        let sets = self.slices.iter().flat_map(|slice| &slice.counter_sets);
        sets.into_iter().find(|set| *set.name == *name).map(|set| &set.counters)
    }

    fn new(name: PoolName) -> Self {
        Self {
            name,
            state: PoolState::Usable,
            slices: Vec::new(),
            stale: Vec::new(),
            nodes: Box::default(),
            on_no_node: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.stale.is_empty()
    }

    /// Adds a slice, or replaces the slice of that name.
    fn put(&mut self, slice: Arc<Slice>) {
        for slices in [&mut self.slices, &mut self.stale] {
            slices.retain(|known| known.name != slice.name);
        }
        // Usually there is no other.
        self.slices.reserve_exact(1);
        self.slices.push(slice);
        self.sort_out();
    }

    fn take(&mut self, name: &str) {
        self.slices.retain(|slice| *slice.name != *name);
        self.stale.retain(|slice| *slice.name != *name);
        self.sort_out();
    }

    fn sort_out(&mut self) {
        self.slices.append(&mut self.stale);
        self.slices.sort_by(|a, b| a.name.cmp(&b.name));
        let newest = self.slices.iter().map(|slice| slice.generation).max().unwrap_or(0);
        self.stale = self.slices.extract_if(.., |slice| slice.generation != newest).collect();
        let nodes: BTreeSet<&Arc<str>> = self.listed().filter_map(Listed::node).collect();
        self.nodes = nodes.into_iter().cloned().collect();
        self.on_no_node = self.listed().filter(|listed| listed.node().is_none()).count();
        let is_whole =
            self.slices.iter().all(|slice| slice.slices == self.slices.len() as i64 && slice.excess.is_none());
        self.state = match is_whole {
            false => PoolState::Incomplete,
            true if self.makes_sense() => PoolState::Usable,
            true => PoolState::Invalid,
        };
    }

    /// Whether names are unique, and the counters that devices consume exist.
    ///
    /// Source: kubernetes/dynamic-resource-allocation `structured/internal/incubating/pools_incubating.go`,
    /// `buildPool`.
    fn makes_sense(&self) -> bool {
        let mut sets: HashMap<&str, &Counters> = HashMap::new();
        for set in self.slices.iter().flat_map(|slice| &slice.counter_sets) {
            if sets.insert(&set.name, &set.counters).is_some() {
                return false;
            }
        }
        let mut names = HashSet::new();
        self.listed().all(|listed| {
            let consumed = &listed.described().consumes;
            let exists = |set: &str, counter: &str| {
                sets.get(set)
                    .is_some_and(|counters| counters.binary_search_by(|(name, _)| (**name).cmp(counter)).is_ok())
            };
            names.insert(&**listed.name())
                && consumed.iter().all(|(set, counters)| {
                    sets.contains_key(&**set) && counters.iter().all(|(counter, _)| exists(set, counter))
                })
        })
    }
}

/// A pool in which a slice was added or removed, and the nodes that its devices were on before.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) name: PoolName,
    pub(super) nodes: Box<[Arc<str>]>,
}

/// The numbers of pools and devices, by state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Slices of an older generation than their pool's newest.
    pub stale_slices: u64,
    /// Pools with missing slices.
    pub incomplete: u64,
    /// Pools whose slices contradict one another.
    pub invalid: u64,
    /// Devices of the newest generations, by driver.
    pub devices: BTreeMap<Arc<str>, DeviceCounts>,
}

/// The number of devices that a driver offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// All devices.
    pub all: u64,
    /// Devices that are on no node.
    pub on_no_node: u64,
}

impl PoolCounts {
    fn count(&mut self, pool: &Pool, change: impl Fn(&mut u64, u64)) {
        change(&mut self.stale_slices, pool.stale.len() as u64);
        change(&mut self.incomplete, u64::from(pool.state == PoolState::Incomplete));
        change(&mut self.invalid, u64::from(pool.state == PoolState::Invalid));
        let devices = self.devices.entry(pool.name.driver.clone()).or_default();
        change(&mut devices.all, pool.listed().count() as u64);
        change(&mut devices.on_no_node, pool.on_no_node as u64);
        if *devices == DeviceCounts::default() {
            self.devices.remove(&pool.name.driver);
        }
    }
}

/// All pools.
#[derive(Debug, Default)]
pub(super) struct Pools {
    by_name: BTreeMap<PoolName, Arc<Pool>>,
    slices: Table<Arc<str>, Arc<Slice>>,
    /// Sorted; usually one pool per node.
    on_node: Table<Arc<str>, Vec<PoolName>>,
    /// Pools with a device that is on no node.
    off_node: BTreeSet<PoolName>,
    counts: PoolCounts,
}

impl Pools {
    pub(super) fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    pub(super) fn slice(&self, name: &str) -> Option<&Slice> {
        self.slices.get(name).map(|slice| &**slice)
    }

    pub(super) fn slice_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.slices.keys()
    }

    /// Whether a newer API version of that slice is stored.
    pub(super) fn newer(&self, name: &str, rank: u8) -> bool {
        self.slices.get(name).is_some_and(|known| known.rank > rank)
    }

    pub(super) fn get(&self, name: &PoolName) -> Option<&Pool> {
        self.by_name.get(name).map(|pool| &**pool)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.by_name.values()
    }

    pub(super) fn on(&self, node: &str) -> impl Iterator<Item = &Pool> {
        self.on_node.get(node).into_iter().flatten().filter_map(|name| self.by_name.get(name)).map(|pool| &**pool)
    }

    /// Pools with a device that is on no node.
    pub(super) fn off_node(&self) -> impl Iterator<Item = &PoolName> {
        self.off_node.iter()
    }

    pub(super) fn counts(&self) -> &PoolCounts {
        &self.counts
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.on_node.keys()
    }

    /// Adds a slice. Returns how many quantities could not be parsed in the earlier slice of that name, and which pools
    /// changed.
    pub(super) fn put(&mut self, slice: Slice) -> (u32, Vec<Changed>) {
        let slice = Arc::new(slice);
        let before = self.slices.insert(slice.name.clone(), slice.clone());
        let unreadable = before.as_ref().map_or(0, |before| before.unreadable);
        let mut changed = Vec::with_capacity(2);
        let name = PoolName::of_slice(&slice);
        if let Some(before) = before {
            let was = PoolName::of_slice(&before);
            if was != name {
                changed.push(self.change(was, |pool| pool.take(&before.name)));
            }
        }
        changed.push(self.change(name, |pool| pool.put(slice)));
        (unreadable, changed)
    }

    /// Removes the slice with that name. Returns how many of its quantities could not be parsed, and the pool that
    /// changed.
    pub(super) fn take(&mut self, name: &str, uid: &str) -> Option<(u32, Changed)> {
        self.slices.get(name).filter(|slice| same(&slice.uid, uid))?;
        let gone = self.slices.remove(name)?;
        let pool = PoolName::of_slice(&gone);
        Some((gone.unreadable, self.change(pool, |pool| pool.take(name))))
    }

    fn change(&mut self, name: PoolName, change: impl FnOnce(&mut Pool)) -> Changed {
        let pool = self.by_name.entry(name.clone()).or_insert_with(|| Arc::new(Pool::new(name.clone())));
        let pool = Arc::make_mut(pool);
        let before = pool.nodes.clone();
        self.counts.count(pool, |sum, count| *sum = sum.saturating_sub(count));
        change(pool);
        self.counts.count(pool, |sum, count| *sum += count);
        let after = pool.nodes.clone();
        if pool.on_no_node > 0 {
            self.off_node.insert(name.clone());
        } else {
            self.off_node.remove(&name);
        }
        if pool.is_empty() {
            self.by_name.remove(&name);
        }
        for gone in before.iter().filter(|node| !after.contains(node)) {
            if let Some(pools) = self.on_node.get_mut(gone) {
                pools.retain(|known| *known != name);
                if pools.is_empty() {
                    self.on_node.remove(gone);
                }
            }
        }
        for new in after.iter().filter(|node| !before.contains(node)) {
            match self.on_node.get_mut(new) {
                Some(pools) => {
                    if let Err(place) = pools.binary_search(&name) {
                        pools.insert(place, name.clone());
                    }
                }
                None => drop(self.on_node.insert(new.clone(), vec![name.clone()])),
            }
        }
        Changed { name, nodes: before }
    }
}
