//! What kubelet says of devices: the messages of its PodResources API v1, as far as devices go.
//!
//! After `pkg/apis/podresources/v1/api.proto` of Kubernetes (staging/src/k8s.io/kubelet); fields that are left out
//! (topology, CPUs, memory, dynamic resources) are skipped when read.
use prost::Message;

/// The service's methods, as gRPC names them.
pub const LIST: &str = "/v1.PodResourcesLister/List";
/// As [`LIST`].
pub const GET_ALLOCATABLE_RESOURCES: &str = "/v1.PodResourcesLister/GetAllocatableResources";

/// The question of both methods.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ResourcesRequest {}

/// The answer of `List`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListPodResourcesResponse {
    /// The pods of the node that kubelet knows of. Older ones list pods that have ended, too.
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
    /// Its containers, init containers apart.
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
}

/// Devices of one resource.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerDevices {
    /// As nodes declare it: `nvidia.com/gpu`.
    #[prost(string, tag = "1")]
    pub resource_name: String,
    /// As the device plugin named them.
    #[prost(string, repeated, tag = "2")]
    pub device_ids: Vec<String>,
}

/// The answer of `GetAllocatableResources`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AllocatableResourcesResponse {
    /// What kubelet could hand out, handed out or not.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<ContainerDevices>,
}
