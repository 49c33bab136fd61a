//! The devices of one node as ResourceSlices and claims describe them: the units that the ladder counts, who holds
//! them, and exceptional conditions.
//!
//! A driver may offer a GPU as a whole, in parts and in other forms, each as a separate device; the ladder counts it
//! once. Pure: computes values from the state of the cluster. [`crate::ladder::units`] computes the ladder from them.
pub mod classes;
pub(crate) mod counters;
pub mod demand;
pub mod exceptions;
mod held;
pub mod names;
pub mod offer;
pub(crate) mod partitions;
pub(crate) mod unit;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::cluster::devices::{Pool, PoolName, PoolState};
use crate::cluster::owner::ByOwner;
use crate::devices::classes::Classes;
use crate::devices::exceptions::{Exception, Exceptions};
use crate::hardware::ResourceNames;
use crate::object::slice::Listed;
use crate::object::{AppWrapperName, Claim, ClaimName, IMPLICIT_CLASS, Node, Taint};
use crate::options::driver_resource::DeviceResources;
use crate::resource::{Amounts, Resource};

use self::held::{ClaimHoldings, claim_home, is_at_home};
pub(crate) use self::names::NVIDIA_DRIVER;
use self::names::{DeviceKey, stem_of};
use self::unit::HeldUnit;
pub use self::unit::{Unit, Unlisted};

/// The devices of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeDevices {
    /// The units that the ladder counts, by resource, in order.
    pub units: BTreeMap<Resource, Units>,
    /// Requests of pods on the node that claims represent. They count through the claims and not as requests.
    pub covered: ByOwner<Amounts>,
    /// What AppWrappers hold in addition to the requests of their pods: what their claims hold, minus the requests that
    /// claims represent. An AppWrapper may be listed twice.
    pub beside_requests: Vec<(AppWrapperName, Amounts)>,
    /// Exceptional conditions.
    pub exceptions: Exceptions,
    /// The number of further partitions that could be allocated, by resource and profile.
    pub partitions: BTreeMap<(Resource, Arc<str>), u64>,
    /// Devices of NVIDIA's driver that an agent reports as broken or missing.
    pub broken: Vec<(PoolName, Arc<str>)>,
}

/// Units of one resource on one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Units {
    /// Units that a slice lists.
    pub listed: Vec<Unit>,
    /// Held units that no slice lists.
    pub unlisted: Vec<Unlisted>,
}

/// The amount of a resource that kubelet declares as allocatable on a node.
type Allocatable<'a> = &'a dyn Fn(&Resource) -> i128;

impl Units {
    /// The number of units that are held, but by no claim as a whole.
    pub fn partly_held(&self) -> u64 {
        let listed = self.listed.iter().filter(|unit| unit.is_partly_held()).count();
        (listed + self.unlisted.iter().filter(|unit| unit.is_part).count()) as u64
    }

    /// Whether slices list devices other than permanently configured MIG instances.
    pub fn are_physical(&self) -> bool {
        self.listed.iter().any(|unit| unit.instance_profile.is_none())
    }
}

impl NodeDevices {
    /// The devices of a node. `None` if it has none and no claim concerns it. `broken` returns whether an agent reports
    /// a unit as broken.
    pub fn of_node(
        cluster: &Cluster,
        node: &Node,
        mapped: &DeviceResources,
        broken: &dyn Fn(&Unit) -> bool,
    ) -> Option<Self> {
        let allocatable = |resource: &Resource| node.allocatable.get(resource).unwrap_or(0);
        Self::of_name(cluster, &node.name, &allocatable, mapped, broken)
    }

    /// The same for a node that need not exist.
    fn of_name(
        cluster: &Cluster,
        node: &Arc<str>,
        allocatable: Allocatable<'_>,
        mapped: &DeviceResources,
        broken: &dyn Fn(&Unit) -> bool,
    ) -> Option<Self> {
        let claims = Concerned::of_node(cluster, node);
        let pools: Vec<&Pool> = cluster.pools_on(node).collect();
        let is_of_pod_here = |uid: &Arc<str>| cluster.pod_of_uid(uid).is_some_and(|pod| pod.held_node() == Some(node));
        let covered = cluster.device_pods_on(node).next().is_some()
            || cluster.unbound_claims().filter_map(Claim::extended_of).any(is_of_pod_here);
        if pools.is_empty() && claims.claims.is_empty() && !covered {
            return None;
        }
        let mut found = Self::default();
        let classes = Classes::of(cluster);
        found.cover(cluster, (node, allocatable), &claims, &classes);
        let held = ClaimHoldings::of(cluster, &claims.claims);
        found.list(cluster, node, &pools, &held, mapped);
        found.add_unlisted(cluster, node, &pools, &held, mapped);
        found.sum_up(&held, &classes, mapped, Some(node));
        found.count_claims(cluster, &claims, node);
        found.cut(node, &pools, &held, mapped, broken);
        let nvidia = |unit: &&Unit| unit.devices.iter().any(|(pool, _)| *pool.driver == *NVIDIA_DRIVER);
        let units = found.units.values().flat_map(|units| &units.listed).filter(nvidia);
        found.broken = units.filter(|unit| broken(unit)).flat_map(|unit| unit.devices.iter().cloned()).collect();
        Some(found)
    }

    /// What concerns no existing node: what claims hold elsewhere, and the exceptional conditions there.
    pub fn elsewhere(cluster: &Cluster, mapped: &DeviceResources) -> Self {
        let mut found = Self::default();
        let claims =
            Concerned { claims: cluster.claims_elsewhere().filter(|claim| !is_at_home(cluster, claim)).collect() };
        let classes = Classes::of(cluster);
        let held = ClaimHoldings::of(cluster, &claims.claims);
        found.sum_up(&held, &classes, mapped, None);
        found.count_pools(cluster, mapped);
        for claim in claims.claims.iter().filter(|claim| claim_home(cluster, claim).is_none()) {
            found.count_claim(cluster, claim);
        }
        // What is on nodes that do not exist is in no ladder, but AppWrappers still hold it.
        let names = cluster.nodes_of_device_pods().chain(cluster.device_nodes()).chain(cluster.nodes_of_claims());
        let gone: BTreeSet<&Arc<str>> = names.filter(|name| !cluster.has_node(name)).collect();
        for name in gone {
            let Some(of) = Self::of_name(cluster, name, &|_| 0, mapped, &|_| false) else { continue };
            found.exceptions.add_all(&of.exceptions);
            found.beside_requests.extend(of.beside_requests);
        }
        let unread = cluster.taint_rules().filter(|rule| rule.is_unread).count();
        found.exceptions.add(Exception::UnreadTaintRule, unread as u64);
        found
    }

    fn count_pools(&mut self, cluster: &Cluster, mapped: &DeviceResources) {
        let counts = cluster.pool_counts();
        self.exceptions.add(Exception::StaleSlice, counts.stale_slices);
        self.exceptions.add(Exception::IncompletePool, counts.incomplete);
        self.exceptions.add(Exception::InvalidPool, counts.invalid);
        for (driver, devices) in &counts.devices {
            match mapped.resource_of(driver) {
                None => self.exceptions.add(Exception::UnmappedDevice, devices.all),
                Some(_) => self.exceptions.add(Exception::OffNodeDevice, devices.on_no_node),
            }
        }
        for node in cluster.device_nodes().filter(|node| !cluster.has_node(node)) {
            for pool in cluster.pools_on(node).filter(|pool| mapped.resource_of(&pool.name.driver).is_some()) {
                let there = pool.listed().filter(|listed| listed.node() == Some(node)).count();
                self.exceptions.add(Exception::OffNodeDevice, there as u64);
            }
        }
        self.exceptions.add(Exception::AdminAccess, cluster.admin_results());
    }

    /// Exceptional conditions of the claims that this node counts, and of its pods.
    fn count_claims(&mut self, cluster: &Cluster, claims: &Concerned<'_>, node: &Arc<str>) {
        for claim in &claims.claims {
            if claim_home(cluster, claim).as_ref() == Some(node) {
                self.count_claim(cluster, claim);
            }
        }
        self.count_pods(cluster, node);
    }

    fn count_claim(&mut self, cluster: &Cluster, claim: &Claim) {
        let is_unused = claim.allocation.is_some() && cluster.holder_of(claim).consumers.is_empty();
        self.exceptions.add(Exception::UnusedClaim, is_unused.into());
    }

    fn count_pods(&mut self, cluster: &Cluster, node: &str) {
        for pod in cluster.device_pods_on(node) {
            let Some(claims) = pod.claims() else { continue };
            self.exceptions.add(Exception::NodeAllocatableClaim, (claims.node_allocatable > 0).into());
            self.exceptions.add(Exception::MissingClaim, claims.unmade.into());
            for name in &claims.names {
                let name = ClaimName { namespace: pod.namespace.clone(), name: name.clone() };
                // A claim that several pods use is missing only once.
                let is_first = || cluster.first_user(&name).is_some_and(|first| std::ptr::eq(first, pod));
                let is_missing = cluster.claim(&name).is_none() && is_first();
                self.exceptions.add(Exception::MissingClaim, is_missing.into());
            }
        }
    }

    /// Computes how many further partitions could be allocated.
    fn cut(
        &mut self,
        node: &str,
        pools: &[&Pool],
        held: &ClaimHoldings<'_>,
        mapped: &DeviceResources,
        broken: &dyn Fn(&Unit) -> bool,
    ) {
        for of_driver in pools.chunk_by(|a, b| a.name.driver == b.name.driver) {
            let Some(resource) = of_driver.first().and_then(|pool| mapped.resource_of(&pool.name.driver)) else {
                continue;
            };
            let units: Vec<&Unit> = self.units.get(resource).iter().flat_map(|units| &units.listed).collect();
            let parts = partitions::of_pools(of_driver, node, held, &units, broken);
            self.partitions.extend(parts.into_iter().map(|(profile, count)| ((resource.clone(), profile), count)));
        }
    }

    /// Computes which requests of pods on the node claims represent.
    fn cover(
        &mut self,
        cluster: &Cluster,
        (node, allocatable): (&Arc<str>, Allocatable<'_>),
        claims: &Concerned<'_>,
        classes: &Classes<'_>,
    ) {
        let mut beside: BTreeMap<AppWrapperName, Amounts> = BTreeMap::new();
        let mut add = |owner: Option<&AppWrapperName>, resource: &Resource, amount: i128| {
            // A class that is mapped to no resource has no ladder.
            if !resource.name().starts_with(IMPLICIT_CLASS) {
                let of_owner = if owner.is_some() { &mut self.covered.appwrapper } else { &mut self.covered.other };
                of_owner.add(resource, amount);
            }
            if let Some(owner) = owner {
                beside.entry(owner.clone()).or_default().add(resource, -amount);
            }
        };
        // The scheduler made a claim for these pods, but not all of them report it in their status.
        let made = claims.claims.iter().copied().chain(cluster.unbound_claims());
        let made_for: HashSet<&Arc<str>> =
            made.filter(|claim| claim.allocation.is_some()).filter_map(Claim::extended_of).collect();
        for pod in cluster.device_pods_on(node) {
            let Some(of) = pod.claims() else { continue };
            if of.tells_covered {
                of.covered.devices().for_each(|of_claim| add(pod.owner.as_ref(), &of_claim, of.covered.get(&of_claim)));
            }
            // A pod that requests the implicit resource of a class requests the resource that the class counts as.
            let is_made =
                |name: &str| !of.tells_covered && made_for.contains(&pod.uid) && classes.of_resource(name).is_some();
            for (name, amount) in of.by_class.iter().filter(|(name, _)| !is_made(name)) {
                add(pod.owner.as_ref(), &classes.counted_as(&Resource::Extended(name.clone())), -amount);
            }
        }
        // For a pod whose status does not report its claim: the resources that its node does not declare.
        for pod in made_for.into_iter().filter_map(|uid| cluster.pod_of_uid(uid)) {
            let tells = pod.claims().is_some_and(|of| of.tells_covered);
            if tells || pod.held_node() != Some(node) {
                continue;
            }
            for resource in pod.requests.devices() {
                if allocatable(&resource) == 0 && classes.of_resource(resource.name()).is_some() {
                    add(pod.owner.as_ref(), &resource, pod.requests.get(&resource));
                }
            }
        }
        self.beside_requests.extend(beside);
    }

    /// Adds the units that slices list.
    fn list(
        &mut self,
        cluster: &Cluster,
        node: &Arc<str>,
        pools: &[&Pool],
        held: &ClaimHoldings<'_>,
        mapped: &DeviceResources,
    ) {
        for driver in pools.chunk_by(|a, b| a.name.driver == b.name.driver) {
            let Some(resource) = driver.first().and_then(|pool| mapped.resource_of(&pool.name.driver)) else {
                continue;
            };
            let mut devices = Vec::new();
            for pool in driver {
                let rules: Vec<_> = cluster.taint_rules().filter(|rule| !rule.is_unread).collect();
                // A device that is listed twice counts once; its pool is invalid.
                let mut names = HashSet::new();
                let there = pool.listed().filter(|listed| listed.node() == Some(node));
                for listed in there.filter(|listed| names.insert(&**listed.name())) {
                    let by_rule = rules.iter().filter(|rule| rule.selects(listed)).map(|rule| &rule.taint);
                    let taints: Vec<&Taint> = listed.described().taints.iter().chain(by_rule).collect();
                    devices.push(unit::Member::new(pool, listed, &taints, held.holding(pool, listed.name())));
                }
            }
            for unit in unit::units(&devices) {
                let resource = match &unit.instance_profile {
                    Some(profile) => Resource::extended(&ResourceNames::default().part(profile)),
                    None => resource.clone(),
                };
                self.units.entry(resource).or_default().listed.push(unit);
            }
        }
    }

    /// Adds held devices that no slice lists. If a device with the same stem is listed, its unit counts as held
    /// instead.
    fn add_unlisted(
        &mut self,
        cluster: &Cluster,
        node: &Arc<str>,
        pools: &[&Pool],
        held: &ClaimHoldings<'_>,
        mapped: &DeviceResources,
    ) {
        let mut stems: BTreeMap<(&PoolName, &str), Unlisted> = BTreeMap::new();
        for (key, holding) in &held.of_device {
            let pool = cluster.pool(&key.pool);
            if pool.is_some_and(|pool| pool.lists(&key.device)) {
                continue;
            }
            let stem = stem_of(&key.pool.driver, &key.device);
            let is_whole = *stem == *key.device && holding.is_whole;
            let is_of_stem = |listed: &Listed<'_>| stem_of(&key.pool.driver, listed.name()) == stem;
            if let Some(pool) = pool
                && pool.listed().any(|listed| is_of_stem(&listed))
            {
                // If it is on another node, the unit there is held.
                if pools.iter().any(|known| known.name == pool.name) {
                    self.hold_stem(pool, stem, HeldUnit { is_appwrapper: holding.is_appwrapper, is_whole });
                }
                continue;
            }
            let is_here = holding.claims.iter().any(|claim| claim.only_node() == Some(&**node));
            if !is_here {
                continue;
            }
            let is_gone = pool.is_some_and(|pool| pool.state == PoolState::Usable);
            let unlisted =
                stems.entry((&key.pool, stem)).or_insert(Unlisted { is_appwrapper: false, is_gone, is_part: true });
            unlisted.is_appwrapper |= holding.is_appwrapper;
            unlisted.is_part &= !is_whole;
        }
        for ((pool, _), unlisted) in stems {
            if let Some(resource) = mapped.resource_of(&pool.driver) {
                self.units.entry(resource.clone()).or_default().unlisted.push(unlisted);
            }
        }
    }

    fn hold_stem(&mut self, pool: &Pool, stem: &str, by: HeldUnit) {
        let of_stem = |unit: &&mut Unit| {
            unit.devices.iter().any(|(name, device)| *name == pool.name && stem_of(&pool.name.driver, device) == stem)
        };
        let mut units = self.units.values_mut().flat_map(|units| &mut units.listed);
        // If the pool is on other nodes, no device with this stem may be here.
        if let Some(unit) = units.find(of_stem) {
            unit.hold(by);
        }
    }

    /// Adds what AppWrappers hold on the node, and counts devices that are gone or not reported. If a claim concerns
    /// several nodes, each node counts its own devices.
    fn sum_up(
        &mut self,
        held: &ClaimHoldings<'_>,
        classes: &Classes<'_>,
        mapped: &DeviceResources,
        node: Option<&Arc<str>>,
    ) {
        let mut sums: BTreeMap<&AppWrapperName, Sum<'_>> = BTreeMap::new();
        for (key, holding) in &held.of_device {
            if holding.home.as_deref() != node.map(|node| &**node) {
                continue;
            }
            if holding.is_unlisted() {
                let exception = if holding.is_gone { Exception::DeviceGone } else { Exception::DeviceUnseen };
                self.exceptions.add(exception, 1);
            }
            let resource = mapped.resource_of(&key.pool.driver);
            let unit = self.unit_of(key);
            for (owner, classes_held) in &holding.owners {
                let sum = sums.entry(owner).or_default();
                let own = match (&unit, resource) {
                    (Some((resource, at)), _) => {
                        sum.units.insert((resource.clone(), UnitKey::Listed(*at)));
                        Some(resource.clone())
                    }
                    // An unlisted stem is one unit. A device that is on no node is no unit.
                    (None, Some(resource)) if node.is_some() && holding.is_unlisted() => {
                        let stem = stem_of(&key.pool.driver, &key.device);
                        sum.units.insert((resource.clone(), UnitKey::Stem(&key.pool, stem)));
                        Some(resource.clone())
                    }
                    _ => None,
                };
                let as_classes: BTreeSet<Resource> =
                    classes_held.iter().map(|class| classes.resource_of(class)).collect();
                for of_class in as_classes.iter().filter(|of_class| Some(*of_class) != own.as_ref()) {
                    sum.devices.add(of_class, 1);
                }
            }
        }
        let amounts = |sum: Sum<'_>| {
            let mut amounts = sum.devices;
            for (resource, _) in sum.units {
                amounts.add(&resource, 1);
            }
            amounts
        };
        self.beside_requests.extend(sums.into_iter().map(|(name, sum)| (name.clone(), amounts(sum))));
    }

    /// The resource and position of the unit that contains this device, or a device with the same stem.
    fn unit_of(&self, key: &DeviceKey) -> Option<(Resource, usize)> {
        let stem = stem_of(&key.pool.driver, &key.device);
        let has = |unit: &Unit, matches: &dyn Fn(&str) -> bool| {
            unit.devices.iter().any(|(pool, device)| *pool == key.pool && matches(device))
        };
        let find = |matches: &dyn Fn(&str) -> bool| {
            self.units.iter().find_map(|(resource, units)| {
                let at = units.listed.iter().position(|unit| has(unit, matches))?;
                Some((resource.clone(), at))
            })
        };
        find(&|device| *device == *key.device).or_else(|| find(&|device| stem_of(&key.pool.driver, device) == stem))
    }
}

/// What one AppWrapper holds.
#[derive(Default)]
struct Sum<'a> {
    units: BTreeSet<(Resource, UnitKey<'a>)>,
    devices: Amounts,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum UnitKey<'a> {
    Listed(usize),
    Stem(&'a PoolName, &'a str),
}

/// The claims that concern a node: they are bound to it, or hold a device on it.
struct Concerned<'a> {
    claims: Vec<&'a Claim>,
}

impl<'a> Concerned<'a> {
    fn of_node(cluster: &'a Cluster, node: &str) -> Self {
        let of_pools = cluster.pools_on(node).flat_map(|pool| cluster.claims_of_pool(&pool.name));
        let mut claims: Vec<&Claim> = cluster.claims_bound_to(node).chain(of_pools).collect();
        claims.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        claims.dedup_by(|a, b| a.name == b.name);
        Self { claims }
    }
}
