//! Section E of the metrics contract: GPUs and MIG instances, one by one.
use crate::exposition::{Exposition, Family, Labels, Value};
use crate::measure::Device;
use crate::snapshot::Nodes;

use super::{counter, gauge};

const ONE: &[&str] = &["gpu", "node"];

static INFO: Family = gauge(
    "mcad_gpu_info",
    &["bus_id", "gpu", "mig_profile", "model", "node", "parent"],
    "1",
    "What a GPU or a MIG instance is; of an instance, model and address are its parent's.",
);
static HEALTHY: Family = gauge(
    "mcad_gpu_healthy",
    &["gpu", "node", "reason"],
    "0 or 1",
    "Whether it works; if not, one line for each reason.",
);
static UTILIZATION: Family =
    gauge("mcad_gpu_utilization_ratio", ONE, "0 to 1", "Part of the last sampling period in which a kernel ran on it.");
static MEMORY_USED: Family = gauge("mcad_gpu_memory_used_bytes", ONE, "bytes", "Memory in use on it.");
static MEMORY_TOTAL: Family = gauge("mcad_gpu_memory_total_bytes", ONE, "bytes", "Memory it has.");
static XID_ERRORS: Family =
    counter("mcad_gpu_xid_errors_total", &["gpu", "node", "xid"], "events", "Xid events by the driver's code.");
static ASSIGNED: Family = gauge(
    "mcad_gpu_assigned",
    &["container", "gpu", "namespace", "node", "pod"],
    "1",
    "Who holds it: a bound, unfinished pod's container.",
);

/// The families of this section.
pub static FAMILIES: &[&Family] = &[&INFO, &HEALTHY, &UTILIZATION, &MEMORY_USED, &MEMORY_TOTAL, &XID_ERRORS, &ASSIGNED];

type Figure = fn(&Device) -> Option<Value>;

/// Writes the section.
pub fn write(nodes: &Nodes, out: &mut Exposition<'_>) {
    let mut lines = out.family(&INFO);
    each(nodes, |node, device| {
        let (parent, profile) = device.mig.as_ref().map_or(("", ""), |(parent, profile)| (parent, profile));
        let labels = Labels::of(&[
            ("bus_id", &device.bus_id),
            ("gpu", &device.uuid),
            ("mig_profile", profile),
            ("model", &device.model),
            ("node", node),
            ("parent", parent),
        ]);
        lines.line(&labels, Value::Unsigned(1));
    });
    let mut lines = out.family(&HEALTHY);
    each(nodes, |node, device| {
        let mut line = |reason: &str, healthy: u64| {
            let labels = Labels::of(&[("gpu", &device.uuid), ("node", node), ("reason", reason)]);
            lines.line(&labels, Value::Unsigned(healthy));
        };
        if device.unhealthy_reasons.is_empty() {
            line("", 1);
        }
        device.unhealthy_reasons.iter().for_each(|reason| line(reason, 0));
    });
    let figures: [(&Family, Figure); 3] = [
        (&UTILIZATION, |device| device.utilization_ratio.map(Value::Float)),
        (&MEMORY_USED, |device| device.memory_used_bytes.map(Value::Unsigned)),
        (&MEMORY_TOTAL, |device| device.memory_total_bytes.map(Value::Unsigned)),
    ];
    for (family, figure) in figures {
        let mut lines = out.family(family);
        each(nodes, |node, device| {
            if let Some(value) = figure(device) {
                lines.line(&Labels::of(&[("gpu", &device.uuid), ("node", node)]), value);
            }
        });
    }
    let mut lines = out.family(&XID_ERRORS);
    each(nodes, |node, device| {
        for (xid, count) in &device.xid_errors {
            let labels = Labels::of(&[("gpu", &device.uuid), ("node", node), ("xid", &xid.to_string())]);
            lines.line(&labels, Value::Unsigned(*count));
        }
    });
    let mut lines = out.family(&ASSIGNED);
    each(nodes, |node, device| {
        for [namespace, pod, container] in device.holders.iter().flatten() {
            let labels = Labels::of(&[
                ("container", container),
                ("gpu", &device.uuid),
                ("namespace", namespace),
                ("node", node),
                ("pod", pod),
            ]);
            lines.line(&labels, Value::Unsigned(1));
        }
    });
}

/// Calls `write` with each node's name and each of its devices.
fn each(nodes: &Nodes, mut write: impl FnMut(&str, &Device)) {
    for view in &nodes.nodes {
        for device in view.measured.iter().flat_map(|measured| &measured.devices) {
            write(&view.node.name, device);
        }
    }
}
