//! The first sentence: how much there is of each accelerator that the cluster has, and how much of it is free. Owns which
//! resources it speaks of.
use mcad_accounting::hardware::shares::base;
use mcad_accounting::resource::Resource;

use super::amount::{Rounding, count, number, printable, unit, words};
use super::cluster::Cluster;
use super::ladder::{Rung, Shares};
use crate::resources::order;

/// So many accelerators are told of in a sentence each.
pub const NAMED: usize = 8;

/// What is said of one resource.
#[derive(Clone, Debug)]
pub struct Said<'a> {
    /// The resource: an accelerator, or cores where the cluster has none.
    pub resource: Resource,
    /// How much there is of it.
    pub rung: &'a Rung,
    /// The most that is free of it on one node. Absent: not known, or nothing that comes in blocks.
    pub largest_free_block: Option<i64>,
    /// Of how many devices it is shares. Absent: it is none.
    pub shares: Option<Shares>,
}

/// What is said, in order: GPUs first, other accelerators by name. Nothing where no node is known.
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

/// All of it as text, a sentence each.
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
    let of = |amount: Option<i64>, what: &str| match amount {
        Some(amount) => format!("{} {what}", number(resource, amount as f64, Rounding::Nearest)),
        None => format!("{what} unknown"),
    };
    let what = printable(unit(resource));
    let busy = match &rung.used {
        // A tenth is what one reads.
        Some(used) => {
            let tenth = if *resource == Resource::Cpu { 100.0 } else { 0.1 };
            let used = (used.in_all() / tenth).round() * tenth;
            format!("{} busy", number(resource, used, Rounding::Nearest))
        }
        None => "busy unknown".to_owned(),
    };
    let Some(allocatable) = rung.allocatable else {
        let installed = of(rung.installed, &format!("{what} installed"));
        return format!("{installed}, {}, {busy}.", of(rung.healthy, "work"));
    };
    let advertised = of(Some(allocatable), &format!("{what} advertised"));
    let shares = shares.map(|shares| format!(" ({})", shares_in_words(resource, shares))).unwrap_or_default();
    let held = rung.requested.map(|requested| requested.appwrapper.saturating_add(requested.other));
    let block = largest_free_block.filter(|_| rung.free.is_some());
    let block = block.map(|block| format!(", largest block {block}")).unwrap_or_default();
    let (works, held, free) = (of(rung.healthy, "work"), of(held, "held"), of(rung.free, "free"));
    format!("{advertised}{shares}, {works}, {held}, {busy}; {free}{block}.")
}
