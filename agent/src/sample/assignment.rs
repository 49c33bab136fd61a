//! What kubelet assigned at one instant: plain values, made by [`crate::source::pods`].

/// Devices held by containers, and devices that can be assigned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignmentSample {
    /// The devices of each container, by resource or claimed device.
    pub assigned: Vec<Assignment>,
    /// Allocatable devices by resource. Empty if this kubelet does not report them.
    pub allocatable: Vec<DeviceIds>,
}

/// Devices held by one container: those of one resource, or one that it holds through a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Who holds the devices, and through what.
    pub holder: Holder,
    /// The device ids of a resource, as the device plugin names them, sorted.
    pub device_ids: Vec<String>,
    /// Time they were held since the agent started, summed over the devices.
    pub held_ns: u64,
}

/// A container, and through what it holds devices.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// Through what it holds the devices.
    pub by: HeldBy,
}

/// Through what a container holds devices.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HeldBy {
    /// A device plugin's resource, as nodes declare it: `nvidia.com/gpu`.
    Resource(String),
    /// A claim; this is one device of it.
    Claim(ClaimedDevice),
}

/// A device, or a share of one, that was allocated to a ResourceClaim.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimedDevice {
    /// The claim's namespace.
    pub claim_namespace: String,
    /// The claim's name.
    pub claim: String,
    /// The driver that offers the device.
    pub driver: String,
    /// The driver's pool that contains the device.
    pub pool: String,
    /// The device's name in that pool.
    pub device: String,
    /// The share of the device. `None` if it is the whole device.
    pub share_id: Option<String>,
}

/// Device ids of one resource, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceIds {
    /// The resource as nodes declare it.
    pub resource: String,
    /// As the device plugin names them.
    pub device_ids: Vec<String>,
}
