//! What kubelet handed out: its PodResources API v1 over a unix socket. One connection is kept, and made anew when it
//! breaks.
//!
//! Kubelet lists pods by name, without UID and phase, and older ones list pods that have ended. Whether such a pod still
//! runs is not this source's to know: whoever knows the pods drops the rest.

mod held;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use mcad_wire::pod_resources::{
    AllocatableResourcesResponse, ContainerDevices, GET_ALLOCATABLE_RESOURCES, LIST, ListPodResourcesResponse,
    ResourcesRequest,
};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use self::held::Held;
use super::{ReadAssignments, SourceError};
use crate::sample::assignment::{AssignmentSample, DeviceIds, Holder};
use crate::sample::{Moment, Reason};

/// Where kubelet's socket is, unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// Whose devices are reported: a node may have thousands of others (`smarter-devices/fuse`) that say nothing of GPUs.
const RESOURCE_PREFIX: &str = "nvidia.com/";

/// The largest answer that is read: kubelet's own clients take as much.
const ANSWER_AT_MOST: usize = 16 * 1024 * 1024;

/// Containers and resources in one sample. A node has at most some hundred pods.
const HOLDERS_AT_MOST: usize = 4096;

/// Ids that one resource may have: seven MIG instances of sixteen GPUs, each for fifty replicas, and some.
const IDS_AT_MOST: usize = 8192;

/// Where the socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// Here, and it is an error if it is not.
    At(PathBuf),
    /// Where kubelet has it. If it was never there, there is no kubelet.
    Default,
}

/// Asks kubelet.
pub struct PodResources {
    socket: PathBuf,
    /// A socket that is missing is an error.
    expected: bool,
    deadline: Duration,
    /// Made when it is first needed. The runtime drives the connection only while it is asked: nothing else is to do.
    connection: Option<(Runtime, Grpc<Channel>)>,
    held: Held,
}

/// Why kubelet could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum PodsError {
    /// There is no socket.
    #[error("find {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The client could not be set up.
    #[error("set up a client of kubelet")]
    Client {
        /// What was refused.
        #[source]
        source: io::Error,
    },
    /// The path is no address.
    #[error("{} is no address of a socket", path.display())]
    Address {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// No answer in time.
    #[error("kubelet does not answer {method} in time")]
    Timeout {
        /// What was asked.
        method: &'static str,
    },
    /// No connection, or an error for an answer.
    #[error("ask kubelet for {method}")]
    Call {
        /// What was asked.
        method: &'static str,
        /// What came back.
        #[source]
        source: Box<Status>,
    },
    /// The answer has more entries than a node can have.
    #[error("kubelet lists more {what} than a node has")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
}

impl PodsError {
    /// The bounded reason that reports and metrics carry.
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
    /// Asks at this socket, and waits this long for both answers together.
    pub fn new(socket: &Socket, deadline: Duration) -> Self {
        let (socket, expected) = match socket {
            Socket::At(path) => (path.clone(), true),
            Socket::Default => (PathBuf::from(DEFAULT_SOCKET), false),
        };
        Self { socket, expected, deadline, connection: None, held: Held::default() }
    }

    /// A connection that was kept may have broken since, which shows only when it is used: kubelet was restarted.
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
            // One deadline for both: kubelet answers each within milliseconds.
            let list = call(client, "List", LIST);
            let list = timeout(deadline, list).await.unwrap_or(Err(PodsError::Timeout { method: "List" }))?;
            let method = "GetAllocatableResources";
            let allocatable = call(client, method, GET_ALLOCATABLE_RESOURCES);
            match timeout(deadline, allocatable).await.unwrap_or(Err(PodsError::Timeout { method })) {
                // Before 1.23 kubelet has no such method, to 1.27 it may be switched off.
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

/// Whether it is the connection that failed, and not kubelet that said so.
fn is_broken(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
}

/// Who holds which devices.
fn holders(list: ListPodResourcesResponse) -> Result<BTreeMap<Holder, Vec<String>>, PodsError> {
    let mut holders = BTreeMap::new();
    for pod in list.pod_resources {
        for container in pod.containers {
            for (resource, device_ids) in devices(container.devices)? {
                let (namespace, pod, container) = (pod.namespace.clone(), pod.name.clone(), container.name.clone());
                holders.insert(Holder { namespace, pod, container, resource }, device_ids);
                if holders.len() > HOLDERS_AT_MOST {
                    return Err(PodsError::TooMany { what: "containers" });
                }
            }
        }
    }
    Ok(holders)
}

/// Devices by resource: kubelet makes an entry for each NUMA node, or for each device.
fn devices(entries: Vec<ContainerDevices>) -> Result<BTreeMap<String, Vec<String>>, PodsError> {
    let mut resources: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in entries.into_iter().filter(|entry| entry.resource_name.starts_with(RESOURCE_PREFIX)) {
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

impl std::fmt::Debug for PodResources {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PodResources").field("socket", &self.socket).finish_non_exhaustive()
    }
}
