//! What kubelet handed out at one instant: plain values, as [`crate::source::pods`] makes them.

/// Devices in the hands of containers, and those that could be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignmentSample {
    /// By container and resource.
    pub assigned: Vec<Assignment>,
    /// By resource. Empty where this kubelet does not tell.
    pub allocatable: Vec<DeviceIds>,
}

/// Devices of one resource in the hands of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Whose, and which resource.
    pub holder: Holder,
    /// As the device plugin named them, in order.
    pub device_ids: Vec<String>,
    /// Time they were held since the agent started, added up over them.
    pub held_ns: u64,
}

/// A container and a resource of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// As nodes declare it: `nvidia.com/gpu`.
    pub resource: String,
}

/// Device ids of one resource, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceIds {
    /// As nodes declare it.
    pub resource: String,
    /// As the device plugin named them.
    pub device_ids: Vec<String>,
}
