//! The program as its users meet it: started, sent a report, scraped, asked to end.
#![allow(clippy::unwrap_used, reason = "allow-unwrap-in-tests does not reach what tests call in a file of their own")]

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::aggregator::{Aggregator, command};
use crate::support::prometheus::{promtool, said};
use mcad_wire::report::{Cgroup, Cgroups, Gpu, Gpus, Machine, REPORT_VERSION, Report};

fn start() -> Aggregator {
    Aggregator::start(&["--cluster", "local"])
}

fn send(aggregator: &Aggregator, sequence: u64) {
    let cgroup = |id, path: &str| Cgroup { id, path: path.into(), cpu_ns: Some(id * 7), ..Cgroup::default() };
    let gpu = Gpu { uuid: "GPU-1".into(), utilization_ratio: Some(0.37), ..Gpu::default() };
    let report = Report {
        version: REPORT_VERSION,
        node: "gpu-17".into(),
        boot_id: "boot".into(),
        sequence,
        uptime_ns: sequence * 10_000_000_000,
        interval_ms: 10_000,
        machine: Some(Machine {
            cpus_online: Some(2),
            cpu_busy_ns: Some(sequence * 3_000_000_000),
            memory_total_bytes: Some(8 << 30),
            memory_free_bytes: Some(1 << 30),
            memory_inactive_file_bytes: Some(0),
        }),
        cgroups: Some(Cgroups {
            source: "bpf".into(),
            cgroups: vec![cgroup(1, "/"), cgroup(2, "/odd \\x2d \"name\" \n of ümlauts")],
            seen: Some(2),
            dropped: Some(0),
            ..Cgroups::default()
        }),
        gpus: Some(Gpus { driver_version: "550.1".into(), devices: vec![gpu], ..Gpus::default() }),
        ..Report::default()
    };
    aggregator.report(&report);
}

#[test]
fn it_says_where_it_listens_serves_there_and_ends_when_asked() {
    let mut aggregator = start();
    send(&aggregator, 1);
    send(&aggregator, 2);
    let used = "mcad_node_used{node=\"gpu-17\",owner=\"system\",resource=\"cpu\",unit=\"core\"} 0.3\n";
    let exposition = aggregator.scrape();
    assert!(exposition.contains(used), "{exposition}");
    aggregator.signal("-TERM");
    assert!(aggregator.ended().success());
    let log = aggregator.log();
    assert!(log.contains("shutting down") && log.contains("stopped"), "{log}");
}

#[test]
fn it_may_open_as_many_files_as_are_allowed_and_says_how_many_agents_there_is_room_for() {
    let room = |limit: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{limit} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_mcad-aggregator")]);
        shell.args(["--cluster", "local"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut aggregator = Aggregator::spawn(shell, &["--cluster", "local"]);
        assert!(aggregator.get("/live").is_some());
        aggregator.signal("-TERM");
        assert!(aggregator.ended().success());
        aggregator.log()
    };
    let raised = room("ulimit -Sn 300 && ulimit -Hn 1000");
    assert!(raised.contains("open_files=1000 connections=744"), "{raised}");
    assert!(raised.contains("allows fewer connections"), "{raised}");
}

#[test]
fn promtool_accepts_metrics() {
    let aggregator = start();
    let before = aggregator.scrape();
    send(&aggregator, 1);
    send(&aggregator, 2);
    let after = aggregator.scrape();
    assert!(after.contains("\nmcad_cgroup_cpu_seconds_total{"), "{after}");
    for exposition in [before, after] {
        let Some(checked) = promtool(&["check", "metrics"], Path::new("/"), &exposition) else { return };
        assert!(checked.status.success(), "{}", said(&checked));
        assert_eq!(said(&checked), "", "{exposition}");
    }
}

/// Starts with arguments that cannot work and returns what it says.
fn refusal(args: &[&str]) -> String {
    let output = command(args).output().unwrap();
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn reports_from_other_machines_are_refused_at_start() {
    let said = refusal(&["--cluster", "local", "--listen", "127.0.0.1:0", "--report-listen", "0.0.0.0:0"]);
    assert!(said.contains("plain HTTP") && said.contains("Use --report-listen 127.0.0.1:0"), "{said}");
}

#[test]
fn an_address_that_is_taken_is_named_with_its_flag() {
    let aggregator = start();
    let said = refusal(&["--cluster", "local", "--listen", &aggregator.metrics, "--report-listen", "127.0.0.1:0"]);
    assert!(said.contains(&format!("cannot listen on {} (--listen)", aggregator.metrics)), "{said}");
    assert!(said.contains("Address already in use"), "{said}");
}

fn explain(args: &[&str], dump: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump.yaml");
    std::fs::write(&file, dump).unwrap();
    let cluster = format!("file:{}", file.display());
    let output = command(&[&["explain", "--cluster", &cluster], args].concat()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A node, and no pods or AppWrappers.
const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: n}\nstatus: {capacity: {cpu: 4}}\n---\n\
                    {apiVersion: v1, kind: PodList, items: []}\n---\n{apiVersion: mcad.ibm.com/v1beta1, kind: AppWrapperList, items: []}\n";

#[test]
fn explain_prints_and_ends() {
    let (code, said, errors) = explain(&[], NODE);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(said.starts_with("A dump of 1 Node, 0 Pods and 0 AppWrappers, of an unknown time.\n"), "{said}");
    assert!(said.contains("\n1 node: 1 not ready\n") && said.contains("\ncpu, in cores\n"), "{said}");
    assert!(!said.contains('\u{1b}'), "no terminal, no colours: {said:?}");
    let (code, said, _) = explain(&["--json", "--node", "n"], NODE);
    assert_eq!(code, Some(0));
    let answer: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer["node"]["ladder"]["cpu_millicores"]["installed"], 4000);
}

#[test]
fn explain_names_file_document_and_field_of_what_is_broken_and_fails() {
    let broken = "apiVersion: v1\nkind: Pod\nmetadata: {name: \"p\\e[31m\", namespace: a}\nspec: {containers: [{resources: 5}]}\n";
    let (code, said, errors) = explain(&[], &format!("{NODE}---\n{broken}"));
    assert_eq!(code, Some(1));
    let place =
        "dump.yaml: document 4, line 10: Pod a/p\\u{1b}[31m: field `spec.containers[0].resources`: invalid type";
    assert!(errors.starts_with("Left out: ") && errors.contains(place), "{errors}");
    assert!(!errors.contains('\u{1b}'), "{errors:?}");
    // The rest is shown, and says what it lacks.
    let (at, figures) = (said.find("\nLeft out: "), said.find("\n1 node"));
    assert!(at.is_some() && at < figures, "{said}");
    let (code, said, _) = explain(&["--json"], &format!("{NODE}---\n{broken}"));
    assert_eq!(code, Some(1));
    assert!(said.contains(r#""objects_left_out":1"#), "{said}");
}

#[test]
fn explain_of_what_is_no_dump_or_no_node_fails_with_a_sentence() {
    let (code, said, errors) = explain(&[], &format!("{NODE}---\na: [1\n"));
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(errors.contains("dump.yaml: document 4 cannot be parsed: line 11"), "{errors}");
    let (code, said, errors) = explain(&["--node", "m\u{9b}"], NODE);
    assert_eq!((code, said.as_str(), errors.as_str()), (Some(1), "", "Error: no node named m\\u{9b}\n"));
    let (code, said, errors) = explain(&["--reports", "/nowhere/r.json"], NODE);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(errors.contains("cannot read /nowhere/r.json"), "{errors}");
}

#[test]
fn explain_gives_up_on_an_api_server_that_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{{name: x, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
         contexts: [{{name: x, context: {{cluster: x, user: x}}}}]\nusers: [{{name: x, user: {{}}}}]\n"
    );
    std::fs::write(&config, text).unwrap();
    let output = command(&["explain", "--wait", "1"]).env("KUBECONFIG", &config).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    let error = "Error: after 1 s, these parts of the cluster are not known: nodes (unreachable), pods (unreachable)";
    assert!(errors.contains(error), "{errors}");
}

#[test]
fn who_does_not_read_errors_to_their_end_still_gets_the_exit_code() {
    for args in [
        &["explain", "--cluster", "file:/nowhere.yaml"][..],
        &["explain", "--cluster", "file:/dev/null", "--node", "n"],
    ] {
        let mut child = command(args).spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(1), "{args:?}");
    }
}
