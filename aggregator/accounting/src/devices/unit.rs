//! Units: what the ladder counts once, in however many forms and parts a driver offers it.
use std::collections::HashMap;
use std::sync::Arc;

use super::counters::Left;
use super::held::Holding;
use super::names::{NVIDIA_DRIVER, PROFILE, XID};
use crate::cluster::devices::{Pool, PoolName, PoolState};
use crate::expression::Attribute;
use crate::hardware::{Gpus, Health};
use crate::object::Taint;
use crate::object::slice::Listed;

/// The attribute that contains the PCI address of a device.
const BUS_ID: (&str, &str) = ("resource.kubernetes.io", "pciBusID");
/// The attribute in which NVIDIA's driver reports the form of a device.
const TYPE: &str = "type";
/// The form in which a GPU is passed to a virtual machine. The driver of the host does not see it then.
const VFIO: &str = "vfio";

/// A unit that slices list.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub struct Unit {
    /// The devices that offer the unit, by pool and name, in the order of their slices.
    pub devices: Vec<(PoolName, Arc<str>)>,
    /// The UUIDs under which an agent may report it, sorted, each once.
    pub uuids: Vec<Arc<str>>,
    /// The profile of a permanently configured MIG instance; such an instance is a unit of its own.
    pub instance_profile: Option<Arc<str>>,
    /// The profiles that it can be partitioned into, sorted, each once.
    pub profiles: Vec<Arc<str>>,
    /// Whether it is in a pool that the scheduler allocates from.
    pub is_usable: bool,
    /// Whether taints keep pods off every device that offers it.
    pub is_tainted: bool,
    /// The devices of the unit that a taint keeps pods off.
    pub tainted: Vec<Arc<str>>,
    /// Whether its driver reports it as broken.
    pub is_broken: bool,
    /// Whether it could be allocated as a whole.
    pub can_be_whole: bool,
    /// Whether every device that offers it is for virtual machines. NVML may not list it then.
    pub is_for_machines: bool,
    /// How it is held, if it is.
    pub held: Option<HeldUnit>,
}

/// How a unit is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldUnit {
    /// Whether it is held for an AppWrapper.
    pub is_appwrapper: bool,
    /// Whether a claim holds all of it.
    pub is_whole: bool,
}

/// A held unit that no slice lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unlisted {
    /// Whether it is held for an AppWrapper.
    pub is_appwrapper: bool,
    /// If true, its pool is complete and does not list it: the device is gone. If false, its driver does not report its
    /// devices.
    pub is_gone: bool,
    /// Whether only parts of it are held.
    pub is_part: bool,
}

impl Unit {
    /// Whether this device offers the unit.
    pub fn has(&self, pool: &PoolName, device: &str) -> bool {
        self.devices.iter().any(|(of, name)| **name == *device && of == pool)
    }

    /// Whether the unit is broken or missing among these GPUs, as NVML lists them.
    pub fn is_broken_among(&self, gpus: &Gpus<'_>) -> bool {
        if self.instance_profile.is_some() {
            let instances = gpus.devices.iter().flat_map(|gpu| {
                gpu.mig.iter().flatten().map(|instance| (instance.uuid, instance.health.max(gpu.health)))
            });
            let mut known = instances.filter(|(uuid, _)| self.is_known_as(uuid)).peekable();
            return known.peek().is_none() || known.any(|(_, health)| health == Health::Unhealthy);
        }
        let mut known = gpus.devices.iter().filter(|gpu| self.is_known_as(gpu.uuid)).peekable();
        match known.peek() {
            None => !self.is_for_machines,
            Some(_) => known.any(|gpu| gpu.health == Health::Unhealthy),
        }
    }

    /// Whether the unit has this UUID.
    pub fn is_known_as(&self, uuid: &str) -> bool {
        self.uuids.binary_search_by(|known| (**known).cmp(uuid)).is_ok()
    }

    /// Whether it is held, but by no claim as a whole.
    pub fn is_partly_held(&self) -> bool {
        self.instance_profile.is_none() && self.held.is_some_and(|held| !held.is_whole)
    }

    /// Marks the unit as held, for example by a device that is not listed.
    pub(super) fn hold(&mut self, by: HeldUnit) {
        let held = self.held.get_or_insert_default();
        held.is_appwrapper |= by.is_appwrapper;
        held.is_whole |= by.is_whole;
    }
}

/// A device that a slice lists, before it is assigned to a unit.
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub(super) struct Member<'a> {
    pool: &'a Pool,
    listed: Listed<'a>,
    is_tainted: bool,
    is_broken: bool,
    profile: Option<&'a str>,
    is_instance: bool,
    is_all: bool,
    held: Option<HeldUnit>,
}

impl<'a> Member<'a> {
    /// A device with these taints, and its holder.
    pub(super) fn new(pool: &'a Pool, listed: Listed<'a>, taints: &[&Taint], holding: Option<&Holding<'_>>) -> Self {
        let profile = listed.text(PROFILE);
        // A rule is set by an administrator and does not come from the driver.
        let by_driver = listed.described().taints.iter().filter(|taint| taint.effect.repels());
        let is_nvidia = *pool.name.driver == *NVIDIA_DRIVER;
        Self {
            pool,
            listed,
            is_tainted: taints.iter().any(|taint| taint.effect.repels()),
            is_broken: is_nvidia && by_driver.into_iter().any(|taint| *taint.key == *XID),
            profile,
            is_instance: is_instance(pool, listed),
            is_all: is_all(pool, listed),
            held: holding.map(|holding| HeldUnit { is_appwrapper: holding.is_appwrapper, is_whole: holding.is_whole }),
        }
    }

    fn is_whole(&self) -> bool {
        self.is_all && self.profile.is_none()
    }
}

/// Whether a device is all of its unit: it consumes every counter of its counter sets in full, or consumes none.
pub(crate) fn is_all(pool: &Pool, listed: Listed<'_>) -> bool {
    listed.described().consumes.iter().all(|(set, consumed)| {
        let Some(counters) = pool.counter_set(set) else { return false };
        let of =
            |name: &str| consumed.iter().find(|(known, _)| **known == *name).map_or(0, |(_, amount)| amount.nanos());
        counters.iter().all(|(name, amount)| of(name) >= amount.nanos())
    })
}

/// Whether a device is a permanently configured MIG instance.
fn is_instance(pool: &Pool, listed: Listed<'_>) -> bool {
    *pool.name.driver == *NVIDIA_DRIVER && listed.text(PROFILE).is_some() && listed.described().consumes.is_empty()
}

fn bus_id(listed: Listed<'_>) -> Option<&str> {
    match listed.attribute_of(BUS_ID.0, BUS_ID.1)? {
        Attribute::String(id) => Some(id),
        _ => None,
    }
}

/// For each of these devices of one node and driver, the position of the first device that belongs to the same unit.
pub(crate) fn roots(parts: &[(&Pool, Listed<'_>)]) -> Vec<usize> {
    let mut groups = Groups::new(parts.len());
    let mut known: HashMap<(u8, &str), usize> = HashMap::new();
    let physical = || parts.iter().enumerate().filter(|(_, (pool, listed))| !is_instance(pool, *listed));
    let mut nameless = Vec::new();
    for (at, (_, listed)) in physical() {
        let ids = [listed.uuid(), listed.parent_uuid()].into_iter().flatten().map(|uuid| (0, &**uuid));
        let ids = ids.chain(bus_id(*listed).map(|id| (1, id)));
        let mut has_id = false;
        for id in ids {
            has_id = true;
            let first = *known.entry(id).or_insert(at);
            groups.join(first, at);
        }
        if !has_id {
            nameless.push(at);
        }
    }
    // A device that does not name its parent belongs to the unit whose counters it consumes.
    let mut of_set: HashMap<(&PoolName, &str), Vec<usize>> = HashMap::new();
    if !nameless.is_empty() {
        for (at, (pool, listed)) in physical() {
            for (set, _) in &listed.described().consumes {
                of_set.entry((&pool.name, set)).or_default().push(at);
            }
        }
    }
    for at in nameless {
        let Some((pool, listed)) = parts.get(at) else { continue };
        for (set, _) in &listed.described().consumes {
            // All of them belong to one unit, so the first represents the rest from then on.
            if let Some(others) = of_set.get_mut(&(&pool.name, &**set)) {
                others.drain(..).for_each(|other| groups.join(at, other));
                others.push(at);
            }
        }
    }
    (0..parts.len()).map(|at| groups.root(at)).collect()
}

/// The units of the devices of one node and driver, in the order in which the first device of each is listed.
pub(super) fn units(members: &[Member<'_>]) -> Vec<Unit> {
    // What held devices consume is not available to others, including devices of other units that share a counter set.
    let mut left: Vec<Left<'_>> = Vec::new();
    for member in members {
        let at = left.iter().position(|left| left.is_of(member.pool)).unwrap_or(left.len());
        if at == left.len() {
            left.push(Left::of(member.pool));
        }
        if let Some(left) = left.get_mut(at).filter(|_| member.held.is_some()) {
            left.take(member.listed);
        }
    }
    let parts: Vec<(&Pool, Listed<'_>)> = members.iter().map(|member| (member.pool, member.listed)).collect();
    let roots = roots(&parts);
    let mut units: Vec<(usize, Vec<&Member<'_>>)> = Vec::new();
    for (member, root) in members.iter().zip(roots) {
        match units.iter_mut().find(|(known, _)| *known == root) {
            Some((_, unit)) => unit.push(member),
            None => units.push((root, vec![member])),
        }
    }
    units.into_iter().map(|(_, members)| unit(&members, &left)).collect()
}

fn unit(members: &[&Member<'_>], left: &[Left<'_>]) -> Unit {
    let instance_profile = match members {
        [member] if member.is_instance => member.profile.map(Arc::from),
        _ => None,
    };
    let mut uuids: Vec<Arc<str>> = Vec::new();
    for member in members {
        uuids.extend(member.listed.uuid().cloned());
        // A MIG instance is identified by its own UUID; its parent may have other instances.
        uuids.extend(member.listed.parent_uuid().filter(|_| instance_profile.is_none()).cloned());
    }
    uuids.sort_unstable();
    uuids.dedup();
    let mut profiles: Vec<Arc<str>> = match instance_profile {
        Some(_) => Vec::new(),
        None => members.iter().filter_map(|member| member.profile).map(Arc::from).collect(),
    };
    profiles.sort_unstable();
    profiles.dedup();
    // A MIG instance is a whole unit.
    let is_whole = |member: &&&Member<'_>| member.is_whole() || member.is_instance;
    let whole: Vec<&&Member<'_>> = members.iter().filter(is_whole).collect();
    let deciding: Vec<&&Member<'_>> = if whole.is_empty() { members.iter().collect() } else { whole.clone() };
    let mut held: Option<HeldUnit> = None;
    for member in members.iter().filter_map(|member| Some((member.held?, member.is_all))) {
        let (of, is_all) = member;
        let known = held.get_or_insert_default();
        known.is_appwrapper |= of.is_appwrapper;
        known.is_whole |= is_all && of.is_whole;
    }
    let is_held = held.is_some();
    let has_counters = |member: &Member<'_>| left.iter().any(|left| left.is_of(member.pool) && left.has(member.listed));
    let available = |member: &Member<'_>| {
        member.pool.state == PoolState::Usable && !is_held && !member.is_tainted && has_counters(member)
    };
    Unit {
        devices: members.iter().map(|member| (member.pool.name.clone(), member.listed.name().clone())).collect(),
        uuids,
        profiles,
        is_usable: members.iter().any(|member| member.pool.state == PoolState::Usable),
        is_tainted: deciding.iter().all(|member| member.is_tainted),
        tainted: members.iter().filter(|member| member.is_tainted).map(|member| member.listed.name().clone()).collect(),
        is_broken: deciding.iter().all(|member| member.is_broken),
        can_be_whole: whole.iter().any(|member| available(member)),
        is_for_machines: members.iter().all(|member| member.listed.text(TYPE) == Some(VFIO)),
        instance_profile,
        held,
    }
}

/// Groups of devices that belong together (disjoint sets).
struct Groups(Vec<usize>);

impl Groups {
    fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn root(&self, mut at: usize) -> usize {
        while let Some(next) = self.0.get(at).copied().filter(|next| *next != at) {
            at = next;
        }
        at
    }

    /// Joins two groups. The earlier element becomes the root.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        let (first, later) = if a < b { (a, b) } else { (b, a) };
        if let Some(place) = self.0.get_mut(later) {
            *place = first;
        }
    }
}
