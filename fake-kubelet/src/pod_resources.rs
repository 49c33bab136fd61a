//! Kubelet's PodResources API v1 over a unix socket, on a thread of its own: it says what it was told to say.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mcad_wire::pod_resources::{
    AllocatableResourcesResponse, ContainerDevices, ContainerResources, GET_ALLOCATABLE_RESOURCES, LIST,
    ListPodResourcesResponse, PodResources, ResourcesRequest,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

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
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
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
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let shared = Arc::new(Shared { says: Mutex::new(says), ..Shared::default() });
        let listener = std::os::unix::net::UnixListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let here = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("kubelet".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = listen(listener, here) => {}
                }
            });
        })?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
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

impl Drop for PodResourcesServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server was printed by it.
            let _ = thread.join();
        }
    }
}

async fn listen(listener: std::os::unix::net::UnixListener, shared: Arc<Shared>) {
    let Ok(listener) = UnixListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(stream: UnixStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    // The client going away is no error of ours.
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: hyper::Request<Incoming>, shared: &Shared) -> hyper::Response<tonic::body::Body> {
    let says = shared.says.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if says.silent {
        std::future::pending::<()>().await;
    }
    let method = request.uri().path().to_owned();
    let error = says.errors.iter().find(|(name, _)| method.ends_with(name)).map(|(_, code)| *code);
    match (method.as_str(), error) {
        (_, Some(code)) => Status::new(code, "as it was told").into_http(),
        (LIST, None) => Grpc::new(ProstCodec::default()).unary(Answers(says.pods), request).await,
        (GET_ALLOCATABLE_RESOURCES, None) => {
            Grpc::new(ProstCodec::default()).unary(Answers(says.allocatable), request).await
        }
        _ => Status::unimplemented("no such method").into_http(),
    }
}

/// Always the same answer.
struct Answers<Answer>(Answer);

impl<Answer: Clone> tonic::server::UnaryService<ResourcesRequest> for Answers<Answer> {
    type Response = Answer;
    type Future = Ready<Result<Response<Answer>, Status>>;

    fn call(&mut self, _: Request<ResourcesRequest>) -> Self::Future {
        ready(Ok(Response::new(self.0.clone())))
    }
}
