//! Without Kubernetes the agents are the nodes: reports in, a snapshot out.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]
use std::sync::Arc;
use std::time::Duration;

use mcad_accounting::cluster::Cluster;
use mcad_accounting::ladder::ResourceLadder;
use mcad_accounting::measure::Used;
use mcad_accounting::node_name::NodeName;
use mcad_accounting::reported::CgroupSource;
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::agent::{Agent, AgentHealth, Expectation};
use mcad_accounting::snapshot::{Snapshot, UsedInAll};
use mcad_accounting::views::NodeView;
use mcad_testkit::reports::{at, cgroups, gpu, gpus, mig, report, snapshot};
use mcad_wire::report::{Cgroups, Gpu, Gpus, Report};

const GPU: &str = "nvidia.com/gpu";

fn nodes(snapshot: &Snapshot) -> &[Arc<NodeView>] {
    &snapshot.nodes.as_ref().unwrap().nodes
}

/// Installed and healthy, and what the system uses, of a resource of the only node. Absent: it has none.
fn measured(snapshot: &Snapshot, resource: &Resource) -> Option<[Option<i128>; 3]> {
    let [node] = nodes(snapshot) else { panic!("one node") };
    let rung = node.rung(resource)?;
    let ResourceLadder { installed, healthy, declared: None, account: None, phantom: None, has_units: false } = *rung
    else {
        panic!("nobody declares or requests anything: {rung:?}")
    };
    let used = node.measured.as_ref().unwrap().used.get(resource).copied().unwrap_or_default();
    let Used { appwrapper: None, other: None, system } = used else { panic!("pods are not known") };
    Some([installed, healthy, system.map(i128::from)])
}

fn with_gpus(gpus: Gpus) -> Snapshot {
    snapshot(vec![(Report { gpus: Some(gpus), ..report("n", 1) }, at(0))], at(0))
}

/// Installed, healthy and billionths used of `resource`.
fn check_devices(gpus: Gpus, resource: &str, (installed, healthy, used): (i128, i128, Option<i128>)) {
    let expected = [Some(installed), Some(healthy), used];
    assert_eq!(measured(&with_gpus(gpus), &Resource::extended(resource)), Some(expected));
}

fn broken(uuid: &str, utilization_ratio: Option<f64>) -> Gpu {
    Gpu { unhealthy_reasons: vec!["xid_79".into()], ..gpu(uuid, utilization_ratio) }
}

#[test]
fn memory_used_is_what_is_neither_free_nor_given_back_first() {
    let snapshot = snapshot(vec![(report("n", 1), at(0))], at(0));
    assert_eq!(measured(&snapshot, &Resource::Memory), Some([Some(8 << 30), Some(8 << 30), Some(5 << 30)]));
}

#[test]
fn memory_of_which_one_part_is_unknown_has_no_use() {
    let mut unknown = report("n", 1);
    unknown.machine.as_mut().unwrap().memory_inactive_file_bytes = None;
    let snapshot = snapshot(vec![(unknown, at(0))], at(0));
    assert_eq!(measured(&snapshot, &Resource::Memory), Some([Some(8 << 30), Some(8 << 30), None]));
    assert_eq!(snapshot.nodes.unwrap().used[&Resource::Memory], UsedInAll::default());
}

#[test]
fn gpus_are_installed_if_listed_lost_or_remembered() {
    let two = || gpus(vec![gpu("GPU-1", Some(0.25)), broken("GPU-2", Some(0.5))]);
    check_devices(two(), GPU, (2, 1, Some(750_000_000)));
    check_devices(Gpus { lost_bus_ids: vec!["0000:03:00.0".into()], ..two() }, GPU, (3, 1, Some(750_000_000)));
    check_devices(Gpus { remembered: Some(8), ..two() }, GPU, (8, 1, Some(750_000_000)));
    check_devices(Gpus { remembered: Some(1), ..two() }, GPU, (2, 1, Some(750_000_000)));
}

#[test]
fn the_use_of_gpus_is_unknown_if_a_healthy_one_tells_none() {
    check_devices(gpus(vec![gpu("GPU-1", Some(1.0)), gpu("GPU-2", None)]), GPU, (2, 2, None));
    check_devices(gpus(vec![gpu("GPU-1", Some(1.0)), broken("GPU-2", None)]), GPU, (2, 1, Some(1_000_000_000)));
}

#[test]
fn a_gpu_in_mig_mode_is_its_instances() {
    let mut parent = gpu("GPU-1", Some(0.5));
    parent.mig_mode = Some(true);
    parent.mig_instances = vec![mig("MIG-1", "1g.10gb"), mig("MIG-2", "1g.10gb+me"), mig("MIG-3", "1g.10gb")];
    let node = || gpus(vec![parent.clone(), gpu("GPU-2", Some(0.5))]);
    check_devices(node(), GPU, (1, 1, Some(500_000_000)));
    check_devices(node(), "nvidia.com/mig-1g.10gb", (2, 2, Some(0)));
    check_devices(node(), "nvidia.com/mig-1g.10gb.me", (1, 1, Some(0)));
}

#[test]
fn a_machine_without_a_driver_has_no_figure_of_gpus_and_one_with_a_driver_has_none_installed() {
    assert_eq!(measured(&with_gpus(Gpus::default()), &Resource::Gpu), None);
    check_devices(gpus(vec![]), GPU, (0, 0, Some(0)));
    check_devices(Gpus { remembered: Some(4), ..Gpus::default() }, GPU, (4, 0, Some(0)));
}

#[test]
fn a_silent_agent_leaves_its_node_and_none_of_its_figures() {
    let snapshot = snapshot(vec![(report("a", 1), at(0)), (report("b", 1), at(20))], at(31));
    let agent = |node: &str, health, age_s, sources| Agent {
        node: NodeName::new(node).unwrap(),
        expectation: Expectation::Expected,
        health,
        report_age: Some(Duration::from_secs(age_s)),
        clock_skew_ms: None,
        sources,
    };
    let [a, b] = nodes(&snapshot) else { panic!("two nodes") };
    let sources = snapshot.agents[1].sources;
    assert!(sources.is_some());
    assert_eq!(snapshot.agents, [agent("a", AgentHealth::Down, 31, None), agent("b", AgentHealth::Up, 11, sources)]);
    assert_eq!((a.rungs.len(), &a.measured, b.rungs.len()), (0, &None, 2));
    let nodes = snapshot.nodes.as_ref().unwrap();
    assert_eq!(nodes.sums[&Resource::Cpu].installed, Some(2_000));
    assert_eq!(nodes.used[&Resource::Memory].nodes, 1);
}

#[test]
fn the_cluster_is_the_sum_of_the_nodes_that_show_theirs() {
    let reports = vec![(report("a", 1), at(0)), (report("b", 1), at(0)), (report("a", 2), at(10))];
    let nodes = snapshot(reports, at(10)).nodes.unwrap();
    assert_eq!(nodes.sums[&Resource::Cpu].installed, Some(4_000));
    let cpu = nodes.used[&Resource::Cpu];
    assert_eq!((cpu.used.system, cpu.nodes), (Some(1_000_000_000), 1));
    assert_eq!(nodes.used[&Resource::Memory].nodes, 2);
}

#[test]
fn a_cluster_without_nodes_has_no_sums_and_none_measured() {
    let nodes = snapshot(vec![], at(0)).nodes.unwrap();
    for resource in [Resource::Cpu, Resource::Memory] {
        assert_eq!((&nodes.sums[&resource], nodes.used[&resource]), (&ResourceLadder::default(), UsedInAll::default()));
    }
}

#[test]
fn of_what_only_kubernetes_knows_nothing_is_known_and_nothing_is_missing() {
    let snapshot = snapshot(vec![(report("n", 1), at(0))], at(0));
    assert!(!snapshot.has_kubernetes() && snapshot.missing.is_empty());
    assert!(snapshot.appwrappers.is_none() && snapshot.orphans.is_none() && snapshot.sources.is_empty());
    assert_eq!((nodes(&snapshot)[0].state, snapshot.nodes.as_ref().unwrap().states), (None, None));
}

#[test]
fn a_node_whose_agent_is_forgotten_goes_and_a_cluster_of_kubernetes_follows_no_agent() {
    let names = |names: [&str; 2]| names.map(Arc::<str>::from);
    let of = |mut cluster: Cluster| {
        cluster.follow(names(["a", "b"]).iter());
        cluster.follow(names(["b", "c"]).iter());
        cluster.nodes().map(|(node, _)| (*node.name).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of(Cluster::of_agents()), ["b", "c"]);
    assert_eq!(of(Cluster::from_objects([])), [""; 0]);
}

#[test]
fn a_cgroup_that_was_made_again_during_the_walk_is_there_once_and_one_without_a_path_is_not() {
    let mut twice = report("n", 1);
    twice.cgroups = Some(cgroups(&[("/b", 5), ("/a", 7), ("", 9), ("/b", 1)]));
    let snapshot = snapshot(vec![(twice, at(0))], at(0));
    let cpu_ns = &nodes(&snapshot)[0].measured.as_ref().unwrap().cgroup_cpu_ns;
    assert_eq!(**cpu_ns, [("/a".into(), 7), ("/b".into(), 1)]);
    let sources = snapshot.agents[0].sources.unwrap();
    assert_eq!((sources.seen, sources.dropped), (Some(4), Some(0)));
}

#[test]
fn the_source_of_cgroups_is_named_where_it_is_known() {
    let check = |source: Option<&str>, expected| {
        let mut with = report("n", 1);
        with.cgroups = source.map(|source| Cgroups { source: source.into(), ..Cgroups::default() });
        let snapshot = snapshot(vec![(with, at(0))], at(0));
        assert_eq!(snapshot.agents[0].sources.unwrap().cgroups, expected);
    };
    check(Some("bpf"), Some(CgroupSource::Bpf));
    check(Some("cgroupfs"), Some(CgroupSource::Cgroupfs));
    check(Some("later"), None);
    check(None, Some(CgroupSource::None));
}
