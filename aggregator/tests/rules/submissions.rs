//! docs/accounting.md §12: what a manifest submits is judged as the aggregator judges it once it is created.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::collections::BTreeSet;

use mcad_accounting::change::Change;
use mcad_accounting::cluster::Cluster;
use mcad_accounting::merge::Ages;
use mcad_accounting::now::Now;
use mcad_accounting::object::submission::{Submission, Submitted};
use mcad_accounting::options::Options;
use mcad_accounting::queue::reason::{Standing, WaitingReason};
use mcad_accounting::trial::{Copies, Ground, Trial, Tried};
use mcad_aggregator::known::Known;
use mcad_testkit::NOW_MS;
use mcad_testkit::build::{gpu_node, gpus_of, object, pod, spec, v1beta1, v1beta2, waiting, with};
use mcad_testkit::queues::{admitted, flavor, of_kueue, owned, workload};
use mcad_testkit::{queues, snapshot};
use serde_json::{Value, json};

/// What is tried on a cluster of these objects.
pub(crate) fn ground(objects: &[Value], changes: &[Change], submissions: &[Submission]) -> Ground {
    let now = Now { unix_ms: NOW_MS as u64, ..Now::default() };
    let known = Known::new(Cluster::from_objects(objects.iter().map(object)), Options::default(), Ages::DoNot);
    for change in changes {
        assert!(known.suppose(change, now), "{change:?}");
    }
    let appwrappers: Vec<_> = submissions.iter().map(|one| &one.appwrapper).collect();
    known.ground(&appwrappers, &BTreeSet::new(), now)
}

pub(crate) fn submission(document: &Value) -> Submission {
    match Submitted::of(document, "a", None).unwrap() {
        Submitted::Pods(submission) => *submission,
        other => panic!("{other:?}"),
    }
}

/// Tries documents one after the other.
pub(crate) fn tried(objects: &[Value], documents: &[Value], copies: u32) -> Vec<Tried> {
    let submissions: Vec<_> = documents.iter().map(submission).collect();
    let ground = ground(objects, &[], &submissions);
    let mut trial = Trial::new(&ground);
    submissions.iter().map(|one| trial.submit(one, copies)).collect()
}

fn fits(objects: &[Value], document: Value) -> Option<bool> {
    tried(objects, &[document], 1)[0].fits
}

pub(crate) fn object_of(api_version: &str, kind: &str, spec: Value) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "spec": spec,
        "metadata": {"name": "w", "namespace": "a", "labels": {"kueue.x-k8s.io/queue-name": "q"}},
    })
}

pub(crate) fn template(gpus: u32) -> Value {
    json!({"spec": gpus_of(gpus)})
}

/// An object of each kind but AppWrapper, each of two pods of two GPUs or more, with the pod sets that an AppWrapper must declare if its
/// controller does not infer them.
fn of_every_kind() -> Vec<(Value, Value)> {
    let job = json!({"parallelism": 2, "completions": 4, "template": template(2)});
    let workers = json!([{"replicas": 2, "template": template(2)}]);
    let cluster = json!({"headGroupSpec": {"template": template(1)}, "workerGroupSpecs": workers});
    let lws = json!({"replicas": 2, "leaderWorkerTemplate": {"size": 3, "leaderTemplate": template(1), "workerTemplate": template(2)}});
    let of_lws = |part: &str, count: u32| json!({"path": format!("template.spec.leaderWorkerTemplate.{part}"), "replicas": count});
    let roles = json!({"Master": {"template": template(1)}, "Worker": {"replicas": 2, "template": template(2)}});
    let none = || json!([]);
    vec![
        (object_of("v1", "Pod", gpus_of(2)), none()),
        (object_of("batch/v1", "Job", job.clone()), none()),
        (
            object_of(
                "jobset.x-k8s.io/v1alpha2",
                "JobSet",
                json!({"replicatedJobs": [{"replicas": 2, "template": {"spec": job}}]}),
            ),
            none(),
        ),
        (object_of("kubeflow.org/v1", "PyTorchJob", json!({"pytorchReplicaSpecs": roles})), none()),
        (object_of("ray.io/v1", "RayCluster", cluster.clone()), none()),
        (object_of("ray.io/v1", "RayJob", json!({"rayClusterSpec": cluster})), none()),
        (
            object_of("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", lws),
            json!([of_lws("leaderTemplate", 2), of_lws("workerTemplate", 4)]),
        ),
        (object_of("apps/v1", "Deployment", json!({"replicas": 2, "template": template(2)})), none()),
        (object_of("apps/v1", "StatefulSet", json!({"replicas": 2, "template": template(2)})), none()),
    ]
}

/// The same in an AppWrapper, as somebody would submit it.
pub(crate) fn wrapped(document: &Value, sets: &Value) -> Value {
    let component =
        if sets == &json!([]) { json!({"template": document}) } else { json!({"template": document, "podSets": sets}) };
    let appwrapper = v1beta2("w", json!([component]), "Suspended");
    with(appwrapper, "/metadata/labels", json!({"kueue.x-k8s.io/queue-name": "q"}))
}

#[test]
fn every_kind_has_the_verdict_of_the_appwrapper_that_wraps_it() {
    let appwrappers = [
        (waiting(&[(2, gpus_of(2)), (1, gpus_of(3))]), None),
        (with(waiting(&[(5, gpus_of(2))]), "/spec/schedulingSpec", json!({"minAvailable": 2})), None),
        (
            v1beta1(
                "w",
                json!([{"generictemplate": {"spec": {"replicas": 2, "template": {"spec": gpus_of(2)}}}}]),
                json!({}),
            ),
            None,
        ),
    ];
    let others = of_every_kind().into_iter().map(|(document, sets)| (document, Some(sets)));
    for (document, sets) in appwrappers.into_iter().chain(others) {
        let created = sets.map_or_else(|| document.clone(), |sets| wrapped(&document, &sets));
        let mut seen = Vec::new();
        for gpus in 1..=12 {
            let nodes = [gpu_node("m", gpus), gpu_node("n", 1), pod("p", "m", json!({"nvidia.com/gpu": "1"}))];
            let snapshot = snapshot(
                [&nodes[..], std::slice::from_ref(&created)].concat().iter().map(object).collect(),
                &Options::default(),
            );
            let expected =
                snapshot.appwrappers.as_ref().unwrap().appwrappers[0].unplaced.clone().unwrap().verdict.unwrap();
            let tried = tried(&nodes, std::slice::from_ref(&document), 1).remove(0);
            let unplaced = tried.view.unplaced.unwrap();
            assert_eq!(unplaced.verdict.unwrap(), expected, "{document} on {gpus} GPUs");
            let nodes = tried.nodes.unwrap();
            assert_eq!((nodes.all(1), nodes.is_most), (expected.fits(), true), "{document}");
            seen.push(expected.fits());
        }
        assert!(seen.contains(&Some(true)) && seen.contains(&Some(false)), "{document}: {seen:?}");
    }
}

/// A ClusterQueue `q` with this much quota for GPUs, and what else is in its spec; the LocalQueue of that name; a flavor `f`.
pub(crate) fn queue(gpus: u32, rest: Value) -> Vec<Value> {
    let mut objects = queues::queue("q", &[("f", gpus)], rest);
    objects.push(flavor("f", json!({})));
    objects
}

/// Numbers of pods, and the GPUs of each.
type Sets = Vec<(u32, u32)>;

/// The kinds of which Kueue makes one Workload, and the pod sets of that.
fn of_one_workload() -> Vec<(Value, Value, Sets)> {
    let sets: [(&str, &[(u32, u32)]); 7] = [
        ("Pod", &[(1, 2)]),
        ("Job", &[(2, 2)]),
        ("JobSet", &[(4, 2)]),
        ("PyTorchJob", &[(1, 1), (2, 2)]),
        ("RayCluster", &[(1, 1), (2, 2)]),
        ("RayJob", &[(1, 1), (2, 2)]),
        ("StatefulSet", &[(2, 2)]),
    ];
    let of = |(document, wrapped_sets): (Value, Value)| {
        let (_, sets) = sets.iter().find(|(kind, _)| document["kind"] == *kind)?;
        Some((document, wrapped_sets, sets.to_vec()))
    };
    let appwrapper = with(
        waiting(&[(2, gpus_of(2)), (1, gpus_of(3))]),
        "/metadata/labels",
        json!({"kueue.x-k8s.io/queue-name": "q"}),
    );
    let others = of_every_kind().into_iter().filter_map(of);
    std::iter::once((appwrapper, Value::Null, vec![(2, 2), (1, 3)])).chain(others).collect()
}

#[test]
fn by_quota_every_kind_is_judged_as_its_workload_will_be() {
    let busy = |gpus: u32| admitted(workload("other", "q", &[(1, gpus)], 0), "q", json!({"nvidia.com/gpu": gpus}));
    let first = || with(workload("first", "q", &[(1, 9)], 0), "/spec/priority", json!(10));
    let lenders = |limit: Value| {
        let flavors =
            json!([{"name": "f", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": 4, "lendingLimit": limit}]}]);
        let spec = json!({"cohortName": "co", "resourceGroups": [{"coveredResources": ["nvidia.com/gpu"], "flavors": flavors}]});
        of_kueue("ClusterQueue", "lender", spec)
    };
    let stopped = with(queue(9, json!({}))[1].clone(), "/spec/stopPolicy", json!("Hold"));
    let tainted = json!({"nodeTaints": [{"key": "k", "effect": "NoSchedule"}]});
    let clusters: Vec<(Vec<Value>, Option<WaitingReason>)> = vec![
        (queue(9, json!({})), Some(WaitingReason::Pending)),
        ([queue(9, json!({})), vec![busy(8)]].concat(), Some(WaitingReason::QuotaShort)),
        (queue(1, json!({})), Some(WaitingReason::QuotaExceeded)),
        ([queue(1, json!({"cohortName": "co"})), vec![lenders(json!(null)), lenders(json!(null))]].concat(), None),
        ([queue(1, json!({"cohortName": "co"})), vec![lenders(json!(1))]].concat(), None),
        (vec![queue(9, json!({}))[0].clone(), queue(9, json!({}))[2].clone()], Some(WaitingReason::LocalQueueMissing)),
        (
            [&queue(9, json!({}))[..1], &[stopped], &queue(9, json!({}))[2..]].concat(),
            Some(WaitingReason::LocalQueueStopped),
        ),
        (queue(9, json!({}))[1..].to_vec(), Some(WaitingReason::ClusterQueueMissing)),
        (queue(9, json!({}))[..2].to_vec(), Some(WaitingReason::FlavorMissing)),
        (queue(9, json!({"stopPolicy": "HoldAndDrain"})), Some(WaitingReason::ClusterQueueStopped)),
        ([&queue(9, json!({}))[..2], &[flavor("f", tainted)]].concat(), Some(WaitingReason::NoFlavor)),
        (
            [queue(9, json!({"queueingStrategy": "StrictFIFO"})), vec![first()]].concat(),
            Some(WaitingReason::BehindOthers),
        ),
        (
            [queue(9, json!({"queueingStrategy": "BestEffortFIFO"})), vec![first()]].concat(),
            Some(WaitingReason::Pending),
        ),
    ];
    for (document, wrapped_sets, sets) in of_one_workload() {
        let created = if wrapped_sets.is_null() { document.clone() } else { wrapped(&document, &wrapped_sets) };
        // It is created after the others.
        let its_own = owned(workload("w", "q", &sets, 30), "w");
        for (cluster, reason) in &clusters {
            let nodes = [gpu_node("n", 16)];
            let before = [&nodes[..], cluster].concat();
            let after = [&before[..], &[created.clone(), its_own.clone()]].concat();
            let snapshot = snapshot(after.iter().map(object).collect(), &Options::default());
            let view = &snapshot.appwrappers.as_ref().unwrap().appwrappers[0];
            let expected = snapshot.quota_of(view).unwrap();
            let tried = tried(&before, std::slice::from_ref(&document), 1).remove(0);
            let quota = tried.quota.unwrap();
            assert_eq!(quota.fits, expected.fits, "{document} in {cluster:?}");
            assert_eq!(quota.shortfall, expected.shortfall, "{document} in {cluster:?}");
            assert_eq!(quota.reason.map(Standing::Waits), expected.standing, "{document} in {cluster:?}");
            assert!(document["kind"] == "Pod" || reason.is_none() || quota.reason == *reason, "{document}: {quota:?}");
            assert_eq!(tried.fits, Some(quota.reason == Some(WaitingReason::Pending)), "{document} in {cluster:?}");
        }
    }
}

#[test]
fn kinds_of_several_workloads_are_admitted_part_by_part() {
    let nodes = [gpu_node("n", 64)];
    let lws = of_every_kind().remove(6).0;
    // Each of its two groups is a leader of one GPU and two workers of two.
    for (quota, admitted) in [(4, 0), (5, 1), (9, 1), (10, 2)] {
        let tried = tried(&[&nodes[..], &queue(quota, json!({}))].concat(), std::slice::from_ref(&lws), 1).remove(0);
        assert_eq!((tried.quota.unwrap().workloads, tried.fits), (admitted, Some(admitted == 2)));
    }
    let deployment = of_every_kind().remove(7).0;
    for (quota, admitted) in [(1, 0), (2, 1), (4, 2)] {
        let tried =
            tried(&[&nodes[..], &queue(quota, json!({}))].concat(), std::slice::from_ref(&deployment), 1).remove(0);
        assert_eq!((tried.quota.unwrap().workloads, tried.fits), (admitted, Some(admitted == 2)));
    }
}

#[test]
fn of_what_no_queue_admits_no_copy_fits() {
    let job = object_of("batch/v1", "Job", json!({"parallelism": 1, "template": template(1)}));
    let nodes = [gpu_node("n", 8)];
    let stopped = queue(9, json!({"stopPolicy": "Hold"}));
    let tried_of = |objects: &[Value]| tried(&[&nodes[..], objects].concat(), std::slice::from_ref(&job), 2).remove(0);
    for objects in [&stopped[..], &stopped[..1]] {
        let tried = tried_of(objects);
        assert_eq!((tried.nodes, tried.fit, tried.fits), (Some(all(2)), Some(all(0)), Some(false)));
    }
    let tried = tried_of(&queue(1, json!({})));
    assert_eq!((tried.admitted, tried.fit, tried.fits), (Some(1), Some(all(1)), Some(false)));
}

#[test]
fn what_is_borrowed_is_what_its_queue_does_not_have_itself() {
    let lender = of_kueue(
        "ClusterQueue",
        "lender",
        json!({"cohortName": "co", "resourceGroups": [{
            "coveredResources": ["nvidia.com/gpu"],
            "flavors": [{"name": "f", "resources": [{"name": "nvidia.com/gpu", "nominalQuota": 8}]}],
        }]}),
    );
    let objects = [vec![gpu_node("n", 16), lender], queue(4, json!({"cohortName": "co"}))].concat();
    let job = object_of("batch/v1", "Job", json!({"parallelism": 1, "template": template(3)}));
    for (copies, admitted, amount, borrowed) in [(1, 1, 3, 0), (2, 2, 6, 2), (4, 4, 12, 8), (5, 4, 12, 8)] {
        let tried = tried(&objects, std::slice::from_ref(&job), copies).remove(0);
        let quota = tried.quota.unwrap();
        let (of, taken) = &quota.taken[0];
        let units = |amount: mcad_accounting::resource::amount::Amount| amount.units().unwrap();
        assert_eq!((&*of.0, units(taken.amount), units(taken.borrowed)), ("f", amount, borrowed));
        assert_eq!(
            (quota.workloads, tried.fit, tried.fits),
            (admitted, Some(all(admitted as u32)), Some(admitted == u64::from(copies)))
        );
    }
}

pub(crate) fn all(fit: u32) -> Copies {
    Copies { fit, is_most: true }
}

#[test]
fn copies_and_documents_take_their_places_one_after_the_other() {
    let nodes = [gpu_node("m", 8), gpu_node("n", 5)];
    let job = |gpus| object_of("batch/v1", "Job", json!({"parallelism": 1, "template": template(gpus)}));
    let tried_of = |documents: &[Value], copies| tried(&nodes, documents, copies);
    for (copies, fit) in [(1, 1), (3, 3), (4, 3), (100, 3)] {
        let tried = tried_of(&[without_queue(job(4))], copies).remove(0);
        assert_eq!((tried.nodes.unwrap(), tried.fits), (all(fit), Some(copies == fit)), "{copies}");
        let short = tried.short.map(|view| view.unplaced.unwrap().needed);
        assert_eq!(short, (copies > fit).then_some(u64::from(fit) + 1), "{copies}");
    }
    let documents = [without_queue(job(6)), without_queue(job(6)), without_queue(job(5))];
    let found: Vec<_> = tried_of(&documents, 1).iter().map(|tried| tried.fits).collect();
    assert_eq!(found, [Some(true), Some(false), Some(true)]);
    // Not all pods must be placed: an earlier one may leave more.
    let some = with(waiting(&[(3, gpus_of(5))]), "/spec/schedulingSpec", json!({"minAvailable": 1}));
    let found: Vec<_> = tried_of(&[some, without_queue(job(8))], 1).iter().map(|tried| tried.fits).collect();
    assert_eq!(found, [Some(true), None]);
}

pub(crate) fn without_queue(mut document: Value) -> Value {
    document["metadata"]["labels"] = json!({});
    document
}

#[test]
fn places_are_named_and_add_up() {
    let nodes = [gpu_node("m", 8), gpu_node("n", 5)];
    let job = without_queue(object_of("batch/v1", "Job", json!({"parallelism": 5, "template": template(2)})));
    let tried_of = |copies| tried(&nodes, std::slice::from_ref(&job), copies).remove(0);
    let mut places = tried_of(1).places;
    places.sort();
    assert_eq!(places, [("m".into(), 3), ("n".into(), 2)]);
    // Six of the ten pods of two copies find a place.
    assert_eq!(tried_of(2).places.iter().map(|(_, pods)| pods).sum::<u64>(), 6);
}

#[test]
fn nodes_can_be_imagined_away_and_uncordoned() {
    let taint = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
    let cordoned = with(with(gpu_node("m", 8), "/spec/unschedulable", json!(true)), "/spec/taints", taint);
    let nodes = [cordoned, gpu_node("n", 5)];
    let pod = submission(&object_of("v1", "Pod", gpus_of(6)));
    let small = submission(&object_of("v1", "Pod", gpus_of(5)));
    let fit = |changes: &[Change], of: &Submission| {
        let ground = ground(&nodes, changes, std::slice::from_ref(of));
        Trial::new(&ground).submit(of, 1).nodes.unwrap().fit == 1
    };
    let uncordon = || Change::Uncordon("m".to_owned());
    assert!(!fit(&[], &pod) && fit(&[uncordon()], &pod));
    assert!(fit(&[], &small) && !fit(&[Change::Without("n".to_owned())], &small));
    assert!(fit(&[Change::Without("n".to_owned()), uncordon()], &small));
}

#[test]
fn a_v1beta1_appwrapper_must_fit_mcads_sum_too() {
    let item = |gpus: u32| json!([{"generictemplate": {"spec": {"replicas": 1, "template": {"spec": gpus_of(gpus)}}}}]);
    let promised = v1beta1("other", item(4), json!({"state": "Pending", "canrun": true}));
    let objects = [gpu_node("m", 8), promised];
    for (gpus, copies, fit) in [(4, 1, 1), (5, 1, 0), (2, 3, 2)] {
        let tried = tried(&objects, &[v1beta1("w", item(gpus), json!({}))], copies).remove(0);
        assert_eq!((tried.by_sum, tried.fits), (Some(fit), Some(fit == copies)), "{gpus}");
        assert_eq!(tried.quota, None);
    }
}

#[test]
fn a_status_and_a_name_of_the_manifest_do_not_matter() {
    let nodes = [gpu_node("m", 8)];
    let runs = with(waiting(&[(1, gpus_of(8))]), "/status", json!({"phase": "Running"}));
    assert_eq!(fits(&nodes, runs), Some(true));
    // Its namesake runs, and a pod is nominated for it.
    let nominated = with(
        pod("p", "", json!({"nvidia.com/gpu": "8"})),
        "/status",
        json!({"phase": "Pending", "nominatedNodeName": "m"}),
    );
    let nominated = with(nominated, "/metadata/labels", json!({"workload.codeflare.dev/appwrapper": "w"}));
    let namesake = with(waiting(&[(1, gpus_of(8))]), "/status", json!({"phase": "Running"}));
    let objects = [nodes[0].clone(), namesake, nominated];
    assert_eq!(fits(&objects, waiting(&[(1, gpus_of(1))])), Some(false));
    let generated =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "train-"}, "spec": gpus_of(8)});
    assert_eq!((submission(&generated).name.as_str(), fits(&nodes, generated)), ("train-…", Some(true)));
}

fn v2(components: Value) -> Value {
    v1beta2("w", components, "")
}

#[test]
fn what_is_not_known_is_not_told() {
    let nodes = [gpu_node("m", 8)];
    // Of a component of a kind without pod sets, the pods are not known.
    let foreign = json!({"apiVersion": "example.com/v1", "kind": "Train", "spec": {}});
    let known = waiting(&[(1, gpus_of(1))])["spec"]["components"][0].clone();
    let components = json!([known, {"template": foreign}]);
    assert_eq!(fits(&nodes, v2(components)), None);
    // It does not fit, whatever the others are.
    let known = waiting(&[(1, gpus_of(9))])["spec"]["components"][0].clone();
    let components = json!([known, {"template": {"apiVersion": "example.com/v1", "kind": "Train"}}]);
    assert_eq!(fits(&nodes, v2(components)), Some(false));
    let unreadable = waiting(&[(1, spec(json!({"nvidia.com/gpu": "many"})))]);
    assert_eq!(fits(&nodes, unreadable), None);
    // A queue that may exist.
    let named = object_of("v1", "Pod", gpus_of(1));
    assert_eq!(fits(&nodes, named.clone()), None);
    assert_eq!(fits(&nodes, without_queue(named)), Some(true));
}

#[test]
fn a_kind_that_is_not_known_is_refused_with_those_that_are() {
    let refusal = |document: Value| Submitted::of(&document, "a", None).unwrap_err().to_string();
    let cron = refusal(object_of("batch/v1", "CronJob", json!({})));
    assert!(cron.starts_with(
        "CronJob of batch/v1: its pods are not known. Known are AppWrapper (workload.codeflare.dev/v1beta1), "
    ));
    for (document, _) in of_every_kind() {
        let of = format!("{} ({})", document["kind"].as_str().unwrap(), document["apiVersion"].as_str().unwrap());
        assert!(cron.contains(&of), "{cron} lacks {of}");
    }
    assert!(refusal(json!({"kind": "Pod"})).contains("`apiVersion` and `kind`"));
    assert!(refusal(json!("text")).contains("`apiVersion` and `kind`"));
    let nameless = json!({"apiVersion": "v1", "kind": "Pod", "spec": {}});
    assert_eq!(refusal(nameless), "Pod: fields `metadata.name` and `metadata.generateName` are empty");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}});
    assert!(matches!(Submitted::of(&service, "a", None), Ok(Submitted::Nothing(kind)) if kind == "Service"));
}

#[test]
fn hosts_of_ray_workers_and_its_submitter_count() {
    let workers = json!([{"replicas": 2, "numOfHosts": 3, "template": template(1)}]);
    let cluster = json!({"headGroupSpec": {"template": template(0)}, "workerGroupSpecs": workers});
    let pods = |document: &Value| submission(document).appwrapper.demand.pods();
    assert_eq!(pods(&object_of("ray.io/v1", "RayCluster", cluster.clone())), 7);
    let job = json!({"rayClusterSpec": cluster, "submitterPodTemplate": template(0)});
    assert_eq!(pods(&object_of("ray.io/v1", "RayJob", job.clone())), 8);
    assert_eq!(pods(&object_of("ray.io/v1", "RayJob", with(job, "/submissionMode", json!("HTTPMode")))), 7);
}
