//! The messages of a report: the tag, name and type of each field, in one table. `wire/report.proto` is the public
//! schema and documents the fields; tests compare this table with it.
//!
//! [`crate::report`] generates structs from the table, [`crate::reading`] generates readers. Each line is a field: its
//! tag, its name, its label, and its type as protobuf spells it. The labels:
//!
//! - `implicit`: a field that is not there has its type's default, such as 0 or an empty string;
//! - `optional`: a field that is not there is absent, which differs from a measured 0; `boxed`: the same for a message
//!   that is rarely present;
//! - `repeated`: a list.
//!
//! The lifetime `'a` is that of the report's bytes, which the readers' strings borrow.

/// Calls a macro with the table.
macro_rules! schema {
    ($callback:ident) => {
        $callback! {
            Report<'a> {
                1 version: implicit uint32,
                2 node: implicit string,
                3 boot_id: implicit string,
                4 started_at_ms: implicit uint64,
                5 sequence: implicit uint64,
                6 sampled_at_ms: implicit uint64,
                7 uptime_ns: implicit uint64,
                8 interval_ms: implicit uint64,
                9 agent_version: implicit string,
                10 machine: optional Machine,
                11 cgroups: optional Cgroups<'a>,
                12 gpus: optional Gpus<'a>,
                13 assignments: optional Assignments<'a>,
                14 absences: repeated Absence<'a>,
            }
            Absence<'a> {
                1 source: implicit string,
                2 reason: implicit string,
            }
            Machine {
                1 cpus_online: optional uint32,
                2 cpu_busy_ns: optional uint64,
                3 memory_total_bytes: optional uint64,
                4 memory_free_bytes: optional uint64,
                5 memory_inactive_file_bytes: optional uint64,
            }
            Cgroups<'a> {
                1 source: implicit string,
                2 cgroups: repeated Cgroup<'a>,
                3 seen: optional uint32,
                4 dropped: optional uint32,
                5 from_files: repeated string,
                6 ended_pods: repeated EndedPod<'a>,
            }
            EndedPod<'a> {
                1 uid: implicit string,
                2 id: implicit uint64,
                3 cpu_ns: optional uint64,
                4 oom_kills: optional uint64,
                5 run_queue_wait_ns: optional uint64,
                6 run_queue_waits: optional uint64,
                7 ended_uptime_ns: implicit uint64,
                8 watched: implicit bool,
            }
            Cgroup<'a> {
                1 id: implicit uint64,
                2 path: implicit string,
                3 pod_uid: implicit string,
                4 container_id: implicit string,
                5 cpu_ns: optional uint64,
                6 memory_bytes: optional uint64,
                7 memory_inactive_file_bytes: optional uint64,
                8 oom_kills: optional uint64,
                9 run_queue_wait_ns: optional uint64,
                10 run_queue_waits: optional uint64,
                11 detail: boxed CgroupDetail,
            }
            CgroupDetail {
                1 periods: optional uint64,
                2 throttled_periods: optional uint64,
                3 throttled_ns: optional uint64,
                4 memory_peak_bytes: optional uint64,
                5 memory_limit_bytes: optional uint64,
                6 memory_anon_bytes: optional uint64,
                7 memory_file_bytes: optional uint64,
                8 memory_max_events: optional uint64,
                9 memory_high_events: optional uint64,
                10 pids: optional uint64,
                11 pids_limit: optional uint64,
                12 cpu_some_ns: optional uint64,
                13 cpu_full_ns: optional uint64,
                14 memory_some_ns: optional uint64,
                15 memory_full_ns: optional uint64,
                16 io_some_ns: optional uint64,
                17 io_full_ns: optional uint64,
                18 io_read_bytes: optional uint64,
                19 io_written_bytes: optional uint64,
            }
            Gpus<'a> {
                1 driver_version: implicit string,
                2 devices: repeated Gpu<'a>,
                3 lost_bus_ids: repeated string,
                4 remembered: optional uint32,
                5 fake: implicit bool,
                6 resource: implicit string,
                7 part_prefix: implicit string,
            }
            Gpu<'a> {
                1 uuid: implicit string,
                2 model: implicit string,
                3 bus_id: implicit string,
                4 mig_mode: optional bool,
                5 mig_instances: repeated MigInstance<'a>,
                6 unhealthy_reasons: repeated string,
                7 utilization_ratio: optional double,
                8 busy_ns: optional uint64,
                9 memory_used_bytes: optional uint64,
                10 memory_total_bytes: optional uint64,
                11 xid_errors: repeated XidErrors,
                12 uses: repeated GpuUse<'a>,
                13 warnings: repeated string,
                14 nvlink_errors: boxed NvlinkErrors,
                15 vacant: repeated uint64,
                16 uses_complete: optional bool,
            }
            NvlinkErrors {
                1 replay: optional uint64,
                2 recovery: optional uint64,
                3 crc_flit: optional uint64,
                4 crc_data: optional uint64,
                5 ecc_data: optional uint64,
            }
            GpuUse<'a> {
                1 pod_uid: implicit string,
                2 container_id: implicit string,
                3 processes: implicit uint32,
                4 memory_used_bytes: optional uint64,
                5 busy_ns: optional uint64,
                6 parts: repeated uint64,
                7 daemons: implicit uint32,
                8 unreadable: implicit bool,
            }
            MigInstance<'a> {
                1 uuid: implicit string,
                2 profile: implicit string,
                3 gpu_instance: optional uint32,
                4 compute_instance: optional uint32,
                5 unhealthy_reasons: repeated string,
                6 utilization_ratio: optional double,
                7 busy_ns: optional uint64,
                8 memory_used_bytes: optional uint64,
                9 memory_total_bytes: optional uint64,
                10 uses: repeated GpuUse<'a>,
                11 vacant: repeated uint64,
            }
            XidErrors {
                1 xid: implicit uint64,
                2 count: implicit uint64,
            }
            Assignments<'a> {
                1 assigned: repeated Assignment<'a>,
                2 allocatable: repeated DeviceIds<'a>,
            }
            Assignment<'a> {
                1 namespace: implicit string,
                2 pod: implicit string,
                3 container: implicit string,
                4 resource: implicit string,
                5 device_ids: repeated string,
                6 held_ns: optional uint64,
                7 claim_namespace: implicit string,
                8 claim: implicit string,
                9 driver: implicit string,
                10 pool: implicit string,
                11 device: implicit string,
                12 share_id: optional string,
            }
            DeviceIds<'a> {
                1 resource: implicit string,
                2 device_ids: repeated string,
            }
        }
    };
}
pub(crate) use schema;
