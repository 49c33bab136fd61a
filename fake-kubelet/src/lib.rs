//! A fake kubelet and a fake device plugin, for tests without GPUs. They are never part of an image.

pub mod inventory;

pub mod device_plugin;
pub mod device_plugin_api;
pub mod kubelet;
pub mod pod_resources;

mod authority;
mod unix_server;

pub use device_plugin::DevicePlugin;
pub use kubelet::Kubelet;
pub use pod_resources::PodResourcesServer;
