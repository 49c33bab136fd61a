//! What is said of AppWrappers and queues of Kueue: a sentence for each reason why an AppWrapper waits, what Kueue says, and the values of
//! queues and flavors.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::collections::BTreeSet;

use mcad_accounting::cluster::Cluster;
use mcad_accounting::queue::reason::WaitingReason;
use mcad_accounting::snapshot::Snapshot;
use mcad_present::api::Wanted;
use mcad_present::explain::{self, Answer, Subject};
use mcad_present::tables::{self, View};
use mcad_terminal::paint::Paint;
use mcad_testkit::build::{gpu_node, node, object, pod, with};
use mcad_testkit::explained::{NOW, snapshot, snapshot_of};
use mcad_testkit::queues::{admitted, appwrapper, flavor, owned, queue, workload};
use serde_json::{Value, json};

fn asked(snapshot: &Snapshot, path: &str) -> Value {
    serde_json::to_value(Wanted::parse(&format!("/api/v1/{path}"), "").unwrap().answer(snapshot, NOW).unwrap()).unwrap()
}

fn text(snapshot: &Snapshot) -> String {
    explain::text(&Answer::on(&Subject::Cluster, snapshot, NOW).unwrap(), Paint::Plain)
}

/// The Workload of the AppWrapper `w`, for one pod of eight GPUs.
fn own() -> Value {
    owned(workload("w", "q", &[(1, 8)], 1), "w")
}

fn reserving() -> Value {
    owned(admitted(workload("w", "q", &[(1, 8)], 1), "q", json!({"nvidia.com/gpu": "8"})), "w")
}

/// With this condition as its only one.
fn says(of: Value, kind: &str, status: &str, reason: &str, message: &str) -> Value {
    let condition = json!({"type": kind, "status": status, "reason": reason, "message": message});
    with_status(of, "conditions", json!([condition]))
}

fn with_status(mut of: Value, field: &str, value: Value) -> Value {
    of["status"][field] = value;
    of
}

fn refused(reason: &str, message: &str) -> Value {
    says(own(), "QuotaReserved", "False", reason, message)
}

fn running() -> Value {
    with(appwrapper("w", "q", 2, 8), "/status/phase", json!("Running"))
}

fn bound(name: &str) -> Value {
    let labels = json!({"workload.codeflare.dev/appwrapper": "w", "kueue.x-k8s.io/podset": "w-0"});
    with(pod(name, "n", json!({"nvidia.com/gpu": "8"})), "/metadata/labels", labels)
}

/// A queue of sixteen GPUs, its flavor, and a node.
fn site() -> Vec<Value> {
    [queue("q", &[("f", 16)], json!({})), vec![flavor("f", json!({})), gpu_node("n", 16)]].concat()
}

/// The queue of the worked example: it has 16, borrows up to 16 and uses 12; all of another's 16 are used.
fn full() -> Vec<Value> {
    let limit = json!([{"coveredResources": ["nvidia.com/gpu"], "flavors": [{"name": "f", "resources": [
        {"name": "nvidia.com/gpu", "nominalQuota": 16, "borrowingLimit": 16}]}]}]);
    [
        queue("q", &[("f", 16)], json!({"cohortName": "c", "resourceGroups": limit})),
        queue("other", &[("f", 16)], json!({"cohortName": "c"})),
        vec![
            flavor("f", json!({})),
            gpu_node("n", 8),
            admitted(workload("u", "q", &[(1, 12)], 0), "q", json!({"nvidia.com/gpu": "12"})),
            admitted(workload("v", "other", &[(1, 16)], 0), "other", json!({"nvidia.com/gpu": "16"})),
        ],
    ]
    .concat()
}

/// The site without the object at that place: 0 the ClusterQueue, 1 the LocalQueue, 2 the flavor.
fn without(at: usize) -> Vec<Value> {
    let mut site = site();
    site.remove(at);
    site
}

fn changed(at: usize, pointer: &str, value: Value) -> Vec<Value> {
    let mut site = site();
    site[at] = with(site[at].clone(), pointer, value);
    site
}

fn changed_node(gpus: u32) -> Vec<Value> {
    let mut site = site();
    site[3] = gpu_node("n", gpus);
    site
}

fn inactive(reason: &str) -> Vec<Value> {
    let mut site = site();
    site[0] = says(site[0].clone(), "Active", "False", reason, "");
    site
}

/// Each reason, the objects of a cluster where it is that of the AppWrapper `w`, and the sentence.
#[expect(clippy::too_many_lines, reason = "one entry for each reason")]
fn cases() -> Vec<(&'static str, Vec<Value>, &'static str)> {
    let aw = || appwrapper("w", "q", 1, 8);
    let at = |site: Vec<Value>, more: Vec<Value>| [site, more].concat();
    let checks = |of: Value, state: &str| with_status(of, "admissionChecks", json!([{"name": "c", "state": state}]));
    let not_admitted = |of: Value| says(of, "QuotaReserved", "True", "", "");
    let first = with(workload("job", "q", &[(1, 32)], 9), "/spec/priority", json!(10));
    let strict = at(
        [
            queue("q", &[("f", 16)], json!({"queueingStrategy": "StrictFIFO"})),
            vec![flavor("f", json!({})), gpu_node("n", 8)],
        ]
        .concat(),
        vec![first, own(), aw()],
    );
    let two = || owned(admitted(workload("w", "q", &[(2, 8)], 0), "q", json!({"nvidia.com/gpu": "16"})), "w");
    let short = |gpus: u32| vec![owned(workload("w", "q", &[(1, gpus)], 1), "w"), appwrapper("w", "q", 1, gpus)];
    vec![
        (
            "managed_elsewhere",
            at(site(), vec![with(aw(), "/spec/managedBy", json!("kueue.x-k8s.io/multikueue")), own()]),
            "another controller manages it: its spec.managedBy is kueue.x-k8s.io/multikueue",
        ),
        (
            "evicted",
            at(
                site(),
                vec![
                    with(
                        reserving(),
                        "/status/conditions",
                        json!([
                    {"type": "QuotaReserved", "status": "True"}, {"type": "Evicted", "status": "True"}]),
                    ),
                    aw(),
                ],
            ),
            "Kueue has evicted it: it gives its quota back to ClusterQueue q and then waits again",
        ),
        ("starting", at(site(), vec![reserving(), aw()]), "it has its quota in ClusterQueue q and is being started"),
        (
            "starting",
            at(site(), vec![with(appwrapper("w", "", 1, 8), "/spec/suspend", json!(false))]),
            "it is not suspended: the AppWrapper controller starts it next",
        ),
        (
            "admission_check",
            at(site(), vec![checks(not_admitted(reserving()), "Pending"), aw()]),
            "it has its quota in ClusterQueue q, but an admission check is not ready: see status.admissionChecks of Workload w",
        ),
        (
            "admission_check",
            at(site(), vec![checks(own(), "Rejected"), aw()]),
            "an admission check has rejected it or demands another attempt: see status.admissionChecks of Workload w",
        ),
        (
            "topology",
            at(
                site(),
                vec![
                    with(
                        reserving(),
                        "/status/conditions",
                        json!([
                    {"type": "QuotaReserved", "status": "True"},
                    {"type": "Admitted", "status": "False", "reason": "PendingDelayedTopologyRequests"}]),
                    ),
                    aw(),
                ],
            ),
            "it has its quota in ClusterQueue q, and Kueue is still assigning nodes of the topology to it",
        ),
        (
            "topology",
            at(site(), vec![refused("TopologyPlacementFailed", ""), aw()]),
            "Kueue finds no part of the topology of ClusterQueue q with room for its pods",
        ),
        (
            "no_queue",
            at(site(), vec![appwrapper("w", "", 1, 8)]),
            "it names no queue: it needs the label kueue.x-k8s.io/queue-name",
        ),
        ("local_queue_missing", at(without(1), vec![own(), aw()]), "namespace a has no LocalQueue q"),
        (
            "local_queue_stopped",
            at(changed(1, "/spec/stopPolicy", json!("Hold")), vec![own(), aw()]),
            "LocalQueue q is stopped by its spec.stopPolicy",
        ),
        (
            "cluster_queue_missing",
            at(without(0), vec![own(), aw()]),
            "LocalQueue q is for ClusterQueue q, which does not exist",
        ),
        (
            "cluster_queue_stopped",
            at(changed(0, "/spec/stopPolicy", json!("HoldAndDrain")), vec![own(), aw()]),
            "ClusterQueue q is stopped by its spec.stopPolicy",
        ),
        (
            "flavor_missing",
            at(without(2), vec![own(), aw()]),
            "ClusterQueue q has quota in flavor f, which has no ResourceFlavor",
        ),
        (
            "cluster_queue_inactive",
            at(inactive("Terminating"), vec![own(), aw()]),
            "ClusterQueue q is not active: its condition Active has the reason, or its Cohorts form a cycle",
        ),
        (
            "admission_check_missing",
            at(inactive("AdmissionCheckNotFound"), vec![own(), aw()]),
            "ClusterQueue q is not active, because one of its admission checks does not exist or is not active",
        ),
        ("no_workload", at(site(), vec![aw()]), "Kueue has not created a Workload for it"),
        (
            "deactivated",
            at(site(), vec![with(own(), "/spec/active", json!(false)), aw()]),
            "its Workload w is deactivated: spec.active is false",
        ),
        (
            "gated",
            at(site(), vec![refused("AdmissionGated", ""), aw()]),
            "an admission gate holds back its Workload w: see the annotation kueue.x-k8s.io/admission-gated-by and its conditions",
        ),
        (
            "misconfigured",
            at(site(), vec![refused("Misconfigured", ""), aw()]),
            "Kueue refuses its Workload w as it is",
        ),
        (
            "backoff",
            at(site(), vec![with_status(own(), "requeueState", json!({"requeueAt": "2026-01-05T10:01:30Z"})), aw()]),
            "an earlier attempt failed: Kueue tries it again in 1 min",
        ),
        (
            "backoff",
            at(site(), vec![says(own(), "Requeued", "False", "", ""), aw()]),
            "an earlier attempt failed: Kueue does not try it again yet",
        ),
        (
            "preempting",
            at(site(), vec![refused("Pending", "Pending the preemption of 2 workload(s)"), aw()]),
            "other Workloads are being preempted to make room for it in ClusterQueue q",
        ),
        (
            "no_flavor",
            at(
                changed(2, "/spec/nodeTaints", json!([{"key": "team", "value": "x", "effect": "NoSchedule"}])),
                vec![own(), aw()],
            ),
            "no flavor of ClusterQueue q (f) is for its pods, or the queue has no quota for a resource that they request",
        ),
        (
            "quota_exceeded",
            at(full(), short(40)),
            "needs 36 GPUs more in flavor f: 4 of at most 32 left (16 of the 32 by borrowing); that is more than ClusterQueue q can \
             ever have",
        ),
        (
            "quota_short",
            at(full(), short(8)),
            "needs 4 GPUs more in flavor f: 4 of at most 32 left (16 of the 32 by borrowing)",
        ),
        (
            "pods_ready",
            at(site(), vec![refused("WaitingForPodsReady", ""), aw()]),
            "Kueue waits until the pods of other admitted Workloads are ready",
        ),
        (
            "behind_others",
            strict,
            "ClusterQueue q admits in strict order, and Workload a/job with priority 10 is first",
        ),
        (
            "pending",
            at(site(), vec![own(), aw()]),
            "it fits the quota of ClusterQueue q; Kueue has not admitted it yet",
        ),
        (
            "pods_unready",
            at(site(), vec![two(), running(), bound("p1"), bound("p2")]),
            "all its 2 pods have a node, but not all of them are ready",
        ),
        (
            "nodes_short",
            at(changed_node(13), vec![two(), running(), bound("p1")]),
            "1 of 2 pods has no node: 8 GPUs each, at most 5 free on one node",
        ),
        (
            "pods_unplaced",
            at(site(), vec![two(), running(), bound("p1")]),
            "1 of 2 pods has no node: the nodes have room, and the scheduler has not used it yet",
        ),
    ]
}

#[test]
fn each_reason_has_a_sentence() {
    let mut seen = BTreeSet::new();
    for (reason, objects, sentence) in cases() {
        let answer = asked(&snapshot(&objects, Vec::new()), "appwrappers/a/w");
        let of_kueue = &answer["appwrapper"]["kueue"];
        assert_eq!(
            (of_kueue["reason"].as_str(), of_kueue["why"].as_str()),
            (Some(reason), Some(sentence)),
            "{answer:#}"
        );
        seen.insert(reason);
    }
    // Without Kueue.
    for (suspended, reason, sentence) in [
        (
            true,
            "no_kueue",
            "it is suspended, and Kueue, which could start it, is not installed: spec.suspend must be set to false",
        ),
        (false, "starting", "it is not suspended: the AppWrapper controller starts it next"),
    ] {
        let mut cluster =
            Cluster::from_objects([object(&with(appwrapper("w", "q", 1, 8), "/spec/suspend", json!(suspended)))]);
        cluster.serve_queues(BTreeSet::new());
        let answer = asked(&snapshot_of(cluster, Vec::new()), "appwrappers/a/w");
        assert_eq!(answer["appwrapper"]["kueue"], json!({"reason": reason, "why": sentence}));
        seen.insert(reason);
    }
    let all: BTreeSet<_> = WaitingReason::ALL.iter().map(|reason| reason.label()).collect();
    assert_eq!((seen, WaitingReason::ALL.len()), (all.clone(), all.len()));
}

#[test]
fn the_sentence_comes_first_and_the_nodes_after_it_in_every_view() {
    let objects = [full(), vec![owned(workload("w", "q", &[(1, 9)], 1), "w"), appwrapper("w", "q", 1, 9)]].concat();
    let message = format!("couldn't assign flavors\u{1b}[31m to pod set w-0: {}", "x".repeat(300));
    let objects: Vec<Value> = objects
        .into_iter()
        .map(|one| match (&one["kind"], &one["metadata"]["name"]) {
            (kind, name) if kind == "Workload" && name == "w" => {
                says(one, "QuotaReserved", "False", "Pending", &message)
            }
            _ => one,
        })
        .collect();
    let snapshot = snapshot(&objects, Vec::new());
    let answer = asked(&snapshot, "appwrappers/a/w");
    let of_kueue = &answer["appwrapper"]["kueue"];
    let quota = "needs 5 GPUs more in flavor f: 4 of at most 32 left (16 of the 32 by borrowing)";
    let why = format!("{quota}; on the nodes: needs 9 GPUs; 8 free");
    assert_eq!(answer["appwrapper"]["waiting"]["why"], why);
    assert_eq!(answer["appwrapper"]["waiting"]["stopped_by"], json!(["quota", "total", "one_node"]));
    assert_eq!(of_kueue["says"]["reason"], "Pending");
    let said = of_kueue["says"]["message"].as_str().unwrap();
    assert!(said.chars().count() == 256 && !said.contains('\u{1b}'), "{said:?}");
    assert_eq!(
        (&of_kueue["workload"], &of_kueue["local_queue"], &of_kueue["cluster_queue"], &of_kueue["fits_quota"]),
        (&json!("w"), &json!("q"), &json!("q"), &json!(false))
    );
    assert_eq!(of_kueue["flavors"], json!({"f": {"devices": {"nvidia.com/gpu": 9}}}));
    let short = json!({"missing": 5, "available": 4, "most": 32, "borrowed": 16});
    assert_eq!(of_kueue["shortfall"], json!({"f": {"devices": {"nvidia.com/gpu": short}}}));

    let explained = text(&snapshot);
    assert!(explained.contains(&format!("{why}; Kueue says Pending: {said}\n")), "{explained}");
    let one = Answer::on(&Subject::Cluster, &snapshot, NOW).unwrap().appwrappers.unwrap().remove(0);
    let table = tables::why::why(&one, [], View { width: None, paint: Paint::Plain });
    let lines = [
        format!("\nWhy       {why}\n"),
        format!("\nKueue     says Pending: {said}\n"),
        "\nQueue     q, of ClusterQueue q\n".to_owned(),
        "\nQuota     9 GPUs in flavor f\n".to_owned(),
    ];
    assert!(lines.iter().all(|line| table.contains(line)), "{table}");
}

#[test]
fn pods_that_are_not_ready_are_listed_with_those_that_wait() {
    let (_, objects, sentence) = cases().into_iter().find(|(reason, ..)| *reason == "pods_unready").unwrap();
    let explained = text(&snapshot(&objects, Vec::new()));
    assert!(explained.contains("\n1 AppWrapper, none waiting, 1 started and not ready\n"), "{explained}");
    assert!(explained.contains(&format!("\n  a/w  2 of 2 pods  {sentence}\n")), "{explained}");
    let (_, objects, sentence) = cases().into_iter().find(|(reason, ..)| *reason == "nodes_short").unwrap();
    let explained = text(&snapshot(&objects, Vec::new()));
    assert!(explained.contains(&format!("holds 8 GPUs; {sentence}\n")), "{explained}");
}

#[test]
fn queues_and_flavors_have_the_values_of_their_metrics() {
    let snapshot = snapshot(&[full(), vec![own(), appwrapper("w", "q", 1, 8)]].concat(), Vec::new());
    let of = |appwrapper: i64, other: i64| json!({"appwrapper": appwrapper, "other": other});
    let queue = json!({
        "name": "q", "cohort": "c", "strategy": "BestEffortFIFO", "state": "active",
        "workloads": {
            "appwrapper": {"pending": 1, "reserving": 0, "admitted": 0},
            "other": {"pending": 0, "reserving": 0, "admitted": 1},
        },
        "pending": {"devices": {"nvidia.com/gpu": of(8, 0)}},
        "flavors": {"f": {"devices": {"nvidia.com/gpu": {
            "nominal": 16, "borrowing_limit": 16, "available": 4,
            "reserved": of(0, 12), "admitted": of(0, 12), "unheld": of(0, 12), "excess": of(0, 0),
        }}}},
    });
    assert_eq!(asked(&snapshot, "queues/q")["queue"], queue);
    let flavor = json!({
        "name": "f", "nodes": {"admissible": 1, "cordoned": 0, "not_ready": 0, "tainted": 0},
        "resources": {"devices": {"nvidia.com/gpu": {
            "nominal": 32, "installed": 8, "healthy": 8, "admissible": 8, "free": 8, "backing": 8, "unbacked": 24, "uncovered": 0,
        }}},
    });
    assert_eq!(asked(&snapshot, "flavors")["flavors"], json!([flavor]));
    assert_eq!(asked(&snapshot, "queues")["queues"].as_array().unwrap().len(), 2);
    let quota = &asked(&snapshot, "cluster")["cluster"]["quota"];
    assert_eq!(quota["devices"]["nvidia.com/gpu"], json!({"unbacked": 24, "uncovered": 0}));
    let refused = Wanted::parse("/api/v1/queues/x", "").unwrap().answer(&snapshot, NOW).unwrap_err();
    assert_eq!((refused.status(), refused.to_string()), (404, "no ClusterQueue named x".to_owned()));
    let explained = text(&snapshot);
    let tables = explained.split_once("\nClusterQueues\n").unwrap().1;
    mcad_testkit::explained::check_golden("explain/queues.txt", tables);
}

#[test]
fn a_quota_without_limit_is_said_and_is_no_number() {
    let mut objects = site();
    objects[0] = with(
        objects[0].clone(),
        "/spec/resourceGroups/0/flavors/0/resources/0/nominalQuota",
        json!("9223372036854775807"),
    );
    let snapshot = snapshot(&objects, Vec::new());
    let of_flavor = &asked(&snapshot, "queues/q")["queue"]["flavors"]["f"]["devices"]["nvidia.com/gpu"];
    assert_eq!((&of_flavor["nominal"], &of_flavor["available"]), (&json!("unlimited"), &json!("unlimited")));
    let explained = text(&snapshot);
    assert!(
        explained.contains("how much hardware has no quota is unknown, because a quota is unlimited"),
        "{explained}"
    );
}

#[test]
fn without_queues_one_clause_says_whether_kueue_is_missing_or_queues_are_not_known() {
    let there = [node("n", json!({"cpu": "1"})), appwrapper("w", "q", 1, 8)];
    let explained = text(&snapshot(&there, Vec::new()));
    assert_eq!(explained.matches("queue").count(), 1, "{explained}");
    assert!(explained.contains("\n1 AppWrapper, 1 waiting; queues are not known\n"), "{explained}");
    let nothing = text(&snapshot(&[node("n", json!({"cpu": "1"}))], Vec::new()));
    assert!(!nothing.contains("ueue"), "{nothing}");
    let unknown = Wanted::parse("/api/v1/queues", "").unwrap().answer(&snapshot(&there, Vec::new()), NOW).unwrap_err();
    assert_eq!(unknown.status(), 503);
    let mut cluster = Cluster::from_objects(there.iter().map(object));
    cluster.serve_queues(BTreeSet::new());
    let without = snapshot_of(cluster, Vec::new());
    let explained = text(&without);
    assert!(explained.contains("\n1 AppWrapper, 1 waiting; Kueue is not installed\n"), "{explained}");
    assert!(!explained.contains("queues are not known"), "{explained}");
    let absent = Wanted::parse("/api/v1/flavors", "").unwrap().answer(&without, NOW).unwrap_err();
    assert_eq!((absent.status(), absent.to_string()), (404, "there are no queues: Kueue is not installed".to_owned()));
}
