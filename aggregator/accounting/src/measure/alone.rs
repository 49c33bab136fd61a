//! The measurements of an agent on a machine for which there is no other source: `--cluster local`.
//!
//! Pods are unknown there, so everything that is used counts as the system's. What a device plugin does with the GPUs is unknown, too: its
//! strategy for MIG instances, and how many times it hands out each device.
use std::collections::BTreeMap;

use mcad_wire::reading::{Cgroup, Gpus, Report};

use super::{MeasuredNode, NANO, Used, memory_used_bytes};
use crate::hardware::{Found, Hardware, ResourceNames};
use crate::reported::Stored;
use crate::resource::Resource;

/// The hardware and measurements of a node that only its own agent reports.
pub fn measure_alone<'a>(stored: &Stored, report: &Report<'_>) -> (Found<'a>, MeasuredNode) {
    let machine = report.machine.clone().unwrap_or_default();
    let (mut found, mut used) = (Vec::new(), BTreeMap::new());
    let mut put = |resource: Resource, hardware: Option<Hardware>, system: Option<u64>| {
        if system.is_some() {
            used.insert(resource.clone(), Used { system, ..Used::default() });
        }
        found.extend(hardware.map(|hardware| (resource, hardware)));
    };
    let whole = |installed: i128| Hardware { installed, ..Hardware::default() };
    let millicores = machine.cpus_online.map(|cpus| i128::from(cpus) * 1_000);
    put(Resource::Cpu, millicores.map(whole), stored.cpu_busy_nanocores());
    let total = machine.memory_total_bytes;
    let memory_used = memory_used_bytes(total, [machine.memory_free_bytes, machine.memory_inactive_file_bytes]);
    put(Resource::Memory, total.map(|bytes| whole(bytes.into())), memory_used);
    for (resource, pool) in report.gpus.iter().flat_map(pools) {
        put(resource, Some(pool.hardware()), pool.nanodevices());
    }
    let measured = MeasuredNode { used, cgroup_cpu_ns: cgroup_cpu_ns(report), ..MeasuredNode::default() };
    (Found::alone(found), measured)
}

/// The devices of one resource.
#[derive(Default)]
struct Pool {
    /// The devices that the driver lists.
    devices: Vec<UsedDevice>,
    /// How many more there should be.
    lost: usize,
}

/// One device, a GPU or a MIG instance.
struct UsedDevice {
    healthy: bool,
    utilization_ratio: Option<f64>,
}

/// GPUs, and MIG instances under the name that the device plugin's `mixed` strategy gives them. Empty without a driver, unless the machine
/// once had GPUs.
fn pools(gpus: &Gpus<'_>) -> BTreeMap<Resource, Pool> {
    let expected = (gpus.devices.len() + gpus.lost_bus_ids.len()).max(gpus.remembered.unwrap_or(0) as usize);
    let mut pools: BTreeMap<Resource, Pool> = BTreeMap::new();
    if gpus.driver_version.is_empty() && expected == 0 {
        return pools;
    }
    let names = ResourceNames::of(gpus.resource, gpus.part_prefix);
    let whole = Resource::extended(names.whole);
    pools.insert(whole.clone(), Pool { devices: Vec::new(), lost: expected - gpus.devices.len() });
    for gpu in &gpus.devices {
        if gpu.mig_mode == Some(true) {
            for instance in &gpu.mig_instances {
                let device = UsedDevice::new(&instance.unhealthy_reasons, instance.utilization_ratio);
                let resource = Resource::extended(&names.part(instance.profile));
                pools.entry(resource).or_default().devices.push(device);
            }
        } else {
            let device = UsedDevice::new(&gpu.unhealthy_reasons, gpu.utilization_ratio);
            pools.entry(whole.clone()).or_default().devices.push(device);
        }
    }
    pools
}

impl UsedDevice {
    fn new(unhealthy_reasons: &[&str], utilization_ratio: Option<f64>) -> Self {
        Self { healthy: unhealthy_reasons.is_empty(), utilization_ratio }
    }
}

impl Pool {
    fn hardware(&self) -> Hardware {
        let unhealthy = self.devices.iter().filter(|device| !device.healthy).count();
        let [installed, lost, unhealthy] =
            [self.devices.len() + self.lost, self.lost, unhealthy].map(|count| count as i128);
        Hardware { installed, lost, unhealthy, ..Hardware::default() }
    }

    /// Busy devices, in billionths. An unhealthy device without a value counts as idle; a healthy one without a value makes the sum
    /// unknown.
    fn nanodevices(&self) -> Option<u64> {
        let known = self.devices.iter().filter(|device| device.healthy || device.utilization_ratio.is_some());
        let ratios: Option<Vec<f64>> = known.map(|device| device.utilization_ratio).collect();
        // Each value is rounded by itself, so that the order of addition does not change the sum.
        ratios.map(|ratios| ratios.into_iter().map(|ratio| (ratio * NANO).round() as u64).sum())
    }
}

/// CPU time of cgroups by path. A path that was removed and created again during the walk is listed twice; the later cgroup counts, which
/// has the larger id. A cgroup without a path, as agents may list pods by UID alone, is not exported.
fn cgroup_cpu_ns(report: &Report<'_>) -> Box<[(Box<str>, u64)]> {
    let mut by_path: BTreeMap<&str, &Cgroup<'_>> = BTreeMap::new();
    let named = report.cgroups.iter().flat_map(|cgroups| &cgroups.cgroups).filter(|cgroup| !cgroup.path.is_empty());
    for cgroup in named {
        let known = by_path.entry(cgroup.path).or_insert(cgroup);
        if cgroup.id > known.id {
            *known = cgroup;
        }
    }
    by_path.into_iter().filter_map(|(path, cgroup)| Some((path.into(), cgroup.cpu_ns?))).collect()
}
