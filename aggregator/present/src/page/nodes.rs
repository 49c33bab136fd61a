//! The nodes on the front page: a search and filters, how many nodes are in which condition, and the nodes themselves, some at a
//! time. A large cluster is shown by pool until somebody selects nodes.
//!
//! Of each node, only what selects and sorts it is read; what is shown is made for the nodes of one page only.
use std::cmp::Reverse;

use maud::{Markup, html};
use mcad_accounting::cluster::Missing;
use mcad_accounting::ladder::{Account, ResourceLadder};
use mcad_accounting::measure::Used;
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::Snapshot;
use mcad_accounting::snapshot::agent::Agent;
use mcad_accounting::views::NodeView;

use super::amount::{count, named, real_value, title, value};
use super::bars::{Of, small};
use super::condition::Condition;
use super::pools::Pools;
use super::query::{AppWrapperSort, ClusterQuery, Pool, Sort, VALUE_CHARS, of_node};
use super::search::Search;
use super::troubles::{Conditions, Counts, Heard, Troubles, condition, fake, tone};
use crate::explain::ladder::{LadderEntry, Requested, UsedBy};
use crate::explain::node::NodeEntry;

/// Nodes on a page: a few screens, and 100 KB.
pub const PER_PAGE: usize = 50;

/// A cluster with fewer nodes fits a screen or two, and is never shown by pool.
pub const FEW: usize = 20;

/// What selects and sorts a node.
struct Row<'a> {
    view: &'a NodeView,
    agent: Option<&'a Agent>,
    troubles: Troubles,
    /// What sorts it, of the resource that is shown. `None` if not known: such nodes are last in every order.
    free: Option<i128>,
    held: Option<i128>,
    used: Option<u64>,
}

/// The nodes of a snapshot, as one page shows them.
pub(super) struct Nodes<'a> {
    snapshot: &'a Snapshot,
    query: &'a ClusterQuery,
    resource: Resource,
    pools: Pools<'a>,
    /// The nodes of this page.
    rows: Vec<Row<'a>>,
    /// How many match the search and are in the pool, by condition.
    counts: Counts,
    /// How many are selected.
    selected: usize,
    /// Which page of them is shown, from 1. Never beyond the last one.
    page: usize,
    /// How many there are.
    in_all: u64,
    in_trouble: u64,
}

impl<'a> Nodes<'a> {
    /// `resources` are all resources; without one in the query, the first is shown.
    pub(super) fn new(snapshot: &'a Snapshot, query: &'a ClusterQuery, resources: &[Resource]) -> Self {
        let chosen = resources.iter().find(|resource| resource.name() == query.resource);
        let resource = chosen.or(resources.first()).cloned().unwrap_or(Resource::Cpu);
        let heard = Heard::of(snapshot);
        let search = Search::new(&query.search);
        let show = query.show.unwrap_or(Condition::All);
        let of_snapshot = snapshot.nodes.as_ref().map(|nodes| &nodes.pools);
        let mut pools = Pools::new(of_snapshot, snapshot.options.pool_label(), &search);
        let mut counts = Counts::default();
        let (mut in_all, mut in_trouble) = (0, 0);
        let mut rows = Vec::new();
        let (unknown, is_unknown_without_ladder) =
            (ResourceLadder::default(), !lacks_what_is_absent(snapshot, &resource));
        let of_nodes = of_snapshot.into_iter().flat_map(mcad_accounting::snapshot::pools::Pools::of_nodes);
        for ((view, agent), pool) in snapshot.nodes_and_agents().zip(of_nodes) {
            let troubles = Troubles::of(view, agent, heard);
            let conditions = Conditions::of(view, troubles);
            let is_in_trouble = conditions.has(Condition::Trouble);
            in_all += 1;
            in_trouble += u64::from(is_in_trouble);
            let pool = pools.at(pool);
            if !search.is_empty() && !search.matches(&view.node.name, &pool.in_search, conditions) {
                continue;
            }
            let rung = view.rung(&resource).or(is_unknown_without_ladder.then_some(&unknown));
            pool.add(view, is_in_trouble, rung);
            if !query.pool.has(pool.name) {
                continue;
            }
            counts.add(conditions);
            if conditions.has(show) {
                rows.push(Row::new(view, agent, troubles, (&resource, rung)));
            }
        }
        pools.sort();
        let selected = rows.len();
        let page = query.page.min(selected.div_ceil(PER_PAGE)).max(1);
        let mut all = Self { snapshot, query, resource, pools, rows, counts, selected, page, in_all, in_trouble };
        if all.is_by_pool() {
            all.rows = Vec::new();
        } else {
            all.sort_and_cut();
        }
        all
    }

    fn sort_and_cut(&mut self) {
        let rows = &mut self.rows;
        // Nodes come in order of name, and a stable sort leaves equal ones so.
        match self.query.sort {
            Sort::Name => {}
            Sort::Trouble => rows.sort_by_key(|row| Reverse(row.troubles.weight())),
            Sort::Free => rows.sort_by_key(|row| Reverse(row.free)),
            Sort::Held => rows.sort_by_key(|row| Reverse(row.held)),
            Sort::Busy => rows.sort_by_key(|row| Reverse(row.used)),
        }
        rows.drain(..(self.page - 1) * PER_PAGE);
        rows.truncate(PER_PAGE);
    }

    /// Whether the cluster is large enough, and has enough pools, to be shown by pool.
    fn has_pools(&self) -> bool {
        self.in_all >= FEW as u64 && self.pools.len() > 1
    }

    /// Whether only pools are shown, and no nodes.
    fn is_by_pool(&self) -> bool {
        self.has_pools() && !self.query.lists_nodes()
    }

    /// The search and the filters. They are outside of what is updated live, so that nobody is interrupted while typing.
    pub(super) fn filter(&self, resources: &[Resource]) -> Markup {
        let ClusterQuery { search, pool, show, sort, appwrapper_sort, queue_page, .. } = self.query;
        html! {
            form.filter action="/#nodes" method="get" role="search" aria-label="Nodes" autocomplete="off" {
                label.search { span { "Search" } input type="search" name="search" value=(search) placeholder="name, pool or state" spellcheck="false" maxlength=(VALUE_CHARS) aria-describedby="matches"; }
                @if self.has_pools() || *pool != Pool::Any { (self.pools.select(pool)) }
                label { span { "State" } select name="show" {
                    option value="" selected[show.is_none()] { "any state" }
                    @if self.has_pools() { option value=(Condition::All.label()) selected[*show == Some(Condition::All)] { "any state, as a list" } }
                    @for of in Condition::ALL.into_iter().skip(1) { option value=(of.label()) selected[Some(of) == *show] { (of.words()) } }
                } }
                label { span { "Sort by" } select name="sort" {
                    @for by in Sort::ALL { option value=(by.label()) selected[by == *sort] { (by.words()) } }
                } }
                @if !resources.is_empty() {
                    label { span { "Amounts of" } select name="resource" {
                        @for of in resources { option value=(of.name()) selected[*of == self.resource] { (of.name()) } }
                    } }
                }
                @if *appwrapper_sort != AppWrapperSort::default() { input type="hidden" name="appwrapper_sort" value=(appwrapper_sort.label()); }
                @if *queue_page > 1 { input type="hidden" name="queue_page" value=(queue_page); }
                button type="submit" { "Search" }
            }
        }
    }

    /// How many nodes are selected. A screen reader reads it out when it changes.
    pub(super) fn matches(&self) -> Markup {
        let is_unfiltered = self.query.search.is_empty() && self.query.pool == Pool::Any && self.query.show.is_none();
        let nodes = |number: u64| html! { (count(number)) @if number == 1 { " node" } @else { " nodes" } };
        html! {
            @if self.snapshot.nodes.is_none() {
                span.unknown { "Nodes are not known." }
            } @else if !is_unfiltered {
                strong { (count(self.selected as u64)) } " of " (nodes(self.in_all)) @if self.selected == 1 { " matches." } @else { " match." }
                " " a href=(self.query.without_filters().address("nodes")) { "Clear all filters" }
            } @else if self.has_pools() {
                (nodes(self.in_all)) " in " (count(self.pools.len() as u64)) " pools."
            } @else {
                (nodes(self.in_all)) "."
            }
        }
    }

    /// What is shown of the nodes: how many have problems, conditions, pools, and the nodes of this page.
    pub(super) fn list(&self) -> Markup {
        if self.snapshot.nodes.is_none() {
            return html! {};
        }
        html! {
            @if self.in_trouble > 0 {
                p { strong.bad {
                    (count(self.in_trouble)) " of " (count(self.in_all)) @if self.in_all == 1 { " node has problems." } @else if self.in_trouble == 1 { " nodes has problems." } @else { " nodes have problems." }
                } }
            }
            (self.conditions())
            @if self.has_pools() { (self.pools.table(self.query, &self.resource)) }
            @if self.is_by_pool() {
                p { a href=(ClusterQuery { show: Some(Condition::All), ..self.query.clone() }.address("nodes")) { "Show all " (count(self.in_all)) " nodes one by one" } }
            } @else {
                (self.table())
            }
        }
    }

    /// How many are in which condition.
    fn conditions(&self) -> Markup {
        let offered = Condition::ALL
            .into_iter()
            .map(|show| (show, self.counts.get(show)))
            .filter(|(show, count)| *show == Condition::All || *count > 0);
        let current = self.query.show.or((!self.is_by_pool()).then_some(Condition::All));
        html! {
            ul.groups aria-label="Nodes by state" {
                @for (show, number) in offered {
                    @let query = ClusterQuery { show: Some(show), page: 1, ..self.query.clone() };
                    li { a href=(query.address("nodes")) aria-current=[(Some(show) == current).then_some("true")] class=(tone(show)) {
                        b { (count(number)) } " " (show.words())
                    } }
                }
            }
        }
    }

    fn table(&self) -> Markup {
        let resource = &self.resource;
        let kubernetes = self.snapshot.has_kubernetes();
        let sorted = |sort: Sort, direction: &'static str| (self.query.sort == sort).then_some(direction);
        html! {
            @if self.rows.is_empty() {
                p { "No node matches." }
            } @else {
                table.nodes {
                    caption.hidden { "Nodes, with their amounts of " (title(resource)) }
                    thead { tr {
                        th scope="col" aria-sort=[sorted(Sort::Name, "ascending")] { "Node" }
                        th scope="col" aria-sort=[sorted(Sort::Trouble, "descending")] { "State" }
                        @if kubernetes { th.wide scope="col" { (title(resource)) } }
                        th.n scope="col" { "Installed" }
                        th.n scope="col" { "Works" }
                        @if kubernetes { th.n scope="col" aria-sort=[sorted(Sort::Held, "descending")] { "Held" } }
                        th.n scope="col" aria-sort=[sorted(Sort::Busy, "descending")] { "In use" }
                        @if kubernetes { th.n scope="col" aria-sort=[sorted(Sort::Free, "descending")] { "Free" } }
                    } }
                    tbody { @for row in &self.rows { (self.row(row, kubernetes)) } }
                }
            }
            (self.pages())
        }
    }

    fn row(&self, row: &Row<'_>, kubernetes: bool) -> Markup {
        let node = NodeEntry::new(row.view, self.snapshot);
        let resource = &self.resource;
        let unknown = LadderEntry::default();
        let there = node.ladder.get(resource);
        let has_none = there.is_none() && lacks_what_is_absent(self.snapshot, resource);
        let rung = there.unwrap_or(&unknown);
        let held = rung.requested.map(Requested::in_all);
        let family = |name| Of::Node.family(name);
        let known = |amount: Option<i64>, name| {
            html! {
                @if has_none { span.quiet { "none" } } @else { (value(resource, amount, &family(name))) }
            }
        };
        html! {
            tr {
                th scope="row" { a href=(of_node(&node.name)) { (named(&node.name)) } (fake(row.agent)) }
                td { (condition(row.view, row.agent, row.troubles)) }
                @if kubernetes { td.wide { (small(rung)) } }
                td.n data-label="installed" { (known(rung.installed, "installed")) }
                td.n data-label="works" { (known(rung.healthy, "healthy")) }
                @if kubernetes { td.n data-label="held" { (known(held, "requested")) } }
                td.n data-label="in use" {
                    @if has_none { span.quiet { "none" } } @else { (real_value(resource, rung.used.as_ref().and_then(UsedBy::in_all), &family("used"))) }
                }
                @if kubernetes { td.n data-label="free" { (known(rung.free, "free")) } }
            }
        }
    }

    fn pages(&self) -> Markup {
        let last = self.selected.div_ceil(PER_PAGE).max(1);
        let to = |page: usize| ClusterQuery { page, ..self.query.clone() }.address("nodes");
        let page = self.page;
        html! {
            @if last > 1 {
                nav.pages aria-label="Pages of nodes" {
                    @if page > 1 { a href=(to(page - 1)) rel="prev" { "← Previous" } } @else { span {} }
                    span { "page " (count(page as u64)) " of " (count(last as u64)) ", " (count(self.selected as u64)) " nodes" }
                    @if page < last { a href=(to(page + 1)) rel="next" { "Next →" } } @else { span {} }
                }
            }
        }
    }
}

impl<'a> Row<'a> {
    /// With its ladder of that resource. `None` if it has nothing of it.
    fn new(
        view: &'a NodeView,
        agent: Option<&'a Agent>,
        troubles: Troubles,
        (resource, rung): (&Resource, Option<&ResourceLadder>),
    ) -> Self {
        let Some(rung) = rung else {
            return Self { view, agent, troubles, free: Some(0), held: Some(0), used: Some(0) };
        };
        let account = rung.account.as_ref();
        let used = view.measured.as_ref().and_then(|measured| measured.used.get(resource));
        Self {
            view,
            agent,
            troubles,
            free: account.map(|account| account.free),
            held: account.map(Account::requested_in_all),
            used: used.and_then(Used::in_all),
        }
    }
}

/// Whether a node without a ladder of a resource has nothing of it. If not, how much it has is not known: without Kubernetes an agent that
/// is silent says nothing, and devices that slices list are known only together with the claims on them.
fn lacks_what_is_absent(snapshot: &Snapshot, resource: &Resource) -> bool {
    let is_unknown_device = resource.is_extended() && snapshot.missing.contains(&Missing::Devices);
    snapshot.has_kubernetes() && !is_unknown_device
}
