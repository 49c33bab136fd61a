//! Pools: nodes whose GPUs are of the same model, or that an administrator groups by another label (docs/accounting.md §11).
//!
//! The only place that decides which pool a node is in, and which pools have metrics of their own. What the nodes of a pool have
//! together is a [`super::Sums`].
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::{Cluster, Source};
use crate::object::{Node, ResourceFlavor};
use crate::options::Options;
use crate::table::Table;
use crate::views::NodeView;

/// The most pools that have metrics of their own. A label can have any number of values, and each pool has about 25 series for each
/// resource.
pub const MOST: usize = 200;

/// The name under which the metrics of all other pools are exported together.
pub const OTHER: &str = "other";

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    all: Vec<Pool>,
    /// For each node, in order of name, the place of its pool in `all`.
    of_nodes: Vec<usize>,
    /// The number of nodes whose pool a ResourceFlavor names.
    by_flavor: u64,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name, never empty. `None` for the nodes that are in no pool.
    pub name: Option<Arc<str>>,
    /// The number of its nodes.
    pub nodes: u64,
}

impl Pool {
    /// The label `pool`, unless its metrics are among those of [`OTHER`].
    fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

impl Pools {
    /// Assigns each node to a pool: by the value of its label, else by its ResourceFlavor if these are known.
    pub(super) fn of<'a>(cluster: &'a Cluster, views: &'a [Arc<NodeView>], options: &'a Options) -> Self {
        let mut label = Label::new(options.pool_label());
        let mut flavors = Flavors::of(cluster);
        let mut pools = Self { of_nodes: Vec::with_capacity(views.len()), ..Self::default() };
        let mut places: Table<Option<&str>, usize> = Table::default();
        for NodeView { node, .. } in views.iter().map(|view| &**view) {
            let labelled = label.of(node).filter(|name| !name.is_empty());
            let name = labelled.or_else(|| flavors.name(node));
            pools.by_flavor += u64::from(labelled.is_none() && name.is_some());
            let place = *places.entry(name.map(|name| &**name)).or_insert_with(|| {
                pools.all.push(Pool { name: name.cloned(), nodes: 0 });
                pools.all.len() - 1
            });
            pools.all[place].nodes += 1;
            pools.of_nodes.push(place);
        }
        pools
    }

    /// All pools, in the order in which [`Self::of_nodes`] counts them.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.all.iter()
    }

    /// For each node, in order of name, which of the pools it is in.
    pub fn of_nodes(&self) -> impl Iterator<Item = usize> {
        self.of_nodes.iter().copied()
    }

    /// The number of nodes whose pool a ResourceFlavor names, because they lack the label.
    pub fn by_flavor(&self) -> u64 {
        self.by_flavor
    }

    /// Whether any node is in a pool with a name.
    pub(super) fn are_named(&self) -> bool {
        self.all.iter().any(|pool| pool.name.is_some())
    }

    /// The names under which metrics are exported, in order, and for each pool the place of its name among them.
    ///
    /// If there are more than [`MOST`] pools, the largest have metrics of their own, and so have the nodes that are in none. The rest
    /// includes a pool that is itself called [`OTHER`], however large it is: otherwise two pools would have the same series.
    pub(super) fn exported(&self) -> (Vec<Arc<str>>, Vec<usize>) {
        let mut by_rank: Vec<&Pool> = self.all.iter().collect();
        by_rank.sort_by(|a, b| {
            let rank = |pool: &Pool| (pool.label() == OTHER, pool.name.is_some(), Reverse(pool.nodes));
            rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name))
        });
        let own: BTreeSet<&str> = by_rank.into_iter().take(MOST).map(Pool::label).collect();
        let name = |pool: &Pool| own.get(pool.label()).copied().unwrap_or(OTHER);
        let names: BTreeSet<&str> = self.all.iter().map(name).collect();
        let places: Table<&str, usize> = names.iter().enumerate().map(|(place, name)| (*name, place)).collect();
        let of_pools = self.all.iter().map(|pool| places[name(pool)]).collect();
        (names.into_iter().map(Arc::from).collect(), of_pools)
    }
}

/// A label of many nodes.
struct Label<'a> {
    key: &'a str,
    /// Where it was among the labels of the last node that has it. Nodes have mostly the same labels, and of 10,000 nodes a search of
    /// each one's labels would take as long as everything else that is read of them.
    place: usize,
}

impl<'a> Label<'a> {
    fn new(key: &'a str) -> Self {
        Self { key, place: 0 }
    }

    fn of<'n>(&mut self, node: &'n Node) -> Option<&'n Arc<str>> {
        let labels = &node.labels;
        if labels.get(self.place).is_none_or(|(key, _)| **key != *self.key) {
            self.place = labels.binary_search_by(|(key, _)| (**key).cmp(self.key)).ok()?;
        }
        labels.get(self.place).map(|(_, value)| value)
    }
}

/// The ResourceFlavors of Kueue, which name the pools of nodes without the label.
struct Flavors<'a> {
    /// The flavor that selects nodes by most labels comes first, because it is the most specific; of equal ones, the first by name.
    in_order: Vec<&'a ResourceFlavor>,
    /// Every label by which any of them selects nodes.
    labels: Vec<Label<'a>>,
    /// The flavor by the values of these labels: few nodes differ in them.
    known: Table<Vec<Option<&'a str>>, Option<&'a Arc<str>>>,
}

impl<'a> Flavors<'a> {
    /// None, if ResourceFlavors are not known. If one of them exceeds a limit, it is not known which nodes it selects.
    fn of(cluster: &'a Cluster) -> Self {
        let are_known = cluster.knows(Source::ResourceFlavors)
            && !cluster.left_out().any(|left| left.source == Source::ResourceFlavors);
        let mut flavors: Vec<&ResourceFlavor> =
            cluster.flavors().filter(|_| are_known).map(|flavor| &**flavor).collect();
        // They come in order of name, and a stable sort leaves equal ones so.
        flavors.sort_by_key(|flavor| Reverse(flavor.labels.len()));
        let keys: BTreeSet<&str> =
            flavors.iter().flat_map(|flavor| flavor.labels.iter().map(|(key, _)| &**key)).collect();
        Self { in_order: flavors, labels: keys.into_iter().map(Label::new).collect(), known: Table::default() }
    }

    /// The name of the first flavor that selects a node.
    fn name(&mut self, node: &'a Node) -> Option<&'a Arc<str>> {
        if self.in_order.is_empty() {
            return None;
        }
        let values: Vec<_> = self.labels.iter_mut().map(|label| label.of(node).map(|value| &**value)).collect();
        let flavors = &self.in_order;
        let first = || flavors.iter().find(|flavor| flavor.matches(node)).map(|flavor| &flavor.name);
        *self.known.entry(values).or_insert_with(first)
    }
}
