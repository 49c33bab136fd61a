//! The device plugin API, v1beta1: the parts of its messages that are used, its methods, and the calls of both sides.
//!
//! After `pkg/apis/deviceplugin/v1beta1/api.proto` of Kubernetes (staging/src/k8s.io/kubelet).

use std::collections::HashMap;
use std::path::Path;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// The only version that kubelet accepts.
pub const VERSION: &str = "v1beta1";
/// Kubelet's method.
pub const REGISTER: &str = "/v1beta1.Registration/Register";
/// The plugin's methods.
pub const GET_DEVICE_PLUGIN_OPTIONS: &str = "/v1beta1.DevicePlugin/GetDevicePluginOptions";
/// Returns a list now, and another whenever it changes.
pub const LIST_AND_WATCH: &str = "/v1beta1.DevicePlugin/ListAndWatch";
/// Returns what a container gets with its devices.
pub const ALLOCATE: &str = "/v1beta1.DevicePlugin/Allocate";

/// An empty message.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// Which optional calls a plugin wants; none by default.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct DevicePluginOptions {
    /// A call before each start of a container.
    #[prost(bool, tag = "1")]
    pub pre_start_required: bool,
    /// A call for the devices that the plugin prefers to assign.
    #[prost(bool, tag = "2")]
    pub get_preferred_allocation_available: bool,
}

/// A plugin registers.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegisterRequest {
    /// [`VERSION`].
    #[prost(string, tag = "1")]
    pub version: String,
    /// The name of its socket, in the directory of kubelet's socket.
    #[prost(string, tag = "2")]
    pub endpoint: String,
    /// The resource name of its devices.
    #[prost(string, tag = "3")]
    pub resource_name: String,
    /// See [`DevicePluginOptions`].
    #[prost(message, optional, tag = "4")]
    pub options: Option<DevicePluginOptions>,
}

/// All devices of a plugin.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListAndWatchResponse {
    /// The devices.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<Device>,
}

/// One device.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Device {
    /// The id that kubelet uses.
    #[prost(string, tag = "1")]
    pub id: String,
    /// [`Device::HEALTHY`] or [`Device::UNHEALTHY`].
    #[prost(string, tag = "2")]
    pub health: String,
}

impl Device {
    /// It can be assigned.
    pub const HEALTHY: &str = "Healthy";
    /// It cannot be assigned.
    pub const UNHEALTHY: &str = "Unhealthy";

    /// Whether it can be assigned.
    pub fn is_healthy(&self) -> bool {
        self.health == Self::HEALTHY
    }
}

/// Containers are about to be started.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AllocateRequest {
    /// One for each container.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerAllocateRequest>,
}

/// The devices of one container.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerAllocateRequest {
    /// Their ids.
    #[prost(string, repeated, tag = "1")]
    pub device_ids: Vec<String>,
}

/// The response to an [`AllocateRequest`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AllocateResponse {
    /// In the order of the requests.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerAllocateResponse>,
}

/// What one container gets.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerAllocateResponse {
    /// Environment variables.
    #[prost(map = "string, string", tag = "1")]
    pub envs: HashMap<String, String>,
}

/// A client of the server at this socket.
pub(crate) async fn connect(socket: &Path) -> Result<Grpc<Channel>, Status> {
    let failed = |error: tonic::transport::Error| Status::from_error(error.into());
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).map_err(failed)?;
    let mut client = Grpc::new(endpoint.connect().await.map_err(failed)?);
    client.ready().await.map_err(failed)?;
    Ok(client)
}

/// One call on a new connection.
pub(crate) async fn call<Question, Answer>(
    socket: &Path,
    method: &'static str,
    question: Question,
) -> Result<Answer, Status>
where
    Question: Message + 'static,
    Answer: Message + Default + 'static,
{
    let mut client = connect(socket).await?;
    let codec = ProstCodec::<Question, Answer>::default();
    let answer = client.unary(Request::new(question), PathAndQuery::from_static(method), codec).await?;
    Ok(answer.into_inner())
}
