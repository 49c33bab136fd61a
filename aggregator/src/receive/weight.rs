//! How much memory a report takes. An estimate from what it lists; never much below the truth, as its strings are as long as
//! on the wire and its structures as large as the compiler makes them.
use std::mem::size_of;

use mcad_wire::report::{
    Absence, Assignment, Cgroup, CgroupDetail, DeviceIds, Gpu, GpuUse, MigInstance, Report, XidErrors,
};

/// Of a report that has so many bytes on the wire.
pub(super) fn weight(report: &Report, wire_bytes: usize) -> u64 {
    let cgroups = report.cgroups.iter().map(|cgroups| {
        let details = cgroups.cgroups.iter().filter(|cgroup| cgroup.detail.is_some()).count();
        list::<Cgroup>(&cgroups.cgroups) + details * size_of::<CgroupDetail>() + list::<String>(&cgroups.from_files)
    });
    let gpus = report.gpus.iter().map(|gpus| {
        let each = gpus.devices.iter().map(|gpu| {
            let instances = gpu.mig_instances.iter();
            let instances = instances.map(|mig| list::<String>(&mig.unhealthy_reasons) + list::<GpuUse>(&mig.uses));
            list::<MigInstance>(&gpu.mig_instances)
                + instances.sum::<usize>()
                + list::<String>(&gpu.unhealthy_reasons)
                + list::<XidErrors>(&gpu.xid_errors)
                + list::<GpuUse>(&gpu.uses)
        });
        list::<Gpu>(&gpus.devices) + each.sum::<usize>() + list::<String>(&gpus.lost_bus_ids)
    });
    let assignments = report.assignments.iter().map(|assignments| {
        let assigned = assignments.assigned.iter().map(|assigned| list::<String>(&assigned.device_ids));
        let allocatable = assignments.allocatable.iter().map(|ids| list::<String>(&ids.device_ids));
        list::<Assignment>(&assignments.assigned)
            + list::<DeviceIds>(&assignments.allocatable)
            + assigned.chain(allocatable).sum::<usize>()
    });
    let parts = cgroups.chain(gpus).chain(assignments).sum::<usize>();
    (size_of::<Report>() + wire_bytes + list::<Absence>(&report.absences) + parts) as u64
}

fn list<T>(elements: &[T]) -> usize {
    size_of_val(elements)
}
