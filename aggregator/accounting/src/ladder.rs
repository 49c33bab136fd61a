//! The ladder of one node and resource: from what is installed to what a new pod could get, by reason (docs/accounting.md §4).
//!
//! Pure arithmetic on whole amounts. Where the hardware's figures come from is in [`crate::hardware`].
use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::cluster::owner::ByOwner;
use crate::hardware::{Found, Hardware};
use crate::object::Node;
use crate::options::tolerated::Tolerated;
use crate::resource::{Amounts, Resource};

/// Whether a node takes new pods, and if not, why: the first reason that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// New pods may land.
    Admissible,
    /// `spec.unschedulable`.
    Cordoned,
    /// Kubelet is not ready, or has not said so.
    NotReady,
    /// A taint keeps pods off that is not generally tolerated.
    Tainted,
}

impl NodeState {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Admissible, Self::Cordoned, Self::NotReady, Self::Tainted];

    /// The state of a node, given the taints that keep no pod off.
    pub fn of(node: &Node, tolerated: &Tolerated) -> Self {
        if !node.ready {
            Self::NotReady
        } else if node.cordoned {
            Self::Cordoned
        } else if node.taints.iter().any(|taint| taint.effect.repels() && !tolerated.tolerates(taint)) {
            Self::Tainted
        } else {
            Self::Admissible
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

/// Why an amount is neither requested nor free. In the order in which it is taken from what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The hardware is gone.
    Lost,
    /// The hardware is there and broken.
    Unhealthy,
    /// The hardware works and kubelet does not declare it.
    Unadvertised,
    /// Kubelet keeps it from pods.
    Reserved,
    /// Healthy and unassigned, but Kubernetes' own arithmetic will not hand it out.
    Stranded,
    /// The node is not ready.
    NotReady,
    /// The node is cordoned.
    Cordoned,
    /// The node is tainted.
    Tainted,
}

impl Reason {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Lost,
        Self::Unhealthy,
        Self::Unadvertised,
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
            Self::Reserved => "reserved",
            Self::Stranded => "stranded",
            Self::NotReady => "not_ready",
            Self::Cordoned => "cordoned",
            Self::Tainted => "tainted",
        }
    }
}

/// Amounts withheld, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withheld([i128; Reason::ALL.len()]);

impl Withheld {
    /// How much for that reason.
    pub fn get(&self, reason: Reason) -> i128 {
        self.0[reason as usize]
    }

    /// Every reason and its amount, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, i128)> {
        Reason::ALL.into_iter().zip(self.0)
    }

    /// All reasons together.
    pub fn total(&self) -> i128 {
        self.0.iter().sum()
    }
}

/// The ladder of one resource, on one node or added up. Whole millicores, bytes or devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rung {
    /// What the machine has.
    pub installed: i128,
    /// Installed less what is lost or unhealthy.
    pub healthy: i128,
    /// `status.capacity`
    pub capacity: i128,
    /// `status.allocatable`
    pub allocatable: i128,
    /// Allocatable where new pods may land.
    pub admissible: i128,
    /// Who has what is installed. `None` if Pods are not known: then nothing is known to be free.
    pub account: Option<Account>,
    /// Allocatable that no healthy hardware stands behind. Absent: no agent has looked.
    pub phantom: Option<i128>,
}

/// Who has what is installed: `installed + overcommitted = Σ requested + free + Σ withheld`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Effective requests of bound, unfinished pods.
    pub requested: ByOwner<i128>,
    /// What a new pod could get.
    pub free: i128,
    /// Neither requested nor free.
    pub withheld: Withheld,
    /// Requests beyond installed.
    pub overcommitted: i128,
}

impl Rung {
    /// Adds another node's.
    pub fn add(&mut self, other: &Self) {
        self.installed += other.installed;
        self.healthy += other.healthy;
        self.capacity += other.capacity;
        self.allocatable += other.allocatable;
        self.admissible += other.admissible;
        match (&mut self.account, &other.account) {
            (Some(sum), Some(account)) => sum.add(account),
            // A sum with an unknown part is unknown.
            (sum, _) => *sum = None,
        }
        self.phantom = match (self.phantom, other.phantom) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
    }

    /// What a new pod could get; 0 where that is not known.
    pub fn surely_free(&self) -> i128 {
        self.account.as_ref().map_or(0, |account| account.free)
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

    /// What pods hold, whoever they are.
    pub fn requested_in_all(&self) -> i128 {
        self.requested.appwrapper + self.requested.other
    }
}

/// The ladder of one node: cpu, memory, and every other resource that it declares, its agent found, or its pods request above
/// 0, in order. A node that says nothing of its cpu, as a new one may, has none of it. `requested` is `None` if Pods are not
/// known.
pub fn of_node(
    node: &Node,
    state: NodeState,
    requested: Option<ByOwner<&Amounts>>,
    found: &Found<'_>,
) -> Vec<(Resource, Rung)> {
    let declared = node.capacity.resources().chain(node.allocatable.resources());
    let always = [&Resource::Cpu, &Resource::Memory];
    let mut resources: BTreeSet<Cow<'_, Resource>> =
        always.into_iter().chain(declared).chain(found.resources()).map(Cow::Borrowed).collect();
    // Pods may hold devices that their node no longer declares: its plugin is gone, the pods are not.
    for of_owner in requested.iter().flat_map(|requested| [requested.appwrapper, requested.other]) {
        resources.extend(of_owner.devices().map(Cow::Owned));
    }
    let rung = |resource: Cow<'_, Resource>| {
        let requested = requested.as_ref().map(|requested| ByOwner {
            appwrapper: requested.appwrapper.get(&resource),
            other: requested.other.get(&resource),
        });
        let kubelet = Kubelet {
            capacity: node.capacity.get(&resource).unwrap_or(0),
            allocatable: node.allocatable.get(&resource).unwrap_or(0),
        };
        let rung = of_resource(&resource, state, kubelet, requested, found.get(&resource));
        (resource.into_owned(), rung)
    };
    resources.into_iter().map(rung).collect()
}

/// What kubelet declares of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Kubelet {
    /// `status.capacity`
    pub capacity: i128,
    /// `status.allocatable`
    pub allocatable: i128,
}

/// The rules of docs/accounting.md §4, by number. `requested` is `None` if Pods are not known.
pub fn of_resource(
    resource: &Resource,
    state: NodeState,
    kubelet: Kubelet,
    requested: Option<ByOwner<i128>>,
    hardware: Option<&Hardware>,
) -> Rung {
    let Kubelet { capacity, allocatable } = kubelet;
    // Without an agent: installed is what kubelet says, and so is what of a device is healthy. What it calls broken may
    // be in a pod's hands or not; it counts as unassigned.
    let word = || Hardware {
        installed: capacity,
        unhealthy: if resource.is_extended() { (capacity - allocatable).max(0) } else { 0 },
        ..Hardware::default()
    };
    let seen = hardware.copied();
    let hardware = seen.unwrap_or_else(word);
    let Hardware { installed, lost, unhealthy, .. } = hardware;
    let healthy = (installed - lost - unhealthy).max(0);
    Rung {
        installed,
        healthy,
        capacity,
        allocatable,
        admissible: if state == NodeState::Admissible { allocatable } else { 0 },
        account: requested.map(|requested| account(state, kubelet, requested, hardware, healthy)),
        // 4
        phantom: seen.map(|_| (allocatable - healthy).max(0)),
    }
}

fn account(state: NodeState, kubelet: Kubelet, requested: ByOwner<i128>, hardware: Hardware, healthy: i128) -> Account {
    let Kubelet { capacity, allocatable } = kubelet;
    let Hardware { installed, lost, unhealthy, lost_assigned, unhealthy_assigned } = hardware;
    // 1
    let all = requested.appwrapper + requested.other;
    let overcommitted = (all - installed).max(0);
    // 2, 3
    let mut left = installed - all.min(installed);
    let mut withheld = Withheld::default();
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
