//! Tests of the rules of docs/accounting.md §7, one by one; [`simulated`] tests what always holds.
mod gpu_use;
mod simulated;

use mcad_wire::reading;
use mcad_wire::report::{Assignment, Assignments, Cgroup, Cgroups, EndedPod, Gpu, Gpus, MigInstance, Report};
use mcad_wire::state_transfer::StateTransfer;
use prost::Message as _;
use serde_json::{Value, json};

use super::*;
use crate::cluster::Event;
use crate::measure::{NamedPods, Places};
use crate::object::{Kind, Object, decode};

/// This many seconds after the clock's start.
fn at(seconds: u64) -> Now {
    Now { since_start: std::time::Duration::from_secs(seconds), unix_ms: 1_700_000_000_000 + seconds * 1000 }
}

fn object(json: &Value) -> Object {
    decode(Kind::named(json["apiVersion"].as_str().unwrap(), json["kind"].as_str().unwrap()).unwrap(), json.clone())
        .unwrap()
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

fn pod_on(node: &str, name: &str, owner: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "a", "uid": format!("uid-{name}"),
            "labels": {"workload.codeflare.dev/appwrapper": owner},
        },
        "spec": {"nodeName": node}, "status": {"phase": "Running"},
    })
}

fn pod(name: &str) -> Value {
    pod_on("n", name, "w")
}

fn appwrapper(uid: &str) -> Value {
    json!({
        "apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper",
        "metadata": {"name": "w", "namespace": "a", "uid": uid}, "spec": {"components": []},
    })
}

fn cgroup(id: u64, pod: &str, cpu_ns: u64) -> Cgroup {
    Cgroup { id, pod_uid: format!("uid-{pod}"), cpu_ns: Some(cpu_ns), ..Cgroup::default() }
}

/// A report of an agent that started at `started_at_ms`, this many seconds after boot.
fn report(started_at_ms: u64, uptime_s: u64) -> Report {
    Report {
        node: "n".into(),
        boot_id: "boot".into(),
        started_at_ms,
        uptime_ns: uptime_s * 1_000_000_000,
        ..Report::default()
    }
}

fn of_cgroups(uptime_s: u64, cgroups: &[Cgroup]) -> Report {
    let cgroups = Cgroups { cgroups: cgroups.to_vec(), ..Cgroups::default() };
    Report { cgroups: Some(cgroups), ..report(1, uptime_s) }
}

/// Devices that pods hold, and how long they were held and busy.
fn of_gpus(report: Report, held: &[(&str, &[&str], u64)], busy: &[(&str, u64)]) -> Report {
    let assigned = held.iter().map(|(pod, ids, held_ns)| Assignment {
        namespace: "a".into(),
        pod: (*pod).into(),
        container: "main".into(),
        resource: "nvidia.com/gpu".into(),
        device_ids: ids.iter().map(|id| (*id).into()).collect(),
        held_ns: Some(*held_ns),
        ..Assignment::default()
    });
    let devices =
        busy.iter().map(|(uuid, ns)| Gpu { uuid: (*uuid).into(), busy_ns: Some(*ns), ..Gpu::default() }).collect();
    Report {
        assignments: Some(Assignments { assigned: assigned.collect(), allocatable: Vec::new() }),
        gpus: Some(Gpus { devices, ..Gpus::default() }),
        ..report
    }
}

type Nodes = Table<Arc<str>, NodeTotals>;

impl ByNode for Nodes {
    fn get(&self, node: &str) -> Option<&NodeTotals> {
        Self::get(self, node)
    }

    fn get_or_new(&mut self, node: Arc<str>) -> &mut NodeTotals {
        self.entry(node).or_default()
    }
}

/// A cluster and what is known of it.
struct World {
    cluster: Cluster,
    totals: Totals,
    nodes: Nodes,
    now: Now,
}

impl World {
    fn new(objects: &[Value]) -> Self {
        Self {
            cluster: Cluster::from_objects(objects.iter().map(object)),
            totals: Totals::default(),
            nodes: Nodes::default(),
            now: at(0),
        }
    }

    /// One AppWrapper with these pods, on one node.
    fn with_pods(pods: &[&str]) -> Self {
        let objects: Vec<_> =
            [node("n"), appwrapper("1")].into_iter().chain(pods.iter().map(|name| pod(name))).collect();
        Self::new(&objects)
    }

    fn there(&mut self, json: &Value) {
        self.cluster.apply(Event::Apply(object(json)));
    }

    fn gone(&mut self, json: &Value) {
        let object = object(json);
        if let Object::Pod(pod) = &object
            && let Some((node, uid, appwrapper)) = NodeTotals::is_counted(&self.cluster, pod)
        {
            self.nodes.entry(node.clone()).or_default().gone(uid, appwrapper, self.now);
        }
        self.cluster.apply(Event::Delete(object));
    }

    fn take(&mut self, report: &Report) -> Total {
        self.jumps(report);
        self.total()
    }

    /// Takes a report and returns which of its counters grew by more than is possible.
    fn jumps(&mut self, report: &Report) -> Jumps {
        let bytes = report.encode_to_vec();
        let report = reading::Report::read(&bytes).unwrap();
        let named = NamedPods::find(&self.cluster, &report, &Places::default());
        let Some(node) = self.cluster.node(report.node) else { return Jumps::default() };
        let of_node = self.nodes.entry(node.name.clone()).or_default();
        let jumps = self.totals.take(&self.cluster, (&node.name, of_node), &report, &named, self.now);
        self.tidy();
        jumps
    }

    fn tidy(&mut self) {
        self.totals.tidy(&self.cluster);
        self.nodes.iter_mut().for_each(|(name, node)| node.tidy(&self.cluster, name, self.now));
    }

    fn tell(&self) -> StateTransfer {
        let mut transfer = StateTransfer::default();
        self.totals.tell(self.nodes.iter(), &mut transfer);
        transfer
    }

    fn learn(&mut self, transfer: &StateTransfer) -> Result<(), Differ> {
        self.totals.learn(&self.cluster, transfer, &mut self.nodes)
    }

    fn total(&self) -> Total {
        let name = AppWrapperName { namespace: "a".into(), name: "w".into() };
        let uid = self.cluster.appwrapper(&name).map(|appwrapper| appwrapper.uid.clone());
        uid.map(|uid| self.totals.of(&name, &uid)).unwrap_or_default()
    }
}

/// Pods that ended, by name, with the ids of their cgroups and what they used.
fn of_ended(uptime_s: u64, cgroups: &[Cgroup], ended: &[(u64, &str, u64)]) -> Report {
    let mut report = of_cgroups(uptime_s, cgroups);
    let pod = |(id, name, cpu_ns): &_| EndedPod {
        uid: format!("uid-{name}"),
        id: *id,
        cpu_ns: Some(*cpu_ns),
        ..EndedPod::default()
    };
    report.cgroups.as_mut().unwrap().ended_pods = ended.iter().map(pod).collect();
    report
}

#[test]
fn what_a_pod_used_between_the_last_report_and_its_end_counts_once() {
    let mut world = World::with_pods(&["p", "q"]);
    world.take(&of_cgroups(10, &[cgroup(1, "p", 10)]));
    assert_eq!(world.take(&of_ended(20, &[], &[(1, "p", 14)])).cpu_ns, Some(14));
    assert_eq!(world.take(&of_ended(30, &[], &[(1, "p", 14)])).cpu_ns, Some(14));
    // A pod that came and went between two reports was never listed alive.
    assert_eq!(world.take(&of_ended(40, &[], &[(1, "p", 14), (2, "q", 3)])).cpu_ns, Some(17));
    // The cluster forgets them, and the agent continues to report them.
    world.gone(&pod("p"));
    world.gone(&pod("q"));
    assert_eq!(world.take(&of_ended(50, &[], &[(1, "p", 14), (2, "q", 3)])).cpu_ns, Some(17));
}

#[test]
fn a_pod_whose_cgroup_was_made_anew_counts_both_and_each_once() {
    let mut world = World::with_pods(&["p"]);
    world.take(&of_cgroups(10, &[cgroup(1, "p", 10)]));
    for uptime_s in [20, 30, 40] {
        let total = world.take(&of_ended(uptime_s, &[cgroup(2, "p", 5)], &[(1, "p", 12)]));
        assert_eq!(total.cpu_ns, Some(17), "{uptime_s}");
    }
    let total = world.take(&of_ended(50, &[], &[(1, "p", 12), (2, "p", 6)]));
    assert_eq!(total.cpu_ns, Some(18));
}

#[test]
fn an_ended_pod_of_another_node_or_of_none_is_dropped() {
    let mut world = World::new(&[node("n"), node("m"), appwrapper("1"), pod_on("m", "p", "w")]);
    assert_eq!(world.take(&of_ended(10, &[], &[(1, "p", 10), (2, "x", 10)])).cpu_ns, None);
}

#[test]
fn a_total_is_the_sum_over_the_pods_own_cgroups_and_absent_until_something_was_measured() {
    let mut world = World::with_pods(&["p", "q"]);
    assert_eq!(world.total(), Total::default());
    let whole = Cgroup { oom_kills: Some(2), run_queue_wait_ns: Some(5), ..cgroup(1, "p", 10) };
    let container = Cgroup { container_id: "c".into(), oom_kills: Some(9), ..cgroup(2, "p", 9) };
    let other = Cgroup { oom_kills: Some(0), ..cgroup(3, "q", 100) };
    let total = world.take(&of_cgroups(10, &[whole, container, other]));
    let expected = Total { cpu_ns: Some(110), oom_kills: Some(2), run_queue_wait_ns: Some(5), ..Total::default() };
    assert_eq!(total, expected);
}

#[test]
fn a_lost_report_costs_nothing_and_one_that_comes_late_or_twice_adds_nothing() {
    let mut world = World::with_pods(&["p"]);
    let third = of_cgroups(30, &[cgroup(1, "p", 30)]);
    world.take(&of_cgroups(10, &[cgroup(1, "p", 10)]));
    assert_eq!(world.take(&third).cpu_ns, Some(30));
    assert_eq!(world.take(&third).cpu_ns, Some(30));
    assert_eq!(world.take(&of_cgroups(20, &[cgroup(1, "p", 20)])).cpu_ns, Some(30));
    assert_eq!(world.take(&of_cgroups(40, &[])).cpu_ns, Some(30));
    assert_eq!(world.take(&of_cgroups(50, &[cgroup(1, "p", 50)])).cpu_ns, Some(50));
}

#[test]
fn pods_that_ended_leave_what_they_used() {
    let mut world = World::with_pods(&["p", "q"]);
    world.take(&of_cgroups(10, &[cgroup(1, "p", 10), cgroup(2, "q", 1)]));
    world.gone(&pod("p"));
    assert_eq!(world.take(&of_cgroups(20, &[cgroup(2, "q", 5)])).cpu_ns, Some(15));
}

#[test]
fn what_an_agent_tells_of_a_pod_that_is_gone_counts_once_and_for_an_hour() {
    let mut world = World::with_pods(&["p"]);
    world.gone(&pod("p"));
    assert_eq!(world.take(&of_cgroups(10, &[cgroup(1, "p", 10)])).cpu_ns, Some(10));
    world.now = at(3599);
    assert_eq!(world.take(&of_cgroups(20, &[cgroup(1, "p", 10)])).cpu_ns, Some(10));
    world.now = at(3700);
    world.take(&of_cgroups(30, &[]));
    assert_eq!(world.take(&of_cgroups(40, &[cgroup(1, "p", 11)])).cpu_ns, Some(10));
}

#[test]
fn a_cgroup_that_is_made_anew_counts_from_0() {
    let mut world = World::with_pods(&["p"]);
    world.take(&of_cgroups(10, &[cgroup(1, "p", 10)]));
    assert_eq!(world.take(&of_cgroups(20, &[cgroup(2, "p", 12)])).cpu_ns, Some(22));
    let rebooted = Report { boot_id: "other".into(), ..of_cgroups(5, &[cgroup(2, "p", 13)]) };
    assert_eq!(world.take(&rebooted).cpu_ns, Some(35));
}

#[test]
fn a_total_of_the_kernel_that_seems_to_fall_stands_still_and_a_probes_began_anew() {
    let mut world = World::with_pods(&["p"]);
    let waited = |cpu_ns, wait_ns| Cgroup { run_queue_wait_ns: Some(wait_ns), ..cgroup(1, "p", cpu_ns) };
    world.take(&of_cgroups(10, &[waited(10, 100)]));
    let total = world.take(&of_cgroups(20, &[waited(9, 7)]));
    assert_eq!((total.cpu_ns, total.run_queue_wait_ns), (Some(10), Some(107)));
    let total = world.take(&of_cgroups(30, &[waited(11, 8)]));
    assert_eq!((total.cpu_ns, total.run_queue_wait_ns), (Some(11), Some(108)));
}

#[test]
fn an_appwrapper_that_is_made_anew_begins_with_what_its_pods_use_from_then_on() {
    let mut world = World::with_pods(&["p"]);
    world.take(&of_cgroups(10, &[cgroup(1, "p", 10)]));
    world.gone(&appwrapper("1"));
    assert_eq!(world.take(&of_cgroups(20, &[cgroup(1, "p", 20)])), Total::default());
    world.there(&appwrapper("2"));
    assert_eq!(world.take(&of_cgroups(30, &[cgroup(1, "p", 30)])).cpu_ns, Some(20));
}

#[test]
fn a_node_or_a_list_that_comes_back_counts_nothing_twice() {
    let mut world = World::with_pods(&["p"]);
    let gpus = |uptime_s, cpu_ns| {
        of_gpus(of_cgroups(uptime_s, &[cgroup(1, "p", cpu_ns)]), &[("p", &["GPU-0"], cpu_ns)], &[("GPU-0", cpu_ns)])
    };
    world.take(&gpus(10, 10));
    world.take(&gpus(20, 20));
    world.gone(&node("n"));
    world.now = at(120);
    world.take(&gpus(30, 30));
    world.tidy();
    world.there(&node("n"));
    let total = world.take(&gpus(40, 40));
    assert_eq!((total.cpu_ns, total.gpu_held_ns), (Some(40), Some(40)));
    assert!(total.gpu_busy_ns <= Some(40), "{total:?}");
}

#[test]
fn pods_of_others_of_other_nodes_and_of_no_appwrapper_count_nowhere() {
    let mut world = World::new(&[
        node("n"),
        node("m"),
        appwrapper("1"),
        pod_on("m", "elsewhere", "w"),
        pod_on("n", "orphan", "none"),
        pod_on("n", "other", ""),
    ]);
    let cgroups = [cgroup(1, "elsewhere", 1), cgroup(2, "orphan", 1), cgroup(3, "other", 1), cgroup(4, "stranger", 1)];
    let held: &[(&str, &[&str], u64)] = &[("elsewhere", &["GPU-0"], 9), ("stranger", &["GPU-1"], 9)];
    for uptime_s in [10, 20] {
        let report = of_gpus(of_cgroups(uptime_s, &cgroups), held, &[("GPU-0", uptime_s), ("GPU-1", uptime_s)]);
        assert_eq!(world.take(&report), Total::default());
    }
    let stranger = Report { node: "nowhere".into(), ..of_cgroups(30, &[cgroup(1, "elsewhere", 1)]) };
    assert_eq!(world.take(&stranger), Total::default());
    let [node] = &world.nodes.values().collect::<Vec<_>>()[..] else { panic!("one node") };
    let known = (world.totals.appwrappers.len(), node.pods.all().len(), node.held.all().len());
    assert_eq!(known, (0, 0, 0), "what an agent says makes nothing known");
}

const S: u64 = 1_000_000_000;

#[test]
fn held_seconds_are_the_agents_and_go_on_when_it_is_started_anew() {
    let mut world = World::with_pods(&["p"]);
    let held =
        |started, uptime_s, held_s| of_gpus(report(started, uptime_s), &[("p", &["GPU-0", "GPU-1"], held_s * S)], &[]);
    assert_eq!(world.take(&held(1, 10, 20)).gpu_held_ns, Some(20 * S));
    assert_eq!(world.take(&held(1, 20, 40)).gpu_held_ns, Some(40 * S));
    assert_eq!(world.take(&held(2, 30, 6)).gpu_held_ns, Some(46 * S));
    let other = Assignment { resource: "example.com/nic".into(), held_ns: Some(S), ..Assignment::default() };
    let mut with_other = held(2, 40, 26);
    let assigned = &mut with_other.assignments.as_mut().unwrap().assigned;
    assigned.push(Assignment { namespace: "a".into(), pod: "p".into(), ..other });
    assert_eq!(world.take(&with_other).gpu_held_ns, Some(66 * S), "other devices are no GPUs");
    world.there(&{
        let mut ended = pod("p");
        ended["status"]["phase"] = "Succeeded".into();
        ended
    });
    assert_eq!(world.take(&held(2, 50, 46)).gpu_held_ns, Some(66 * S), "kubelet lists pods that have ended");
}

#[test]
fn gpus_of_another_vendor_are_held_under_the_names_that_the_report_gives() {
    let mut world = World::with_pods(&["p"]);
    let mut amd = of_gpus(report(1, 10), &[("p", &["0"], 9 * S)], &[]);
    amd.assignments.as_mut().unwrap().assigned[0].resource = "amd.com/gpu".into();
    assert_eq!(world.take(&amd).gpu_held_ns, None, "its name is not known");
    amd.uptime_ns += S;
    amd.gpus.as_mut().unwrap().resource = "amd.com/gpu".into();
    assert_eq!(world.take(&amd).gpu_held_ns, Some(9 * S));
}

#[test]
fn a_replica_of_before_says_of_no_pod_where_it_is_and_nothing_counts_twice() {
    let mut theirs = World::with_pods(&["p"]);
    let held = |uptime_s, s: u64| of_gpus(report(1, uptime_s), &[("p", &["GPU-0"], s * S)], &[]);
    theirs.take(&held(10, 10));
    let mut transfer = theirs.tell();
    assert_eq!(std::mem::take(&mut transfer.held[0].node), "n");
    let mut ours = World::with_pods(&["p"]);
    ours.learn(&transfer).unwrap();
    assert_eq!(ours.take(&held(20, 20)).gpu_held_ns, Some(20 * S));
}

#[test]
fn two_agents_that_take_turns_add_no_more_than_time() {
    let mut world = World::with_pods(&["p"]);
    let of = |started, uptime_s, s: u64| {
        of_gpus(report(started, uptime_s), &[("p", &["GPU-0"], s * S)], &[("GPU-0", s * S)])
    };
    world.take(&of(1, 1000, 1000));
    for turn in 1..5 {
        world.take(&of(2, 1000 + 20 * turn - 10, 20 * turn));
        world.take(&of(1, 1000 + 20 * turn, 1000 + 20 * turn));
    }
    let total = world.total();
    assert_eq!((total.gpu_held_ns, total.gpu_busy_ns), (Some(1080 * S), Some(80 * S)));
}

#[test]
fn busy_is_what_a_device_did_while_a_pod_held_it() {
    let mut world = World::with_pods(&["p"]);
    let of = |uptime_s, holds: &[&str], busy_s: u64| {
        of_gpus(report(1, uptime_s), &[("p", holds, uptime_s * S)], &[("GPU-0", busy_s * S)])
    };
    assert_eq!(world.take(&of(10, &["GPU-0"], 500)).gpu_busy_ns, None, "whose that was, nobody knows");
    assert_eq!(world.take(&of(20, &["GPU-0"], 504)).gpu_busy_ns, Some(4 * S));
    assert_eq!(world.take(&of(30, &[], 509)).gpu_busy_ns, Some(4 * S));
    assert_eq!(world.take(&of(40, &["GPU-0"], 514)).gpu_busy_ns, Some(4 * S));
    assert_eq!(world.take(&of(50, &["GPU-0"], 515)).gpu_busy_ns, Some(5 * S));
    let blind = Report { assignments: None, ..of(60, &[], 516) };
    assert_eq!(world.take(&blind).gpu_busy_ns, Some(5 * S));
    assert_eq!(world.take(&of(70, &["GPU-0"], 518)).gpu_busy_ns, Some(8 * S));
    let restarted = Report { started_at_ms: 2, ..of(80, &["GPU-0"], 3) };
    assert_eq!(world.take(&restarted).gpu_busy_ns, Some(11 * S));
}

#[test]
fn a_shared_device_was_busy_in_proportion_to_the_parts_that_are_held() {
    let mut world = World::with_pods(&["p"]);
    world.there(&pod_on("n", "q", ""));
    let of = |uptime_s, busy_s: u64| {
        let held: &[(&str, &[&str], u64)] =
            &[("p", &["GPU-0::0"], uptime_s * S), ("q", &["GPU-0::1", "GPU-0::2", "GPU-0::3"], 3 * uptime_s * S)];
        of_gpus(report(1, uptime_s), held, &[("GPU-0", busy_s * S)])
    };
    world.take(&of(10, 0));
    assert_eq!(world.take(&of(20, 8)).gpu_busy_ns, Some(2 * S));
}

#[test]
fn a_mig_instance_is_a_device() {
    let mut world = World::with_pods(&["p"]);
    let of = |uptime_s, busy_ns| {
        let mut report = of_gpus(report(1, uptime_s), &[("p", &["MIG-1"], uptime_s)], &[("GPU-0", 900)]);
        report.assignments.as_mut().unwrap().assigned[0].resource = "nvidia.com/mig-1g.10gb".into();
        let instance = MigInstance { uuid: "MIG-1".into(), busy_ns: Some(busy_ns), ..MigInstance::default() };
        report.gpus.as_mut().unwrap().devices[0].mig_instances.push(instance);
        report
    };
    world.take(&of(10, 0));
    let total = world.take(&of(20, 3));
    assert_eq!((total.gpu_held_ns, total.gpu_busy_ns), (Some(20), Some(3)));
}

/// A report of a node with two CPUs.
fn of_two_cpus(report: Report) -> Report {
    let machine = mcad_wire::report::Machine { cpus_online: Some(2), ..Default::default() };
    Report { machine: Some(machine), ..report }
}

/// Reports of a pod's CPU time, ten seconds apart, each with the expected total of its AppWrapper, all in seconds; `jumps` is how many of
/// them jump.
#[track_caller]
fn check_cpu(steps: &[(u64, u64)], jumps: u32) {
    let mut world = World::with_pods(&["p"]);
    let mut counted = 0;
    for (step, (cpu_s, expected_s)) in steps.iter().enumerate() {
        let seconds = 10 * (step as u64 + 1);
        let report = of_two_cpus(of_cgroups(seconds, &[cgroup(1, "p", cpu_s * S)]));
        world.now = at(seconds);
        counted += world.jumps(&report)[Counter::Cpu as usize];
        assert_eq!(world.total().cpu_ns, Some(expected_s * S), "report {step}");
    }
    assert_eq!(counted, jumps);
}

#[test]
fn a_counter_that_jumps_gains_nothing_by_that_step_and_goes_on_from_there() {
    check_cpu(&[(5, 5), (20, 20), (1_000_000, 20), (1_000_010, 30), (1_000_025, 45)], 1);
}

#[test]
fn one_that_comes_back_goes_on_from_where_it_was() {
    check_cpu(&[(5, 5), (1_000_000, 5), (1_000_010, 15), (40, 40), (60, 60)], 1);
    check_cpu(&[(5, 5), (1_000_000, 5), (30, 30)], 1);
    // Every further jump is counted, too, and none of them adds to the total, even when enough time has passed.
    check_cpu(&[(5, 5), (1_000_000, 5), (9_000_000, 5), (90_000_000, 5), (45, 45)], 3);
}

#[test]
fn a_rounding_below_does_not_bring_a_jump_back() {
    check_cpu(&[(5, 5), (1_000_000, 5), (1_000_010, 15), (1_000_009, 15), (1_000_020, 25)], 1);
}

#[test]
fn another_replica_is_told_up_to_where_a_counter_that_jumped_is_counted() {
    let mut world = World::with_pods(&["p"]);
    for (step, cpu_s) in [5, 1_000_000, 1_000_010].into_iter().enumerate() {
        let seconds = 10 * (step as u64 + 1);
        world.now = at(seconds);
        world.take(&of_two_cpus(of_cgroups(seconds, &[cgroup(1, "p", cpu_s * S)])));
    }
    let transfer = world.tell();
    assert_eq!((transfer.pods[0].cpu_ns, world.total().cpu_ns), (1_000_010 * S, Some(15 * S)));
}

#[test]
fn cpus_that_are_off_by_now_did_their_work_before() {
    let of = |cpus: u32, seconds: u64, cpu_s: u64| {
        let machine = mcad_wire::report::Machine { cpus_online: Some(cpus), ..Default::default() };
        Report { machine: Some(machine), ..of_cgroups(seconds, &[cgroup(1, "p", cpu_s * S)]) }
    };
    let mut world = World::with_pods(&["p"]);
    world.take(&of(64, 10, 100));
    world.now = at(20);
    assert_eq!(world.take(&of(2, 20, 740)).cpu_ns, Some(740 * S));
}

#[test]
fn a_report_from_a_file_is_as_late_as_it_says() {
    let mut world = World::with_pods(&["p"]);
    let of = |seconds: u64, cpu_s: u64| of_two_cpus(of_cgroups(seconds, &[cgroup(1, "p", cpu_s * S)]));
    assert_eq!(world.take(&of(10, 10)).cpu_ns, Some(10 * S));
    world.nodes.get_mut("n").unwrap().came_from_file();
    assert_eq!(world.take(&of(7_210, 7_210)).cpu_ns, Some(7_210 * S));
}

#[test]
fn a_first_one_is_no_more_than_the_time_since_the_boot() {
    check_cpu(&[(1_000_000, 0), (1_000_010, 10)], 1);
    check_cpu(&[(150, 150)], 0);
}

#[test]
fn an_agent_that_makes_its_pods_cgroups_and_boots_up_gains_no_more_than_time_has_passed() {
    let mut world = World::with_pods(&["p"]);
    // Each report claims everything that is possible since a boot twenty years ago, with a new cgroup or a new boot.
    let years_ns = 20 * 365 * 24 * 3600 * S;
    let mut first = None;
    for step in 1..20_u64 {
        world.now = at(10 * step);
        let mut report = of_two_cpus(of_cgroups(0, &[cgroup(step, "p", 2 * years_ns)]));
        report.uptime_ns = years_ns + 10 * step * S;
        if step > 10 {
            report.boot_id = format!("boot {step}");
        }
        let total = world.take(&report).cpu_ns.unwrap();
        // The first value of a node that was never heard of before may be true.
        assert_eq!(total, *first.get_or_insert(total), "report {step}");
    }
}

#[test]
fn devices_are_held_and_busy_for_no_longer_than_time_has_passed() {
    let of = |seconds: u64, held_s: u64, busy_s: u64| {
        of_gpus(report(1, seconds), &[("p", &["GPU-1"], held_s * S)], &[("GPU-1", busy_s * S)])
    };
    let mut world = World::with_pods(&["p"]);
    let mut take = |seconds, held_s, busy_s| {
        let total = world.take(&of(seconds, held_s, busy_s));
        (total.gpu_held_ns.map(|ns| ns / S), total.gpu_busy_ns.map(|ns| ns / S))
    };
    assert_eq!(take(100, 100, 50), (Some(100), None));
    assert_eq!(take(110, 110, 60), (Some(110), Some(10)));
    assert_eq!(take(120, 1_000_000, 1_000_000), (Some(110), Some(10)));
    assert_eq!(take(130, 1_000_010, 1_000_010), (Some(120), Some(20)));
}

#[test]
fn a_time_since_boot_that_was_years_off_silences_nothing_after_it() {
    let mut world = World::with_pods(&["p"]);
    world.take(&of_two_cpus(of_cgroups(100, &[cgroup(1, "p", 10 * S)])));
    world.take(&of_two_cpus(of_cgroups(10 * 365 * 24 * 3600, &[cgroup(1, "p", 20 * S)])));
    for at in 1..5 {
        let total = world.take(&of_two_cpus(of_cgroups(110 + 10 * at, &[cgroup(1, "p", (20 + 10 * at) * S)])));
        assert_eq!(total.cpu_ns, Some((20 + 10 * at) * S));
    }
}
