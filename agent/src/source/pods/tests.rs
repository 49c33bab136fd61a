//! The source against fake-kubelet, over a unix socket.

use std::path::PathBuf;

use fake_kubelet::PodResourcesServer;
use fake_kubelet::pod_resources::Says;
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
    fn new(says: Says) -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("kubelet.sock");
        let server = Some(PodResourcesServer::start(&socket, says).unwrap());
        // For answers that must come, on however slow a machine.
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
        let Holder { namespace, pod, container, resource } = &one.holder;
        format!("{namespace}/{pod}/{container} {resource} {} {}s", one.device_ids.join(","), one.held_ns / SECOND)
    };
    assigned.iter().map(line).collect()
}

fn two_pods() -> Says {
    let mut says = Says::default();
    says.assign("ml", "train-0", "main", "nvidia.com/gpu", &["GPU-b", "GPU-a"]);
    says.assign("ml", "infer", "main", "nvidia.com/mig-1g.10gb", &["MIG-x"]);
    says.assign("ml", "infer", "side", "nvidia.com/gpu.shared", &["GPU-c::3"]);
    says.assign("net", "router", "main", "vendor.example/vf", &["0000:01:00.1"]);
    let all = ["GPU-a", "GPU-b", "GPU-c::3"].map(str::to_owned).to_vec();
    says.allocatable.devices.push(ContainerDevices { resource_name: "nvidia.com/gpu".into(), device_ids: all });
    says
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

#[test]
fn a_pod_that_ended_is_in_no_list_after_it() {
    let mut node = Node::new(two_pods());
    node.read();
    node.server().says().end("ml", "infer");
    assert_eq!(said(&node.read().assigned), ["ml/train-0/main nvidia.com/gpu GPU-a,GPU-b 20s"]);
}

#[test]
fn nothing_handed_out_is_an_empty_list_and_not_an_unknown_one() {
    assert_eq!(Node::new(Says::default()).read(), AssignmentSample::default());
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
    node.server().says().silent = true;
    node.source.deadline = Duration::from_millis(1);
    assert_eq!(node.try_read(), Err(Reason::Timeout));
    node.server().says().silent = false;
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
        node.server().says().errors = vec![(method, code)];
        assert_eq!(node.try_read().map(|sample| sample.allocatable.len()), expected, "{method} {code}");
        node.server().says().errors.clear();
        assert_eq!(node.read().assigned.len(), 3);
    }
}

#[test]
fn an_answer_that_is_too_large_is_refused() {
    let mut says = Says::default();
    let id = "x".repeat(1 << 20);
    says.assign("a", "b", "c", "vendor.example/vf", &[&*id; 17]);
    assert_eq!(Node::new(says).try_read(), Err(Reason::Malformed));
}

#[test]
fn an_answer_says_as_much_as_it_may() {
    let of_containers = |count: usize| {
        let mut says = Says::default();
        (0..count).for_each(|number| says.assign("a", &number.to_string(), "c", "nvidia.com/gpu", &["GPU-1"]));
        Node::new(says).try_read().map(|sample| sample.assigned.len())
    };
    assert_eq!(of_containers(HOLDERS_AT_MOST), Ok(HOLDERS_AT_MOST));
    assert_eq!(of_containers(HOLDERS_AT_MOST + 1), Err(Reason::Malformed));
    let of_devices = |count: usize| {
        let mut says = Says::default();
        let ids: Vec<String> = (0..count).map(|id| format!("GPU-{id}")).collect();
        says.assign("a", "b", "c", "nvidia.com/gpu", &ids.iter().map(String::as_str).collect::<Vec<_>>());
        Node::new(says).try_read().map(|sample| sample.assigned[0].device_ids.len())
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
