//! docs/metrics.md B, C and E beside reports: what is used, by whom, and the devices one by one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_accounting::options::{GpuMetrics, Options, PodMetrics};
use mcad_testkit::build::{assigned, gpu_report, gpus, node, pod, report, v1beta2, with};
use mcad_testkit::{check_lines, check_with, print_with};
use mcad_wire::report::{Cgroup, Cgroups, Gpu, Machine, MigInstance, Report, XidErrors};
use serde_json::{Value, json};

fn objects() -> Vec<Value> {
    let ours = |name: &str| {
        with(
            pod(name, "n", json!({"cpu": "1", "nvidia.com/gpu": "1"})),
            "/metadata/labels",
            json!({"workload.codeflare.dev/appwrapper": "w"}),
        )
    };
    vec![
        node("n", json!({"cpu": "8", "memory": "1000", "nvidia.com/gpu": "4"})),
        ours("p"),
        pod("q", "n", json!({"nvidia.com/gpu": "1"})),
        v1beta2("w", json!([]), "Running"),
    ]
}

fn cgroup(id: u64, pod: &str, cpu_s: f64, memory_bytes: u64) -> Cgroup {
    Cgroup {
        id,
        path: format!("/kubepods/{pod}"),
        pod_uid: if pod.is_empty() { String::new() } else { format!("uid-{pod}") },
        cpu_ns: Some((cpu_s * 1e9) as u64),
        memory_bytes: Some(memory_bytes + 5),
        memory_inactive_file_bytes: Some(5),
        ..Cgroup::default()
    }
}

/// Ten seconds apart; the machine was busy for `busy_s` in all.
fn measured(sequence: u64, busy_s: u64, cgroups: Vec<Cgroup>) -> Report {
    Report {
        machine: Some(Machine {
            cpus_online: Some(8),
            cpu_busy_ns: Some(busy_s * 1_000_000_000),
            memory_total_bytes: Some(1000),
            memory_free_bytes: Some(300),
            memory_inactive_file_bytes: Some(100),
        }),
        cgroups: Some(Cgroups { source: "bpf".into(), cgroups, ..Cgroups::default() }),
        ..report("n", sequence)
    }
}

fn used(owner: &str, resource: &str, unit: &str, amount: &str) -> String {
    format!("mcad_node_used{{node=\"n\",owner=\"{owner}\",resource=\"{resource}\",unit=\"{unit}\"}} {amount}")
}

fn two() -> Vec<Report> {
    let container = Cgroup { container_id: "c".into(), ..cgroup(9, "p", 900.0, 900) };
    vec![
        measured(1, 100, vec![cgroup(1, "", 0.0, 0), cgroup(2, "p", 10.0, 50), cgroup(3, "q", 5.0, 7)]),
        measured(
            2,
            150,
            vec![cgroup(2, "p", 25.0, 100), cgroup(3, "q", 10.0, 20), cgroup(4, "unknown", 9.0, 9), container],
        ),
    ]
}

#[test]
fn cores_busy_are_the_difference_of_the_last_two_reports_of_one_boot() {
    check_with(
        &objects(),
        two(),
        &[
            &used("appwrapper", "cpu", "core", "1.5"),
            &used("other", "cpu", "core", "0.5"),
            &used("system", "cpu", "core", "3"),
            &used("appwrapper", "memory", "byte", "100"),
            &used("other", "memory", "byte", "20"),
            &used("system", "memory", "byte", "480"),
            "mcad_cluster_used{owner=\"appwrapper\",resource=\"cpu\",unit=\"core\"} 1.5",
            "mcad_cluster_nodes_measured{resource=\"cpu\"} 1",
            "mcad_cluster_nodes_measured{resource=\"memory\"} 1",
            "mcad_appwrapper_used{appwrapper=\"w\",namespace=\"a\",resource=\"cpu\",unit=\"core\"} 1.5",
            "mcad_appwrapper_used{appwrapper=\"w\",namespace=\"a\",resource=\"memory\",unit=\"byte\"} 100",
            "mcad_node_agent_up{node=\"n\"} 1",
        ],
    );
}

#[test]
fn with_one_report_or_after_a_reboot_cores_busy_are_not_known() {
    let unknown = "mcad_node_used{node=\"n\",owner=\"appwrapper\",resource=\"cpu\" absent";
    check_with(&objects(), two().split_off(1), &[unknown, &used("appwrapper", "memory", "byte", "100")]);
    let [first, second] = &two()[..] else { panic!("two") };
    let rebooted = Report { boot_id: "other".into(), ..second.clone() };
    check_with(
        &objects(),
        vec![first.clone(), rebooted],
        &[unknown, "mcad_cluster_nodes_measured{resource=\"cpu\"} 0"],
    );
}

#[test]
fn a_pod_that_is_new_since_the_last_report_used_all_its_time_in_between() {
    let [first, second] = &mut two()[..] else { panic!("two") };
    first.cgroups.as_mut().unwrap().cgroups.retain(|cgroup| cgroup.id != 2);
    check_with(&objects(), vec![first.clone(), second.clone()], &[&used("appwrapper", "cpu", "core", "2.5")]);
}

#[test]
fn without_cgroups_nobody_knows_who_uses_what() {
    let [mut first, mut second] = <[Report; 2]>::try_from(two()).unwrap();
    (first.cgroups, second.cgroups) = (None, None);
    check_with(
        &objects(),
        vec![first, second],
        &["mcad_node_used absent", "mcad_cluster_nodes_measured{resource=\"cpu\"} 0"],
    );
}

#[test]
fn an_appwrapper_of_which_a_bound_pod_was_not_measured_shows_no_use() {
    let labels = json!({"workload.codeflare.dev/appwrapper": "w"});
    let elsewhere = with(pod("r", "m", json!({})), "/metadata/labels", labels);
    check_with(&[objects(), vec![elsewhere]].concat(), two(), &["mcad_appwrapper_used absent"]);
}

#[test]
fn a_report_of_a_node_that_the_cluster_does_not_have_makes_no_line() {
    let mut stranger = two();
    for report in &mut stranger {
        report.node = "stranger".into();
    }
    let text = print_with(objects().iter().map(mcad_testkit::build::object).collect(), stranger, &Options::default());
    assert!(!text.contains("stranger"));
    check_lines(&text, &["mcad_node_agent_up{node=\"n\"} 0", "mcad_cluster_nodes_measured absent"]);
}

#[test]
fn a_report_says_nothing_of_pods_on_other_nodes() {
    let mut other = two();
    for report in &mut other {
        report.node = "m".into();
    }
    other[1].assignments = Some(assigned("nvidia.com/gpu", &[("p", &["GPU-0"])]));
    let objects = [objects(), vec![node("m", json!({"cpu": "8", "memory": "1000"}))]].concat();
    let used = |owner: &str, amount: &str| {
        format!("mcad_node_used{{node=\"m\",owner=\"{owner}\",resource=\"cpu\",unit=\"core\"}} {amount}")
    };
    let none = "mcad_appwrapper_used absent";
    check_with(&objects, other, &[&used("appwrapper", "0"), &used("system", "5"), none, "mcad_gpu_assigned absent"]);
}

#[test]
fn a_static_pod_is_found_by_the_uid_that_kubelet_gave_it() {
    let mirror =
        with(pod("s", "n", json!({})), "/metadata/annotations", json!({"kubernetes.io/config.hash": "uid-hash"}));
    let mut reports = two();
    reports[1].cgroups.as_mut().unwrap().cgroups.push(cgroup(8, "hash", 1.0, 70));
    check_with(&[objects(), vec![mirror]].concat(), reports, &[&used("other", "memory", "byte", "90")]);
}

fn busy(uuid: &str, ratio: Option<f64>) -> Gpu {
    Gpu { uuid: uuid.into(), utilization_ratio: ratio, ..Gpu::default() }
}

#[test]
fn gpus_busy_are_the_sum_of_utilisation_by_who_holds_them() {
    let devices =
        vec![busy("GPU-0", Some(0.5)), busy("GPU-1", Some(0.25)), busy("GPU-2", Some(0.125)), busy("GPU-3", Some(1.0))];
    let held = assigned("nvidia.com/gpu", &[("p", &["GPU-0"]), ("q", &["GPU-1"]), ("ended", &["GPU-2"])]);
    check_with(
        &objects(),
        vec![Report { assignments: Some(held), ..gpu_report("n", devices) }],
        &[
            &used("appwrapper", "nvidia_com_gpu", "integer", "0.5"),
            &used("other", "nvidia_com_gpu", "integer", "0.25"),
            &used("system", "nvidia_com_gpu", "integer", "1.125"),
            "mcad_gpu_assigned{container=\"main\",gpu=\"GPU-0\",namespace=\"a\",node=\"n\",pod=\"p\"} 1",
            "mcad_gpu_assigned{container=\"main\",gpu=\"GPU-2\" absent",
            "mcad_gpu_utilization_ratio{gpu=\"GPU-3\",node=\"n\"} 1",
        ],
    );
}

#[test]
fn a_shared_gpu_is_used_in_equal_parts_by_those_who_hold_it() {
    let held = assigned("nvidia.com/gpu", &[("p", &["GPU-0::0", "GPU-0::1"]), ("q", &["GPU-0::2", "GPU-0::3"])]);
    let shared = with(objects().remove(0), "/metadata/labels", json!({"nvidia.com/gpu.replicas": "4"}));
    let mut objects = objects();
    objects[0] = shared;
    check_with(
        &objects,
        vec![Report { assignments: Some(held), ..gpu_report("n", vec![busy("GPU-0", Some(1.0))]) }],
        &[&used("appwrapper", "nvidia_com_gpu", "integer", "0.5"), &used("other", "nvidia_com_gpu", "integer", "0.5")],
    );
}

#[test]
fn the_use_of_gpus_is_unknown_if_a_healthy_one_tells_none_or_nobody_knows_who_holds_them() {
    let none = "mcad_node_used{node=\"n\",owner=\"appwrapper\",resource=\"nvidia_com_gpu\" absent";
    let held = || Some(assigned("nvidia.com/gpu", &[]));
    let devices = vec![busy("GPU-0", Some(0.5)), busy("GPU-1", None)];
    check_with(&objects(), vec![Report { assignments: held(), ..gpu_report("n", devices) }], &[none]);
    check_with(&objects(), vec![gpu_report("n", vec![busy("GPU-0", Some(0.5))])], &[none]);
}

#[test]
fn devices_are_shown_one_by_one_with_what_is_known_of_them() {
    let instance = MigInstance { uuid: "MIG-1".into(), profile: "1g.10gb".into(), ..MigInstance::default() };
    let parent = Gpu {
        uuid: "GPU-1".into(),
        model: "H100".into(),
        bus_id: "0000:01:00.0".into(),
        mig_mode: Some(true),
        mig_instances: vec![instance],
        unhealthy_reasons: vec!["ecc".into(), "xid_79".into()],
        memory_total_bytes: Some(80),
        xid_errors: vec![XidErrors { xid: 79, count: 2 }],
        ..Gpu::default()
    };
    let reports = vec![gpu_report("n", vec![parent, gpus(1).remove(0)])];
    check_with(
        &objects(),
        reports.clone(),
        &[
            "mcad_gpu_info{bus_id=\"0000:01:00.0\",gpu=\"MIG-1\",mig_profile=\"1g.10gb\",model=\"H100\",node=\"n\",parent=\"GPU-1\"} 1",
            "mcad_gpu_info{bus_id=\"0000:01:00.0\",gpu=\"GPU-1\",mig_profile=\"\",model=\"H100\",node=\"n\",parent=\"\"} 1",
            "mcad_gpu_healthy{gpu=\"GPU-0\",node=\"n\",reason=\"\"} 1",
            "mcad_gpu_healthy{gpu=\"GPU-1\",node=\"n\",reason=\"ecc\"} 0",
            "mcad_gpu_healthy{gpu=\"MIG-1\",node=\"n\",reason=\"xid_79\"} 0",
            "mcad_gpu_memory_total_bytes{gpu=\"GPU-1\",node=\"n\"} 80",
            "mcad_gpu_memory_used_bytes absent",
            "mcad_gpu_utilization_ratio absent",
            "mcad_gpu_xid_errors_total{gpu=\"GPU-1\",node=\"n\",xid=\"79\"} 2",
            "mcad_gpu_assigned absent",
        ],
    );
    let off = Options { gpu_metrics: GpuMetrics::Off, ..Options::default() };
    let text = print_with(objects().iter().map(mcad_testkit::build::object).collect(), reports, &off);
    check_lines(&text, &["mcad_gpu_info absent", "mcad_gpu_healthy absent", "mcad_gpu_slots{gpus=\"1\"} 0"]);
}

#[test]
fn what_an_appwrapper_used_in_all_is_counted_over_its_pods_and_has_no_line_before_it_was_measured() {
    let total =
        |what: &str, amount: &str| format!("mcad_appwrapper_{what}_total{{appwrapper=\"w\",namespace=\"a\"}} {amount}");
    let mut reports = two();
    for (report, held_s) in reports.iter_mut().zip([30, 40]) {
        let mut held = assigned("nvidia.com/gpu", &[("p", &["GPU-0"]), ("q", &["GPU-1"])]);
        held.assigned[0].held_ns = Some(held_s * 1_000_000_000);
        report.assignments = Some(held);
        report.cgroups.as_mut().unwrap().cgroups.iter_mut().for_each(|cgroup| cgroup.oom_kills = Some(1));
        let gpu = Gpu { busy_ns: Some((held_s / 4) * 1_000_000_000), ..busy("GPU-0", None) };
        report.gpus = gpu_report("n", vec![gpu]).gpus;
    }
    check_with(
        &objects(),
        reports,
        &[
            &total("cpu_seconds", "25"),
            &total("gpu_held_seconds", "40"),
            &total("gpu_busy_seconds", "3"),
            &total("oom_kills", "1"),
            "mcad_appwrapper_run_queue_wait_seconds_total absent",
        ],
    );
    check_with(
        &objects(),
        vec![report("n", 1)],
        &["mcad_appwrapper_cpu_seconds_total absent", "mcad_appwrapper_gpu_held_seconds_total absent"],
    );
}

#[test]
fn pods_are_shown_one_by_one_only_if_asked_for_and_only_those_that_the_cluster_has() {
    let line =
        |what: &str, pod: &str, amount: &str| format!("mcad_pod_{what}{{namespace=\"a\",pod=\"{pod}\"}} {amount}");
    let mut reports = two();
    let cgroups = &mut reports[1].cgroups.as_mut().unwrap().cgroups;
    (cgroups[0].oom_kills, cgroups[0].run_queue_wait_ns) = (Some(0), Some(2_500_000_000));
    reports[1].assignments = Some(assigned(
        "nvidia.com/gpu",
        &[("p", &["GPU-0", "GPU-1::0"]), ("q", &["GPU-1::1"]), ("unknown", &["GPU-2"])],
    ));
    let devices = vec![busy("GPU-0", Some(0.5)), busy("GPU-1", Some(1.0)), busy("GPU-2", Some(1.0))];
    reports[1].gpus = gpu_report("n", devices).gpus;
    let decoded = || objects().iter().map(mcad_testkit::build::object).collect::<Vec<_>>();
    let on = Options { pod_metrics: PodMetrics::On, ..Options::default() };
    let text = print_with(decoded(), reports.clone(), &on);
    check_lines(
        &text,
        &[
            &line("cpu_seconds_total", "p", "25"),
            &line("cpu_seconds_total", "q", "10"),
            &line("memory_working_set_bytes", "p", "100"),
            &line("run_queue_wait_seconds_total", "p", "2.5"),
            &line("run_queue_wait_seconds_total", "q", "absent"),
            &line("oom_kills_total", "p", "0"),
            &line("gpu_busy_ratio", "p", "0.5"),
            &line("gpu_busy_ratio", "q", "0.5"),
        ],
    );
    assert!(!text.contains("pod=\"unknown\""));
    assert!(!print_with(decoded(), reports, &Options::default()).contains("mcad_pod_"));
}

#[test]
fn the_nodes_that_should_have_an_agent_are_chosen_by_label() {
    let labelled = |name: &str, pool: &str| with(node(name, json!({})), "/metadata/labels", json!({"pool": pool}));
    let objects = [labelled("n", "gpu"), labelled("m", "cpu"), labelled("l", "gpu")];
    let chosen = Options { agent_nodes: "pool=gpu".parse().unwrap(), ..Options::default() };
    let text = print_with(
        objects.iter().map(mcad_testkit::build::object).collect(),
        vec![report("n", 1), report("m", 1)],
        &chosen,
    );
    check_lines(
        &text,
        &[
            "mcad_node_agent_up{node=\"n\"} 1",
            "mcad_node_agent_up{node=\"l\"} 0",
            "mcad_node_agent_up{node=\"m\"} absent",
            // Reports beside a dump are as old as the dump: they have no age here.
            "mcad_node_report_age_seconds absent",
        ],
    );
}

#[test]
fn what_could_not_be_read_is_counted_by_list_for_as_long_as_it_is_there() {
    use mcad_accounting::cluster::{Cluster, Event};
    let odd = [
        node("n", json!({"cpu": "1", "memory": "much"})),
        pod("p", "n", json!({"cpu": "x", "memory": "y"})),
        v1beta2("w", json!([{"podSets": [{"path": "elsewhere"}], "template": {}}]), "Running"),
    ];
    let objects: Vec<_> = odd.iter().map(mcad_testkit::build::object).collect();
    let count = |list: &str, count: u8| format!("mcad_aggregator_unreadable_quantities{{list=\"{list}\"}} {count}");
    let text = print_with(objects.clone(), Vec::new(), &Options::default());
    check_lines(
        &text,
        &[
            &count("nodes", 2),
            &count("pods", 2),
            &count("appwrappers.workload.codeflare.dev/v1beta2", 1),
            &count("appwrappers.mcad.ibm.com/v1beta1", 0),
            "mcad_fit_age_seconds 0",
        ],
    );
    let mut cluster = Cluster::from_objects(objects.clone());
    cluster.apply(Event::Apply(mcad_testkit::build::object(&pod("p", "n", json!({"cpu": "x"})))));
    assert_eq!(cluster.unreadable().map(|(_, count)| count).sum::<u64>(), 4);
    for object in objects {
        cluster.apply(Event::Delete(object));
    }
    assert_eq!(cluster.unreadable().map(|(_, count)| count).sum::<u64>(), 0);
}
