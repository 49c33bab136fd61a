//! `--cluster local`: all that is shown where there is no Kubernetes, of recorded reports and of odd ones, byte by byte.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use std::fmt::Write as _;
use std::time::Duration;

use mcad_accounting::now::Now;
use mcad_accounting::snapshot::Snapshot;
use mcad_present::api::Wanted;
use mcad_present::explain::{Answer, Subject, text};
use mcad_present::exposition::Exposition;
use mcad_present::history::History;
use mcad_present::page::query::PageQuery;
use mcad_present::page::{Shown, render};
use mcad_present::version::{REVISION, VERSION};
use mcad_present::{explain, metrics};
use mcad_terminal::paint::Paint;
use mcad_testkit::explained::{check_golden, root};
use mcad_testkit::reports::{at, cgroups, gpu, gpus, mig, report, snapshot};
use mcad_wire::report::{Assignments, DeviceIds, Gpu, Gpus, Report};

/// When what is shown is looked at: a quarter of a second after it was made.
fn later() -> Now {
    Now { since_start: Duration::from_millis(100_250), ..at(100) }
}

/// A recorded report under that name, and one of the same node an interval later.
fn recorded(file: &str, node: &str) -> [Report; 2] {
    let path = root().join("../agent/tests/golden").join(file);
    let mut first: Report = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    first.node = node.into();
    let mut second = first.clone();
    second.sequence += 1;
    second.uptime_ns += 10_000_000_000;
    if let Some(cpu_busy_ns) = second.machine.as_mut().and_then(|machine| machine.cpu_busy_ns.as_mut()) {
        *cpu_busy_ns += 12_345_678_901;
    }
    [first, second]
}

fn with_gpus(node: &str, gpus: Gpus) -> Report {
    Report { gpus: Some(gpus), ..report(node, 1) }
}

fn in_mig_mode(uuid: &str, instances: &[(&str, &str)]) -> Gpu {
    let mig_instances = instances.iter().map(|(uuid, profile)| mig(uuid, profile)).collect();
    Gpu { mig_mode: Some(true), mig_instances, ..gpu(uuid, Some(0.5)) }
}

/// Each in a way in which a node beside kubelet would look different, or not be there.
fn odd() -> Vec<Report> {
    let broken = |gpu: Gpu| Gpu { unhealthy_reasons: vec!["xid_79".into()], ..gpu };
    let mut sick_instance = in_mig_mode("GPU-1", &[("MIG-1", "1g.10gb"), ("MIG-2", "1g.10gb+me")]);
    sick_instance.mig_instances[1].unhealthy_reasons = vec!["xid_94".into()];
    let mut unknown_memory = report("odd-memory", 1);
    unknown_memory.machine.as_mut().unwrap().memory_inactive_file_bytes = None;
    let mut unknown_cpus = report("odd-cpus", 1);
    unknown_cpus.machine.as_mut().unwrap().cpus_online = None;
    // Kubelet of the machine says that MIG instances are handed out as GPUs, and each of them twice.
    let advertised = ["MIG-1::0", "MIG-1::1"].map(str::to_owned).to_vec();
    let allocatable = vec![DeviceIds { resource: "nvidia.com/gpu".into(), device_ids: advertised }];
    vec![
        Report { machine: None, ..report("odd-blind", 1) },
        unknown_memory,
        unknown_cpus,
        Report { cgroups: Some(cgroups(&[("/b", 5), ("/a", 7), ("", 9), ("/b", 1)])), ..report("odd-cgroups", 1) },
        with_gpus("odd-no-driver", Gpus::default()),
        with_gpus("odd-no-gpu", gpus(vec![])),
        with_gpus("odd-driver-gone", Gpus { remembered: Some(4), ..Gpus::default() }),
        with_gpus("odd-lost", Gpus { lost_bus_ids: vec!["0000:3b:00.0".into()], ..gpus(vec![gpu("GPU-1", None)]) }),
        with_gpus("odd-broken", gpus(vec![broken(gpu("GPU-1", None)), gpu("GPU-2", Some(0.25))])),
        with_gpus("odd-twice", gpus(vec![gpu("GPU-1", Some(0.25)), gpu("GPU-1", Some(0.5))])),
        with_gpus("odd-instance", gpus(vec![sick_instance])),
        with_gpus("odd-parent", gpus(vec![broken(in_mig_mode("GPU-1", &[("MIG-1", "1g.10gb")]))])),
        Report {
            assignments: Some(Assignments { assigned: Vec::new(), allocatable }),
            ..with_gpus("odd-kubelet", gpus(vec![in_mig_mode("GPU-1", &[("MIG-1", "1g.10gb")])]))
        },
        with_gpus("odd-profile", gpus(vec![in_mig_mode("GPU-1", &[("MIG-1", "kubernetes.io/a"), ("MIG-2", "")])])),
    ]
}

fn scene() -> Snapshot {
    let recorded = ["all", "pods", "gpu-broke-in-use", "gpu-mig", "gpu-sick-in-tray"]
        .into_iter()
        .flat_map(|name| recorded(&format!("report-{name}.json"), name))
        .map(|report| (report, at(90)));
    let fake = with_gpus("fake", Gpus { fake: true, ..gpus(vec![gpu("GPU-1", Some(1.0))]) });
    let silent = (with_gpus("silent", gpus(vec![gpu("GPU-1", Some(1.0))])), at(10));
    let odd = odd().into_iter().map(|report| (report, at(95)));
    snapshot(recorded.chain(odd).chain([(fake, at(96)), silent]).collect(), at(100))
}

fn metrics(snapshot: &Snapshot) -> String {
    let mut written = Vec::new();
    let mut out = Exposition::new(&mut written);
    metrics::write(snapshot, later(), &mut out);
    out.finish().unwrap();
    String::from_utf8(written).unwrap().replace(VERSION, "VERSION").replace(REVISION, "REVISION")
}

fn page(snapshot: &Snapshot, path: &str, query: &str) -> String {
    let mut history = History::default();
    history.add(snapshot);
    history.add(snapshot);
    let page = PageQuery::parse(path, query).unwrap().unwrap();
    let html = render(&page, &Shown { snapshot, history: &history }, later()).unwrap();
    // A line an element: so one reads a difference.
    html.replace(VERSION, "VERSION").replace('>', ">\n")
}

fn answered(snapshot: &Snapshot, path: &str) -> String {
    match Wanted::parse(path, "").unwrap().answer(snapshot, later()) {
        Ok(answer) => serde_json::to_string_pretty(&answer).unwrap(),
        Err(refused) => format!("{} {refused}", refused.status()),
    }
}

/// All that is shown of a snapshot: metrics, JSON, what `explain` prints, and pages.
fn check(snapshot: &Snapshot, name: &str, nodes: &[&str]) {
    check_golden(&format!("local/{name}.txt"), &metrics(snapshot));
    let mut told = String::new();
    for path in ["cluster", "nodes", "appwrappers", "appwrappers/a/b", "nodes/nobody"] {
        writeln!(told, "GET /api/v1/{path}\n{}\n", answered(snapshot, &format!("/api/v1/{path}"))).unwrap();
    }
    let of_node = |node: &&str| Subject::Node((*node).to_owned());
    for subject in [Subject::Cluster].into_iter().chain(nodes.iter().map(of_node)) {
        let answer = Answer::on(&subject, snapshot, later()).unwrap();
        let (text, json) = (text(&answer, Paint::Plain), explain::json(&answer).unwrap());
        writeln!(told, "{subject:?}\n{text}\n{json}").unwrap();
    }
    check_golden(&format!("local/{name}.told"), &told);
    let mut pages = page(snapshot, "/", "");
    pages += &page(snapshot, "/", "show=trouble&sort=busy&resource=cpu");
    for node in nodes {
        pages += &page(snapshot, &format!("/node/{node}"), "");
    }
    check_golden(&format!("local/{name}.html"), &pages);
}

#[test]
fn all_that_is_shown_of_agents_without_kubernetes_is_what_it_always_was() {
    check(&scene(), "agents", &["gpu-mig", "gpu-broke-in-use", "silent", "fake", "odd-blind", "odd-instance"]);
}

#[test]
fn all_that_is_shown_before_any_agent_reported_is_what_it_always_was() {
    check(&snapshot(Vec::new(), at(100)), "nobody", &[]);
}
