//! Cells: an amount, `unknown` if it is not known, `-` if there is none of the resource.
use mcad_accounting::resource::Resource;

use crate::explain::amount::{Rounding, number};
use crate::explain::node::NodeEntry;

/// An amount that is not known.
pub(super) const UNKNOWN: &str = "unknown";

/// There is none of the resource, or no such thing without Kubernetes.
pub(super) const NONE: &str = "-";

/// An amount of a resource, rounded down: never more than there is.
pub(super) fn amount(resource: &Resource, amount: Option<i64>) -> String {
    amount.map_or_else(|| UNKNOWN.to_owned(), |amount| number(resource, amount as f64, Rounding::Down))
}

/// The same of what only Kubernetes declares: a node without Kubernetes has none.
pub(super) fn declared(resource: &Resource, node: &NodeEntry, value: Option<i64>) -> String {
    if value.is_none() && node.state.is_none() { NONE.to_owned() } else { amount(resource, value) }
}
