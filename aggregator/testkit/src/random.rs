//! Random objects as JSON, so that a test can read them by its own rules. A strategy is a large value; the strategies for objects are
//! boxed, because several of them would overflow the stack of a test.
use mcad_wire::report::{Assignment, Assignments, Cgroup, Cgroups, Gpu, Gpus, Machine, Report};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Spellings of CPU amounts, and their value in millicores, rounded up.
pub const CPU: &[(&str, i128)] =
    &[("0", 0), ("1", 1000), ("250m", 250), ("0.1", 100), ("1500u", 2), ("3e0", 3000), ("2.0005", 2001), ("8", 8000)];
/// Spellings of memory amounts, and their value in bytes, rounded up.
pub const MEMORY: &[(&str, i128)] = &[
    ("0", 0),
    ("1Gi", 1 << 30),
    ("1.5Ki", 1536),
    ("3G", 3_000_000_000),
    ("100m", 1),
    ("12345678", 12_345_678),
    ("16Gi", 16 << 30),
];
/// Spellings of device counts, and the result of Go's `AsInt64`, 0 if it fails.
pub const DEVICES: &[(&str, i128)] = &[("0", 0), ("1", 1), ("2", 2), ("4000m", 0), ("4.0", 0), ("1e0", 1), ("8", 8)];

/// The amounts of nodes: large enough that most nodes are not overcommitted.
const LARGE_CPU: &[(&str, i128)] = &[("64", 64_000), ("31900m", 31_900), ("2", 2000), ("16.5", 16_500)];
const LARGE_MEMORY: &[(&str, i128)] = &[("512Gi", 512 << 30), ("263429312Ki", 263_429_312 << 10), ("4Gi", 4 << 30)];
const LARGE_DEVICES: &[(&str, i128)] = &[("8", 8), ("16", 16), ("1", 1), ("0", 0), ("4.0", 0)];

/// The value of a spelling in `table`.
pub fn meaning(table: &[(&str, i128)], text: &str) -> i128 {
    let large = [LARGE_CPU, LARGE_MEMORY, LARGE_DEVICES].into_iter().flatten();
    table.iter().chain(large).find(|(spelled, _)| *spelled == text).unwrap().1
}

/// Names of nodes; no cluster has the last of them.
pub const NODES: &[&str] = &["n0", "n1", "n2", "n3", "n4", "nowhere"];

fn one_of(table: &'static [(&'static str, i128)]) -> impl Strategy<Value = &'static str> + Clone {
    proptest::sample::select(table).prop_map(|(text, _)| text)
}

/// A list of quantities in which every entry may be missing.
pub fn quantities() -> impl Strategy<Value = Value> {
    listed(0.8, one_of(CPU), one_of(MEMORY), one_of(DEVICES))
}

fn large_quantities() -> impl Strategy<Value = Value> {
    listed(0.95, one_of(LARGE_CPU), one_of(LARGE_MEMORY), one_of(LARGE_DEVICES))
}

fn listed(
    often: f64,
    cpu: impl Strategy<Value = &'static str>,
    memory: impl Strategy<Value = &'static str> + Clone,
    devices: impl Strategy<Value = &'static str> + Clone,
) -> impl Strategy<Value = Value> {
    use proptest::option::weighted;
    let scratch = weighted(often - 0.6, memory.clone());
    (
        weighted(often, cpu),
        weighted(often, memory),
        weighted(often - 0.5, devices.clone()),
        weighted(0.1, devices),
        scratch,
    )
        .prop_map(|(cpu, memory, gpu, fpga, scratch)| {
            let named = [
                ("cpu", cpu),
                ("memory", memory),
                ("nvidia.com/gpu", gpu),
                ("example.com/fpga", fpga),
                ("ephemeral-storage", scratch),
            ];
            named
                .into_iter()
                .filter_map(|(name, text)| Some((name.to_owned(), text?.into())))
                .collect::<Map<_, _>>()
                .into()
        })
}

fn container() -> impl Strategy<Value = Value> {
    let port = proptest::option::weighted(0.1, 80..83_u16);
    let container = (quantities(), proptest::bool::weighted(0.3), port).prop_map(|(requests, always, port)| {
        let ports: Vec<_> = port.iter().map(|port| json!({"containerPort": port, "hostPort": port})).collect();
        let restart = if always { "Always" } else { "" };
        json!({"resources": {"requests": requests}, "restartPolicy": restart, "ports": ports})
    });
    container.boxed()
}

/// A pod spec without a node.
pub fn pod_spec() -> impl Strategy<Value = Value> {
    let tolerations = prop_oneof![
        Just(json!([])),
        Just(json!([{"operator": "Exists"}])),
        Just(json!([{"key": "team", "value": "a"}])),
        Just(json!([{"key": "nvidia.com/gpu", "operator": "Exists"}])),
    ];
    let selector = prop_oneof![3 => Just(json!({})), 1 => Just(json!({"zone": "a"})), 1 => Just(json!({"zone": "b"}))];
    let overhead = prop_oneof![3 => Just(json!({})), 1 => quantities()];
    let containers = (vec(container(), 0..3), vec(container(), 0..3));
    (containers, overhead, tolerations, selector, 0..2_u8)
        .prop_map(|((containers, init), overhead, tolerations, selector, priority)| {
            json!({
                "priority": priority,
                "containers": containers, "initContainers": init, "overhead": overhead,
                "tolerations": tolerations, "nodeSelector": selector,
            })
        })
        .boxed()
}

/// A pod with one of a few names.
pub fn pod() -> impl Strategy<Value = Value> {
    let owner = prop_oneof![
        3 => Just(json!({})),
        1 => Just(json!({"workload.codeflare.dev/appwrapper": "w0"})),
        1 => Just(json!({"workload.codeflare.dev/appwrapper": "w0", "kueue.x-k8s.io/podset": "w0-1"})),
        1 => Just(json!({"appwrapper.mcad.ibm.com": "w1"})),
        1 => Just(json!({"appwrappers.mcad.ibm.com": "w1"})),
        1 => Just(json!({"appwrapper.mcad.ibm.com": "w1", "appwrapper.mcad.ibm.com/namespace": "a"})),
    ];
    let node = proptest::option::weighted(0.8, proptest::sample::select(NODES));
    let phase = proptest::sample::select(&["Pending", "Running", "Succeeded", "Failed"][..]);
    let nominated = proptest::option::weighted(0.3, proptest::sample::select(NODES));
    (0..10_u8, 0..2_u8, proptest::sample::select(&["a", "b"][..]), owner, (node, nominated), phase, pod_spec()).prop_map(
        |(name, life, namespace, labels, (node, nominated), phase, mut spec)| {
            if let Some(node) = node {
                spec["nodeName"] = node.into();
            }
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("p{name}"), "namespace": namespace, "uid": format!("p{name}-{life}"), "labels": labels},
                "spec": spec, "status": {"phase": phase, "nominatedNodeName": nominated},
            })
        },
    )
    .boxed()
}

/// A node with one of a few names.
pub fn node() -> impl Strategy<Value = Value> {
    let taints = prop_oneof![
        4 => Just(json!([])),
        1 => Just(json!([{"key": "nvidia.com/gpu", "effect": "NoSchedule"}])),
        1 => Just(json!([{"key": "team", "value": "a", "effect": "NoExecute"}])),
        1 => Just(json!([{"key": "team", "value": "a", "effect": "PreferNoSchedule"}])),
    ];
    let zone = proptest::sample::select(&["a", "b"][..]);
    let allocatable = proptest::option::weighted(0.9, large_quantities());
    let cordoned = proptest::bool::weighted(0.2);
    let ready = proptest::sample::select(&["True", "True", "True", "False", "Unknown"][..]);
    (0..NODES.len() - 1, 0..2_u8, taints, zone, large_quantities(), allocatable, cordoned, ready)
        .prop_map(|(at, life, taints, zone, capacity, mut allocatable, cordoned, ready)| {
            if let Some(allocatable) = &mut allocatable {
                allocatable["pods"] = (at + 1).to_string().into();
            }
            let mut status = json!({"capacity": capacity, "conditions": [{"type": "Ready", "status": ready}]});
            if let Some(allocatable) = allocatable {
                status["allocatable"] = allocatable;
            }
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": NODES[at], "uid": format!("n{at}-{life}"), "labels": {"zone": zone}},
                "spec": {"taints": taints, "unschedulable": cordoned},
                "status": status,
            })
        })
        .boxed()
}

/// An AppWrapper with one of a few names, in any group and version.
pub fn appwrapper() -> impl Strategy<Value = Value> {
    let v1 = (vec((0..4_u8, pod_spec()), 0..3), proptest::sample::select(&["", "Pending", "Running", "Completed"][..]));
    let v1 = (v1, any::<bool>(), proptest::bool::weighted(0.3)).prop_map(|((items, state), can_run, mcad)| {
        let items: Vec<_> = items
            .into_iter()
            .map(|(replicas, spec)| json!({"generictemplate": {"spec": {"replicas": replicas, "template": {"spec": spec}}}}))
            .collect();
        let api_version = if mcad { "mcad.ibm.com/v1beta1" } else { "workload.codeflare.dev/v1beta1" };
        json!({
            "apiVersion": api_version, "spec": {"resources": {"GenericItems": items}},
            "status": {"state": state, "canrun": can_run},
        })
    });
    let v2 = (vec((0..4_u8, pod_spec()), 0..3), proptest::sample::select(&["", "Suspended", "Running"][..]), 0..5_u8);
    let v2 = v2.prop_map(|(items, phase, min)| {
        let components: Vec<_> = items
            .into_iter()
            .map(|(replicas, spec)| json!({"podSets": [{"path": "template.t", "replicas": replicas}], "template": {"t": {"spec": spec}}}))
            .collect();
        json!({
            "apiVersion": "workload.codeflare.dev/v1beta2",
            "spec": {"components": components, "schedulingSpec": {"minAvailable": min}}, "status": {"phase": phase},
        })
    });
    (0..3_u8, 0..2_u8, proptest::sample::select(&["a", "b"][..]), prop_oneof![v1, v2])
        .prop_map(|(name, life, namespace, mut appwrapper)| {
            appwrapper["kind"] = "AppWrapper".into();
            appwrapper["metadata"] =
                json!({"name": format!("w{name}"), "namespace": namespace, "uid": format!("w{name}-{life}")});
            appwrapper
        })
        .boxed()
}

/// A report of one of the nodes. It may contain any pods, including pods on other nodes and pods that do not exist.
pub fn report() -> impl Strategy<Value = Report> {
    let cgroup = (0..10_u8, 0..2_u8, 0..20_u64, proptest::option::weighted(0.9, 0..5_000_u64)).prop_map(
        |(pod, life, cpu_s, memory_bytes)| Cgroup {
            id: u64::from(pod) * 2 + u64::from(life) + 1,
            pod_uid: format!("p{pod}-{life}"),
            cpu_ns: Some(cpu_s * 1_000_000_000),
            memory_bytes,
            memory_inactive_file_bytes: Some(7),
            ..Cgroup::default()
        },
    );
    let gpu = (0..3_u8, proptest::option::weighted(0.9, 0..100_u8), proptest::bool::weighted(0.2)).prop_map(
        |(at, percent, broken)| Gpu {
            uuid: format!("GPU-{at}"),
            utilization_ratio: percent.map(|percent| f64::from(percent) / 100.0),
            unhealthy_reasons: if broken { vec!["xid_79".into()] } else { Vec::new() },
            ..Gpu::default()
        },
    );
    let assignment = (0..10_u8, proptest::sample::select(&["a", "b"][..]), btree_set(0..4_u8, 1..3)).prop_map(
        |(pod, namespace, ids)| Assignment {
            namespace: namespace.into(),
            pod: format!("p{pod}"),
            container: "main".into(),
            resource: "nvidia.com/gpu".into(),
            device_ids: ids.into_iter().map(|at| format!("GPU-{at}")).collect(),
            ..Assignment::default()
        },
    );
    // Each entry once: a report with duplicate entries is refused.
    let cgroups = vec(cgroup, 0..8).prop_map(|all| once(all, |cgroup| cgroup.id));
    let gpus = vec(gpu, 0..4).prop_map(|all| once(all, |gpu| gpu.uuid.clone()));
    let assigned = vec(assignment, 0..5).prop_map(|all| once(all, |a| (a.namespace.clone(), a.pod.clone())));
    let cgroups = proptest::option::weighted(0.9, cgroups);
    let (gpus, assigned) = (proptest::option::weighted(0.8, gpus), proptest::option::weighted(0.8, assigned));
    (proptest::sample::select(NODES), 1..6_u64, cgroups, gpus, assigned)
        .prop_map(|(node, sequence, cgroups, gpus, assigned)| Report {
            machine: Some(Machine {
                cpus_online: Some(8),
                cpu_busy_ns: Some(sequence * 30_000_000_000),
                memory_total_bytes: Some(1 << 34),
                memory_free_bytes: Some(1 << 33),
                memory_inactive_file_bytes: Some(0),
            }),
            cgroups: cgroups.map(|cgroups| Cgroups { source: "bpf".into(), cgroups, ..Cgroups::default() }),
            gpus: gpus.map(|devices| Gpus { driver_version: "550".into(), devices, ..Gpus::default() }),
            assignments: assigned.map(|assigned| Assignments { assigned, allocatable: Vec::new() }),
            ..super::build::report(node, sequence)
        })
        .boxed()
}

/// The last value of each key.
fn once<T, K: Ord>(all: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    all.into_iter().map(|one| (key(&one), one)).collect::<std::collections::BTreeMap<_, _>>().into_values().collect()
}

/// Objects of all kinds, no two of one kind, version, namespace and name.
pub fn cluster() -> impl Strategy<Value = Vec<Value>> {
    let any = prop_oneof![3 => node(), 6 => pod(), 2 => appwrapper()];
    vec(any, 0..40).prop_map(|objects| {
        let keyed: std::collections::BTreeMap<String, Value> = objects.into_iter().map(|o| (key(&o), o)).collect();
        keyed.into_values().collect()
    })
}

/// The identity of an object in the API: kind, version, namespace and name.
pub fn key(object: &Value) -> String {
    let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meta = &object["metadata"];
    [of(&object["kind"]), of(&object["apiVersion"]), of(&meta["namespace"]), of(&meta["name"])].join("|")
}
