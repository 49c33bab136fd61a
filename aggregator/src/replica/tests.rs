//! Tests of which reports and scrapes a replica accepts and ends, and whose totals it keeps.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mcad_accounting::cluster::{Cluster, Orphans};
use mcad_accounting::merge::Ages;
use mcad_accounting::nodes::Limits;
use mcad_accounting::object::{Kind, decode};
use mcad_accounting::options::Options;
use mcad_testkit::reports::at;
use mcad_wire::report::{Cgroup, Cgroups, EndedPod, REPORT_VERSION, Report};
use prost::Message as _;
use serde_json::json;

use super::*;
use crate::known::SLICE;

#[test]
fn of_ended_pods_only_those_are_kept_that_the_cluster_has_or_had() {
    let object = |json: serde_json::Value| {
        let kind = Kind::named(json["apiVersion"].as_str().unwrap(), json["kind"].as_str().unwrap()).unwrap();
        decode(kind, json).unwrap()
    };
    let pod = object(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "a", "uid": "known", "labels": {"workload.codeflare.dev/appwrapper": "w"}},
        "spec": {"nodeName": "n"}, "status": {"phase": "Running"},
    }));
    let appwrapper = object(json!({
        "apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper",
        "metadata": {"name": "w", "namespace": "a", "uid": "1"}, "spec": {"components": []},
    }));
    let cluster = Cluster::from_objects([appwrapper, pod.clone()]);
    let known = Known::new(cluster, Options::default(), Ages::Count);
    let kept = || {
        let ended_pods = ["known", "stranger"].map(|uid| EndedPod { uid: uid.into(), ..EndedPod::default() }).into();
        let cgroups = Some(Cgroups { ended_pods, ..Cgroups::default() });
        let body = body(Report { cgroups, ..Report::default() });
        let mut received = receive::receive(&body).unwrap();
        known.leave_out_unshown(&mut received);
        received.report.to_owned().cgroups.unwrap().ended_pods.into_iter().map(|pod| pod.uid).collect::<Vec<_>>()
    };
    assert_eq!(kept(), ["known"]);
    known.apply(Event::Delete(pod), at(0));
    assert_eq!(kept(), ["known"]);
}

#[test]
fn a_list_is_taken_in_slices_and_known_only_when_all_of_it_is_there() {
    let pod = |at: usize, node: &str| {
        let metadata = json!({"name": format!("p{at}"), "namespace": "a", "uid": at.to_string()});
        decode(Kind::Pod, json!({"metadata": metadata, "spec": {"nodeName": node}})).unwrap()
    };
    let listed = || (0..3 * SLICE + 7).map(|at| pod(at, "new")).collect::<Vec<_>>();
    let others = || (0..SLICE).map(|at| pod(10 * SLICE + at, "old"));
    let cluster = |known: &Known| {
        let cluster = &known.lock().cluster;
        (cluster.pods().count(), cluster.knows_pods(), cluster.orphans())
    };
    let sliced = Known::new(Cluster::default(), Options::default(), Ages::Count);
    others().for_each(|pod| sliced.apply(Event::Apply(pod), at(0)));
    sliced.lock().cluster.begin_reset(Source::Pods, &listed());
    assert_eq!(
        cluster(&sliced),
        (0, false, Orphans::default()),
        "what is not listed is gone, and nothing is known yet"
    );
    let before = sliced.changes();
    sliced.apply(Event::Reset(Source::Pods, listed()), at(0));
    assert!(sliced.changes() > before, "fit is not made anew");
    let mut whole = Cluster::default();
    others().for_each(|pod| whole.apply(Event::Apply(pod)));
    whole.apply(Event::Reset(Source::Pods, listed()));
    assert_eq!(cluster(&sliced), (3 * SLICE + 7, true, whole.orphans()));
}

/// A report with only the required fields.
fn body(report: Report) -> Vec<u8> {
    Report { version: REPORT_VERSION, node: "n".into(), interval_ms: 10_000, ..report }.encode_to_vec()
}

#[test]
fn of_cgroups_only_what_pods_have_of_their_own_is_kept_and_weighed() {
    let known = Known::new(Cluster::from_objects([]), Options::default(), Ages::Count);
    let cgroup = |id, pod: &str, container: &str, path: &str| Cgroup {
        id,
        path: path.into(),
        pod_uid: pod.into(),
        container_id: container.into(),
        cpu_ns: Some(7),
        detail: Some(Box::default()),
        ..Cgroup::default()
    };
    let of = |cgroups: Vec<Cgroup>| {
        body(Report { cgroups: Some(Cgroups { cgroups, ..Cgroups::default() }), ..Report::default() })
    };
    let listed = of(vec![
        cgroup(1, "", "", "/"),
        cgroup(2, "u", "", "/u"),
        cgroup(3, "u", "c", "/u/c"),
        cgroup(4, "u", "c", "/u/c/x"),
    ]);
    let mut left = receive::receive(&listed).unwrap();
    known.leave_out_unshown(&mut left);
    let bare = |id, pod| Cgroup { detail: None, ..cgroup(id, pod, "", "") };
    assert_eq!(left, receive::receive(&of(vec![bare(1, ""), bare(2, "u")])).unwrap());
}

/// One of several replicas, with a clock that advances by a given number of seconds each time it is read.
fn replica(step_s: u64) -> (Replica, Leadership) {
    let seconds = AtomicU64::new(0);
    let clock = Clock::from_fn(move || {
        let now_s = seconds.fetch_add(step_s, Ordering::Relaxed);
        Now { since_start: Duration::from_secs(now_s), unix_ms: now_s * 1000 }
    });
    let leadership = Leadership::elected(Duration::from_secs(15));
    let known = Known::new(Cluster::from_objects([]), Options::default(), Ages::Count);
    let replica = Replica::new(clock, known, SelfMetrics::new().unwrap());
    (replica.among_others("me".into(), leadership.clone()), leadership)
}

#[test]
fn a_scrape_whose_right_to_speak_ends_on_the_way_is_cut() {
    for (step_s, is_whole) in [(0, true), (100, false)] {
        let (replica, leadership) = replica(step_s);
        // Leader for the first readings: when the scrape begins, when its snapshot is made, and when its role is read.
        leadership.renewed(Some(Now { since_start: Duration::from_secs(2 * step_s), unix_ms: 2 * step_s * 1000 }));
        let mut text = Vec::new();
        assert_eq!(replica.expose(&mut text).is_ok(), is_whole, "{step_s}");
        assert_eq!(String::from_utf8(text).unwrap().contains("mcad_aggregator_leader 1\n"), is_whole, "{step_s}");
    }
}

#[test]
fn reports_wait_for_the_past_and_so_does_being_ready() {
    let (replica, _) = replica(0);
    let report = Report {
        version: mcad_wire::report::REPORT_VERSION,
        node: "n".into(),
        boot_id: "boot".into(),
        sequence: 1,
        uptime_ns: 1,
        interval_ms: 10_000,
        ..Report::default()
    };
    let body = prost::Message::encode_to_vec(&report);
    assert!(matches!(replica.take(None, Ok(&body)), Err(Refusal::NotReady)));
    assert_eq!((replica.is_ready(), replica.standing()), (false, Standing::NotReady));
    replica.past_is(TransferState::Unknown);
    // Accepted, and then refused for another reason: the cluster has no such node.
    assert!(matches!(replica.take(None, Ok(&body)), Err(Refusal::UnknownNode(_))));
    assert_eq!((replica.is_ready(), replica.standing()), (true, Standing::WithoutHistory));
    replica.past_is(TransferState::Known);
    assert_eq!(replica.standing(), Standing::Ready);
}

#[test]
fn nobody_learns_of_itself() {
    let (ours, _) = replica(0);
    let transfer = ours.state_transfer().unwrap();
    assert!(matches!(ours.apply_transfer(&transfer), Err(StateTransferError::Itself)));
    assert!(!ours.is_ready());
    ours.apply_transfer(&StateTransfer { identity: "other".into(), ..transfer }).unwrap();
    assert!(ours.is_ready());
}

#[test]
fn beside_a_dump_so_many_nodes_are_taken_that_it_does_not_have_as_without_kubernetes() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "of-the-dump", "uid": "1"}});
    let node = decode(Kind::named("v1", "Node").unwrap(), node).unwrap();
    let known = Known::new(Cluster::from_objects([node]), Options::default(), Ages::DoNot);
    let replica = Replica::new(Clock::from_fn(|| at(0)), known, SelfMetrics::new().unwrap());
    let send = |node: &str| replica.take(None, Ok(&mcad_testkit::reports::report(node, 1).encode_to_vec()));
    for stranger in 0..Limits::LOCAL.nodes {
        assert_eq!(send(&format!("stranger-{stranger}")), Ok(Outcome::Taken));
    }
    assert_eq!(send("one-more"), Err(Refusal::TooManyNodes(Limits::LOCAL.nodes)));
    assert_eq!(send("of-the-dump"), Ok(Outcome::Taken));
    assert!(send("stranger-0").is_ok(), "who is known goes on");
}

#[test]
fn what_a_file_brings_is_kept_and_what_comes_after_it_is_bounded() {
    let known = Known::new(Cluster::from_objects([]), Options::default(), Ages::DoNot);
    let replay = |known: &Known, node: &str| {
        let body = mcad_testkit::reports::report(node, 1).encode_to_vec();
        known.replay(&receive::receive(&body).unwrap(), at(0))
    };
    replay(&known, "a").unwrap();
    let known = known.bounded(1);
    let refused = replay(&known, "b");
    assert!(matches!(refused, Err(Refusal::NoRoom(_))), "{refused:?}");
    assert_eq!(known.lock().nodes.reporting().count(), 1);
}
