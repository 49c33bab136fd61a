//! Processes on GPUs that nobody permits, and memory of GPUs that no process uses: reports in, lines out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_accounting::cluster::Cluster;
use mcad_accounting::object::Kind;
use mcad_accounting::options::Options;
use mcad_accounting::snapshot::Snapshot;
use mcad_present::explain::node::NodeEntry;
use mcad_present::explain::{self, Answer, Subject};
use mcad_present::history::History;
use mcad_present::page::query::PageQuery;
use mcad_present::page::{Shown, render};
use mcad_present::tables::{self, Rules, View};
use mcad_terminal::paint::Paint;
use mcad_testkit::build::{self, assigned, gpu_node, gpu_report, gpus, pod, with};
use mcad_testkit::explained::{LATER, NOW, snapshot};
use mcad_testkit::{check_lines, print_cluster_with, print_with};
use mcad_wire::report::{Assignment, Assignments, Gpu, GpuUse, MigInstance, Report};
use serde_json::{Value, json};

const GPU: &str = "nvidia.com/gpu";
const GIB: u64 = 1 << 30;

/// What one process of a pod uses; of none if the name is empty.
fn used(pod: &str, gib: u64) -> GpuUse {
    let pod_uid = if pod.is_empty() { String::new() } else { format!("uid-{pod}") };
    GpuUse { pod_uid, processes: 1, memory_used_bytes: Some(gib * GIB), ..GpuUse::default() }
}

/// A GPU of 100 GiB, of which these are used, with these processes on it.
fn on(gpu: Gpu, gib: u64, uses: Vec<GpuUse>) -> Gpu {
    let (memory_used_bytes, memory_total_bytes) = (Some(gib * GIB), Some(100 * GIB));
    Gpu { memory_used_bytes, memory_total_bytes, uses, uses_complete: Some(true), ..gpu }
}

fn gpu(gib: u64, uses: Vec<GpuUse>) -> Gpu {
    on(gpus(1).remove(0), gib, uses)
}

/// `a` holds `GPU-0`, `b` holds `GPU-1`, and `c` holds nothing.
fn handed_out() -> Assignments {
    assigned(GPU, &[("a", &["GPU-0"]), ("b", &["GPU-1"])])
}

fn objects() -> Vec<Value> {
    let one = || json!({"nvidia.com/gpu": "1"});
    vec![gpu_node("n", 2), pod("a", "n", one()), pod("b", "n", one()), pod("c", "n", json!({}))]
}

/// These uses of `GPU-0`, beside a second GPU that nobody uses.
fn report(uses: Vec<GpuUse>, assignments: Option<Assignments>) -> Report {
    let idle = on(gpus(2).remove(1), 0, Vec::new());
    Report { assignments, ..gpu_report("n", vec![gpu(90, uses), idle]) }
}

fn print(objects: &[Value], reports: Vec<Report>) -> String {
    print_with(objects.iter().map(build::object).collect(), reports, &Options::default())
}

/// The number of strays on a device. `None`: no series.
#[track_caller]
fn check(objects: &[Value], report: Report, uuid: &str, expected: Option<u64>) {
    let series = format!("mcad_gpu_strays{{gpu=\"{uuid}\",node=\"n\"}}");
    let value = expected.map_or(" absent".to_owned(), |strays| format!(" {strays}"));
    check_lines(&print(objects, vec![report]), &[&(series + &value)]);
}

#[track_caller]
fn check_uses(uses: Vec<GpuUse>, expected: Option<u64>) {
    check(&objects(), report(uses, Some(handed_out())), "GPU-0", expected);
}

#[test]
fn processes_of_a_pod_that_does_not_hold_the_gpu_and_of_no_pod_are_strays() {
    check_uses(vec![], None);
    check_uses(vec![used("a", 1)], None);
    check_uses(vec![used("a", 1), used("b", 1)], Some(1));
    check_uses(vec![used("a", 1), GpuUse { processes: 3, ..used("c", 1) }, used("", 1)], Some(4));
    // Of a pod that the cluster no longer has.
    check_uses(vec![used("gone", 1)], Some(1));
    // They have ended.
    check_uses(vec![GpuUse { processes: 0, ..used("b", 1) }], None);
}

#[test]
fn a_pod_that_has_ended_holds_nothing_and_its_processes_are_strays() {
    let mut objects = objects();
    objects[1] = with(objects[1].clone(), "/status/phase", json!("Succeeded"));
    check(&objects, report(vec![used("a", 1)], Some(handed_out())), "GPU-0", Some(1));
}

#[test]
fn daemons_are_no_strays() {
    check_uses(vec![GpuUse { daemons: 1, ..used("", 1) }], None);
    check_uses(vec![GpuUse { processes: 3, daemons: 2, ..used("c", 1) }], Some(1));
    check_uses(vec![GpuUse { daemons: 7, ..used("c", 1) }], None);
}

#[test]
fn an_unreadable_process_leaves_the_number_unknown_unless_it_is_a_daemon() {
    let unreadable = || GpuUse { unreadable: true, ..used("", 1) };
    check_uses(vec![used("b", 1), unreadable()], None);
    check_uses(vec![used("b", 1), GpuUse { daemons: 1, ..unreadable() }], Some(1));
    // On the other GPU it makes no difference.
    let mut both = report(vec![used("b", 1)], Some(handed_out()));
    both.gpus.as_mut().unwrap().devices[1].uses = vec![unreadable()];
    check(&objects(), both, "GPU-0", Some(1));
}

#[test]
fn where_holders_are_not_known_nobody_is_a_stray() {
    check(&objects(), report(vec![used("b", 1)], None), "GPU-0", None);
    // Without Pods, and without the UIDs of pods.
    let without_pods = Cluster::from_objects_known(objects().iter().map(build::object), &[Kind::Node].into());
    let text =
        print_cluster_with(without_pods, vec![report(vec![used("b", 1)], Some(handed_out()))], &Options::default());
    check_lines(&text, &["mcad_gpu_healthy{gpu=\"GPU-0\",node=\"n\",reason=\"\"} 1", "mcad_gpu_strays{ absent"]);
    let nameless: Vec<_> = objects().into_iter().map(|object| with(object, "/metadata/uid", json!(""))).collect();
    check(&nameless, report(vec![used("b", 1)], Some(handed_out())), "GPU-0", None);
    // Where the agent does not say whether the lists are whole, they count as whole.
    let mut silent = report(vec![used("b", 1)], Some(handed_out()));
    silent.gpus.as_mut().unwrap().devices[0].uses_complete = None;
    check(&objects(), silent, "GPU-0", Some(1));
}

#[test]
fn strays_that_are_listed_count_also_if_others_may_be_missing() {
    let mut partial = report(vec![used("b", 1)], Some(handed_out()));
    partial.gpus.as_mut().unwrap().devices[0].uses_complete = Some(false);
    check(&objects(), partial, "GPU-0", Some(1));
}

#[test]
fn a_pod_whose_device_has_an_id_that_is_no_uuid_may_hold_any() {
    let ids = assigned(GPU, &[("a", &["nvidia0"]), ("b", &["nvidia1"])]);
    check(&objects(), report(vec![used("b", 1)], Some(ids.clone())), "GPU-0", None);
    check(&objects(), report(vec![used("c", 1)], Some(ids)), "GPU-0", Some(1));
    // Devices that are no GPUs do not matter.
    let mut with_network = handed_out();
    with_network.assigned.extend(assigned("nvidia.com/hostdev", &[("b", &["0000:86:00.1"])]).assigned);
    check(&objects(), report(vec![used("b", 1)], Some(with_network)), "GPU-0", Some(1));
}

#[test]
fn a_static_pod_is_known_by_the_uid_of_its_cgroups() {
    let mut objects = objects();
    let hash = json!({"kubernetes.io/config.hash": "hash", "kubernetes.io/config.source": "file"});
    objects[1] = with(objects[1].clone(), "/metadata/annotations", hash);
    let used = |uid: &str| GpuUse { pod_uid: uid.into(), ..used("a", 1) };
    check(&objects, report(vec![used("hash")], Some(handed_out())), "GPU-0", None);
    check(&objects, report(vec![used("uid-a")], Some(handed_out())), "GPU-0", Some(1));
}

#[test]
fn the_replicas_of_a_shared_gpu_have_several_holders() {
    let shared = assigned(GPU, &[("a", &["GPU-0::0"]), ("b", &["GPU-0::1"])]);
    check(&objects(), report(vec![used("a", 1), used("b", 1)], Some(shared.clone())), "GPU-0", None);
    check(&objects(), report(vec![used("a", 1), used("c", 1)], Some(shared)), "GPU-0", Some(1));
}

#[test]
fn in_mig_mode_processes_are_on_instances_which_have_holders_of_their_own() {
    let instance = |at: u32, uses| MigInstance {
        uuid: format!("MIG-{at}"),
        profile: "1g.10gb".into(),
        memory_used_bytes: Some(9 * GIB),
        memory_total_bytes: Some(10 * GIB),
        uses,
        ..MigInstance::default()
    };
    let mig_instances = vec![instance(0, vec![used("a", 1), used("b", 1)]), instance(1, vec![used("b", 1)])];
    let parent = Gpu { mig_mode: Some(true), mig_instances, ..gpu(90, vec![used("c", 1)]) };
    let held = assigned("nvidia.com/mig-1g.10gb", &[("a", &["MIG-0"]), ("b", &["MIG-1"])]);
    let report = Report { assignments: Some(held), ..gpu_report("n", vec![parent]) };
    for (uuid, strays) in [("MIG-0", Some(1)), ("MIG-1", None), ("GPU-0", None)] {
        check(&objects(), report.clone(), uuid, strays);
    }
    let later = Report { sequence: 2, uptime_ns: report.uptime_ns + 1, ..report.clone() };
    check_lines(&print(&objects(), vec![report, later]), &["mcad_gpu_unclaimed_memory_bytes{ absent"]);
}

/// A pod that uses a claim.
fn claiming() -> Vec<Value> {
    let mut objects = objects();
    objects[2] = with(objects[2].clone(), "/spec/resourceClaims", json!([{"name": "g", "resourceClaimName": "k"}]));
    objects
}

/// What kubelet lists of a claim.
fn claimed(driver: &str, device: &str) -> Assignments {
    let claim = Assignment {
        namespace: "a".into(),
        pod: "b".into(),
        container: "main".into(),
        claim_namespace: "a".into(),
        claim: "k".into(),
        driver: driver.into(),
        pool: "n".into(),
        device: device.into(),
        ..Assignment::default()
    };
    let mut all = assigned(GPU, &[("a", &["GPU-0"])]);
    all.assigned.push(claim);
    all
}

#[test]
fn a_pod_that_holds_a_gpu_through_a_claim_is_no_stray_on_it_and_may_be_none_elsewhere() {
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "n"},
        "spec": {
            "driver": "gpu.nvidia.com", "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1}, "nodeName": "n",
            "devices": [
                {"name": "gpu-0", "attributes": {"uuid": {"string": "GPU-0"}}},
                {"name": "gpu-1", "attributes": {"uuid": {"string": "GPU-1"}}},
                {"name": "gpu-x", "attributes": {}},
            ],
        },
    });
    let objects = [claiming(), vec![slice]].concat();
    let of = |assignments| report(vec![used("b", 1)], Some(assignments));
    for (driver, device, strays) in [
        ("gpu.nvidia.com", "gpu-0", None),
        ("gpu.nvidia.com", "gpu-1", Some(1)),
        // No slice says which GPU that is.
        ("gpu.nvidia.com", "gpu-x", None),
        ("gpu.nvidia.com", "gone", None),
        // Kubelet lists claims, and this one holds no GPU.
        ("compute-domain.nvidia.com", "channel-0", Some(1)),
    ] {
        check(&objects, of(claimed(driver, device)), "GPU-0", strays);
    }
    // A kubelet that lists no claims.
    check(&objects, of(assigned(GPU, &[("a", &["GPU-0"])])), "GPU-0", None);
}

/// Memory that no process uses, by these reports of `GPU-0`. `None`: no series.
#[track_caller]
fn check_unclaimed(reports: Vec<Report>, options: &Options, expected: Option<u64>) {
    let series = "mcad_gpu_unclaimed_memory_bytes{gpu=\"GPU-0\",node=\"n\"}";
    let value = expected.map_or(" absent".to_owned(), |gib| format!(" {}", gib * GIB));
    let text = print_with(objects().iter().map(build::object).collect(), reports, options);
    check_lines(&text, &[&format!("{series}{value}")]);
}

/// Reports ten seconds apart.
fn in_a_row(gpus: Vec<Gpu>) -> Vec<Report> {
    let report = |(at, gpu): (usize, Gpu)| Report {
        gpus: gpu_report("n", vec![gpu]).gpus,
        assignments: Some(handed_out()),
        ..build::report("n", 1 + at as u64)
    };
    gpus.into_iter().enumerate().map(report).collect()
}

#[track_caller]
fn check_row(gpus: Vec<Gpu>, expected: Option<u64>) {
    check_unclaimed(in_a_row(gpus), &Options::default(), expected);
}

#[test]
fn memory_of_a_dead_process_is_unclaimed_once_two_reports_in_a_row_show_it() {
    let living = || gpu(50, vec![used("a", 30), used("", 20)]);
    let dead = |gib| gpu(gib, vec![used("a", 30)]);
    check_row(vec![living(), living()], None);
    check_row(vec![living(), dead(50)], None);
    check_row(vec![living(), dead(50), dead(50)], Some(20));
    // The lesser of the two counts, and what one of them does not show is over.
    check_row(vec![dead(50), dead(40)], Some(10));
    check_row(vec![dead(40), dead(50)], Some(10));
    check_row(vec![dead(50), dead(50), living()], None);
    // More than is used in all.
    check_row(vec![dead(20), dead(20)], None);
    // A process that has ended uses nothing.
    let ended = || gpu(30, vec![GpuUse { processes: 0, ..used("a", 30) }]);
    check_row(vec![ended(), ended()], Some(30));
    // Daemons use memory, too.
    let daemon = || gpu(30, vec![GpuUse { daemons: 1, ..used("", 30) }]);
    check_row(vec![daemon(), daemon()], None);
}

#[test]
fn memory_is_unclaimed_only_beyond_what_the_option_tolerates() {
    let left = |gib| vec![gpu(gib, Vec::new()), gpu(gib, Vec::new())];
    check_row(left(1), None);
    check_row(left(2), Some(2));
    let by = |unclaimed_memory_percent, gib, expected| {
        let options = Options { unclaimed_memory_percent, ..Options::default() };
        check_unclaimed(in_a_row(left(gib)), &options, expected);
    };
    by(0, 0, None);
    by(0, 1, Some(1));
    by(100, 100, None);
    let total = |memory_total_bytes| Gpu { memory_total_bytes, ..gpu(50, Vec::new()) };
    check_row(vec![total(None), total(None)], None);
}

#[test]
fn memory_is_not_unclaimed_where_a_process_may_use_it() {
    let known = || gpu(50, vec![used("a", 10)]);
    check_row(vec![known(), known()], Some(40));
    let unknown: [fn(&mut Gpu); 3] = [
        |gpu| gpu.uses[0].memory_used_bytes = None,
        |gpu| gpu.uses_complete = Some(false),
        |gpu| gpu.memory_used_bytes = None,
    ];
    for change in unknown {
        let mut changed = known();
        change(&mut changed);
        check_row(vec![known(), changed.clone()], None);
        check_row(vec![changed.clone(), known()], None);
        check_row(vec![known(), changed, known(), known()], Some(40));
    }
}

#[test]
fn two_agents_or_boots_are_not_in_a_row() {
    let row = || in_a_row(vec![gpu(50, Vec::new()), gpu(50, Vec::new())]);
    let check = |change: fn(&mut Report)| {
        let mut reports = row();
        change(&mut reports[1]);
        check_unclaimed(reports, &Options::default(), None);
    };
    check(|report| report.started_at_ms += 1);
    check(|report| report.boot_id = "another".into());
    check(|report| report.gpus.as_mut().unwrap().devices[0].uuid = "GPU-7".into());
    check(|report| report.gpus = None);
    check_unclaimed(row(), &Options::default(), Some(50));
}

#[test]
fn what_no_kubelet_lists_is_unclaimed_nevertheless() {
    let mut reports = in_a_row(vec![gpu(50, Vec::new()), gpu(50, Vec::new())]);
    for report in &mut reports {
        report.assignments = None;
    }
    check_unclaimed(reports, &Options::default(), Some(50));
}

#[test]
fn a_node_with_strays_or_unclaimed_memory_has_problems_and_its_gpus_show_them() {
    let mut reports = in_a_row(vec![gpu(50, vec![used("c", 1)]), gpu(50, vec![used("c", 1)])]);
    let page = |snapshot: &Snapshot, path: &str| {
        let query = PageQuery::parse(path, "").unwrap().unwrap();
        let html = render(&query, &Shown { snapshot, history: &History::default() }, LATER).unwrap();
        html.split('<').filter_map(|piece| piece.split_once('>')).map(|(_, text)| text).collect::<String>()
    };
    let node = |snapshot: &Snapshot| NodeEntry::named("n", snapshot).unwrap();
    let text = |snapshot: &Snapshot| {
        let answer = Answer::on(&Subject::Node("n".into()), snapshot, NOW).unwrap();
        explain::text(&answer, Paint::Plain)
    };

    let seen = snapshot(&objects(), reports.clone());
    let front = page(&seen, "/");
    assert!(front.contains("1 stray processes") && front.contains("1 unclaimed GPU memory"), "{front}");
    let shown = page(&seen, "/node/n");
    assert!(shown.contains("49 GiB unclaimed") && shown.contains("a/a1 stray process"), "{shown}");
    let table = |snapshot: &Snapshot| {
        let rules = Rules { is_accelerator: &|_| true, knows_devices: true };
        tables::nodes::nodes(&[node(snapshot)], rules, View { width: None, paint: Paint::Plain })
    };
    let notes = [
        "GPUs of n have processes of no pod, or of pods that do not hold them.",
        "GPUs of n have memory in use that a dead process left behind.",
    ];
    assert!(notes.iter().all(|note| table(&seen).contains(note)), "{}", table(&seen));
    let explained = text(&seen);
    assert!(explained.contains("held by a/a; 1 stray process; 49 GiB unclaimed"), "{explained}");
    let gpu = node(&seen).gpus.unwrap().remove(0);
    assert_eq!((gpu.strays, gpu.unclaimed_memory_bytes), (Some(1), Some(49 * GIB)));

    // What is known to be well is 0 in JSON, and nothing else says anything of it.
    for report in &mut reports {
        report.gpus.as_mut().unwrap().devices[0].uses = vec![used("a", 50)];
    }
    let seen = snapshot(&objects(), reports);
    assert!(!page(&seen, "/").contains("1 unclaimed") && !page(&seen, "/").contains("1 stray"));
    assert!(!text(&seen).contains("unclaimed") && !text(&seen).contains("stray"));
    assert!(!notes.iter().any(|note| table(&seen).contains(note)));
    let gpu = node(&seen).gpus.unwrap().remove(0);
    assert_eq!((gpu.strays, gpu.unclaimed_memory_bytes), (Some(0), Some(0)));
}
