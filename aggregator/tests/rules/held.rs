//! docs/accounting.md §13: what pods do with the GPUs that they hold, from reports to lines.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use mcad_accounting::options::{Options, PodMetrics};
use mcad_present::history::History;
use mcad_present::page::query::PageQuery;
use mcad_present::page::{Shown, render};
use mcad_testkit::build::{assigned, gpu_node, gpu_report, gpus, object, pod, v1beta2, with};
use mcad_testkit::explained::{LATER, snapshot};
use mcad_testkit::{check_lines, print_with};
use mcad_wire::report::{GpuUse, Report};
use serde_json::{Value, json};

const S: u64 = 1_000_000_000;

/// Two pods on GPUs of one node: `p` of AppWrapper `w`, and `q` of nobody.
fn objects() -> Vec<Value> {
    let gpu = || json!({"nvidia.com/gpu": "1"});
    let started = |pod: Value| {
        let status = json!([{"name": "main", "state": {"running": {"startedAt": "2023-11-14T22:13:24Z"}}}]);
        with(pod, "/status/containerStatuses", status)
    };
    let ours = json!({"workload.codeflare.dev/appwrapper": "w"});
    vec![
        gpu_node("n", 4),
        started(with(pod("p", "n", gpu()), "/metadata/labels", ours)),
        started(pod("q", "n", gpu())),
        v1beta2("w", json!([]), "Running"),
    ]
}

/// The `at`th report, ten seconds after the one before. `io_s` and `busy_s` are what the container of `p` did on its GPU so far.
fn reported(at: u64, busy_s: u64, io_s: u64) -> Report {
    let mut devices = gpus(2);
    for gpu in &mut devices {
        gpu.busy_ns = Some(busy_s * S);
        // Nobody had a process there: 3 s of 10 s were busy all the same.
        gpu.vacant = vec![3 * at * S, 0, 0, 0, 0, 0, 0, 0, 0, 7 * at * S];
    }
    devices[0].uses = vec![GpuUse {
        pod_uid: "uid-p".into(),
        container_id: "c".into(),
        processes: 1,
        parts: vec![busy_s * S, 0, 0, 0, io_s * S],
        ..GpuUse::default()
    }];
    let mut held = assigned("nvidia.com/gpu", &[("p", &["GPU-0"]), ("q", &["GPU-1"])]);
    held.assigned.iter_mut().for_each(|of| of.held_ns = Some(10 * at * S));
    Report {
        sequence: at,
        started_at_ms: 1_700_000_000_000,
        sampled_at_ms: 1_700_000_000_000 + 10_000 * at,
        uptime_ns: (100 + 10 * at) * S,
        assignments: Some(held),
        ..gpu_report("n", devices)
    }
}

fn print(reports: Vec<Report>) -> String {
    let options = Options { pod_metrics: PodMetrics::On, ..Options::default() };
    print_with(objects().iter().map(object).collect(), reports, &options)
}

#[test]
fn held_time_is_busy_or_idle_by_cause_for_appwrappers_pods_and_the_cluster() {
    // 1_700_000_000 is 22:13:20: the containers started 4 s later.
    let text = print(vec![reported(1, 4, 6), reported(2, 6, 14)]);
    check_lines(
        &text,
        &[
            r#"mcad_appwrapper_gpu_held_seconds_total{appwrapper="w",namespace="a"} 20"#,
            r#"mcad_appwrapper_gpu_busy_seconds_total{appwrapper="w",namespace="a"} 6"#,
            r#"mcad_appwrapper_gpu_idle_seconds_total{appwrapper="w",cause="io",namespace="a"} 14"#,
            r#"mcad_cluster_gpu_held{owner="appwrapper",use="busy"} 0.2"#,
            r#"mcad_cluster_gpu_held{owner="appwrapper",use="io"} 0.8"#,
            r#"mcad_cluster_gpu_held{owner="appwrapper",use="gang"} 0"#,
            r#"mcad_cluster_gpu_held{owner="other",use="busy"} 0.3"#,
            r#"mcad_cluster_gpu_held{owner="other",use="no_process"} 0.7"#,
            r#"mcad_cluster_gpu_held_seconds_total{owner="appwrapper",use="io"} 14"#,
            r#"mcad_cluster_gpu_held_seconds_total{owner="other",use="busy"} 6"#,
            r#"mcad_cluster_gpu_held_seconds_total{owner="other",use="no_process"} 10"#,
            r#"mcad_cluster_gpu_held_seconds_total{owner="other",use="starting"} 4"#,
            r#"mcad_pod_gpu_idle_seconds_total{cause="io",namespace="a",pod="p"} 14"#,
            r#"mcad_pod_gpu_idle_seconds_total{cause="no_process",namespace="a",pod="q"} 10"#,
        ],
    );
    assert!(!text.contains(r#"cause="host""#), "only causes that occurred");
}

#[test]
fn where_no_agent_says_who_holds_devices_there_is_no_line() {
    assert!(!print(Vec::new()).contains("gpu_held"));
    let blind = Report { assignments: None, ..reported(1, 1, 1) };
    assert!(!print(vec![blind]).contains("gpu_held"));
}

#[test]
fn the_page_says_what_held_gpus_do() {
    let snapshot = snapshot(&objects(), vec![reported(1, 4, 6), reported(2, 6, 14)]);
    let query = PageQuery::parse("/", "").unwrap().unwrap();
    let html = render(&query, &Shown { snapshot: &snapshot, history: &History::default() }, LATER).unwrap();
    for words in ["Pods hold 2 GPUs, 0.5 busy; idle: 0.8 waiting for I/O and 0.7 without a process", "GPUs idle most"] {
        assert!(html.contains(words), "{words}: {html}");
    }
}
