//! The messages of kubelet's PodResources API v1, as far as they are about devices.
//!
//! Source: `pkg/apis/podresources/v1/api.proto` of Kubernetes (staging/src/k8s.io/kubelet). Fields that are not
//! declared here (topology, CPUs, memory, CDI names) are skipped when a message is read.
use prost::Message;

/// The gRPC path of the method that lists the devices of all containers.
pub const LIST: &str = "/v1.PodResourcesLister/List";
/// The gRPC path of the method that lists the devices that kubelet can allocate.
pub const GET_ALLOCATABLE_RESOURCES: &str = "/v1.PodResourcesLister/GetAllocatableResources";

/// The request of both methods.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ResourcesRequest {}

/// The response of `List`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListPodResourcesResponse {
    /// The pods of the node that kubelet knows. Older kubelets also list pods that have ended.
    #[prost(message, repeated, tag = "1")]
    pub pod_resources: Vec<PodResources>,
}

/// The resources of one pod.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodResources {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its containers, without init containers.
    #[prost(message, repeated, tag = "3")]
    pub containers: Vec<ContainerResources>,
}

/// The resources of one container.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerResources {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its devices. One resource may have several entries.
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<ContainerDevices>,
    /// What it holds through ResourceClaims. Kubelet reports this since 1.27, and the devices since 1.31.
    #[prost(message, repeated, tag = "5")]
    pub dynamic_resources: Vec<DynamicResource>,
}

/// What a container holds through one ResourceClaim (Dynamic Resource Allocation).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DynamicResource {
    /// The claim's name.
    #[prost(string, tag = "2")]
    pub claim_name: String,
    /// The claim's namespace.
    #[prost(string, tag = "3")]
    pub claim_namespace: String,
    /// The devices that were allocated to the claim.
    #[prost(message, repeated, tag = "4")]
    pub claim_resources: Vec<ClaimResource>,
}

/// A device that was allocated to a claim. Driver, pool and name together identify it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ClaimResource {
    /// The driver that offers the device: `gpu.nvidia.com`.
    #[prost(string, tag = "2")]
    pub driver_name: String,
    /// The pool of the driver that the device is in, usually named after the node.
    #[prost(string, tag = "3")]
    pub pool_name: String,
    /// The device's name in the pool: `gpu-0`. Empty if no device was allocated.
    #[prost(string, tag = "4")]
    pub device_name: String,
    /// The share of the device, if several claims can share it.
    #[prost(string, optional, tag = "5")]
    pub share_id: Option<String>,
}

/// Devices of one resource.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerDevices {
    /// The resource name as Nodes declare it: `nvidia.com/gpu`.
    #[prost(string, tag = "1")]
    pub resource_name: String,
    /// The ids that the device plugin gave the devices.
    #[prost(string, repeated, tag = "2")]
    pub device_ids: Vec<String>,
}

/// The response of `GetAllocatableResources`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AllocatableResourcesResponse {
    /// The devices that kubelet can allocate, whether a container holds them or not.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<ContainerDevices>,
}
