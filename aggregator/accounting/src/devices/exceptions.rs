//! Exceptional conditions of devices and claims, counted so that an administrator can look into them.

/// See the module's documentation. In the order of [`Exception::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// A slice of an older generation of its pool.
    StaleSlice,
    /// A pool with missing slices.
    IncompletePool,
    /// A pool whose slices contradict one another.
    InvalidPool,
    /// A device of a driver that is mapped to no resource.
    UnmappedDevice,
    /// A device that is on no node, or on a node that does not exist.
    OffNodeDevice,
    /// A device that a claim holds and that its driver no longer lists.
    DeviceGone,
    /// A device that a claim holds and that its driver does not report.
    DeviceUnseen,
    /// A device that is allocated to a claim for administrative access.
    AdminAccess,
    /// A claim that holds devices and is not used by any pod.
    UnusedClaim,
    /// A claim that a bound pod uses and that does not exist.
    MissingClaim,
    /// A device that kubelet and a slice both declare.
    DoublyDeclared,
    /// A DeviceTaintRule of an unsupported form.
    UnreadTaintRule,
    /// A pod with claims to node-allocatable resources, which are not supported.
    NodeAllocatableClaim,
}

impl Exception {
    /// All exceptions.
    pub const ALL: [Self; 13] = [
        Self::StaleSlice,
        Self::IncompletePool,
        Self::InvalidPool,
        Self::UnmappedDevice,
        Self::OffNodeDevice,
        Self::DeviceGone,
        Self::DeviceUnseen,
        Self::AdminAccess,
        Self::UnusedClaim,
        Self::MissingClaim,
        Self::DoublyDeclared,
        Self::UnreadTaintRule,
        Self::NodeAllocatableClaim,
    ];

    /// Whether counting it requires Pods.
    pub fn needs_pods(self) -> bool {
        matches!(self, Self::UnusedClaim | Self::MissingClaim | Self::NodeAllocatableClaim)
    }

    /// The label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::StaleSlice => "stale_slice",
            Self::IncompletePool => "incomplete_pool",
            Self::InvalidPool => "invalid_pool",
            Self::UnmappedDevice => "unmapped_device",
            Self::OffNodeDevice => "off_node_device",
            Self::DeviceGone => "device_gone",
            Self::DeviceUnseen => "device_unseen",
            Self::AdminAccess => "admin_access",
            Self::UnusedClaim => "unused_claim",
            Self::MissingClaim => "missing_claim",
            Self::DoublyDeclared => "doubly_declared",
            Self::UnreadTaintRule => "unread_taint_rule",
            Self::NodeAllocatableClaim => "node_allocatable_claim",
        }
    }
}

/// The number of each exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exceptions([u64; Exception::ALL.len()]);

impl Exceptions {
    /// Adds to the number of an exception.
    pub fn add(&mut self, exception: Exception, more: u64) {
        self.0[exception as usize] += more;
    }

    /// Adds the numbers of another node.
    pub fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    /// Every exception and its number, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Exception, u64)> {
        Exception::ALL.into_iter().zip(self.0)
    }
}
