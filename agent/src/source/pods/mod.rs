//! What kubelet assigned: its PodResources API v1 over a unix socket. One connection is kept, and opened again when it
//! breaks.
//!
//! Kubelet lists pods by name, without UID and phase, and older versions list pods that have ended. This source cannot
//! know whether such a pod still runs; the aggregator, which knows the pods, drops the others.

mod held;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use mcad_wire::pod_resources::{
    AllocatableResourcesResponse, ClaimResource, ContainerDevices, DynamicResource, GET_ALLOCATABLE_RESOURCES, LIST,
    ListPodResourcesResponse, ResourcesRequest,
};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use self::held::HeldTotals;
use super::{ReadAssignments, SourceError};
use crate::sample::assignment::{AssignmentSample, ClaimedDevice, DeviceIds, HeldBy, Holder};
use crate::sample::{Moment, Reason};
use crate::vendor;

/// Default path of kubelet's socket.
pub const DEFAULT_SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// Limit of a response's size, the same as in kubelet's own clients.
const ANSWER_AT_MOST: usize = 16 * 1024 * 1024;

/// Limit of containers times resources or claimed devices in one sample. A node has at most some hundred pods.
const HOLDERS_AT_MOST: usize = 4096;

/// Limit of ids of one resource: seven MIG instances of sixteen GPUs, each with fifty replicas, and some more.
const IDS_AT_MOST: usize = 8192;

/// Where the socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// At this path; an error if it does not exist.
    At(PathBuf),
    /// At kubelet's default path. If it never existed, there is no kubelet.
    Default,
}

/// Queries kubelet.
pub struct PodResources {
    socket: PathBuf,
    /// Whether a missing socket is an error.
    expected: bool,
    deadline: Duration,
    /// Opened when it is first needed. The runtime runs the connection only during a call, because there is nothing to
    /// do in between.
    connection: Option<(Runtime, Grpc<Channel>)>,
    held: HeldTotals,
}

/// Why kubelet could not be queried.
#[derive(Debug, thiserror::Error)]
pub enum PodsError {
    /// There is no socket.
    #[error("cannot access kubelet's socket {}", path.display())]
    Socket {
        /// Path of the socket.
        path: PathBuf,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// The client could not be created.
    #[error("cannot create a client for kubelet")]
    Client {
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// The path cannot be used as an address.
    #[error("{} is not a valid path of a socket", path.display())]
    Address {
        /// The path.
        path: PathBuf,
        /// The error.
        #[source]
        source: tonic::transport::Error,
    },
    /// No response in time.
    #[error("kubelet does not respond to {method} in time")]
    Timeout {
        /// The method that was called.
        method: &'static str,
    },
    /// No connection, or the response is an error.
    #[error("the call {method} of kubelet failed")]
    Call {
        /// The method that was called.
        method: &'static str,
        /// The error that was returned.
        #[source]
        source: Box<Status>,
    },
    /// The response has more entries than a node can have.
    #[error("kubelet lists more {what} than a node can have")]
    TooMany {
        /// The kind of entries.
        what: &'static str,
    },
}

impl PodsError {
    /// The reason in reports and metrics, from a bounded set.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Socket { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Reason::NotFound,
                io::ErrorKind::PermissionDenied => Reason::NotPermitted,
                _ => Reason::Io,
            },
            Self::Client { .. } | Self::Address { .. } => Reason::Io,
            Self::Timeout { .. } => Reason::Timeout,
            Self::Call { source, .. } => match source.code() {
                Code::DeadlineExceeded => Reason::Timeout,
                Code::PermissionDenied => Reason::NotPermitted,
                Code::OutOfRange => Reason::Malformed,
                _ => Reason::Kubelet,
            },
            Self::TooMany { .. } => Reason::Malformed,
        }
    }
}

impl PodResources {
    /// Queries this socket, and waits this long for both responses together.
    pub fn new(socket: &Socket, deadline: Duration) -> Self {
        let (socket, expected) = match socket {
            Socket::At(path) => (path.clone(), true),
            Socket::Default => (PathBuf::from(DEFAULT_SOCKET), false),
        };
        Self { socket, expected, deadline, connection: None, held: HeldTotals::default() }
    }

    /// A kept connection may have broken meanwhile, because kubelet was restarted. That shows only when it is used.
    fn ask_again_if_broken(&mut self) -> Result<(ListPodResourcesResponse, AllocatableResourcesResponse), PodsError> {
        let kept = self.connection.is_some();
        let answers = match self.ask() {
            Err(PodsError::Call { source, .. }) if kept && is_broken(&source) => {
                self.connection = None;
                self.ask()
            }
            answers => answers,
        };
        answers.inspect_err(|_| self.connection = None)
    }

    fn ask(&mut self) -> Result<(ListPodResourcesResponse, AllocatableResourcesResponse), PodsError> {
        let (runtime, client) = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.socket)?),
        };
        let deadline = self.deadline;
        runtime.block_on(async {
            // One deadline for both calls: kubelet responds to each within milliseconds.
            let list = call(client, "List", LIST);
            let list = timeout(deadline, list).await.unwrap_or(Err(PodsError::Timeout { method: "List" }))?;
            let method = "GetAllocatableResources";
            let allocatable = call(client, method, GET_ALLOCATABLE_RESOURCES);
            match timeout(deadline, allocatable).await.unwrap_or(Err(PodsError::Timeout { method })) {
                // Before 1.23 kubelet has no such method; up to 1.27 it may be switched off.
                Err(PodsError::Call { source, .. }) if source.code() == Code::Unimplemented => {
                    Ok((list, AllocatableResourcesResponse::default()))
                }
                allocatable => Ok((list, allocatable?)),
            }
        })
    }
}

impl ReadAssignments for PodResources {
    fn read(&mut self, at: Moment) -> Result<Option<AssignmentSample>, SourceError> {
        if let Err(source) = std::fs::metadata(&self.socket) {
            if source.kind() == io::ErrorKind::NotFound && !self.expected {
                return Ok(None);
            }
            return Err(PodsError::Socket { path: self.socket.clone(), source }.into());
        }
        self.expected = true;
        let (list, allocatable) = self.ask_again_if_broken()?;
        let assigned = self.held.note(holders(list)?, at.uptime_ns);
        let allocatable = devices(allocatable.devices)?.into_iter();
        let allocatable = allocatable.map(|(resource, device_ids)| DeviceIds { resource, device_ids }).collect();
        Ok(Some(AssignmentSample { assigned, allocatable }))
    }
}

fn connect(socket: &Path) -> Result<(Runtime, Grpc<Channel>), PodsError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| PodsError::Client { source })?;
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
        .map_err(|source| PodsError::Address { path: socket.to_owned(), source })?;
    // Connects with the first call, and again when the connection broke.
    let channel = runtime.block_on(async { endpoint.connect_lazy() });
    Ok((runtime, Grpc::new(channel).max_decoding_message_size(ANSWER_AT_MOST)))
}

async fn call<Answer>(client: &mut Grpc<Channel>, method: &'static str, path: &'static str) -> Result<Answer, PodsError>
where
    Answer: prost::Message + Default + 'static,
{
    let failed = |status: Status| PodsError::Call { method, source: Box::new(status) };
    client.ready().await.map_err(|error| failed(Status::from_error(error.into())))?;
    let codec = ProstCodec::<ResourcesRequest, Answer>::default();
    let answer = client.unary(Request::new(ResourcesRequest {}), PathAndQuery::from_static(path), codec).await;
    answer.map(tonic::Response::into_inner).map_err(failed)
}

/// Whether the connection failed, and not the call itself.
fn is_broken(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
}

/// Which container holds which devices.
fn holders(list: ListPodResourcesResponse) -> Result<BTreeMap<Holder, Vec<String>>, PodsError> {
    let mut holders = BTreeMap::new();
    for pod in list.pod_resources {
        for container in pod.containers {
            let of_resources = devices(container.devices)?.into_iter();
            let of_resources = of_resources.map(|(resource, ids)| (HeldBy::Resource(resource), ids));
            let claimed = container.dynamic_resources.into_iter().flat_map(claimed_devices);
            let claimed = claimed.map(|device| (HeldBy::Claim(device), Vec::new()));
            for (by, device_ids) in of_resources.chain(claimed) {
                let (namespace, pod, container) = (pod.namespace.clone(), pod.name.clone(), container.name.clone());
                holders.insert(Holder { namespace, pod, container, by }, device_ids);
                if holders.len() > HOLDERS_AT_MOST {
                    return Err(PodsError::TooMany { what: "containers" });
                }
            }
        }
    }
    Ok(holders)
}

/// Devices by resource: kubelet has an entry for each NUMA node, or for each device.
fn devices(entries: Vec<ContainerDevices>) -> Result<BTreeMap<String, Vec<String>>, PodsError> {
    let mut resources: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in entries.into_iter().filter(|entry| vendor::is_resource(&entry.resource_name)) {
        let ids = resources.entry(entry.resource_name).or_default();
        ids.extend(entry.device_ids);
        if ids.len() > IDS_AT_MOST {
            return Err(PodsError::TooMany { what: "devices" });
        }
    }
    for ids in resources.values_mut() {
        ids.sort_unstable();
        ids.dedup();
    }
    resources.retain(|_, ids| !ids.is_empty());
    Ok(resources)
}

/// The devices of a claim that belong to a known vendor. An entry without a device name is not a device: the API leaves
/// room for other kinds.
fn claimed_devices(claim: DynamicResource) -> impl Iterator<Item = ClaimedDevice> {
    let DynamicResource { claim_name, claim_namespace, claim_resources } = claim;
    let of_gpus = |of: &ClaimResource| vendor::is_claim_driver(&of.driver_name) && !of.device_name.is_empty();
    claim_resources.into_iter().filter(of_gpus).map(move |of| ClaimedDevice {
        claim_namespace: claim_namespace.clone(),
        claim: claim_name.clone(),
        driver: of.driver_name,
        pool: of.pool_name,
        device: of.device_name,
        share_id: of.share_id,
    })
}

impl std::fmt::Debug for PodResources {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PodResources").field("socket", &self.socket).finish_non_exhaustive()
    }
}
