//! Section F of the metrics contract: pods, one by one. There are many; off unless asked for.
use mcad_accounting::measure::PodFigures;

use super::{counter, gauge};
use crate::exposition::{Exposition, Family, Labels, Value};

const ONE: &[&str] = &["namespace", "pod"];

static CPU_SECONDS: Family =
    counter("mcad_pod_cpu_seconds_total", ONE, "seconds", "CPU time since its cgroup was made. With --pod-metrics.");
static WORKING_SET: Family = gauge(
    "mcad_pod_memory_working_set_bytes",
    ONE,
    "bytes",
    "Memory charged to it, less the page cache that is given back first. With --pod-metrics.",
);
static RUN_QUEUE_WAIT_SECONDS: Family = counter(
    "mcad_pod_run_queue_wait_seconds_total",
    ONE,
    "seconds",
    "Time that its tasks were ready to run and waited for a processor. With --pod-metrics.",
);
static OOM_KILLS: Family = counter(
    "mcad_pod_oom_kills_total",
    ONE,
    "processes",
    "Processes in it that were killed for want of memory. With --pod-metrics.",
);
static GPU_BUSY: Family = gauge(
    "mcad_pod_gpu_busy_ratio",
    ONE,
    "0 to 1",
    "How busy the GPUs that it holds are with it, on average; of a shared one its part. With --pod-metrics.",
);

/// The families of this section.
pub static FAMILIES: &[&Family] = &[&CPU_SECONDS, &WORKING_SET, &RUN_QUEUE_WAIT_SECONDS, &OOM_KILLS, &GPU_BUSY];

type Figure = fn(&PodFigures) -> Option<Value>;

/// The families, and what they show.
static FIGURES: [(&Family, Figure); 5] = [
    (&CPU_SECONDS, |pod| pod.cpu_ns.map(Value::Nano)),
    (&WORKING_SET, |pod| pod.working_set_bytes.map(Value::Unsigned)),
    (&RUN_QUEUE_WAIT_SECONDS, |pod| pod.run_queue_wait_ns.map(Value::Nano)),
    (&OOM_KILLS, |pod| pod.oom_kills.map(Value::Unsigned)),
    (&GPU_BUSY, |pod| pod.gpu_busy_ratio.map(Value::Float)),
];

/// Writes the section.
pub(crate) fn write(pods: &[PodFigures], out: &mut Exposition<'_>) {
    let mut labels = Labels::new();
    for (family, figure) in &FIGURES {
        let mut lines = out.family(family);
        for pod in pods {
            let Some(value) = figure(pod) else { continue };
            lines.line(labels.cut(0).push("namespace", &pod.name.0).push("pod", &pod.name.1), value);
        }
    }
}
