//! The AppWrappers on the front page: those that wait, sorted by wait, size or namespace, and those that are partly placed.
use maud::{Markup, html};
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::{AppWrapperView, Part, Snapshot};

use super::amount::{UNKNOWN, count, family, named};
use super::query::{AppWrapperKey, AppWrapperSort, ClusterQuery, Direction, encoded};
use crate::explain::amount::span;
use crate::explain::appwrapper::AppWrapper;
use crate::explain::cluster::Cluster;
use crate::explain::why::Places;

/// AppWrappers in a table. The others are at `/api/v1`.
const ROWS: usize = 25;

/// The section of the AppWrappers. Empty without Kubernetes: then there are none.
pub(super) fn appwrappers(snapshot: &Snapshot, cluster: &Cluster, query: &ClusterQuery) -> Markup {
    if !snapshot.has_kubernetes() {
        return html! {};
    }
    let Some(all) = &snapshot.appwrappers else {
        return html! { section #appwrappers aria-labelledby="appwrappers-h" { h2 #appwrappers-h { "AppWrappers" } p.unknown { "AppWrappers are " (UNKNOWN) "." } } };
    };
    let mut waiting: Vec<&AppWrapperView> = all.appwrappers.iter().filter(|view| view.waiting.is_some()).collect();
    sort(&mut waiting, query.appwrapper_sort, &cluster.accelerators);
    let partly: Vec<&AppWrapperView> = all.appwrappers.iter().filter(|view| is_partly_placed(view)).collect();
    let mut places = Places::new(snapshot);
    let mut rows = |views: &[&AppWrapperView]| -> Vec<_> {
        views.iter().take(ROWS).map(|view| AppWrapper::new(view, &mut places)).collect()
    };
    let (waiting_rows, partly_rows) = (rows(&waiting), rows(&partly));
    let in_all = cluster.appwrappers.as_ref().map_or(0, |counts| counts.count);
    html! {
        section #appwrappers aria-labelledby="appwrappers-h" {
            h2 #appwrappers-h { "AppWrappers" }
            p {
                a href=(family("mcad_appwrappers")) { (count(in_all)) } @if in_all == 1 { " AppWrapper: " } @else { " AppWrappers: " }
                (count(waiting.len() as u64)) @if waiting.len() == 1 { " waits" } @else { " wait" }
                @if !partly.is_empty() { ", " (count(partly.len() as u64)) @if partly.len() == 1 { " is" } @else { " are" } " partly placed" }
                @if let Some(reason) = cluster.no_queues { "; " span.unknown { (reason) } } "."
            }
            @if !waiting_rows.is_empty() {
                table.waiting {
                    caption.hidden { "Waiting AppWrappers" }
                    thead { tr {
                        (sortable("Namespace / name", AppWrapperKey::Namespace, query))
                        (sortable("Waiting for", AppWrapperKey::Wait, query))
                        th scope="col" { "Reason" }
                        (sortable("Requests", AppWrapperKey::Size, query))
                    } }
                    tbody { @for appwrapper in &waiting_rows { (waits(appwrapper)) } }
                }
            }
            (more(waiting.len() - waiting_rows.len(), "/api/v1/appwrappers?waiting=true"))
            @if !partly_rows.is_empty() {
                table.waiting {
                    caption { "Partly placed: started, but some pods have no node" }
                    thead { tr { th scope="col" { "Namespace / name" } th.n scope="col" { "Pods placed" } th scope="col" { "Reason" } th scope="col" { "Requests" } th scope="col" { "Holds" } } }
                    tbody { @for appwrapper in &partly_rows { (partly_placed(appwrapper)) } }
                }
            }
            (more(partly.len() - partly_rows.len(), "/api/v1/appwrappers"))
        }
    }
}

fn is_partly_placed(view: &AppWrapperView) -> bool {
    view.unplaced.as_ref().is_some_and(|unplaced| unplaced.part == Part::Rest)
}

/// AppWrappers come in order of namespace and name, and stable sorts leave equal ones so.
fn sort(waiting: &mut [&AppWrapperView], by: AppWrapperSort, accelerators: &[Resource]) {
    let seconds = |view: &AppWrapperView| view.waiting.as_ref().and_then(|waiting| waiting.seconds);
    match by.by {
        AppWrapperKey::Namespace => {}
        AppWrapperKey::Wait => {
            waiting.sort_by(|a, b| seconds(b).unwrap_or(0.0).total_cmp(&seconds(a).unwrap_or(0.0)));
        }
        AppWrapperKey::Size => waiting.sort_by_cached_key(|view| {
            let total = &view.appwrapper.demand.total;
            let accelerators: i128 = accelerators.iter().map(|resource| total.get(resource)).sum();
            std::cmp::Reverse((accelerators, total.get(&Resource::Cpu), total.get(&Resource::Memory)))
        }),
    }
    if by.direction == Direction::Reversed {
        waiting.reverse();
    }
    // What is not known is last in both directions.
    waiting.sort_by_key(|view| match by.by {
        AppWrapperKey::Wait => seconds(view).is_none(),
        AppWrapperKey::Size => view.appwrapper.demand.pods() == 0 && !view.appwrapper.demand.unknown_kinds.is_empty(),
        AppWrapperKey::Namespace => false,
    });
}

/// The head of a column whose link sorts by it.
fn sortable(title: &str, key: AppWrapperKey, query: &ClusterQuery) -> Markup {
    let current = query.appwrapper_sort;
    let to = ClusterQuery { appwrapper_sort: current.after_click(key), ..query.clone() };
    let sorted = match (current.by == key, current.is_ascending()) {
        (false, _) => "none",
        (true, true) => "ascending",
        (true, false) => "descending",
    };
    html! {
        th.sort.n[key == AppWrapperKey::Wait] scope="col" aria-sort=(sorted) { a href=(to.address("appwrappers")) { (title) } }
    }
}

fn more(number: usize, address: &str) -> Markup {
    let path = address.split('?').next().unwrap_or(address);
    html! {
        @if number > 0 { p.quiet { (count(number as u64)) @if number == 1 { " more is" } @else { " more are" } " at " a href=(address) { (path) } "." } }
    }
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
                        " " span.tag.held { "short of " (waiting.shortfall.words()) }
                    }
                }
                td.asks { (named(&appwrapper.requested.words())) }
            }
        }
    }
}

fn partly_placed(appwrapper: &AppWrapper) -> Markup {
    html! {
        @if let Some(part) = &appwrapper.placed_in_part {
            tr {
                th scope="row" { (name_of(appwrapper)) }
                td.n { a.f href=(family("mcad_appwrapper_pods")) { (count(appwrapper.pods.saturating_sub(part.pods_unbound))) " of " (count(appwrapper.pods)) } }
                td.why { (named(&part.why)) }
                td.asks { (named(&appwrapper.requested.words())) }
                td.asks { @if let Some(holds) = &appwrapper.allocated { (named(&holds.words())) } }
            }
        }
    }
}

fn name_of(appwrapper: &AppWrapper) -> Markup {
    let AppWrapper { namespace, name, queue, .. } = appwrapper;
    let at = format!("/api/v1/appwrappers/{}/{}", encoded(namespace), encoded(name));
    html! { span.quiet { (named(namespace)) "/" } a href=(at) { (named(name)) } @if !queue.is_empty() { " " small { "queue " (named(queue)) } } }
}
