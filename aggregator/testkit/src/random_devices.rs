//! Random devices and claims of Dynamic Resource Allocation, on the nodes and for the pods of [`crate::random`]: whole GPUs, the same GPUs
//! in parts and for virtual machines, incomplete pools, and claims for devices that do not exist.
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::random::{self, NODES, key};

/// GPUs per node.
const GPUS: usize = 3;
/// The number of claim names.
const CLAIMS: u8 = 8;

/// One form of a GPU of a node: whole, a part, or for a virtual machine.
fn device(node: usize) -> impl Strategy<Value = Value> {
    let taint = proptest::sample::select(&["", "", "", "gpu.nvidia.com/xid", "example.com/repair", "hint"][..]);
    (0..GPUS, 0..5_u8, taint, proptest::bool::weighted(0.1), proptest::bool::weighted(0.8))
        .prop_map(move |(gpu, form, taint, shareable, says_parent)| {
            let uuid = format!("GPU-{gpu}");
            let counters = |amount: &str| json!([{"counterSet": format!("set-{gpu}"), "counters": {"memory": {"value": amount}}}]);
            let mut device = match form {
                0 | 1 => json!({"name": format!("gpu-{gpu}"), "attributes": {"type": {"string": "gpu"}, "uuid": {"string": uuid}}, "consumesCounters": counters("4")}),
                2 => json!({"name": format!("gpu-vfio-{gpu}"), "attributes": {"type": {"string": "vfio"}, "uuid": {"string": format!("m-{gpu}")}}}),
                part => json!({
                    "name": format!("gpu-{gpu}-mig-{part}g"),
                    "attributes": {"type": {"string": "mig"}, "parentUUID": {"string": uuid}, "profile": {"string": format!("{part}g.5gb")}},
                    "consumesCounters": counters(&(part - 2).to_string()),
                }),
            };
            device["attributes"]["resource.kubernetes.io/pciBusID"] = json!({"string": format!("0000:{node}{gpu}:00.0")});
            // The PCI address shows which GPU a part belongs to, too; and only the PCI address shows which GPU the form for a virtual
            // machine is.
            if !says_parent && let Some(attributes) = device["attributes"].as_object_mut() {
                attributes.remove("parentUUID");
            }
            device["allowMultipleAllocations"] = shareable.into();
            device["taints"] = match taint {
                "" => json!([]),
                "hint" => json!([{"key": "a", "effect": "None"}]),
                key => json!([{"key": key, "effect": "NoSchedule"}]),
            };
            device
        })
        .boxed()
}

/// A slice with one of a few names.
pub fn slice() -> impl Strategy<Value = Value> {
    let version = proptest::sample::select(&["v1", "v1", "v1beta2", "v1beta1"][..]);
    let driver =
        proptest::sample::select(&["gpu.nvidia.com", "gpu.nvidia.com", "gpu.nvidia.com", "net.example.com"][..]);
    (0..NODES.len(), 0..2_u8, driver, 1..3_u8, 1..3_u8, version, 0..8_u8)
        .prop_flat_map(|(node, part, driver, generation, count, version, reach)| {
            vec(device(node), 0..5).prop_map(move |mut devices| {
                // A duplicate name makes the pool invalid, which should happen sometimes, but not always.
                if generation == 1 {
                    devices.sort_by_key(|device| device["name"].to_string());
                    devices.dedup_by_key(|device| device["name"].to_string());
                }
                if version == "v1beta1" {
                    for device in &mut devices {
                        let name = device["name"].take();
                        *device = json!({"name": name, "basic": device.take()});
                    }
                }
                let sets: Vec<_> = (0..GPUS)
                    .map(|gpu| json!({"name": format!("set-{gpu}"), "counters": {"memory": {"value": "4"}}}))
                    .collect();
                let mut spec = json!({
                    "driver": driver, "devices": devices,
                    "pool": {"name": NODES[node], "generation": generation, "resourceSliceCount": count},
                });
                if part == 0 {
                    spec["sharedCounters"] = sets.into();
                }
                match reach {
                    0 => spec["allNodes"] = true.into(),
                    _ => spec["nodeName"] = NODES[node].into(),
                }
                json!({
                    "apiVersion": format!("resource.k8s.io/{version}"), "kind": "ResourceSlice",
                    "metadata": {"name": format!("s{node}{part}"), "uid": format!("s{node}{part}-{generation}")}, "spec": spec,
                })
            })
        })
        .boxed()
}

/// A claim with one of a few names, some of whose devices are listed nowhere.
pub fn claim() -> impl Strategy<Value = Value> {
    let device = (0..GPUS + 1, 0..5_u8).prop_map(|(gpu, form)| match form {
        0 | 1 => format!("gpu-{gpu}"),
        2 => format!("gpu-vfio-{gpu}"),
        part => format!("gpu-{gpu}-mig-{part}g"),
    });
    let result = (device, proptest::bool::weighted(0.1), proptest::bool::weighted(0.1));
    let group = json!({"apiGroup": "scheduling.k8s.io", "resource": "podgroups", "name": "g", "uid": "g"});
    let pod = |(pod, life)| json!({"resource": "pods", "name": format!("p{pod}"), "uid": format!("p{pod}-{life}")});
    let consumer = prop_oneof![6 => (0..10_u8, 0..2_u8).prop_map(pod), 1 => Just(group)];
    let class = proptest::sample::select(&["gpu.nvidia.com", "mig.nvidia.com", "gone.example.com"][..]);
    let labels = prop_oneof![3 => Just(json!({})), 1 => Just(json!({"workload.codeflare.dev/appwrapper": "w0"}))];
    let names = (0..CLAIMS, 0..2_u8, proptest::sample::select(&["a", "b"][..]));
    (names, vec(result, 0..3), vec(consumer, 0..3), class, labels, (0..NODES.len(), 0..6_u8), 0..12_u8)
        .prop_map(|((name, life, namespace), results, consumers, class, labels, (node, bound), extended)| {
            let results: Vec<_> = results
                .into_iter()
                .map(|(device, admin, share)| {
                    let mut result =
                        json!({"request": "r", "driver": "gpu.nvidia.com", "pool": NODES[node], "device": device});
                    if admin {
                        result["adminAccess"] = true.into();
                    }
                    if share {
                        result["shareID"] = "s".into();
                    }
                    result
                })
                .collect();
            let mut allocation = json!({"devices": {"results": results}});
            if bound > 0 {
                let field = json!({"key": "metadata.name", "operator": "In", "values": [NODES[node]]});
                allocation["nodeSelector"] = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
            }
            let mut metadata = json!({
                "name": format!("c{name}"), "namespace": namespace, "uid": format!("c{name}-{life}"), "labels": labels,
            });
            if extended == 0 {
                metadata["annotations"] = json!({"resource.kubernetes.io/extended-resource-claim": "true"});
                metadata["ownerReferences"] =
                    json!([{"kind": "Pod", "controller": true, "uid": format!("p{name}-{life}")}]);
            }
            let request = json!({"name": "r", "exactly": {"deviceClassName": class}});
            let status =
                if extended == 1 { json!({}) } else { json!({"allocation": allocation, "reservedFor": consumers}) };
            json!({
                "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": metadata,
                "spec": {"devices": {"requests": [request]}}, "status": status,
            })
        })
        .boxed()
}

fn class() -> impl Strategy<Value = Value> {
    let name = proptest::sample::select(&["gpu.nvidia.com", "mig.nvidia.com", "other.example.com"][..]);
    let extended =
        proptest::option::weighted(0.5, proptest::sample::select(&["nvidia.com/gpu", "example.com/fpga"][..]));
    (name, extended, 1..4_u8).prop_map(|(name, extended, day)| {
        json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
            "metadata": {"name": name, "uid": name, "creationTimestamp": format!("2026-01-0{day}T00:00:00Z")},
            "spec": {"selectors": [], "extendedResourceName": extended},
        })
    })
}

fn rule() -> impl Strategy<Value = Value> {
    let pool = proptest::option::weighted(0.7, proptest::sample::select(NODES));
    (0..2_u8, pool, proptest::option::of(0..GPUS), proptest::bool::weighted(0.2)).prop_map(|(name, pool, gpu, by_class)| {
        let mut selector = json!({"driver": "gpu.nvidia.com"});
        if let Some(pool) = pool {
            selector["pool"] = pool.into();
        }
        if let Some(gpu) = gpu {
            selector["device"] = format!("gpu-{gpu}").into();
        }
        if by_class {
            selector["deviceClassName"] = "gpu.nvidia.com".into();
        }
        json!({
            "apiVersion": "resource.k8s.io/v1alpha3", "kind": "DeviceTaintRule", "metadata": {"name": format!("r{name}"), "uid": "r"},
            "spec": {"deviceSelector": selector, "taint": {"key": "example.com/repair", "effect": "NoExecute"}},
        })
    })
}

/// A pod that uses claims.
pub fn pod() -> impl Strategy<Value = Value> {
    let covers = proptest::bool::weighted(0.3);
    let by_class = proptest::bool::weighted(0.15);
    (random::pod(), vec((0..CLAIMS, any::<bool>()), 0..3), covers, by_class).prop_map(|(mut pod, claims, covers, by_class)| {
        let mut statuses = Vec::new();
        let mut entries = Vec::new();
        for (at, (claim, named)) in claims.into_iter().enumerate() {
            let claim = format!("c{claim}");
            if named {
                entries.push(json!({"name": at.to_string(), "resourceClaimName": claim}));
            } else {
                entries.push(json!({"name": at.to_string(), "resourceClaimTemplateName": "t"}));
                statuses.push(json!({"name": at.to_string(), "resourceClaimName": claim}));
            }
        }
        pod["spec"]["resourceClaims"] = entries.into();
        pod["status"]["resourceClaimStatuses"] = statuses.into();
        if by_class && let Some(container) = pod["spec"]["containers"].get_mut(0) {
            container["resources"]["requests"]["deviceclass.resource.kubernetes.io/gpu.nvidia.com"] = "1".into();
        }
        if covers {
            pod["status"]["extendedResourceClaimStatus"] =
                json!({"resourceClaimName": "c0", "requestMappings": [{"containerName": "main", "resourceName": "nvidia.com/gpu", "requestName": "r"}]});
        }
        pod
    })
}

/// A Node, a Pod, an AppWrapper, or an object of Dynamic Resource Allocation.
pub fn any_object() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => random::node(), 3 => random::pod(), 3 => pod(), 1 => random::appwrapper(),
        5 => slice(), 5 => claim(), 1 => class(), 1 => rule(),
    ]
}

/// Objects of all kinds, no two of one kind, namespace and name.
pub fn cluster() -> impl Strategy<Value = Vec<Value>> {
    vec(any_object(), 0..50).prop_map(|objects| {
        let keyed: std::collections::BTreeMap<String, Value> = objects.into_iter().map(|o| (place(&o), o)).collect();
        keyed.into_values().collect()
    })
}

/// The key of an object; for objects of Dynamic Resource Allocation it does not include the version.
pub fn place(object: &Value) -> String {
    match object["apiVersion"].as_str() {
        Some(version) if version.starts_with("resource.k8s.io/") => {
            let mut unversioned = object.clone();
            unversioned["apiVersion"] = "resource.k8s.io".into();
            key(&unversioned)
        }
        _ => key(object),
    }
}
