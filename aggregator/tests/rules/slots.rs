//! docs/accounting.md §4 and §5: resources that only pods name, and slots and blocks of accelerators.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_accounting::options::Options;
use mcad_testkit::build::{node, pod, with};
use mcad_testkit::{check, check_by};
use serde_json::{Value, json};

#[test]
fn what_pods_request_and_their_node_does_not_declare_is_overcommitted_there() {
    let full = node("n2", json!({"cpu": "64", "memory": "256Gi", "nvidia.com/gpu": "8"}));
    let bare = node("n1", json!({"cpu": "64", "memory": "256Gi"}));
    let holders = (0..8).map(|at| pod(&format!("p{at}"), "n1", json!({"cpu": "4", "nvidia.com/gpu": "1"})));
    let other = pod("q", "n2", json!({"nvidia.com/gpu": "1"}));
    let objects: Vec<_> = [bare, full, other].into_iter().chain(holders).collect();
    let figure = |name: &str| format!("mcad_node_{name}{{node=\"n1\",resource=\"nvidia_com_gpu\",unit=\"integer\"}}");
    let zero = ["installed", "healthy", "capacity", "allocatable", "admissible", "free"]
        .map(|name| format!("{} 0", figure(name)));
    let mut lines: Vec<&str> = zero.iter().map(String::as_str).collect();
    let overcommitted = format!("{} 8", figure("overcommitted"));
    lines.extend([
        &*overcommitted,
        "mcad_cluster_requested{owner=\"other\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 9",
        "mcad_cluster_overcommitted{resource=\"nvidia_com_gpu\",unit=\"integer\"} 8",
        "mcad_cluster_free{resource=\"nvidia_com_gpu\",unit=\"integer\"} 7",
        "mcad_cluster_installed{resource=\"nvidia_com_gpu\",unit=\"integer\"} 8",
    ]);
    check(&objects, &lines);
}

#[test]
fn a_resource_that_is_requested_at_0_or_by_ended_pods_alone_is_none_of_the_node() {
    let mut ended = pod("ended", "n1", json!({"example.com/fpga": "2"}));
    ended["status"]["phase"] = "Failed".into();
    let zero = pod("zero", "n1", json!({"example.com/npu": "0", "ephemeral-storage": "1Gi", "hugepages-2Mi": "2Mi"}));
    let objects = [node("n1", json!({"cpu": "4"})), ended, zero, pod("p", "n1", json!({"example.com/dpu": "3"}))];
    check(
        &objects,
        &[
            "mcad_node_requested{node=\"n1\",owner=\"other\",resource=\"example_com_dpu\",unit=\"integer\"} 3",
            "mcad_node_overcommitted{node=\"n1\",resource=\"example_com_dpu\",unit=\"integer\"} 3",
            "mcad_node_installed{node=\"n1\",resource=\"example_com_fpga\" absent",
            "mcad_node_installed{node=\"n1\",resource=\"example_com_npu\" absent",
            "mcad_node_installed{node=\"n1\",resource=\"ephemeral_storage\" absent",
            "mcad_node_installed{node=\"n1\",resource=\"hugepages_2Mi\" absent",
        ],
    );
}

#[test]
fn an_undeclared_accelerator_has_slots_and_a_block_of_0() {
    let objects = [node("n1", json!({"cpu": "4"})), pod("p", "n1", json!({"amd.com/gpu": "1"}))];
    check(
        &objects,
        &["mcad_slots{count=\"1\",resource=\"amd_com_gpu\"} 0", "mcad_largest_free_block{resource=\"amd_com_gpu\"} 0"],
    );
}

#[test]
fn a_key_that_only_one_of_capacity_and_allocatable_has_is_0_in_the_other() {
    let mut half = node("n1", json!({"cpu": "4"}));
    half["status"]["capacity"]["nvidia.com/gpu"] = "2".into();
    half["status"]["allocatable"]["amd.com/gpu"] = "3".into();
    let figure = |name: &str, resource: &str, amount: &str| {
        format!("mcad_node_{name}{{node=\"n1\",resource=\"{resource}\",unit=\"integer\"}} {amount}")
    };
    let lines = [
        figure("capacity", "nvidia_com_gpu", "2"),
        figure("allocatable", "nvidia_com_gpu", "0"),
        figure("free", "nvidia_com_gpu", "0"),
        figure("capacity", "amd_com_gpu", "0"),
        figure("allocatable", "amd_com_gpu", "3"),
        figure("installed", "amd_com_gpu", "0"),
        figure("free", "amd_com_gpu", "0"),
    ];
    check(&[half], &lines.each_ref().map(String::as_str));
}

fn check_slots(objects: &[Value], options: &Options, resource: &str, expected: [u32; 4], block: u32) {
    let mut lines: Vec<_> = ["1", "2", "4", "8"]
        .into_iter()
        .zip(expected)
        .map(|(count, pods)| format!("mcad_slots{{count=\"{count}\",resource=\"{resource}\"}} {pods}"))
        .collect();
    lines.push(format!("mcad_largest_free_block{{resource=\"{resource}\"}} {block}"));
    check_by(objects, options, &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn slots_of_shared_gpus_where_no_whole_one_is_declared() {
    let amounts = json!({"cpu": "192", "memory": "2097096404Ki", "nvidia.com/gpu": "0", "nvidia.com/gpu.shared": "128", "pods": "200"});
    let objects = [node("n1", amounts), pod("p", "n1", json!({"nvidia.com/gpu.shared": "4"}))];
    let gpus = ["mcad_gpu_slots{gpus=\"1\"} 0", "mcad_gpu_largest_free_block 0"];
    check(&objects, &gpus);
    check(&objects, &["mcad_node_free{node=\"n1\",resource=\"nvidia_com_gpu_shared\",unit=\"integer\"} 124"]);
    check_slots(&objects, &Options::default(), "nvidia_com_gpu_shared", [124, 62, 31, 15], 124);
}

#[test]
fn slots_of_each_mig_profile_by_itself() {
    let amounts = json!({"cpu": "96", "memory": "512Gi", "nvidia.com/mig-1g.12gb": "2", "nvidia.com/mig-3g.47gb": "1"});
    let objects = [node("n1", amounts), pod("p", "n1", json!({"nvidia.com/mig-1g.12gb": "1"}))];
    check_slots(&objects, &Options::default(), "nvidia_com_mig_1g_12gb", [1, 0, 0, 0], 1);
    check_slots(&objects, &Options::default(), "nvidia_com_mig_3g_47gb", [1, 0, 0, 0], 1);
}

#[test]
fn slots_are_no_more_than_the_places_for_pods() {
    let node = |pods: &str| {
        node("n1", json!({"cpu": "64", "memory": "256Gi", "nvidia.com/gpu": "8", "amd.com/gpu": "8", "pods": pods}))
    };
    let bound: Vec<_> = (0..3).map(|at| pod(&format!("d{at}"), "n1", json!({"cpu": "10m"}))).collect();
    let with = |pods: &str| [&[node(pods)][..], &bound].concat();
    let check_gpus = |objects: &[Value], expected: u32| {
        check(objects, &[&format!("mcad_gpu_slots{{gpus=\"1\"}} {expected}"), "mcad_gpu_largest_free_block 8"]);
    };
    for (pods, expected) in [("3", 0), ("2", 0), ("5", 2), ("110", 8)] {
        check_gpus(&with(pods), expected);
    }
    check_slots(&with("5"), &Options::default(), "amd_com_gpu", [2, 2, 2, 1], 8);
    check_slots(&with("3"), &Options::default(), "amd_com_gpu", [0, 0, 0, 0], 8);
    // A node that declares no places for pods takes none.
    let mut without = node("0");
    without["status"]["allocatable"].as_object_mut().unwrap().remove("pods");
    check_gpus(&[without], 0);
}

#[test]
fn slots_need_cpu_and_memory_on_the_same_node() {
    let node = |name: &str, cpu: &str, memory: &str, amd: &str| {
        node(name, json!({"cpu": cpu, "memory": memory, "amd.com/gpu": amd}))
    };
    let objects = [node("a", "3500m", "1Ti", "8"), node("b", "64", "17Gi", "8"), node("c", "64", "1Ti", "5")];
    // 3 + 4 + 5; 1 + 2 + 2; 0 + 1 + 1; 0.
    check_slots(&objects, &Options::default(), "amd_com_gpu", [12, 5, 2, 0], 8);
    let cordoned = objects.clone().map(|node| with(node, "/spec/unschedulable", json!(true)));
    check_slots(&cordoned, &Options::default(), "amd_com_gpu", [0, 0, 0, 0], 0);
}

#[test]
fn slots_of_other_resources_are_shown_where_they_are_declared_accelerators() {
    let objects = [node("n1", json!({"cpu": "64", "memory": "1Ti", "example.com/npu": "4", "rdma/hca": "8"}))];
    check(&objects, &["mcad_slots absent", "mcad_largest_free_block absent"]);
    let npu = Options { accelerators: ["example.com/npu".parse().unwrap()].into(), ..Options::default() };
    check_slots(&objects, &npu, "example_com_npu", [4, 2, 1, 0], 4);
    check_by(&objects, &npu, &["mcad_slots{count=\"1\",resource=\"rdma_hca\" absent"]);
    // The same name twice, or one that is well known, is one accelerator.
    let amd =
        Options { accelerators: ["amd.com/gpu".parse().unwrap(), "nvidia.com/gpu".parse().unwrap()].into(), ..npu };
    let objects = [node("n1", json!({"cpu": "64", "memory": "1Ti", "nvidia.com/gpu": "2", "amd.com/gpu": "1"}))];
    check_slots(&objects, &amd, "amd_com_gpu", [1, 0, 0, 0], 1);
    check_by(
        &objects,
        &amd,
        &["mcad_gpu_slots{gpus=\"2\"} 1", "mcad_slots{count=\"1\",resource=\"nvidia_com_gpu\"} absent"],
    );
}
