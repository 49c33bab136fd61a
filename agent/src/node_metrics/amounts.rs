//! The amounts of each resource of a node in a report: installed, healthy and used. It knows no metric families.

use std::collections::BTreeMap;

use mcad_wire::report::{Gpus, Machine, Report};

use super::exposition::Value;
use crate::vendor;

/// One resource. Amounts that were not measured are `None`.
pub(super) struct Amounts {
    /// The value of the label `resource`.
    pub(super) resource: String,
    pub(super) unit: Unit,
    /// Millicores, bytes or devices.
    pub(super) installed: Option<u64>,
    /// In the same unit.
    pub(super) healthy: Option<u64>,
    /// Nanocores, bytes or nanodevices.
    pub(super) used: Option<u64>,
}

/// The unit of a resource.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    Core,
    Byte,
    UsedDevice,
}

impl Unit {
    /// The value of the label `unit`, as kube-state-metrics spells it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Byte => "byte",
            Self::UsedDevice => "integer",
        }
    }

    pub(super) fn value(self, amount: u64) -> Value {
        match self {
            Self::Core => Value::Milli(amount),
            Self::Byte | Self::UsedDevice => Value::Whole(amount),
        }
    }

    pub(super) fn used(self, used: u64) -> Value {
        match self {
            Self::Byte => Value::Whole(used),
            Self::Core | Self::UsedDevice => Value::Nano(used),
        }
    }
}

/// The resources of a report, in the order in which they are exported.
pub(super) fn amounts(before: Option<&Report>, last: &Report) -> Vec<Amounts> {
    let machine = last.machine.clone().unwrap_or_default();
    let millicores = machine.cpus_online.map(|cpus| u64::from(cpus) * 1000);
    let bytes = machine.memory_total_bytes;
    let mut all = vec![
        Amounts {
            resource: "cpu".to_owned(),
            unit: Unit::Core,
            installed: millicores,
            healthy: millicores,
            used: busy_nanocores(before, last),
        },
        Amounts {
            resource: "memory".to_owned(),
            unit: Unit::Byte,
            installed: bytes,
            healthy: bytes,
            used: memory_used_bytes(&machine),
        },
    ];
    all.extend(last.gpus.iter().flat_map(devices));
    all
}

/// CPU use between the two reports.
fn busy_nanocores(before: Option<&Report>, last: &Report) -> Option<u64> {
    let (was, is) = (before?.machine.as_ref()?, last.machine.as_ref()?);
    let elapsed_ns = last.uptime_ns.checked_sub(before?.uptime_ns).filter(|ns| *ns > 0)?;
    let busy_ns = is.cpu_busy_ns?.checked_sub(was.cpu_busy_ns?)?;
    let nanocores = u64::try_from(u128::from(busy_ns) * 1_000_000_000 / u128::from(elapsed_ns)).ok()?;
    // The CPUs are read one after another, so slightly more than all cores is a rounding error; more than twice that is
    // an invalid value.
    (nanocores <= 2 * u64::from(is.cpus_online?) * 1_000_000_000).then_some(nanocores)
}

/// Memory of the machine that is in use: the total minus free memory and minus the page cache that the kernel reclaims
/// first. `None` if one of these is unknown. The aggregator has its own copy of this rule (`mcad_accounting::measure`),
/// because `wire`, which both use, contains no behaviour.
pub(crate) fn memory_used_bytes(machine: &Machine) -> Option<u64> {
    let kept = machine.memory_total_bytes?.checked_sub(machine.memory_free_bytes?)?;
    kept.checked_sub(machine.memory_inactive_file_bytes?)
}

/// One allocatable device: a GPU or a MIG instance.
struct UsedDevice {
    healthy: bool,
    utilization_ratio: Option<f64>,
}

impl UsedDevice {
    fn new(unhealthy_reasons: &[String], utilization_ratio: Option<f64>) -> Self {
        Self { healthy: unhealthy_reasons.is_empty(), utilization_ratio }
    }
}

/// GPUs, and MIG instances under the names that the device plugin's strategy `mixed` gives them. Empty if there is no
/// driver and no GPU is missing.
fn devices(gpus: &Gpus) -> Vec<Amounts> {
    let remembered = gpus.remembered.unwrap_or(0) as usize;
    let expected = (gpus.devices.len() + gpus.lost_bus_ids.len()).max(remembered);
    if gpus.driver_version.is_empty() && expected == 0 {
        return Vec::new();
    }
    let (in_mig_mode, whole): (Vec<_>, Vec<_>) = gpus.devices.iter().partition(|gpu| gpu.mig_mode == Some(true));
    let whole: Vec<_> =
        whole.iter().map(|gpu| UsedDevice::new(&gpu.unhealthy_reasons, gpu.utilization_ratio)).collect();
    let mut by_profile: BTreeMap<String, Vec<UsedDevice>> = BTreeMap::new();
    for instance in in_mig_mode.iter().flat_map(|gpu| &gpu.mig_instances) {
        let name = vendor::part_resource(gpus, &instance.profile);
        let device = UsedDevice::new(&instance.unhealthy_reasons, instance.utilization_ratio);
        by_profile.entry(name).or_default().push(device);
    }
    let mut all = vec![of_devices(vendor::gpu_resource(gpus), &whole, expected - gpus.devices.len())];
    all.extend(by_profile.iter().map(|(name, instances)| of_devices(name, instances, 0)));
    all
}

fn of_devices(name: &str, devices: &[UsedDevice], lost: usize) -> Amounts {
    // A broken device that reports no utilisation does no work. If a healthy device reports none, the sum is unknown.
    let counting = devices.iter().filter(|device| device.healthy || device.utilization_ratio.is_some());
    let ratios: Option<Vec<f64>> = counting.map(|device| device.utilization_ratio).collect();
    // Each value is rounded on its own, so that the sum does not depend on the order.
    let used = ratios.map(|ratios| ratios.into_iter().map(|ratio| (ratio * 1e9).round() as u64).sum());
    Amounts {
        // As kube-state-metrics spells it.
        resource: name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect(),
        unit: Unit::UsedDevice,
        installed: Some((devices.len() + lost) as u64),
        healthy: Some(devices.iter().filter(|device| device.healthy).count() as u64),
        used,
    }
}
