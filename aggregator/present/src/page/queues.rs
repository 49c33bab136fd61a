//! Kueue's queues on the front page: of each ClusterQueue its quotas as bars and who waits for it, and for how much of the
//! quotas there is hardware. Empty unless Kueue's objects are known.
use std::collections::BTreeMap;

use maud::{Markup, html};
use mcad_accounting::object::Workload;
use mcad_accounting::queue::Accounts;
use mcad_accounting::queue::account::{QueueAccount, QueueState, QuotaAccount, WorkloadState};
use mcad_accounting::resource::Resource;
use mcad_accounting::resource::amount::Amount;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::lines::Line;

use super::amount::{agreeing_unit, count, family, named, shown};
use super::cohorts::{Cohorts, anchor};
use super::query::{ClusterQuery, encoded};
use super::quota_bar::{QuotaBar, legend};
use crate::explain::amount::{self as words, Rounding, list};
use crate::resources::order;

/// ClusterQueues on a page: with all that is shown of each, a few hundred KB.
const PER_PAGE: usize = 50;

/// Quotas of a ClusterQueue that have a bar.
const BARS: usize = 6;

/// Resources that a sentence names.
const NAMED: usize = 4;

/// What all quotas of a resource hand out, and how much of it has hardware.
struct Promise {
    resource: Resource,
    promised: i128,
    backed: i128,
}

impl Promise {
    /// Of each resource of which more is promised than there is, in order. Empty if the hardware is not known. Unlimited quotas promise no
    /// number.
    fn broken(all: &Accounts) -> Vec<Self> {
        let broken = all.totals.iter().filter_map(|(resource, total)| {
            let (promised, unbacked) = (total.nominal.units()?, total.unbacked.units()?);
            (unbacked > 0).then(|| Self { resource: resource.clone(), promised, backed: promised - unbacked })
        });
        let mut broken: Vec<_> = broken.collect();
        broken.sort_by_key(|promise| order(&promise.resource));
        broken
    }

    fn sentence(&self) -> Markup {
        let Self { resource, promised, backed } = self;
        let (promised, backed) = (shown(resource, *promised as f64), shown(resource, *backed as f64));
        html! {
            "Queues promise " a.f href=(family("mcad_queue_flavor_nominal")) { (promised) } " " (agreeing_unit(resource, &promised))
            "; there is hardware for " a.f href=(family("mcad_queue_unbacked")) { (backed) } "."
        }
    }
}

/// The first sentence of the page if queues promise more accelerators than there are. Empty if they do not, or if that is not known.
pub(super) fn promise(snapshot: &Snapshot) -> Markup {
    let mut broken = snapshot.queues.as_deref().map(Promise::broken).unwrap_or_default();
    broken.retain(|promise| snapshot.options.is_accelerator(promise.resource.name()));
    html! { @for promise in broken.iter().take(NAMED) { (promise.sentence()) " " } }
}

/// The section of the queues.
pub(super) fn queues(snapshot: &Snapshot, query: &ClusterQuery) -> Markup {
    let Some(all) = &snapshot.queues else { return html! {} };
    let cohorts = snapshot.lines.as_ref().map_or(&[][..], |lines| &lines.cohorts);
    let pages = all.queues.len().div_ceil(PER_PAGE).max(1);
    let page = query.queue_page.clamp(1, pages);
    let queues: Vec<_> = all.queues.iter().skip((page - 1) * PER_PAGE).take(PER_PAGE).collect();
    let to = |queue_page| ClusterQuery { queue_page, ..query.clone() }.address("queues");
    html! {
        section #queues aria-labelledby="queues-h" {
            h2 #queues-h { "Queues" }
            p { (count(all.queues.len() as u64)) @if all.queues.len() == 1 { " ClusterQueue" } @else { " ClusterQueues" } " of Kueue." }
            @for unknown in unknown(all) { p.warn { (unknown) } }
            @let broken = Promise::broken(all);
            @if !broken.is_empty() { p { @for promise in broken.iter().take(NAMED) { (promise.sentence()) " " } } }
            (legend(all.knows_pods))
            (Cohorts::new(&queues, cohorts).shown())
            div.queues { @for queue in &queues { (card(queue, all, snapshot)) } }
            @if pages > 1 {
                nav.pages aria-label="Pages of queues" {
                    @if page > 1 { a href=(to(page - 1)) rel="prev" { "← Previous" } } @else { span {} }
                    span { "page " (count(page as u64)) " of " (count(pages as u64)) ", " (count(all.queues.len() as u64)) " queues" }
                    @if page < pages { a href=(to(page + 1)) rel="next" { "Next →" } } @else { span {} }
                }
            }
        }
    }
}

/// What is not known of the queues, and why.
fn unknown(all: &Accounts) -> Vec<&'static str> {
    let no_pods = "Pods are not known, so how much of the reserved quota pods hold, and whether there is hardware for it, is unknown.";
    let no_nodes = "Nodes are not known, so whether there is hardware for the quotas is unknown.";
    let unknown = [(!all.knows_pods).then_some(no_pods), (!all.knows_nodes).then_some(no_nodes)];
    unknown.into_iter().flatten().collect()
}

fn card(account: &QueueAccount, all: &Accounts, snapshot: &Snapshot) -> Markup {
    let QueueAccount { queue, state, workloads, quotas, .. } = account;
    let id = anchor(&queue.name);
    let mut quotas: Vec<_> = quotas.iter().collect();
    quotas.sort_by_key(|((flavor, resource), _)| (order(resource), flavor));
    let of = |state: WorkloadState| workloads.appwrapper[state as usize] + workloads.other[state as usize];
    let (pending, reserving, admitted) =
        (of(WorkloadState::Pending), of(WorkloadState::Reserving), of(WorkloadState::Admitted));
    html! {
        section.queue id=(id) aria-labelledby=(format!("{id}-h")) {
            h3 id=(format!("{id}-h")) { (named(&queue.name)) @if let Some(why) = closed(*state) { " " span.tag.bad { (why) } } }
            p.quiet {
                @if queue.cohort.is_empty() { "No cohort" } @else { "Cohort " (named(&queue.cohort)) } ", " (named(&queue.strategy)) ". "
                a.f href=(family("mcad_queue_workloads")) { (count(pending)) } @if pending == 1 { " Workload waits, " } @else { " Workloads wait, " }
                @if reserving > 0 { (count(reserving)) @if reserving == 1 { " reserves quota and is not admitted yet, " } @else { " reserve quota and are not admitted yet, " } }
                (count(admitted)) @if admitted == 1 { " is admitted." } @else { " are admitted." }
            }
            dl.quotas { @for ((flavor, resource), quota) in quotas.iter().take(BARS) { (bar(flavor, resource, quota, account, all)) } }
            @if quotas.len() > BARS { p.quiet { (count((quotas.len() - BARS) as u64)) " more of its quotas are at " a href="/metrics" { "/metrics" } "." } }
            @if let Some(line) = snapshot.lines.as_ref().and_then(|lines| lines.queues.get(&queue.name)) { (waits(line, account)) }
        }
    }
}

fn bar(flavor: &str, resource: &Resource, quota: &QuotaAccount, account: &QueueAccount, all: &Accounts) -> Markup {
    let of_flavor = all.flavors.iter().find(|known| *known.name == *flavor);
    let of_flavor = of_flavor.and_then(|of| of.resources.iter().find(|(known, _)| known == resource)).map(|(_, of)| of);
    let bar = QuotaBar::new(quota, account.state, of_flavor, all.knows_pods);
    let nominal = quota.quota.map(|quota| quota.nominal);
    html! {
        div {
            dt { (title(resource)) " " small { (named(flavor)) } }
            dd.pic { (bar.drawn(resource)) }
            dd.n {
                a.f href=(family("mcad_queue_reserved")) { (shown(resource, bar.reserved() as f64)) } " of "
                a.f href=(family("mcad_queue_nominal")) { (nominal.map_or_else(|| "no quota".to_owned(), |nominal| quota_in_words(resource, nominal))) }
                " reserved"
            }
            // The bar has the same words as its text alternative.
            dd.parts aria-hidden="true" { (bar.in_words(resource)) }
        }
    }
}

fn quota_in_words(resource: &Resource, amount: Amount) -> String {
    amount.units().map_or_else(|| "unlimited".to_owned(), |units| shown(resource, units as f64))
}

/// Why a ClusterQueue admits nothing. `None` if it is active.
fn closed(state: QueueState) -> Option<&'static str> {
    match state {
        QueueState::Active => None,
        QueueState::Stopped => Some("stopped by its spec.stopPolicy"),
        QueueState::FlavorMissing => Some("inactive: one of its ResourceFlavors does not exist"),
        QueueState::CheckMissing => Some("inactive: one of its AdmissionChecks does not exist or is not active"),
        QueueState::Inactive => Some("inactive: its condition Active has the reason, or its Cohorts form a cycle"),
    }
}

/// Who waits, in the order in which Kueue tries them. It tries nobody whose queue is not active.
fn waits(line: &Line, account: &QueueAccount) -> Markup {
    let more = line.in_line - line.first.len() as u64;
    html! {
        @if !line.first.is_empty() {
            p.quiet {
                @if account.state != QueueState::Active { "These Workloads wait until the queue is active, by priority and age:" }
                @else if account.queue.shares_fairly { "These Workloads wait, by priority and age. Past usage decides which of them is next:" }
                @else { "These Workloads wait, in the order in which Kueue tries them:" }
            }
            ol.line-up { @for workload in &line.first { li { (one_that_waits(workload)) } } }
            @if more > 0 { p.quiet { (count(more)) @if more == 1 { " more waits" } @else { " more wait" } " behind them." } }
        }
        @if line.held_back > 0 {
            p.quiet {
                (count(line.held_back)) @if line.held_back == 1 { " waits" } @else { " wait" }
                " without being tried, because of a gate, a back-off, a stopped LocalQueue, or a namespace that may not use the queue."
            }
        }
    }
}

fn one_that_waits(workload: &Workload) -> Markup {
    let Some(open) = workload.open.as_deref() else { return html! {} };
    let namespace = &workload.name.namespace;
    let mut sums: BTreeMap<Resource, i128> = BTreeMap::new();
    for (resource, amount) in open.requests().flat_map(|(_, requests)| requests) {
        let sum = sums.entry(resource).or_default();
        *sum = sum.saturating_add(amount);
    }
    let mut sums: Vec<_> = sums.into_iter().filter(|(_, amount)| *amount > 0).collect();
    sums.sort_by_key(|(resource, _)| order(resource));
    let mut asks: Vec<_> =
        sums.iter().take(NAMED).map(|(resource, amount)| words::words(resource, *amount, Rounding::Up)).collect();
    if sums.len() > NAMED {
        asks.push(words::count((sums.len() - NAMED) as u64, "more resource", "more resources"));
    }
    html! {
        span.quiet { (named(namespace)) "/" }
        @if let Some(name) = open.owners.iter().find_map(|owner| owner.appwrapper.as_ref()) {
            a href=(format!("/api/v1/appwrappers/{}/{}", encoded(namespace), encoded(name))) { (named(name)) }
        } @else {
            (named(&workload.name.name)) small { " not of an AppWrapper" }
        }
        @if !asks.is_empty() { ": " (list(&asks)) }
        @if open.priority != 0 { ", priority " (open.priority) }
    }
}

/// The resource as the title of a bar, with the unit of its amounts.
fn title(resource: &Resource) -> Markup {
    html! {
        @match resource {
            Resource::Cpu => "CPU cores",
            Resource::Memory => "Memory, GiB",
            other => (named(&agreeing_unit(other, ""))),
        }
    }
}
