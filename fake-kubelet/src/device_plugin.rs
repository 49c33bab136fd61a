//! A device plugin without devices: it registers with kubelet, lists the devices it is given, and responds to
//! allocations. [`crate::inventory`] decides which devices there are.

use std::future::{Ready, ready};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::device_plugin_api::{
    ALLOCATE, AllocateRequest, AllocateResponse, ContainerAllocateResponse, Device, DevicePluginOptions, Empty,
    GET_DEVICE_PLUGIN_OPTIONS, LIST_AND_WATCH, ListAndWatchResponse, REGISTER, RegisterRequest, VERSION, call,
};
use crate::unix_server::{self, Answers, UnixServer};

/// The variable that tells a container's runtime which GPUs belong to the container.
pub const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";

/// The plugin of one resource. It serves until it is dropped.
#[derive(Debug)]
pub struct DevicePlugin {
    directory: PathBuf,
    endpoint: String,
    resource: String,
    devices: watch::Sender<Vec<Device>>,
    _server: UnixServer,
}

#[derive(Debug)]
struct Shared {
    devices: watch::Receiver<Vec<Device>>,
}

impl DevicePlugin {
    /// Serves these devices in kubelet's directory of plugins, where kubelet connects after the registration.
    ///
    /// # Errors
    ///
    /// The socket could not be opened.
    pub fn start(directory: &Path, resource: &str, devices: Vec<Device>) -> io::Result<Self> {
        let endpoint = format!("{}.sock", resource.replace(['/', '.'], "-"));
        let (devices, listed) = watch::channel(devices);
        let server = UnixServer::start(&directory.join(&endpoint), Arc::new(Shared { devices: listed }))?;
        Ok(Self { directory: directory.to_owned(), endpoint, resource: resource.to_owned(), devices, _server: server })
    }

    /// Registers with kubelet, whose socket is in the same directory.
    ///
    /// # Errors
    ///
    /// Kubelet cannot be reached, or rejects the registration.
    pub fn register(&self) -> Result<(), Status> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Status::internal(error.to_string()))?;
        let request = RegisterRequest {
            version: VERSION.to_owned(),
            endpoint: self.endpoint.clone(),
            resource_name: self.resource.clone(),
            options: Some(DevicePluginOptions::default()),
        };
        runtime.block_on(call::<_, Empty>(&self.directory.join(crate::kubelet::SOCKET), REGISTER, request))?;
        Ok(())
    }

    /// Whether the socket still exists: a kubelet that starts removes all of them.
    pub fn is_reachable(&self) -> bool {
        self.directory.join(&self.endpoint).exists()
    }

    /// Sets the devices. Kubelet is notified if the devices or their health changed.
    pub fn list(&self, devices: Vec<Device>) {
        self.devices.send_if_modified(|listed| {
            let modified = *listed != devices;
            *listed = devices;
            modified
        });
    }
}

impl Answers for Shared {
    async fn answer(self: Arc<Self>, call: unix_server::Call) -> unix_server::Answer {
        let method = call.uri().path().to_owned();
        match &*method {
            GET_DEVICE_PLUGIN_OPTIONS => Grpc::new(ProstCodec::default()).unary(Options, call).await,
            LIST_AND_WATCH => {
                Grpc::new(ProstCodec::default()).server_streaming(Listing(self.devices.clone()), call).await
            }
            ALLOCATE => {
                let known = self.devices.borrow().iter().map(|device| device.id.clone()).collect();
                Grpc::new(ProstCodec::default()).unary(Allocation { known }, call).await
            }
            _ => Status::unimplemented("no such method").into_http(),
        }
    }
}

struct Options;

impl UnaryService<Empty> for Options {
    type Response = DevicePluginOptions;
    type Future = Ready<Result<Response<DevicePluginOptions>, Status>>;

    fn call(&mut self, _: Request<Empty>) -> Self::Future {
        ready(Ok(Response::new(DevicePluginOptions::default())))
    }
}

struct Listing(watch::Receiver<Vec<Device>>);

impl ServerStreamingService<Empty> for Listing {
    type Response = ListAndWatchResponse;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<Empty>) -> Self::Future {
        // The first item is the current list.
        let lists = WatchStream::new(self.0.clone()).map(|devices| Ok(ListAndWatchResponse { devices }));
        ready(Ok(Response::new(Box::pin(lists))))
    }
}

struct Allocation {
    known: Vec<String>,
}

impl UnaryService<AllocateRequest> for Allocation {
    type Response = AllocateResponse;
    type Future = Ready<Result<Response<AllocateResponse>, Status>>;

    fn call(&mut self, request: Request<AllocateRequest>) -> Self::Future {
        let containers = request.into_inner().container_requests;
        let unknown = containers.iter().flat_map(|container| &container.device_ids).find(|id| !self.known.contains(id));
        if let Some(id) = unknown {
            return ready(Err(Status::invalid_argument(format!("no device {id}"))));
        }
        let allocate = |ids: &[String]| {
            let mut uuids: Vec<&str> =
                ids.iter().map(|id| id.split_once("::").map_or(&**id, |(uuid, _)| uuid)).collect();
            // Replicas of one device are the same device.
            uuids.dedup();
            let envs = [(VISIBLE_DEVICES.to_owned(), uuids.join(","))].into();
            ContainerAllocateResponse { envs }
        };
        let container_responses = containers.iter().map(|container| allocate(&container.device_ids)).collect();
        ready(Ok(Response::new(AllocateResponse { container_responses })))
    }
}
