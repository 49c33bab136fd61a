//! Names of devices, attributes and taints, as NVIDIA's driver spells them.
use std::sync::Arc;

use crate::cluster::devices::PoolName;

/// The driver whose names and taints are known here.
pub(crate) const NVIDIA_DRIVER: &str = "gpu.nvidia.com";
/// The attribute that contains the profile of a partition.
pub(super) const PROFILE: &str = "profile";
/// The taint with which NVIDIA's driver marks a broken device.
pub(super) const XID: &str = "gpu.nvidia.com/xid";

/// Identifies a device: pool and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey {
    /// Its pool.
    pub pool: PoolName,
    /// Its name.
    pub device: Arc<str>,
}

/// The part of a device's name that identifies the whole device. For NVIDIA: the part before `-mig-`.
pub(crate) fn stem_of<'a>(driver: &str, device: &'a str) -> &'a str {
    match driver {
        NVIDIA_DRIVER => device.split_once("-mig-").map_or(device, |(stem, _)| stem),
        _ => device,
    }
}
