//! The state that a running replica of the aggregator sends to a replica that starts: history that neither agents nor
//! the API server keep.
//!
//! Protobuf on the wire. Changes are additive, as in [`crate::report`], because replicas of neighbouring versions run
//! side by side in every rolling update. Times are in nanoseconds.
use prost::Message;

/// The version of the format that this build writes.
pub const STATE_TRANSFER_VERSION: u32 = 1;

/// Everything that a replica transfers.
#[derive(Clone, PartialEq, Message)]
pub struct StateTransfer {
    /// [`STATE_TRANSFER_VERSION`] of the replica that wrote it.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Identifies the replica and its run, so that a replica never learns from itself.
    #[prost(string, tag = "2")]
    pub identity: String,
    /// Total usage of the pods of each AppWrapper.
    #[prost(message, repeated, tag = "3")]
    pub totals: Vec<Total>,
    /// The last state of each pod's cgroup. The totals include it.
    #[prost(message, repeated, tag = "4")]
    pub pods: Vec<Pod>,
    /// The last state of the devices that pods hold.
    #[prost(message, repeated, tag = "5")]
    pub held: Vec<HeldTime>,
    /// The last reported state of each node's GPUs.
    #[prost(message, repeated, tag = "6")]
    pub nodes: Vec<NodeDevices>,
    /// The histograms of AppWrapper requests.
    #[prost(message, optional, tag = "7")]
    pub requests: Option<Requests>,
    /// Time that devices were held in the cluster. `None` if that was never known.
    #[prost(message, optional, tag = "8")]
    pub cluster_held: Option<ClusterHeld>,
}

/// Time that devices were held: busy, and idle by cause, by position.
#[derive(Clone, PartialEq, Message)]
pub struct ClusterHeld {
    /// By pods of AppWrappers, including those that are gone.
    #[prost(uint64, repeated, tag = "1")]
    pub appwrapper_ns: Vec<u64>,
    /// By other pods.
    #[prost(uint64, repeated, tag = "2")]
    pub other_ns: Vec<u64>,
}

/// Total usage of the pods of one AppWrapper.
#[derive(Clone, PartialEq, Message)]
pub struct Total {
    /// Its namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its UID.
    #[prost(string, tag = "3")]
    pub uid: String,
    /// CPU time.
    #[prost(uint64, optional, tag = "4")]
    pub cpu_ns: Option<u64>,
    /// Time that devices were held by its pods.
    #[prost(uint64, optional, tag = "5")]
    pub gpu_held_ns: Option<u64>,
    /// Part of that time in which the devices were busy.
    #[prost(uint64, optional, tag = "6")]
    pub gpu_busy_ns: Option<u64>,
    /// Processes that were OOM-killed.
    #[prost(uint64, optional, tag = "7")]
    pub oom_kills: Option<u64>,
    /// Run-queue wait of its tasks.
    #[prost(uint64, optional, tag = "8")]
    pub run_queue_wait_ns: Option<u64>,
    /// The part of the held time in which the devices idled, by cause, by position. Replicas of an older version do not
    /// know it.
    #[prost(uint64, repeated, tag = "9")]
    pub gpu_idle_ns: Vec<u64>,
}

/// The last state of a pod's cgroup.
#[derive(Clone, PartialEq, Message)]
pub struct Pod {
    /// The UID in the name of the cgroup.
    #[prost(string, tag = "1")]
    pub uid: String,
    /// The namespace of its AppWrapper.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// The name of its AppWrapper.
    #[prost(string, tag = "3")]
    pub appwrapper: String,
    /// The UID of its AppWrapper.
    #[prost(string, tag = "4")]
    pub appwrapper_uid: String,
    /// Its node.
    #[prost(string, tag = "5")]
    pub node: String,
    /// The boot that the cgroup belongs to. `None` if the cgroup has not been seen yet; `cgroup` is then not set
    /// either.
    #[prost(string, optional, tag = "6")]
    pub boot_id: Option<String>,
    /// The cgroup's id on that boot.
    #[prost(uint64, tag = "7")]
    pub cgroup: u64,
    /// Its CPU time.
    #[prost(uint64, tag = "8")]
    pub cpu_ns: u64,
    /// Its processes that were OOM-killed.
    #[prost(uint64, tag = "9")]
    pub oom_kills: u64,
    /// Its run-queue wait.
    #[prost(uint64, tag = "10")]
    pub run_queue_wait_ns: u64,
}

/// The last value of a time counter that an agent keeps.
#[derive(Clone, PartialEq, Message)]
pub struct Counter {
    /// The counter's value.
    #[prost(uint64, tag = "1")]
    pub total_ns: u64,
    /// The run of the node and of the agent in which the counter was read.
    #[prost(message, optional, tag = "2")]
    pub life: Option<Life>,
}

/// Identifies a run of a node and of its agent, and a time in it.
#[derive(Clone, PartialEq, Message)]
pub struct Life {
    /// The boot.
    #[prost(string, tag = "1")]
    pub boot_id: String,
    /// When the agent started.
    #[prost(uint64, tag = "2")]
    pub agent_started_at_ms: u64,
    /// Time since the boot.
    #[prost(uint64, tag = "3")]
    pub uptime_ns: u64,
}

/// Devices that pods of this name held.
#[derive(Clone, PartialEq, Message)]
pub struct HeldTime {
    /// The pod's namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The pod's name.
    #[prost(string, tag = "2")]
    pub pod: String,
    /// The container.
    #[prost(string, tag = "3")]
    pub container: String,
    /// The resource.
    #[prost(string, tag = "4")]
    pub resource: String,
    /// For how long it held them.
    #[prost(message, optional, tag = "5")]
    pub held: Option<Counter>,
    /// The pod's node.
    #[prost(string, tag = "6")]
    pub node: String,
}

/// The last reported state of a node's GPUs.
#[derive(Clone, PartialEq, Message)]
pub struct NodeDevices {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// When the agent reported it.
    #[prost(message, optional, tag = "2")]
    pub life: Option<Life>,
    /// GPUs and MIG instances that are held.
    #[prost(message, repeated, tag = "3")]
    pub devices: Vec<DeviceState>,
    /// When the last report was sampled that said who holds devices, in ms since the Unix epoch.
    #[prost(uint64, optional, tag = "4")]
    pub held_at_ms: Option<u64>,
    /// When the agent reported the following totals. `None` if it never did.
    #[prost(message, optional, tag = "5")]
    pub parts_life: Option<Life>,
    /// How the time of a holder without a process on a device was spent, by device.
    #[prost(message, repeated, tag = "6")]
    pub vacant: Vec<DeviceParts>,
    /// How containers spent the time of devices, by container and device.
    #[prost(message, repeated, tag = "7")]
    pub rows: Vec<DeviceParts>,
    /// How pods spent the time of devices; only if pod metrics are on.
    #[prost(message, repeated, tag = "8")]
    pub pods: Vec<PodUses>,
}

/// A total of a device, split into parts.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceParts {
    /// The device.
    #[prost(string, tag = "1")]
    pub uuid: String,
    /// The UID of the pod, if it is the total of a container.
    #[prost(string, tag = "2")]
    pub pod_uid: String,
    /// The container.
    #[prost(string, tag = "3")]
    pub container_id: String,
    /// The parts in ns, by position as in the report.
    #[prost(uint64, repeated, tag = "4")]
    pub parts: Vec<u64>,
}

/// How a pod spent the time of its devices.
#[derive(Clone, PartialEq, Message)]
pub struct PodUses {
    /// Its namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub pod: String,
    /// In ns, by position.
    #[prost(uint64, repeated, tag = "3")]
    pub uses_ns: Vec<u64>,
}

/// A GPU or a MIG instance.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceState {
    /// Its UUID.
    #[prost(string, tag = "1")]
    pub uuid: String,
    /// For how long the device was busy.
    #[prost(message, optional, tag = "2")]
    pub busy: Option<Counter>,
    /// The pods that held it.
    #[prost(message, repeated, tag = "3")]
    pub holders: Vec<DeviceHolder>,
}

/// A pod that held a device.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceHolder {
    /// The pod's UID, or its name if it has no UID.
    #[prost(string, tag = "1")]
    pub pod: String,
    /// How many parts of the device it held.
    #[prost(uint64, tag = "2")]
    pub parts: u64,
}

/// The histograms of AppWrapper requests.
#[derive(Clone, PartialEq, Message)]
pub struct Requests {
    /// CPU, in millicores.
    #[prost(message, optional, tag = "1")]
    pub cpu: Option<Histogram>,
    /// Memory, in bytes.
    #[prost(message, optional, tag = "2")]
    pub memory: Option<Histogram>,
    /// GPUs.
    #[prost(message, optional, tag = "3")]
    pub gpu: Option<Histogram>,
    /// UIDs of the AppWrappers that the histograms count: those that exist, and those that were deleted recently.
    #[prost(string, repeated, tag = "4")]
    pub counted: Vec<String>,
}

/// One histogram.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// For each bound, the number of observations that are at most as large.
    #[prost(uint64, repeated, tag = "1")]
    pub cumulative: Vec<u64>,
    /// The number of observations.
    #[prost(uint64, tag = "2")]
    pub count: u64,
    /// The lower 64 bits of their sum.
    #[prost(uint64, tag = "3")]
    pub sum_low: u64,
    /// The upper 64 bits of their sum.
    #[prost(sint64, tag = "4")]
    pub sum_high: i64,
}
