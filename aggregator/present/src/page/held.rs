//! What pods do with the GPUs that they hold: a bar from busy to idle by cause, a table of the same, and the AppWrappers whose GPUs idle most.
use maud::{Markup, html};
use mcad_accounting::cluster::owner::ByOwner;
use mcad_accounting::gpu_use::{Use, Uses};
use mcad_accounting::object::AppWrapperName;
use mcad_accounting::snapshot::Snapshot;
use mcad_wire::parts::Part as UseOfAgent;

use super::amount::{count, family, named};
use super::bars::{Part, bar};
use super::query::encoded;
use crate::explain::held::{HeldGpus, shown, words};

/// AppWrappers in the table. The others are at `/api/v1`.
const ROWS: usize = 10;
const NANO: f64 = 1e9;
/// The metric of all values of the section.
const FAMILY: &str = "mcad_cluster_gpu_held";

/// The section. Empty if no pod holds a GPU, or if that is not known.
pub(super) fn held(snapshot: &Snapshot) -> Markup {
    let Some(now) = snapshot.held.now.as_ref().filter(|now| now.appwrapper.sum() + now.other.sum() > 0) else {
        return html! {};
    };
    let mut all = now.appwrapper;
    all.add_all(&now.other);
    html! {
        section #held aria-labelledby="held-h" {
            h2 #held-h { "Held GPUs" }
            p { "Pods hold " (HeldGpus::from(&all).in_words()) ". " a href=(family(FAMILY)) { "What each value means" } }
            (bar(&parts(&all), all.sum() as f64, "bar"))
            (table(now, &all))
            (appwrappers(snapshot))
        }
    }
}

/// Busy, idle for a cause on the node, idle without a process, and what does not work or is not known.
fn parts(all: &Uses) -> Vec<Part> {
    Use::all().map(|of| Part::new(class(of), words(of), all.of(of).into())).collect()
}

fn class(of: Use) -> &'static str {
    match of {
        Use::Part(UseOfAgent::Busy) => "appwrapper",
        Use::Part(UseOfAgent::Shared | UseOfAgent::Uneven) => "other",
        Use::Part(UseOfAgent::NoProcess) | Use::Starting | Use::Gang => "free",
        Use::Part(UseOfAgent::Broken) => "broken",
        Use::Part(UseOfAgent::Unknown) => "declared",
        Use::Part(_) => "stuck",
    }
}

fn table(now: &ByOwner<Uses>, all: &Uses) -> Markup {
    let value = |nano: u64| shown(nano as f64 / NANO);
    let row = |of: Use| {
        html! {
            tr {
                th scope="row" { span class={"key " (class(of))} aria-hidden="true" {} (words(of)) }
                td.n { (value(now.appwrapper.of(of))) }
                td.n { (value(now.other.of(of))) }
                td.n { (value(all.of(of))) }
            }
        }
    };
    html! {
        table.sum {
            caption.hidden { "Held GPUs by use: the parts and their sum" }
            thead { tr { th scope="col" { "Use" } th.n scope="col" { "AppWrappers" } th.n scope="col" { "Other pods" } th.n scope="col" { "All" } } }
            tbody { @for of in Use::all().filter(|of| all.of(*of) > 0) { (row(of)) } }
            tfoot {
                tr {
                    th scope="row" { span.key aria-hidden="true" {} "held" }
                    td.n { (value(now.appwrapper.sum())) }
                    td.n { (value(now.other.sum())) }
                    td.n { (value(all.sum())) }
                }
            }
        }
    }
}

/// The AppWrappers whose GPUs idle most.
fn appwrappers(snapshot: &Snapshot) -> Markup {
    // What is unknown may be busy.
    let known_idle = |uses: &Uses| uses.idle_sum() - uses.of(Use::Part(UseOfAgent::Unknown));
    let holds = snapshot.held.appwrappers().filter(|(_, uses)| known_idle(uses) > 0);
    let mut idle: Vec<(&AppWrapperName, &Uses)> = holds.collect();
    idle.sort_by(|(a, of_a), (b, of_b)| known_idle(of_b).cmp(&known_idle(of_a)).then_with(|| a.cmp(b)));
    let more = idle.len().saturating_sub(ROWS);
    html! {
        @if !idle.is_empty() {
            table.waiting {
                caption { "AppWrappers whose GPUs idle most" }
                thead { tr { th scope="col" { "Namespace / name" } th.n scope="col" { "Held" } th.n scope="col" { "Busy" } th scope="col" { "Largest cause" } } }
                tbody { @for (name, uses) in idle.iter().take(ROWS) { (appwrapper(name, uses)) } }
            }
            @if more > 0 { p.quiet { (count(more as u64)) " more at " a href="/api/v1/appwrappers" { "/api/v1/appwrappers" } "." } }
        }
    }
}

fn appwrapper(AppWrapperName { namespace, name }: &AppWrapperName, uses: &Uses) -> Markup {
    let held = HeldGpus::from(uses);
    let at = format!("/api/v1/appwrappers/{}/{}", encoded(namespace), encoded(name));
    html! {
        tr {
            th scope="row" { span.quiet { (named(namespace)) "/" } a href=(at) { (named(name)) } }
            td.n { (shown(held.devices)) }
            td.n { (shown(held.busy)) }
            td.why { @if let Some(most) = held.known_idle().next() { (shown(most.devices)) " " (most.words) } }
        }
    }
}
