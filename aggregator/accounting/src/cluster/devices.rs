//! Devices that drivers offer and claims that hold them: ResourceSlices, ResourceClaims, ResourceClaimTemplates,
//! DeviceClasses, DeviceTaintRules.
//!
//! Stores these objects and their relations: slices form pools, claims hold devices of pools, pods use claims.
//! [`crate::devices`] computes the sums per node. The cost of an event depends on its object and the nodes that the
//! object concerns.
mod claims;
mod events;
mod lists;
mod pools;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::cluster::pods::Place;
use crate::object::{Claim, ClaimName, ClaimTemplate, Consumer, DeviceClass, Pod, TaintRule};
use crate::table::Table;

use self::claims::Claims;
pub use self::lists::DeviceInput;
use self::lists::Lists;
use self::pools::Pools;
pub use self::pools::{DeviceCounts, Pool, PoolCounts, PoolName, PoolState};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pools: Pools,
    claims: Claims,
    templates: Table<ClaimName, Arc<ClaimTemplate>>,
    classes: BTreeMap<Arc<str>, Arc<DeviceClass>>,
    rules: BTreeMap<Arc<str>, Arc<TaintRule>>,
    /// Pods that use a claim, by the claim's name.
    users: Table<ClaimName, Vec<Place>>,
    /// Pods that use claims, by the node that they are bound to.
    pods_on: Table<Arc<str>, Vec<Place>>,
    lists: Lists,
}

impl Devices {
    fn is_empty(&self) -> bool {
        self.pools.is_empty() && self.claims.is_empty() && self.users.is_empty()
    }
}

/// The pods that a claim is reserved for, and whether they belong to an AppWrapper.
#[derive(Debug)]
pub struct ClaimHolder<'a> {
    /// Bound, unfinished pods, unordered.
    pub consumers: Vec<&'a Pod>,
    /// Whether the claim is held for an AppWrapper.
    pub is_appwrapper: bool,
}

impl Cluster {
    /// Whether any object of Dynamic Resource Allocation exists.
    pub fn has_device_objects(&self) -> bool {
        let devices = &self.devices;
        !devices.pools.is_empty()
            || !devices.claims.is_empty()
            || !devices.templates.is_empty()
            || !devices.classes.is_empty()
            || !devices.rules.is_empty()
    }

    /// Pools with a device on that node, by driver and name.
    pub fn pools_on(&self, node: &str) -> impl Iterator<Item = &Pool> {
        self.devices.pools.on(node)
    }

    /// All pools, by driver and name.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.devices.pools.all()
    }

    /// The pool with that name.
    pub fn pool(&self, name: &PoolName) -> Option<&Pool> {
        self.devices.pools.get(name)
    }

    /// The claims to which a device of a pool is allocated, unordered.
    pub fn claims_of_pool(&self, name: &PoolName) -> impl Iterator<Item = &Claim> {
        self.devices.claims.of_pool(name)
    }

    /// The claims that are bound to this node only, unordered.
    pub fn claims_bound_to(&self, node: &str) -> impl Iterator<Item = &Claim> {
        self.devices.claims.bound_to(node)
    }

    /// All claims, unordered.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.devices.claims.all()
    }

    /// The claim with that name.
    pub fn claim(&self, name: &ClaimName) -> Option<&Claim> {
        self.devices.claims.get(name)
    }

    /// The template with that name.
    pub fn claim_template(&self, name: &ClaimName) -> Option<&Arc<ClaimTemplate>> {
        self.devices.templates.get(name)
    }

    /// The classes, by name.
    pub fn device_classes(&self) -> impl Iterator<Item = &Arc<DeviceClass>> {
        self.devices.classes.values()
    }

    /// The class with that name.
    pub fn device_class(&self, name: &str) -> Option<&Arc<DeviceClass>> {
        self.devices.classes.get(name)
    }

    /// The rules that taint devices, by name.
    pub fn taint_rules(&self) -> impl Iterator<Item = &Arc<TaintRule>> {
        self.devices.rules.values()
    }

    /// The bound, unfinished pods of a node that use claims, unordered.
    pub fn device_pods_on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        let places = self.devices.pods_on.get(node).into_iter().flatten();
        places.filter_map(|place| self.pods.at(*place)).filter(|pod| pod.held_node().is_some())
    }

    /// The nodes that such pods are bound to, including nodes that do not exist.
    pub fn nodes_of_device_pods(&self) -> impl Iterator<Item = &Arc<str>> {
        self.devices.pods_on.keys()
    }

    /// The first by name of the bound, unfinished pods that use a claim.
    pub fn first_user(&self, claim: &ClaimName) -> Option<&Pod> {
        let places = self.devices.users.get(claim).into_iter().flatten();
        let pods = places.filter_map(|place| self.pods.at(*place)).filter(|pod| pod.held_node().is_some());
        pods.min_by_key(|pod| pod.name.clone())
    }

    /// The nodes that have devices, including nodes that do not exist.
    pub fn device_nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.devices.pools.nodes()
    }

    /// The nodes that claims are bound to, including nodes that do not exist.
    pub fn nodes_of_claims(&self) -> impl Iterator<Item = &Arc<str>> {
        self.devices.claims.nodes()
    }

    /// The claims that are allocated and not bound to a single node, unordered.
    pub fn unbound_claims(&self) -> impl Iterator<Item = &Claim> {
        self.devices.claims.unbound()
    }

    /// The numbers of pools and devices, by state.
    pub fn pool_counts(&self) -> &PoolCounts {
        self.devices.pools.counts()
    }

    /// The number of devices that are allocated to claims for administrative access.
    pub fn admin_results(&self) -> u64 {
        self.devices.claims.admin_results()
    }

    /// All claims that may hold something outside the existing nodes, each once. Some of them may hold nothing there.
    pub fn claims_elsewhere(&self) -> impl Iterator<Item = &Claim> {
        let (claims, pools) = (&self.devices.claims, &self.devices.pools);
        let unbound = claims.unbound();
        let lost = claims.nodes().filter(|node| !self.has_node(node)).flat_map(|node| claims.bound_to(node));
        let off = pools.off_node().flat_map(|name| claims.of_pool(name));
        let gone = pools.nodes().filter(|node| !self.has_node(node)).flat_map(|node| pools.on(node));
        let on_gone = gone.flat_map(|pool| claims.of_pool(&pool.name));
        let mut all: Vec<&Claim> = unbound.chain(lost).chain(off).chain(on_gone).collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|a, b| a.name == b.name);
        all.into_iter()
    }

    /// The holder of a claim.
    pub fn holder_of(&self, claim: &Claim) -> ClaimHolder<'_> {
        let mut consumers: Vec<&Pod> = Vec::new();
        let mut of_others = false;
        for consumer in &claim.reserved_for {
            match consumer {
                Consumer::Pod(uid) => consumers.extend(self.pods.of_uid(uid).map(|(_, pod)| pod)),
                Consumer::Other => of_others = true,
            }
        }
        if of_others {
            let places = self.devices.users.get(&claim.name).into_iter().flatten();
            consumers.extend(places.filter_map(|place| self.pods.at(*place)));
        }
        consumers.retain(|pod| pod.held_node().is_some());
        consumers.sort_unstable_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        consumers.dedup_by(|a, b| std::ptr::eq(*a, *b));
        let is_appwrapper = match &consumers[..] {
            [] => claim.owner().is_some(),
            some => some.iter().any(|pod| pod.owner.is_some()),
        };
        ClaimHolder { consumers, is_appwrapper }
    }
}
