//! Nodes by pool: how many of them are in which state, and what they have together. A large cluster is shown this way first.
use maud::{Markup, html};
use mcad_accounting::ladder::{NodeState, ResourceLadder};
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::pools;
use mcad_accounting::views::NodeView;

use super::amount::{count, named, title, value};
use super::bars::{Of, small};
use super::condition::Condition;
use super::query::{ClusterQuery, Pool};
use super::search::Search;
use crate::explain::ladder::LadderEntry;

/// Pools with a row of their own. A label can have any number of values. Nodes that are in no pool always have a row as well: they have
/// no name that a search could find.
const ROWS: usize = 20;

/// All pools of a cluster.
pub(super) struct Pools<'a> {
    all: Vec<OfPool<'a>>,
    /// The node label that names them.
    label: &'a str,
    /// The number of nodes whose pool a ResourceFlavor names.
    by_flavor: u64,
}

/// The nodes of one pool.
pub(super) struct OfPool<'a> {
    /// `None` for nodes that are in no pool.
    pub(super) name: Option<&'a str>,
    /// Which words of the search match its name.
    pub(super) in_search: Box<[bool]>,
    /// How many nodes it has, whether or not they match the search.
    nodes: u64,
    /// How many match the search. All that is below is of these.
    matching: u64,
    /// In the order of [`NodeState::ALL`].
    states: [u64; NodeState::ALL.len()],
    in_trouble: u64,
    /// Their sum of the resource that is shown. `None` if none of them has it.
    sum: Option<ResourceLadder>,
    /// Whether the amount of one of them is not known. Then the sum is not known either.
    is_unknown: bool,
}

impl<'a> Pools<'a> {
    /// `None` if nodes are not known.
    pub(super) fn new(pools: Option<&'a pools::Pools>, label: &'a str, search: &Search) -> Self {
        let of_one = |pool: &'a pools::Pool| OfPool {
            name: pool.name.as_deref(),
            in_search: search.in_pool(pool.name.as_deref()),
            nodes: pool.nodes,
            matching: 0,
            states: [0; NodeState::ALL.len()],
            in_trouble: 0,
            sum: None,
            is_unknown: false,
        };
        let all = pools.into_iter().flat_map(pools::Pools::iter).map(of_one).collect();
        Self { all, label, by_flavor: pools.map_or(0, pools::Pools::by_flavor) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// One of them, by its place among the pools of the snapshot. Must not be called after [`Self::sort`].
    pub(super) fn at(&mut self, place: usize) -> &mut OfPool<'a> {
        &mut self.all[place]
    }

    /// Those with most nodes first, so that their order stays while somebody types; nodes without a pool last.
    pub(super) fn sort(&mut self) {
        self.all.sort_by(|a, b| {
            let key = |pool: &OfPool<'a>| (pool.name.is_none(), u64::MAX - pool.nodes, pool.name);
            key(a).cmp(&key(b))
        });
    }

    /// The choice of a pool in the form.
    pub(super) fn select(&self, chosen: &Pool) -> Markup {
        let (rows, _) = with_rows(self.all.iter());
        let mut offered: Vec<Option<&str>> = rows.into_iter().map(|pool| pool.name).collect();
        match chosen {
            Pool::Named(name) if !offered.contains(&Some(name)) => offered.push(Some(name)),
            Pool::Unlabelled if !offered.contains(&None) => offered.push(None),
            _ => {}
        }
        html! {
            label { span { "Pool" } select name="pool" {
                option value="" { "all pools" }
                @for name in offered {
                    @let pool = Pool::of(name);
                    option value=(pool.label()) selected[pool == *chosen] { (shown(name)) }
                }
            } }
        }
    }

    /// A row for each pool in which nodes match the search.
    pub(super) fn table(&self, query: &ClusterQuery, resource: &Resource) -> Markup {
        let (rows, more) = with_rows(self.all.iter().filter(|pool| pool.matching > 0));
        html! {
            @if !rows.is_empty() {
                table.pools {
                    caption { "Pools by the node label " (self.label) @if self.by_flavor > 0 { ", else by ResourceFlavor" } }
                    thead { tr {
                        th scope="col" { "Pool" }
                        th.n scope="col" { "Nodes" }
                        th scope="col" { "States" }
                        th.n scope="col" { "Problems" }
                        th.wide scope="col" { (title(resource)) }
                        th.n scope="col" { "Installed" }
                        th.n scope="col" { "Free" }
                    } }
                    tbody { @for pool in &rows { (pool.row(query, resource)) } }
                }
            }
            @if !more.is_empty() {
                p.quiet {
                    @let nodes = more.iter().map(|pool| pool.matching).sum();
                    (count(more.len() as u64)) @if more.len() == 1 { " more pool with " } @else { " more pools with " }
                    (count(nodes)) @if nodes == 1 { " node" } @else { " nodes" } @if more.len() == 1 { " has" } @else { " have" }
                    " no row. A search for the name of a pool shows it."
                }
            }
        }
    }
}

/// The pools that have a row, and the others. They come in order of rows.
fn with_rows<'p, 'a>(pools: impl Iterator<Item = &'p OfPool<'a>>) -> (Vec<&'p OfPool<'a>>, Vec<&'p OfPool<'a>>)
where
    'a: 'p,
{
    let (rows, more): (Vec<_>, Vec<_>) = pools.enumerate().partition(|(at, pool)| *at < ROWS || pool.name.is_none());
    let pool = |(_, pool)| pool;
    (rows.into_iter().map(pool).collect(), more.into_iter().map(pool).collect())
}

impl OfPool<'_> {
    /// Counts a node that matches the search, with its ladder of the resource that is shown. `None` if it has nothing of it.
    pub(super) fn add(&mut self, view: &NodeView, is_in_trouble: bool, rung: Option<&ResourceLadder>) {
        self.matching += 1;
        self.in_trouble += u64::from(is_in_trouble);
        if let Some(state) = view.state {
            self.states[state as usize] += 1;
        }
        self.is_unknown |= rung.is_some_and(|rung| rung.installed.is_none());
        match (&mut self.sum, rung) {
            (Some(sum), Some(rung)) => sum.add(rung),
            (sum @ None, Some(rung)) => *sum = Some(rung.clone()),
            (_, None) => {}
        }
    }

    fn row(&self, query: &ClusterQuery, resource: &Resource) -> Markup {
        let pool = Pool::of(self.name);
        let is_chosen = pool == query.pool;
        let to = |show| ClusterQuery { pool: pool.clone(), show, page: 1, ..query.clone() }.address("nodes");
        let entry =
            |rung| if self.is_unknown { LadderEntry::default() } else { LadderEntry::new(resource, rung, None) };
        let sum = self.sum.as_ref().map(entry);
        let amount = |amount: Option<i64>, family: &str| {
            html! { @if sum.is_some() { (value(resource, amount, &Of::Node.family(family))) } @else { span.quiet { "none" } } }
        };
        html! {
            tr.chosen[is_chosen] {
                th scope="row" {
                    a href=(to(None)) aria-current=[is_chosen.then_some("true")] {
                        @match self.name { Some(name) => (named(name)), None => "no pool label" }
                    }
                }
                td.n data-label="nodes" { (count(self.matching)) }
                td.states {
                    @for (state, number) in NodeState::ALL.into_iter().zip(self.states).filter(|(_, number)| *number > 0) {
                        @let show = of_state(state);
                        a href=(to(Some(show))) { b { (count(number)) } " " (show.words()) } " "
                    }
                }
                td.n data-label="problems" {
                    @if self.in_trouble > 0 {
                        a.bad href=(to(Some(Condition::Trouble))) { (count(self.in_trouble)) span.hidden { " with problems" } }
                    } @else { span.quiet { "0" } }
                }
                td.wide { @if let Some(sum) = &sum { (small(sum)) } }
                td.n data-label="installed" { (amount(sum.as_ref().and_then(|sum| sum.installed), "installed")) }
                td.n data-label="free" { (amount(sum.as_ref().and_then(|sum| sum.free), "free")) }
            }
        }
    }
}

fn shown(name: Option<&str>) -> String {
    name.map_or_else(|| "no pool label".to_owned(), crate::explain::amount::printable)
}

fn of_state(state: NodeState) -> Condition {
    match state {
        NodeState::Admissible => Condition::Admissible,
        NodeState::Cordoned => Condition::Cordoned,
        NodeState::NotReady => Condition::NotReady,
        NodeState::Tainted => Condition::Tainted,
    }
}
