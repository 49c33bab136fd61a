//! Without Kubernetes the agents are the nodes: reports in, a snapshot out.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]
use std::collections::BTreeMap;
use std::time::Duration;

use mcad_accounting::measure::Used;
use mcad_accounting::merge::{Agent, AgentHealth, CgroupSource, ClusterFigures, Expectation, Figures};
use mcad_accounting::resource::Resource;
use mcad_testkit::reports::{at, cgroups, gpu, gpus, mig, report, snapshot};
use mcad_wire::report::{Cgroups, Gpu, Gpus};

const GPU: &str = "nvidia.com/gpu";

fn devices(gpus: Gpus) -> BTreeMap<Resource, Figures> {
    let mut with = report("n", 1);
    with.gpus = Some(gpus);
    let mut snapshot = snapshot(vec![(with, at(0))], at(0));
    let mut figures = snapshot.nodes.remove(0).figures;
    figures.remove(&Resource::Cpu).unwrap();
    figures.remove(&Resource::Memory).unwrap();
    figures
}

/// Installed, healthy and billionths used of `resource`.
fn check_devices(gpus: Gpus, resource: &str, expected: (u64, u64, Option<u64>)) {
    let figures = devices(gpus)[&Resource::extended(resource)];
    let Used { appwrapper: None, other: None, system } = figures.used else { panic!("pods are not known") };
    assert_eq!((figures.installed.unwrap(), figures.healthy.unwrap(), system), expected);
}

fn broken(uuid: &str, utilization_ratio: Option<f64>) -> Gpu {
    Gpu { unhealthy_reasons: vec!["xid_79".into()], ..gpu(uuid, utilization_ratio) }
}

#[test]
fn memory_used_is_what_is_neither_free_nor_given_back_first() {
    let snapshot = snapshot(vec![(report("n", 1), at(0))], at(0));
    let memory = snapshot.nodes[0].figures[&Resource::Memory];
    assert_eq!((memory.installed, memory.healthy), (Some(8 << 30), Some(8 << 30)));
    assert_eq!(memory.used.system, Some(5 << 30));
}

#[test]
fn memory_of_which_one_part_is_unknown_has_no_use() {
    let mut unknown = report("n", 1);
    unknown.machine.as_mut().unwrap().memory_inactive_file_bytes = None;
    let snapshot = snapshot(vec![(unknown, at(0))], at(0));
    assert_eq!(snapshot.nodes[0].figures[&Resource::Memory].used, Used::default());
    assert_eq!(snapshot.cluster[&Resource::Memory].nodes_measured, 0);
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
    assert_eq!(devices(Gpus::default()), BTreeMap::new());
    check_devices(gpus(vec![]), GPU, (0, 0, Some(0)));
    check_devices(Gpus { remembered: Some(4), ..Gpus::default() }, GPU, (4, 0, Some(0)));
}

#[test]
fn a_silent_agent_leaves_its_node_and_none_of_its_figures() {
    let snapshot = snapshot(vec![(report("a", 1), at(0)), (report("b", 1), at(20))], at(31));
    let [a, b] = &snapshot.nodes[..] else { panic!("two nodes") };
    assert_eq!(
        a.agent,
        Agent {
            expectation: Expectation::Expected,
            health: AgentHealth::Down,
            report_age: Some(Duration::from_secs(31)),
            clock_skew_ms: None,
        }
    );
    assert_eq!((&a.figures, &a.cgroups), (&BTreeMap::new(), &None));
    assert_eq!(
        b.agent,
        Agent {
            expectation: Expectation::Expected,
            health: AgentHealth::Up,
            report_age: Some(Duration::from_secs(11)),
            clock_skew_ms: None,
        }
    );
    assert_eq!(snapshot.cluster[&Resource::Cpu].sums.installed, Some(2_000));
    assert_eq!(snapshot.cluster[&Resource::Memory].nodes_measured, 1);
}

#[test]
fn the_cluster_is_the_sum_of_the_nodes_that_show_theirs() {
    let reports = vec![(report("a", 1), at(0)), (report("b", 1), at(0)), (report("a", 2), at(10))];
    let cluster = snapshot(reports, at(10)).cluster;
    let cpu = cluster[&Resource::Cpu];
    assert_eq!((cpu.sums.installed, cpu.sums.used.system), (Some(4_000), Some(1_000_000_000)));
    assert_eq!(cpu.nodes_measured, 1);
    assert_eq!(cluster[&Resource::Memory].nodes_measured, 2);
}

#[test]
fn a_cluster_without_nodes_has_no_sums_and_none_measured() {
    let cluster = snapshot(vec![], at(0)).cluster;
    for resource in [Resource::Cpu, Resource::Memory] {
        assert_eq!(cluster[&resource], ClusterFigures::default());
    }
}

#[test]
fn a_cgroup_that_was_made_again_during_the_walk_is_there_once_and_one_without_a_path_is_not() {
    let mut twice = report("n", 1);
    twice.cgroups = Some(cgroups(&[("/b", 5), ("/a", 7), ("", 9), ("/b", 1)]));
    let snapshot = snapshot(vec![(twice, at(0))], at(0));
    let cgroups = snapshot.nodes[0].cgroups.as_ref().unwrap();
    assert_eq!(cgroups.cpu_ns, [("/a".to_owned(), 7), ("/b".to_owned(), 1)]);
    assert_eq!((cgroups.seen, cgroups.dropped), (Some(4), Some(0)));
}

#[test]
fn the_source_of_cgroups_is_named_where_it_is_known() {
    let check = |source: Option<&str>, expected| {
        let mut with = report("n", 1);
        with.cgroups = source.map(|source| Cgroups { source: source.into(), ..Cgroups::default() });
        let snapshot = snapshot(vec![(with, at(0))], at(0));
        assert_eq!(snapshot.nodes[0].cgroups.as_ref().unwrap().source, expected);
    };
    check(Some("bpf"), Some(CgroupSource::Bpf));
    check(Some("cgroupfs"), Some(CgroupSource::Cgroupfs));
    check(Some("later"), None);
    check(None, Some(CgroupSource::None));
}
