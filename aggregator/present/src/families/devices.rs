//! Section E of the metrics contract: GPUs and MIG instances, one by one.
use mcad_accounting::measure::Device;
use mcad_accounting::snapshot::Nodes;
use mcad_wire::reading::NvlinkErrors;

use super::{counter, gauge};
use crate::exposition::{Exposition, Family, Labels, Value};

const ONE: &[&str] = &["gpu", "node"];

static INFO: Family = gauge(
    "mcad_gpu_info",
    &["bus_id", "gpu", "mig_profile", "model", "node", "parent"],
    "1",
    "Attributes of a GPU or a MIG instance, as labels. An instance has the model and bus_id of its parent.",
);
static HEALTHY: Family = gauge(
    "mcad_gpu_healthy",
    &["gpu", "node", "reason"],
    "0 or 1",
    "1 if the GPU works; if not, one series of value 0 for each reason.",
);
static WARNING: Family = gauge(
    "mcad_gpu_warning",
    &["gpu", "node", "reason"],
    "1",
    "1 for each problem of a GPU that works, by reason, while the problem lasts.",
);
static UTILIZATION: Family = gauge(
    "mcad_gpu_utilization_ratio",
    ONE,
    "0 to 1",
    "Fraction of the last sampling period in which a kernel ran on the GPU.",
);
static MEMORY_USED: Family = gauge("mcad_gpu_memory_used_bytes", ONE, "bytes", "GPU memory in use.");
static MEMORY_TOTAL: Family = gauge("mcad_gpu_memory_total_bytes", ONE, "bytes", "Total GPU memory.");
static XID_ERRORS: Family = counter(
    "mcad_gpu_xid_errors_total",
    &["gpu", "node", "xid"],
    "events",
    "Xid events of the GPU, by the driver's code.",
);
static NVLINK_ERRORS: Family = counter(
    "mcad_gpu_nvlink_errors_total",
    &["gpu", "kind", "node"],
    "errors",
    "NVLink errors of the GPU since the driver was loaded, by kind, summed over its links. They do not indicate its health.",
);
static ASSIGNED: Family = gauge(
    "mcad_gpu_assigned",
    &["container", "gpu", "namespace", "node", "pod"],
    "1",
    "1 for each container of a bound, unfinished pod that holds the GPU.",
);
static STRAYS: Family = gauge(
    "mcad_gpu_strays",
    ONE,
    "processes",
    "Processes on the GPU that belong to no pod, or to a pod that does not hold the GPU. No series if there are none, or if it is not \
     known whose processes they are.",
);
static UNCLAIMED_MEMORY: Family = gauge(
    "mcad_gpu_unclaimed_memory_bytes",
    ONE,
    "bytes",
    "GPU memory in use by no process on the GPU, in two reports in a row: left behind by a dead process. No series if it is at most \
     --unclaimed-memory, or not known.",
);

/// The families of this section.
pub static FAMILIES: &[&Family] = &[
    &INFO,
    &HEALTHY,
    &WARNING,
    &UTILIZATION,
    &MEMORY_USED,
    &MEMORY_TOTAL,
    &XID_ERRORS,
    &NVLINK_ERRORS,
    &ASSIGNED,
    &STRAYS,
    &UNCLAIMED_MEMORY,
];

type Measured = fn(&Device) -> Option<Value>;

/// Writes the section.
pub fn write(nodes: &Nodes, out: &mut Exposition<'_>) {
    let mut lines = out.family(&INFO);
    each(nodes, |labels, node, device| {
        let (parent, profile) = device.mig.as_ref().map_or(("", ""), |(parent, profile)| (parent, profile));
        labels.push("bus_id", &device.bus_id).push("gpu", &device.uuid).push("mig_profile", profile);
        labels.push("model", &device.model).push("node", node).push("parent", parent);
        lines.line(labels, Value::Unsigned(1));
    });
    let mut lines = out.family(&HEALTHY);
    each(nodes, |labels, node, device| {
        let mark = labels.push("gpu", &device.uuid).push("node", node).mark();
        if device.unhealthy_reasons.is_empty() {
            lines.line(labels.push("reason", ""), Value::Unsigned(1));
        }
        for reason in &device.unhealthy_reasons {
            lines.line(labels.cut(mark).push("reason", reason), Value::Unsigned(0));
        }
    });
    let mut lines = out.family(&WARNING);
    each(nodes, |labels, node, device| {
        let mark = labels.push("gpu", &device.uuid).push("node", node).mark();
        for reason in &device.warnings {
            lines.line(labels.cut(mark).push("reason", reason), Value::Unsigned(1));
        }
    });
    let measured: [(&'static Family, Measured); 3] = [
        (&UTILIZATION, |device| device.utilization_ratio.map(Value::Float)),
        (&MEMORY_USED, |device| device.memory_used_bytes.map(Value::Unsigned)),
        (&MEMORY_TOTAL, |device| device.memory_total_bytes.map(Value::Unsigned)),
    ];
    write_measured(nodes, &measured, out);
    let mut lines = out.family(&XID_ERRORS);
    each(nodes, |labels, node, device| {
        let mark = labels.push("gpu", &device.uuid).push("node", node).mark();
        for (xid, count) in &device.xid_errors {
            lines.line(labels.cut(mark).push("xid", &xid.to_string()), Value::Unsigned(*count));
        }
    });
    let mut lines = out.family(&NVLINK_ERRORS);
    each(nodes, |labels, node, device| {
        let mark = labels.push("gpu", &device.uuid).mark();
        for (kind, count) in device.nvlink_errors.iter().flat_map(|errors| by_kind(errors)) {
            if let Some(count) = count {
                lines.line(labels.cut(mark).push("kind", kind).push("node", node), Value::Unsigned(count));
            }
        }
    });
    let mut lines = out.family(&ASSIGNED);
    each(nodes, |labels, node, device| {
        for [namespace, pod, container] in device.holders.iter().flat_map(|holders| &**holders) {
            labels.cut(0).push("container", container).push("gpu", &device.uuid).push("namespace", namespace);
            lines.line(labels.push("node", node).push("pod", pod), Value::Unsigned(1));
        }
    });
    // Most GPUs have neither, so 0 has no series.
    let amiss: [(&'static Family, Measured); 2] = [
        (&STRAYS, |device| device.strays.filter(|strays| *strays > 0).map(Value::Unsigned)),
        (&UNCLAIMED_MEMORY, |device| device.unclaimed_memory_bytes.filter(|bytes| *bytes > 0).map(Value::Unsigned)),
    ];
    write_measured(nodes, &amiss, out);
}

/// Writes families with one value for each device that has it.
fn write_measured(nodes: &Nodes, families: &[(&'static Family, Measured)], out: &mut Exposition<'_>) {
    for (family, value) in families {
        let mut lines = out.family(family);
        each(nodes, |labels, node, device| {
            if let Some(value) = value(device) {
                lines.line(labels.push("gpu", &device.uuid).push("node", node), value);
            }
        });
    }
}

/// The values of the label `kind`.
fn by_kind(errors: &NvlinkErrors) -> [(&'static str, Option<u64>); 5] {
    let NvlinkErrors { replay, recovery, crc_flit, crc_data, ecc_data } = *errors;
    [("replay", replay), ("recovery", recovery), ("crc_flit", crc_flit), ("crc_data", crc_data), ("ecc_data", ecc_data)]
}

/// Calls `write` with empty labels, the node's name and the device, for each device of each node.
fn each(nodes: &Nodes, mut write: impl FnMut(&mut Labels, &str, &Device)) {
    let mut labels = Labels::new();
    for view in &nodes.nodes {
        for device in view.measured.iter().flat_map(|measured| &measured.devices) {
            write(labels.cut(0), &view.node.name, device);
        }
    }
}
