//! Kubelet's PodResources API v1 over a unix socket, on a thread of its own: it says what it was told to say.

use std::future::{Ready, ready};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mcad_wire::pod_resources::{
    AllocatableResourcesResponse, ContainerDevices, ContainerResources, GET_ALLOCATABLE_RESOURCES, LIST,
    ListPodResourcesResponse, PodResources, ResourcesRequest,
};
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::unix_server::{self, Answers, UnixServer};

/// What the server says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Says {
    /// To `List`.
    pub pods: ListPodResourcesResponse,
    /// To `GetAllocatableResources`.
    pub allocatable: AllocatableResourcesResponse,
    /// Errors instead, by method.
    pub errors: Vec<(&'static str, Code)>,
    /// It takes calls and does not answer.
    pub silent: bool,
}

impl Says {
    /// Gives devices to a container, of one entry each as kubelet does it.
    pub fn assign(&mut self, namespace: &str, pod: &str, container: &str, resource: &str, ids: &[&str]) {
        let entry = |id: &&str| ContainerDevices { resource_name: resource.into(), device_ids: vec![(*id).into()] };
        let devices = ids.iter().map(entry).collect();
        let containers = vec![ContainerResources { name: container.into(), devices }];
        let (name, namespace) = (pod.to_owned(), namespace.to_owned());
        self.pods.pod_resources.push(PodResources { name, namespace, containers });
    }

    /// Ends a pod: it is listed no more.
    pub fn end(&mut self, namespace: &str, pod: &str) {
        self.pods.pod_resources.retain(|listed| (&*listed.namespace, &*listed.name) != (namespace, pod));
    }
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct PodResourcesServer {
    shared: Arc<Shared>,
    _server: UnixServer,
}

#[derive(Debug, Default)]
struct Shared {
    says: Mutex<Says>,
    connections: AtomicU64,
}

impl PodResourcesServer {
    /// Listens at this path; what was there is removed.
    ///
    /// # Errors
    /// The socket could not be opened.
    pub fn start(socket: &Path, says: Says) -> io::Result<Self> {
        let shared = Arc::new(Shared { says: Mutex::new(says), ..Shared::default() });
        let server = UnixServer::start(socket, Arc::clone(&shared))?;
        Ok(Self { shared, _server: server })
    }

    /// What it says from now on.
    pub fn says(&self) -> MutexGuard<'_, Says> {
        self.shared.says.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Answers for Shared {
    fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    async fn answer(self: Arc<Self>, call: unix_server::Call) -> unix_server::Answer {
        let says = self.says.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if says.silent {
            std::future::pending::<()>().await;
        }
        let method = call.uri().path().to_owned();
        let error = says.errors.iter().find(|(name, _)| method.ends_with(name)).map(|(_, code)| *code);
        match (method.as_str(), error) {
            (_, Some(code)) => Status::new(code, "as it was told").into_http(),
            (LIST, None) => Grpc::new(ProstCodec::default()).unary(Same(says.pods), call).await,
            (GET_ALLOCATABLE_RESOURCES, None) => {
                Grpc::new(ProstCodec::default()).unary(Same(says.allocatable), call).await
            }
            _ => Status::unimplemented("no such method").into_http(),
        }
    }
}

/// Always the same answer.
struct Same<Answer>(Answer);

impl<Answer: Clone> tonic::server::UnaryService<ResourcesRequest> for Same<Answer> {
    type Response = Answer;
    type Future = Ready<Result<Response<Answer>, Status>>;

    fn call(&mut self, _: Request<ResourcesRequest>) -> Self::Future {
        ready(Ok(Response::new(self.0.clone())))
    }
}
