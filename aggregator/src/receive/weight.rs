//! Estimates the memory of a report from its lists. The estimate is never much too low: texts are counted with the encoded bytes, and
//! structures have the size that the compiler gives them.
use std::mem::size_of;

use mcad_wire::reading::{
    Absence, Assignment, Cgroup, CgroupDetail, DeviceIds, Gpu, GpuUse, MigInstance, Report, XidErrors,
};

use super::Received;

/// About how many bytes of memory a report needs.
pub(crate) fn weight(Received { report, encoded, .. }: &Received<'_>) -> u64 {
    let cgroups = report.cgroups.iter().map(|cgroups| {
        let details = cgroups.cgroups.iter().filter(|cgroup| cgroup.detail.is_some()).count();
        list::<Cgroup<'_>>(&cgroups.cgroups) + details * size_of::<CgroupDetail>() + list::<&str>(&cgroups.from_files)
    });
    let gpus = report.gpus.iter().map(|gpus| {
        let each = gpus.devices.iter().map(|gpu| {
            let instances = gpu.mig_instances.iter();
            let instances = instances
                .map(|mig| list::<&str>(&mig.unhealthy_reasons) + uses(&mig.uses) + list::<u64>(&mig.vacant.0));
            list::<MigInstance<'_>>(&gpu.mig_instances)
                + instances.sum::<usize>()
                + list::<&str>(&gpu.unhealthy_reasons)
                + list::<XidErrors>(&gpu.xid_errors)
                + uses(&gpu.uses)
                + list::<u64>(&gpu.vacant.0)
                + list::<&str>(&gpu.warnings)
                + gpu.nvlink_errors.as_deref().map_or(0, size_of_val)
        });
        list::<Gpu<'_>>(&gpus.devices) + each.sum::<usize>() + list::<&str>(&gpus.lost_bus_ids)
    });
    let assignments = report.assignments.iter().map(|assignments| {
        let assigned = assignments.assigned.iter().map(|assigned| list::<&str>(&assigned.device_ids));
        let allocatable = assignments.allocatable.iter().map(|ids| list::<&str>(&ids.device_ids));
        list::<Assignment<'_>>(&assignments.assigned)
            + list::<DeviceIds<'_>>(&assignments.allocatable)
            + assigned.chain(allocatable).sum::<usize>()
    });
    let parts = cgroups.chain(gpus).chain(assignments).sum::<usize>();
    (size_of::<Report<'_>>() + encoded.len() + list::<Absence<'_>>(&report.absences) + parts) as u64
}

fn uses(uses: &[GpuUse<'_>]) -> usize {
    list::<GpuUse<'_>>(uses) + uses.iter().map(|used| list::<u64>(&used.parts.0)).sum::<usize>()
}

fn list<T>(elements: &[T]) -> usize {
    size_of_val(elements)
}
