//! Tests of the source with fake-kubelet, over a unix socket.

use std::path::PathBuf;

use fake_kubelet::PodResourcesServer;
use fake_kubelet::pod_resources::{Allocated, Responses};
use tempfile::TempDir;

use super::*;
use crate::sample::assignment::Assignment;

const SECOND: u64 = 1_000_000_000;

struct Node {
    directory: TempDir,
    server: Option<PodResourcesServer>,
    source: PodResources,
    uptime_ns: u64,
}

impl Node {
    fn new(responses: Responses) -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("kubelet.sock");
        let server = Some(PodResourcesServer::start(&socket, responses).unwrap());
        // For responses that must come, even on a slow machine.
        let source = PodResources::new(&Socket::At(socket), Duration::from_mins(2));
        Self { directory, server, source, uptime_ns: 0 }
    }

    fn server(&self) -> &PodResourcesServer {
        self.server.as_ref().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("kubelet.sock")
    }

    /// A sample ten seconds after the last.
    fn try_read(&mut self) -> Result<AssignmentSample, Reason> {
        self.uptime_ns += 10 * SECOND;
        let at = Moment { unix_ms: 0, uptime_ns: self.uptime_ns };
        self.source.read(at).map(Option::unwrap).map_err(|error| error.reason())
    }

    fn read(&mut self) -> AssignmentSample {
        self.try_read().unwrap()
    }
}

fn said(assigned: &[Assignment]) -> Vec<String> {
    let line = |one: &Assignment| {
        let Holder { namespace, pod, container, by } = &one.holder;
        let what = match by {
            HeldBy::Resource(resource) => format!("{resource} {}", one.device_ids.join(",")),
            HeldBy::Claim(ClaimedDevice { claim_namespace, claim, driver, pool, device, share_id }) => {
                let share = share_id.as_ref().map(|id| format!(" share {id}")).unwrap_or_default();
                format!("{claim_namespace}/{claim} {driver} {pool} {device}{share}")
            }
        };
        format!("{namespace}/{pod}/{container} {what} {}s", one.held_ns / SECOND)
    };
    assigned.iter().map(line).collect()
}

fn two_pods() -> Responses {
    let mut responses = Responses::default();
    responses.assign("ml", "train-0", "main", "nvidia.com/gpu", &["GPU-b", "GPU-a"]);
    responses.assign("ml", "infer", "main", "nvidia.com/mig-1g.10gb", &["MIG-x"]);
    responses.assign("ml", "infer", "side", "nvidia.com/gpu.shared", &["GPU-c::3"]);
    responses.assign("net", "router", "main", "vendor.example/vf", &["0000:01:00.1"]);
    let all = ["GPU-a", "GPU-b", "GPU-c::3"].map(str::to_owned).to_vec();
    responses.allocatable.devices.push(ContainerDevices { resource_name: "nvidia.com/gpu".into(), device_ids: all });
    responses
}

#[test]
fn devices_are_listed_by_container_and_resource_and_held_seconds_add_up() {
    let mut node = Node::new(two_pods());
    node.read();
    let sample = node.read();
    let expected = [
        "ml/infer/main nvidia.com/mig-1g.10gb MIG-x 10s",
        "ml/infer/side nvidia.com/gpu.shared GPU-c::3 10s",
        "ml/train-0/main nvidia.com/gpu GPU-a,GPU-b 20s",
    ];
    assert_eq!(said(&sample.assigned), expected);
    assert_eq!((sample.allocatable.len(), sample.allocatable[0].device_ids.len()), (1, 3));
    assert_eq!(node.server().connections(), 1);
}

fn gpu(device: &str) -> Allocated<'_> {
    Allocated { driver: "gpu.nvidia.com", pool: "gpu-17", device, share_id: None }
}

#[test]
fn each_device_of_a_claim_is_listed_beside_those_of_plugins_and_its_held_seconds_add_up() {
    let mut responses = Responses::default();
    responses.assign("ml", "train-0", "main", "nvidia.com/gpu", &["GPU-a"]);
    responses.assign_claim("ml", "train-0", "main", "train-0-gpus", &[gpu("gpu-1"), gpu("gpu-0")]);
    // A claim that two containers share, and a share of a device.
    let share = Allocated { share_id: Some("5a"), ..gpu("gpu-2") };
    for container in ["main", "side"] {
        responses.assign_claim("ml", "infer", container, "shared", &[share]);
    }
    let mut node = Node::new(responses);
    node.read();
    let expected = [
        "ml/infer/main ml/shared gpu.nvidia.com gpu-17 gpu-2 share 5a 10s",
        "ml/infer/side ml/shared gpu.nvidia.com gpu-17 gpu-2 share 5a 10s",
        "ml/train-0/main nvidia.com/gpu GPU-a 10s",
        "ml/train-0/main ml/train-0-gpus gpu.nvidia.com gpu-17 gpu-0 10s",
        "ml/train-0/main ml/train-0-gpus gpu.nvidia.com gpu-17 gpu-1 10s",
    ];
    assert_eq!(said(&node.read().assigned), expected);
}

#[test]
fn claims_of_other_drivers_and_what_is_no_device_are_not_listed() {
    let mut responses = Responses::default();
    let of = |driver| Allocated { driver, ..gpu("eth1") };
    responses.assign_claim("ml", "a", "main", "net", &[of("dra.net"), of("notnvidia.com"), of("nvidia.com.example")]);
    responses.assign_claim("ml", "a", "main", "other", &[gpu("")]);
    responses.assign_claim(
        "ml",
        "a",
        "main",
        "domain",
        &[Allocated { driver: "compute-domain.nvidia.com", ..gpu("ch-0") }],
    );
    assert_eq!(
        said(&Node::new(responses).read().assigned),
        ["ml/a/main ml/domain compute-domain.nvidia.com gpu-17 ch-0 0s"]
    );
}

#[test]
fn a_pod_that_ended_is_in_no_list_after_it() {
    let mut node = Node::new(two_pods());
    node.read();
    node.server().responses().end("ml", "infer");
    assert_eq!(said(&node.read().assigned), ["ml/train-0/main nvidia.com/gpu GPU-a,GPU-b 20s"]);
}

#[test]
fn nothing_handed_out_is_an_empty_list_and_not_an_unknown_one() {
    assert_eq!(Node::new(Responses::default()).read(), AssignmentSample::default());
}

#[test]
fn a_kubelet_that_restarts_is_asked_again_on_a_new_connection() {
    let mut node = Node::new(two_pods());
    let before = node.read();
    node.server = None;
    assert_eq!(node.try_read(), Err(Reason::Kubelet));
    std::fs::remove_file(node.socket()).unwrap();
    assert_eq!(node.try_read(), Err(Reason::NotFound));
    node.server = Some(PodResourcesServer::start(&node.socket(), two_pods()).unwrap());
    let after = node.read();
    assert_eq!(after.assigned.len(), before.assigned.len());
    // They held their devices while kubelet was away.
    assert_eq!(said(&after.assigned)[2], "ml/train-0/main nvidia.com/gpu GPU-a,GPU-b 60s");
}

#[test]
fn a_restart_between_two_samples_is_not_noticed() {
    let mut node = Node::new(two_pods());
    node.read();
    node.server = None;
    node.server = Some(PodResourcesServer::start(&node.socket(), two_pods()).unwrap());
    assert_eq!(node.read().assigned.len(), 3);
}

#[test]
fn a_kubelet_that_does_not_answer_is_given_up_after_the_deadline() {
    let mut node = Node::new(two_pods());
    node.server().responses().silent = true;
    node.source.deadline = Duration::from_millis(1);
    assert_eq!(node.try_read(), Err(Reason::Timeout));
    node.server().responses().silent = false;
    node.source.deadline = Duration::from_mins(2);
    assert_eq!(node.read().assigned.len(), 3);
}

#[test]
fn errors_of_kubelet_have_their_reasons() {
    let cases = [
        ("List", Code::PermissionDenied, Err(Reason::NotPermitted)),
        ("List", Code::Internal, Err(Reason::Kubelet)),
        ("GetAllocatableResources", Code::Internal, Err(Reason::Kubelet)),
        ("GetAllocatableResources", Code::Unimplemented, Ok(0)),
    ];
    for (method, code, expected) in cases {
        let mut node = Node::new(two_pods());
        node.server().responses().errors = vec![(method, code)];
        assert_eq!(node.try_read().map(|sample| sample.allocatable.len()), expected, "{method} {code}");
        node.server().responses().errors.clear();
        assert_eq!(node.read().assigned.len(), 3);
    }
}

#[test]
fn an_answer_that_is_too_large_is_refused() {
    let mut responses = Responses::default();
    let id = "x".repeat(1 << 20);
    responses.assign("a", "b", "c", "vendor.example/vf", &[&*id; 17]);
    assert_eq!(Node::new(responses).try_read(), Err(Reason::Malformed));
}

#[test]
fn an_answer_says_as_much_as_it_may() {
    let of_containers = |count: usize| {
        let mut responses = Responses::default();
        (0..count).for_each(|number| responses.assign("a", &number.to_string(), "c", "nvidia.com/gpu", &["GPU-1"]));
        Node::new(responses).try_read().map(|sample| sample.assigned.len())
    };
    assert_eq!(of_containers(HOLDERS_AT_MOST), Ok(HOLDERS_AT_MOST));
    assert_eq!(of_containers(HOLDERS_AT_MOST + 1), Err(Reason::Malformed));
    let of_claimed = |count: usize| {
        let mut responses = Responses::default();
        let names: Vec<String> = (0..count).map(|number| format!("gpu-{number}")).collect();
        responses.assign_claim("a", "b", "c", "d", &names.iter().map(|name| gpu(name)).collect::<Vec<_>>());
        Node::new(responses).try_read().map(|sample| sample.assigned.len())
    };
    assert_eq!(of_claimed(HOLDERS_AT_MOST), Ok(HOLDERS_AT_MOST));
    assert_eq!(of_claimed(HOLDERS_AT_MOST + 1), Err(Reason::Malformed));
    let of_devices = |count: usize| {
        let mut responses = Responses::default();
        let ids: Vec<String> = (0..count).map(|id| format!("GPU-{id}")).collect();
        responses.assign("a", "b", "c", "nvidia.com/gpu", &ids.iter().map(String::as_str).collect::<Vec<_>>());
        Node::new(responses).try_read().map(|sample| sample.assigned[0].device_ids.len())
    };
    assert_eq!(of_devices(IDS_AT_MOST), Ok(IDS_AT_MOST));
    assert_eq!(of_devices(IDS_AT_MOST + 1), Err(Reason::Malformed));
}

#[test]
fn without_a_socket_at_the_usual_place_there_is_no_kubelet_and_no_failure() {
    let mut source = PodResources::new(&Socket::Default, Duration::from_mins(2));
    source.socket = "/nonexistent/kubelet.sock".into();
    assert_eq!(source.read(Moment { unix_ms: 0, uptime_ns: 0 }).unwrap(), None);
}
