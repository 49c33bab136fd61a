//! Kubelet's PodResources API v1 over a unix socket, on a thread of its own. It returns what it was given.

use std::future::{Ready, ready};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mcad_wire::pod_resources::{
    AllocatableResourcesResponse, ClaimResource, ContainerDevices, ContainerResources, DynamicResource,
    GET_ALLOCATABLE_RESOURCES, LIST, ListPodResourcesResponse, PodResources, ResourcesRequest,
};
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::unix_server::{self, Answers, UnixServer};

/// The responses of the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Responses {
    /// The response to `List`.
    pub pods: ListPodResourcesResponse,
    /// The response to `GetAllocatableResources`.
    pub allocatable: AllocatableResourcesResponse,
    /// Errors to return instead, by method.
    pub errors: Vec<(&'static str, Code)>,
    /// Whether it accepts calls and does not respond.
    pub silent: bool,
}

impl Responses {
    /// Assigns devices to a container, one entry per device as kubelet does it.
    pub fn assign(&mut self, namespace: &str, pod: &str, container: &str, resource: &str, ids: &[&str]) {
        let entry = |id: &&str| ContainerDevices { resource_name: resource.into(), device_ids: vec![(*id).into()] };
        self.container(namespace, pod, container).devices.extend(ids.iter().map(entry));
    }

    /// Gives a container what was allocated to a claim of its pod's namespace.
    pub fn assign_claim(
        &mut self,
        namespace: &str,
        pod: &str,
        container: &str,
        claim: &str,
        allocated: &[Allocated<'_>],
    ) {
        let entry = |device: &Allocated<'_>| ClaimResource {
            driver_name: device.driver.into(),
            pool_name: device.pool.into(),
            device_name: device.device.into(),
            share_id: device.share_id.map(str::to_owned),
        };
        self.container(namespace, pod, container).dynamic_resources.push(DynamicResource {
            claim_name: claim.into(),
            claim_namespace: namespace.into(),
            claim_resources: allocated.iter().map(entry).collect(),
        });
    }

    /// The entry of a container, which is empty at first.
    fn container(&mut self, namespace: &str, pod: &str, name: &str) -> &mut ContainerResources {
        let pods = &mut self.pods.pod_resources;
        let is_it = |listed: &PodResources| (&*listed.namespace, &*listed.name) == (namespace, pod);
        let at = pods.iter().position(is_it).unwrap_or(pods.len());
        if at == pods.len() {
            pods.push(PodResources { name: pod.into(), namespace: namespace.into(), containers: Vec::new() });
        }
        let containers = &mut pods[at].containers;
        let at = containers.iter().position(|listed| listed.name == name).unwrap_or(containers.len());
        if at == containers.len() {
            containers.push(ContainerResources { name: name.into(), ..ContainerResources::default() });
        }
        &mut containers[at]
    }

    /// Ends a pod: it is no longer listed.
    pub fn end(&mut self, namespace: &str, pod: &str) {
        self.pods.pod_resources.retain(|listed| (&*listed.namespace, &*listed.name) != (namespace, pod));
    }
}

/// A device, or a share of one, that was allocated to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocated<'a> {
    /// The driver that offers it.
    pub driver: &'a str,
    /// The driver's pool that contains it.
    pub pool: &'a str,
    /// Its name in the pool.
    pub device: &'a str,
    /// The share of it. `None` if it is the whole device.
    pub share_id: Option<&'a str>,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct PodResourcesServer {
    shared: Arc<Shared>,
    _server: UnixServer,
}

#[derive(Debug, Default)]
struct Shared {
    responses: Mutex<Responses>,
    connections: AtomicU64,
}

impl PodResourcesServer {
    /// Listens at this path, and removes a file that is there.
    ///
    /// # Errors
    ///
    /// The socket could not be opened.
    pub fn start(socket: &Path, responses: Responses) -> io::Result<Self> {
        let shared = Arc::new(Shared { responses: Mutex::new(responses), ..Shared::default() });
        let server = UnixServer::start(socket, Arc::clone(&shared))?;
        Ok(Self { shared, _server: server })
    }

    /// The responses from now on.
    pub fn responses(&self) -> MutexGuard<'_, Responses> {
        self.shared.responses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections were made to the server.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Answers for Shared {
    fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    async fn answer(self: Arc<Self>, call: unix_server::Call) -> unix_server::Answer {
        let responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if responses.silent {
            std::future::pending::<()>().await;
        }
        let method = call.uri().path().to_owned();
        let error = responses.errors.iter().find(|(name, _)| method.ends_with(name)).map(|(_, code)| *code);
        match (method.as_str(), error) {
            (_, Some(code)) => Status::new(code, "the configured error").into_http(),
            (LIST, None) => Grpc::new(ProstCodec::default()).unary(Same(responses.pods), call).await,
            (GET_ALLOCATABLE_RESOURCES, None) => {
                Grpc::new(ProstCodec::default()).unary(Same(responses.allocatable), call).await
            }
            _ => Status::unimplemented("no such method").into_http(),
        }
    }
}

/// Always returns the same response.
struct Same<Answer>(Answer);

impl<Answer: Clone> tonic::server::UnaryService<ResourcesRequest> for Same<Answer> {
    type Response = Answer;
    type Future = Ready<Result<Response<Answer>, Status>>;

    fn call(&mut self, _: Request<ResourcesRequest>) -> Self::Future {
        ready(Ok(Response::new(self.0.clone())))
    }
}
