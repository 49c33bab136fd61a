//! The families that rest on the cluster's objects, from one [`Snapshot`]: sections A to D of the metrics contract.
//!
//! Owns names, labels, help and the conversion to cores; pure. What is unknown has no line; what is known has its line
//! also at 0. Labels stand in order of name.
pub mod appwrappers;
pub mod ladder;
pub mod operator;
pub mod shape;

use crate::exposition::{Exposition, Family, Kind, Labels, Value};
use crate::resource::Resource;
use crate::snapshot::Snapshot;

/// The unit is in the label.
const BY_LABEL: &str = "see `unit`";

/// Every family, in the order in which they are written.
pub fn all() -> impl Iterator<Item = &'static Family> {
    [operator::FAMILIES, ladder::FAMILIES, appwrappers::FAMILIES, shape::FAMILIES].into_iter().flatten().copied()
}

/// Writes all families of a snapshot.
pub fn write(snapshot: &Snapshot, out: &mut Exposition<'_>) {
    operator::write(snapshot, out);
    if let Some(nodes) = &snapshot.nodes {
        ladder::write(nodes, out);
    }
    if let Some(appwrappers) = &snapshot.appwrappers {
        appwrappers::write(appwrappers, out);
    }
    if let Some(nodes) = &snapshot.nodes {
        shape::write(nodes, out);
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], unit: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, unit, help }
}

/// A resource as kube-state-metrics spells it, rendered once.
struct Spelled {
    labels: Labels,
    unit: Unit,
}

#[derive(Clone, Copy)]
enum Unit {
    Millicores,
    Whole,
}

impl Spelled {
    fn new(resource: &Resource) -> Self {
        let unit = match resource {
            Resource::Cpu => Unit::Millicores,
            Resource::Memory | Resource::Gpu | Resource::Extended(_) => Unit::Whole,
        };
        Self { labels: Labels::of(&[("resource", &resource.label()), ("unit", resource.unit())]), unit }
    }

    /// No amount of the ladder is negative.
    fn value(&self, amount: i128) -> Value {
        match self.unit {
            Unit::Millicores => Value::Milli(u64::try_from(amount.max(0)).unwrap_or(u64::MAX)),
            Unit::Whole => integer(amount),
        }
    }
}

fn integer(amount: i128) -> Value {
    Value::Integer(i64::try_from(amount).unwrap_or(i64::MAX))
}
