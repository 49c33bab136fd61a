//! From what a walk wrote to what a sample holds: pages become bytes, bits become presence. Pure.

use std::sync::Arc;

use mcad_wire::abi::{CgroupRecord, group};

use super::figures::MemoryState;
use crate::sample::{Cgroup, Group, Io, Limit, Pressure, Stall, Throttling};

/// The kernel's `PID_MAX_LIMIT` on 64 bits: no limit is this and one more. `include/linux/threads.h`
const PID_MAX_LIMIT: u64 = 4 * 1024 * 1024;

/// Makes cgroups of records.
#[derive(Clone, Copy, Debug)]
pub struct Decode {
    page_bytes: u64,
}

/// The bit of a group in a record.
pub const fn bit(group: Group) -> u32 {
    match group {
        Group::Throttling => group::THROTTLING,
        Group::Memory => group::MEMORY,
        Group::MemoryState => group::MEMORY_STATE,
        Group::MemoryEvents => group::MEMORY_EVENTS,
        Group::Pids => group::PIDS,
        Group::Pressure => group::PRESSURE,
        Group::Io => group::IO,
    }
}

impl Decode {
    /// With the size of this machine's pages.
    pub fn new(page_bytes: usize) -> Self {
        Self { page_bytes: page_bytes as u64 }
    }

    /// The cgroup of a record, with those of its groups that are in `readable`. Of the root of the hierarchy, for which the kernel
    /// keeps no totals, nothing.
    pub fn cgroup(self, record: &CgroupRecord, readable: u32, path: Arc<str>) -> Cgroup {
        let mut cgroup = Cgroup { id: record.id, parent_id: record.parent_id, path, ..Cgroup::default() };
        if record.level == 0 {
            return cgroup;
        }
        let has = |group: u32| record.groups & readable & group != 0;
        cgroup.cpu_ns = Some(record.cpu_ns);
        if has(group::THROTTLING) {
            cgroup.throttling = Some(Throttling {
                periods: record.periods.into(),
                throttled_periods: record.throttled_periods.into(),
                throttled_ns: record.throttled_ns,
            });
        }
        if has(group::MEMORY) {
            cgroup.memory_bytes = Some(self.bytes(record.memory_pages));
            cgroup.memory_peak_bytes = Some(self.bytes(record.memory_peak_pages));
            cgroup.memory_limit = Some(self.memory_limit(record.memory_max_pages));
        }
        if has(group::MEMORY_STATE) {
            let state = self.memory_state(record);
            cgroup.memory_anon_bytes = Some(state.anon_bytes);
            cgroup.memory_file_bytes = Some(state.file_bytes);
            cgroup.memory_inactive_file_bytes = Some(state.inactive_file_bytes);
        }
        if has(group::MEMORY_EVENTS) {
            cgroup.oom_kills = Some(record.oom_kills);
            cgroup.memory_max_events = Some(record.max_events);
            cgroup.memory_high_events = Some(record.high_events);
        }
        if has(group::PIDS) {
            cgroup.pids = Some(not_below_zero(record.pids));
            let limit = not_below_zero(record.pids_limit);
            cgroup.pids_limit = Some(if limit > PID_MAX_LIMIT { Limit::None } else { Limit::At(limit) });
        }
        if has(group::PRESSURE) {
            let [io, memory, cpu] = record.pressure_ns.map(stall);
            cgroup.pressure = Some(Pressure { cpu, memory, io });
        }
        if has(group::IO) {
            let [read_bytes, written_bytes] = record.io_bytes;
            cgroup.io = Some(Io { read_bytes, written_bytes });
        }
        cgroup
    }

    /// Memory by kind, proven or not.
    pub fn memory_state(self, record: &CgroupRecord) -> MemoryState {
        let bytes = |pages| self.bytes(not_below_zero(pages));
        MemoryState {
            anon_bytes: bytes(record.anon_pages),
            file_bytes: bytes(record.file_pages),
            inactive_file_bytes: bytes(record.inactive_file_pages),
        }
    }

    fn bytes(self, pages: u64) -> u64 {
        pages.saturating_mul(self.page_bytes)
    }

    /// No limit is the kernel's `PAGE_COUNTER_MAX`, `LONG_MAX / PAGE_SIZE`.
    fn memory_limit(self, pages: u64) -> Limit {
        let none = i64::MAX as u64 / self.page_bytes;
        if pages >= none { Limit::None } else { Limit::At(self.bytes(pages)) }
    }
}

/// The kernel's counters are added up from the processors' own, so a moment's reading may be below 0; the kernel's files show 0 then.
fn not_below_zero(counter: i64) -> u64 {
    u64::try_from(counter).unwrap_or(0)
}

fn stall([some_ns, full_ns]: [u64; 2]) -> Stall {
    Stall { some_ns, full_ns: Some(full_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = u32::MAX;

    fn decode(record: CgroupRecord, readable: u32) -> Cgroup {
        Decode::new(4096).cgroup(&record, readable, Arc::from("/x"))
    }

    fn record(groups: u32) -> CgroupRecord {
        CgroupRecord { id: 7, parent_id: 1, level: 1, groups, cpu_ns: 5, ..CgroupRecord::default() }
    }

    #[test]
    fn a_group_that_was_not_read_is_absent_whatever_its_bytes_are() {
        let left_over = CgroupRecord { oom_kills: 9, pids: 3, memory_pages: 1, io_bytes: [1, 1], ..record(0) };
        let expected = Cgroup { id: 7, parent_id: 1, path: Arc::from("/x"), cpu_ns: Some(5), ..Cgroup::default() };
        assert_eq!(decode(left_over, ALL), expected);
        let read = CgroupRecord { groups: ALL, ..left_over };
        assert_eq!(decode(read, 0), expected);
        assert_ne!(decode(read, ALL), expected);
    }

    #[test]
    fn a_measured_zero_is_there() {
        let cgroup = decode(record(ALL), ALL);
        assert_eq!((cgroup.memory_bytes, cgroup.oom_kills, cgroup.pids), (Some(0), Some(0), Some(0)));
        assert_eq!((cgroup.io, cgroup.throttling), (Some(Io::default()), Some(Throttling::default())));
    }

    #[test]
    fn pages_become_bytes_and_what_is_below_zero_is_zero() {
        let cgroup = decode(CgroupRecord { memory_pages: 2, anon_pages: -1, file_pages: 3, ..record(ALL) }, ALL);
        assert_eq!(cgroup.memory_bytes, Some(8192));
        assert_eq!((cgroup.memory_anon_bytes, cgroup.memory_file_bytes), (Some(0), Some(12_288)));
    }

    #[test]
    fn the_kernels_ways_to_write_no_limit_are_known() {
        let limits = |memory_max_pages, pids_limit| {
            let cgroup = decode(CgroupRecord { memory_max_pages, pids_limit, ..record(ALL) }, ALL);
            (cgroup.memory_limit.unwrap(), cgroup.pids_limit.unwrap())
        };
        assert_eq!(limits(i64::MAX as u64 / 4096, 4_194_305), (Limit::None, Limit::None));
        assert_eq!(limits(25, 4_194_304), (Limit::At(102_400), Limit::At(4_194_304)));
    }

    #[test]
    fn of_the_root_the_kernel_keeps_no_totals() {
        let cgroup = decode(CgroupRecord { level: 0, memory_pages: 9, ..record(ALL) }, ALL);
        assert_eq!(cgroup, Cgroup { id: 7, parent_id: 1, path: Arc::from("/x"), ..Cgroup::default() });
    }

    #[test]
    fn every_group_has_a_bit_of_its_own() {
        let bits = Group::ALL.map(bit);
        assert!(bits.iter().all(|bit| bit.is_power_of_two()));
        assert_eq!(bits.iter().fold(0, |all, bit| all | bit).count_ones(), 7);
    }
}
