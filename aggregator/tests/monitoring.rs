//! `deploy/monitoring` as its users meet it: rules that promtool tests, and queries that a real Prometheus answers from a real
//! aggregator's `/metrics`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]
mod common;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mcad_wire::report::{Gpu, Gpus, Machine, Report};
use serde_json::{Value, json};

use common::build::{assigned, node, pod, report, spec, v1beta1, with};

/// Prometheus asks every second, and `rate` needs two answers. A busy machine may take many times that.
const PATIENCE: Duration = Duration::from_mins(2);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Runs a program of Debian's package `prometheus`; `None`, and said aloud, where it is not.
fn try_run(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).current_dir(root().join("deploy/monitoring")).output() {
        Ok(output) => Some(output),
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => panic!("{program}: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: {program}: {error}; Debian has it in `prometheus`");
            None
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8([output.stdout.as_slice(), output.stderr.as_slice()].concat()).unwrap()
}

#[test]
fn every_alert_fires_in_its_case_and_is_silent_beside_it() {
    let Some(checked) = try_run("promtool", &["check", "rules", "rules.yaml"]) else { return };
    assert!(checked.status.success(), "{}", said(&checked));
    let tested = try_run("promtool", &["test", "rules", "rules_test.yaml"]).unwrap();
    assert!(tested.status.success(), "{}", said(&tested));
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

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let rules = read("deploy/monitoring/rules.yaml");
    let runbooks = read("docs/alerts.md");
    let headings: Vec<&str> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings, alerts());
    for alert in headings {
        assert!(rules.contains(&format!("runbook: docs/alerts.md#{}\n", alert.to_lowercase())), "{alert}");
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
    let of_agent = ["mod.rs", "probes.rs"].map(|file| read(&format!("agent/src/self_metrics/{file}"))).concat();
    for file in ["deploy/monitoring/rules.yaml", "deploy/monitoring/dashboard.json", "docs/alerts.md"] {
        let text = read(file);
        let asked = families(&text);
        assert!(asked.len() > 10, "{file}: {asked:?}");
        for family in asked {
            let exists = documented.contains(&format!("`{family}`")) || of_agent.contains(&format!("\"{family}\""));
            assert!(exists, "{file} names {family}, which nobody emits");
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

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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

fn start_aggregator(folder: &Path) -> (Running, String) {
    let (dump_file, reports_file) = (folder.join("dump.json"), folder.join("reports.json"));
    std::fs::write(&dump_file, dump()).unwrap();
    std::fs::write(&reports_file, reports()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_mcad-aggregator"))
        .args(["--cluster", &format!("file:{}", dump_file.display())])
        .args(["--reports", &reports_file.display().to_string()])
        .args(["--listen", "127.0.0.1:0", "--report-listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("metrics=http://"));
    let address = address.expect(&line).to_owned();
    (Running(child), address)
}

/// A Prometheus with our rules that scrapes this address every second.
fn start_prometheus(folder: &Path, target: &str) -> (Running, u16) {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let rules = root().join("deploy/monitoring/rules.yaml");
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
         scrape_configs: [{{job_name: mcad-aggregator, static_configs: [{{targets: ['{target}']}}]}}]\n",
        rules.display()
    );
    let file = folder.join("prometheus.yaml");
    std::fs::write(&file, config).unwrap();
    let log = std::fs::File::create(folder.join("prometheus.log")).unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    (Running(child), port)
}

/// What Prometheus answers at a path of its API; an error while it is not up.
fn get(port: u16, path: &str) -> std::io::Result<Value> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: prometheus\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(serde_json::from_str(body)?)
}

/// The result of a query, once there is one. An error of the query itself fails the test at once.
fn query(port: u16, expression: &str) -> Vec<Value> {
    let encoded = expression.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02X}"));
    let began = Instant::now();
    loop {
        if let Ok(answer) = get(port, &format!("/api/v1/query?query={encoded}")) {
            assert_eq!(answer["status"], "success", "{expression}: {answer}");
            let result = answer["data"]["result"].as_array().unwrap();
            if !result.is_empty() {
                return result.clone();
            }
        }
        assert!(began.elapsed() < PATIENCE, "no answer to {expression}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Replayed reports have no age: what asks for it is asked of live ones alone.
fn needs_live_reports(expression: &str) -> bool {
    expression.contains("mcad_node_report_age_seconds")
}

#[test]
fn a_real_prometheus_answers_every_query_of_the_dashboard_and_raises_the_alerts_that_hold() {
    if try_run("prometheus", &["--version"]).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_aggregator, target) = start_aggregator(folder.path());
    let (_prometheus, port) = start_prometheus(folder.path(), &target);

    let dashboard: Value = serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap();
    let mut asked = 0;
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression.replace("$resource", "nvidia_com_gpu").replace("$node", ".*");
            let expression = expression.replace("$__rate_interval", "1m");
            assert!(!expression.contains('$'), "{expression}");
            if !needs_live_reports(&expression) {
                query(port, &expression);
                asked += 1;
            }
        }
    }
    assert!(asked > 30, "{asked}");

    // Of four installed and advertised one is broken, and two are held.
    for holds in [
        "sum(mcad_cluster_phantom{resource=\"nvidia_com_gpu\"}) == 1",
        "max(mcad:node_phantom:held{resource=\"nvidia_com_gpu\"}) == 1",
        "max(abs(mcad:cluster_unaccounted)) == 0",
        "count(ALERTS{alertname=~\"McadPhantomGpus|McadGpuLost\",alertstate=\"pending\"}) == 2",
    ] {
        query(port, holds);
    }

    let rules = get(port, "/api/v1/rules").unwrap();
    for group in rules["data"]["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
    }
}
