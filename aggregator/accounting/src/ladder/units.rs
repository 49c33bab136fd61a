//! The ladder of a resource whose devices are held through claims: units that ResourceSlices list, and what kubelet
//! declares of the same resource.
//!
//! Pure arithmetic. [`crate::devices`] determines the units; [`crate::hardware`] provides what an agent found.
use crate::cluster::owner::ByOwner;
use crate::devices::{Unit, Units};
use crate::hardware::{Found, Gpus, Hardware, Health, Instance};
use crate::ladder::{Account, Declaration, Kubelet, NodeState, Reason, ResourceLadder, WithheldByReason};
use crate::object::Node;
use crate::resource::Resource;

/// The devices of one resource, each counted in one place. The places of unheld devices are in the order in which they
/// are subtracted: permanently withheld devices first, devices that can be allocated last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Places {
    installed: i128,
    /// Installed devices that have disappeared.
    lost: i128,
    /// Installed devices that are present and broken.
    unhealthy: i128,
    /// Held devices for which no hardware is left.
    beyond: i128,
    /// Unheld devices, by the reason why they are not free.
    unheld: [i128; PLACES.len()],
    /// Allocatable units that have no healthy hardware. `None` if no agent has examined them.
    phantom: Option<i128>,
    /// Lost devices, and broken devices, that are held by id.
    lost_held: i128,
    unhealthy_held: i128,
}

/// Why unheld devices are not free; those in the last place are free.
const PLACES: [Option<Reason>; 6] = [
    Some(Reason::Lost),
    Some(Reason::Unhealthy),
    Some(Reason::Unadvertised),
    Some(Reason::DeviceTainted),
    Some(Reason::Stranded),
    None,
];
const LOST: usize = 0;
const UNHEALTHY: usize = 1;
const UNADVERTISED: usize = 2;
const TAINTED: usize = 3;
const STRANDED: usize = 4;
const OPEN: usize = 5;

/// What ResourceSlices declare of a resource.
struct SliceDeclaration {
    capacity: i128,
    allocatable: i128,
    /// Allocatable units that are not held.
    unheld: i128,
    held: ByOwner<i128>,
    lists: bool,
}

impl SliceDeclaration {
    fn of(units: &Units) -> Self {
        let usable = || units.listed.iter().filter(|unit| unit.is_usable);
        let open = || usable().filter(|unit| !unit.is_tainted);
        let mut held = ByOwner { appwrapper: 0, other: 0 };
        let owners = units.listed.iter().filter_map(|unit| unit.held).map(|held| held.is_appwrapper);
        for is_appwrapper in owners.chain(units.unlisted.iter().map(|unlisted| unlisted.is_appwrapper)) {
            *(if is_appwrapper { &mut held.appwrapper } else { &mut held.other }) += 1;
        }
        Self {
            capacity: usable().count() as i128,
            allocatable: open().count() as i128,
            unheld: open().filter(|unit| unit.held.is_none()).count() as i128,
            held,
            lists: !units.listed.is_empty(),
        }
    }
}

/// The place of a unit that is not held and whose hardware works or is not examined.
fn place_of(unit: &Unit) -> usize {
    match unit {
        Unit { is_usable: false, .. } => UNADVERTISED,
        Unit { is_tainted: true, .. } => TAINTED,
        Unit { can_be_whole: false, .. } => STRANDED,
        _ => OPEN,
    }
}

impl Places {
    /// Places if only the driver reports on the devices.
    fn from_driver(units: &Units) -> Self {
        let mut places = Self::default();
        for unit in &units.listed {
            places.installed += 1;
            places.unhealthy += i128::from(unit.is_broken);
            match unit.held {
                Some(_) => places.unhealthy_held += i128::from(unit.is_broken),
                None => places.unheld[if unit.is_broken { UNHEALTHY } else { place_of(unit) }] += 1,
            }
        }
        let gone = units.unlisted.iter().filter(|unlisted| unlisted.is_gone).count() as i128;
        places.installed += units.unlisted.len() as i128 - gone;
        places.beyond = gone;
        places
    }

    /// Places of whole GPUs as an agent found them; `lost` of them have disappeared from NVML.
    fn from_agent(units: &Units, gpus: &Gpus<'_>, lost: i128) -> Self {
        let mut places = Self { phantom: Some(0), ..Self::default() };
        let listed = |unit: &Unit| gpus.devices.iter().position(|gpu| unit.is_known_as(gpu.uuid));
        // Which unit each GPU is, in the order in which NVML lists them.
        let mut of_gpu: Vec<Option<&Unit>> = vec![None; gpus.devices.len()];
        let mut homeless = units.unlisted.len() as i128;
        for unit in &units.listed {
            let is_healthy = match listed(unit) {
                Some(at) => {
                    of_gpu[at] = of_gpu[at].or(Some(unit));
                    gpus.devices[at].health == Health::Healthy
                }
                None if unit.is_for_machines => {
                    places.installed += 1;
                    if unit.held.is_none() {
                        places.unheld[place_of(unit)] += 1;
                    }
                    true
                }
                None => {
                    homeless += i128::from(unit.held.is_some());
                    false
                }
            };
            if unit.is_usable && !unit.is_tainted && !is_healthy {
                places.phantom = places.phantom.map(|phantom| phantom + 1);
            }
        }
        // GPUs that no slice lists, healthy and broken. Held devices that were not found may be among them.
        let mut strange = [0_i128; 2];
        for (gpu, unit) in gpus.devices.iter().zip(&of_gpu) {
            if gpu.mig.is_some() && unit.is_none() {
                continue;
            }
            places.installed += 1;
            let is_broken = gpu.health == Health::Unhealthy;
            places.unhealthy += i128::from(is_broken);
            match unit {
                Some(unit) if unit.held.is_some() => places.unhealthy_held += i128::from(is_broken),
                Some(unit) => places.unheld[if is_broken { UNHEALTHY } else { place_of(unit) }] += 1,
                None => strange[usize::from(is_broken)] += 1,
            }
        }
        places.installed += lost;
        places.lost = lost;
        let mut settle = |room: i128| {
            let settled = homeless.min(room);
            homeless -= settled;
            settled
        };
        places.lost_held = settle(lost);
        let [healthy, broken] = strange;
        let on_healthy = settle(healthy);
        let on_broken = settle(broken);
        places.unheld[LOST] += lost - places.lost_held;
        places.unheld[UNADVERTISED] += healthy - on_healthy;
        places.unheld[UNHEALTHY] += broken - on_broken;
        places.unhealthy_held += on_broken;
        places.beyond = homeless;
        places
    }

    /// Places of permanently configured MIG instances as an agent found them.
    fn instances_from_agent(units: &Units, instances: &[(&Instance<'_>, Health)]) -> Self {
        let mut places = Self { phantom: Some(0), ..Self::default() };
        let health =
            |unit: &Unit| instances.iter().find(|(of, _)| unit.is_known_as(of.uuid)).map(|(_, health)| *health);
        for unit in &units.listed {
            places.installed += 1;
            let health = health(unit);
            let is_held = unit.held.is_some();
            let place = match health {
                None => LOST,
                Some(Health::Unhealthy) => UNHEALTHY,
                Some(Health::Healthy) => place_of(unit),
            };
            places.lost += i128::from(place == LOST);
            places.unhealthy += i128::from(place == UNHEALTHY);
            if is_held {
                places.lost_held += i128::from(place == LOST);
                places.unhealthy_held += i128::from(place == UNHEALTHY);
            } else {
                places.unheld[place] += 1;
            }
            if unit.is_usable && !unit.is_tainted && health != Some(Health::Healthy) {
                places.phantom = places.phantom.map(|phantom| phantom + 1);
            }
        }
        for (instance, health) in instances {
            if units.listed.iter().any(|unit| unit.is_known_as(instance.uuid)) {
                continue;
            }
            places.installed += 1;
            places.unhealthy += i128::from(*health == Health::Unhealthy);
            places.unheld[if *health == Health::Unhealthy { UNHEALTHY } else { UNADVERTISED }] += 1;
        }
        let gone = units.unlisted.iter().filter(|unlisted| unlisted.is_gone).count() as i128;
        places.installed += units.unlisted.len() as i128 - gone;
        places.beyond = gone;
        places
    }

    fn of(resource: &Resource, node: &Node, units: &Units, found: &Found<'_>) -> (Self, bool) {
        let Some(gpus) = found.gpus() else { return (Self::from_driver(units), false) };
        if resource.name() == gpus.names.whole {
            let machines =
                |unit: &&Unit| unit.is_for_machines && !gpus.devices.iter().any(|gpu| unit.is_known_as(gpu.uuid));
            let machines = units.listed.iter().filter(machines).count() as i128;
            return (Self::from_agent(units, gpus, found.lost_beside(node, machines)), true);
        }
        if units.listed.iter().all(|unit| unit.instance_profile.is_none()) {
            return (Self::from_driver(units), false);
        }
        let instances = gpus
            .devices
            .iter()
            .flat_map(|gpu| gpu.mig.iter().flatten().map(|instance| (instance, instance.health.max(gpu.health))));
        let of_resource: Vec<_> =
            instances.filter(|(instance, _)| gpus.names.part(instance.profile) == resource.name()).collect();
        (Self::instances_from_agent(units, &of_resource), true)
    }

    fn healthy(&self) -> i128 {
        (self.installed - self.lost - self.unhealthy).max(0)
    }
}

/// The ladder of a resource that has units on a node. `requested` contains the requests that no claim represents;
/// `None` if Pods are not known.
pub fn of_units(
    resource: &Resource,
    node: &Node,
    state: NodeState,
    kubelet: Kubelet,
    requested: Option<ByOwner<i128>>,
    units: &Units,
    found: &Found<'_>,
) -> ResourceLadder {
    let slices = SliceDeclaration::of(units);
    let (places, is_examined) = Places::of(resource, node, units, found);
    let declares = kubelet.capacity > 0 || kubelet.allocatable > 0;
    if declares {
        return of_both(resource, state, kubelet, requested, &slices, &places, found);
    }
    let account = requested.map(|requested| {
        let all = requested.appwrapper + requested.other;
        let mut unheld = places.unheld;
        // Requests that no claim represents were there before the claims. They are subtracted from what is not held,
        // from free devices first.
        let mut without = all;
        for amount in unheld.iter_mut().rev() {
            let taken = without.clamp(0, *amount);
            *amount -= taken;
            without -= taken;
        }
        Account {
            requested: ByOwner {
                appwrapper: requested.appwrapper + slices.held.appwrapper,
                other: requested.other + slices.held.other,
            },
            overcommitted: places.beyond + without,
            ..account_of(state, &unheld)
        }
    });
    ResourceLadder {
        installed: Some(places.installed),
        healthy: Some(places.healthy()),
        declared: Some(Declaration {
            is_declared: slices.lists || is_declared(node, resource),
            ..Declaration::new(state, slices.capacity, slices.allocatable)
        }),
        account,
        phantom: if is_examined { places.phantom } else { None },
        has_units: true,
    }
}

/// Whether kubelet declares it, even as 0.
fn is_declared(node: &Node, resource: &Resource) -> bool {
    node.capacity.get(resource).is_some() || node.allocatable.get(resource).is_some()
}

/// The account of what is not held, by place.
fn account_of(state: NodeState, unheld: &[i128; PLACES.len()]) -> Account {
    let mut account = Account::default();
    for (reason, amount) in PLACES.into_iter().zip(*unheld) {
        match reason.or(state.reason()) {
            Some(reason) => account.withheld.add(reason, amount),
            None => account.free += amount,
        }
    }
    account
}

/// The ladder if kubelet also declares the resource. Kubelet and slices may then declare the same devices, so the
/// larger value counts.
fn of_both(
    resource: &Resource,
    state: NodeState,
    kubelet: Kubelet,
    requested: Option<ByOwner<i128>>,
    slices: &SliceDeclaration,
    places: &Places,
    found: &Found<'_>,
) -> ResourceLadder {
    let is_whole = |gpus: &Gpus<'_>| resource.name() == gpus.names.whole;
    let seen = found.gpus().is_some_and(|gpus| is_whole(gpus) || found.get(resource).is_some());
    // Without an agent, kubelet and slices each report which devices are broken.
    let hardware = if seen {
        let by_id = found.get(resource).copied().unwrap_or_default();
        Hardware {
            installed: places.installed,
            lost: places.lost,
            unhealthy: places.unhealthy,
            lost_assigned: places.lost_held.max(by_id.lost_assigned),
            unhealthy_assigned: places.unhealthy_held.max(by_id.unhealthy_assigned),
        }
    } else if kubelet.capacity > slices.capacity {
        // A device that a slice still offers is not broken.
        let unhealthy = (kubelet.capacity - kubelet.allocatable.max(slices.allocatable)).max(0);
        Hardware { installed: kubelet.capacity.max(places.installed), unhealthy, ..Hardware::default() }
    } else {
        let (unhealthy, unhealthy_assigned) = (places.unhealthy, places.unhealthy_held);
        Hardware {
            installed: kubelet.capacity.max(places.installed),
            unhealthy,
            unhealthy_assigned,
            ..Hardware::default()
        }
    };
    let Hardware { installed, lost, unhealthy, lost_assigned, unhealthy_assigned } = hardware;
    let healthy = (installed - lost - unhealthy).max(0);
    let is_of_different_devices = seen && kubelet.capacity + slices.capacity <= installed;
    let join = |a: i128, b: i128| if is_of_different_devices { a + b } else { a.max(b) };
    let capacity = join(kubelet.capacity, slices.capacity);
    let allocatable = join(kubelet.allocatable, slices.allocatable);
    let account = requested.map(|requested| {
        let of_kubelet = requested.appwrapper + requested.other;
        let requested = ByOwner {
            appwrapper: requested.appwrapper + slices.held.appwrapper,
            other: requested.other + slices.held.other,
        };
        let all = requested.appwrapper + requested.other;
        let mut left = installed - all.min(installed);
        let mut withheld = WithheldByReason::default();
        let mut take = |reason: Reason, amount: i128| {
            let taken = amount.clamp(0, left);
            left -= taken;
            withheld.add(reason, taken);
            left
        };
        take(Reason::Lost, lost - lost_assigned);
        take(Reason::Unhealthy, unhealthy - unhealthy_assigned);
        let rest = take(Reason::Unadvertised, healthy - capacity);
        let handed_out = ((kubelet.allocatable - of_kubelet).max(0) + slices.unheld).min(rest);
        let rest = if kubelet.capacity > slices.capacity {
            take(Reason::Reserved, (capacity - allocatable) - (installed - healthy))
        } else {
            take(Reason::DeviceTainted, places.unheld[TAINTED].min(rest - handed_out))
        };
        let rest = take(Reason::Stranded, rest - handed_out);
        let free = match state.reason() {
            None => rest,
            Some(reason) => {
                take(reason, rest);
                0
            }
        };
        Account { requested, free, withheld, overcommitted: (all - installed).max(0) }
    });
    ResourceLadder {
        installed: Some(installed),
        healthy: Some(healthy),
        declared: Some(Declaration::new(state, capacity, allocatable)),
        account,
        phantom: seen.then(|| (allocatable - healthy).max(0)),
        has_units: true,
    }
}

/// How many devices both kubelet and slices declare.
pub fn doubly_declared(kubelet: Kubelet, units: &Units, rung: &ResourceLadder) -> i128 {
    let slices = SliceDeclaration::of(units);
    let sum = kubelet.capacity + slices.capacity;
    if rung.capacity() == Some(sum) { 0 } else { kubelet.capacity.min(slices.capacity) }
}
