//! Stores the claims of a cluster, indexed by name, by the pool and node of the devices that they hold, and by the pod
//! that they are reserved for.
use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::HashTable;

use super::PoolName;
use crate::object::{Claim, ClaimName, Consumer, Uid};
use crate::table::{Secret, Table};

/// The position of a claim in `kept`.
type At = u32;

/// See the module's documentation. The indices hold only positions, because there are as many claims as devices in use.
#[derive(Debug, Default)]
pub(super) struct Claims {
    kept: Vec<Option<Box<Claim>>>,
    free: Vec<At>,
    by_name: HashTable<At>,
    by_consumer: HashTable<Reserved>,
    by_pool: Table<PoolName, Vec<At>>,
    by_node: Table<Arc<str>, Vec<At>>,
    /// Claims that are allocated and not bound to a single node.
    unbound: std::collections::BTreeSet<At>,
    /// The number of devices that are allocated for administrative access.
    admin_results: u64,
    hasher: Secret,
}

/// One reservation of a claim: the claim, and the position in its list of consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reserved {
    claim: At,
    consumer: u32,
}

impl Claims {
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(super) fn get(&self, name: &ClaimName) -> Option<&Claim> {
        self.at(self.place(name)?)
    }

    fn place(&self, name: &ClaimName) -> Option<At> {
        let is_it = |at: &At| self.at(*at).is_some_and(|claim| claim.name == *name);
        self.by_name.find(self.hasher.hash_one(name), is_it).copied()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Claim> {
        self.kept.iter().flatten().map(|claim| &**claim)
    }

    pub(super) fn of_pool(&self, name: &PoolName) -> impl Iterator<Item = &Claim> {
        self.by_pool.get(name).into_iter().flatten().filter_map(|at| self.at(*at))
    }

    pub(super) fn bound_to(&self, node: &str) -> impl Iterator<Item = &Claim> {
        self.by_node.get(node).into_iter().flatten().filter_map(|at| self.at(*at))
    }

    /// The claims that are reserved for a pod. A claim that is reserved for it twice may be returned twice.
    pub(super) fn reserved_for(&self, uid: &str) -> impl Iterator<Item = &Claim> {
        let all = self.by_consumer.iter_hash(self.hasher.hash_one(uid));
        all.filter(move |reserved| uid_of(&self.kept, **reserved) == Some(uid))
            .filter_map(|reserved| self.at(reserved.claim))
    }

    /// The claims that are allocated and not bound to a single node.
    pub(super) fn unbound(&self) -> impl Iterator<Item = &Claim> {
        self.unbound.iter().filter_map(|at| self.at(*at))
    }

    /// The number of devices that are allocated to claims for administrative access.
    pub(super) fn admin_results(&self) -> u64 {
        self.admin_results
    }

    /// The nodes that claims are bound to.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_node.keys()
    }

    /// Claims that are bound to one node usually have equal node selectors, which are stored once.
    pub(super) fn share_nodes(&self, claim: &mut Claim) {
        let Some(node) = claim.only_node() else { return };
        let known = self.by_node.get(node).and_then(|claims| self.at(*claims.first()?));
        if let Some(known) = known.and_then(|known| known.allocation.as_ref()?.nodes.as_ref()) {
            claim.share_nodes(|nodes| if nodes == known { known.clone() } else { nodes.clone() });
        }
    }

    fn at(&self, at: At) -> Option<&Claim> {
        self.kept.get(at as usize)?.as_deref()
    }

    /// Adds a claim, and returns the earlier claim of that name.
    pub(super) fn put(&mut self, claim: Claim) -> Option<Claim> {
        let before = self.take(&claim.name, &Uid::Unknown);
        // The highest position needs far more claims than fit into memory.
        let at = self.free.pop().unwrap_or(self.kept.len() as At);
        for name in pools_of(&claim) {
            self.by_pool.entry(name).or_default().push(at);
        }
        self.admin_results += admin_results(&claim);
        match claim.only_node() {
            Some(node) => match self.by_node.get_mut(node) {
                Some(claims) => claims.push(at),
                None => drop(self.by_node.insert(node.into(), vec![at])),
            },
            None if claim.allocation.is_some() => drop(self.unbound.insert(at)),
            None => {}
        }
        let name_hash = self.hasher.hash_one(&claim.name);
        let claim = Some(Box::new(claim));
        match self.kept.get_mut(at as usize) {
            Some(place) => *place = claim,
            None => self.kept.push(claim),
        }
        let Self { kept, by_name, by_consumer, hasher, .. } = self;
        let by_its_name = |at: &At| kept.get(*at as usize)?.as_ref().map(|claim| hasher.hash_one(&claim.name));
        by_name.insert_unique(name_hash, at, |at| by_its_name(at).unwrap_or(0));
        let by_its_uid = |reserved: &Reserved| uid_of(kept, *reserved).map(|uid| hasher.hash_one(uid));
        for reserved in consumers(kept, at) {
            if let Some(hash) = by_its_uid(&reserved) {
                by_consumer.insert_unique(hash, reserved, |reserved| by_its_uid(reserved).unwrap_or(0));
            }
        }
        before
    }

    /// Removes the claim with that name, if its UID matches.
    pub(super) fn take(&mut self, name: &ClaimName, uid: &Uid) -> Option<Claim> {
        let at = self.place(name)?;
        self.at(at).filter(|claim| claim.uid.may_be(uid))?;
        if let Ok(found) = self.by_name.find_entry(self.hasher.hash_one(name), |known| *known == at) {
            found.remove();
        }
        for reserved in consumers(&self.kept, at) {
            let Some(uid) = uid_of(&self.kept, reserved) else { continue };
            if let Ok(found) = self.by_consumer.find_entry(self.hasher.hash_one(uid), |known| *known == reserved) {
                found.remove();
            }
        }
        let claim = self.kept.get_mut(at as usize)?.take()?;
        self.free.push(at);
        for name in pools_of(&claim) {
            forget(&mut self.by_pool, &name, at);
        }
        if let Some(node) = claim.only_node() {
            forget(&mut self.by_node, node, at);
        }
        self.unbound.remove(&at);
        self.admin_results -= admin_results(&claim);
        Some(*claim)
    }
}

fn forget<K, Q>(table: &mut Table<K, Vec<At>>, key: &Q, at: At)
where
    K: std::borrow::Borrow<Q> + Eq + std::hash::Hash,
    Q: Eq + std::hash::Hash + ?Sized,
{
    let Some(places) = table.get_mut(key) else { return };
    places.retain(|known| *known != at);
    if places.is_empty() {
        table.remove(key);
    }
}

fn admin_results(claim: &Claim) -> u64 {
    claim.granted().filter(|granted| granted.is_admin).count() as u64
}

/// The pools that a claim holds devices of, each once.
fn pools_of(claim: &Claim) -> Vec<PoolName> {
    let pools = claim.granted().map(PoolName::of_granted);
    let mut pools: Vec<PoolName> = pools.collect();
    pools.sort();
    pools.dedup();
    pools
}

/// All reservations of the claim at that position.
fn consumers(kept: &[Option<Box<Claim>>], claim: At) -> impl Iterator<Item = Reserved> + use<> {
    let all = kept.get(claim as usize).and_then(Option::as_ref).map_or(0, |claim| claim.reserved_for.len() as u32);
    (0..all).map(move |consumer| Reserved { claim, consumer })
}

/// The UID of the pod that a claim is reserved for.
fn uid_of(kept: &[Option<Box<Claim>>], reserved: Reserved) -> Option<&str> {
    let claim = kept.get(reserved.claim as usize)?.as_ref()?;
    match claim.reserved_for.get(reserved.consumer as usize)? {
        Consumer::Pod(uid) if !uid.is_empty() => Some(uid),
        _ => None,
    }
}
