//! Converts the GPUs of a sample for the report.

use mcad_wire::report;

use crate::sample::gpu::{Gpu, GpuSample, GpuUse, MigInstance, NvlinkErrors, Parts, Unhealthy};

pub(super) fn gpus(sample: &GpuSample) -> report::Gpus {
    report::Gpus {
        driver_version: sample.driver_version.clone().unwrap_or_default(),
        devices: sample.devices.iter().map(device).collect(),
        lost_bus_ids: sample.lost_bus_ids.clone(),
        remembered: sample.remembered,
        fake: sample.fake,
        resource: sample.resource.to_owned(),
        part_prefix: sample.part_prefix.to_owned(),
    }
}

fn device(gpu: &Gpu) -> report::Gpu {
    report::Gpu {
        uuid: gpu.uuid.to_string(),
        model: gpu.model.to_string(),
        bus_id: gpu.bus_id.to_string(),
        mig_mode: gpu.mig_mode,
        mig_instances: gpu.mig_instances.iter().map(instance).collect(),
        unhealthy_reasons: reasons(&gpu.unhealthy),
        utilization_ratio: gpu.load.utilization_ratio,
        busy_ns: gpu.load.busy_ns,
        memory_used_bytes: gpu.load.memory_used_bytes,
        memory_total_bytes: gpu.load.memory_total_bytes,
        xid_errors: gpu.xid_errors.iter().map(|&(xid, count)| report::XidErrors { xid, count }).collect(),
        uses: uses(&gpu.load.uses),
        warnings: gpu.warnings.iter().map(|warning| warning.as_str().to_owned()).collect(),
        nvlink_errors: gpu.nvlink_errors.map(nvlink_errors).map(Box::new),
        vacant: parts(gpu.load.vacant.as_ref()),
        uses_complete: Some(gpu.uses_complete),
    }
}

fn nvlink_errors(errors: NvlinkErrors) -> report::NvlinkErrors {
    let NvlinkErrors { replay, recovery, crc_flit, crc_data, ecc_data } = errors;
    report::NvlinkErrors { replay, recovery, crc_flit, crc_data, ecc_data }
}

fn instance(instance: &MigInstance) -> report::MigInstance {
    report::MigInstance {
        uuid: instance.uuid.to_string(),
        profile: instance.profile.to_string(),
        gpu_instance: instance.gpu_instance,
        compute_instance: instance.compute_instance,
        unhealthy_reasons: reasons(&instance.unhealthy),
        utilization_ratio: instance.load.utilization_ratio,
        busy_ns: instance.load.busy_ns,
        memory_used_bytes: instance.load.memory_used_bytes,
        memory_total_bytes: instance.load.memory_total_bytes,
        uses: uses(&instance.load.uses),
        vacant: parts(instance.load.vacant.as_ref()),
    }
}

fn parts(parts: Option<&Parts>) -> Vec<u64> {
    parts.map(|parts| parts.listed().to_vec()).unwrap_or_default()
}

fn reasons(unhealthy: &[Unhealthy]) -> Vec<String> {
    unhealthy.iter().map(|reason| reason.as_str().to_owned()).collect()
}

fn uses(uses: &[GpuUse]) -> Vec<report::GpuUse> {
    let entry = |entry: &GpuUse| report::GpuUse {
        pod_uid: entry.user.pod_uid.clone(),
        container_id: entry.user.container_id.clone(),
        processes: entry.processes,
        memory_used_bytes: entry.memory_used_bytes,
        busy_ns: entry.busy_ns,
        parts: parts(entry.parts.as_ref()),
        daemons: entry.daemons,
        unreadable: entry.user.unreadable,
    };
    uses.iter().map(entry).collect()
}
