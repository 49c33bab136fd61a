//! What a node's kubelet says of devices, for tests without a node. It is never part of an image.

pub mod pod_resources;

pub use pod_resources::PodResourcesServer;
