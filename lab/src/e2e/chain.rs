//! Checks everything from the kernel and kubelet to PromQL: sections A to E and G of docs/metrics.md with their values.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::node::{self, BUSY, GPUS, cpu_seconds};
use super::prometheus::Prometheus;
use super::wait::until;
use super::workload::{ASKED, LATER, NOTEBOOK, TRAIN, WAITS, burning, cgroup, unrequested};

/// Values are some seconds old, and rates use the last 20 s; a restarted container may have to wait for 20 s more, and
/// gets little CPU on a busy machine.
const LIMIT_S: u64 = 150;

/// What must hold when everything is healthy and all workloads run.
pub(super) fn holds(prometheus: &Prometheus) -> Result<()> {
    prometheus.holds("all metrics have the expected values", LIMIT_S, &expected()?)?;
    let conserved = "max(abs(mcad:cluster_unaccounted)) < 1e-6".to_owned();
    prometheus.holds("the amounts of the ladder add up", 20, &[conserved])
}

/// Expressions for this many GPUs of this kind, in the cluster and on the node.
pub(super) fn gpus(name: &str, labels: &str, count: f64) -> [String; 2] {
    ["cluster", "node"].map(|whose| {
        format!("sum(mcad_{whose}_{name}{{resource=\"nvidia_com_gpu\",unit=\"integer\"{labels}}}) == {count}")
    })
}

fn expected() -> Result<Vec<String>> {
    let [train, notebook, waits] = ASKED.map(|(_, gpus)| gpus as f64);
    let left = GPUS as f64 - train - notebook;
    let processors = std::thread::available_parallelism().context("cannot determine the number of CPUs")?.get();
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("no MemTotal")?;
    let memory_bytes = memory.trim().trim_end_matches(" kB").parse::<u64>()? * 1024;
    let millicores = (unrequested("cpu")? * 1000.0).round();

    // A: the view of the dispatcher.
    let mut expected = vec![
        format!("mcad_allocatable_capacity_gpu == {left}"),
        format!("mcad_allocatable_capacity_cpu == {millicores}"),
        format!("mcad_allocatable_capacity_memory == {}", unrequested("memory")?),
        "mcad_appwrappers_count{state=\"Running\"} == 1".to_owned(),
        "mcad_appwrappers_count{state=\"Pending\"} == 1".to_owned(),
        "mcad_appwrappers_count{state=\"Failed\"} == 0".to_owned(),
        "mcad_requested_gpu_count == 2".to_owned(),
        format!("mcad_requested_gpu_sum == {}", train + waits),
        "mcad_requested_cpu_sum == 200".to_owned(),
        "mcad_requested_memory_bytes_count == 2".to_owned(),
    ];
    // B: the ladder.
    for (name, labels, count) in [
        ("installed", "", GPUS as f64),
        ("healthy", "", GPUS as f64),
        ("capacity", "", GPUS as f64),
        ("allocatable", "", GPUS as f64),
        ("admissible", "", GPUS as f64),
        ("requested", ",owner=\"appwrapper\"", train),
        ("requested", ",owner=\"other\"", notebook),
        ("free", "", left),
    ] {
        expected.extend(gpus(name, labels, count));
    }
    for (owner, count) in [("appwrapper", train), ("other", notebook), ("system", left)] {
        for whose in ["cluster", "node"] {
            let used = format!("mcad_{whose}_used{{resource=\"nvidia_com_gpu\",owner=\"{owner}\"}}");
            expected.push(format!("abs({used} - {}) < 0.01", count * BUSY));
        }
    }
    expected.extend([
        "sum(mcad_cluster_phantom) == 0".to_owned(),
        "sum(mcad_cluster_overcommitted) == 0".to_owned(),
        "sum(mcad_cluster_withheld{resource=\"nvidia_com_gpu\"}) == 0".to_owned(),
        format!("mcad_node_installed{{resource=\"cpu\"}} == {processors}"),
        format!("mcad_node_installed{{resource=\"memory\"}} == {memory_bytes}"),
        "mcad_cluster_nodes_measured{resource=\"nvidia_com_gpu\"} == 1".to_owned(),
        "mcad_cluster_used{resource=\"cpu\",owner=\"appwrapper\"} > 0.05".to_owned(),
        "mcad_cluster_used{resource=\"cpu\",owner=\"other\"} > 0.05".to_owned(),
        "mcad_cluster_used{resource=\"cpu\",owner=\"system\"} >= 0".to_owned(),
    ]);
    // C: AppWrappers.
    let of = |name: &str, rest: &str| format!("{{namespace=\"default\",appwrapper=\"{name}\"{rest}}}");
    let gpu = ",resource=\"nvidia_com_gpu\"";
    expected.extend([
        "mcad_appwrappers{version=\"v1beta1\",state=\"Running\"} == 1".to_owned(),
        "mcad_appwrappers{version=\"v1beta2\",state=\"Suspended\"} == 1".to_owned(),
        format!("mcad_appwrapper_info{} == 1", of(TRAIN, ",version=\"v1beta1\",state=\"Running\",priority=\"3\"")),
        format!("mcad_appwrapper_info{} == 1", of(LATER, ",version=\"v1beta2\",queue=\"team\"")),
        format!("mcad_appwrapper_requested{} == {waits}", of(WAITS, gpu)),
        format!("mcad_appwrapper_allocated{} == {train}", of(TRAIN, gpu)),
        format!("mcad_appwrapper_allocated{} == 0", of(WAITS, gpu)),
        format!("abs(mcad_appwrapper_used{} - {}) < 0.01", of(TRAIN, gpu), train * BUSY),
        format!("mcad_appwrapper_waiting_seconds{} > 0", of(WAITS, "")),
        format!("mcad_appwrapper_fit{} == 0", of(WAITS, ",by=\"aggregate\"")),
        format!("mcad_appwrapper_fit{} == 0", of(WAITS, ",by=\"nodes\"")),
        format!("mcad_appwrapper_fit{} == 1", of(LATER, ",by=\"nodes\"")),
        format!("mcad_appwrapper_shortfall{} == {}", of(WAITS, gpu), waits - left),
        format!("mcad_appwrapper_cpu_seconds_total{} > 0", of(TRAIN, "")),
        oom_kills(&of(TRAIN, "")),
        format!("abs(rate(mcad_appwrapper_gpu_held_seconds_total{}[20s]) - {train}) < 0.3", of(TRAIN, "")),
        format!("abs(rate(mcad_appwrapper_gpu_busy_seconds_total{}[20s]) - {}) < 0.3", of(TRAIN, ""), train * BUSY),
    ]);
    // D: the distribution of free GPUs. E: devices.
    expected.extend([
        format!("mcad_gpu_slots{{gpus=\"1\"}} == {left}"),
        "mcad_gpu_slots{gpus=\"2\"} == 0".to_owned(),
        format!("mcad_gpu_largest_free_block == {left}"),
        "mcad_nodes{state=\"admissible\"} == 1".to_owned(),
        "mcad_nodes{state=\"cordoned\"} == 0".to_owned(),
        format!("count(mcad_gpu_info{{node=\"localhost\"}} == 1) == {GPUS}"),
        format!("sum(mcad_gpu_healthy) == {GPUS}"),
        format!("count(abs(mcad_gpu_utilization_ratio - {BUSY}) < 0.01) == {GPUS}"),
        format!("count(mcad_gpu_memory_used_bytes >= {}) == {GPUS}", 1_u64 << 30),
        format!("count(mcad_gpu_memory_total_bytes > 8e10) == {GPUS}"),
        format!("sum(mcad_gpu_assigned{{namespace=\"default\",pod=\"{TRAIN}\"}}) == {train}"),
        format!("sum(mcad_gpu_assigned{{namespace=\"default\",pod=\"{NOTEBOOK}\"}}) == {notebook}"),
    ]);
    // G: freshness, and self-metrics.
    expected.extend([
        "mcad_node_agent_up{node=\"localhost\"} == 1".to_owned(),
        "mcad_node_report_age_seconds{node=\"localhost\"} < 10".to_owned(),
        "mcad_node_source{node=\"localhost\",figure=\"cgroup\",source=\"bpf\"} == 1".to_owned(),
        "max(mcad_snapshot_age_seconds) < 10".to_owned(),
        "sum(mcad_aggregator_leader) == 1".to_owned(),
        "count(mcad_aggregator_leader) == 2".to_owned(),
        "count(mcad_build_info) == 2".to_owned(),
        "min(rate(mcad_aggregator_reports_received_total[20s])) > 0".to_owned(),
        "count(up{job=\"mcad-agent\"} == 1) == 1".to_owned(),
        "rate(mcad_agent_ticks_total{node=\"localhost\"}[20s]) > 0".to_owned(),
        "count(mcad_agent_reports_sent_total) >= 1".to_owned(),
    ]);
    Ok(expected)
}

/// What is not measured is absent: if memory is in cgroup v1, the agent has no values of it.
fn oom_kills(labels: &str) -> String {
    let total = format!("mcad_appwrapper_oom_kills_total{labels}");
    if node::counts_memory() { format!("{total} == 0") } else { format!("absent({total})") }
}

/// Compares CPU seconds by owner with the cgroups' own counters. Both pods are stopped for it, so that the counter and
/// the metric can be read at the same state, however old either is; twice, with some seconds of work in between.
pub(super) fn cpu_by_owner(prometheus: &Prometheus) -> Result<()> {
    let of_train = format!("mcad_appwrapper_cpu_seconds_total{{namespace=\"default\",appwrapper=\"{TRAIN}\"}}");
    let of_notebook = format!("mcad_pod_cpu_seconds_total{{namespace=\"default\",pod=\"{NOTEBOOK}\"}}");
    let pods = [(TRAIN, of_train), (NOTEBOOK, of_notebook)];
    let mut before = [None, None];
    for _ in 0..2 {
        for process in burning()? {
            process.signal(Signal::STOP)?;
        }
        for ((pod, figure), before) in pods.iter().zip(&mut before) {
            let cgroup = cgroup(pod)?;
            // It still increases until a report from after the stop has arrived.
            let still = format!("changes({figure}[8s]) == 0 and count_over_time({figure}[8s]) >= 6");
            prometheus.holds("the metric no longer changes", 60, &[still])?;
            let (counted, shown) = (cpu_seconds(&cgroup)?, prometheus.value(figure)?);
            ensure!((shown / counted - 1.0).abs() <= 0.01, "{pod}: exported {shown}, counted {counted}");
            println!("e2e:   {pod}: {shown:.3} s exported, {counted:.3} s in its cgroup's cpu.stat");
            if let Some((counted_before, shown_before)) = before.replace((counted, shown)) {
                let ratio = (shown - shown_before) / (counted - counted_before);
                ensure!(
                    (ratio - 1.0).abs() <= 0.01,
                    "{pod}: between the two readings, exported {ratio} of what its cgroup counted"
                );
            }
        }
        for process in burning()? {
            process.signal(Signal::CONT)?;
        }
        for ((pod, _), before) in pods.iter().zip(before) {
            let cgroup = cgroup(pod)?;
            until("the pod used more than 1.5 s of CPU time again", 120, || {
                let worked = cpu_seconds(&cgroup)? - before.map_or(0.0, |(counted, _)| counted);
                ensure!(worked > 1.5, "{pod} used {worked} s");
                Ok(())
            })?;
        }
    }
    Ok(())
}
