//! `deploy/monitoring` as its users meet it: rules that promtool tests, and queries that a real Prometheus answers from a real
//! aggregator's `/metrics`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::aggregator::Aggregator;
use crate::support::prometheus::{Prometheus, promtool, said};
use crate::support::wait::until_some;
use mcad_testkit::build::{assigned, node, pod, report, spec, v1beta1, v1beta2, with};
use mcad_wire::report::{Gpu, Gpus, Machine, Report};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn every_alert_fires_in_its_case_and_is_silent_beside_it() {
    let folder = root().join("deploy/monitoring");
    for args in [["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]] {
        let Some(checked) = promtool(&args, &folder, "") else { return };
        assert!(checked.status.success(), "{}", said(&checked));
    }
    let tests = read("deploy/monitoring/rules_test.yaml");
    for alert in alerts() {
        let fires = tests.lines().any(|line| line.contains(&format!("#{}", alert.to_lowercase())));
        assert!(fires, "no case of rules_test.yaml expects {alert}");
    }
}

fn alerts() -> Vec<String> {
    let rules = read("deploy/monitoring/rules.yaml");
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned);
    names.collect()
}

/// Where docs/alerts.md is on the web: Alertmanager and Grafana show `runbook_url` as a link, so it has to be absolute.
const RUNBOOKS: &str = "https://github.com/project-codeflare/mcad-metrics/blob/main/docs/alerts.md";

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let rules = read("deploy/monitoring/rules.yaml");
    let runbooks = read("docs/alerts.md");
    let headings: Vec<&str> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings, alerts());
    for alert in headings {
        assert!(rules.contains(&format!("runbook_url: {RUNBOOKS}#{}\n", alert.to_lowercase())), "{alert}");
    }
}

/// All words of a text that look like a family of ours.
fn families(text: &str) -> BTreeSet<&str> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    words.filter(|word| word.starts_with("mcad_") && !word.ends_with('_')).collect()
}

#[test]
fn only_families_that_exist_are_asked_for() {
    let documented = read("docs/metrics.md");
    for file in ["deploy/monitoring/rules.yaml", "deploy/monitoring/dashboard.json", "docs/alerts.md"] {
        let text = read(file);
        let asked = families(&text);
        assert!(asked.len() > 10, "{file}: {asked:?}");
        for family in asked {
            assert!(documented.contains(&format!("`{family}`")), "{file} names {family}, which nobody emits");
        }
    }
}

/// Panels of the dashboard, rows left out.
fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

#[test]
fn panels_have_names_of_their_own_a_sentence_and_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap();
    let mut taken = BTreeSet::new();
    let mut titles = BTreeSet::new();
    for panel in panels(&dashboard) {
        assert!(titles.insert(panel["title"].as_str().unwrap()), "{panel}");
        assert!(panel["description"].as_str().unwrap().ends_with('.'), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(cell.0 < 24 && taken.insert(cell), "{}: {cell:?}", panel["title"]);
        }
    }
}

/// Kueue's objects: a quota of more GPUs than there are, a Workload that reserves two of them without pods, and an AppWrapper that
/// nobody has queued.
fn kueue() -> [Value; 5] {
    let of_kueue = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name, "namespace": "a"}, "spec": spec});
    let quota = json!([{"name": "f", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": 8}]}]);
    let group = json!({"coveredResources": ["nvidia.com/gpu"], "flavors": quota});
    let pods = json!({"name": "main", "count": 1, "template": {"spec": spec(json!({"nvidia.com/gpu": 2}))}});
    let reserved = json!({"name": "main", "flavors": {"nvidia.com/gpu": "f"}, "resourceUsage": {"nvidia.com/gpu": 2}});
    let status = json!({
        "admission": {"clusterQueue": "q", "podSetAssignments": [reserved]},
        "conditions": [{"type": "QuotaReserved", "status": "True"}],
    });
    let labels = json!({"kueue.x-k8s.io/queue-name": "none"});
    [
        of_kueue("ResourceFlavor", "f", json!({})),
        of_kueue("ClusterQueue", "q", json!({"resourceGroups": [group]})),
        of_kueue("LocalQueue", "q", json!({"clusterQueue": "q"})),
        with(of_kueue("Workload", "w", json!({"queueName": "q", "podSets": [pods]})), "/status", status),
        with(v1beta2("queued", json!([]), "Suspended"), "/metadata/labels", labels),
    ]
}

/// A cluster in which every family has a line: GPUs, one of them broken and advertised, one AppWrapper that runs and one that waits.
fn dump() -> String {
    let item = |gpus: u32| json!([{"generictemplate": {"apiVersion": "v1", "kind": "Pod", "spec": spec(json!({"cpu": "1", "nvidia.com/gpu": gpus}))}}]);
    let held = pod("held", "gpu-1", json!({"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": 2}));
    let items = [
        node("gpu-1", json!({"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": 4})),
        with(held, "/metadata/labels", json!({"appwrapper.mcad.ibm.com": "runs"})),
        v1beta1("runs", item(2), json!({"state": "Running", "canrun": true})),
        v1beta1(
            "waits",
            item(3),
            json!({"state": "Pending", "controllerfirsttimestamp": "2026-01-05T10:00:00.000000Z"}),
        ),
    ];
    let items: Vec<Value> = items.into_iter().chain(kueue()).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Two reports, ten seconds apart, as `mcad-agent --once` prints them.
fn reports() -> String {
    let of = |sequence: u64| {
        let gpu = |at: u64| Gpu {
            uuid: format!("GPU-{at}"),
            utilization_ratio: Some(0.5),
            busy_ns: Some(sequence * 5_000_000_000),
            unhealthy_reasons: if at == 3 { vec!["xid".into()] } else { Vec::new() },
            ..Gpu::default()
        };
        let mut assignments = assigned("nvidia.com/gpu", &[("held", &["GPU-0", "GPU-1"])]);
        assignments.assigned[0].held_ns = Some(sequence * 20_000_000_000);
        let machine = Machine {
            cpus_online: Some(8),
            cpu_busy_ns: Some(sequence * 20_000_000_000),
            memory_total_bytes: Some(32 << 30),
            memory_free_bytes: Some(8 << 30),
            memory_inactive_file_bytes: Some(0),
        };
        Report {
            machine: Some(machine),
            gpus: Some(Gpus { driver_version: "550".into(), devices: (0..4).map(gpu).collect(), ..Gpus::default() }),
            assignments: Some(assignments),
            ..report("gpu-1", sequence)
        }
    };
    [1, 2].map(|sequence| serde_json::to_string(&of(sequence)).unwrap() + "\n").concat()
}

fn start_aggregator(folder: &Path) -> Aggregator {
    let (dump_file, reports_file) = (folder.join("dump.json"), folder.join("reports.json"));
    std::fs::write(&dump_file, dump()).unwrap();
    std::fs::write(&reports_file, reports()).unwrap();
    let (cluster, reports) = (format!("file:{}", dump_file.display()), reports_file.display().to_string());
    // No object of the dump says when it was made.
    Aggregator::start(&["--cluster", &cluster, "--reports", &reports, "--at", "2026-01-05T12:00:00Z"])
}

/// The query has a result, at the latest when `rate` has its two answers.
async fn has_result(prometheus: &Prometheus, expression: &str) {
    let result = || Some(prometheus.query(expression)).filter(|result| !result.is_empty());
    until_some(expression, result).await;
}

/// Replayed reports have no age: what asks for it is asked of live ones alone.
fn needs_live_reports(expression: &str) -> bool {
    expression.contains("mcad_node_report_age_seconds")
}

#[tokio::test]
async fn a_real_prometheus_answers_every_query_of_the_dashboard_and_raises_the_alerts_that_hold() {
    let folder = tempfile::tempdir().unwrap();
    let aggregator = start_aggregator(folder.path());
    let rules = root().join("deploy/monitoring/rules.yaml");
    let Some(prometheus) = Prometheus::start(&[&aggregator.metrics], Some(&rules)).await else { return };

    let dashboard: Value = serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap();
    let mut asked = 0;
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression.replace("$resource", "nvidia_com_gpu").replace("$node", ".*");
            let expression = expression.replace("$__rate_interval", "1m");
            assert!(!expression.contains('$'), "{expression}");
            if !needs_live_reports(&expression) {
                has_result(&prometheus, &expression).await;
                asked += 1;
            }
        }
    }
    assert!(asked > 40, "{asked}");

    // Of four installed and advertised one is broken, and two are held.
    for holds in [
        "sum(mcad_cluster_phantom{resource=\"nvidia_com_gpu\"}) == 1",
        "max(mcad:node_phantom:held{resource=\"nvidia_com_gpu\"}) == 1",
        "max(abs(mcad:cluster_unaccounted)) == 0",
        "count(ALERTS{alertname=~\"McadPhantomGpus|McadGpuLost\",alertstate=\"pending\"}) == 2",
        // A quota of eight; three work, and a pod outside of quotas holds two of them.
        "max(mcad_queue_unbacked{resource=\"nvidia_com_gpu\"}) == 7",
        "count(ALERTS{alertname=~\"McadQuotaUnbacked|McadQuotaUnheld\",alertstate=\"pending\"}) == 2",
    ] {
        has_result(&prometheus, holds).await;
    }

    let rules = prometheus.ask("/api/v1/rules");
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
    }
}
