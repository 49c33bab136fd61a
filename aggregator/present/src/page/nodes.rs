//! The nodes on the front page: those with trouble first, as many at a time as one reads, and how many are in which condition.
//!
//! Of each node only what it is chosen and ordered by is looked at; what is shown is made for those of one page alone.
use std::cmp::Reverse;

use maud::{Markup, html};
use mcad_accounting::ladder::{NodeState, Reason};
use mcad_accounting::merge::{AgentHealth, Expectation, GpuSource, Snapshot};
use mcad_accounting::resource::Resource;
use mcad_accounting::views::NodeView;

use super::amount::{count, figure, named, part, title};
use super::bars::{Of, in_use, small};
use super::wanted::{Query, Show, Sort, of_node};
use crate::explain::amount::span;
use crate::explain::ladder::Rung;
use crate::explain::node::Node;

/// Nodes on a page: a few screens, and 100 KB.
pub const PER_PAGE: usize = 50;

/// What one is told of a node before one looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Troubles(u16);

/// The conditions in which a node has trouble, worst first. Those after `Silent` are somebody's choice.
const TROUBLES: [Show; 10] = [
    Show::Lost,
    Show::Unhealthy,
    Show::Phantom,
    Show::Stranded,
    Show::NotReady,
    Show::Overcommitted,
    Show::Unadvertised,
    Show::Silent,
    Show::Tainted,
    Show::Cordoned,
];

/// How many of them are trouble.
const BAD: usize = 8;

impl Troubles {
    fn put(&mut self, show: Show, holds: bool) {
        if let Some(at) = TROUBLES.iter().position(|known| *known == show) {
            self.0 |= u16::from(holds) << at;
        }
    }

    fn has(self, show: Show) -> bool {
        match show {
            Show::All => true,
            Show::Trouble => self.0 & ((1 << BAD) - 1) != 0,
            _ => TROUBLES.iter().position(|known| *known == show).is_some_and(|at| self.0 >> at & 1 == 1),
        }
    }

    /// The worst trouble weighs more than all that are less.
    fn weight(self) -> u16 {
        self.0.reverse_bits()
    }

    fn iter(self) -> impl Iterator<Item = (Show, bool)> {
        TROUBLES.into_iter().enumerate().filter(move |(_, show)| self.has(*show)).map(|(at, show)| (show, at < BAD))
    }
}

/// What of a node it is chosen and ordered by.
struct Row {
    at: usize,
    troubles: Troubles,
    free: i128,
    held: i128,
    used: u64,
}

/// Everything about the nodes of a snapshot that one page shows.
pub(super) struct Nodes<'a> {
    snapshot: &'a Snapshot,
    query: &'a Query,
    resource: Resource,
    rows: Vec<Row>,
    /// By [`Show::ALL`].
    counts: [u64; 12],
    /// How many are chosen.
    chosen: usize,
}

impl<'a> Nodes<'a> {
    /// Absent: nodes are not known. `resources` are all that there are, the first of them what is shown unless asked otherwise.
    pub(super) fn new(snapshot: &'a Snapshot, query: &'a Query, resources: &[Resource]) -> Option<Self> {
        let in_all = Node::count(snapshot)?;
        let asked = resources.iter().find(|resource| resource.name() == query.resource);
        let resource = asked.or(resources.first()).cloned().unwrap_or(Resource::Cpu);
        let agents = Agents::of(snapshot);
        let mut counts = [0; 12];
        let mut rows = Vec::new();
        for at in 0..in_all {
            let row = row(snapshot, at, &resource, agents);
            for (count, show) in counts.iter_mut().zip(Show::ALL) {
                *count += u64::from(row.troubles.has(show));
            }
            let name = Node::name_at(at, snapshot);
            if row.troubles.has(query.show) && (query.name.is_empty() || name.contains(&query.name)) {
                rows.push(row);
            }
        }
        // Nodes come in order of name, and a stable sort leaves equal ones so.
        match query.sort {
            Sort::Name => {}
            Sort::Trouble => rows.sort_by_key(|row| Reverse(row.troubles.weight())),
            Sort::Free => rows.sort_by_key(|row| Reverse(row.free)),
            Sort::Held => rows.sort_by_key(|row| Reverse(row.held)),
            Sort::Busy => rows.sort_by_key(|row| Reverse(row.used)),
        }
        let chosen = rows.len();
        let rows = rows.into_iter().skip((query.page - 1).saturating_mul(PER_PAGE)).take(PER_PAGE).collect();
        Some(Self { snapshot, query, resource, rows, counts, chosen })
    }

    /// How many have trouble.
    pub(super) fn in_trouble(&self) -> u64 {
        self.counts[1]
    }

    /// The filter stands outside of what is renewed, so that nobody is interrupted while typing.
    pub(super) fn filter(&self, resources: &[Resource]) -> Markup {
        let Query { name, show, sort, .. } = self.query;
        html! {
            form.filter action="/#nodes" method="get" role="search" aria-label="Choose nodes" {
                label { span { "Name has" } input type="search" name="name" value=(name) autocomplete="off" spellcheck="false"; }
                label { span { "Show" } select name="show" {
                    @for of in Show::ALL { option value=(of.label()) selected[of == *show] { (of.label().replace('_', " ")) } }
                } }
                label { span { "Order by" } select name="sort" {
                    @for by in Sort::ALL { option value=(by.label()) selected[by == *sort] { (by.label()) } }
                } }
                label { span { "Figures of" } select name="resource" {
                    @for of in resources { option value=(of.name()) selected[*of == self.resource] { (of.name()) } }
                } }
                button type="submit" { "Show" }
            }
        }
    }

    /// How many are in which condition: the summary where they are too many to read.
    pub(super) fn groups(&self) -> Markup {
        let offered = Show::ALL.into_iter().zip(self.counts).filter(|(show, count)| *show == Show::All || *count > 0);
        html! {
            ul.groups aria-label="Nodes by condition" {
                @for (show, number) in offered {
                    @let query = Query { show, page: 1, ..self.query.clone() };
                    li { a href=(query.address()) aria-current=[(show == self.query.show).then_some("true")] class=(tone(show)) {
                        b { (count(number)) } " " (show.label().replace('_', " "))
                    } }
                }
            }
        }
    }

    pub(super) fn table(&self) -> Markup {
        let resource = &self.resource;
        let kubernetes = self.snapshot.kubernetes.is_some();
        html! {
            @if self.rows.is_empty() {
                p { "No node is like that." }
            } @else {
                table.nodes {
                    caption.hidden { "Nodes, " (title(resource)) " of each" }
                    thead { tr {
                        th scope="col" { "Node" }
                        th scope="col" { "State" }
                        @if kubernetes { th.wide scope="col" { "Where it is" } }
                        th.n scope="col" { "Installed" }
                        th.n scope="col" { "Works" }
                        @if kubernetes { th.n scope="col" { "Held" } }
                        th.n scope="col" { "In use" }
                        @if kubernetes { th.n scope="col" { "Free" } }
                    } }
                    tbody { @for row in &self.rows { (self.row(row, kubernetes)) } }
                }
            }
            (self.pages())
        }
    }

    fn row(&self, row: &Row, kubernetes: bool) -> Markup {
        let node = Node::at(row.at, self.snapshot);
        let resource = &self.resource;
        let nothing = Rung::default();
        let there = node.ladder.get(resource);
        let rung = there.unwrap_or(&nothing);
        let held = rung.requested.map(|requested| requested.appwrapper.saturating_add(requested.other));
        let family = |name| Of::Node.family(name);
        // A node that has none of it is known to have none; one that nobody measured is not.
        let known = |amount: Option<i64>, name| {
            html! {
                @if there.is_some() || !kubernetes { (figure(resource, amount, &family(name))) } @else { span.quiet { "none" } }
            }
        };
        html! {
            tr {
                th scope="row" { a href=(of_node(&node.name)) { (named(&node.name)) } (fake(self.snapshot, row.at)) }
                td { (condition(self.snapshot, row.at, row.troubles)) }
                @if kubernetes { td.wide { (small(rung)) } }
                td.n data-label="installed" { (known(rung.installed, "installed")) }
                td.n data-label="works" { (known(rung.healthy, "healthy")) }
                @if kubernetes { td.n data-label="held" { (known(held, "requested")) } }
                td.n data-label="in use" {
                    @if there.is_some() || !kubernetes { (part(resource, rung.used.as_ref().map(in_use), &family("used"))) } @else { span.quiet { "none" } }
                }
                @if kubernetes { td.n data-label="free" { (known(rung.free, "free")) } }
            }
        }
    }

    fn pages(&self) -> Markup {
        let last = self.chosen.div_ceil(PER_PAGE).max(1);
        let to = |page: usize| Query { page, ..self.query.clone() }.address();
        let page = self.query.page;
        html! {
            @if last > 1 {
                nav.pages aria-label="Pages of nodes" {
                    @if page > 1 { a href=(to(page - 1)) rel="prev" { "← before" } } @else { span {} }
                    span { "page " (count(page as u64)) " of " (count(last as u64)) ", " (count(self.chosen as u64)) " nodes" }
                    @if page < last { a href=(to(page + 1)) rel="next" { "after →" } } @else { span {} }
                }
            }
        }
    }
}

/// Made-up hardware is never shown as if it were there.
pub(super) fn fake(snapshot: &Snapshot, at: usize) -> Markup {
    let name = Node::name_at(at, snapshot);
    let found = snapshot.nodes.binary_search_by(|node| node.name.as_str().cmp(name));
    let is_fake = found.is_ok_and(|at| snapshot.nodes[at].gpu_source == Some(GpuSource::Fake));
    html! { @if is_fake { " " strong.tag.bad { "FAKE GPUs" } } }
}

fn tone(show: Show) -> &'static str {
    match show {
        Show::All => "",
        Show::Tainted | Show::Cordoned => "held",
        _ => "bad",
    }
}

/// What is the matter with a node, in words.
pub(super) fn condition(snapshot: &Snapshot, at: usize, troubles: Troubles) -> Markup {
    let kubernetes = snapshot.kubernetes.is_some();
    html! {
        @if troubles == Troubles::default() {
            @if kubernetes { span.fine { "takes pods" } } @else { span.fine { "reports" } }
        }
        @for (at_mark, (show, bad)) in troubles.iter().enumerate() {
            @if at_mark > 0 { " " }
            span.tag.bad[bad].held[!bad] {
                @if show == Show::Silent { (silence(snapshot, at)) } @else { (show.label().replace('_', " ")) }
            }
        }
    }
}

fn silence(snapshot: &Snapshot, at: usize) -> String {
    let name = Node::name_at(at, snapshot);
    let found = snapshot.nodes.binary_search_by(|node| node.name.as_str().cmp(name)).ok();
    match found.and_then(|at| snapshot.nodes[at].agent.report_age) {
        Some(age) => format!("agent silent for {}", span(age.as_secs_f64())),
        None => "no agent".to_owned(),
    }
}

pub(super) fn troubles_at(snapshot: &Snapshot, at: usize) -> Troubles {
    row(snapshot, at, &Resource::Gpu, Agents::of(snapshot)).troubles
}

/// Whether any agent ever reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agents {
    Some,
    /// Then it is no node's trouble that its own does not.
    None,
}

impl Agents {
    fn of(snapshot: &Snapshot) -> Self {
        let heard = |node: &mcad_accounting::merge::Node| {
            node.agent.health == AgentHealth::Up || node.agent.report_age.is_some()
        };
        if snapshot.nodes.iter().any(heard) { Self::Some } else { Self::None }
    }
}

fn row(snapshot: &Snapshot, at: usize, resource: &Resource, agents: Agents) -> Row {
    let views = snapshot.kubernetes.as_ref().and_then(|kubernetes| kubernetes.nodes.as_ref()).map(|nodes| &nodes.nodes);
    let mut row = Row { at, troubles: Troubles::default(), free: 0, held: 0, used: 0 };
    if let Some(view) = views.and_then(|views| views.get(at)) {
        row.add(view, resource);
    }
    // Nodes of Kubernetes and agents stand in the same order, but for names that no agent could have.
    let name = Node::name_at(at, snapshot);
    let same = snapshot.nodes.get(at).filter(|node| node.name.as_str() == name);
    let found = || snapshot.nodes.binary_search_by(|node| node.name.as_str().cmp(name)).ok();
    let node = same.or_else(|| found().map(|at| &snapshot.nodes[at]));
    let silent = node
        .is_none_or(|node| node.agent.expectation == Expectation::Expected && node.agent.health == AgentHealth::Down);
    row.troubles.put(Show::Silent, silent && agents == Agents::Some);
    if let Some(figures) = node.and_then(|node| node.figures.get(&Resource::Gpu)) {
        let broken = figures.installed.zip(figures.healthy).is_some_and(|(installed, healthy)| healthy < installed);
        row.troubles.put(Show::Unhealthy, broken);
    }
    if let Some(figures) = node.and_then(|node| node.figures.get(resource)) {
        let used = figures.used;
        row.used = [used.appwrapper, used.other, used.system].into_iter().flatten().sum();
    }
    row
}

impl Row {
    fn add(&mut self, view: &NodeView, resource: &Resource) {
        for (of, rung) in &view.rungs {
            let account = rung.account.as_ref();
            let withheld = |reason| account.is_some_and(|account| account.withheld.get(reason) != 0);
            self.troubles.put(Show::Lost, withheld(Reason::Lost));
            // Also one that a pod still holds.
            let broken = of.is_extended() && rung.healthy < rung.installed && !withheld(Reason::Lost);
            self.troubles.put(Show::Unhealthy, broken || withheld(Reason::Unhealthy));
            self.troubles.put(Show::Stranded, of.is_extended() && withheld(Reason::Stranded));
            // Of cpu and memory kubelet may round up by a page: only a device can be missed.
            self.troubles.put(Show::Phantom, of.is_extended() && rung.phantom.is_some_and(|phantom| phantom != 0));
            let overcommitted = account.is_some_and(|account| account.overcommitted != 0);
            self.troubles.put(Show::Overcommitted, overcommitted);
            self.troubles.put(Show::Unadvertised, of.is_extended() && withheld(Reason::Unadvertised));
        }
        self.troubles.put(Show::NotReady, view.state == NodeState::NotReady);
        self.troubles.put(Show::Cordoned, view.state == NodeState::Cordoned);
        self.troubles.put(Show::Tainted, view.state == NodeState::Tainted);
        if let Some(account) = view.rung(resource).and_then(|rung| rung.account.as_ref()) {
            (self.free, self.held) = (account.free, account.requested_in_all());
        }
        let used = view.measured.as_ref().and_then(|measured| measured.used.get(resource));
        if let Some(used) = used {
            self.used = [used.appwrapper, used.other, used.system].into_iter().flatten().sum();
        }
    }
}
