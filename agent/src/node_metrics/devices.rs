//! The GPUs and MIG instances of a report, each with its own series, in order of UUID. Who holds a device is not
//! exported here, because only Kubernetes knows which pods are bound and not finished.

use mcad_wire::report::{Gpu, MigInstance, Report};

use super::exposition::{Family, Kind, Text, Value};
use super::gauge;

static INFO: Family = gauge(
    "mcad_gpu_info",
    "Attributes of a GPU or a MIG instance, as labels. An instance has the model and bus_id of its parent.",
);
static HEALTHY: Family =
    gauge("mcad_gpu_healthy", "1 if the GPU works; if not, one series of value 0 for each reason.");
static WARNING: Family =
    gauge("mcad_gpu_warning", "1 for each problem of a GPU that works, by reason, while the problem lasts.");
static UTILIZATION: Family =
    gauge("mcad_gpu_utilization_ratio", "Fraction of the last sampling period in which a kernel ran on the GPU.");
static MEMORY_USED: Family = gauge("mcad_gpu_memory_used_bytes", "GPU memory in use.");
static MEMORY_TOTAL: Family = gauge("mcad_gpu_memory_total_bytes", "Total GPU memory.");
static XID_ERRORS: Family = Family {
    name: "mcad_gpu_xid_errors_total",
    kind: Kind::Counter,
    help: "Xid events of the GPU, by the driver's code.",
};
static NVLINK_ERRORS: Family = Family {
    name: "mcad_gpu_nvlink_errors_total",
    kind: Kind::Counter,
    help: "NVLink errors of the GPU since the driver was loaded, by kind, summed over its links. They do not indicate its health.",
};

/// The families of this file.
pub(super) static FAMILIES: [&Family; 8] =
    [&INFO, &HEALTHY, &WARNING, &UTILIZATION, &MEMORY_USED, &MEMORY_TOTAL, &XID_ERRORS, &NVLINK_ERRORS];

/// A device as a report lists it.
struct Listed<'a> {
    uuid: &'a str,
    /// The GPU itself, or the parent of the instance.
    gpu: &'a Gpu,
    /// `None` if the device is a whole GPU.
    instance: Option<&'a MigInstance>,
}

impl<'a> Listed<'a> {
    /// The GPU, unless the device is an instance: warnings and counters belong to the whole GPU.
    fn whole(&self) -> Option<&'a Gpu> {
        Some(self.gpu).filter(|_| self.instance.is_none())
    }

    /// An instance also has its parent's reasons.
    fn unhealthy_reasons(&self) -> Vec<&'a str> {
        let mut reasons: Vec<&str> = self.gpu.unhealthy_reasons.iter().map(|reason| &**reason).collect();
        if let Some(instance) = self.instance {
            reasons.extend(instance.unhealthy_reasons.iter().map(|reason| &**reason));
            reasons.sort_unstable();
            reasons.dedup();
        }
        reasons
    }
}

/// Writes the families of a report's devices.
pub(super) fn write(report: &Report, out: &mut Text) {
    let (node, devices) = (("node", &*report.node), listed(report));
    let mut lines = out.family(&INFO);
    for Listed { uuid, gpu, instance } in &devices {
        let (parent, profile) = instance.map_or(("", ""), |instance| (&*gpu.uuid, &*instance.profile));
        let named = [("bus_id", &*gpu.bus_id), ("gpu", *uuid), ("mig_profile", profile), ("model", &*gpu.model)];
        let [bus_id, gpu, profile, model] = named;
        lines.line(&[bus_id, gpu, profile, model, node, ("parent", parent)], Value::Whole(1));
    }
    let mut lines = out.family(&HEALTHY);
    for device in &devices {
        let reasons = device.unhealthy_reasons();
        if reasons.is_empty() {
            lines.line(&[("gpu", device.uuid), node, ("reason", "")], Value::Whole(1));
        }
        for reason in reasons {
            lines.line(&[("gpu", device.uuid), node, ("reason", reason)], Value::Whole(0));
        }
    }
    let mut lines = out.family(&WARNING);
    for device in &devices {
        let mut warnings: Vec<&str> =
            device.whole().into_iter().flat_map(|gpu| &gpu.warnings).map(|warning| &**warning).collect();
        warnings.sort_unstable();
        warnings.dedup();
        for warning in warnings {
            lines.line(&[("gpu", device.uuid), node, ("reason", warning)], Value::Whole(1));
        }
    }
    write_load(node, &devices, out);
    let mut lines = out.family(&XID_ERRORS);
    for device in &devices {
        for errors in device.whole().into_iter().flat_map(|gpu| &gpu.xid_errors) {
            let labels = [("gpu", device.uuid), node, ("xid", &*errors.xid.to_string())];
            lines.line(&labels, Value::Whole(errors.count));
        }
    }
    let mut lines = out.family(&NVLINK_ERRORS);
    for device in &devices {
        let Some(errors) = device.whole().and_then(|gpu| gpu.nvlink_errors.as_ref()) else { continue };
        let by_kind = [
            ("replay", errors.replay),
            ("recovery", errors.recovery),
            ("crc_flit", errors.crc_flit),
            ("crc_data", errors.crc_data),
            ("ecc_data", errors.ecc_data),
        ];
        for (kind, count) in by_kind {
            if let Some(count) = count {
                lines.line(&[("gpu", device.uuid), ("kind", kind), node], Value::Whole(count));
            }
        }
    }
}

fn write_load(node: (&str, &str), devices: &[Listed<'_>], out: &mut Text) {
    type Read = fn(&Listed<'_>) -> Option<Value>;
    let values: [(&Family, Read); 3] = [
        (&UTILIZATION, |of| {
            of.instance.map_or(of.gpu.utilization_ratio, |mig| mig.utilization_ratio).map(Value::Float)
        }),
        (&MEMORY_USED, |of| {
            of.instance.map_or(of.gpu.memory_used_bytes, |mig| mig.memory_used_bytes).map(Value::Whole)
        }),
        (&MEMORY_TOTAL, |of| {
            of.instance.map_or(of.gpu.memory_total_bytes, |mig| mig.memory_total_bytes).map(Value::Whole)
        }),
    ];
    for (family, read) in values {
        let mut lines = out.family(family);
        for device in devices {
            if let Some(value) = read(device) {
                lines.line(&[("gpu", device.uuid), node], value);
            }
        }
    }
}

/// Sorted by UUID.
fn listed(report: &Report) -> Vec<Listed<'_>> {
    let mut all = Vec::new();
    for gpu in report.gpus.iter().flat_map(|gpus| &gpus.devices) {
        let instances = gpu.mig_instances.iter();
        all.extend(instances.map(|instance| Listed { uuid: &instance.uuid, gpu, instance: Some(instance) }));
        all.push(Listed { uuid: &gpu.uuid, gpu, instance: None });
    }
    all.sort_by_key(|device| device.uuid);
    all
}
