//! The front page: one sentence about each accelerator, a card for each resource, waiting AppWrappers, and the nodes.
use maud::{Markup, html};
use mcad_accounting::now::Now;
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::agent::Agent;

use super::Shown;
use super::amount::{UNKNOWN, count, family, grouped, named, shown};
use super::appwrappers::appwrappers;
use super::bars::{Beside, Of, card, legend};
use super::held::held;
use super::lines::lines;
use super::nodes::Nodes;
use super::query::ClusterQuery;
use super::queues::{promise, queues};
use crate::explain::amount::{agreeing, list, unit, unit_of};
use crate::explain::cluster::{Agents, Cluster, DeviceSlots, pools};
use crate::explain::ladder::{ByResource, LadderEntry, Requested, UsedBy};
use crate::explain::missing;
use crate::explain::truth::{self, Said};
use crate::resources::order;

/// Resources with a card of their own: nodes can declare any number of resources.
const CARDS: usize = 12;

/// The content of the page.
pub(super) fn front(shown: &Shown<'_>, query: &ClusterQuery, now: Now) -> Markup {
    let snapshot = shown.snapshot;
    let cluster = Cluster::new(snapshot);
    let mut resources: Vec<Resource> = cluster.ladder.iter().flat_map(ByResource::iter).map(|(r, _)| r).collect();
    resources.sort_by_key(order);
    let nodes = Nodes::new(snapshot, query, &resources);
    let in_all = cluster.agents.up + cluster.agents.down;
    html! {
        section.truth #truth data-live {
            @for missing in missing::lines(&cluster, snapshot.input.as_deref()) { p.warn { (missing) } }
            p.sentence role="status" { (promise(snapshot)) (truth(&cluster)) }
            p.quiet { (about(snapshot, &cluster)) }
        }
        h2.hidden { "Resources" }
        div #resources data-live {
            (legend())
            div.cards {
                @for resource in resources.iter().take(CARDS) {
                    @if let Some(rung) = cluster.ladder.as_ref().and_then(|ladder| ladder.get(resource)) {
                        @let on = cluster.nodes_by_reason.as_ref().and_then(|by| by.get(resource));
                        @let measured = cluster.nodes_measured.get(resource).copied().filter(|n| *n < in_all);
                        @let measured = measured.map(|n| format!("on {} of {} nodes", count(n), count(in_all)));
                        @let shares = cluster.shares.get(resource.name()).copied();
                        (card(resource, rung, &Beside { on, measured: measured.as_deref(), shares }, Of::Cluster, &lines(resource, shown.history, now)))
                    }
                }
            }
            @if resources.len() > CARDS { p.quiet { (count((resources.len() - CARDS) as u64)) " more resources are at " a href="/metrics" { "/metrics" } "." } }
        }
        @if snapshot.has_kubernetes() { div #gpu-use data-live { (held(snapshot)) } }
        div #waiting data-live {
            (appwrappers(snapshot, &cluster, query))
            (queues(snapshot, query))
        }
        section #nodes aria-labelledby="nodes-h" {
            h2 #nodes-h { "Nodes" }
            (nodes.filter(&resources))
            p #matches role="status" data-live { (nodes.matches()) }
            div #node-list data-live { (nodes.list()) }
        }
    }
}

/// One sentence about each accelerator.
fn truth(cluster: &Cluster) -> Markup {
    if cluster.ladder.is_none() {
        return html! { "Nodes are " b.unknown { (UNKNOWN) } "." };
    }
    let all = truth::said(cluster);
    html! {
        @if all.is_empty() { "No nodes are known." }
        @for (at, of) in all.iter().take(truth::NAMED).enumerate() { @if at > 0 { " " } (sentence(of)) }
        @if all.len() > truth::NAMED { " " (count((all.len() - truth::NAMED) as u64)) " more accelerators below." }
    }
}

fn sentence(Said { resource, rung, largest_free_block, shares }: &Said<'_>) -> Markup {
    let what = |amount: Option<i64>| {
        let shown = amount.map(|amount| shown(resource, amount as f64)).unwrap_or_default();
        html! { @match resource { Resource::Extended(name) => (named(name)), _ => (unit_of(resource, &shown)) } }
    };
    let works = html! {
        @let shown = rung.healthy.map(|healthy| shown(resource, healthy as f64)).unwrap_or_default();
        (said(resource, rung.healthy, "healthy")) " " (agreeing(&shown, "works", "work"))
    };
    let Some(allocatable) = rung.allocatable else {
        return html! {
            (said(resource, rung.installed, "installed")) " " (what(rung.installed)) " installed, "
            (works) ", " (busy(resource, rung)) "."
        };
    };
    let held = rung.requested.map(Requested::in_all);
    let block = largest_free_block.filter(|_| rung.free.is_some());
    let family_of_block =
        if *resource == Resource::Gpu { "mcad_gpu_largest_free_block" } else { "mcad_largest_free_block" };
    html! {
        (said(resource, Some(allocatable), "allocatable")) " " (what(Some(allocatable))) " advertised"
        @if let Some(shares) = shares { " (" (named(&truth::shares_in_words(resource, *shares))) ")" } ", "
        (works) ", "
        (said(resource, held, "requested")) " held, "
        (busy(resource, rung)) "; "
        (said(resource, rung.free, "free")) " free"
        @if let Some(block) = block {
            ", largest block " a.f href=(family(family_of_block)) { (grouped(&block.to_string())) }
        }
        "."
    }
}

fn said(resource: &Resource, amount: Option<i64>, name: &str) -> Markup {
    super::amount::value(resource, amount, &Of::Cluster.family(name))
}

fn busy(resource: &Resource, rung: &LadderEntry) -> Markup {
    let name = Of::Cluster.family("used");
    html! {
        @match rung.used.as_ref().and_then(UsedBy::in_all) {
            Some(used) => { a.f href=(family(&name)) { (shown(resource, (used * 10.0).round() / 10.0)) } " busy" },
            None => { "busy " a.f.unknown href=(family(&name)) { (UNKNOWN) } },
        }
    }
}

/// Where the values come from, and what could start now.
fn about(snapshot: &Snapshot, cluster: &Cluster) -> Markup {
    let Agents { up, down } = cluster.agents;
    let in_all = up + down;
    let fake = snapshot.agents.iter().filter(|agent| Agent::has_fake_gpus(agent)).count();
    html! {
        @if cluster.ladder.is_some() {
            @match (up, snapshot.has_kubernetes()) {
                (_, false) => { "Kubernetes is not used: the values are what " (count(up)) " of " (count(in_all)) " agents measure. " },
                (0, true) => { "No agent reports. Hardware is shown as kubelets declare it; what is in use is unknown. " },
                (up, true) if up == in_all => { "Agents report from all " (count(in_all)) " nodes. " },
                (up, true) => { "Agents report from " a href=(family("mcad_node_agent_up")) { (count(up)) " of " (count(in_all)) } " nodes. Hardware of the other nodes is shown as kubelets declare it. " },
            }
        }
        @for resource in cluster.accelerators.iter().take(truth::NAMED) { (slots(cluster, resource)) }
        @if let Some(sum) = &cluster.mcad_allocatable {
            a href=(family("mcad_allocatable_capacity_gpu")) { "MCAD's own sum" } " of allocatable capacity: "
            (sum.words_of_all()) ". "
        }
        @if fake > 0 { strong.tag.bad { "FAKE GPUs on " (count(fake as u64)) @if fake == 1 { " node" } @else { " nodes" } } }
    }
}

fn slots(cluster: &Cluster, resource: &Resource) -> Markup {
    let of = |slots: &DeviceSlots| format!("{} with {}", count(u64::try_from(slots.pods).unwrap_or(0)), slots.count);
    let slots = cluster.slots(resource).map(|slots| slots.iter().map(of).collect::<Vec<_>>());
    let name = if *resource == Resource::Gpu { "mcad_gpu_slots" } else { "mcad_slots" };
    html! {
        @if let Some(slots) = slots {
            "Pods that could start now, by " @match resource { Resource::Extended(name) => (named(name)), _ => (unit(resource)) }
            " per pod: " a href=(family(name)) { (list(&slots)) } ". "
            // Free devices of two models are no place for a pod that needs one model.
            @for pool in pools::lines(cluster, resource) { (pool) " " }
        }
    }
}
