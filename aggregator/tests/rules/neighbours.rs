//! Agents of another version: what an older one sent, recorded, and what a newer one may send. `tests/neighbours/` holds, from the
//! sources of a commit before ended pods, details of cgroups and waits were in the report, that commit's own golden report of a GPU
//! node with cgroups beside it, written by its wire crate: as protobuf for the network, as JSON for `--once`. Recorded files stay as
//! they are; each version that is released adds its own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]

use std::path::PathBuf;

use mcad_accounting::options::Options;
use mcad_aggregator::receive::{self, Refusal};
use mcad_testkit::build::{self, node_of, pod, with};
use mcad_testkit::{check_lines, print_with};
use mcad_wire::report::Report;
use prost::Message as _;
use serde_json::{Value, json};

/// The commit of whose wire crate the recorded reports are.
const OLDER: &str = "0bf165b";

fn recorded(extension: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/neighbours/{OLDER}.{extension}"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the report's node is to Kubernetes: 8 GPUs, one of them given up by kubelet, 4 in the hands of two pods.
fn cluster() -> Vec<Value> {
    let amounts = |gpus: &str| json!({"cpu": "2", "memory": "1Mi", "nvidia.com/gpu": gpus});
    let held =
        |name: &str| with(pod(name, "gpu-17", json!({"nvidia.com/gpu": "2"})), "/metadata/namespace", json!("ml"));
    vec![node_of("gpu-17", amounts("8"), amounts("7")), held("train-0"), held("train-1")]
}

fn text(report: Report) -> String {
    print_with(cluster().iter().map(build::object).collect(), vec![report], &Options::default())
}

#[test]
fn a_report_of_an_older_agent_is_taken_and_its_figures_are_shown() {
    let body = recorded("binpb");
    let received = receive::receive(&body).unwrap();
    assert_eq!(received.node.as_str(), "gpu-17");
    let text = text(received.report.to_owned());
    let gpus = |rung: &str, amount: u32| {
        let (family, label) = rung.split_once(' ').unwrap_or((rung, ""));
        format!("mcad_node_{family}{{node=\"gpu-17\",{label}resource=\"nvidia_com_gpu\",unit=\"integer\"}} {amount}")
    };
    let gpu = "gpu=\"GPU-fa4e0000-0000-4000-8000-000000000003\"";
    check_lines(
        &text,
        &[
            &gpus("installed", 8),
            &gpus("healthy", 7),
            &gpus("allocatable", 7),
            &gpus("requested owner=\"other\",", 4),
            &gpus("withheld reason=\"stranded\",", 1),
            &gpus("free", 3),
            &format!("mcad_gpu_healthy{{{gpu},node=\"gpu-17\",reason=\"xid\"}} 0"),
            &format!("mcad_gpu_xid_errors_total{{{gpu},node=\"gpu-17\",xid=\"79\"}} 1"),
            "mcad_node_installed{node=\"gpu-17\",resource=\"cpu\",unit=\"core\"} 2",
            "mcad_node_installed{node=\"gpu-17\",resource=\"memory\",unit=\"byte\"} 1048576",
            "mcad_node_source{figure=\"cgroup\",node=\"gpu-17\",source=\"cgroupfs\"} 1",
            "mcad_node_agent_up{node=\"gpu-17\"} 1",
        ],
    );
}

#[test]
fn what_an_older_agent_did_not_know_is_absent_and_not_zero() {
    let report = receive::receive(&recorded("binpb")).unwrap().report.to_owned();
    let cgroups = report.cgroups.unwrap();
    assert!(cgroups.ended_pods.is_empty() && cgroups.from_files.is_empty());
    for cgroup in &cgroups.cgroups {
        assert_eq!((cgroup.run_queue_wait_ns, cgroup.run_queue_waits, &cgroup.detail), (None, None, &None));
    }
}

#[test]
fn an_older_report_is_the_same_by_both_encodings_and_comes_out_as_it_went_in() {
    let bytes = recorded("binpb");
    let by_network = receive::receive(&bytes).unwrap().report.to_owned();
    let by_file: Report = serde_json::from_slice(&recorded("json")).unwrap();
    assert_eq!(by_network, by_file);
    assert_eq!(by_network.encode_to_vec(), bytes, "a field has another tag or type than it had");
    let json = serde_json::to_string(&by_file).unwrap() + "\n";
    assert_eq!(json.as_bytes(), recorded("json"), "a field has another name in JSON than it had");
}

/// A field of protobuf that no report has, as text.
fn unknown_field(tag: u32) -> Vec<u8> {
    let mut field = Vec::new();
    prost::encoding::string::encode(tag, &"of tomorrow".to_owned(), &mut field);
    field
}

#[test]
fn what_a_newer_agent_says_beyond_what_is_known_is_ignored() {
    let old = recorded("binpb");
    let plain = receive::receive(&old).unwrap().report.to_owned();
    // In the report itself, and within a message of it: field 10 is the machine, and two pieces of a message are one.
    let mut newer = [old, unknown_field(999)].concat();
    prost::encoding::bytes::encode(10, &unknown_field(77), &mut newer);
    let received = receive::receive(&newer).unwrap().report.to_owned();
    assert_eq!(received, plain);
    assert_eq!(text(received), text(plain));
}

#[test]
fn keys_of_json_that_are_not_known_are_ignored() {
    let mut newer: Value = serde_json::from_slice(&recorded("json")).unwrap();
    newer["ofTomorrow"] = json!({"a": [1]});
    newer["machine"]["ofTomorrow"] = json!("1");
    newer["gpus"]["devices"][0]["ofTomorrow"] = json!(true);
    let report: Report = serde_json::from_value(newer).unwrap();
    assert_eq!(report, serde_json::from_slice(&recorded("json")).unwrap());
}

#[test]
fn a_version_that_means_something_else_is_refused_by_its_number() {
    let mut report = receive::receive(&recorded("binpb")).unwrap().report.to_owned();
    report.version += 1;
    let refused = receive::receive(&report.encode_to_vec()).unwrap_err();
    assert!(matches!(refused, Refusal::UnsupportedVersion(2)), "{refused}");
}
