//! The values of one cgroup, group by group, from both sources: from the record that the eBPF program wrote, where
//! pages are converted to bytes and bits to presence, and from the text of the cgroup's files. Pure: `cgroup_file`
//! reads the files.
//!
//! Formats of the files: <https://docs.kernel.org/admin-guide/cgroup-v2.html>.

use std::sync::Arc;

use mcad_wire::abi::{CgroupRecord, group};

use crate::sample::{Cgroup, Group, Io, Limit, Pressure, Stall, Throttling};

/// The kernel's `PID_MAX_LIMIT` on 64 bits: "no limit" is this plus one. `include/linux/threads.h`
const PID_MAX_LIMIT: u64 = 4 * 1024 * 1024;

/// CPU time, and throttling if the cpu controller is enabled. Every cgroup has this file.
pub const CPU_STAT: &str = "cpu.stat";
const MEMORY_CURRENT: &str = "memory.current";
const MEMORY_PEAK: &str = "memory.peak";
const MEMORY_MAX: &str = "memory.max";
const MEMORY_STAT: &str = "memory.stat";
const MEMORY_EVENTS: &str = "memory.events";
const PIDS_CURRENT: &str = "pids.current";
const PIDS_MAX: &str = "pids.max";
const CPU_PRESSURE: &str = "cpu.pressure";
const MEMORY_PRESSURE: &str = "memory.pressure";
const IO_PRESSURE: &str = "io.pressure";
const IO_STAT: &str = "io.stat";

/// The group that exists if this file exists. Throttling has no file of its own: [`fill_cpu`] sets it.
pub fn group_of(file: &[u8]) -> Option<Group> {
    let of = [
        (MEMORY_CURRENT, Group::Memory),
        (MEMORY_STAT, Group::MemoryState),
        (MEMORY_EVENTS, Group::MemoryEvents),
        (PIDS_CURRENT, Group::Pids),
        (CPU_PRESSURE, Group::Pressure),
        (IO_STAT, Group::Io),
    ];
    of.into_iter().find_map(|(name, group)| (name.as_bytes() == file).then_some(group))
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

/// Converts records to cgroups.
#[derive(Clone, Copy, Debug)]
pub struct Decode {
    page_bytes: u64,
}

impl Decode {
    /// With the page size of this machine.
    pub fn new(page_bytes: usize) -> Self {
        Self { page_bytes: page_bytes as u64 }
    }

    /// The cgroup of a record, with those of its groups that are in `readable`. For the root of the hierarchy, for
    /// which the kernel keeps no totals, no values.
    pub fn cgroup(self, record: &CgroupRecord, readable: u32, path: Arc<str>) -> Cgroup {
        let mut cgroup = Cgroup { id: record.id, parent_id: record.parent_id, path, ..Cgroup::default() };
        if record.level == 0 {
            return cgroup;
        }
        cgroup.cpu_ns = Some(record.cpu_ns);
        for group in Group::ALL {
            if record.groups & readable & bit(group) != 0 {
                self.fill(group, record, &mut cgroup);
            }
        }
        cgroup
    }

    /// Sets a group from a record that has it.
    fn fill(self, group: Group, record: &CgroupRecord, cgroup: &mut Cgroup) {
        match group {
            Group::Throttling => {
                cgroup.throttling = Some(Throttling {
                    periods: record.periods.into(),
                    throttled_periods: record.throttled_periods.into(),
                    throttled_ns: record.throttled_ns,
                });
            }
            Group::Memory => {
                cgroup.memory_bytes = Some(self.bytes(record.memory_pages));
                cgroup.memory_peak_bytes = Some(self.bytes(record.memory_peak_pages));
                cgroup.memory_limit = Some(self.memory_limit(record.memory_max_pages));
            }
            Group::MemoryState => self.memory_state(record).put_into(cgroup),
            Group::MemoryEvents => {
                cgroup.oom_kills = Some(record.oom_kills);
                cgroup.memory_max_events = Some(record.max_events);
                cgroup.memory_high_events = Some(record.high_events);
            }
            Group::Pids => {
                cgroup.pids = Some(not_below_zero(record.pids));
                let limit = not_below_zero(record.pids_limit);
                cgroup.pids_limit = Some(if limit > PID_MAX_LIMIT { Limit::None } else { Limit::At(limit) });
            }
            Group::Pressure => {
                let [io, memory, cpu] = record.pressure_ns.map(stalled);
                cgroup.pressure = Some(Pressure { cpu, memory, io });
            }
            Group::Io => {
                let [read_bytes, written_bytes] = record.io_bytes;
                cgroup.io = Some(Io { read_bytes, written_bytes });
            }
        }
    }

    /// Memory by kind, whether proven or not.
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

    /// "No limit" is the kernel's `PAGE_COUNTER_MAX`, `LONG_MAX / PAGE_SIZE`.
    fn memory_limit(self, pages: u64) -> Limit {
        let none = i64::MAX as u64 / self.page_bytes;
        if pages >= none { Limit::None } else { Limit::At(self.bytes(pages)) }
    }
}

/// The kernel sums its counters over the CPUs, so a value may be below 0 for a moment; the kernel's files show 0 then.
fn not_below_zero(counter: i64) -> u64 {
    u64::try_from(counter).unwrap_or(0)
}

fn stalled([some_ns, full_ns]: [u64; 2]) -> Stall {
    Stall { some_ns, full_ns: Some(full_ns) }
}

/// The texts of a cgroup's files.
pub trait Texts {
    /// The text of one file. `None` if it does not exist or cannot be read.
    fn text(&mut self, file: &str) -> Option<&str>;
}

/// Sets a group from files. A controller may be disabled for this cgroup, even between two of these lines: then its
/// values stay absent.
pub fn fill(group: Group, files: &mut impl Texts, cgroup: &mut Cgroup) {
    match group {
        Group::Throttling => cgroup.throttling = files.text(CPU_STAT).and_then(throttling),
        Group::Memory => {
            cgroup.memory_bytes = files.text(MEMORY_CURRENT).and_then(number);
            cgroup.memory_peak_bytes = files.text(MEMORY_PEAK).and_then(number);
            cgroup.memory_limit = files.text(MEMORY_MAX).and_then(limit);
        }
        Group::MemoryState => {
            if let Some(state) = memory_state(files) {
                state.put_into(cgroup);
            }
        }
        Group::MemoryEvents => {
            if let Some(events) = files.text(MEMORY_EVENTS) {
                cgroup.oom_kills = keyed(events, "oom_kill");
                cgroup.memory_max_events = keyed(events, "max");
                cgroup.memory_high_events = keyed(events, "high");
            }
        }
        Group::Pids => {
            cgroup.pids = files.text(PIDS_CURRENT).and_then(number);
            cgroup.pids_limit = files.text(PIDS_MAX).and_then(limit);
        }
        Group::Pressure => cgroup.pressure = pressure(files),
        Group::Io => cgroup.io = files.text(IO_STAT).and_then(io),
    }
}

/// Sets CPU time and throttling, which share [`CPU_STAT`].
pub fn fill_cpu(cpu_stat: &str, cgroup: &mut Cgroup) {
    cgroup.cpu_ns = nanoseconds(cpu_stat, "usage_usec");
    cgroup.throttling = throttling(cpu_stat);
}

/// Memory of a cgroup by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryState {
    /// `anon`.
    pub anon_bytes: u64,
    /// `file`.
    pub file_bytes: u64,
    /// `inactive_file`.
    pub inactive_file_bytes: u64,
}

impl MemoryState {
    fn put_into(self, cgroup: &mut Cgroup) {
        cgroup.memory_anon_bytes = Some(self.anon_bytes);
        cgroup.memory_file_bytes = Some(self.file_bytes);
        cgroup.memory_inactive_file_bytes = Some(self.inactive_file_bytes);
    }
}

fn throttling(cpu_stat: &str) -> Option<Throttling> {
    Some(Throttling {
        periods: keyed(cpu_stat, "nr_periods")?,
        throttled_periods: keyed(cpu_stat, "nr_throttled")?,
        throttled_ns: nanoseconds(cpu_stat, "throttled_usec")?,
    })
}

/// Memory by kind, from files.
pub fn memory_state(files: &mut impl Texts) -> Option<MemoryState> {
    let memory_stat = files.text(MEMORY_STAT)?;
    Some(MemoryState {
        anon_bytes: keyed(memory_stat, "anon")?,
        file_bytes: keyed(memory_stat, "file")?,
        inactive_file_bytes: keyed(memory_stat, "inactive_file")?,
    })
}

fn pressure(files: &mut impl Texts) -> Option<Pressure> {
    Some(Pressure {
        cpu: files.text(CPU_PRESSURE).and_then(stall)?,
        memory: files.text(MEMORY_PRESSURE).and_then(stall)?,
        io: files.text(IO_PRESSURE).and_then(stall)?,
    })
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A number, or `max`.
fn limit(text: &str) -> Option<Limit> {
    match text.trim() {
        "max" => Some(Limit::None),
        amount => amount.parse().ok().map(Limit::At),
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same with `full`.
fn stall(text: &str) -> Option<Stall> {
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let us: u64 = line.split(' ').find_map(|word| word.strip_prefix("total="))?.parse().ok()?;
        us.checked_mul(1000)
    };
    Some(Stall { some_ns: total("some")?, full_ns: total("full") })
}

/// `8:0 rbytes=0 wbytes=0 rios=0 wios=0 dbytes=0 dios=0`, one line per device. No line means that nothing was read or
/// written.
fn io(io_stat: &str) -> Option<Io> {
    let mut io = Io::default();
    for word in io_stat.split_ascii_whitespace() {
        if let Some(bytes) = word.strip_prefix("rbytes=") {
            io.read_bytes += bytes.parse::<u64>().ok()?;
        } else if let Some(bytes) = word.strip_prefix("wbytes=") {
            io.written_bytes += bytes.parse::<u64>().ok()?;
        }
    }
    Some(io)
}

fn nanoseconds(text: &str, key: &str) -> Option<u64> {
    keyed(text, key)?.checked_mul(1000)
}

/// The number in the line `KEY NUMBER` of a flat keyed file.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?.trim().parse().ok()
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

    #[test]
    fn keys_are_whole_words() {
        assert_eq!(keyed("oom 1\noom_kill 2\n", "oom_kill"), Some(2));
        assert_eq!(keyed("oom_kill_x 1\n", "oom_kill"), None);
        assert_eq!(keyed("oom_kill max\n", "oom_kill"), None);
        assert_eq!(nanoseconds("usage_usec 18446744073709551615\n", "usage_usec"), None);
    }

    #[test]
    fn without_the_cpu_controller_there_is_no_throttling() {
        let with = "usage_usec 9\nnr_periods 10\nnr_throttled 3\nthrottled_usec 700\nnr_bursts 0\n";
        let expected = Throttling { periods: 10, throttled_periods: 3, throttled_ns: 700_000 };
        assert_eq!(throttling(with), Some(expected));
        assert_eq!(throttling("usage_usec 9\nuser_usec 9\n"), None);
    }

    #[test]
    fn a_limit_may_be_none_and_that_is_known() {
        assert_eq!(limit("max\n"), Some(Limit::None));
        assert_eq!(limit("4096\n"), Some(Limit::At(4096)));
        assert_eq!(limit(""), None);
    }

    #[test]
    fn pressure_of_a_kernel_without_full_for_the_processor_has_none() {
        let some = "some avg10=0.12 avg60=0.00 avg300=0.00 total=17\n";
        assert_eq!(stall(some), Some(Stall { some_ns: 17_000, full_ns: None }));
        let both = format!("{some}full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n");
        assert_eq!(stall(&both), Some(Stall { some_ns: 17_000, full_ns: Some(5000) }));
        assert_eq!(stall(""), None);
    }

    #[test]
    fn io_of_all_devices_is_added_up_and_idle_is_zero() {
        let two = "8:0 rbytes=4096 wbytes=1 rios=1 wios=1 dbytes=9 dios=1\n259:0 rbytes=1 wbytes=2 rios=0 wios=1\n";
        assert_eq!(io(two), Some(Io { read_bytes: 4097, written_bytes: 3 }));
        assert_eq!(io(""), Some(Io::default()));
        // A device that never had any io may be listed without values.
        assert_eq!(io("8:0 \n"), Some(Io::default()));
    }
}
