//! Labels, names and taints of many nodes, laid out so that a condition is evaluated on all nodes at once: each
//! distinct value is evaluated once, however many nodes have it.
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use crate::object::constraints::Candidates;
use crate::object::{Node, Taint};

/// The nodes, by position.
pub(super) struct Columns<'a> {
    nodes: Vec<&'a Node>,
    names: Column<Option<&'a str>>,
    taints: Column<&'a [Taint]>,
    /// The labels that were queried so far, by key.
    labels: RefCell<HashMap<String, Rc<Column<Option<&'a str>>>>>,
}

/// One property of every node.
struct Column<T> {
    /// Each value once.
    distinct: Vec<T>,
    /// The value of each node, by position: an index into `distinct`.
    of_node: Vec<u32>,
}

/// The nodes that still match.
#[derive(Clone)]
pub(super) struct Mask<'c, 'a> {
    columns: &'c Columns<'a>,
    there: Vec<bool>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(nodes: Vec<&'a Node>) -> Self {
        let names = Column::new(nodes.iter().map(|node| Some(&*node.name)));
        let taints = Column::new(nodes.iter().map(|node| &*node.taints));
        Self { nodes, names, taints, labels: RefCell::default() }
    }

    /// All nodes.
    pub(super) fn all(&self) -> Mask<'_, 'a> {
        Mask { columns: self, there: vec![true; self.nodes.len()] }
    }

    fn label(&self, key: &str) -> Rc<Column<Option<&'a str>>> {
        if let Some(known) = self.labels.borrow().get(key) {
            return known.clone();
        }
        let column = Rc::new(Column::new(self.nodes.iter().map(|node| node.label(key))));
        self.labels.borrow_mut().insert(key.to_owned(), column.clone());
        column
    }
}

impl<T: Copy + Eq + Hash> Column<T> {
    fn new(values: impl Iterator<Item = T>) -> Self {
        let mut distinct = Vec::new();
        let mut places = HashMap::new();
        let place = |value| {
            *places.entry(value).or_insert_with(|| {
                distinct.push(value);
                distinct.len() as u32 - 1
            })
        };
        let of_node = values.map(place).collect();
        Self { distinct, of_node }
    }

    fn retain(&self, there: &mut [bool], holds: impl Fn(T) -> bool) {
        let verdicts: Vec<bool> = self.distinct.iter().map(|value| holds(*value)).collect();
        for (there, value) in there.iter_mut().zip(&self.of_node) {
            *there &= verdicts[*value as usize];
        }
    }
}

impl Mask<'_, '_> {
    /// Keeps the nodes whose taints meet the condition.
    pub(super) fn retain_by_taints(&mut self, holds: impl Fn(&[Taint]) -> bool) {
        self.columns.taints.retain(&mut self.there, holds);
    }

    /// Whether each node still matches, by position.
    pub(super) fn into_places(self) -> Vec<bool> {
        self.there
    }
}

impl Candidates for Mask<'_, '_> {
    fn retain_by_label(&mut self, key: &str, holds: impl Fn(Option<&str>) -> bool) {
        self.columns.label(key).retain(&mut self.there, holds);
    }

    fn retain_by_name(&mut self, holds: impl Fn(Option<&str>) -> bool) {
        self.columns.names.retain(&mut self.there, holds);
    }

    fn clear(&mut self) {
        self.there.fill(false);
    }

    fn extend(&mut self, other: &Self) {
        for (there, other) in self.there.iter_mut().zip(&other.there) {
            *there |= other;
        }
    }
}
