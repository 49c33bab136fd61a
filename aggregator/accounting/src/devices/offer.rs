//! What the fit on nodes needs to know about devices at one instant: pools and their holders, classes, rules, and the
//! claims that waiting AppWrappers use.
//!
//! It shares its slices with the cluster. It is computed only if the fit is computed and an AppWrapper needs it, so
//! scrapes do not pay for it.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::cluster::devices::{DeviceInput, Pool, PoolName};
use crate::devices::classes::Classes;
use crate::devices::demand::requests_of;
use crate::object::constraints::NodeSelector;
use crate::object::demand::PodGroup;
use crate::object::request::{Constraint, Mode, Requests};
use crate::object::slice::Reach;
use crate::object::{
    AppWrapper, AppWrapperName, Claim, ClaimName, ClaimRef, DeviceClass, IMPLICIT_CLASS, Node, TaintRule,
};
use crate::options::driver_resource::DeviceResources;

/// See the module's documentation.
#[derive(Debug)]
pub struct Offers {
    /// The pools, by driver and name.
    pub(crate) pools: Vec<Offered>,
    /// Pools with a device that is on a node, by node.
    on_node: HashMap<Arc<str>, Vec<u32>>,
    /// Pools with a device that is not on a single node, or with a slice without devices.
    off_node: Vec<u32>,
    /// The number of devices in those pools: all of them are examined for each node.
    pub(crate) devices_off_nodes: usize,
    classes: BTreeMap<Arc<str>, Arc<DeviceClass>>,
    /// The class of each extended resource that a class names explicitly.
    explicit: HashMap<Arc<str>, Arc<DeviceClass>>,
    /// The rules that are applied.
    pub(crate) rules: Vec<Arc<TaintRule>>,
    /// The state of the claims that AppWrappers use.
    claims: BTreeMap<AppWrapperName, BTreeMap<ClaimRef, Claimed>>,
    /// Devices that an agent reports as broken, by node.
    broken: HashMap<Arc<str>, BTreeSet<(PoolName, Arc<str>)>>,
    /// The resource that devices count as, by driver. Devices of other drivers form no units.
    pub(crate) mapped: DeviceResources,
    /// Whether the API server serves these kinds of objects.
    pub(crate) are_served: bool,
}

/// A pool, and which of its devices are held.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) pool: Arc<Pool>,
    /// Devices that claims hold, by name, including devices that are not listed.
    held: Box<[(Arc<str>, Hold)]>,
    /// Held devices that no slice lists.
    unlisted: Box<[Arc<str>]>,
}

/// How a device is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    /// All holders hold shares of it.
    Shares,
    /// A claim holds the whole device.
    Whole,
}

/// The state of a claim or claim template that pods use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// It does not exist.
    Missing,
    /// It contains a request of an unsupported form.
    Unclear,
    /// No devices are allocated to it yet.
    Asking(Arc<Requests>),
    /// Devices are allocated to it, and its pods are restricted to these nodes. `None`: they are not restricted.
    Allocated(Option<Arc<NodeSelector>>),
}

impl Offered {
    /// How a device is held, if it is.
    pub(crate) fn hold(&self, device: &str) -> Option<Hold> {
        let at = self.held.binary_search_by(|(known, _)| (**known).cmp(device)).ok()?;
        Some(self.held[at].1)
    }

    /// Held devices that no slice lists.
    pub(crate) fn unlisted(&self) -> &[Arc<str>] {
        &self.unlisted
    }

    /// Whether pods on a node can use devices of the pool.
    pub(crate) fn reaches(&self, node: &Node) -> bool {
        self.pool.slices().iter().any(|slice| match &slice.reach {
            Reach::PerDevice => slice.devices().any(|listed| listed.reach().includes(node)),
            reach => reach.includes(node),
        })
    }

    /// Whether pods on several nodes may use devices of the pool.
    pub(crate) fn is_wide(&self) -> bool {
        let is_off_node = |reach: &Reach| !matches!(reach, Reach::Node(_));
        self.pool.nodes().len() > 1 || self.pool.listed().any(|listed| is_off_node(listed.reach()))
    }
}

impl Offers {
    /// The offers of a cluster, for AppWrappers whose pods need a node. `None` if none of these AppWrappers needs
    /// devices through claims or classes, or devices and claims are not known.
    pub(crate) fn of<'a>(
        cluster: &Cluster,
        needy: impl Iterator<Item = (&'a AppWrapper, &'a [PodGroup])>,
        broken: HashMap<Arc<str>, BTreeSet<(PoolName, Arc<str>)>>,
        mapped: &DeviceResources,
    ) -> Option<Self> {
        let input = cluster.device_input();
        if input == DeviceInput::Unknown {
            return None;
        }
        let classes = Classes::of(cluster);
        let has_pools = cluster.pools().next().is_some();
        let mut claims = BTreeMap::new();
        let mut is_needed = false;
        for (appwrapper, groups) in needy {
            let used: BTreeSet<&ClaimRef> = groups.iter().flat_map(|group| &group.claims).collect();
            let by_class =
                |name: &str| name.starts_with(IMPLICIT_CLASS) || (has_pools && classes.of_resource(name).is_some());
            is_needed |= !used.is_empty()
                || groups.iter().any(|group| group.requests.devices().any(|resource| by_class(resource.name())));
            if !used.is_empty() {
                let known = used.into_iter().map(|claim| (claim.clone(), Claimed::of(appwrapper, claim, cluster)));
                claims.insert(appwrapper.name.clone(), known.collect());
            }
        }
        if !is_needed {
            return None;
        }
        let pools = pools(cluster);
        let (mut on_node, mut off_node): (HashMap<Arc<str>, Vec<u32>>, Vec<u32>) = Default::default();
        for (at, offered) in (0..).zip(&pools) {
            for node in offered.pool.nodes() {
                on_node.entry(node.clone()).or_default().push(at);
            }
            let mut slices = offered.pool.slices().iter();
            if slices.any(|slice| slice.devices.is_empty() || slice.devices().any(|listed| listed.node().is_none())) {
                off_node.push(at);
            }
        }
        Some(Self {
            devices_off_nodes: off_node.iter().map(|at| 1 + pools[*at as usize].pool.listed().count()).sum(),
            pools,
            on_node,
            off_node,
            classes: cluster.device_classes().map(|class| (class.name.clone(), class.clone())).collect(),
            explicit: classes.explicit().map(|(name, class)| (name.into(), class.clone())).collect(),
            rules: cluster.taint_rules().filter(|rule| !rule.is_unread).cloned().collect(),
            claims,
            broken,
            mapped: mapped.clone(),
            are_served: input == DeviceInput::Known,
        })
    }

    /// The positions of the pools whose devices pods on a node can use, by driver and name.
    pub(crate) fn pools_of(&self, node: &Node) -> Vec<u32> {
        let local = self.on_node.get(&node.name).into_iter().flatten();
        let wide = self.off_node.iter().filter(|at| self.pools[**at as usize].reaches(node));
        let mut all: Vec<u32> = local.chain(wide).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The class with that name.
    pub(crate) fn class(&self, name: &str) -> Option<&Arc<DeviceClass>> {
        self.classes.get(name)
    }

    /// The class that an extended resource is mapped to.
    pub(crate) fn class_of_resource(&self, name: &str) -> Option<&Arc<DeviceClass>> {
        match name.strip_prefix(IMPLICIT_CLASS) {
            Some(class) => self.classes.get(class),
            None => self.explicit.get(name),
        }
    }

    /// The state of a claim that an AppWrapper's pods use.
    pub(crate) fn claim(&self, appwrapper: &AppWrapperName, claim: &ClaimRef) -> &Claimed {
        self.claims.get(appwrapper).and_then(|claims| claims.get(claim)).unwrap_or(&Claimed::Missing)
    }

    /// Whether an agent reports a device of a node as broken.
    pub(crate) fn is_broken(&self, node: &str, pool: &PoolName, device: &Arc<str>) -> bool {
        self.broken.get(node).is_some_and(|broken| broken.contains(&(pool.clone(), device.clone())))
    }

    /// Whether a device that a pod takes on one node may then be missing on another node.
    pub(crate) fn are_wide(&self) -> bool {
        self.pools.iter().any(Offered::is_wide)
    }
}

/// All pools, and which of their devices claims hold.
fn pools(cluster: &Cluster) -> Vec<Offered> {
    let places: HashMap<(&str, &str), usize> =
        cluster.pools().enumerate().map(|(at, pool)| ((&*pool.name.driver, &*pool.name.pool), at)).collect();
    let mut all: Vec<BTreeMap<Arc<str>, Hold>> = vec![BTreeMap::new(); places.len()];
    for granted in cluster.claims().flat_map(Claim::held) {
        // Devices held from a pool that does not exist do not matter.
        if let Some(of_pool) = places.get(&(&*granted.driver, &*granted.pool)).and_then(|at| all.get_mut(*at)) {
            let hold = if granted.is_share { Hold::Shares } else { Hold::Whole };
            let known = of_pool.entry(granted.device.clone()).or_insert(hold);
            *known = hold.max(*known);
        }
    }
    let offered = |(pool, mut held): (&Arc<Pool>, BTreeMap<Arc<str>, Hold>)| {
        let all = held.clone().into_iter().collect();
        for listed in pool.listed() {
            held.remove(listed.name());
        }
        Offered { pool: pool.clone(), held: all, unlisted: held.into_keys().collect() }
    };
    cluster.pools().zip(all).map(offered).collect()
}

impl Claimed {
    fn of(appwrapper: &AppWrapper, claim: &ClaimRef, cluster: &Cluster) -> Self {
        let name = |name: &Arc<str>| ClaimName { namespace: appwrapper.name.namespace.clone(), name: name.clone() };
        match claim {
            ClaimRef::Claim(of) => {
                if let Some(known) = cluster.claim(&name(of)) {
                    if let Some(allocation) = &known.allocation {
                        return Self::Allocated(allocation.nodes.clone());
                    }
                    if known.excess().is_some() {
                        return Self::Unclear;
                    }
                }
            }
            ClaimRef::Template(of) => {
                let is_own = appwrapper.demand.own_claim(claim).is_some();
                let excess = || cluster.claim_template(&name(of)).and_then(|template| template.excess);
                if !is_own && excess().is_some() {
                    return Self::Unclear;
                }
            }
        }
        match requests_of(appwrapper, claim, cluster) {
            None => Self::Missing,
            Some(requests) if is_clear(&requests) => Self::Asking(requests),
            Some(_) => Self::Unclear,
        }
    }
}

/// Whether every part of the requests is supported.
fn is_clear(requests: &Requests) -> bool {
    let constraints = &requests.constraints;
    requests.requests.iter().all(|request| {
        !request.alternatives.is_empty()
            && request.alternatives.iter().all(|choice| {
                !choice.class.is_empty()
                    && choice.unreadable == 0
                    && !matches!(choice.mode, Mode::Unknown | Mode::Exactly(0))
            })
    }) && !constraints.iter().any(|constraint| matches!(constraint, Constraint::Unknown))
}
