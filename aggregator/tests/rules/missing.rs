//! docs/accounting.md §6: what is missing from the input is unknown and never 0, and pods of nodes that are not there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_accounting::cluster::{Cluster, Event, Source};
use mcad_accounting::now::Now;
use mcad_accounting::object::{Kind, Served};
use mcad_accounting::options::{Options, PodMetrics};
use mcad_testkit::build::{
    advertised, assigned, gpu_report, gpus, node, object, pod, spec, v1beta1, v1beta2, waiting, with,
};
use mcad_testkit::{check, check_lines, print_cluster_with, snapshot_of, text};
use mcad_wire::report::Report;
use serde_json::{Value, json};

/// A cluster of these objects, of which only these kinds are known.
fn known(objects: &[Value], kinds: &[Kind]) -> Cluster {
    Cluster::from_objects_known(objects.iter().map(object), &kinds.iter().copied().collect())
}

fn check_known(objects: &[Value], kinds: &[Kind], lines: &[&str]) {
    check_lines(&text(&snapshot_of(&known(objects, kinds), &Options::default())), lines);
}

/// The names of the families that have a line.
fn families(text: &str) -> Vec<&str> {
    let mut families: Vec<_> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    families.dedup();
    families
}

/// Two nodes of 8 GPUs each.
fn nodes() -> [Value; 2] {
    ["n1", "n2"].map(|name| node(name, json!({"cpu": "64", "memory": "256Gi", "nvidia.com/gpu": "8"})))
}

/// A pod of an AppWrapper, and the AppWrapper, which runs; another one of each version waits.
fn work() -> Vec<Value> {
    let asks = |gpus: u32| json!([{"generictemplate": {}, "custompodresources": [{"replicas": 1, "requests": {"nvidia.com/gpu": gpus}}]}]);
    let queued = json!({"state": "Pending", "controllerfirsttimestamp": "2026-01-05T09:59:00.000000Z"});
    let runs = json!({"state": "Running", "canrun": true});
    let template = json!({"t": {"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}}});
    vec![
        with(
            pod("p", "n1", json!({"cpu": "4", "nvidia.com/gpu": "2"})),
            "/metadata/labels",
            json!({"workload.codeflare.dev/appwrapper": "runs"}),
        ),
        v1beta1("runs", asks(2), runs),
        v1beta1("waits", asks(99), queued),
        v1beta2("new", json!([{"podSets": [{"path": "template.t"}], "template": template}]), "Suspended"),
    ]
}

fn of_kind(kind: &'static str) -> impl Fn(&Value) -> bool {
    move |object| object["kind"] == kind
}

#[test]
fn without_pods_what_nodes_declare_stands_and_nothing_is_free_or_requested() {
    let objects = nodes();
    check_known(
        &objects,
        &[Kind::Node],
        &[
            "mcad_node_installed{node=\"n1\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 8",
            "mcad_node_healthy{node=\"n2\",resource=\"cpu\",unit=\"core\"} 64",
            "mcad_cluster_capacity{resource=\"nvidia_com_gpu\",unit=\"integer\"} 16",
            "mcad_cluster_allocatable{resource=\"nvidia_com_gpu\",unit=\"integer\"} 16",
            "mcad_cluster_admissible{resource=\"memory\",unit=\"byte\"} 549755813888",
            "mcad_nodes{state=\"admissible\"} 2",
        ],
    );
    let text = text(&snapshot_of(&known(&objects, &[Kind::Node]), &Options::default()));
    let expected = ["installed", "healthy", "capacity", "allocatable", "admissible"];
    let expected: Vec<_> = ["cluster", "node"]
        .into_iter()
        .flat_map(|of| expected.map(|name| format!("mcad_{of}_{name}")))
        .chain(["mcad_nodes".to_owned()])
        .collect();
    assert_eq!(families(&text), expected);
}

#[test]
fn an_empty_list_of_pods_is_no_missing_one() {
    check_known(
        &nodes(),
        &[Kind::Node, Kind::Pod],
        &[
            "mcad_cluster_free{resource=\"nvidia_com_gpu\",unit=\"integer\"} 16",
            "mcad_allocatable_capacity_gpu 16",
            "mcad_orphaned_pods 0",
            "mcad_appwrappers absent",
            "mcad_appwrappers_count absent",
            "mcad_requested_gpu absent",
        ],
    );
}

#[test]
fn pods_alone_show_no_line_of_nodes_or_of_the_cluster() {
    let objects = [pod("p", "n1", json!({"nvidia.com/gpu": "2"})), pod("q", "n2", json!({"nvidia.com/gpu": "4"}))];
    let text = text(&snapshot_of(&known(&objects, &[Kind::Pod]), &Options::default()));
    assert_eq!(families(&text), [] as [&str; 0]);
}

#[test]
fn without_nodes_appwrappers_keep_what_rests_on_them_and_their_pods() {
    check_known(
        &work(),
        &[Kind::Pod, Kind::AppWrapper],
        &[
            "mcad_appwrappers{state=\"Running\",version=\"v1beta1\"} 1",
            "mcad_appwrappers_count{state=\"Pending\"} 1",
            "mcad_requested_gpu_count 2",
            "mcad_appwrapper_info{appwrapper=\"runs\",namespace=\"a\",priority=\"0\",queue=\"\",state=\"Running\",version=\"v1beta1\"} 1",
            "mcad_appwrapper_requested{appwrapper=\"waits\",namespace=\"a\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 99",
            "mcad_appwrapper_allocated{appwrapper=\"runs\",namespace=\"a\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 2",
            "mcad_appwrapper_waiting_seconds{appwrapper=\"waits\",namespace=\"a\"} 60",
            "mcad_appwrapper_pods{appwrapper=\"runs\",namespace=\"a\",state=\"bound\"} 1",
            "mcad_appwrapper_fit{ absent",
            "mcad_appwrapper_shortfall{ absent",
            "mcad_allocatable_capacity absent",
            "mcad_nodes absent",
            "mcad_node_ absent",
            "mcad_cluster_ absent",
            "mcad_gpu_ absent",
            "mcad_orphaned absent",
        ],
    );
}

#[test]
fn without_pods_appwrappers_hold_an_unknown_amount_and_no_fit_is_known() {
    let objects: Vec<_> = nodes().into_iter().chain(work()).filter(|object| !of_kind("Pod")(object)).collect();
    check_known(
        &objects,
        &[Kind::Node, Kind::AppWrapper],
        &[
            "mcad_appwrapper_requested{appwrapper=\"new\",namespace=\"a\",resource=\"cpu\",unit=\"core\"} 1",
            "mcad_appwrapper_waiting_seconds{appwrapper=\"waits\",namespace=\"a\"} 60",
            "mcad_appwrappers_count{state=\"Running\"} 1",
            "mcad_cluster_capacity{resource=\"nvidia_com_gpu\",unit=\"integer\"} 16",
            "mcad_appwrapper_pods{appwrapper=\"waits\",namespace=\"a\",state=\"wanted\"} 1",
            "mcad_appwrapper_pods{appwrapper=\"waits\",namespace=\"a\",state=\"bound\"} absent",
            "mcad_appwrapper_pods{appwrapper=\"waits\",namespace=\"a\",state=\"unbound\"} absent",
            "mcad_appwrapper_allocated{ absent",
            "mcad_appwrapper_used{ absent",
            "mcad_appwrapper_fit{ absent",
            "mcad_appwrapper_shortfall{ absent",
            "mcad_allocatable_capacity absent",
        ],
    );
}

#[test]
fn appwrappers_alone_are_counted_and_nothing_else_is_known() {
    let objects: Vec<_> = work().into_iter().filter(of_kind("AppWrapper")).collect();
    let text = text(&snapshot_of(&known(&objects, &[Kind::AppWrapper]), &Options::default()));
    assert_eq!(
        families(&text).into_iter().filter(|name| !name.starts_with("mcad_requested_")).collect::<Vec<_>>(),
        [
            "mcad_appwrappers_count",
            "mcad_appwrappers",
            "mcad_appwrapper_info",
            "mcad_appwrapper_requested",
            "mcad_appwrapper_waiting_seconds",
            "mcad_appwrapper_pods",
        ]
    );
}

#[test]
fn mcad_v2s_capacity_needs_nodes_and_pods_as_well() {
    let v2 = Options { operator_metrics: mcad_accounting::options::OperatorMetrics::V2, ..Options::default() };
    let print = |kinds: &[Kind]| text(&snapshot_of(&known(&nodes(), kinds), &v2));
    check_lines(&print(&[Kind::Node, Kind::Pod]), &["mcad_capacity_gpu{node=\"n1\"} 8"]);
    check_lines(&print(&[Kind::Node]), &["mcad_capacity_ absent"]);
    check_lines(&print(&[Kind::Pod]), &["mcad_capacity_ absent"]);
}

#[test]
fn where_no_appwrappers_are_served_there_are_none_and_the_rest_stands() {
    let mut cluster = Cluster::default();
    cluster.serve([]);
    cluster.apply(Event::Reset(Source::Nodes, nodes().iter().map(object).collect()));
    cluster.apply(Event::Reset(Source::Pods, Vec::new()));
    assert!(cluster.is_listed() && !cluster.knows_appwrappers());
    let lines = [
        "mcad_allocatable_capacity_gpu 16",
        "mcad_appwrappers_count absent",
        "mcad_appwrapper absent",
        "mcad_requested_cpu absent",
    ];
    check_lines(&text(&snapshot_of(&cluster, &Options::default())), &lines);
    // One that is served and empty is known to be so.
    cluster.serve([Served::WorkloadV1Beta1]);
    assert!(!cluster.is_listed());
    cluster.apply(Event::Reset(Source::AppWrappers(Served::WorkloadV1Beta1), Vec::new()));
    let lines =
        ["mcad_appwrappers_count{state=\"Pending\"} 0", "mcad_appwrappers{state=\"Pending\",version=\"v1beta1\"} 0"];
    check_lines(&text(&snapshot_of(&cluster, &Options::default())), &lines);
}

/// An agent that found 8 GPUs, one of them broken; kubelet declares 8. It measured too.
fn measured() -> Vec<Report> {
    let mut gpus = gpus(8);
    gpus[0].unhealthy_reasons = vec!["xid_79".to_owned()];
    let mut report = gpu_report("n1", gpus);
    report.assignments = Some(mcad_wire::report::Assignments {
        allocatable: advertised("nvidia.com/gpu", &["GPU-0", "GPU-1"]).allocatable,
        ..assigned("nvidia.com/gpu", &[("p", &["GPU-1"])])
    });
    vec![report]
}

#[test]
fn without_pods_an_agents_hardware_stands_and_nobody_is_known_to_hold_or_use_it() {
    let options = Options { pod_metrics: PodMetrics::On, ..Options::default() };
    let text = print_cluster_with(known(&nodes(), &[Kind::Node]), measured(), &options);
    check_lines(
        &text,
        &[
            "mcad_node_installed{node=\"n1\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 8",
            "mcad_node_healthy{node=\"n1\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 7",
            "mcad_node_phantom{node=\"n1\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 1",
            "mcad_cluster_phantom{resource=\"nvidia_com_gpu\",unit=\"integer\"} 1",
            "mcad_gpu_healthy{gpu=\"GPU-0\",node=\"n1\",reason=\"xid_79\"} 0",
            "mcad_node_agent_up{node=\"n1\"} 1",
            "mcad_node_agent_up{node=\"n2\"} 0",
            "mcad_gpu_assigned absent",
            "mcad_node_used absent",
            "mcad_cluster_used absent",
            "mcad_cluster_nodes_measured absent",
            "mcad_node_withheld absent",
            "mcad_node_free absent",
            "mcad_pod_ absent",
        ],
    );
    // With the pod it is known who holds what.
    let objects: Vec<_> = nodes().into_iter().chain([work().remove(0)]).collect();
    let text = print_cluster_with(known(&objects, &[Kind::Node, Kind::Pod]), measured(), &options);
    check_lines(
        &text,
        &[
            "mcad_gpu_assigned{container=\"main\",gpu=\"GPU-1\",namespace=\"a\",node=\"n1\",pod=\"p\"} 1",
            "mcad_node_withheld{node=\"n1\",reason=\"unhealthy\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 1",
        ],
    );
}

#[test]
fn pods_that_are_lost_and_found_again_take_their_figures_with_them() {
    let mut cluster = known(&[&nodes()[..], &work()[..]].concat(), &Kind::ALL);
    let whole = text(&snapshot_of(&cluster, &Options::default()));
    let pods: Vec<_> = work().iter().filter(|object| of_kind("Pod")(object)).map(object).collect();
    let print = |cluster: &Cluster| {
        let views = mcad_accounting::views::without_reports(cluster, &Options::default());
        let mut snapshot = mcad_accounting::snapshot::Snapshot::new(
            cluster,
            views,
            Now::default(),
            mcad_testkit::NOW_MS,
            &Options::default(),
        );
        // What was worked out before the loss is not said of now.
        let fits = mcad_accounting::fit::fits(&snapshot_of(
            &known(&[&nodes()[..], &work()[..]].concat(), &Kind::ALL),
            &Options::default(),
        ));
        snapshot.with_fits(&fits);
        text(&snapshot)
    };
    assert_eq!(print(&cluster), whole);
    cluster.apply(Event::Lost(Source::Pods));
    let lost = print(&cluster);
    check_lines(&lost, &["mcad_node_free absent", "mcad_appwrapper_fit{ absent", "mcad_appwrapper_allocated absent"]);
    check_lines(&lost, &["mcad_node_capacity{node=\"n1\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 8"]);
    cluster.apply(Event::Reset(Source::Pods, pods));
    assert_eq!(print(&cluster), whole);
}

#[test]
fn orphans_are_in_no_line_of_nodes_or_the_cluster_and_count_for_their_appwrapper() {
    let mut ghost = pod("ghost", "gone", json!({"nvidia.com/gpu": "8", "cpu": "32"}));
    ghost["metadata"]["labels"] = json!({"workload.codeflare.dev/appwrapper": "runs"});
    let other = pod("ghost2", "gone", json!({"nvidia.com/gpu": "4", "example.com/fpga": "0"}));
    let mut ended = pod("ended", "gone", json!({"nvidia.com/gpu": "16"}));
    ended["status"]["phase"] = "Succeeded".into();
    let unbound = pod("unbound", "", json!({"nvidia.com/gpu": "16"}));
    let objects: Vec<_> =
        nodes().into_iter().take(1).chain([ghost, other, ended, unbound]).chain(work().into_iter().skip(1)).collect();
    check(
        &objects,
        &[
            "mcad_node_free{node=\"n1\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 8",
            "mcad_cluster_requested{owner=\"appwrapper\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 0",
            "mcad_cluster_requested{owner=\"other\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 0",
            "mcad_cluster_overcommitted{resource=\"nvidia_com_gpu\",unit=\"integer\"} 0",
            "mcad_cluster_installed{resource=\"example_com_fpga\" absent",
            "mcad_orphaned_pods 2",
            "mcad_orphaned_requests{resource=\"nvidia_com_gpu\",unit=\"integer\"} 12",
            "mcad_orphaned_requests{resource=\"cpu\",unit=\"core\"} 32",
            "mcad_orphaned_requests{resource=\"memory\",unit=\"byte\"} 0",
            "mcad_orphaned_requests{resource=\"example_com_fpga\",unit=\"integer\"} 0",
            "mcad_appwrapper_allocated{appwrapper=\"runs\",namespace=\"a\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 8",
        ],
    );
}

#[test]
fn without_orphans_the_lines_are_there_at_0_for_the_three_resources_that_are_always_shown() {
    let text = text(&snapshot_of(&known(&nodes(), &Kind::ALL), &Options::default()));
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("mcad_orphaned")).collect();
    assert_eq!(
        lines,
        [
            "mcad_orphaned_pods 0",
            "mcad_orphaned_requests{resource=\"cpu\",unit=\"core\"} 0",
            "mcad_orphaned_requests{resource=\"memory\",unit=\"byte\"} 0",
            "mcad_orphaned_requests{resource=\"nvidia_com_gpu\",unit=\"integer\"} 0",
        ]
    );
}

#[test]
fn a_node_that_comes_back_takes_its_orphans() {
    let [n1, n2] = nodes();
    let mut cluster = known(&[n1, pod("p", "n2", json!({"nvidia.com/gpu": "3"}))], &Kind::ALL);
    check_lines(&text(&snapshot_of(&cluster, &Options::default())), &["mcad_orphaned_pods 1"]);
    cluster.apply(Event::Apply(object(&n2)));
    let lines = ["mcad_orphaned_pods 0", "mcad_node_free{node=\"n2\",resource=\"nvidia_com_gpu\",unit=\"integer\"} 5"];
    check_lines(&text(&snapshot_of(&cluster, &Options::default())), &lines);
}

#[test]
fn where_devices_are_not_known_claims_may_have_what_kubelet_has_not() {
    let check_waiting = |nodes: &[Value], gpus: u32, lines: &[&str]| {
        let waiting = waiting(&[(1, spec(json!({"cpu": "1", "nvidia.com/gpu": gpus})))]);
        let objects: Vec<Value> = nodes.iter().cloned().chain([waiting]).collect();
        let mut cluster = known(&objects, &[Kind::Node, Kind::Pod, Kind::AppWrapper]);
        cluster.serve_devices([Kind::ResourceSlice, Kind::ResourceClaim].into());
        check_lines(&text(&snapshot_of(&cluster, &Options::default())), lines);
    };
    let no_verdict = r#"mcad_appwrapper_fit{appwrapper="w",by="nodes" absent"#;
    let bare = [node("n1", json!({"cpu": "64"}))];
    check_waiting(&bare, 1, &[no_verdict, "mcad_gpu_slots absent", "mcad_gpu_largest_free_block absent"]);
    let fits = r#"mcad_appwrapper_fit{appwrapper="w",by="nodes",namespace="a"} 1"#;
    check_waiting(&nodes(), 8, &[fits, r#"mcad_gpu_slots{gpus="8"} 2"#]);
    check_waiting(&nodes(), 9, &[no_verdict, "mcad_gpu_largest_free_block 8"]);
    // Without GPUs devices do not matter.
    check_waiting(&bare, 0, &[fits]);
}
