//! The first sentences: how many devices of each accelerator the cluster has, and how many are free. Owns the choice of
//! resources.
use mcad_accounting::hardware::shares::base;
use mcad_accounting::resource::Resource;

use super::amount::{Rounding, agreeing, count, number, unit_of, words};
use super::cluster::Cluster;
use super::ladder::{LadderEntry, Requested, Shares, UsedBy};
use crate::resources::order;

/// The most accelerators that have a sentence each.
pub const NAMED: usize = 8;

/// The content of the sentence on one resource.
#[derive(Clone, Debug)]
pub struct Said<'a> {
    /// The resource: an accelerator, or CPU if the cluster has no accelerator.
    pub resource: Resource,
    /// Its ladder.
    pub rung: &'a LadderEntry,
    /// The most that is free on one node. `None` if not known, or if the resource has no blocks.
    pub largest_free_block: Option<i64>,
    /// The devices that its units are shares of. `None` if they are not shares.
    pub shares: Option<Shares>,
}

/// The resources in order: GPUs first, other accelerators by name. Empty if no node is known.
pub fn said(cluster: &Cluster) -> Vec<Said<'_>> {
    let Some(ladder) = &cluster.ladder else { return Vec::new() };
    let mut resources = cluster.accelerators.clone();
    if resources.is_empty() {
        let there = [Resource::Gpu, Resource::Cpu].into_iter().filter(|resource| ladder.get(resource).is_some());
        resources.extend(there.take(1));
    }
    resources.sort_by_key(order);
    let said = resources.into_iter().filter_map(|resource| {
        let rung = ladder.get(&resource)?;
        let largest_free_block = cluster.largest_free_block(&resource);
        let shares = cluster.shares.get(resource.name()).copied();
        Some(Said { resource, rung, largest_free_block, shares })
    });
    said.collect()
}

/// One sentence for each resource.
pub fn sentences(cluster: &Cluster) -> Vec<String> {
    let said = said(cluster);
    let mut sentences: Vec<_> = said.iter().take(NAMED).map(sentence).collect();
    if said.len() > NAMED {
        let more = (said.len() - NAMED) as u64;
        sentences.push(format!("{} below.", count(more, "more accelerator", "more accelerators")));
    }
    sentences
}

/// `12 shares of 1 GPU`.
pub fn shares_in_words(resource: &Resource, shares: Shares) -> String {
    let devices = words(&Resource::extended(base(resource.name())), shares.devices.into(), Rounding::Nearest);
    format!("{} of {devices}", count(shares.shares.max(0).unsigned_abs(), "share", "shares"))
}

fn sentence(Said { resource, rung, largest_free_block, shares }: &Said<'_>) -> String {
    let figure = |amount: i64| number(resource, amount as f64, Rounding::Nearest);
    let of = |amount: Option<i64>, what: &str| match amount {
        Some(amount) => format!("{} {what}", figure(amount)),
        None => format!("{what} unknown"),
    };
    let what = |amount: Option<i64>| unit_of(resource, &amount.map(figure).unwrap_or_default());
    let works = of(rung.healthy, agreeing(&rung.healthy.map(figure).unwrap_or_default(), "works", "work"));
    let busy = match rung.used.as_ref().and_then(UsedBy::in_all) {
        // One decimal is enough.
        Some(used) => {
            let tenth = if *resource == Resource::Cpu { 100.0 } else { 0.1 };
            let used = (used / tenth).round() * tenth;
            format!("{} busy", number(resource, used, Rounding::Nearest))
        }
        None => "busy unknown".to_owned(),
    };
    let Some(allocatable) = rung.allocatable else {
        let installed = of(rung.installed, &format!("{} installed", what(rung.installed)));
        return format!("{installed}, {works}, {busy}.");
    };
    let advertised = of(Some(allocatable), &format!("{} advertised", what(Some(allocatable))));
    let shares = shares.map(|shares| format!(" ({})", shares_in_words(resource, shares))).unwrap_or_default();
    let held = rung.requested.map(Requested::in_all);
    let block = largest_free_block.filter(|_| rung.free.is_some());
    let block = block.map(|block| format!(", largest block {block}")).unwrap_or_default();
    let (held, free) = (of(held, "held"), of(rung.free, "free"));
    format!("{advertised}{shares}, {works}, {held}, {busy}; {free}{block}.")
}
