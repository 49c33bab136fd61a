//! Processes that use a device without a right to it: those outside of pods, and those of a pod that does not hold the device. Who holds
//! which device is what kubelet's list says; where that is not enough, the number is unknown.
use mcad_wire::reading::{Gpu, GpuUse, Gpus, MigInstance, Report};

use super::held::HeldDevices;
use crate::cluster::Cluster;
use crate::hardware::ResourceNames;

/// What decides whether a process may use a device.
#[derive(Clone, Copy)]
pub(super) struct Rights<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) gpus: &'a Gpus<'a>,
    pub(super) held: &'a HeldDevices<'a>,
}

impl<'a> Rights<'a> {
    /// `None` without GPUs.
    pub(super) fn new(cluster: &'a Cluster, report: &'a Report<'a>, held: &'a HeldDevices<'a>) -> Option<Self> {
        Some(Self { cluster, gpus: report.gpus.as_ref()?, held })
    }

    /// How many stray processes a GPU has, or one of its instances. `None` if that is not known, as for a GPU in MIG mode, which nobody
    /// holds as a whole.
    pub(super) fn strays(self, gpu: &Gpu<'_>, instance: Option<&MigInstance<'_>>) -> Option<u64> {
        let is_mig = gpu.mig_mode == Some(true);
        let (uuid, uses) = instance.map_or((gpu.uuid, &gpu.uses), |instance| (instance.uuid, &instance.uses));
        let holders = self.held.of(uuid);
        // A dump may lack the UIDs of pods.
        if is_mig != instance.is_some() || holders.iter().any(|of| of.cgroup_uid().is_empty()) {
            return None;
        }
        let mut strays = 0;
        for used in uses {
            let processes = u64::from(used.processes.saturating_sub(used.daemons));
            if processes > 0 && !self.permits(uuid, used) {
                let is_unknown = used.unreadable || self.may_hold(used.pod_uid, gpu, instance);
                strays += Some(processes).filter(|_| !is_unknown)?;
            }
        }
        // Processes that are not listed may be strays, too.
        (strays > 0 || gpu.uses_complete != Some(false)).then_some(strays)
    }

    fn permits(self, uuid: &str, used: &GpuUse<'_>) -> bool {
        !used.pod_uid.is_empty() && self.held.of(uuid).iter().any(|device| device.cgroup_uid() == used.pod_uid)
    }

    /// Whether a pod that does not hold the device by kubelet's list may hold it nevertheless, because the list does not say which device
    /// the pod holds.
    fn may_hold(self, uid: &str, gpu: &Gpu<'_>, instance: Option<&MigInstance<'_>>) -> bool {
        if uid.is_empty() {
            return false;
        }
        let names = ResourceNames::of(self.gpus.resource, self.gpus.part_prefix);
        // Some device plugins have ids that are no UUIDs.
        let is_unnamed = |id: &str| !self.lists(id);
        let mut of_pod =
            self.held.all().iter().filter(|device| device.cgroup_uid() == uid && names.has(device.resource));
        // Of a part of a GPU that a claim holds, a slice may have the UUID of the GPU only.
        of_pod.any(|device| is_unnamed(device.uuid) || (instance.is_some() && device.uuid == gpu.uuid))
            || self.held.unnamed.contains(&uid)
            // Kubelet may be too old to list claims.
            || (!self.held.claiming.contains(&uid)
                && self.cluster.pod_of_uid(uid).is_some_and(|pod| pod.claims().is_some()))
    }

    /// Whether NVML lists this device.
    fn lists(self, uuid: &str) -> bool {
        let has = |gpu: &Gpu<'_>| gpu.uuid == uuid || gpu.mig_instances.iter().any(|instance| instance.uuid == uuid);
        self.gpus.devices.iter().any(has)
    }
}
