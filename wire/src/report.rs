//! What an agent sends to the aggregator: one [`Report`] is one instant of one node.
//!
//! The schema is `wire/report.proto`; tests hold these structs to it. Protobuf on the wire, its proto3 JSON mapping in
//! `mcad-agent --once` and `--reports FILE`; docs/report.md describes both. Changes are additive: a tag is never used
//! again, a field never changes its type or unit.
//!
//! Three rules hold everywhere:
//! - **absent is not zero**: a figure that was not measured is `None`, a part that could not be read is a missing message;
//! - counters are totals since a start that the report names, never differences;
//! - units stand last in the name; nanoseconds and bytes.
mod gpus;

use prost::Message;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, PickFirst, Same, serde_as, skip_serializing_none};

pub use gpus::{Gpu, GpuUse, Gpus, MigInstance, NvlinkErrors, XidErrors};

/// The version of the format that this build writes.
pub const REPORT_VERSION: u32 = 1;

/// proto3 JSON writes 64-bit integers as strings and reads strings and numbers.
type Int64 = PickFirst<(DisplayFromStr, Same)>;

/// proto3 JSON leaves out what equals its type's default.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One instant of one node.
#[serde_as]
#[skip_serializing_none]
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Report {
    /// [`REPORT_VERSION`] of the agent that wrote it.
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub version: u32,
    /// The node's name, as Kubernetes knows it.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub node: String,
    /// The kernel's boot id. Totals of the kernel start anew with it.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    pub boot_id: String,
    /// When this agent process started, in ms since the Unix epoch. Totals that the agent integrates start with it.
    #[prost(uint64, tag = "4")]
    #[serde_as(as = "Int64")]
    #[serde(skip_serializing_if = "is_default")]
    pub started_at_ms: u64,
    /// 1 for the first report of this agent process, then one more each.
    #[prost(uint64, tag = "5")]
    #[serde_as(as = "Int64")]
    #[serde(skip_serializing_if = "is_default")]
    pub sequence: u64,
    /// When the sample was taken, in ms since the Unix epoch, by the node's clock.
    #[prost(uint64, tag = "6")]
    #[serde_as(as = "Int64")]
    #[serde(skip_serializing_if = "is_default")]
    pub sampled_at_ms: u64,
    /// When the sample was taken, in ns since boot (`CLOCK_BOOTTIME`). Rates divide by differences of this.
    #[prost(uint64, tag = "7")]
    #[serde_as(as = "Int64")]
    #[serde(skip_serializing_if = "is_default")]
    pub uptime_ns: u64,
    /// The time between two reports that the agent was asked to keep, in ms.
    #[prost(uint64, tag = "8")]
    #[serde_as(as = "Int64")]
    #[serde(skip_serializing_if = "is_default")]
    pub interval_ms: u64,
    /// Version of the agent, for people.
    #[prost(string, tag = "9")]
    #[serde(skip_serializing_if = "is_default")]
    pub agent_version: String,
    /// The machine as a whole.
    #[prost(message, optional, tag = "10")]
    pub machine: Option<Machine>,
    /// The cgroups of the machine. Absent: they could not be read.
    #[prost(message, optional, tag = "11")]
    pub cgroups: Option<Cgroups>,
    /// The GPUs of the machine. Absent: NVML is there but could not be read, or was not asked.
    #[prost(message, optional, tag = "12")]
    pub gpus: Option<Gpus>,
    /// Which device kubelet gave to which container. Absent: unknown.
    #[prost(message, optional, tag = "13")]
    pub assignments: Option<Assignments>,
    /// What could not be measured in this sample, and why.
    #[prost(message, repeated, tag = "14")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub absences: Vec<Absence>,
}

/// A part of the sample that could not be measured.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Absence {
    /// The source: `machine`, `cgroups`, `gpus`, `assignments`.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    /// One of a bounded set of reasons, in snake case: docs/report.md lists them.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub reason: String,
}

/// The machine as a whole.
#[serde_as]
#[skip_serializing_none]
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Machine {
    /// Processors online.
    #[prost(uint32, optional, tag = "1")]
    pub cpus_online: Option<u32>,
    /// Time that processors were busy since boot, all added up: user, nice, system, irq, softirq.
    #[prost(uint64, optional, tag = "2")]
    #[serde_as(as = "Option<Int64>")]
    pub cpu_busy_ns: Option<u64>,
    /// MemTotal.
    #[prost(uint64, optional, tag = "3")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_total_bytes: Option<u64>,
    /// MemFree.
    #[prost(uint64, optional, tag = "4")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_free_bytes: Option<u64>,
    /// Inactive(file): page cache that is given back first.
    #[prost(uint64, optional, tag = "5")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_inactive_file_bytes: Option<u64>,
}

/// The cgroups of the machine, parents before children.
#[skip_serializing_none]
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cgroups {
    /// Where the figures come from: `bpf` (the kernel's iterator) or `cgroupfs` (files).
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    /// The cgroups, each once. Which are listed is the agent's `--report-cgroups`.
    #[prost(message, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<Cgroup>,
    /// Cgroups on the machine at that instant, listed or not.
    #[prost(uint32, optional, tag = "3")]
    pub seen: Option<u32>,
    /// Cgroups that found no room in the agent's maps. Not 0: the list is incomplete.
    #[prost(uint32, optional, tag = "4")]
    pub dropped: Option<u32>,
    /// Figures that this kernel does not give to `source` and that are from files, by group.
    #[prost(string, repeated, tag = "5")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_files: Vec<String>,
    /// Pods whose own cgroup is gone, in order of their end: of the last hour, 1,024 at most.
    #[prost(message, repeated, tag = "6")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ended_pods: Vec<EndedPod>,
}

/// A pod whose own cgroup is gone, and what it had used in all. A figure that was never known is absent; none is above the truth.
#[serde_as]
#[skip_serializing_none]
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndedPod {
    /// Its UID, as its cgroup's path told it.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub uid: String,
    /// The id that its own cgroup had.
    #[prost(uint64, tag = "2")]
    #[serde_as(as = "Int64")]
    #[serde(skip_serializing_if = "is_default")]
    pub id: u64,
    /// CPU time.
    #[prost(uint64, optional, tag = "3")]
    #[serde_as(as = "Option<Int64>")]
    pub cpu_ns: Option<u64>,
    /// Processes killed for want of memory.
    #[prost(uint64, optional, tag = "4")]
    #[serde_as(as = "Option<Int64>")]
    pub oom_kills: Option<u64>,
    /// Time that its tasks were ready to run and waited for a processor, until the last sample that saw it.
    #[prost(uint64, optional, tag = "5")]
    #[serde_as(as = "Option<Int64>")]
    pub run_queue_wait_ns: Option<u64>,
    /// How often its tasks waited for a processor, until then.
    #[prost(uint64, optional, tag = "6")]
    #[serde_as(as = "Option<Int64>")]
    pub run_queue_waits: Option<u64>,
    /// When it was seen to be gone, in ns since boot.
    #[prost(uint64, tag = "7")]
    #[serde_as(as = "Int64")]
    #[serde(skip_serializing_if = "is_default")]
    pub ended_uptime_ns: u64,
    /// Its end was watched. Else these are the figures of the last sample that saw it, and it may have used more.
    #[prost(bool, tag = "8")]
    #[serde(skip_serializing_if = "is_default")]
    pub watched: bool,
}

/// One cgroup and all below it.
#[serde_as]
#[skip_serializing_none]
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cgroup {
    /// Its inode number in cgroupfs: unique on this boot, never used twice.
    #[prost(uint64, tag = "1")]
    #[serde_as(as = "Int64")]
    #[serde(skip_serializing_if = "is_default")]
    pub id: u64,
    /// Its path from the hierarchy's root, `/` for the root itself. Only with `--report-cgroups all`.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub path: String,
    /// UID of the pod that it belongs to, read from the path; empty for all that is no pod.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    pub pod_uid: String,
    /// Id of the container that it belongs to, read from the path; empty for a pod's own cgroup.
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "is_default")]
    pub container_id: String,
    /// CPU time used since it was made.
    #[prost(uint64, optional, tag = "5")]
    #[serde_as(as = "Option<Int64>")]
    pub cpu_ns: Option<u64>,
    /// Memory charged to it.
    #[prost(uint64, optional, tag = "6")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_bytes: Option<u64>,
    /// Page cache in it that is given back first. Working set is memory less this.
    #[prost(uint64, optional, tag = "7")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_inactive_file_bytes: Option<u64>,
    /// Processes killed in it for want of memory, since it was made.
    #[prost(uint64, optional, tag = "8")]
    #[serde_as(as = "Option<Int64>")]
    pub oom_kills: Option<u64>,
    /// Time that its tasks were ready to run and waited for a processor.
    #[prost(uint64, optional, tag = "9")]
    #[serde_as(as = "Option<Int64>")]
    pub run_queue_wait_ns: Option<u64>,
    /// How often its tasks waited for a processor.
    #[prost(uint64, optional, tag = "10")]
    #[serde_as(as = "Option<Int64>")]
    pub run_queue_waits: Option<u64>,
    /// What else is known of it. Only with `--report-cgroups all`.
    #[prost(message, optional, boxed, tag = "11")]
    pub detail: Option<Box<CgroupDetail>>,
}

/// What else is known of a cgroup; for people and for programs that ask for it.
///
/// Figures are of the cgroup and all below it, except throttling and limits, which are its own.
#[serde_as]
#[skip_serializing_none]
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CgroupDetail {
    /// Periods of CPU bandwidth control that went by.
    #[prost(uint64, optional, tag = "1")]
    #[serde_as(as = "Option<Int64>")]
    pub periods: Option<u64>,
    /// Periods in which the CPU quota was used up.
    #[prost(uint64, optional, tag = "2")]
    #[serde_as(as = "Option<Int64>")]
    pub throttled_periods: Option<u64>,
    /// Time that tasks stood still for the CPU quota.
    #[prost(uint64, optional, tag = "3")]
    #[serde_as(as = "Option<Int64>")]
    pub throttled_ns: Option<u64>,
    /// The most memory ever charged.
    #[prost(uint64, optional, tag = "4")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_peak_bytes: Option<u64>,
    /// The memory limit. Absent beside a `memory_bytes`: there is none.
    #[prost(uint64, optional, tag = "5")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_limit_bytes: Option<u64>,
    /// Processes' own memory.
    #[prost(uint64, optional, tag = "6")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_anon_bytes: Option<u64>,
    /// Cached files.
    #[prost(uint64, optional, tag = "7")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_file_bytes: Option<u64>,
    /// Times that the memory limit was hit.
    #[prost(uint64, optional, tag = "8")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_max_events: Option<u64>,
    /// Times that `memory.high` was hit.
    #[prost(uint64, optional, tag = "9")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_high_events: Option<u64>,
    /// Tasks.
    #[prost(uint64, optional, tag = "10")]
    #[serde_as(as = "Option<Int64>")]
    pub pids: Option<u64>,
    /// The most tasks allowed. Absent beside a `pids`: there is no limit.
    #[prost(uint64, optional, tag = "11")]
    #[serde_as(as = "Option<Int64>")]
    pub pids_limit: Option<u64>,
    /// Time that some task waited for a processor.
    #[prost(uint64, optional, tag = "12")]
    #[serde_as(as = "Option<Int64>")]
    pub cpu_some_ns: Option<u64>,
    /// Time that all tasks waited for a processor.
    #[prost(uint64, optional, tag = "13")]
    #[serde_as(as = "Option<Int64>")]
    pub cpu_full_ns: Option<u64>,
    /// Time that some task waited for memory.
    #[prost(uint64, optional, tag = "14")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_some_ns: Option<u64>,
    /// Time that all tasks waited for memory.
    #[prost(uint64, optional, tag = "15")]
    #[serde_as(as = "Option<Int64>")]
    pub memory_full_ns: Option<u64>,
    /// Time that some task waited for io.
    #[prost(uint64, optional, tag = "16")]
    #[serde_as(as = "Option<Int64>")]
    pub io_some_ns: Option<u64>,
    /// Time that all tasks waited for io.
    #[prost(uint64, optional, tag = "17")]
    #[serde_as(as = "Option<Int64>")]
    pub io_full_ns: Option<u64>,
    /// Bytes read from block devices.
    #[prost(uint64, optional, tag = "18")]
    #[serde_as(as = "Option<Int64>")]
    pub io_read_bytes: Option<u64>,
    /// Bytes written to block devices.
    #[prost(uint64, optional, tag = "19")]
    #[serde_as(as = "Option<Int64>")]
    pub io_written_bytes: Option<u64>,
}

/// What kubelet says of devices. Present and empty: nothing is handed out.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Assignments {
    /// Devices in the hands of containers.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub assigned: Vec<Assignment>,
    /// Devices that kubelet could hand out, assigned or not.
    #[prost(message, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allocatable: Vec<DeviceIds>,
}

/// Devices of one resource in the hands of one container.
#[serde_as]
#[skip_serializing_none]
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Assignment {
    /// The pod's namespace.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: String,
    /// The pod's name.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub pod: String,
    /// The container's name.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    pub container: String,
    /// Resource name as nodes declare it: `nvidia.com/gpu`.
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "is_default")]
    pub resource: String,
    /// A UUID, `UUID::N` for a replica, or `MIG-…`.
    #[prost(string, repeated, tag = "5")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_ids: Vec<String>,
    /// Time these devices were held, added up over them, integrated by the agent since `started_at_ms`.
    #[prost(uint64, optional, tag = "6")]
    #[serde_as(as = "Option<Int64>")]
    pub held_ns: Option<u64>,
}

/// Device ids of one resource.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceIds {
    /// Resource name as nodes declare it.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub resource: String,
    /// The ids, as in [`Assignment::device_ids`].
    #[prost(string, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_ids: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Report {
        Report {
            version: REPORT_VERSION,
            node: "gpu-17".into(),
            sequence: 3,
            uptime_ns: u64::MAX,
            cgroups: Some(Cgroups {
                source: "bpf".into(),
                cgroups: vec![Cgroup { id: 7, path: "/x".into(), cpu_ns: Some(0), ..Cgroup::default() }],
                ..Cgroups::default()
            }),
            gpus: Some(Gpus::default()),
            ..Report::default()
        }
    }

    #[test]
    fn protobuf_and_json_both_give_back_what_went_in() {
        let report = example();
        assert_eq!(Report::decode(&report.encode_to_vec()[..]).unwrap(), report);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn json_follows_the_proto3_mapping() {
        let json = serde_json::to_string(&example()).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"version":1,"node":"gpu-17","sequence":"3","uptimeNs":"18446744073709551615","#,
                r#""cgroups":{"source":"bpf","cgroups":[{"id":"7","path":"/x","cpuNs":"0"}]},"gpus":{}}"#
            )
        );
    }

    #[test]
    fn json_reads_numbers_where_it_writes_strings_and_ignores_unknown_fields() {
        let report: Report = serde_json::from_str(r#"{"sequence": 3, "later": [1]}"#).unwrap();
        assert_eq!(report, Report { sequence: 3, ..Report::default() });
    }

    #[test]
    fn a_measured_zero_is_not_an_absent_figure() {
        let zero = Cgroup { cpu_ns: Some(0), ..Cgroup::default() };
        assert_eq!(Cgroup::decode(&zero.encode_to_vec()[..]).unwrap().cpu_ns, Some(0));
        assert_eq!(Cgroup::decode(&[][..]).unwrap().cpu_ns, None);
    }
}
