//! Kueue's queues on the front page: of each ClusterQueue its quotas as bars and who waits for it, the tree of Cohorts, and what hardware
//! stands behind the quotas. Empty unless Kueue's objects are known.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maud::{Markup, html};
use mcad_accounting::object::quotas::ResourceGroup;
use mcad_accounting::object::{Cohort, Workload};
use mcad_accounting::queue::Accounts;
use mcad_accounting::queue::account::{QueueAccount, QueueState, QuotaAccount, WorkloadState};
use mcad_accounting::resource::Resource;
use mcad_accounting::resource::amount::Amount;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::lines::Line;

use super::amount::{count, family, named, shown};
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

/// Levels of Cohorts that the tree shows.
const DEEP: usize = 12;

/// What all quotas of a resource hand out, and how much of it has hardware.
struct Promise {
    resource: Resource,
    promised: i128,
    backed: i128,
}

impl Promise {
    /// Of each resource of which more is promised than there is, in order. Empty if the hardware is not known. Unlimited quotas promise no
    /// number.
    fn broken(snapshot: &Snapshot) -> Vec<Self> {
        let (Some(all), Some(lines)) = (&snapshot.queues, &snapshot.lines) else { return Vec::new() };
        let of_queues = all.queues.iter().flat_map(|account| account.queue.groups.iter());
        let groups = of_queues.chain(lines.cohorts.iter().flat_map(|cohort| cohort.groups.iter()));
        let mut promised: BTreeMap<&Resource, Amount> = BTreeMap::new();
        for (resource, quota) in groups.flat_map(|group| &group.flavors).flat_map(|flavor| &flavor.quotas) {
            let sum = promised.entry(resource).or_default();
            *sum = sum.plus(quota.nominal);
        }
        let broken = all.totals.iter().filter_map(|(resource, total)| {
            let (promised, unbacked) = (promised.get(resource)?.units()?, total.unbacked.units()?);
            (unbacked > 0).then(|| Self { resource: resource.clone(), promised, backed: promised - unbacked })
        });
        let mut broken: Vec<_> = broken.collect();
        broken.sort_by_key(|promise| order(&promise.resource));
        broken
    }

    fn sentence(&self) -> Markup {
        let Self { resource, promised, backed } = self;
        html! {
            "Queues promise " a.f href=(family("mcad_queue_flavor_nominal")) { (shown(resource, *promised as f64)) } " " (unit(resource, *promised)) "; "
            a.f href=(family("mcad_queue_unbacked")) { (shown(resource, *backed as f64)) } @if *backed == 1 { " stands" } @else { " stand" } " behind them."
        }
    }
}

/// The first sentence of the page if queues promise more accelerators than there are. Empty if they do not, or if that is not known.
pub(super) fn promise(snapshot: &Snapshot) -> Markup {
    let mut broken = Promise::broken(snapshot);
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
            @let broken = Promise::broken(snapshot);
            @if !broken.is_empty() { p { @for promise in broken.iter().take(NAMED) { (promise.sentence()) " " } } }
            (legend(all.knows_pods))
            (Tree::new(&queues, cohorts).shown())
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
    let no_pods = "Pods are not known, so how much of the reserved quota pods hold, and whether hardware stands behind it, is unknown.";
    let no_nodes = "Nodes are not known, so whether hardware stands behind the quotas is unknown.";
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
        QueueState::Stopped => Some("stopped"),
        QueueState::FlavorMissing => Some("inactive: one of its ResourceFlavors does not exist"),
        QueueState::CheckMissing => Some("inactive: one of its AdmissionChecks does not exist or is not active"),
        QueueState::Inactive => Some("inactive"),
    }
}

/// Who waits, in the order in which Kueue tries them.
fn waits(line: &Line, account: &QueueAccount) -> Markup {
    let more = line.in_line - line.first.len() as u64;
    html! {
        @if !line.first.is_empty() {
            p.quiet {
                @if account.queue.shares_fairly { "They wait, by priority and age. Past usage decides who is next:" }
                @else { "They wait, in the order in which Kueue tries them:" }
            }
            ol.line-up { @for workload in &line.first { li { (one_that_waits(workload)) } } }
            @if more > 0 { p.quiet { (count(more)) @if more == 1 { " more waits" } @else { " more wait" } " behind them." } }
        }
        @if line.held_back > 0 {
            p.quiet {
                (count(line.held_back)) @if line.held_back == 1 { " is" } @else { " are" }
                " not in line: a gate, a back-off, a stopped LocalQueue, or a namespace that may not use the queue."
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

/// The Cohorts above some ClusterQueues.
struct Tree<'a> {
    objects: BTreeMap<&'a Arc<str>, &'a Cohort>,
    /// The Cohorts below each Cohort.
    cohorts: BTreeMap<&'a Arc<str>, BTreeSet<&'a Arc<str>>>,
    /// The ClusterQueues in each Cohort.
    queues: BTreeMap<&'a Arc<str>, Vec<&'a QueueAccount>>,
    /// Those without a Cohort above them.
    roots: BTreeSet<&'a Arc<str>>,
    /// Those in a cycle, or below one.
    in_cycle: BTreeSet<&'a Arc<str>>,
}

impl<'a> Tree<'a> {
    fn new(queues: &[&'a QueueAccount], cohorts: &'a [Arc<Cohort>]) -> Self {
        let objects: BTreeMap<_, _> = cohorts.iter().map(|cohort| (&cohort.name, &**cohort)).collect();
        let mut tree = Self {
            objects,
            cohorts: BTreeMap::new(),
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
                        tree.cohorts.entry(parent).or_default().insert(name);
                        name = parent;
                    }
                    None => drop(tree.roots.insert(name)),
                }
            }
        }
        let mut below: Vec<_> = tree.roots.iter().copied().collect();
        while let Some(name) = below.pop() {
            known.remove(name);
            below.extend(tree.cohorts.get(name).into_iter().flatten().copied());
        }
        tree.in_cycle = known;
        tree
    }

    fn shown(&self) -> Markup {
        html! {
            @if !self.roots.is_empty() {
                ul.cohorts aria-label="Cohorts and their queues" { @for root in &self.roots { (self.cohort(root, 1)) } }
            }
            @if !self.in_cycle.is_empty() {
                p.warn {
                    "Of these Cohorts, one is above itself, so their queues admit nothing: "
                    @for (at, name) in self.in_cycle.iter().take(DEEP).enumerate() { @if at > 0 { ", " } (named(name)) }
                    @if self.in_cycle.len() > DEEP { " and " (count((self.in_cycle.len() - DEEP) as u64)) " more" } "."
                }
            }
        }
    }

    fn cohort(&self, name: &Arc<str>, depth: usize) -> Markup {
        let below = self.cohorts.get(name);
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
        Some(units) => format!("{} ({flavor})", words::words(resource, units, Rounding::Nearest)),
        None => format!("unlimited {} ({flavor})", unit(resource, 2)),
    };
    let mut all: Vec<_> = quotas.iter().take(NAMED).map(in_words).collect();
    if quotas.len() > NAMED {
        all.push(words::count((quotas.len() - NAMED) as u64, "more", "more"));
    }
    all
}

/// The id of a ClusterQueue's part of the page.
fn anchor(name: &str) -> String {
    format!("queue-{}", encoded(name))
}

/// The resource as the title of a bar, with the unit of its amounts.
fn title(resource: &Resource) -> Markup {
    html! {
        @match resource {
            Resource::Cpu => "CPU cores",
            Resource::Memory => "Memory, GiB",
            other => (named(&unit(other, 2))),
        }
    }
}

/// The unit of an amount where no title says which resource it is, as text that is safe to show.
fn unit(resource: &Resource, amount: i128) -> String {
    if *resource == Resource::Memory {
        return "GiB of memory".to_owned();
    }
    let text = words::words(resource, amount, Rounding::Nearest);
    text.split_once(' ').map_or_else(String::new, |(_, unit)| unit.to_owned())
}
