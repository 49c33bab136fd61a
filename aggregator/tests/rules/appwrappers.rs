//! docs/accounting.md §2, rule by rule: AppWrappers, their demand, their pods, MCAD's dispatch.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_accounting::object::{Kind, decode};
use mcad_accounting::options::Options;
use mcad_testkit::build::{node, pod, spec, v1beta1, v1beta2, with};
use mcad_testkit::{NOW_MS, check, print};
use serde_json::{Value, json};

fn line(figure: &str, resource: &str, amount: &str) -> String {
    let unit = match resource {
        "cpu" => "core",
        "memory" => "byte",
        _ => "integer",
    };
    format!(
        "mcad_appwrapper_{figure}{{appwrapper=\"w\",namespace=\"a\",resource=\"{resource}\",unit=\"{unit}\"}} {amount}"
    )
}

fn check_demand(appwrapper: Value, [cpu, memory, gpu]: [&str; 3]) {
    let lines =
        [line("requested", "cpu", cpu), line("requested", "memory", memory), line("requested", "nvidia_com_gpu", gpu)];
    check(&[appwrapper], &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

fn generic(template_spec: Value) -> Value {
    json!([{"replicas": 7, "minavailable": 9, "generictemplate": {"kind": "Job", "spec": template_spec}}])
}

#[test]
fn v1beta1_custom_pods_are_replicas_times_requests_and_go_before_the_template() {
    let custom = json!([{
        "generictemplate": {"spec": spec(json!({"cpu": "99"}))}, "replicas": 3,
        "custompodresources": [
            {"replicas": 2, "requests": {"cpu": "1", "memory": "10"}, "limits": {"nvidia.com/gpu": 1}},
            {"requests": {"cpu": "50"}},
        ],
    }]);
    check_demand(v1beta1("w", custom, json!({})), ["2", "20", "2"]);
}

#[test]
fn v1beta1_templates_are_replicas_times_containers_of_either_spec() {
    let job = json!({"replicas": 3, "parallelism": 5, "template": {"spec": spec(json!({"cpu": "1"}))}});
    check_demand(v1beta1("w", generic(job), json!({})), ["3", "0", "0"]);
    check_demand(v1beta1("w", generic(spec(json!({"cpu": "2"}))), json!({})), ["2", "0", "0"]);
    let none = json!({"replicas": 0, "template": {"spec": spec(json!({"cpu": "1"}))}});
    check_demand(v1beta1("w", generic(none), json!({})), ["0", "0", "0"]);
}

#[test]
fn v1beta1_templates_without_containers_ask_for_nothing() {
    for items in [
        json!([]),
        json!([{}]),
        generic(json!({"ports": [1]})),
        generic(json!({"template": {"spec": {}}})),
        json!(null),
    ] {
        check_demand(v1beta1("w", items, json!({})), ["0", "0", "0"]);
    }
    let listed = with(v1beta1("w", json!([]), json!({})), "/spec/resources/Items", json!([{"replicas": 3}]));
    check_demand(listed, ["0", "0", "0"]);
}

#[test]
fn v1beta1_limits_stand_in_where_a_request_is_0_or_absent() {
    let resources = json!({"requests": {"cpu": "0", "nvidia.com/gpu": "1"}, "limits": {"cpu": "4", "memory": "8", "nvidia.com/gpu": "2"}});
    let template = json!({"containers": [{"resources": resources}, {"resources": {"limits": {"cpu": "1500u"}}}]});
    check_demand(v1beta1("w", generic(template), json!({})), ["4.002", "8", "1"]);
}

#[test]
fn v1beta1_resources_beyond_mcads_three_count_in_our_own_families() {
    let custom = json!([{
        "generictemplate": {}, "custompodresources": [{"replicas": 2, "limits": {"nvidia.com/mig-1g.10gb": "3"}}],
    }]);
    check(
        &[v1beta1("w", custom, json!({}))],
        &[&line("requested", "nvidia_com_mig_1g_10gb", "6"), &line("requested", "nvidia_com_gpu", "0")],
    );
}

#[test]
fn an_item_without_a_template_asks_for_nothing_whatever_custom_pods_it_names() {
    let custom = |template: Value| json!([{"generictemplate": template, "custompodresources": [{"replicas": 2, "requests": {"cpu": "1"}}]}]);
    check_demand(v1beta1("w", custom(json!(null)), json!({})), ["0", "0", "0"]);
    check_demand(v1beta1("w", custom(json!({})), json!({})), ["2", "0", "0"]);
}

#[test]
fn a_resource_that_is_named_has_its_line_also_at_0() {
    let custom = json!([{"generictemplate": {}, "custompodresources": [{"requests": {"amd.com/gpu": 1}}]}]);
    check(&[v1beta1("w", custom, json!({}))], &[&line("requested", "amd_com_gpu", "0")]);
    let nothing = json!({"nvidia.com/gpu.shared": "0"});
    let component = json!([{"template": {"apiVersion": "v1", "kind": "Pod", "spec": spec(nothing.clone())}}]);
    let labels = json!({"workload.codeflare.dev/appwrapper": "w"});
    let holds = with(pod("p", "n", nothing), "/metadata/labels", labels);
    let ended = with(holds.clone(), "/status/phase", json!("Succeeded"));
    let appwrapper = v1beta2("w", component, "Running");
    let both = [line("requested", "nvidia_com_gpu_shared", "0"), line("allocated", "nvidia_com_gpu_shared", "0")];
    check(&[appwrapper.clone(), holds], &[&both[0], &both[1]]);
    check(&[appwrapper, ended], &[&both[0], &line("allocated", "nvidia_com_gpu_shared", "absent")]);
}

#[test]
fn a_v1beta1_template_without_a_list_of_containers_has_no_pods() {
    let pods = |pod_spec: Value| {
        let item = json!([{"generictemplate": {"spec": {"replicas": 3, "template": {"spec": pod_spec}}}}]);
        let decoded = mcad_testkit::build::object(&v1beta1("w", item, json!({})));
        let mcad_accounting::object::Object::AppWrapper(appwrapper) = decoded else { panic!("an AppWrapper") };
        appwrapper.demand.pods()
    };
    assert_eq!(pods(json!({})), 0);
    assert_eq!(pods(json!({"containers": null})), 0);
    assert_eq!(pods(json!({"containers": []})), 3);
    assert_eq!(pods(json!({"containers": [{}]})), 3);
}

#[test]
fn v1beta1_totals_that_mcad_wrapped_are_not_used() {
    let status = json!({"state": "Running", "totalcpu": 5, "totalmemory": -5, "totalgpu": 7});
    check_demand(v1beta1("w", generic(spec(json!({"cpu": "1"}))), status), ["1", "0", "0"]);
}

fn component(template: Value) -> Value {
    json!([{"template": template}])
}

fn template(requests: Value) -> Value {
    json!({"spec": spec(requests)})
}

#[test]
fn v1beta2_pod_sets_are_found_by_path() {
    let tree =
        json!({"groups": [{"t": template(json!({"cpu": "1"}))}, {"deep": [{"t": template(json!({"cpu": "10"}))}]}]});
    let sets = json!([
        {"path": "template.groups[0].t"}, {"path": "template.groups[1].deep[0].t", "replicas": 3},
        {"path": "template.groups[7].t", "replicas": 100}, {"path": "elsewhere.t"}, {"path": "template.groups[0]"}, {},
    ]);
    check_demand(v1beta2("w", json!([{"podSets": sets, "template": tree}]), "Running"), ["31", "0", "0"]);
}

#[test]
fn v1beta2_pod_sets_of_known_kinds_are_inferred() {
    let one = || template(json!({"cpu": "1"}));
    let of = |version: &str, kind: &str, spec: Value| json!({"apiVersion": version, "kind": kind, "spec": spec});
    let ray = || {
        json!({
            "headGroupSpec": {"template": one()},
            "workerGroupSpecs": [{"replicas": 3, "template": one()}, {"template": one()}],
        })
    };
    let job = |rest: Value| {
        let mut spec = json!({"template": one()});
        spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        spec
    };
    for (template, cpu) in [
        (json!({"apiVersion": "v1", "kind": "Pod", "spec": spec(json!({"cpu": "1"}))}), "1"),
        (of("apps/v1", "Deployment", job(json!({}))), "1"),
        (of("apps/v1", "StatefulSet", job(json!({"replicas": 4}))), "4"),
        (of("apps/v1", "Deployment", job(json!({"replicas": 0}))), "0"),
        (of("batch/v1", "Job", job(json!({}))), "1"),
        (of("batch/v1", "Job", job(json!({"parallelism": 4}))), "4"),
        (of("batch/v1", "Job", job(json!({"parallelism": 4, "completions": 2}))), "2"),
        (of("batch/v1", "Job", job(json!({"completions": 5}))), "1"),
        (
            of(
                "jobset.x-k8s.io/v1alpha2",
                "JobSet",
                json!({"replicatedJobs": [
                    {"replicas": 2, "template": {"spec": job(json!({"parallelism": 3}))}}, {"template": {"spec": job(json!({}))}},
                ]}),
            ),
            "7",
        ),
        (
            of(
                "kubeflow.org/v1",
                "PyTorchJob",
                json!({"pytorchReplicaSpecs": {
                    "Master": {"template": one()}, "Worker": {"replicas": 3, "template": one()},
                }}),
            ),
            "4",
        ),
        (of("ray.io/v1", "RayCluster", ray()), "5"),
        (of("ray.io/v1", "RayJob", json!({"rayClusterSpec": ray()})), "5"),
        (of("ray.io/v1alpha1", "RayCluster", ray()), "0"),
        (of("apps/v1", "DaemonSet", job(json!({"replicas": 4}))), "0"),
    ] {
        check_demand(v1beta2("w", component(template), ""), [cpu, "0", "0"]);
    }
}

#[test]
fn v1beta2_pods_count_by_the_schedulers_rules_with_limits_for_absent_requests() {
    let spec = json!({
        "containers": [{"resources": {"requests": {"cpu": "0"}, "limits": {"cpu": "8", "memory": "100"}}}],
        "initContainers": [{"resources": {"requests": {"cpu": "2"}}}],
        "overhead": {"cpu": "1"},
    });
    let component = json!([{"template": {"t": {"spec": spec}}, "podSets": [{"path": "template.t", "replicas": 2}]}]);
    check_demand(v1beta2("w", component, ""), ["6", "200", "0"]);
}

#[test]
fn an_object_is_what_its_spec_says_whatever_it_was_read_as() {
    let new = v1beta2("w", json!([]), "Running");
    let as_old = with(new.clone(), "/apiVersion", json!("workload.codeflare.dev/v1beta1"));
    let old = v1beta1("v", generic(spec(json!({"cpu": "1"}))), json!({"state": "Pending"}));
    let as_new = with(old.clone(), "/apiVersion", json!("workload.codeflare.dev/v1beta2"));
    // The API server prunes what the version that it was asked for does not know.
    let pruned = json!({
        "apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper", "metadata": {"name": "v", "namespace": "a"},
    });
    for objects in [
        vec![new.clone(), as_old.clone(), old.clone(), as_new.clone()],
        vec![as_new, old.clone(), as_old, new.clone()],
        vec![old, pruned, new],
    ] {
        check(
            &objects,
            &[
                "mcad_appwrappers{state=\"Running\",version=\"v1beta2\"} 1",
                "mcad_appwrappers{state=\"Pending\",version=\"v1beta1\"} 1",
                "mcad_appwrappers_count{state=\"Pending\"} 1",
                "mcad_requested_cpu_count 1",
                "mcad_appwrapper_requested{appwrapper=\"v\",namespace=\"a\",resource=\"cpu\",unit=\"core\"} 1",
            ],
        );
    }
}

#[test]
fn of_one_name_in_both_groups_the_workload_group_wins() {
    let ours = v1beta1("w", json!([]), json!({"state": "Running"}));
    let other = with(v1beta1("w", json!([]), json!({"state": "Failed"})), "/apiVersion", json!("mcad.ibm.com/v1beta1"));
    for objects in [[ours.clone(), other.clone()], [other, ours]] {
        check(
            &objects,
            &[
                "mcad_appwrappers_count{state=\"Running\"} 1",
                "mcad_appwrappers_count{state=\"Failed\"} 0",
                "mcad_requested_gpu_count 1",
            ],
        );
    }
}

#[test]
fn what_it_is_stands_in_one_line() {
    let old = with(v1beta1("v", json!([]), json!({"state": "Running"})), "/spec/priority", json!(9));
    let labels = json!({"kueue.x-k8s.io/queue-name": "q", "kueue.x-k8s.io/priority-class": "high"});
    let new = with(v1beta2("w", json!([]), "Resetting"), "/metadata/labels", labels);
    let info = |rest: &str| format!("mcad_appwrapper_info{{appwrapper={rest}}} 1");
    check(
        &[old, new, v1beta1("x", json!([]), json!({}))],
        &[
            &info("\"v\",namespace=\"a\",priority=\"9\",queue=\"\",state=\"Running\",version=\"v1beta1\""),
            &info("\"w\",namespace=\"a\",priority=\"high\",queue=\"q\",state=\"Resetting\",version=\"v1beta2\""),
            &info("\"x\",namespace=\"a\",priority=\"0\",queue=\"\",state=\"\",version=\"v1beta1\""),
        ],
    );
}

#[test]
fn pods_belong_to_the_appwrapper_that_their_labels_name() {
    let labelled = |name: &str, labels: Value| with(pod(name, "n", json!({"cpu": "1"})), "/metadata/labels", labels);
    let pods = [
        labelled("a", json!({"workload.codeflare.dev/appwrapper": "w", "appwrapper.mcad.ibm.com": "v"})),
        labelled("b", json!({"workload.codeflare.dev/appwrapper": "", "appwrapper.mcad.ibm.com": "w"})),
        labelled("c", json!({"appwrapper.mcad.ibm.com": "w", "appwrapper.mcad.ibm.com/namespace": "b"})),
        labelled("d", json!({"appwrappers.mcad.ibm.com": "w"})),
        labelled("e", json!({"appwrapper.mcad.ibm.com": "of-nobody"})),
    ];
    let objects = [&pods[..], &[node("n", json!({"cpu": "8"})), v1beta2("w", json!([]), "Running")]].concat();
    check(
        &objects,
        &[
            &line("allocated", "cpu", "2"),
            "mcad_node_requested{node=\"n\",owner=\"appwrapper\",resource=\"cpu\",unit=\"core\"} 4",
            "mcad_node_requested{node=\"n\",owner=\"other\",resource=\"cpu\",unit=\"core\"} 1",
        ],
    );
}

#[test]
fn waiting_is_what_neither_runs_nor_may_run() {
    let waits = |appwrapper: Value| {
        let text = print(vec![mcad_testkit::build::object(&appwrapper)], &Options::default());
        text.contains("mcad_appwrapper_fit{appwrapper=\"w\",by=\"aggregate\"")
    };
    let old = |status: Value| v1beta1("w", json!([]), status);
    assert!(waits(old(json!({}))));
    assert!(waits(old(json!({"state": "Pending"}))));
    assert!(!waits(old(json!({"state": "Pending", "canrun": true}))));
    assert!(!waits(old(json!({"state": "Running"}))));
    for (phase, expected) in
        [("", true), ("Suspended", true), ("Resuming", false), ("Running", false), ("Suspending", false)]
    {
        assert_eq!(waits(v1beta2("w", json!([]), phase)), expected, "{phase}");
    }
}

#[test]
fn waiting_runs_from_when_it_was_first_queued() {
    // NOW_MS is 2026-01-05T10:00:00Z.
    assert_eq!(NOW_MS % 1000, 0);
    let created =
        with(v1beta1("w", json!([]), json!({})), "/metadata/creationTimestamp", json!("2026-01-05T09:59:00Z"));
    let queued = with(created.clone(), "/status/controllerfirsttimestamp", json!("2026-01-05T09:59:58.750000Z"));
    let waiting =
        |seconds: &str| format!("mcad_appwrapper_waiting_seconds{{appwrapper=\"w\",namespace=\"a\"}} {seconds}");
    check(&[created], &[&waiting("60")]);
    check(&[queued], &[&waiting("1.25")]);
    check(&[v1beta1("w", json!([]), json!({}))], &["mcad_appwrapper_waiting_seconds absent"]);
}

fn wants(name: &str, gpus: u32, status: Value) -> Value {
    v1beta1(name, generic(spec(json!({"nvidia.com/gpu": gpus.to_string()}))), status)
}

#[test]
fn what_mcad_promised_to_others_and_does_not_see_running_is_not_available() {
    let eight = node("n", json!({"nvidia.com/gpu": "8"}));
    let promised = |state: &str| wants("x", 6, json!({"state": state, "canrun": true}));
    let running = |phase: &str| {
        let pod = with(pod("p", "n", json!({"nvidia.com/gpu": "2"})), "/status/phase", json!(phase));
        with(pod, "/metadata/labels", json!({"appwrapper.mcad.ibm.com": "x"}))
    };
    let fits = |yes: u8| format!("mcad_appwrapper_fit{{appwrapper=\"w\",by=\"aggregate\",namespace=\"a\"}} {yes}");
    let check = |objects: &[Value], fit: u8, shortfall: &str| {
        mcad_testkit::check(objects, &[&fits(fit), &line("shortfall", "nvidia_com_gpu", shortfall)]);
    };
    check(&[eight.clone(), promised("Pending"), wants("w", 4, json!({}))], 0, "2");
    // Two of the six run: they are out of the sum already, and of the promise.
    check(&[eight.clone(), promised("Running"), running("Running"), wants("w", 4, json!({}))], 0, "2");
    // Succeeded pods no longer hold anything, and are owed nothing.
    check(&[eight.clone(), promised("Running"), running("Succeeded"), wants("w", 4, json!({}))], 1, "absent");
    check(&[eight.clone(), promised("Running"), running("Pending"), wants("w", 4, json!({}))], 0, "4");
    // Nothing available is 0, never less.
    check(&[eight, wants("x", 60, json!({"canrun": true})), wants("w", 4, json!({}))], 0, "4");
}

#[test]
fn a_fit_needs_all_three_dimensions_and_shortfall_names_those_that_miss() {
    let small = node("n", json!({"cpu": "1", "memory": "10", "nvidia.com/gpu": "8"}));
    let wanting = spec(json!({"cpu": "1500m", "memory": "10", "nvidia.com/gpu": "9"}));
    check(
        &[small, v1beta1("w", generic(wanting), json!({}))],
        &[
            "mcad_appwrapper_fit{appwrapper=\"w\",by=\"aggregate\",namespace=\"a\"} 0",
            &line("shortfall", "cpu", "0.5"),
            &line("shortfall", "nvidia_com_gpu", "1"),
            &line("shortfall", "memory", "absent"),
        ],
    );
}

#[test]
fn one_undecodable_appwrapper_is_an_error_with_the_field() {
    let wrong = json!({"metadata": {"name": "w", "namespace": "a"}, "spec": {"resources": {"GenericItems": [{}, {"custompodresources": 5}]}}});
    let error = decode(Kind::AppWrapper, wrong).unwrap_err();
    assert_eq!(error.to_string(), "AppWrapper a/w: field `spec.resources.GenericItems[1].custompodresources`");
    let nameless = decode(Kind::AppWrapper, json!([])).unwrap_err();
    assert!(nameless.to_string().contains("metadata.name"), "{nameless}");
}
