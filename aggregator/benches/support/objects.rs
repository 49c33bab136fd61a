//! The cluster that is measured: its objects as an API server sends them. No two pods have identical kept fields.
use mcad_accounting::object::{Kind, Object, decode};
use serde_json::{Value, json};

/// A Pod with the fields, the labels and the `managedFields` of one in a cluster: 14 KB.
const POD: &str = include_str!("pod.json");

/// How pods are spread over nodes and AppWrappers.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) nodes: usize,
    pub(crate) pods_per_node: usize,
    /// Each of this many AppWrappers has the same number of pods.
    pub(crate) appwrappers: usize,
}

pub(crate) fn node_name(at: usize) -> String {
    format!("gpu-node-{at:05}.eu-west-1.compute.internal")
}

/// Different for any two `at` and without order, like UIDs.
pub(crate) fn uid(at: usize) -> String {
    let mix = |x: u64| (x ^ (x >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(27) ^ x;
    let (high, low) = (mix(mix(at as u64 + 1)), mix(at as u64 * 7 + 3));
    let (b, c, d) = (high >> 16 & 0xffff, high & 0xfff, low >> 48 & 0xfff);
    format!("{:08x}-{b:04x}-4{c:03x}-8{d:03x}-{:012x}", high >> 32, low & 0xffff_ffff_ffff)
}

impl Shape {
    pub(crate) fn pods(self) -> usize {
        self.nodes * self.pods_per_node
    }

    pub(crate) fn pod_name(at: usize) -> String {
        format!("llama-sft-7f9c4-worker-{at}")
    }

    /// The text of one pod.
    pub(crate) fn pod(self, at: usize) -> String {
        let owner = at % self.appwrappers;
        let fields = [
            ("@NAMESPACE", namespace(owner)),
            ("@NAME", Self::pod_name(at)),
            ("@OWNER", format!("llama-sft-{owner}")),
            ("@NODE", node_name(at / self.pods_per_node)),
            ("@UID", uid(at)),
            ("@CPU", format!("{}m", 500 + at % 7 * 250)),
            ("@MEMORY", format!("{}Mi", 512 + at % 11 * 128)),
            ("@GPUS", ["1", "2"][at % 2].to_owned()),
        ];
        fields.iter().fold(POD.to_owned(), |text, (field, value)| text.replace(field, value))
    }
}

pub(crate) fn namespace(owner: usize) -> String {
    format!("team-{}", owner % 50)
}

/// [`node_json`], decoded.
pub(crate) fn node(at: usize, others: &[&str]) -> Object {
    object(node_json(at, others))
}

/// A ready node of 8 GPUs, and 64 of each of `others`, with the labels that GPU nodes in clouds have.
pub(crate) fn node_json(at: usize, others: &[&str]) -> Value {
    let product = ["NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S"][at % 3];
    let amounts = |cpu: &str, memory: &str| {
        let mut amounts = json!({
            "cpu": cpu, "memory": memory, "nvidia.com/gpu": "8", "ephemeral-storage": "3748905484Ki",
            "hugepages-1Gi": "0", "hugepages-2Mi": "0", "pods": "110",
        });
        for other in others {
            amounts[*other] = json!("64");
        }
        amounts
    };
    let labels = json!({
        "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": node_name(at), "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "p4de.24xlarge", "node-role.kubernetes.io/worker": "",
        "topology.kubernetes.io/region": "eu-west-1", "topology.kubernetes.io/zone": format!("eu-west-1{}", ["a", "b", "c"][at / 7 % 3]),
        "nvidia.com/cuda.driver.major": "550", "nvidia.com/gfd.timestamp": format!("17419{at:05}"),
        "nvidia.com/gpu.count": "8", "nvidia.com/gpu.family": "ampere", "nvidia.com/gpu.machine": "p4de.24xlarge",
        "nvidia.com/gpu.memory": "81920", "nvidia.com/gpu.present": "true", "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.replicas": "1", "nvidia.com/mig.capable": "true", "nvidia.com/mig.strategy": "single",
        "rack": format!("rack-{}", at / 16),
    });
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node_name(at), "uid": uid(at + 1_000_000), "labels": labels},
        "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]},
        "status": {
            "capacity": amounts("96", "1176334124Ki"), "allocatable": amounts("95690m", "1162887980Ki"),
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// Decodes what was made here.
pub(crate) fn object(json: Value) -> Object {
    let kind = Kind::named(json["apiVersion"].as_str().unwrap(), json["kind"].as_str().unwrap()).unwrap();
    decode(kind, json).unwrap()
}
