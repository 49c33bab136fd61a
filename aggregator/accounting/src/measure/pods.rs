//! Pods one by one: the measurements in a report of each pod that the cluster has.
use std::collections::{BTreeMap, BTreeSet};

use super::held::HeldDevices;
use super::{Joined, JoinedPod, NANO, PodName, working_set_bytes};
use crate::gpu_use::Uses;
use crate::object::Pod;

/// The measurements of one pod. `None` if a value was not measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFigures {
    /// Its namespace and name.
    pub name: PodName,
    /// CPU time since its cgroup was created.
    pub cpu_ns: Option<u64>,
    /// Memory charged to it, less the page cache that the kernel reclaims first.
    pub working_set_bytes: Option<u64>,
    /// Run-queue wait: time that its tasks were ready to run but did not run.
    pub run_queue_wait_ns: Option<u64>,
    /// Processes that were OOM-killed.
    pub oom_kills: Option<u64>,
    /// The part of the GPUs it holds that the pod keeps busy.
    pub gpu_busy_ratio: Option<f64>,
    /// For how long the GPUs that it held idled, by cause. `None` if they did not.
    pub gpu_idle_ns: Option<Box<Uses>>,
}

impl Joined<'_> {
    /// The pods one by one. Devices may be known for pods without cgroups, and cgroups for pods without devices.
    pub(super) fn pod_measurements(&self) -> Vec<PodFigures> {
        let name = |pod: &Pod| (pod.namespace.clone(), pod.name.clone());
        let mut pods: BTreeMap<PodName, PodFigures> = BTreeMap::new();
        for (pod, ended) in &self.ended_pods {
            // Sorted by the time of their end: for a pod that had several cgroups, the last one counts.
            let values = pods.entry(name(pod)).or_default();
            values.cpu_ns = ended.cpu_ns;
            values.run_queue_wait_ns = ended.run_queue_wait_ns;
            values.oom_kills = ended.oom_kills;
        }
        for JoinedPod { pod, cgroup, .. } in &self.pods {
            let values = pods.entry(name(pod)).or_default();
            values.cpu_ns = cgroup.cpu_ns;
            values.working_set_bytes = working_set_bytes(cgroup);
            values.run_queue_wait_ns = cgroup.run_queue_wait_ns;
            values.oom_kills = cgroup.oom_kills;
        }
        let listed: BTreeSet<&str> = self.devices.iter().map(|device| device.uuid).collect();
        let mut gpus: BTreeMap<PodName, (&Pod, BTreeSet<&str>)> = BTreeMap::new();
        for device in self.held.iter().flat_map(HeldDevices::all).filter(|device| listed.contains(device.uuid)) {
            gpus.entry(name(device.pod)).or_insert((device.pod, BTreeSet::new())).1.insert(device.uuid);
        }
        for (name, (pod, uuids)) in gpus {
            let ratio = self.pod_nanodevices(pod).map(|busy| busy as f64 / NANO / uuids.len() as f64);
            pods.entry(name).or_default().gpu_busy_ratio = ratio;
        }
        pods.into_iter().map(|(name, values)| PodFigures { name, ..values }).collect()
    }
}
