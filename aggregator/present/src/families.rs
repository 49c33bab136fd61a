//! The metric families that depend on the cluster's objects, written from one [`Snapshot`]: sections A to F of the metrics contract.
//!
//! Owns names, labels, help texts and the conversion to cores; pure. An unknown value has no series; a known value has a series
//! even if it is 0. Labels are in order of name.
pub mod appwrappers;
pub mod claims;
pub mod devices;
pub mod held;
pub mod ladder;
pub mod operator;
pub mod pods;
pub mod pools;
pub mod queues;
mod series;
pub mod shape;

use std::collections::{BTreeMap, BTreeSet};

use mcad_accounting::options::GpuMetrics;
use mcad_accounting::resource::Resource;
use mcad_accounting::resource::amount::Amount;
use mcad_accounting::snapshot::Snapshot;

use crate::exposition::{Exposition, Family, Kind, Labels, Value};

/// The unit is in the label `unit`.
const BY_LABEL: &str = "see `unit`";

/// All families, in the order in which they are written.
pub fn all() -> impl Iterator<Item = &'static Family> {
    [
        operator::FAMILIES,
        ladder::FAMILIES,
        appwrappers::FAMILIES,
        held::FAMILIES,
        shape::FAMILIES,
        pools::FAMILIES,
        claims::FAMILIES,
        queues::FAMILIES,
        devices::FAMILIES,
        pods::FAMILIES,
    ]
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
        appwrappers::write(snapshot, appwrappers, &spelling, out);
    }
    held::write(&snapshot.held, out);
    if let Some(nodes) = &snapshot.nodes {
        shape::write(nodes, snapshot.orphans.as_ref(), &spelling, out);
        pools::write(nodes, &spelling, out);
        if let Some(devices) = &snapshot.devices {
            claims::write(devices, &spelling, out);
        }
        if snapshot.options.gpu_metrics == GpuMetrics::On {
            devices::write(nodes, out);
        }
    }
    if let Some(queues) = &snapshot.queues {
        queues::write(queues, &spelling, out);
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

/// The label of every resource of a snapshot. Two names with the same label (`a.com/b-c` and `a.com/b.c`) would give the
/// same series twice, and Prometheus would reject the whole scrape: the second of them keeps its original name as label.
pub(crate) struct Spelling(BTreeMap<Resource, Spelled>);

impl Spelling {
    fn new(snapshot: &Snapshot) -> Self {
        let always = [Resource::Cpu, Resource::Memory, Resource::Gpu];
        let of_nodes = snapshot.nodes.iter().flat_map(|nodes| nodes.sums.keys().cloned());
        let views = snapshot.appwrappers.iter().flat_map(|all| &all.appwrappers);
        let amounts = views.flat_map(|view| [Some(&view.requested.amounts), view.allocated.as_ref()]);
        let amounts = amounts.chain(snapshot.orphans.iter().map(|orphans| Some(&orphans.requested))).flatten();
        let of_appwrappers =
            amounts.flat_map(|amounts| amounts.extended().iter().map(|(name, _)| Resource::Extended(name.clone())));
        let of_queues = snapshot.queues.iter().flat_map(|queues| queues.resources.iter().cloned());
        let resources: BTreeSet<Resource> =
            always.into_iter().chain(of_nodes).chain(of_appwrappers).chain(of_queues).collect();
        let mut taken = BTreeSet::new();
        let spell = |resource: Resource| {
            let label = if taken.insert(resource.label()) { resource.label() } else { resource.name().to_owned() };
            let spelled = Spelled::called(&label, &resource);
            (resource, spelled)
        };
        Self(resources.into_iter().map(spell).collect())
    }

    /// Has every resource of the snapshot.
    fn get(&self, resource: &Resource) -> Option<&Spelled> {
        self.0.get(resource)
    }
}

/// The labels of a resource, spelled as in kube-state-metrics and rendered once.
pub(crate) struct Spelled {
    /// `resource` and `unit`.
    labels: Labels,
    /// `resource` alone.
    resource: Labels,
    scale: Scale,
}

/// The unit of a resource's amounts.
#[derive(Clone, Copy)]
enum Scale {
    Cores,
    Bytes,
    Devices,
}

impl Spelled {
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

    /// From millicores, bytes or devices, none of them negative.
    fn value(&self, amount: i128) -> Value {
        match self.scale {
            Scale::Cores => Value::Milli(u64::try_from(amount.max(0)).unwrap_or(u64::MAX)),
            Scale::Bytes | Scale::Devices => integer(amount),
        }
    }

    /// The same of quota, which may be unlimited.
    fn quota(&self, amount: Amount) -> Value {
        amount.units().map_or(Value::Float(f64::INFINITY), |units| self.value(units))
    }

    /// From nanocores, bytes or nanodevices.
    fn used(&self, used: u64) -> Value {
        match self.scale {
            Scale::Bytes => Value::Unsigned(used),
            Scale::Cores | Scale::Devices => Value::Nano(used),
        }
    }
}

fn integer(amount: i128) -> Value {
    Value::Integer(i64::try_from(amount).unwrap_or(i64::MAX))
}
