//! The ladder of one resource on one node: from what is installed to what is free for a new pod, with the reason for
//! each difference (docs/accounting.md §4).
//!
//! Pure arithmetic on whole amounts. [`crate::hardware`] provides the measurements of the hardware.
pub mod units;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Add;

use crate::cluster::owner::ByOwner;
use crate::devices::NodeDevices;
use crate::hardware::{Found, Hardware};
use crate::object::{Node, Taint};
use crate::options::tolerated::Tolerated;
use crate::resource::{Amounts, Resource};

/// Whether a node accepts new pods, and if not, the first reason that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// New pods can be scheduled on it.
    Admissible,
    /// `spec.unschedulable`.
    Cordoned,
    /// Kubelet is not ready, or its readiness is unknown.
    NotReady,
    /// A taint that is not generally tolerated repels pods.
    Tainted,
}

impl NodeState {
    /// All states, in the order in which they are exported.
    pub const ALL: [Self; 4] = [Self::Admissible, Self::Cordoned, Self::NotReady, Self::Tainted];

    /// The state of a node. `tolerated` are the taints that do not keep pods off.
    pub fn of(node: &Node, tolerated: &Tolerated) -> Self {
        Self::by(node, |taint| tolerated.tolerates(taint))
    }

    /// The same for pods that tolerate these taints.
    pub(crate) fn by(node: &Node, tolerate: impl Fn(&Taint) -> bool) -> Self {
        if !node.ready {
            Self::NotReady
        } else if node.cordoned {
            Self::Cordoned
        } else if node.taints.iter().any(|taint| taint.effect.repels() && !tolerate(taint)) {
            Self::Tainted
        } else {
            Self::Admissible
        }
    }

    /// The reason for which what would be free is withheld. `None` if it is not withheld.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Admissible => None,
            Self::Cordoned => Some(Reason::Cordoned),
            Self::NotReady => Some(Reason::NotReady),
            Self::Tainted => Some(Reason::Tainted),
        }
    }

    /// The label `state`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Admissible => "admissible",
            Self::Cordoned => "cordoned",
            Self::NotReady => "not_ready",
            Self::Tainted => "tainted",
        }
    }
}

/// Why an amount is neither requested nor free. In the order in which the amounts are subtracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The hardware has disappeared.
    Lost,
    /// The hardware is present and broken.
    Unhealthy,
    /// The hardware works, but neither kubelet nor a ResourceSlice of a driver declares it.
    Unadvertised,
    /// A taint on the device itself repels pods.
    DeviceTainted,
    /// Kubelet reserves it.
    Reserved,
    /// Healthy and unassigned, but the arithmetic of Kubernetes will not allocate it.
    Stranded,
    /// The node is not ready.
    NotReady,
    /// The node is cordoned.
    Cordoned,
    /// The node is tainted.
    Tainted,
}

impl Reason {
    /// All reasons, in order.
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Unhealthy,
        Self::Unadvertised,
        Self::DeviceTainted,
        Self::Reserved,
        Self::Stranded,
        Self::NotReady,
        Self::Cordoned,
        Self::Tainted,
    ];

    /// The label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Unhealthy => "unhealthy",
            Self::Unadvertised => "unadvertised",
            Self::DeviceTainted => "device_tainted",
            Self::Reserved => "reserved",
            Self::Stranded => "stranded",
            Self::NotReady => "not_ready",
            Self::Cordoned => "cordoned",
            Self::Tainted => "tainted",
        }
    }
}

/// Withheld amounts, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithheldByReason([i128; Reason::ALL.len()]);

impl WithheldByReason {
    /// The amount for that reason.
    pub fn get(&self, reason: Reason) -> i128 {
        self.0[reason as usize]
    }

    /// Adds to the amount for that reason.
    pub(crate) fn add(&mut self, reason: Reason, more: i128) {
        self.0[reason as usize] += more;
    }

    /// Every reason and its amount, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, i128)> {
        Reason::ALL.into_iter().zip(self.0)
    }

    /// The sum over all reasons.
    pub fn total(&self) -> i128 {
        self.0.iter().sum()
    }
}

/// The ladder of one resource, on one node or added up over nodes. In whole millicores, bytes or devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceLadder {
    /// What the machine has. `None` if neither kubelet nor an agent reports it.
    pub installed: Option<i128>,
    /// Installed minus what is lost or unhealthy. `None` if `installed` is `None`.
    pub healthy: Option<i128>,
    /// What kubelet declares. `None` if there is no kubelet.
    pub declared: Option<Declaration>,
    /// How the installed amount is used. `None` if Pods are not known: then it is not known what is free.
    pub account: Option<Account>,
    /// The allocatable amount that has no healthy hardware. `None` if no agent has examined it.
    pub phantom: Option<i128>,
    /// Whether ResourceSlices list a part of it, or claims hold a part of it.
    pub has_units: bool,
}

/// What kubelet and ResourceSlices declare of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declaration {
    /// Whether kubelet or a slice declares it, even as 0. If false, capacity and allocatable are not exported: no slice
    /// lists what claims hold.
    pub is_declared: bool,
    /// `status.capacity`
    pub capacity: i128,
    /// `status.allocatable`
    pub allocatable: i128,
    /// The allocatable amount on nodes that accept new pods.
    pub admissible: i128,
}

/// How the installed amount is used: `installed + overcommitted = Σ requested + free + Σ withheld`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Effective requests of bound, unfinished pods.
    pub requested: ByOwner<i128>,
    /// What is free for a new pod.
    pub free: i128,
    /// What is neither requested nor free.
    pub withheld: WithheldByReason,
    /// Requests beyond the installed amount.
    pub overcommitted: i128,
}

impl ResourceLadder {
    /// `status.capacity`, and what slices list.
    pub fn capacity(&self) -> Option<i128> {
        self.declared.filter(|declared| declared.is_declared).map(|declared| declared.capacity)
    }

    /// The allocatable part of the capacity.
    pub fn allocatable(&self) -> Option<i128> {
        self.declared.filter(|declared| declared.is_declared).map(|declared| declared.allocatable)
    }

    /// Adds the ladder of another node.
    pub fn add(&mut self, other: &Self) {
        self.installed = sum(self.installed, other.installed);
        self.healthy = sum(self.healthy, other.healthy);
        self.declared = sum(self.declared, other.declared);
        self.phantom = sum(self.phantom, other.phantom);
        self.has_units |= other.has_units;
        match (&mut self.account, &other.account) {
            (Some(sum), Some(account)) => sum.add(account),
            // A sum with an unknown part is unknown.
            (sum, _) => *sum = None,
        }
    }

    /// What is free for a new pod; 0 if that is not known.
    pub fn surely_free(&self) -> i128 {
        self.account.as_ref().map_or(0, |account| account.free)
    }
}

/// The sum of the known values. `None` if neither is known.
fn sum<T: Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

impl Declaration {
    /// What a node in that state declares.
    fn new(state: NodeState, capacity: i128, allocatable: i128) -> Self {
        let admissible = if state == NodeState::Admissible { allocatable } else { 0 };
        Self { is_declared: true, capacity, allocatable, admissible }
    }
}

impl Add for Declaration {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            is_declared: self.is_declared || other.is_declared,
            capacity: self.capacity + other.capacity,
            allocatable: self.allocatable + other.allocatable,
            admissible: self.admissible + other.admissible,
        }
    }
}

impl Account {
    fn add(&mut self, other: &Self) {
        self.requested.appwrapper += other.requested.appwrapper;
        self.requested.other += other.requested.other;
        self.free += other.free;
        for (sum, amount) in self.withheld.0.iter_mut().zip(other.withheld.0) {
            *sum += amount;
        }
        self.overcommitted += other.overcommitted;
    }

    /// What all pods hold, of AppWrappers and others.
    pub fn requested_in_all(&self) -> i128 {
        self.requested.appwrapper + self.requested.other
    }
}

/// The ladders of one node: cpu, memory, and every other resource that the node declares, its agent found, or its pods
/// request above 0, in order. A node that does not declare cpu, as a new node may not, has 0 of it. `state` is `None`
/// if there is no kubelet, `requested` is `None` if Pods are not known.
pub fn of_node(
    node: &Node,
    state: Option<NodeState>,
    requested: Option<ByOwner<&Amounts>>,
    found: &Found<'_>,
    devices: Option<&NodeDevices>,
) -> Vec<(Resource, ResourceLadder)> {
    let units = |resource: &Resource| devices.and_then(|devices| devices.units.get(resource));
    // A GPU that a slice lists is counted there, even if it is partitioned.
    let is_unit = |uuid: &str| {
        let all = devices.iter().flat_map(|devices| devices.units.values()).flat_map(|units| &units.listed);
        all.filter(|unit| unit.instance_profile.is_none()).any(|unit| unit.is_known_as(uuid))
    };
    let beside = devices.and_then(|_| found.beside(node, is_unit));
    let of_rest = beside.as_ref().unwrap_or(found);
    let declared = node.capacity.resources().chain(node.allocatable.resources());
    let always = [&Resource::Cpu, &Resource::Memory];
    let mut resources: BTreeSet<Cow<'_, Resource>> =
        always.into_iter().chain(declared).chain(of_rest.resources()).map(Cow::Borrowed).collect();
    resources.extend(devices.iter().flat_map(|devices| devices.units.keys()).map(Cow::Borrowed));
    // Pods may hold devices that their node no longer declares: the device plugin is gone, but the pods are not.
    for of_owner in requested.iter().flat_map(|requested| [requested.appwrapper, requested.other]) {
        resources.extend(of_owner.devices().map(Cow::Owned));
    }
    let rung = |resource: Cow<'_, Resource>| {
        let requested = requested.as_ref().map(|requested| ByOwner {
            appwrapper: requested.appwrapper.get(&resource),
            other: requested.other.get(&resource),
        });
        let kubelet = Kubelet::of(node, &resource);
        let declared = state.map(|state| (state, Declaration::new(state, kubelet.capacity, kubelet.allocatable)));
        let rung = match (units(&resource), state) {
            (Some(units), Some(state)) => units::of_units(&resource, node, state, kubelet, requested, units, found),
            _ => of_resource(&resource, declared, requested, of_rest.get(&resource)),
        };
        (resource.into_owned(), rung)
    };
    resources.into_iter().map(rung).collect()
}

/// Whether a ladder can be computed without knowing what claims hold. That is so for cpu and memory, and for devices
/// that kubelet declares and no slice lists.
pub fn stands_without_claims(node: &Node, resource: &Resource, rung: &ResourceLadder) -> bool {
    let Kubelet { capacity, allocatable } = Kubelet::of(node, resource);
    let is_declared = capacity > 0 || allocatable > 0;
    let is_asked_for = rung.account.as_ref().is_some_and(|account| account.requested_in_all() > 0);
    !resource.is_extended() || (!rung.has_units && (is_declared || (rung.installed.unwrap_or(0) == 0 && !is_asked_for)))
}

/// What kubelet declares of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Kubelet {
    /// `status.capacity`
    pub capacity: i128,
    /// `status.allocatable`
    pub allocatable: i128,
}

impl Kubelet {
    /// What the kubelet of a node declares.
    pub fn of(node: &Node, resource: &Resource) -> Self {
        Self {
            capacity: node.capacity.get(resource).unwrap_or(0),
            allocatable: node.allocatable.get(resource).unwrap_or(0),
        }
    }
}

/// Computes a ladder by the rules of docs/accounting.md §4; the numbers in the code are the rules' numbers. `declared`
/// is `None` if there is no kubelet, `requested` is `None` if Pods are not known.
pub fn of_resource(
    resource: &Resource,
    declared: Option<(NodeState, Declaration)>,
    requested: Option<ByOwner<i128>>,
    hardware: Option<&Hardware>,
) -> ResourceLadder {
    // Without an agent, what kubelet declares counts as installed, and its allocatable devices count as healthy. It is
    // not known whether pods hold the unhealthy ones; they count as unassigned.
    let declared_hardware = |Declaration { capacity, allocatable, .. }| Hardware {
        installed: capacity,
        unhealthy: if resource.is_extended() { (capacity - allocatable).max(0) } else { 0 },
        ..Hardware::default()
    };
    let seen = hardware.copied();
    let hardware = seen.or(declared.map(|(_, declared)| declared_hardware(declared)));
    let healthy = |of: Hardware| (of.installed - of.lost - of.unhealthy).max(0);
    ResourceLadder {
        installed: hardware.map(|hardware| hardware.installed),
        healthy: hardware.map(healthy),
        declared: declared.map(|(_, declared)| declared),
        account: match (declared, requested, hardware) {
            (Some((state, declared)), Some(requested), Some(hardware)) => {
                Some(account(state, declared, requested, hardware, healthy(hardware)))
            }
            _ => None,
        },
        // 4
        phantom: declared.zip(seen).map(|((_, declared), seen)| (declared.allocatable - healthy(seen)).max(0)),
        has_units: false,
    }
}

fn account(
    state: NodeState,
    declared: Declaration,
    requested: ByOwner<i128>,
    hardware: Hardware,
    healthy: i128,
) -> Account {
    let Declaration { capacity, allocatable, .. } = declared;
    let Hardware { installed, lost, unhealthy, lost_assigned, unhealthy_assigned } = hardware;
    // 1
    let all = requested.appwrapper + requested.other;
    let overcommitted = (all - installed).max(0);
    // 2, 3
    let mut left = installed - all.min(installed);
    let mut withheld = WithheldByReason::default();
    let mut take = |reason: Reason, amount: i128| {
        let taken = amount.clamp(0, left);
        left -= taken;
        withheld.0[reason as usize] += taken;
        left
    };
    take(Reason::Lost, lost - lost_assigned);
    take(Reason::Unhealthy, unhealthy - unhealthy_assigned);
    take(Reason::Unadvertised, healthy - capacity);
    let rest = take(Reason::Reserved, (capacity - allocatable) - (installed - healthy));
    let rest = take(Reason::Stranded, rest - (allocatable - all).max(0));
    let free = match state {
        NodeState::Admissible => rest,
        NodeState::NotReady => take(Reason::NotReady, rest),
        NodeState::Cordoned => take(Reason::Cordoned, rest),
        NodeState::Tainted => take(Reason::Tainted, rest),
    };
    Account { requested, free, withheld, overcommitted }
}
