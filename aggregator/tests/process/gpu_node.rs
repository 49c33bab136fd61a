//! The worked example of docs/accounting.md §4 end to end: reports that the agent made through fake-nvml and fake-kubelet,
//! beside what Kubernetes says of the node. `MCAD_BLESS=1 cargo test -p mcad-agent golden` makes the reports.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::path::Path;

use crate::support::aggregator::command;
use mcad_accounting::cluster::{Cluster, Event};
use mcad_accounting::measure::{NamedPods, Places, measure};
use mcad_accounting::now::Now;
use mcad_accounting::options::Options;
use mcad_accounting::reported::Stored;
use mcad_aggregator::receive;
use mcad_testkit::build::{self, node_of, pod, with};
use mcad_testkit::{NOW_MS, check_lines, check_with, print_with};
use mcad_wire::report::{Assignments, Report};
use prost::Message as _;
use serde_json::{Value, json};

const BROKEN: &str = "GPU-fa4e0000-0000-4000-8000-000000000003";

fn golden(name: &str) -> Report {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/tests/golden").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn broke_in_use() -> Report {
    golden("report-gpu-broke-in-use.json")
}

fn held(name: &str, requests: Value) -> Value {
    with(pod(name, "gpu-17", requests), "/metadata/namespace", json!("ml"))
}

/// C 8, R 4 by two pods, and as many allocatable as given.
fn cluster(allocatable: u32) -> Vec<Value> {
    let amounts = |gpus: u32| json!({"cpu": "2", "memory": "1Mi", "nvidia.com/gpu": gpus.to_string()});
    let two = || json!({"nvidia.com/gpu": "2"});
    vec![node_of("gpu-17", amounts(8), amounts(allocatable)), held("train-0", two()), held("train-1", two())]
}

/// A line of the ladder of one resource of the node; the rung is a family, and its label if it has one.
fn line(rung: &str, resource: &str, amount: &str) -> String {
    let (family, label) = rung.split_once(' ').unwrap_or((rung, ""));
    let label = label.split_once('=').map_or(String::new(), |(name, value)| format!("{name}=\"{value}\","));
    format!("mcad_node_{family}{{node=\"gpu-17\",{label}resource=\"{resource}\",unit=\"integer\"}}{amount}")
}

/// The ladder as the rules write it; what a node leaves out at 0 must not be there.
fn ladder(resource: &str, rungs: &[(&str, u32)]) -> Vec<String> {
    let left_out = ["withheld", "phantom", "overcommitted"];
    let of = |(rung, amount): &(&str, u32)| match amount {
        0 if left_out.iter().any(|family| rung.starts_with(family)) => line(rung, resource, " absent"),
        amount => line(rung, resource, &format!(" {amount}")),
    };
    rungs.iter().map(of).collect()
}

#[track_caller]
fn check(objects: &[Value], report: Report, resource: &str, rungs: &[(&str, u32)]) {
    let lines = ladder(resource, rungs);
    check_with(objects, vec![report], &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The broken one is known to be in a pod's hands: 8 = 4 + 1 + 3.
const WORKED: [(&str, u32); 12] = [
    ("installed", 8),
    ("healthy", 7),
    ("capacity", 8),
    ("allocatable", 7),
    ("requested owner=other", 4),
    ("withheld reason=lost", 0),
    ("withheld reason=unhealthy", 0),
    ("withheld reason=reserved", 0),
    ("withheld reason=stranded", 1),
    ("free", 3),
    ("phantom", 0),
    ("overcommitted", 0),
];

#[test]
fn a_gpu_that_broke_in_a_pods_hands_is_not_subtracted_twice() {
    check(&cluster(7), broke_in_use(), "nvidia_com_gpu", &WORKED);
    let gpu = |family: &str, labels: &str| format!("mcad_gpu_{family}{{{labels}}} ");
    let ours = format!("gpu=\"{BROKEN}\"");
    check_with(
        &cluster(7),
        vec![broke_in_use()],
        &[
            &(gpu("healthy", &format!("{ours},node=\"gpu-17\",reason=\"lost\"")) + "0"),
            &(gpu("healthy", &format!("{ours},node=\"gpu-17\",reason=\"xid\"")) + "0"),
            &(gpu("xid_errors_total", &format!("{ours},node=\"gpu-17\",xid=\"79\"")) + "1"),
            &(gpu("assigned", &format!("container=\"main\",{ours},namespace=\"ml\",node=\"gpu-17\",pod=\"train-1\""))
                + "1"),
            // 0.9 and 0.5 of train-0's; the broken one of train-1 does no work.
            &line("used owner=other", "nvidia_com_gpu", " 1.4"),
            "mcad_node_gpus_fake{node=\"gpu-17\"} 1",
        ],
    );
}

/// Kubelet does not know of the fabric: the sick one is a phantom, and the other seven are as they were.
#[test]
fn a_sick_gpu_in_a_tray_of_eight_costs_one_gpu() {
    let report = golden("report-gpu-sick-in-tray.json");
    let rungs = [
        ("installed", 8),
        ("healthy", 7),
        ("capacity", 8),
        ("allocatable", 8),
        ("requested owner=other", 4),
        ("withheld reason=lost", 0),
        ("withheld reason=unhealthy", 1),
        ("withheld reason=reserved", 0),
        ("withheld reason=stranded", 0),
        ("free", 3),
        ("phantom", 1),
        ("overcommitted", 0),
    ];
    check(&cluster(8), report.clone(), "nvidia_com_gpu", &rungs);
    let uuid = |index| format!("gpu=\"GPU-fa4e0000-0000-4000-8000-00000000000{index}\"");
    let healthy = |index, reason, value| {
        format!("mcad_gpu_healthy{{{},node=\"gpu-17\",reason=\"{reason}\"}} {value}", uuid(index))
    };
    let errors = |index, kind, value| {
        format!("mcad_gpu_nvlink_errors_total{{{},kind=\"{kind}\",node=\"gpu-17\"}}{value}", uuid(index))
    };
    let mut lines: Vec<String> = [0, 1, 3, 4, 5, 6, 7].map(|index| healthy(index, "", 1)).into();
    lines.extend(["fabric_failed", "fabric_route_unhealthy"].map(|reason| healthy(2, reason, 0)));
    let kinds = [("replay", 1234), ("recovery", 0), ("crc_flit", 0), ("crc_data", 7), ("ecc_data", 0)];
    lines.extend(kinds.map(|(kind, count)| errors(5, kind, format!(" {count}"))));
    lines.push(errors(2, "replay", " 0".to_owned()));
    let warning = |index| format!("mcad_gpu_warning{{{},node=\"gpu-17\"", uuid(index));
    lines.push(format!("{},reason=\"fabric_degraded_bandwidth\"}} 1", warning(5)));
    lines.push(format!("{} absent", warning(2)));
    check_with(&cluster(8), vec![report], &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Which device a name means is in the cluster's slices: without them what kubelet says of claims adds nothing to what is exported.
#[test]
fn devices_that_are_held_through_claims_are_of_no_resource() {
    let with_claims = golden("report-gpu-claims.json");
    let claimed = &with_claims.assignments.as_ref().unwrap().assigned;
    assert_eq!(claimed.iter().filter(|one| one.resource.is_empty() && one.held_ns > Some(0)).count(), 3);
    let without = Report { assignments: Some(Assignments::default()), ..with_claims.clone() };
    let objects = [&cluster(7)[..], &[held("notebook", json!({}))]].concat();
    let print = |report| print_with(objects.iter().map(build::object).collect(), vec![report], &Options::default());
    let printed = print(with_claims);
    assert_eq!(printed, print(without));
    assert!(printed.contains("mcad_gpu_info{") && !printed.contains("resource=\"\""), "{printed}");
}

/// The slice of the node's four GPUs, and claims that hold them as kubelet's list in the recorded report says.
fn claimed(train: bool) -> Vec<Value> {
    let uuid = |at: usize| format!("GPU-fa4e0000-0000-4000-8000-00000000000{at}");
    let device = |at| json!({"name": format!("gpu-{at}"), "attributes": {"uuid": {"string": uuid(at)}}});
    let pool = json!({"name": "gpu-17", "generation": 1, "resourceSliceCount": 1});
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "gpu-17"},
        "spec": {
            "driver": "gpu.nvidia.com", "pool": pool, "nodeName": "gpu-17",
            "devices": (0..4).map(device).collect::<Vec<_>>(),
        },
    });
    let claim = |name: &str, pod: &str, devices: &[usize]| {
        let result =
            |at| json!({"request": "r", "driver": "gpu.nvidia.com", "pool": "gpu-17", "device": format!("gpu-{at}")});
        let results: Vec<_> = devices.iter().map(result).collect();
        json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": name, "namespace": "ml"},
            "spec": {}, "status": {
                "allocation": {"devices": {"results": results}},
                "reservedFor": [{"resource": "pods", "name": pod, "uid": pod}],
            },
        })
    };
    let pod = |name: &str| with(held(name, json!({})), "/metadata/uid", json!(name));
    let amounts = json!({"cpu": "2", "memory": "1Mi"});
    let mut objects = vec![node_of("gpu-17", amounts.clone(), amounts), slice];
    objects.extend([claim("shared", "notebook", &[2]), pod("notebook")]);
    if train {
        objects.extend([claim("train-0-gpus", "train-0", &[0, 1]), pod("train-0")]);
    }
    objects
}

#[test]
fn a_gpu_that_broke_in_a_claims_hands_is_known_to_be_there_until_its_pod_has_ended() {
    let mut report = golden("report-gpu-claims.json");
    report.gpus.as_mut().unwrap().devices[0].unhealthy_reasons = vec!["xid".into()];
    let ladder_of = |held, unhealthy, free| {
        let rungs = [
            ("installed", 4),
            ("healthy", 3),
            ("capacity", 4),
            ("allocatable", 4),
            ("requested owner=other", held),
            ("withheld reason=unhealthy", unhealthy),
            ("withheld reason=stranded", 0),
            ("free", free),
            ("phantom", 1),
            ("overcommitted", 0),
        ];
        ladder("nvidia_com_gpu", &rungs)
    };
    let assigned = |at, pod, value| {
        let gpu = format!("gpu=\"GPU-fa4e0000-0000-4000-8000-00000000000{at}\"");
        format!("mcad_gpu_assigned{{container=\"main\",{gpu},namespace=\"ml\",node=\"gpu-17\",pod=\"{pod}\"}}{value}")
    };
    let mut lines = ladder_of(3, 0, 1);
    lines.extend([assigned(0, "train-0", " 1"), assigned(1, "train-0", " 1"), assigned(2, "notebook", " 1")]);
    let check = |train, lines: &[String]| {
        check_with(&claimed(train), vec![report.clone()], &lines.iter().map(String::as_str).collect::<Vec<_>>());
    };
    check(true, &lines);
    // Kubelet may list it for a while longer.
    let mut lines = ladder_of(1, 1, 2);
    lines.extend([assigned(0, "train-0", " absent"), assigned(2, "notebook", " 1")]);
    check(false, &lines);
}

/// From the driver's lists to the metrics: a process of `notebook` is on the GPU of `train-0`, and a process that died left 1 GiB behind.
#[test]
fn a_stray_and_memory_that_a_dead_process_left_behind_are_seen_through_the_agent() {
    let reports = ["report-gpu-stray.json", "report-gpu-stray-later.json"].map(golden);
    let pod = |name: &str, end: &str| {
        let uid = format!("0b0a3c6e-1111-4222-8333-44445555{end}");
        with(held(name, json!({"nvidia.com/gpu": "1"})), "/metadata/uid", json!(uid))
    };
    let objects = [cluster(2).remove(0), pod("train-0", "6666"), pod("notebook", "7777")];
    let lines = |at: usize, strays: &str, unclaimed: &str| {
        let labels = format!("{{gpu=\"GPU-fa4e0000-0000-4000-8000-00000000000{at}\",node=\"gpu-17\"}}");
        [format!("mcad_gpu_strays{labels} {strays}"), format!("mcad_gpu_unclaimed_memory_bytes{labels} {unclaimed}")]
    };
    let check = |reports: &[Report], lines: &[String]| {
        check_with(&objects, reports.to_vec(), &lines.iter().map(String::as_str).collect::<Vec<_>>());
    };
    check(&reports[..1], &lines(0, "1", "absent"));
    check(&reports, &lines(0, "1", "1073741824"));
    check(&reports, &lines(1, "absent", "absent"));
}

#[test]
fn of_gpus_that_are_there_nothing_says_that_they_are_fake() {
    let mut real = broke_in_use();
    real.gpus.as_mut().unwrap().fake = false;
    check_with(&cluster(7), vec![real], &["mcad_node_gpus_fake{ absent"]);
}

#[test]
fn if_nobody_knows_who_holds_the_broken_gpu_it_counts_as_unassigned() {
    let unknown = Report { assignments: None, ..broke_in_use() };
    let rungs = [
        ("healthy", 7),
        ("requested owner=other", 4),
        ("withheld reason=unhealthy", 1),
        ("withheld reason=reserved", 0),
        ("withheld reason=stranded", 0),
        ("free", 3),
        ("phantom", 0),
    ];
    check(&cluster(7), unknown, "nvidia_com_gpu", &rungs);
}

#[test]
fn a_broken_gpu_that_kubelet_is_unaware_of_is_a_phantom() {
    let rungs = [
        ("healthy", 7),
        ("allocatable", 8),
        ("requested owner=other", 4),
        ("withheld reason=unhealthy", 0),
        ("withheld reason=stranded", 0),
        ("free", 4),
        ("phantom", 1),
    ];
    check(&cluster(8), broke_in_use(), "nvidia_com_gpu", &rungs);
}

#[test]
fn instances_are_counted_under_their_profile_and_a_lost_gpu_beside_them() {
    let amounts = || json!({"cpu": "2", "memory": "1Mi", "nvidia.com/gpu": "2", "nvidia.com/mig-1g.10gb": "7"});
    let objects = [
        node_of("gpu-17", amounts(), amounts()),
        held("train-0", json!({"nvidia.com/gpu": "1"})),
        held("notebook", json!({"nvidia.com/mig-1g.10gb": "1"})),
    ];
    let gpus = [
        ("installed", 3),
        ("healthy", 2),
        ("requested owner=other", 1),
        ("withheld reason=lost", 1),
        ("withheld reason=stranded", 0),
        ("free", 1),
        ("phantom", 0),
    ];
    check(&objects, golden("report-gpu-mig.json"), "nvidia_com_gpu", &gpus);
    let instances = [("installed", 7), ("healthy", 7), ("requested owner=other", 1), ("free", 6), ("phantom", 0)];
    check(&objects, golden("report-gpu-mig.json"), "nvidia_com_mig_1g_10gb", &instances);
}

#[test]
fn the_program_shows_the_worked_example_of_a_dump_and_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let (dump, reports) = (folder.path().join("dump.json"), folder.path().join("reports.json"));
    let mut items = cluster(7);
    // That there are no AppWrappers is known.
    items.push(json!({"apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapperList", "items": []}));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    std::fs::write(&dump, list.to_string()).unwrap();
    // One a line, as `mcad-agent --once` prints it.
    std::fs::write(&reports, serde_json::to_string(&broke_in_use()).unwrap() + "\n").unwrap();
    let cluster = format!("file:{}", dump.display());
    let args = ["--cluster", &cluster, "--print-metrics", "--reports", reports.to_str().unwrap()];
    let output = command(&args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = ladder("nvidia_com_gpu", &WORKED);
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    check_lines(&String::from_utf8(output.stdout).unwrap(), &lines);
}

/// Without a new report, that is within one interval.
#[test]
fn after_a_pod_ends_its_gpus_are_unassigned_whatever_kubelet_still_lists() {
    let objects = cluster(7);
    let now = Now { unix_ms: NOW_MS as u64, ..Now::default() };
    let encoded = broke_in_use().encode_to_vec();
    let stored = Stored::after(None, &receive::check(&encoded).unwrap().report, &encoded, now);
    let holders = |cluster: &Cluster| {
        let report = stored.reading();
        let (node, named) = (cluster.node("gpu-17").unwrap(), NamedPods::find(cluster, &report, &Places::default()));
        let (_, measured) = measure(cluster, node, (&stored, &report), &named, Box::default(), &Options::default());
        let device = measured.devices.iter().find(|device| *device.uuid == *BROKEN).unwrap();
        device.holders.as_ref().unwrap().len()
    };
    let mut cluster = Cluster::from_objects(objects.iter().map(build::object));
    assert_eq!(holders(&cluster), 1);
    let applied = |pod: &Value| Event::Apply(build::object(pod));
    let elsewhere = with(objects[2].clone(), "/spec/nodeName", json!("gpu-18"));
    let ended = |phase: &str| with(objects[2].clone(), "/status/phase", json!(phase));
    for gone in [ended("Succeeded"), ended("Failed"), elsewhere] {
        cluster.apply(applied(&gone));
        assert_eq!(holders(&cluster), 0, "{gone}");
        cluster.apply(applied(&objects[2]));
        assert_eq!(holders(&cluster), 1);
    }
}

#[test]
fn a_gpu_whose_pod_has_ended_is_broken_in_nobodys_hands() {
    let [node, first, second] = <[Value; 3]>::try_from(cluster(7)).unwrap();
    let rungs = [
        ("requested owner=other", 2),
        ("withheld reason=unhealthy", 1),
        ("withheld reason=reserved", 0),
        ("withheld reason=stranded", 0),
        ("free", 5),
        ("phantom", 0),
    ];
    let ended = with(second, "/status/phase", json!("Succeeded"));
    check(&[node.clone(), first.clone(), ended], broke_in_use(), "nvidia_com_gpu", &rungs);
    check(&[node, first], broke_in_use(), "nvidia_com_gpu", &rungs);
}
