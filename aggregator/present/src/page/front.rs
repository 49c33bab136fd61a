//! The front page: one sentence with the truth, the ladder of each resource, who waits and why, and the nodes.
use maud::{Markup, html};
use mcad_accounting::merge::{GpuSource, Snapshot};
use mcad_accounting::now::Now;
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::{AppWrapperView, Part};

use super::Shown;
use super::amount::{UNKNOWN, count, family, grouped, in_words, named, shown};
use super::bars::{Beside, Of, card, legend};
use super::lines::lines;
use super::nodes::Nodes;
use super::wanted::{Query, encoded};
use crate::explain::amount::{list, span, unit};
use crate::explain::appwrapper::AppWrapper;
use crate::explain::cluster::{Agents, Cluster, DeviceSlots};
use crate::explain::ladder::{ByResource, Rung};
use crate::explain::missing;
use crate::explain::truth::{self, Said};
use crate::explain::why::Places;
use crate::resources::order;

/// AppWrappers that wait, on one page: the rest are at `/api/v1`.
const WAITING: usize = 25;

/// Resources with a card of their own: nodes may declare any number.
const CARDS: usize = 12;

/// What the page says.
pub(super) fn front(shown: &Shown<'_>, query: &Query, now: Now) -> Markup {
    let snapshot = shown.snapshot;
    let cluster = Cluster::new(snapshot);
    let mut resources: Vec<Resource> = cluster.ladder.iter().flat_map(ByResource::iter).map(|(r, _)| r).collect();
    resources.sort_by_key(order);
    let nodes = Nodes::new(snapshot, query, &resources);
    let in_all = cluster.agents.up + cluster.agents.down;
    html! {
        section.truth #truth data-live {
            @for missing in missing::lines(&cluster, snapshot.input.as_deref()) { p.warn { (missing) } }
            p.sentence role="status" { (truth(&cluster)) }
            p.quiet { (about(snapshot, &cluster)) }
        }
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
        (waiting(snapshot, &cluster))
        section #nodes aria-labelledby="nodes-h" {
            h2 #nodes-h { "Nodes" }
            @match &nodes {
                None => p.unknown { "Nodes are not known." },
                Some(nodes) => {
                    (nodes.filter(&resources))
                    div #node-list data-live {
                        @if nodes.in_trouble() > 0 { p { strong.bad { (count(nodes.in_trouble())) " of " (count(in_all)) @if in_all == 1 { " node" } @else { " nodes" } " in trouble." } } }
                        (nodes.groups())
                        (nodes.table())
                    }
                }
            }
        }
    }
}

/// A sentence for each accelerator.
fn truth(cluster: &Cluster) -> Markup {
    if cluster.ladder.is_none() {
        return html! { "Nodes are " b.unknown { (UNKNOWN) } "." };
    }
    let all = truth::said(cluster);
    html! {
        @if all.is_empty() { "No node is known." }
        @for (at, of) in all.iter().take(truth::NAMED).enumerate() { @if at > 0 { " " } (sentence(of)) }
        @if all.len() > truth::NAMED { " " (count((all.len() - truth::NAMED) as u64)) " more accelerators below." }
    }
}

fn sentence(Said { resource, rung, largest_free_block, shares }: &Said<'_>) -> Markup {
    let what = html! { @match resource { Resource::Extended(name) => (named(name)), _ => (unit(resource)) } };
    let Some(allocatable) = rung.allocatable else {
        return html! {
            (said(resource, rung.installed, "installed")) " " (what) " installed, "
            (said(resource, rung.healthy, "healthy")) " work, " (busy(resource, rung)) "."
        };
    };
    let held = rung.requested.map(|requested| requested.appwrapper.saturating_add(requested.other));
    let block = largest_free_block.filter(|_| rung.free.is_some());
    let family_of_block =
        if *resource == Resource::Gpu { "mcad_gpu_largest_free_block" } else { "mcad_largest_free_block" };
    html! {
        (said(resource, Some(allocatable), "allocatable")) " " (what) " advertised"
        @if let Some(shares) = shares { " (" (named(&truth::shares_in_words(resource, *shares))) ")" } ", "
        (said(resource, rung.healthy, "healthy")) " work, "
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
    super::amount::figure(resource, amount, &Of::Cluster.family(name))
}

fn busy(resource: &Resource, rung: &Rung) -> Markup {
    let name = Of::Cluster.family("used");
    html! {
        @match &rung.used {
            Some(used) => { a.f href=(family(&name)) { (shown(resource, (used.in_all() * 10.0).round() / 10.0)) } " busy" },
            None => { "busy " a.f.unknown href=(family(&name)) { (UNKNOWN) } },
        }
    }
}

/// Where the figures come from.
fn about(snapshot: &Snapshot, cluster: &Cluster) -> Markup {
    let Agents { up, down } = cluster.agents;
    let in_all = up + down;
    let fake = snapshot.nodes.iter().filter(|node| node.gpu_source == Some(GpuSource::Fake)).count();
    html! {
        @if cluster.ladder.is_some() {
            @match (up, snapshot.kubernetes.is_some()) {
                (_, false) => { "No Kubernetes: this is what " (count(up)) " of " (count(in_all)) " agents measure. " },
                (0, true) => { "No agent reports: hardware is as kubelets declare it, and what is in use is unknown. " },
                (up, true) if up == in_all => { "Agents report from all " (count(in_all)) " nodes. " },
                (up, true) => { "Agents report from " a href=(family("mcad_node_agent_up")) { (count(up)) " of " (count(in_all)) } " nodes; of the others, hardware is as kubelets declare it. " },
            }
        }
        @for resource in cluster.accelerators.iter().take(truth::NAMED) { (slots(cluster, resource)) }
        @if let Some(sum) = &cluster.mcad_allocatable {
            "MCAD believes it can hand out "
            (list(&sum.iter().map(|(resource, amount)| in_words(&resource, *amount)).collect::<Vec<_>>()))
            " (" a href=(family("mcad_allocatable_capacity_gpu")) { "its own sum" } "). "
        }
        @if fake > 0 { strong.tag.bad { "FAKE GPUs on " (count(fake as u64)) @if fake == 1 { " node" } @else { " nodes" } } }
    }
}

fn slots(cluster: &Cluster, resource: &Resource) -> Markup {
    let of = |slots: &DeviceSlots| format!("{} of {}", count(u64::try_from(slots.pods).unwrap_or(0)), slots.count);
    let slots = cluster.slots(resource).map(|slots| slots.iter().map(of).collect::<Vec<_>>());
    let name = if *resource == Resource::Gpu { "mcad_gpu_slots" } else { "mcad_slots" };
    html! {
        @if let Some(slots) = slots {
            "Pods that could start now, by " @match resource { Resource::Extended(name) => (named(name)), _ => (unit(resource)) }
            " each: " a href=(family(name)) { (list(&slots)) } ". "
        }
    }
}

fn waiting(snapshot: &Snapshot, cluster: &Cluster) -> Markup {
    let Some(kubernetes) = &snapshot.kubernetes else { return html! {} };
    let Some(all) = &kubernetes.appwrappers else {
        return html! { section #appwrappers data-live { h2 { "AppWrappers" } p.unknown { "AppWrappers are " (UNKNOWN) "." } } };
    };
    let mut waiting: Vec<&AppWrapperView> = all.appwrappers.iter().filter(|view| view.waiting.is_some()).collect();
    // Who waits longest comes first, who waits since an unknown time last.
    let since = |view: &AppWrapperView| view.waiting.as_ref().and_then(|waiting| waiting.seconds).unwrap_or(-1.0);
    waiting.sort_by(|a, b| since(b).total_cmp(&since(a)));
    let mut places = Places::new(kubernetes);
    let told: Vec<_> = waiting.iter().take(WAITING).map(|view| AppWrapper::new(view, &mut places)).collect();
    let more = waiting.len() - told.len();
    let in_all = cluster.appwrappers.as_ref().map_or(0, |counts| counts.count);
    let in_part = || all.appwrappers.iter().filter(|view| view.unplaced.as_ref().is_some_and(|u| u.part == Part::Rest));
    let in_part_told: Vec<_> = in_part().take(WAITING).map(|view| AppWrapper::new(view, &mut places)).collect();
    let in_part_in_all = in_part().count();
    html! {
        section #appwrappers aria-labelledby="appwrappers-h" data-live {
            h2 #appwrappers-h { "AppWrappers" }
            p { a href=(family("mcad_appwrappers")) { (count(in_all)) } ", of which " (count(waiting.len() as u64)) " wait" @if waiting.len() == 1 { "s" }
                @if in_part_in_all > 0 { ", and " (count(in_part_in_all as u64)) @if in_part_in_all == 1 { " is" } @else { " are" } " placed in part" } "." }
            @if !told.is_empty() {
                table.waiting {
                    caption.hidden { "AppWrappers that wait, the longest first" }
                    thead { tr { th scope="col" { "AppWrapper" } th.n scope="col" { "Waits for" } th scope="col" { "Why" } th scope="col" { "Asks for" } } }
                    tbody { @for appwrapper in &told { (waits(appwrapper)) } }
                }
            }
            @if more > 0 { p.quiet { (count(more as u64)) " more are at " a href="/api/v1/appwrappers?waiting=true" { "/api/v1/appwrappers" } "." } }
            @if !in_part_told.is_empty() {
                table.waiting {
                    caption { "Started, but some of their pods have no node" }
                    thead { tr { th scope="col" { "AppWrapper" } th.n scope="col" { "Pods placed" } th scope="col" { "Why not all" } th scope="col" { "Asks for" } th scope="col" { "Holds" } } }
                    tbody { @for appwrapper in &in_part_told { (placed_in_part(appwrapper)) } }
                }
            }
            @if in_part_in_all > in_part_told.len() { p.quiet { (count((in_part_in_all - in_part_told.len()) as u64)) " more are at " a href="/api/v1/appwrappers" { "/api/v1/appwrappers" } "." } }
        }
    }
}

fn placed_in_part(appwrapper: &AppWrapper) -> Markup {
    html! {
        @if let Some(part) = &appwrapper.placed_in_part {
            tr {
                th scope="row" { (name_of(appwrapper)) }
                td.n { a.f href=(family("mcad_appwrapper_pods")) { (count(appwrapper.pods.saturating_sub(part.pods_unbound))) " of " (count(appwrapper.pods)) } }
                td.why { (named(&part.why)) }
                td.asks { (named(&amounts(&appwrapper.requested))) }
                td.asks { @if let Some(holds) = &appwrapper.allocated { (named(&amounts(holds))) } }
            }
        }
    }
}

fn name_of(appwrapper: &AppWrapper) -> Markup {
    let AppWrapper { namespace, name, queue, .. } = appwrapper;
    let at = format!("/api/v1/appwrappers/{}/{}", encoded(namespace), encoded(name));
    html! { span.quiet { (named(namespace)) "/" } a href=(at) { (named(name)) } @if !queue.is_empty() { " " small { "queue " (named(queue)) } } }
}

fn amounts(amounts: &ByResource<i64>) -> String {
    let named: Vec<_> =
        amounts.iter().filter(|(_, amount)| **amount != 0).map(|(r, amount)| in_words(&r, *amount)).collect();
    if named.is_empty() { "nothing".to_owned() } else { list(&named) }
}

fn waits(appwrapper: &AppWrapper) -> Markup {
    html! {
        @if let Some(waiting) = &appwrapper.waiting {
            tr {
                th scope="row" { (name_of(appwrapper)) }
                td.n { a.f href=(family("mcad_appwrapper_waiting_seconds")) { (waiting.seconds.map_or_else(|| UNKNOWN.to_owned(), span)) } }
                td.why {
                    (named(&waiting.why))
                    @if !waiting.shortfall.is_empty() {
                        @let short: Vec<_> = waiting.shortfall.iter().map(|(r, amount)| in_words(&r, *amount)).collect();
                        " " span.tag.held { "short of " (list(&short)) }
                    }
                }
                td.asks { (named(&amounts(&appwrapper.requested))) }
            }
        }
    }
}
