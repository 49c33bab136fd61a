//! The tree of Cohorts above the ClusterQueues that the page shows, and the quotas that Cohorts have of their own.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maud::{Markup, html};
use mcad_accounting::object::Cohort;
use mcad_accounting::object::quotas::ResourceGroup;
use mcad_accounting::queue::account::QueueAccount;
use mcad_accounting::resource::Resource;
use mcad_accounting::resource::amount::Amount;

use super::amount::{agreeing_unit, count, named};
use super::query::encoded;
use crate::explain::amount::{Rounding, list, words};
use crate::resources::order;

/// Levels of Cohorts that the tree shows.
const DEEP: usize = 12;

/// Quotas that are named of one Cohort.
const NAMED: usize = 4;

/// See the module's documentation.
pub(super) struct Cohorts<'a> {
    objects: BTreeMap<&'a Arc<str>, &'a Cohort>,
    /// The Cohorts below each Cohort.
    below: BTreeMap<&'a Arc<str>, BTreeSet<&'a Arc<str>>>,
    /// The ClusterQueues in each Cohort.
    queues: BTreeMap<&'a Arc<str>, Vec<&'a QueueAccount>>,
    /// Those without a Cohort above them.
    roots: BTreeSet<&'a Arc<str>>,
    /// Those in a cycle, or below one.
    in_cycle: BTreeSet<&'a Arc<str>>,
}

impl<'a> Cohorts<'a> {
    pub(super) fn new(queues: &[&'a QueueAccount], cohorts: &'a [Arc<Cohort>]) -> Self {
        let objects: BTreeMap<_, _> = cohorts.iter().map(|cohort| (&cohort.name, &**cohort)).collect();
        let mut tree = Self {
            objects,
            below: BTreeMap::new(),
            queues: BTreeMap::new(),
            roots: BTreeSet::new(),
            in_cycle: BTreeSet::new(),
        };
        let mut known: BTreeSet<&Arc<str>> = BTreeSet::new();
        for account in queues.iter().filter(|account| !account.queue.cohort.is_empty()) {
            let mut name = &account.queue.cohort;
            tree.queues.entry(name).or_default().push(account);
            while known.insert(name) {
                match tree.objects.get(name).map(|cohort| &cohort.parent).filter(|parent| !parent.is_empty()) {
                    Some(parent) => {
                        tree.below.entry(parent).or_default().insert(name);
                        name = parent;
                    }
                    None => drop(tree.roots.insert(name)),
                }
            }
        }
        let mut below: Vec<_> = tree.roots.iter().copied().collect();
        while let Some(name) = below.pop() {
            known.remove(name);
            below.extend(tree.below.get(name).into_iter().flatten().copied());
        }
        tree.in_cycle = known;
        tree
    }

    pub(super) fn shown(&self) -> Markup {
        html! {
            @if !self.roots.is_empty() {
                ul.cohorts aria-label="Cohorts and their queues" { @for root in &self.roots { (self.cohort(root, 1)) } }
            }
            @if !self.in_cycle.is_empty() {
                p.warn {
                    "These Cohorts are in a cycle or below one, so their queues admit nothing: "
                    @for (at, name) in self.in_cycle.iter().take(DEEP).enumerate() { @if at > 0 { ", " } (named(name)) }
                    @if self.in_cycle.len() > DEEP { " and " (count((self.in_cycle.len() - DEEP) as u64)) " more" } "."
                }
            }
        }
    }

    fn cohort(&self, name: &Arc<str>, depth: usize) -> Markup {
        let below = self.below.get(name);
        let quotas = self.objects.get(name).map(|cohort| own(&cohort.groups)).unwrap_or_default();
        html! {
            li {
                "Cohort " b { (named(name)) }
                @if !quotas.is_empty() { small { ", quota of its own: " (named(&list(&quotas))) } }
                @if let Some(queues) = self.queues.get(name) {
                    ul { @for account in queues { li { a href=(format!("#{}", anchor(&account.queue.name))) { (named(&account.queue.name)) } } } }
                }
                @if let Some(below) = below.filter(|_| depth < DEEP) { ul { @for name in below { (self.cohort(name, depth + 1)) } } }
                @if below.is_some() && depth == DEEP { p.quiet { "Cohorts further down are not shown." } }
            }
        }
    }
}

/// The quotas of a Cohort itself.
fn own(groups: &[ResourceGroup]) -> Vec<String> {
    let mut quotas: Vec<(&Resource, &Arc<str>, Amount)> = Vec::new();
    for flavor in groups.iter().flat_map(|group| &group.flavors) {
        let all = flavor.quotas.iter().map(|(resource, quota)| (resource, &flavor.name, quota.nominal));
        quotas.extend(all.filter(|(.., nominal)| *nominal > Amount::ZERO));
    }
    quotas.sort_by_key(|(resource, flavor, _)| (order(resource), *flavor));
    let in_words = |(resource, flavor, nominal): &(&Resource, &Arc<str>, Amount)| match nominal.units() {
        Some(units) => format!("{} ({flavor})", words(resource, units, Rounding::Nearest)),
        None => format!("unlimited {} ({flavor})", agreeing_unit(resource, "")),
    };
    let mut all: Vec<_> = quotas.iter().take(NAMED).map(in_words).collect();
    if quotas.len() > NAMED {
        all.push(format!("{} more", quotas.len() - NAMED));
    }
    all
}

/// The id of a ClusterQueue's part of the page.
pub(super) fn anchor(name: &str) -> String {
    format!("queue-{}", encoded(name))
}
