//! Which devices claims hold, for whom, and which node counts them.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::names::{DeviceKey, stem_of};
use crate::cluster::Cluster;
use crate::cluster::devices::{Pool, PoolName, PoolState};
use crate::object::slice::Listed;
use crate::object::{AppWrapperName, Claim};

/// The devices that claims hold, and their holders.
pub(super) struct ClaimHoldings<'a> {
    pub(super) of_device: HashMap<DeviceKey, Holding<'a>>,
}

/// The claims that hold one device.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub(super) struct Holding<'a> {
    /// The claims.
    pub claims: Vec<&'a Claim>,
    /// Whether one of them is held for an AppWrapper.
    pub is_appwrapper: bool,
    /// Whether one of them holds the whole device.
    pub is_whole: bool,
    /// The AppWrappers that hold it, and the classes through which each requested it, once for each of its claims.
    pub(super) owners: BTreeMap<AppWrapperName, BTreeSet<Arc<str>>>,
    /// The node that counts the device.
    pub(super) home: Option<Arc<str>>,
    is_listed: bool,
    pub(super) is_gone: bool,
}

impl Holding<'_> {
    pub(super) fn is_unlisted(&self) -> bool {
        !self.is_listed
    }
}

impl<'a> ClaimHoldings<'a> {
    pub(super) fn of(cluster: &'a Cluster, claims: &[&'a Claim]) -> Self {
        let mut of_device: HashMap<DeviceKey, Holding<'a>> = HashMap::new();
        for claim in claims {
            let holder = cluster.holder_of(claim);
            let mut owners: BTreeSet<&AppWrapperName> =
                holder.consumers.iter().filter_map(|pod| pod.owner.as_ref()).collect();
            if holder.consumers.is_empty() {
                owners.extend(claim.owner());
            }
            for granted in claim.held() {
                let pool = PoolName::of_granted(granted);
                let at = home_of(cluster, claim, &pool, &granted.device);
                let known = cluster.pool(&pool);
                let stem = stem_of(&pool.driver, &granted.device);
                let lists = |listed: Listed<'_>| stem_of(&pool.driver, listed.name()) == stem;
                let is_listed = known.is_some_and(|known| known.listed().any(lists));
                let is_gone = known.is_some_and(|known| known.state == PoolState::Usable);
                let key = DeviceKey { pool, device: granted.device.clone() };
                let holding = of_device.entry(key).or_insert_with(|| Holding {
                    claims: Vec::new(),
                    is_appwrapper: false,
                    is_whole: false,
                    owners: BTreeMap::new(),
                    home: None,
                    is_listed,
                    is_gone,
                });
                holding.home = holding.home.take().or(at);
                holding.claims.push(claim);
                holding.is_appwrapper |= holder.is_appwrapper;
                holding.is_whole |= !granted.is_share;
                let class = claim.requests.class_of(&granted.request);
                for owner in &owners {
                    holding.owners.entry((*owner).clone()).or_default().extend(class.cloned());
                }
            }
        }
        Self { of_device }
    }

    pub(super) fn holding(&self, pool: &Pool, device: &Arc<str>) -> Option<&Holding<'a>> {
        self.of_device.get(&DeviceKey { pool: pool.name.clone(), device: device.clone() })
    }
}

/// Whether an existing node counts what a claim holds.
pub(super) fn is_at_home(cluster: &Cluster, claim: &Claim) -> bool {
    claim_home(cluster, claim).is_some_and(|home| cluster.has_node(&home))
        && claim.held().all(|granted| {
            home_of(cluster, claim, &PoolName::of_granted(granted), &granted.device)
                .is_some_and(|node| cluster.has_node(&node))
        })
}

/// The node that counts a claim: the node it is bound to, otherwise the node of its first device.
pub(super) fn claim_home(cluster: &Cluster, claim: &Claim) -> Option<Arc<str>> {
    if let Some(node) = claim.only_node() {
        return Some(node.into());
    }
    let first = claim.granted().next()?;
    let pool = PoolName::of_granted(first);
    home_of(cluster, claim, &pool, &first.device)
}

/// The node that counts a device that a claim holds: the node where it is listed, otherwise the node that the claim is
/// bound to.
fn home_of(cluster: &Cluster, claim: &Claim, pool: &PoolName, device: &str) -> Option<Arc<str>> {
    let known = cluster.pool(pool);
    let listed = known.and_then(|pool| pool.listed().find(|listed| **listed.name() == *device));
    let of_stem = || {
        let stem = stem_of(&pool.driver, device);
        known.and_then(|known| known.listed().find(|listed| stem_of(&pool.driver, listed.name()) == stem))
    };
    match listed.or_else(of_stem) {
        Some(listed) => listed.node().cloned(),
        None => claim.only_node().map(Arc::from),
    }
}
