//! Computes how many further partitions of each profile a node could allocate from its GPUs.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::counters::Left;
use super::held::ClaimHoldings;
use super::names::PROFILE;
use super::unit::{Unit, is_all};
use crate::cluster::devices::{Pool, PoolState};
use crate::object::slice::Listed;

/// For each profile, how many further partitions these pools could allocate on a node, if only this profile is
/// allocated, one partition after the other. `units` are the units of the node; nothing is allocated from a `broken`
/// unit.
pub(super) fn of_pools<'a>(
    pools: &[&'a Pool],
    node: &str,
    held: &ClaimHoldings<'_>,
    units: &[&Unit],
    broken: &dyn Fn(&Unit) -> bool,
) -> BTreeMap<Arc<str>, u64> {
    let mut parts: BTreeMap<Arc<str>, Vec<(usize, Listed<'a>, bool)>> = BTreeMap::new();
    for (at, pool) in pools.iter().enumerate() {
        for listed in pool.listed().filter(|listed| listed.node().is_some_and(|on| **on == *node)) {
            let Some(profile) = listed.text(PROFILE).filter(|_| !listed.described().consumes.is_empty()) else {
                continue;
            };
            let unit = units.iter().find(|unit| unit.has(&pool.name, listed.name()));
            let is_left = |unit: &&&Unit| {
                let takes_all = is_all(pool, listed);
                !(broken(unit) || unit.tainted.contains(listed.name()) || takes_all && unit.held.is_some())
            };
            let is_offered = pool.state == PoolState::Usable
                && held.holding(pool, listed.name()).is_none()
                && unit.as_ref().is_some_and(is_left);
            parts.entry(profile.into()).or_default().push((at, listed, is_offered));
        }
    }
    let mut left: Vec<Left<'a>> = Vec::with_capacity(pools.len());
    let count = |parts: Vec<(usize, Listed<'a>, bool)>, left: &mut Vec<Left<'a>>| {
        left.clear();
        for pool in pools {
            let mut of_pool = Left::of(pool);
            pool.listed()
                .filter(|listed| held.holding(pool, listed.name()).is_some())
                .for_each(|listed| of_pool.take(listed));
            left.push(of_pool);
        }
        let mut count = 0;
        for (at, listed, _) in parts.into_iter().filter(|(.., is_offered)| *is_offered) {
            if let Some(left) = left.get_mut(at)
                && left.has(listed)
            {
                left.take(listed);
                count += 1;
            }
        }
        count
    };
    parts.into_iter().map(|(profile, parts)| (profile, count(parts, &mut left))).collect()
}
