//! The part of kubelet between device plugins and PodResources: it accepts registrations, watches the plugins' lists,
//! assigns devices to containers, and reports them. It starts no pods and creates no node object.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Ready, ready};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;
use mcad_wire::pod_resources::ContainerDevices;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::device_plugin_api::{
    ALLOCATE, AllocateRequest, AllocateResponse, ContainerAllocateRequest, Device, Empty, LIST_AND_WATCH,
    ListAndWatchResponse, REGISTER, RegisterRequest, VERSION, call, connect,
};
use crate::pod_resources::{PodResourcesServer, Responses};
use crate::unix_server::{self, Answers, UnixServer};

/// The name of kubelet's socket in its directory of plugins.
pub const SOCKET: &str = "kubelet.sock";

/// The amounts of one resource that a node declares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// All devices that the plugin lists.
    pub capacity: usize,
    /// Those of them that are healthy.
    pub allocatable: usize,
}

/// Why devices were not assigned.
#[derive(Debug)]
pub enum NotAdmitted {
    /// There are not enough healthy devices without a holder.
    TooFew,
    /// The plugin refused, or could not be reached.
    Plugin(Status),
}

/// A kubelet that runs until it is dropped.
#[derive(Debug)]
pub struct Kubelet {
    plugins: Arc<Plugins>,
    _registration: UnixServer,
}

/// The plugins that registered.
#[derive(Debug)]
struct Plugins {
    directory: PathBuf,
    registered: Mutex<BTreeMap<String, Plugin>>,
    changed: Condvar,
    pod_resources: PodResourcesServer,
}

#[derive(Debug, Default)]
struct Plugin {
    endpoint: String,
    devices: Vec<Device>,
    /// How often it registered: an older watch does not overwrite the list of a newer one.
    registrations: u64,
}

impl Kubelet {
    /// Accepts plugins in this directory, and serves PodResources at this socket. Removes all sockets that exist in the
    /// directory, as kubelet does, so that plugins notice that they must register again.
    ///
    /// # Errors
    ///
    /// A socket could not be removed or opened.
    pub fn start(plugins: &Path, pod_resources: &Path) -> io::Result<Self> {
        for entry in std::fs::read_dir(plugins)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "sock") {
                std::fs::remove_file(path)?;
            }
        }
        let pod_resources = PodResourcesServer::start(pod_resources, Responses::default())?;
        let plugins = Arc::new(Plugins {
            directory: plugins.to_owned(),
            registered: Mutex::default(),
            changed: Condvar::new(),
            pod_resources,
        });
        let registration = UnixServer::start(&plugins.directory.join(SOCKET), Arc::clone(&plugins))?;
        Ok(Self { plugins, _registration: registration })
    }

    /// The server of PodResources.
    pub fn pod_resources(&self) -> &PodResourcesServer {
        &self.plugins.pod_resources
    }

    /// The amounts of this resource that the node declares.
    pub fn declared(&self, resource: &str) -> Declared {
        self.plugins.registered().get(resource).map(Plugin::declared).unwrap_or_default()
    }

    /// Waits until the node declares these amounts. Returns false if it does not within `patience`.
    pub fn declares(&self, resource: &str, declared: Declared, patience: Duration) -> bool {
        let others = |plugins: &mut BTreeMap<String, Plugin>| {
            plugins.get(resource).map(Plugin::declared).unwrap_or_default() != declared
        };
        let waited = self.plugins.changed.wait_timeout_while(self.plugins.registered(), patience, others);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Assigns this many devices to the container `main` of a pod, as kubelet does when it admits the pod, and returns
    /// the plugin's response.
    ///
    /// # Errors
    ///
    /// See [`NotAdmitted`].
    pub fn admit(
        &self,
        namespace: &str,
        pod: &str,
        resource: &str,
        count: usize,
    ) -> Result<AllocateResponse, NotAdmitted> {
        let held = self.held(resource);
        let (socket, ids) = {
            let registered = self.plugins.registered();
            let plugin = registered.get(resource).ok_or(NotAdmitted::TooFew)?;
            let free = plugin.devices.iter().filter(|device| device.is_healthy() && !held.contains(&device.id));
            let ids: Vec<String> = free.take(count).map(|device| device.id.clone()).collect();
            (self.plugins.directory.join(&plugin.endpoint), ids)
        };
        if ids.len() < count {
            return Err(NotAdmitted::TooFew);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| NotAdmitted::Plugin(Status::internal(error.to_string())))?;
        let request =
            AllocateRequest { container_requests: vec![ContainerAllocateRequest { device_ids: ids.clone() }] };
        let answer = runtime.block_on(call(&socket, ALLOCATE, request)).map_err(NotAdmitted::Plugin)?;
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        self.pod_resources().responses().assign(namespace, pod, "main", resource, &ids);
        Ok(answer)
    }

    fn held(&self, resource: &str) -> BTreeSet<String> {
        let responses = self.pod_resources().responses();
        let containers = responses.pods.pod_resources.iter().flat_map(|pod| &pod.containers);
        let devices = containers.flat_map(|container| &container.devices);
        devices.filter(|of| of.resource_name == resource).flat_map(|of| of.device_ids.clone()).collect()
    }
}

impl Plugin {
    fn declared(&self) -> Declared {
        let allocatable = self.devices.iter().filter(|device| device.is_healthy()).count();
        Declared { capacity: self.devices.len(), allocatable }
    }
}

impl Plugins {
    fn registered(&self) -> MutexGuard<'_, BTreeMap<String, Plugin>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(self: &Arc<Self>, request: RegisterRequest) -> Result<(), Status> {
        if request.version != VERSION {
            return Err(Status::invalid_argument(format!(
                "the API version of the device plugin is {}; kubelet supports {VERSION}",
                request.version
            )));
        }
        let registration = {
            let mut registered = self.registered();
            let plugin = registered.entry(request.resource_name.clone()).or_default();
            plugin.endpoint.clone_from(&request.endpoint);
            plugin.registrations += 1;
            plugin.registrations
        };
        let plugins = Arc::clone(self);
        tokio::spawn(async move {
            // Kubelet ignores the reason why the watch ended.
            let _ = plugins.watch(&request, registration).await;
            // Without its plugin no device can be assigned.
            plugins.change(&request.resource_name, registration, |devices| {
                for device in devices {
                    Device::UNHEALTHY.clone_into(&mut device.health);
                }
            });
        });
        Ok(())
    }

    async fn watch(&self, request: &RegisterRequest, registration: u64) -> Result<(), Status> {
        let mut client = connect(&self.directory.join(&request.endpoint)).await?;
        let codec = ProstCodec::<Empty, ListAndWatchResponse>::default();
        let path = PathAndQuery::from_static(LIST_AND_WATCH);
        let mut lists = client.server_streaming(Request::new(Empty {}), path, codec).await?.into_inner();
        while let Some(list) = lists.message().await? {
            self.change(&request.resource_name, registration, |devices| *devices = list.devices);
        }
        Ok(())
    }

    /// Changes the list of a plugin, unless it has registered again since.
    fn change(&self, resource: &str, registration: u64, change: impl FnOnce(&mut Vec<Device>)) {
        let mut registered = self.registered();
        let plugin = registered.entry(resource.to_owned()).or_default();
        if plugin.registrations != registration {
            return;
        }
        change(&mut plugin.devices);
        // Kubelet also lists healthy devices as allocatable whether they are held or not.
        let entry = |(resource, plugin): (&String, &Plugin)| ContainerDevices {
            resource_name: resource.clone(),
            device_ids: plugin.devices.iter().filter(|one| one.is_healthy()).map(|one| one.id.clone()).collect(),
        };
        self.pod_resources.responses().allocatable.devices = registered.iter().map(entry).collect();
        self.changed.notify_all();
    }
}

impl Answers for Plugins {
    async fn answer(self: Arc<Self>, call: unix_server::Call) -> unix_server::Answer {
        match call.uri().path() {
            REGISTER => Grpc::new(ProstCodec::default()).unary(Registration(self), call).await,
            _ => Status::unimplemented("no such method").into_http(),
        }
    }
}

struct Registration(Arc<Plugins>);

impl UnaryService<RegisterRequest> for Registration {
    type Response = Empty;
    type Future = Ready<Result<Response<Empty>, Status>>;

    fn call(&mut self, request: Request<RegisterRequest>) -> Self::Future {
        ready(self.0.register(request.into_inner()).map(|()| Response::new(Empty {})))
    }
}
