//! The families that rest on the cluster's objects, from one [`Snapshot`]: sections A to F of the metrics contract.
//!
//! Owns names, labels, help and the conversion to cores; pure. What is unknown has no line; what is known has its line
//! also at 0. Labels stand in order of name.
pub mod appwrappers;
pub mod devices;
pub mod ladder;
pub mod operator;
pub mod pods;
mod series;
pub mod shape;

use std::collections::{BTreeMap, BTreeSet};

use mcad_accounting::options::GpuMetrics;
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::Snapshot;

use crate::exposition::{Exposition, Family, Kind, Labels, Value};

/// The unit is in the label.
const BY_LABEL: &str = "see `unit`";

/// Every family, in the order in which they are written.
pub fn all() -> impl Iterator<Item = &'static Family> {
    [operator::FAMILIES, ladder::FAMILIES, appwrappers::FAMILIES, shape::FAMILIES, devices::FAMILIES, pods::FAMILIES]
        .into_iter()
        .flatten()
        .copied()
}

/// Writes all families of a snapshot.
pub fn write(snapshot: &Snapshot, out: &mut Exposition<'_>) {
    let spelling = Spelling::new(snapshot);
    operator::write(snapshot, out);
    if let Some(nodes) = &snapshot.nodes {
        ladder::write(nodes, &spelling, out);
    }
    if let Some(appwrappers) = &snapshot.appwrappers {
        appwrappers::write(appwrappers, &spelling, snapshot.options.max_series_per_namespace, out);
    }
    if let Some(nodes) = &snapshot.nodes {
        shape::write(nodes, snapshot.orphans.as_ref(), &spelling, out);
        if snapshot.options.gpu_metrics == GpuMetrics::On {
            devices::write(nodes, out);
        }
    }
    pods::write(&snapshot.pods, out);
}

const fn gauge(name: &'static str, labels: &'static [&'static str], unit: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, unit, help }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    unit: &'static str,
    help: &'static str,
) -> Family {
    Family { name, kind: Kind::Counter, labels, unit, help }
}

/// Every resource of a snapshot, spelled. Two names that would be spelled alike (`a.com/b-c` and `a.com/b.c`) would be the
/// same series twice, and Prometheus would refuse all of the scrape: the second of them keeps its own name.
pub(crate) struct Spelling(BTreeMap<Resource, Spelled>);

impl Spelling {
    fn new(snapshot: &Snapshot) -> Self {
        let always = [Resource::Cpu, Resource::Memory, Resource::Gpu];
        let of_nodes = snapshot.nodes.iter().flat_map(|nodes| nodes.sums.keys().cloned());
        let views = snapshot.appwrappers.iter().flat_map(|all| &all.appwrappers);
        let amounts = views.flat_map(|view| [Some(&view.appwrapper.demand.total), view.allocated.as_ref()]);
        let amounts = amounts.chain(snapshot.orphans.iter().map(|orphans| Some(&orphans.requested))).flatten();
        let of_appwrappers =
            amounts.flat_map(|amounts| amounts.extended().iter().map(|(name, _)| Resource::Extended(name.clone())));
        let resources: BTreeSet<Resource> = always.into_iter().chain(of_nodes).chain(of_appwrappers).collect();
        let mut taken = BTreeSet::new();
        let spell = |resource: Resource| {
            let label = if taken.insert(resource.label()) { resource.label() } else { resource.name().to_owned() };
            let spelled = Spelled::called(&label, &resource);
            (resource, spelled)
        };
        Self(resources.into_iter().map(spell).collect())
    }

    /// Every resource of the snapshot is there.
    fn get(&self, resource: &Resource) -> Option<&Spelled> {
        self.0.get(resource)
    }
}

/// A resource as kube-state-metrics spells it, rendered once.
pub(crate) struct Spelled {
    /// `resource` and `unit`.
    pub(crate) labels: Labels,
    /// `resource` alone.
    pub(crate) resource: Labels,
    scale: Scale,
}

/// What the amounts of a resource are counted in.
#[derive(Clone, Copy)]
enum Scale {
    Cores,
    Bytes,
    Devices,
}

impl Spelled {
    pub(crate) fn new(resource: &Resource) -> Self {
        Self::called(&resource.label(), resource)
    }

    fn called(label: &str, resource: &Resource) -> Self {
        let scale = match resource {
            Resource::Cpu => Scale::Cores,
            Resource::Memory => Scale::Bytes,
            Resource::Gpu | Resource::Extended(_) => Scale::Devices,
        };
        Self {
            labels: Labels::of(&[("resource", label), ("unit", resource.unit())]),
            resource: Labels::of(&[("resource", label)]),
            scale,
        }
    }

    /// Millicores, bytes or devices, none of them negative.
    pub(crate) fn value(&self, amount: i128) -> Value {
        match self.scale {
            Scale::Cores => Value::Milli(u64::try_from(amount.max(0)).unwrap_or(u64::MAX)),
            Scale::Bytes | Scale::Devices => integer(amount),
        }
    }

    /// Nanocores, bytes or nanodevices.
    pub(crate) fn used(&self, used: u64) -> Value {
        match self.scale {
            Scale::Bytes => Value::Unsigned(used),
            Scale::Cores | Scale::Devices => Value::Nano(used),
        }
    }
}

fn integer(amount: i128) -> Value {
    Value::Integer(i64::try_from(amount).unwrap_or(i64::MAX))
}
