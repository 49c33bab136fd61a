//! What one replica of the aggregator tells another that starts: the past that neither agents nor the API server keep.
//!
//! Protobuf on the wire. Changes are additive, as in [`crate::report`]; replicas of neighbouring versions meet in every
//! rolling update. Times are nanoseconds.
use prost::Message;

/// The version of the format that this build writes.
pub const SEED_VERSION: u32 = 1;

/// All that a replica has to tell.
#[derive(Clone, PartialEq, Message)]
pub struct Seed {
    /// [`SEED_VERSION`] of the replica that wrote it.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Which replica, in which life of it: nobody learns from itself.
    #[prost(string, tag = "2")]
    pub identity: String,
    /// What pods of AppWrappers used in all.
    #[prost(message, repeated, tag = "3")]
    pub totals: Vec<Total>,
    /// What was last seen of pods' cgroups: up to there the totals have them.
    #[prost(message, repeated, tag = "4")]
    pub pods: Vec<Pod>,
    /// What was last seen of devices in the hands of pods.
    #[prost(message, repeated, tag = "5")]
    pub held: Vec<Held>,
    /// What nodes last said of their GPUs.
    #[prost(message, repeated, tag = "6")]
    pub nodes: Vec<Node>,
    /// What AppWrappers requested.
    #[prost(message, optional, tag = "7")]
    pub requests: Option<Requests>,
}

/// What the pods of one AppWrapper used in all.
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
    /// Time on processors.
    #[prost(uint64, optional, tag = "4")]
    pub cpu_ns: Option<u64>,
    /// Time that devices were in the hands of its pods.
    #[prost(uint64, optional, tag = "5")]
    pub gpu_held_ns: Option<u64>,
    /// Of that, time that they were busy.
    #[prost(uint64, optional, tag = "6")]
    pub gpu_busy_ns: Option<u64>,
    /// Processes killed for want of memory.
    #[prost(uint64, optional, tag = "7")]
    pub oom_kills: Option<u64>,
    /// Time that tasks waited for a processor.
    #[prost(uint64, optional, tag = "8")]
    pub run_queue_wait_ns: Option<u64>,
}

/// What was last seen of the cgroup of a pod.
#[derive(Clone, PartialEq, Message)]
pub struct Pod {
    /// The UID that the cgroup carries.
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
    /// The boot that the cgroup is of. Absent, with the id: it was not seen yet.
    #[prost(string, optional, tag = "6")]
    pub boot_id: Option<String>,
    /// The cgroup's id in it.
    #[prost(uint64, tag = "7")]
    pub cgroup: u64,
    /// Its time on processors.
    #[prost(uint64, tag = "8")]
    pub cpu_ns: u64,
    /// Its processes killed for want of memory.
    #[prost(uint64, tag = "9")]
    pub oom_kills: u64,
    /// Its waits for a processor.
    #[prost(uint64, tag = "10")]
    pub run_queue_wait_ns: u64,
}

/// A counter of time that an agent keeps, as it was last seen.
#[derive(Clone, PartialEq, Message)]
pub struct Counter {
    /// What it showed.
    #[prost(uint64, tag = "1")]
    pub total_ns: u64,
    /// The life of node and agent in which it was seen.
    #[prost(message, optional, tag = "2")]
    pub life: Option<Life>,
}

/// In which life of its node, and of its agent, and when.
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

/// Devices in the hands of the pods that had a name.
#[derive(Clone, PartialEq, Message)]
pub struct Held {
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
    /// For how long.
    #[prost(message, optional, tag = "5")]
    pub held: Option<Counter>,
    /// The pod's node.
    #[prost(string, tag = "6")]
    pub node: String,
}

/// What a node last said of its GPUs.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// When it said so.
    #[prost(message, optional, tag = "2")]
    pub life: Option<Life>,
    /// GPUs and MIG instances that somebody holds.
    #[prost(message, repeated, tag = "3")]
    pub devices: Vec<Device>,
}

/// A GPU or a MIG instance.
#[derive(Clone, PartialEq, Message)]
pub struct Device {
    /// Its UUID.
    #[prost(string, tag = "1")]
    pub uuid: String,
    /// For how long it was busy.
    #[prost(message, optional, tag = "2")]
    pub busy: Option<Counter>,
    /// Who held it.
    #[prost(message, repeated, tag = "3")]
    pub holders: Vec<DeviceHolder>,
}

/// A pod that held a device.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceHolder {
    /// The pod's UID, or its name where it has none.
    #[prost(string, tag = "1")]
    pub pod: String,
    /// How many parts of the device.
    #[prost(uint64, tag = "2")]
    pub parts: u64,
}

/// The histograms of what AppWrappers requested.
#[derive(Clone, PartialEq, Message)]
pub struct Requests {
    /// Cpu, in millicores.
    #[prost(message, optional, tag = "1")]
    pub cpu: Option<Histogram>,
    /// Memory, in bytes.
    #[prost(message, optional, tag = "2")]
    pub memory: Option<Histogram>,
    /// GPUs.
    #[prost(message, optional, tag = "3")]
    pub gpu: Option<Histogram>,
    /// UIDs of AppWrappers that are counted in them, and are there or were until lately.
    #[prost(string, repeated, tag = "4")]
    pub counted: Vec<String>,
}

/// One histogram.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// Observations at most as large as each bound.
    #[prost(uint64, repeated, tag = "1")]
    pub cumulative: Vec<u64>,
    /// Observations in all.
    #[prost(uint64, tag = "2")]
    pub count: u64,
    /// Their sum: the lower 64 bits.
    #[prost(uint64, tag = "3")]
    pub sum_low: u64,
    /// Their sum: the upper 64 bits.
    #[prost(sint64, tag = "4")]
    pub sum_high: i64,
}
