//! Section F of the metrics contract: pods, one by one. Off by default, since there are many.
use mcad_accounting::measure::PodFigures;

use super::{counter, gauge};
use crate::exposition::{Exposition, Family, Labels, Value};

const ONE: &[&str] = &["namespace", "pod"];

static CPU_SECONDS: Family = counter(
    "mcad_pod_cpu_seconds_total",
    ONE,
    "seconds",
    "CPU time of the pod since its cgroup was created. Needs --pod-metrics.",
);
static WORKING_SET: Family = gauge(
    "mcad_pod_memory_working_set_bytes",
    ONE,
    "bytes",
    "Memory charged to the pod, minus the page cache that is reclaimed first. Needs --pod-metrics.",
);
static RUN_QUEUE_WAIT_SECONDS: Family = counter(
    "mcad_pod_run_queue_wait_seconds_total",
    ONE,
    "seconds",
    "Run-queue wait: time that tasks of the pod were ready to run and waited for a CPU. Needs --pod-metrics.",
);
static OOM_KILLS: Family =
    counter("mcad_pod_oom_kills_total", ONE, "processes", "OOM-killed processes of the pod. Needs --pod-metrics.");
static GPU_BUSY: Family = gauge(
    "mcad_pod_gpu_busy_ratio",
    ONE,
    "0 to 1",
    "Average utilisation of the GPUs that the pod holds; for a shared GPU, the pod's part of it. Needs --pod-metrics.",
);

static GPU_IDLE_SECONDS: Family = counter(
    "mcad_pod_gpu_idle_seconds_total",
    &["cause", "namespace", "pod"],
    "seconds",
    "Time for which GPUs idled that the pod held, by cause. Exported only if not 0. Needs --pod-metrics.",
);

/// The families of this section.
pub static FAMILIES: &[&Family] =
    &[&CPU_SECONDS, &WORKING_SET, &RUN_QUEUE_WAIT_SECONDS, &OOM_KILLS, &GPU_BUSY, &GPU_IDLE_SECONDS];

type Measured = fn(&PodFigures) -> Option<Value>;

/// The families, and the value that each exports.
static MEASURED: [(&Family, Measured); 5] = [
    (&CPU_SECONDS, |pod| pod.cpu_ns.map(Value::Nano)),
    (&WORKING_SET, |pod| pod.working_set_bytes.map(Value::Unsigned)),
    (&RUN_QUEUE_WAIT_SECONDS, |pod| pod.run_queue_wait_ns.map(Value::Nano)),
    (&OOM_KILLS, |pod| pod.oom_kills.map(Value::Unsigned)),
    (&GPU_BUSY, |pod| pod.gpu_busy_ratio.map(Value::Float)),
];

/// Writes the section.
pub(crate) fn write(pods: &[PodFigures], out: &mut Exposition<'_>) {
    let mut labels = Labels::new();
    for (family, value) in &MEASURED {
        let mut lines = out.family(family);
        for pod in pods {
            let Some(value) = value(pod) else { continue };
            lines.line(labels.cut(0).push("namespace", &pod.name.0).push("pod", &pod.name.1), value);
        }
    }
    let mut lines = out.family(&GPU_IDLE_SECONDS);
    for pod in pods {
        for (cause, ns) in pod.gpu_idle_ns.iter().flat_map(|idle| idle.idle()).filter(|(_, ns)| *ns > 0) {
            let labels =
                labels.cut(0).push("cause", cause.label()).push("namespace", &pod.name.0).push("pod", &pod.name.1);
            lines.line(labels, Value::Nano(ns));
        }
    }
}
