//! What a report says of GPUs, and of what runs on them. The rules of [`super`] hold here, too.
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_with::{serde_as, skip_serializing_none};

use super::{Int64, is_default};

/// The GPUs of the machine. Present and empty: a node without GPUs.
#[skip_serializing_none]
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Gpus {
    /// Version of the driver; empty where there is none.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub driver_version: String,
    /// The devices that NVML lists.
    #[prost(message, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Gpu>,
    /// PCI addresses of devices that the driver should hold and NVML does not list.
    #[prost(string, repeated, tag = "3")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost_bus_ids: Vec<String>,
    /// The most devices, by UUID, that this agent remembers on this node.
    #[prost(uint32, optional, tag = "4")]
    pub remembered: Option<u32>,
    /// These are not GPUs but the library `fake-nvml`.
    #[prost(bool, tag = "5")]
    #[serde(skip_serializing_if = "is_default")]
    pub fake: bool,
}

/// One GPU that NVML lists.
#[serde_as]
#[skip_serializing_none]
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Gpu {
    /// `GPU-…`
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub uuid: String,
    /// Product name.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub model: String,
    /// PCI address.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    pub bus_id: String,
    /// It is in MIG mode: its instances are handed out, not itself.
    #[prost(bool, optional, tag = "4")]
    pub mig_mode: Option<bool>,
    /// Its MIG instances.
    #[prost(message, repeated, tag = "5")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mig_instances: Vec<MigInstance>,
    /// Why it should not be used, of a bounded set (docs/report.md). Empty: healthy.
    #[prost(string, repeated, tag = "6")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhealthy_reasons: Vec<String>,
    /// Part of the last sampling period in which a kernel ran on it, 0 to 1.
    #[prost(double, optional, tag = "7")]
    pub utilization_ratio: Option<f64>,
    /// Time it was busy, integrated by the agent since `started_at_ms`.
    #[prost(uint64, optional, tag = "8")]
    #[serde_as(as = "Option<Int64>")]
    pub busy_ns: Option<u64>,
    /// Memory in use.
    #[prost(uint64, optional, tag = "9")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_used_bytes: Option<u64>,
    /// Memory it has.
    #[prost(uint64, optional, tag = "10")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_total_bytes: Option<u64>,
    /// Xid events by code, counted since `started_at_ms`.
    #[prost(message, repeated, tag = "11")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub xid_errors: Vec<XidErrors>,
    /// Who uses it, by container. In MIG mode its instances have these.
    #[prost(message, repeated, tag = "12")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<GpuUse>,
    /// What is wrong with it although it works, of a bounded set (docs/report.md).
    #[prost(string, repeated, tag = "13")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Errors of its NVLinks. Absent: it has none, or the driver does not report them.
    #[prost(message, optional, boxed, tag = "14")]
    pub nvlink_errors: Option<Box<NvlinkErrors>>,
}

/// Errors of one GPU's NVLinks since the driver was loaded, added up over its links. They say nothing about its health. A
/// counter that the driver does not have is absent.
#[serde_as]
#[skip_serializing_none]
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NvlinkErrors {
    /// Packets that were sent again.
    #[prost(uint64, optional, tag = "1")]
    #[serde_as(as = "Option<Int64>")]
    pub replay: Option<u64>,
    /// Times that a link was trained again.
    #[prost(uint64, optional, tag = "2")]
    #[serde_as(as = "Option<Int64>")]
    pub recovery: Option<u64>,
    /// Flow control units with a wrong checksum.
    #[prost(uint64, optional, tag = "3")]
    #[serde_as(as = "Option<Int64>")]
    pub crc_flit: Option<u64>,
    /// Data with a wrong checksum.
    #[prost(uint64, optional, tag = "4")]
    #[serde_as(as = "Option<Int64>")]
    pub crc_data: Option<u64>,
    /// ECC errors in data.
    #[prost(uint64, optional, tag = "5")]
    #[serde_as(as = "Option<Int64>")]
    pub ecc_data: Option<u64>,
}

/// What the processes of one container take of one GPU or MIG instance.
#[serde_as]
#[skip_serializing_none]
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GpuUse {
    /// UID of the pod; empty for processes of no pod.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub pod_uid: String,
    /// Id of the container; empty where the process's cgroup does not tell it.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub container_id: String,
    /// Its processes that hold the device now. 0: they have ended, and the totals stand for another hour.
    #[prost(uint32, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    pub processes: u32,
    /// Memory that they hold on it.
    #[prost(uint64, optional, tag = "4")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_used_bytes: Option<u64>,
    /// Time that they kept it busy, integrated by the agent since `started_at_ms`.
    #[prost(uint64, optional, tag = "5")]
    #[serde_as(as = "Option<Int64>")]
    pub busy_ns: Option<u64>,
}

/// One MIG instance.
#[serde_as]
#[skip_serializing_none]
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MigInstance {
    /// `MIG-…`
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub uuid: String,
    /// Profile as the device plugin spells it: `1g.10gb`.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub profile: String,
    /// GPU instance id.
    #[prost(uint32, optional, tag = "3")]
    pub gpu_instance: Option<u32>,
    /// Compute instance id.
    #[prost(uint32, optional, tag = "4")]
    pub compute_instance: Option<u32>,
    /// Why it should not be used; a sick parent makes it so, too. Empty: healthy.
    #[prost(string, repeated, tag = "5")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhealthy_reasons: Vec<String>,
    /// As [`Gpu::utilization_ratio`]; absent on many drivers.
    #[prost(double, optional, tag = "6")]
    pub utilization_ratio: Option<f64>,
    /// As [`Gpu::busy_ns`].
    #[prost(uint64, optional, tag = "7")]
    #[serde_as(as = "Option<Int64>")]
    pub busy_ns: Option<u64>,
    /// Memory in use.
    #[prost(uint64, optional, tag = "8")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_used_bytes: Option<u64>,
    /// Memory it has.
    #[prost(uint64, optional, tag = "9")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_total_bytes: Option<u64>,
    /// As [`Gpu::uses`].
    #[prost(message, repeated, tag = "10")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<GpuUse>,
}

/// How often one Xid was seen on one GPU.
#[serde_as]
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct XidErrors {
    /// The driver's error code.
    #[prost(uint64, tag = "1")]
    #[serde_as(as = "Int64")]
    #[serde(skip_serializing_if = "is_default")]
    pub xid: u64,
    /// Times seen.
    #[prost(uint64, tag = "2")]
    #[serde_as(as = "Int64")]
    #[serde(skip_serializing_if = "is_default")]
    pub count: u64,
}
