//! docs/accounting.md §4, rule by rule: the ladder of one node and resource, with an agent and without.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_testkit::build::{advertised, assigned, broken, gpu_report, gpus, node, node_of, pod, report, with};
use mcad_testkit::{check, check_by, check_with, tolerating};
use mcad_wire::report::{Gpu, Gpus, Machine, MigInstance, Report};
use serde_json::{Value, json};

/// The line of a figure of GPUs on node `n`.
fn gpu(figure: &str, amount: i64) -> String {
    format!("mcad_node_{figure}{{node=\"n\",resource=\"nvidia_com_gpu\",unit=\"integer\"}} {amount}")
}

/// The line of GPUs on node `n` withheld for a reason; 0: no line.
fn withheld(reason: &str, amount: i64) -> String {
    let series =
        format!("mcad_node_withheld{{node=\"n\",reason=\"{reason}\",resource=\"nvidia_com_gpu\",unit=\"integer\"}}");
    if amount == 0 { format!("{series} absent") } else { format!("{series} {amount}") }
}

/// The line of GPUs that other pods request on node `n`.
fn requested(amount: i64) -> String {
    format!("mcad_node_requested{{node=\"n\",owner=\"other\",resource=\"nvidia_com_gpu\",unit=\"integer\"}} {amount}")
}

fn phantom(amount: i64) -> String {
    if amount == 0 {
        "mcad_node_phantom{node=\"n\",resource=\"nvidia_com_gpu\" absent".to_owned()
    } else {
        gpu("phantom", amount)
    }
}

fn gpu_node(capacity: u32, allocatable: u32) -> Value {
    node_of("n", json!({"nvidia.com/gpu": capacity.to_string()}), json!({"nvidia.com/gpu": allocatable.to_string()}))
}

fn holder(gpus: u32) -> Value {
    pod("p", "n", json!({"nvidia.com/gpu": gpus.to_string()}))
}

fn check_gpus(objects: &[Value], reports: Vec<Report>, lines: &[String]) {
    check_with(objects, reports, &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Eight GPUs, one of them broken, in the hands of whom it may be.
fn one_broken(held: Option<&[&str]>) -> Report {
    let mut devices = gpus(8);
    devices[0] = broken(devices[0].clone());
    let assignments = held.map(|ids| assigned("nvidia.com/gpu", &[("p", ids)]));
    Report { assignments, ..gpu_report("n", devices) }
}

#[test]
fn a_gpu_that_broke_in_a_pods_hands_is_not_subtracted_twice() {
    check_gpus(
        &[gpu_node(8, 7), holder(4)],
        vec![one_broken(Some(&["GPU-0", "GPU-1", "GPU-2", "GPU-3"]))],
        &[
            gpu("installed", 8),
            gpu("healthy", 7),
            requested(4),
            withheld("unhealthy", 0),
            withheld("reserved", 0),
            withheld("stranded", 1),
            gpu("free", 3),
            phantom(0),
        ],
    );
}

#[test]
fn a_broken_gpu_of_which_the_holder_is_unknown_counts_as_unassigned() {
    check_gpus(
        &[gpu_node(8, 7), holder(4)],
        vec![one_broken(None)],
        &[withheld("unhealthy", 1), withheld("stranded", 0), gpu("free", 3), phantom(0)],
    );
    // At most as many as are not requested.
    check_gpus(&[gpu_node(8, 7), holder(8)], vec![one_broken(None)], &[withheld("unhealthy", 0), gpu("free", 0)]);
}

#[test]
fn a_broken_gpu_that_kubelet_still_advertises_is_a_phantom() {
    check_gpus(
        &[gpu_node(8, 8), holder(4)],
        vec![one_broken(Some(&["GPU-0", "GPU-1", "GPU-2", "GPU-3"]))],
        &[withheld("unhealthy", 0), withheld("stranded", 0), gpu("free", 4), phantom(1)],
    );
}

#[test]
fn without_an_agent_kubelets_word_on_devices_stands_and_nothing_is_a_phantom() {
    check_gpus(
        &[gpu_node(8, 6), holder(1)],
        vec![],
        &[
            gpu("installed", 8),
            gpu("healthy", 6),
            gpu("capacity", 8),
            gpu("allocatable", 6),
            withheld("unhealthy", 2),
            gpu("free", 5),
            phantom(0),
        ],
    );
    check(
        &[node_of("n", json!({"cpu": "8"}), json!({"cpu": "7500m"}))],
        &[
            "mcad_node_healthy{node=\"n\",resource=\"cpu\",unit=\"core\"} 8",
            "mcad_node_withheld{node=\"n\",reason=\"reserved\",resource=\"cpu\",unit=\"core\"} 0.5",
            "mcad_node_free{node=\"n\",resource=\"cpu\",unit=\"core\"} 7.5",
            "mcad_node_used absent",
            "mcad_cluster_phantom absent",
        ],
    );
}

#[test]
fn allocatable_above_capacity_takes_nothing_away() {
    check_gpus(&[gpu_node(4, 6)], vec![], &[gpu("installed", 4), gpu("healthy", 4), gpu("free", 4)]);
}

#[test]
fn requests_beyond_installed_are_overcommitted() {
    check_gpus(&[gpu_node(2, 2), holder(5)], vec![], &[gpu("overcommitted", 3), gpu("free", 0), requested(5)]);
}

#[test]
fn a_gpu_on_the_bus_that_nvml_does_not_list_is_lost() {
    let gpus = Gpus { lost_bus_ids: vec!["0000:3b:00.0".into()], ..gpu_report("n", gpus(7)).gpus.unwrap() };
    check_gpus(
        &[gpu_node(8, 8), holder(2)],
        vec![Report { gpus: Some(gpus), ..report("n", 1) }],
        &[gpu("installed", 8), gpu("healthy", 7), withheld("lost", 1), gpu("free", 5), phantom(1)],
    );
}

#[test]
fn eight_less_three_after_a_reboot_is_not_a_healthy_five() {
    let five = |remembered| {
        let gpus = Gpus { remembered, ..gpu_report("n", gpus(5)).gpus.unwrap() };
        vec![Report { gpus: Some(gpus), ..report("n", 1) }]
    };
    check_gpus(&[gpu_node(5, 5)], five(Some(8)), &[gpu("installed", 8), gpu("healthy", 5), withheld("lost", 3)]);
    check_gpus(&[gpu_node(5, 5)], five(None), &[gpu("installed", 5), withheld("lost", 0)]);
    // The administrator's word goes before the agent's memory.
    let said = |gpus| with(gpu_node(5, 5), "/metadata/annotations", json!({"mcad-metrics/expected-gpus": gpus}));
    check_gpus(&[said("6")], five(Some(8)), &[gpu("installed", 6), withheld("lost", 1)]);
    check_gpus(&[said("2")], five(Some(8)), &[gpu("installed", 5), withheld("lost", 0)]);
    check_gpus(&[said("many")], five(Some(8)), &[gpu("installed", 8), withheld("lost", 3)]);
}

#[test]
fn a_lost_gpu_that_a_pod_holds_is_not_withheld() {
    let lost = Gpus { lost_bus_ids: vec!["0000:3b:00.0".into()], ..gpu_report("n", gpus(7)).gpus.unwrap() };
    let held = assigned("nvidia.com/gpu", &[("p", &["GPU-gone", "GPU-1"]), ("ended", &["GPU-also-gone"])]);
    let said = Report { gpus: Some(lost), assignments: Some(held), ..report("n", 1) };
    check_gpus(
        &[gpu_node(8, 8), holder(2)],
        vec![said],
        &[withheld("lost", 0), withheld("stranded", 0), gpu("free", 6), phantom(1)],
    );
}

#[test]
fn devices_of_pods_that_have_ended_are_in_nobodys_hands() {
    let done = with(holder(4), "/status/phase", json!("Succeeded"));
    check_gpus(
        &[gpu_node(8, 7), done],
        vec![one_broken(Some(&["GPU-0"]))],
        &[withheld("unhealthy", 1), gpu("free", 7), "mcad_gpu_assigned absent".into()],
    );
}

#[test]
fn hardware_that_kubelet_does_not_declare_is_unadvertised() {
    check_gpus(&[gpu_node(6, 6)], vec![gpu_report("n", gpus(8))], &[withheld("unadvertised", 2), gpu("free", 6)]);
    check_gpus(
        &[node("n", json!({"cpu": "1"}))],
        vec![gpu_report("n", gpus(8))],
        &[gpu("installed", 8), gpu("capacity", 0), withheld("unadvertised", 8), gpu("free", 0)],
    );
}

#[test]
fn without_a_driver_there_are_no_facts_of_gpus() {
    let without = Report { gpus: Some(Gpus::default()), ..report("n", 1) };
    check_gpus(&[gpu_node(4, 3)], vec![without], &[gpu("installed", 4), withheld("unhealthy", 1), phantom(0)]);
}

#[test]
fn cpu_and_memory_are_as_measured() {
    let machine = Machine { cpus_online: Some(6), memory_total_bytes: Some(900), ..Machine::default() };
    check_with(
        &[node_of("n", json!({"cpu": "8", "memory": "1000"}), json!({"cpu": "7", "memory": "800"}))],
        vec![Report { machine: Some(machine), ..report("n", 1) }],
        &[
            "mcad_node_installed{node=\"n\",resource=\"cpu\",unit=\"core\"} 6",
            "mcad_node_free{node=\"n\",resource=\"cpu\",unit=\"core\"} 5",
            "mcad_node_withheld{node=\"n\",reason=\"reserved\",resource=\"cpu\",unit=\"core\"} 1",
            "mcad_node_phantom{node=\"n\",resource=\"cpu\",unit=\"core\"} 1",
            "mcad_node_installed{node=\"n\",resource=\"memory\",unit=\"byte\"} 900",
            "mcad_node_free{node=\"n\",resource=\"memory\",unit=\"byte\"} 700",
        ],
    );
}

#[test]
fn a_time_sliced_gpu_is_as_many_as_its_replicas() {
    let labelled = |replicas| with(gpu_node(8, 8), "/metadata/labels", json!({"nvidia.com/gpu.replicas": replicas}));
    check_gpus(&[labelled("4")], vec![gpu_report("n", gpus(2))], &[gpu("installed", 8), gpu("free", 8)]);
    for none in ["0", "", "many", "-2"] {
        check_gpus(&[labelled(none)], vec![gpu_report("n", gpus(2))], &[gpu("installed", 2), phantom(6)]);
    }
    // What kubelet's ids show goes before the label.
    let ids = ["GPU-0::0", "GPU-0::1", "GPU-0::2", "GPU-1::0", "GPU-1::1", "GPU-1::2"];
    let said = Report { assignments: Some(advertised("nvidia.com/gpu", &ids)), ..gpu_report("n", gpus(2)) };
    check_gpus(&[labelled("4")], vec![said], &[gpu("installed", 6), phantom(2)]);
    // Without an agent kubelet's figure is never multiplied.
    check_gpus(&[labelled("4")], vec![], &[gpu("installed", 8)]);
}

#[test]
fn a_broken_time_sliced_gpu_takes_all_its_replicas_with_it() {
    let mut devices = gpus(2);
    devices[0] = broken(devices[0].clone());
    let held = assigned("nvidia.com/gpu", &[("p", &["GPU-0::0"])]);
    let labelled = with(gpu_node(8, 8), "/metadata/labels", json!({"nvidia.com/gpu.replicas": "4"}));
    check_gpus(
        &[labelled, holder(1)],
        vec![Report { assignments: Some(held), ..gpu_report("n", devices) }],
        &[gpu("healthy", 4), withheld("unhealthy", 3), gpu("free", 4), phantom(4)],
    );
}

#[test]
fn renamed_time_slices_are_the_same_devices_under_the_other_name() {
    let declared = json!({"nvidia.com/gpu": "0", "nvidia.com/gpu.shared": "8"});
    let shared = with(node("n", declared), "/metadata/labels", json!({"nvidia.com/gpu.replicas": "4"}));
    check_gpus(
        &[shared],
        vec![gpu_report("n", gpus(2))],
        &[
            "mcad_node_installed{node=\"n\",resource=\"nvidia_com_gpu_shared\",unit=\"integer\"} 8".into(),
            gpu("installed", 0),
            withheld("unadvertised", 0),
        ],
    );
}

fn mig(parent: usize, profiles: &[&str]) -> Gpu {
    let instance = |(at, profile): (usize, &&str)| MigInstance {
        uuid: format!("MIG-{parent}-{at}"),
        profile: (*profile).into(),
        ..MigInstance::default()
    };
    let mig_instances = profiles.iter().enumerate().map(instance).collect();
    Gpu { uuid: format!("GPU-{parent}"), mig_mode: Some(true), mig_instances, ..Gpu::default() }
}

fn profile(figure: &str, profile: &str, amount: i64) -> String {
    format!("mcad_node_{figure}{{node=\"n\",resource=\"nvidia_com_mig_{profile}\",unit=\"integer\"}} {amount}")
}

#[test]
fn mig_instances_are_resources_by_profile_and_their_gpus_are_none() {
    let declared = json!({"nvidia.com/gpu": "1", "nvidia.com/mig-1g.10gb": "3", "nvidia.com/mig-3g.40gb": "2"});
    check_gpus(
        &[node("n", declared)],
        vec![gpu_report("n", vec![mig(0, &["1g.10gb", "1g.10gb", "3g.40gb"]), gpus(2).remove(1)])],
        &[
            gpu("installed", 1),
            profile("installed", "1g_10gb", 3),
            profile("healthy", "1g_10gb", 2),
            profile("phantom", "1g_10gb", 1),
            profile("healthy", "3g_40gb", 1),
            "mcad_node_withheld{node=\"n\",reason=\"lost\",resource=\"nvidia_com_mig_3g_40gb\",unit=\"integer\"} 1"
                .into(),
        ],
    );
}

#[test]
fn gpus_of_another_vendor_are_counted_under_the_names_that_their_report_gives() {
    let reported = |resource: &str, part_prefix: &str| {
        let mut report = gpu_report("n", vec![mig(0, &["cpx"; 2]), gpus(2).remove(1), broken(gpus(3).remove(2))]);
        let gpus = report.gpus.as_mut().unwrap();
        (gpus.resource, gpus.part_prefix) = (resource.into(), part_prefix.into());
        report
    };
    let of = |figure: &str, resource: &str, amount: &str| {
        format!("mcad_node_{figure}{{node=\"n\",resource=\"{resource}\",unit=\"integer\"}} {amount}")
    };
    let declared = json!({"amd.com/gpu": "3", "amd.com/part-cpx": "2"});
    check_gpus(
        &[node("n", declared.clone())],
        vec![reported("amd.com/gpu", "amd.com/part-")],
        &[
            of("installed", "amd_com_gpu", "2"),
            of("healthy", "amd_com_gpu", "1"),
            of("phantom", "amd_com_gpu", "2"),
            of("installed", "amd_com_part_cpx", "2"),
            of("healthy", "amd_com_part_cpx", "2"),
            "mcad_node_installed{node=\"n\",resource=\"nvidia_com_gpu\" absent".into(),
        ],
    );
    // A report cannot make GPUs cores: a name without a domain is no extended resource.
    check_gpus(
        &[node("n", declared)],
        vec![reported("cpu", "memory")],
        &[gpu("installed", 2), "mcad_node_installed{node=\"n\",resource=\"cpu\",unit=\"core\"} 0".into()],
    );
}

#[test]
fn a_sick_parent_makes_its_instances_unhealthy() {
    check_gpus(
        &[node("n", json!({"nvidia.com/mig-1g.10gb": "2"}))],
        vec![gpu_report("n", vec![broken(mig(0, &["1g.10gb", "1g.10gb"]))])],
        &[profile("installed", "1g_10gb", 2), profile("healthy", "1g_10gb", 0), profile("phantom", "1g_10gb", 2)],
    );
}

#[test]
fn with_strategy_single_mig_instances_are_gpus() {
    let devices = || vec![mig(0, &["1g.10gb"; 7]), mig(1, &["1g.10gb"; 6])];
    let single = with(gpu_node(14, 14), "/metadata/labels", json!({"nvidia.com/mig.strategy": "single"}));
    check_gpus(
        &[single],
        vec![gpu_report("n", devices())],
        &[gpu("installed", 14), gpu("healthy", 13), withheld("lost", 1), phantom(1)],
    );
    // Kubelet's ids say so, too.
    let said = Report { assignments: Some(advertised("nvidia.com/gpu", &["MIG-0-0"])), ..gpu_report("n", devices()) };
    check_gpus(&[gpu_node(13, 13)], vec![said], &[gpu("installed", 13), gpu("free", 13)]);
}

#[test]
fn other_devices_are_kubelets_word_even_beside_an_agent() {
    check_with(
        &[node_of("n", json!({"example.com/fpga": "4"}), json!({"example.com/fpga": "3"}))],
        vec![gpu_report("n", gpus(1))],
        &[
            "mcad_node_installed{node=\"n\",resource=\"example_com_fpga\",unit=\"integer\"} 4",
            "mcad_node_withheld{node=\"n\",reason=\"unhealthy\",resource=\"example_com_fpga\",unit=\"integer\"} 1",
            "mcad_cluster_phantom{resource=\"example_com_fpga\" absent",
        ],
    );
}

#[test]
fn only_cpu_memory_and_extended_resources_have_a_ladder() {
    check(
        &[node("n", json!({"pods": "110", "hugepages-2Mi": "1", "ephemeral-storage": "9", "example.com/fpga": "0"}))],
        &[
            "mcad_node_free{node=\"n\",resource=\"example_com_fpga\",unit=\"integer\"} 0",
            "mcad_node_free{node=\"n\",resource=\"pods\" absent",
            "mcad_node_free{node=\"n\",resource=\"hugepages absent",
            "mcad_node_free{node=\"n\",resource=\"ephemeral absent",
        ],
    );
}

#[test]
fn what_is_left_on_a_node_that_takes_no_pods_goes_to_the_first_state_that_holds() {
    let taints = json!([{"key": "team", "effect": "NoSchedule"}]);
    let tainted = with(gpu_node(2, 2), "/spec", json!({"taints": taints}));
    let cordoned = with(tainted.clone(), "/spec/unschedulable", json!(true));
    let not_ready = with(cordoned.clone(), "/status/conditions", json!([{"type": "Ready", "status": "Unknown"}]));
    let silent = with(cordoned.clone(), "/status/conditions", json!([]));
    for (node, state) in [(tainted, "tainted"), (cordoned, "cordoned"), (not_ready, "not_ready"), (silent, "not_ready")]
    {
        let counted = format!("mcad_nodes{{state=\"{state}\"}} 1");
        check_gpus(&[node, holder(1)], vec![], &[withheld(state, 1), gpu("free", 0), gpu("admissible", 0), counted]);
    }
}

#[test]
fn a_generally_tolerated_taint_and_a_mere_hint_keep_nobody_off() {
    let taint = |key: &str, effect: &str| with(gpu_node(2, 2), "/spec/taints", json!([{"key": key, "effect": effect}]));
    for node in [taint("nvidia.com/gpu", "NoSchedule"), taint("team", "PreferNoSchedule")] {
        check_gpus(&[node], vec![], &[gpu("free", 2), gpu("admissible", 2)]);
    }
    // As ExtendedResourceToleration has it: a key alone is NoSchedule alone.
    check_gpus(&[taint("nvidia.com/gpu", "NoExecute")], vec![], &[gpu("free", 0), withheld("tainted", 2)]);
    let others = tolerating("team");
    check_by(&[taint("team", "NoSchedule")], &others, &[&gpu("free", 2)]);
    check_by(&[taint("team", "NoExecute")], &others, &[&gpu("free", 0)]);
    check_by(&[taint("nvidia.com/gpu", "NoSchedule")], &others, &[&gpu("free", 0)]);
    let others = tolerating("team:NoExecute");
    check_by(&[taint("team", "NoSchedule")], &others, &[&gpu("free", 0)]);
    check_by(&[taint("team", "NoExecute")], &others, &[&gpu("free", 2)]);
}

#[test]
fn the_cluster_is_the_sum_of_the_nodes_and_shows_every_reason() {
    let other = with(gpu_node(8, 6), "/metadata/name", json!("m"));
    check(
        &[gpu_node(4, 4), other, holder(3), pod("q", "gone", json!({"nvidia.com/gpu": "5"}))],
        &[
            "mcad_cluster_installed{resource=\"nvidia_com_gpu\",unit=\"integer\"} 12",
            "mcad_cluster_requested{owner=\"other\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 3",
            "mcad_cluster_withheld{reason=\"unhealthy\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 2",
            "mcad_cluster_withheld{reason=\"lost\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 0",
            "mcad_cluster_overcommitted{resource=\"nvidia_com_gpu\",unit=\"integer\"} 0",
            "mcad_cluster_free{resource=\"nvidia_com_gpu\",unit=\"integer\"} 7",
        ],
    );
}

#[test]
fn two_resources_that_would_be_spelled_alike_are_two_series() {
    check(
        &[node("m", json!({"a.com/b-c": "1"})), node("n", json!({"a.com/b.c": "2", "a.com/b-c": "3"}))],
        &[
            "mcad_cluster_free{resource=\"a_com_b_c\",unit=\"integer\"} 4",
            "mcad_cluster_free{resource=\"a.com/b.c\",unit=\"integer\"} 2",
            "mcad_node_free{node=\"n\",resource=\"a_com_b_c\",unit=\"integer\"} 3",
        ],
    );
}

#[test]
fn a_node_that_declares_nothing_has_no_cpu_and_no_memory_and_its_pods_are_too_many() {
    let line = |figure: &str, amount: &str| {
        format!("mcad_node_{figure}{{node=\"n\",resource=\"cpu\",unit=\"core\"}} {amount}")
    };
    check(
        &[with(node("n", json!({})), "/status", json!({})), pod("p", "n", json!({"cpu": "2"}))],
        &[
            &line("capacity", "0"),
            &line("free", "0"),
            &line("overcommitted", "2"),
            "mcad_node_capacity{node=\"n\",resource=\"nvidia_com_gpu\" absent",
        ],
    );
}
