//! What pods did with the devices that they held: docs/accounting.md §13.
use mcad_wire::parts::Part;
use mcad_wire::report::GpuUse;

use super::*;
use crate::gpu_use::{Use, Uses};

/// A report whose agent splits time: pods on GPUs, in seconds, each GPU with its `vacant` parts, and the pods' own parts.
fn split(
    uptime_s: u64,
    held: &[(&str, &[&str], u64)],
    vacant: &[(&str, &[u64])],
    own: &[(&str, &str, &[u64])],
) -> Report {
    let held: Vec<_> = held.iter().map(|(pod, ids, seconds)| (*pod, *ids, seconds * S)).collect();
    let mut report = of_gpus(report(1_700_000_000_000, uptime_s), &held, &[]);
    report.sampled_at_ms = 1_700_000_000_000 + uptime_s * 1000;
    let ns = |parts: &[u64]| parts.iter().map(|seconds| seconds * S).collect::<Vec<_>>();
    report.gpus.as_mut().unwrap().devices = vacant
        .iter()
        .map(|(uuid, vacant)| Gpu {
            uuid: (*uuid).into(),
            busy_ns: Some(0),
            vacant: ns(vacant),
            uses: own
                .iter()
                .filter(|(of, ..)| of == uuid)
                .map(|(_, pod, parts)| GpuUse { pod_uid: format!("uid-{pod}"), parts: ns(parts), ..GpuUse::default() })
                .collect(),
            ..Gpu::default()
        })
        .collect();
    report
}

/// Seconds by label, without zeros.
fn seconds(uses: &Uses) -> Vec<(&'static str, u64)> {
    Use::all().map(|of| (of.label(), uses.of(of) / S)).filter(|(_, seconds)| *seconds > 0).collect()
}

fn idle(world: &World) -> Vec<(&'static str, u64)> {
    world.total().gpu_idle_ns.map(|idle| seconds(&idle)).unwrap_or_default()
}

/// A pod whose container started at this second, bound at that one.
fn started(name: &str, bound_s: u64, started_s: Option<u64>) -> Value {
    let time =
        |second: u64| k8s_openapi::jiff::Timestamp::from_second(1_700_000_000 + second as i64).unwrap().to_string();
    let state = match started_s {
        Some(second) => json!({"running": {"startedAt": time(second)}}),
        None => json!({"waiting": {"reason": "ContainerCreating"}}),
    };
    let mut pod = pod(name);
    pod["spec"]["containers"] = json!([{"name": "main", "resources": {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}}]);
    pod["status"] = json!({
        "phase": "Running",
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": time(bound_s)}],
        "containerStatuses": [{"name": "main", "state": state}],
    });
    pod
}

#[test]
fn what_the_containers_of_a_pod_did_is_what_the_pod_did() {
    let mut world = World::with_pods(&["p"]);
    let of = |at, own: &[u64]| split(at, &[("p", &["GPU-0"], at)], &[("GPU-0", &[at])], &[("GPU-0", "p", own)]);
    world.take(&of(10, &[0, 0, 0, 0, 10]));
    let total = world.take(&of(20, &[4, 0, 0, 0, 12, 0, 0, 4]));
    assert_eq!((total.gpu_held_ns, total.gpu_busy_ns), (Some(20 * S), Some(4 * S)));
    assert_eq!(idle(&world), [("io", 12), ("host", 4)]);
    let held = world.totals.held_ns().unwrap();
    assert_eq!(seconds(&held.appwrapper), [("busy", 4), ("io", 12), ("host", 4)]);
    assert_eq!(held.other, Uses::default());
    let now = world.nodes["n"].held_now().unwrap();
    assert_eq!(now.len(), 1);
    assert_eq!(now[0].0.as_ref().map(|name| &*name.name), Some("w"));
    // In billionths of a device, a second of ten is 0.1 devices.
    let tenths: Vec<_> = now[0].1.idle().filter(|(_, nano)| *nano > 0).map(|(of, nano)| (of.label(), nano)).collect();
    assert_eq!((now[0].1.of(Use::BUSY), tenths), (400_000_000, vec![("io", 200_000_000), ("host", 400_000_000)]));
}

#[test]
fn without_a_process_of_the_pod_the_device_says_what_a_holder_does() {
    let mut world = World::with_pods(&["p"]);
    world.there(&started("p", 1, Some(2)));
    let vacant = |busy, no_process| vec![busy, 0, 0, 0, 0, 0, 0, 0, 0, no_process];
    let of = |at, parts: &[u64]| split(at, &[("p", &["GPU-0"], at)], &[("GPU-0", parts)], &[]);
    world.take(&of(10, &vacant(0, 10)));
    assert_eq!(idle(&world), [("no_process", 8), ("starting", 2)]);
    let total = world.take(&of(20, &vacant(3, 17)));
    assert_eq!(total.gpu_busy_ns, Some(3 * S));
    assert_eq!(idle(&world), [("no_process", 15), ("starting", 2)]);
}

#[test]
fn a_pod_that_waits_for_its_start_and_then_for_the_other_pods_says_so() {
    let mut world = World::with_pods(&["p"]);
    world.there(&started("p", 1, None));
    let of = |at| split(at, &[("p", &["GPU-0"], at)], &[("GPU-0", &[0, 0, 0, 0, 0, 0, 0, 0, 0, at])], &[]);
    world.take(&of(10));
    assert_eq!(idle(&world), [("starting", 10)]);
    world.there(&started("p", 1, Some(14)));
    world.there(&started("q", 17, Some(30)));
    world.take(&of(20));
    assert_eq!(idle(&world), [("no_process", 3), ("starting", 14), ("gang", 3)]);
    // An AppWrapper of which a pod is missing.
    let mut with_two = appwrapper("1");
    let template = json!({"spec": {"containers": [{"name": "main"}]}});
    with_two["spec"]["components"] = json!([{
        "podSets": [{"replicas": 3, "path": "template.spec.template"}],
        "template": {"apiVersion": "batch/v1", "kind": "Job", "spec": {"parallelism": 3, "template": template}},
    }]);
    world.there(&with_two);
    world.take(&of(30));
    assert_eq!(idle(&world), [("no_process", 3), ("starting", 14), ("gang", 13)]);
}

#[test]
fn what_nvml_and_kubelet_say_nothing_of_is_unknown() {
    let mut world = World::with_pods(&["p"]);
    // Ids that are no UUIDs, and an agent of an older version.
    world.take(&split(10, &[("p", &["nvidia0"], 10)], &[("GPU-0", &[10])], &[]));
    assert_eq!(idle(&world), [("unknown", 10)]);
    assert_eq!(world.total().gpu_busy_ns, None);
    let without_nvml = Report { gpus: None, ..split(20, &[("p", &["nvidia0"], 20)], &[], &[]) };
    world.take(&without_nvml);
    assert_eq!(idle(&world), [("unknown", 20)]);
    let mut old = World::with_pods(&["p"]);
    let of = |at, busy_s| of_gpus(report(1, at), &[("p", &["GPU-0"], at * S)], &[("GPU-0", busy_s * S)]);
    old.take(&of(10, 10));
    assert_eq!(old.take(&of(20, 14)).gpu_busy_ns, Some(4 * S));
    assert_eq!(idle(&old), [("unknown", 16)]);
}

#[test]
fn nvml_that_missed_a_sample_leaves_that_time_unknown() {
    let mut world = World::with_pods(&["p"]);
    let of = |at, io| split(at, &[("p", &["GPU-0"], at)], &[("GPU-0", &[0])], &[("GPU-0", "p", &[0, 0, 0, 0, io])]);
    world.take(&of(10, 10));
    world.take(&of(30, 20));
    assert_eq!(idle(&world), [("io", 20), ("unknown", 10)]);
}

#[test]
fn a_pod_of_no_appwrapper_counts_in_the_cluster_and_so_does_one_whose_appwrapper_is_gone() {
    let mut world = World::with_pods(&["p"]);
    world.there(&pod_on("n", "q", ""));
    let held: &[(&str, &[&str], u64)] = &[("p", &["GPU-0"], 10), ("q", &["GPU-1"], 10)];
    let vacant: &[(&str, &[u64])] = &[("GPU-0", &[10]), ("GPU-1", &[10])];
    world.take(&split(10, held, vacant, &[]));
    world.gone(&appwrapper("1"));
    let held: &[(&str, &[&str], u64)] = &[("p", &["GPU-0"], 20), ("q", &["GPU-1"], 20)];
    let vacant: &[(&str, &[u64])] = &[("GPU-0", &[20]), ("GPU-1", &[20])];
    world.take(&split(20, held, vacant, &[]));
    let held = world.totals.held_ns().unwrap();
    assert_eq!((seconds(&held.appwrapper), seconds(&held.other)), (vec![("busy", 20)], vec![("busy", 20)]));
}

#[test]
fn what_is_only_in_the_last_list_is_starting_or_unknown() {
    let mut world = World::with_pods(&["p"]);
    world.there(&started("p", 1, None));
    world.take(&split(10, &[("p", &["GPU-0"], 0)], &[("GPU-0", &[])], &[]));
    let of = |world: &World, of| world.nodes["n"].held_now().unwrap()[0].1.of(of);
    assert_eq!(of(&world, Use::Starting), S);
    world.there(&started("p", 1, Some(5)));
    world.take(&split(20, &[("p", &["GPU-0"], 0)], &[("GPU-0", &[])], &[]));
    assert_eq!((of(&world, Use::Starting), of(&world, Use::Part(Part::Unknown))), (0, S));
}

#[test]
fn another_replica_goes_on_where_this_one_is() {
    let of = |at, io| {
        let held: &[(&str, &[&str], u64)] = &[("p", &["GPU-0"], at)];
        split(at, held, &[("GPU-0", &[0, 0, 0, 0, 0, 0, 0, 0, 0, at])], &[("GPU-0", "p", &[0, 0, 0, 0, io])])
    };
    let mut theirs = World::with_pods(&["p"]);
    theirs.take(&of(100, 60));
    let transfer = StateTransfer::decode(&*theirs.tell().encode_to_vec()).unwrap();
    let mut ours = World::with_pods(&["p"]);
    ours.learn(&transfer).unwrap();
    assert_eq!((idle(&ours), ours.totals.held_ns()), (idle(&theirs), theirs.totals.held_ns()));
    theirs.take(&of(110, 64));
    ours.take(&of(110, 64));
    assert_eq!(idle(&ours), idle(&theirs));
    assert_eq!(idle(&ours).iter().map(|(_, seconds)| seconds).sum::<u64>(), 110);
    // A replica of an older version does not know why they idled.
    let mut old = transfer;
    old.totals[0].gpu_idle_ns.clear();
    let mut ours = World::with_pods(&["p"]);
    ours.learn(&old).unwrap();
    assert_eq!(idle(&ours), [("unknown", 100)]);
}

#[test]
fn a_gpu_of_one_pod_was_busy_for_it_also_where_its_processes_cannot_be_read() {
    // As of an agent without hostPID: it does not know whose processes these are, but the driver says how busy the device was.
    let of = |at: u64, held: &[(&str, &[&str], u64)], busy_s: u64| {
        let mut report = split(at, held, &[("GPU-0", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, at])], &[]);
        report.gpus.as_mut().unwrap().devices[0].busy_ns = Some(busy_s * S);
        report
    };
    let mut world = World::with_pods(&["p"]);
    let alone = |at| [("p", &["GPU-0"][..], at)];
    assert_eq!(world.take(&of(10, &alone(10), 4)).gpu_busy_ns, None, "whose that was, nobody knows");
    assert_eq!(world.take(&of(20, &alone(20), 10)).gpu_busy_ns, Some(6 * S));
    assert_eq!(idle(&world), [("unknown", 14)]);
    // Of a GPU that two pods share, nobody knows for whom.
    let mut world = World::with_pods(&["p", "q"]);
    let shared = |at| [("p", &["GPU-0::0"][..], at), ("q", &["GPU-0::1"][..], at)];
    world.take(&of(10, &shared(10), 4));
    world.take(&of(20, &shared(20), 10));
    assert_eq!(idle(&world), [("unknown", 40)]);
}
