//! The page's section of Kueue's queues, and its first sentence about them.
#![expect(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::collections::BTreeSet;

use mcad_accounting::cluster::Cluster;
use mcad_accounting::object::Kind;
use mcad_accounting::snapshot::Snapshot;
use mcad_testkit::build::{node, object, spec, v1beta2, with};
use mcad_testkit::explained::{dumped, snapshot, snapshot_of};
use serde_json::json;

use crate::page::{check, page, scene, text, three_pools};

/// A cluster with Kueue's objects.
fn with_queues(case: usize) -> Snapshot {
    snapshot_of(Cluster::from_objects(dumped(&format!("cases/queue-{case}.yaml"))), Vec::new())
}

/// The part of the page about one ClusterQueue, as one reads it.
fn queue(html: &str, name: &str) -> String {
    let part = html.split(&format!("<section class=\"queue\" id=\"queue-{name}\"")).nth(1).unwrap_or_default();
    let words = part.split("</section>").next().unwrap_or_default().replace("</", " </");
    text(&format!("<x{words}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn where_queues_promise_more_gpus_than_there_are_the_page_begins_with_that() {
    // Quotas added up by hand; what there is hardware for is what `cases/queue-N.prom` has not as unbacked.
    for (case, expected) in [
        (1, "Queues promise 48 GPUs; there is hardware for 29. "),
        (2, "Queues promise 48 GPUs; there is hardware for 33. "),
        (
            3,
            "Queues promise 7936 GPUs; there is hardware for 4. Queues promise 512 nvidia.com/mig-1g.10gb; there is hardware for 0. ",
        ),
        (
            4,
            "Queues promise 318 GPUs; there is hardware for 1. Queues promise 16 nvidia.com/mig-1g.10gb; there is hardware for 0. ",
        ),
    ] {
        let html = page(&with_queues(case), "/", "");
        let sentence = html.split("<p class=\"sentence\" role=\"status\">").nth(1).unwrap_or_default();
        let sentence = text(&format!("<p>{}", sentence.split("</p>").next().unwrap_or_default()));
        assert!(sentence.starts_with(expected), "{sentence}");
        // The other sentences about the cluster follow.
        assert!(sentence.contains(" advertised"), "{sentence}");
    }
    // Quotas for which there is hardware, or that only promise CPU and memory, are no news.
    let objects = |gpus: u32| {
        let quota = json!([{"coveredResources": ["cpu", "nvidia.com/gpu"], "flavors": [{"name": "f", "resources": [
            {"name": "cpu", "nominalQuota": "10k"}, {"name": "nvidia.com/gpu", "nominalQuota": gpus}]}]}]);
        [
            node("n", json!({"cpu": "8", "nvidia.com/gpu": "8"})),
            of_kueue("ResourceFlavor", "f", json!({})),
            of_kueue("ClusterQueue", "q", json!({"resourceGroups": quota})),
        ]
    };
    let first = |gpus| {
        let html = page(&snapshot(&objects(gpus), Vec::new()), "/", "");
        let first = html.split("<p class=\"sentence\" role=\"status\">").nth(1).unwrap_or_default().to_owned();
        text(&format!("<p>{}", first.split("</p>").next().unwrap_or_default()))
    };
    assert!(first(8).starts_with("8 GPUs advertised"), "{}", first(8));
    assert!(first(9).starts_with("Queues promise 9 GPUs; there is hardware for 8. 8 GPUs advertised"), "{}", first(9));
    let html = page(&snapshot(&objects(8), Vec::new()), "/", "");
    check(&html, "Queues promise 10\u{202f}000 cores; there is hardware for 8.");
    check(&page(&with_queues(1), "/", ""), "Queues promise 6144 GiB of memory; there is hardware for 3959.");
}

fn of_kueue(kind: &str, name: &str, spec: serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name, "uid": name}, "spec": spec})
}

#[test]
fn each_quota_has_a_bar_whose_text_says_all_that_it_shows() {
    let html = page(&with_queues(1), "/", "");
    let gpus = "35 of 16 reserved 17 held by pods of AppWrappers, 1 held by other pods and 17 reserved and held by no pod; \
                19 of these are borrowed; 5 more can be borrowed; \
                19 of the 48 that all quotas of this flavor promise have no hardware.";
    assert!(queue(&html, "red-cluster-queue").contains(gpus), "{}", queue(&html, "red-cluster-queue"));
    // What others have borrowed is not free.
    let lent = "0 of 8 reserved 5 free and 3 not reserved, but in use by other queues of the cohort; 19 of the 48";
    assert!(queue(&html, "blue-cluster-queue").contains(lent), "{}", queue(&html, "blue-cluster-queue"));
    for case in 1..=4 {
        let html = page(&with_queues(case), "/", "");
        let bars = html.matches("<svg class=\"bar quota\"").count();
        assert!(bars > 5, "{case}: {bars}");
        // What the bar says and what one reads beside it is the same.
        let labels = html.split("<svg class=\"bar quota\"").skip(1);
        for label in labels.filter_map(|svg| svg.split("aria-label=\"").nth(1)?.split('"').next()) {
            assert!(html.contains(&format!("<dd class=\"parts\" aria-hidden=\"true\">{label}</dd>")), "{label}");
        }
        assert!(!html.contains(" style="), "{case}");
    }
}

#[test]
fn queues_that_admit_nothing_say_why_and_cohorts_are_a_tree() {
    let html = page(&with_queues(2), "/", "");
    for (name, state) in [
        ("prod", "prod stopped by its spec.stopPolicy Cohort company"),
        ("broken", "broken inactive: one of its ResourceFlavors does not exist Cohort company"),
        ("round", "round inactive: its condition Active has the reason, or its Cohorts form a cycle Cohort loop"),
        ("prod", "These Workloads wait until the queue is active, by priority and age: lab / stopped"),
        ("strict-h100", "strict-h100 No cohort"),
    ] {
        assert!(queue(&html, name).contains(state), "{}", queue(&html, name));
    }
    let tree = html.split("<ul class=\"cohorts\"").nth(1).unwrap_or_default();
    let tree = text(&format!("<ul{}", tree.split("<div class=\"queues\">").next().unwrap_or_default()));
    let company = "Cohort company, quota of its own: 4 GPUs (a100), 64 cores (a100) and 512 GiB (a100)";
    assert!(tree.contains(company), "{tree}");
    let (research, vision) = (tree.find("Cohort research"), tree.find("vision"));
    assert!(tree.find("prod") < research && research < vision, "{tree}");
    assert!(tree.contains("These Cohorts are in a cycle or below one, so their queues admit nothing: loop."), "{tree}");
}

#[test]
fn those_who_wait_stand_under_their_queue_in_order() {
    let html = page(&with_queues(2), "/", "");
    let speech = queue(&html, "speech");
    let line = speech.split("in the order in which Kueue tries them:").nth(1).unwrap();
    let (head, behind) = (line.find("head"), line.find("behind"));
    assert!(head.is_some() && head < behind, "{speech}");
    let vision = queue(&html, "vision");
    assert!(vision.contains("without being tried, because of a gate, a back-off, a stopped LocalQueue"), "{vision}");
    // Whoever waits behind others is not the first, and of the AppWrappers whose turn it is one is the first of a strict queue.
    for case in 1..=4 {
        let snapshot = with_queues(case);
        let lines = snapshot.lines.as_ref().unwrap();
        for (name, line) in &lines.queues {
            assert!(line.first.len() as u64 <= line.in_line, "{name}");
            let places = line.first.iter().filter_map(|workload| workload.open.as_ref());
            let places: Vec<_> = places.map(|open| (-open.priority, open.in_line_ms)).collect();
            assert!(places.is_sorted(), "{name}: {places:?}");
        }
    }
}

#[test]
fn a_line_is_by_priority_and_age_without_those_whom_kueue_does_not_try() {
    let quota = json!([{"coveredResources": ["nvidia.com/gpu"], "flavors": [{"name": "f", "resources": [
        {"name": "nvidia.com/gpu", "nominalQuota": 8}]}]}]);
    let local = |name: &str, policy: &str| {
        let spec = json!({"clusterQueue": "q", "stopPolicy": policy});
        with(of_kueue("LocalQueue", name, spec), "/metadata/namespace", json!("a"))
    };
    let waiting = |name: &str, queue: &str, minute: u32, priority: i64| {
        let template = json!({"spec": spec(json!({"nvidia.com/gpu": 2}))});
        let sets = json!([{"name": "main", "count": 2, "template": template}]);
        let created = json!(format!("2026-01-05T08:{minute:02}:00Z"));
        let one = of_kueue("Workload", name, json!({"queueName": queue, "priority": priority, "podSets": sets}));
        with(with(one, "/metadata/namespace", json!("a")), "/metadata/creationTimestamp", created)
    };
    let objects = [
        of_kueue("ResourceFlavor", "f", json!({})),
        of_kueue("ClusterQueue", "q", json!({"resourceGroups": quota})),
        local("open", "None"),
        local("closed", "Hold"),
        waiting("young", "open", 30, 0),
        waiting("old", "open", 0, 0),
        waiting("urgent", "open", 40, 10),
        waiting("stopped", "closed", 0, 10),
        with(
            waiting("backing-off", "open", 0, 10),
            "/status",
            json!({"requeueState": {"requeueAt": "2126-01-05T08:00:00Z"}}),
        ),
        with(
            waiting("gated", "open", 0, 10),
            "/metadata/annotations",
            json!({"kueue.x-k8s.io/admission-gated-by": "x"}),
        ),
    ];
    let html = page(&snapshot(&objects, Vec::new()), "/", "");
    let line = "These Workloads wait, in the order in which Kueue tries them: a / urgent not of an AppWrapper : 4 GPUs, priority 10 \
                a / old not of an AppWrapper : 4 GPUs a / young not of an AppWrapper : 4 GPUs 3 wait without being tried, because of a gate,";
    let of_queue = queue(&html, "q");
    assert!(of_queue.contains(line), "{of_queue}");
    assert!(of_queue.contains("6 Workloads wait, 0 are admitted."), "{of_queue}");
}

#[test]
fn without_kueue_nothing_of_queues_is_on_the_page() {
    for snapshot in [scene(), snapshot_of(Cluster::default(), Vec::new()), three_pools()] {
        let html = page(&snapshot, "/", "queue_page=2");
        for mark in ["Queues", "ClusterQueue", "id=\"queues", "class=\"quotas", "Cohort", "of queues"] {
            assert!(!html.contains(mark), "{mark} is in\n{html}");
        }
    }
}

#[test]
fn the_page_tells_queues_that_are_not_known_from_kueue_that_is_not_installed() {
    let job = json!([{"template": {"apiVersion": "v1", "kind": "Pod", "spec": spec(json!({"cpu": "1"}))}}]);
    let objects = [node("n", json!({"cpu": "8"})), v1beta2("w", job, "Suspended")];
    let cluster = || Cluster::from_objects(objects.iter().map(object));
    check(&page(&snapshot_of(cluster(), Vec::new()), "/", ""), "1 AppWrapper: 1 waits; queues are not known.");
    let mut without = cluster();
    without.serve_queues(BTreeSet::new());
    check(&page(&snapshot_of(without, Vec::new()), "/", ""), "1 AppWrapper: 1 waits; Kueue is not installed.");
    // Who has no AppWrappers of v1beta2 needs no queues.
    let html = page(&snapshot(&objects[..1], Vec::new()), "/", "");
    assert!(!text(&html).contains("ueue"), "{}", text(&html));
}

#[test]
fn for_how_much_quota_there_is_hardware_is_unknown_without_pods_or_nodes() {
    let without = |kind: Kind| {
        let known = Kind::ALL.into_iter().filter(|known| *known != kind).collect();
        let objects = dumped("cases/queue-1.yaml").into_iter().filter(|object| object.kind() != kind);
        page(&snapshot_of(Cluster::from_objects_known(objects, &known), Vec::new()), "/", "")
    };
    let html = without(Kind::Pod);
    check(&html, "Pods are not known, so how much of the reserved quota pods hold");
    let red = queue(&html, "red-cluster-queue");
    assert!(red.contains("33 reserved by AppWrappers and 2 reserved by others; how much of it pods hold is unknown; 19 of these are borrowed"), "{red}");
    assert!(!html.contains("Queues promise") && !red.contains("no hardware"), "{red}");
    let html = without(Kind::Node);
    check(&html, "Nodes are not known, so whether there is hardware for the quotas is unknown.");
    assert!(!html.contains("Queues promise"), "{html}");
}

#[test]
fn any_number_of_queues_is_a_page_of_half_a_megabyte_at_most() {
    let flavors: Vec<_> = (0..16).map(|at| of_kueue("ResourceFlavor", &format!("flavor-{at}"), json!({}))).collect();
    let queue = |at: usize| {
        let flavor = |at: usize| json!({"name": format!("flavor-{at}"), "resources": [{"name": "nvidia.com/gpu", "nominalQuota": 8}]});
        let groups =
            json!([{"coveredResources": ["nvidia.com/gpu"], "flavors": (0..16).map(flavor).collect::<Vec<_>>()}]);
        let spec = json!({"cohortName": format!("cohort-{at}"), "resourceGroups": groups});
        of_kueue("ClusterQueue", &format!("cluster-queue-of-team-{at:04}.research.example.com"), spec)
    };
    // A chain of Cohorts, one below the other.
    let cohort =
        |at: usize| of_kueue("Cohort", &format!("cohort-{at}"), json!({"parentName": format!("cohort-{}", at + 1)}));
    let local = |at: usize| {
        let spec = json!({"clusterQueue": format!("cluster-queue-of-team-{at:04}.research.example.com")});
        with(of_kueue("LocalQueue", &format!("local-{at}"), spec), "/metadata/namespace", json!("a"))
    };
    let workload = |at: usize| {
        let template = json!({"spec": spec(json!({"nvidia.com/gpu": 8, "cpu": 4}))});
        let sets = json!([{"name": "main", "count": 2, "template": template}]);
        let one = of_kueue(
            "Workload",
            &format!("workload-{at}"),
            json!({"queueName": format!("local-{}", at % 100), "podSets": sets}),
        );
        with(one, "/metadata/namespace", json!("a"))
    };
    let objects: Vec<_> = (0..1000)
        .flat_map(|at| [queue(at), cohort(at)])
        .chain((0..100).map(local))
        .chain((0..3000).map(workload))
        .chain(flavors)
        .chain((0..100).map(|at| node(&format!("n-{at}"), json!({"nvidia.com/gpu": "8"}))))
        .collect();
    let snapshot = snapshot(&objects, Vec::new());
    let html = page(&snapshot, "/", "");
    assert!(html.len() <= 500_000, "{} bytes", html.len());
    assert_eq!(html.matches("<section class=\"queue\"").count(), 50);
    check(&html, "1000 ClusterQueues of Kueue.");
    check(&html, "page 1 of 20, 1000 queues");
    check(&html, "10 more of its quotas are at /metrics");
    check(&html, "25 more wait behind them.");
    check(&html, "Cohorts further down are not shown.");
    assert!(html.contains("href=\"/?queue_page=2#queues\""), "{html}");
    let html = page(&snapshot, "/", "queue_page=99&search=x");
    check(&html, "page 20 of 20, 1000 queues");
    assert!(
        html.contains("<input type=\"hidden\" name=\"queue_page\" value=\"99\">"),
        "the search would show other queues"
    );
}
