//! The device plugin API, v1beta1: its messages as far as they are used, its methods, and how both sides call.
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

/// The only version that kubelet takes.
pub const VERSION: &str = "v1beta1";
/// Kubelet's method.
pub const REGISTER: &str = "/v1beta1.Registration/Register";
/// The plugin's methods.
pub const GET_DEVICE_PLUGIN_OPTIONS: &str = "/v1beta1.DevicePlugin/GetDevicePluginOptions";
/// A list now, and another whenever it changes.
pub const LIST_AND_WATCH: &str = "/v1beta1.DevicePlugin/ListAndWatch";
/// What a container gets with its devices.
pub const ALLOCATE: &str = "/v1beta1.DevicePlugin/Allocate";

/// Nothing.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// What a plugin wants to be asked; by default nothing but to allocate.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct DevicePluginOptions {
    /// Before each start of a container.
    #[prost(bool, tag = "1")]
    pub pre_start_required: bool,
    /// Which devices it would rather hand out.
    #[prost(bool, tag = "2")]
    pub get_preferred_allocation_available: bool,
}

/// A plugin makes itself known.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegisterRequest {
    /// [`VERSION`].
    #[prost(string, tag = "1")]
    pub version: String,
    /// Its socket's name, in the directory of kubelet's.
    #[prost(string, tag = "2")]
    pub endpoint: String,
    /// What its devices are declared as.
    #[prost(string, tag = "3")]
    pub resource_name: String,
    /// See there.
    #[prost(message, optional, tag = "4")]
    pub options: Option<DevicePluginOptions>,
}

/// All devices of a plugin.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListAndWatchResponse {
    /// These.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<Device>,
}

/// One device.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Device {
    /// What kubelet knows it by.
    #[prost(string, tag = "1")]
    pub id: String,
    /// [`Device::HEALTHY`] or [`Device::UNHEALTHY`].
    #[prost(string, tag = "2")]
    pub health: String,
}

impl Device {
    /// It may be handed out.
    pub const HEALTHY: &str = "Healthy";
    /// It may not.
    pub const UNHEALTHY: &str = "Unhealthy";

    /// Whether it may be handed out.
    pub fn is_healthy(&self) -> bool {
        self.health == Self::HEALTHY
    }
}

/// Containers are to be started.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AllocateRequest {
    /// One for each container.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerAllocateRequest>,
}

/// With these devices.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerAllocateRequest {
    /// Their ids.
    #[prost(string, repeated, tag = "1")]
    pub device_ids: Vec<String>,
}

/// What they get.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AllocateResponse {
    /// In the order of the requests.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerAllocateResponse>,
}

/// What one of them gets.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerAllocateResponse {
    /// Environment.
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

/// One call by a connection of its own.
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
