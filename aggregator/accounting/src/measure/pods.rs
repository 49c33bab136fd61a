//! Pods one by one: what a report says of each that the cluster has.
use std::collections::{BTreeMap, BTreeSet};

use super::held::HeldDevices;
use super::{Joined, JoinedPod, NANO, PodName, working_set_bytes};
use crate::object::Pod;

/// What was measured of one pod. Absent: not measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFigures {
    /// Its namespace and name.
    pub name: PodName,
    /// CPU time since its cgroup was made.
    pub cpu_ns: Option<u64>,
    /// Memory charged to it, less what is given back first.
    pub working_set_bytes: Option<u64>,
    /// Time that its tasks were ready to run and waited.
    pub run_queue_wait_ns: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
    /// How busy the GPUs that it holds are with it.
    pub gpu_busy_ratio: Option<f64>,
}

impl Joined<'_> {
    /// The pods one by one. Devices are known where cgroups are not, and the other way round.
    pub(super) fn pod_figures(&self) -> Vec<PodFigures> {
        let name = |pod: &Pod| (pod.namespace.clone(), pod.name.clone());
        let mut pods: BTreeMap<PodName, PodFigures> = BTreeMap::new();
        for (pod, ended) in &self.ended_pods {
            // In order of their end: of a pod that had several cgroups, the last.
            let figures = pods.entry(name(pod)).or_default();
            figures.cpu_ns = ended.cpu_ns;
            figures.run_queue_wait_ns = ended.run_queue_wait_ns;
            figures.oom_kills = ended.oom_kills;
        }
        for JoinedPod { pod, cgroup, .. } in &self.pods {
            let figures = pods.entry(name(pod)).or_default();
            figures.cpu_ns = cgroup.cpu_ns;
            figures.working_set_bytes = working_set_bytes(cgroup);
            figures.run_queue_wait_ns = cgroup.run_queue_wait_ns;
            figures.oom_kills = cgroup.oom_kills;
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
        pods.into_iter().map(|(name, figures)| PodFigures { name, ..figures }).collect()
    }
}
