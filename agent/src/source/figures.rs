//! The figures of one cgroup from its files: which file holds what, and how it is written. It walks no tree.
//!
//! Source of the formats: <https://docs.kernel.org/admin-guide/cgroup-v2.html>.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::sample::{Cgroup, Group, Io, Limit, Pressure, Stall, Throttling};

/// Longest part of a file that is read. `memory.stat` has about 2 KiB; `io.stat` some 100 bytes a device.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// CPU time, and throttling where the cpu controller is on. Every cgroup has it.
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

/// The group that is there where this file is. Throttling has no file of its own: [`CgroupFile::fill_cpu`] reads it.
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

/// The files of one cgroup, through its open directory: a cgroup that takes its name later is never read instead.
#[derive(Debug)]
pub struct CgroupFile<'a> {
    /// The cgroup.
    pub directory: &'a OwnedFd,
    /// What the last file held; reused by the next.
    pub buffer: &'a mut Vec<u8>,
}

impl CgroupFile<'_> {
    /// Fills in a group. A controller may be off for this cgroup, also between two of these lines: then it stays absent.
    pub fn fill(&mut self, group: Group, cgroup: &mut Cgroup) {
        match group {
            Group::Throttling => cgroup.throttling = self.of(CPU_STAT, throttling),
            Group::Memory => {
                cgroup.memory_bytes = self.of(MEMORY_CURRENT, number);
                cgroup.memory_peak_bytes = self.of(MEMORY_PEAK, number);
                cgroup.memory_limit = self.of(MEMORY_MAX, limit);
            }
            Group::MemoryState => {
                if let Some(state) = self.of(MEMORY_STAT, memory_state) {
                    cgroup.memory_anon_bytes = Some(state.anon_bytes);
                    cgroup.memory_file_bytes = Some(state.file_bytes);
                    cgroup.memory_inactive_file_bytes = Some(state.inactive_file_bytes);
                }
            }
            Group::MemoryEvents => {
                let events = self
                    .of(MEMORY_EVENTS, |text| Some([keyed(text, "oom_kill"), keyed(text, "max"), keyed(text, "high")]));
                [cgroup.oom_kills, cgroup.memory_max_events, cgroup.memory_high_events] = events.unwrap_or_default();
            }
            Group::Pids => {
                cgroup.pids = self.of(PIDS_CURRENT, number);
                cgroup.pids_limit = self.of(PIDS_MAX, limit);
            }
            Group::Pressure => {
                cgroup.pressure = self.pressure();
            }
            Group::Io => cgroup.io = self.of(IO_STAT, io),
        }
    }

    /// Fills in CPU time and throttling, which share a file. An error where it can't be read: the cgroup is gone.
    pub fn fill_cpu(&mut self, cgroup: &mut Cgroup) -> Result<(), Errno> {
        let text = self.text(CPU_STAT)?;
        cgroup.cpu_ns = nanoseconds(text, "usage_usec");
        cgroup.throttling = throttling(text);
        Ok(())
    }

    /// What `memory.stat` says.
    pub fn memory_state(&mut self) -> Option<MemoryState> {
        self.of(MEMORY_STAT, memory_state)
    }

    fn pressure(&mut self) -> Option<Pressure> {
        Some(Pressure {
            cpu: self.of(CPU_PRESSURE, stall)?,
            memory: self.of(MEMORY_PRESSURE, stall)?,
            io: self.of(IO_PRESSURE, stall)?,
        })
    }

    fn of<T>(&mut self, file: &str, parse: fn(&str) -> Option<T>) -> Option<T> {
        self.text(file).ok().and_then(parse)
    }

    /// The text of one file. Of a longer one than [`MAX_FILE_BYTES`] nothing: its last figure may be cut.
    fn text(&mut self, file: &str) -> Result<&str, Errno> {
        const STEP: usize = 4096;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.directory, file, flags, Mode::empty())?;
        let mut length = 0;
        loop {
            self.buffer.resize(length + STEP, 0);
            match rustix::io::read(&file, &mut self.buffer[length..])? {
                0 => break,
                read => length += read,
            }
            if length > MAX_FILE_BYTES {
                return Err(Errno::FBIG);
            }
        }
        std::str::from_utf8(&self.buffer[..length]).map_err(|_| Errno::ILSEQ)
    }
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

fn throttling(cpu_stat: &str) -> Option<Throttling> {
    Some(Throttling {
        periods: keyed(cpu_stat, "nr_periods")?,
        throttled_periods: keyed(cpu_stat, "nr_throttled")?,
        throttled_ns: nanoseconds(cpu_stat, "throttled_usec")?,
    })
}

fn memory_state(memory_stat: &str) -> Option<MemoryState> {
    Some(MemoryState {
        anon_bytes: keyed(memory_stat, "anon")?,
        file_bytes: keyed(memory_stat, "file")?,
        inactive_file_bytes: keyed(memory_stat, "inactive_file")?,
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

/// `8:0 rbytes=0 wbytes=0 rios=0 wios=0 dbytes=0 dios=0`, a line per device. None at all is nothing read or written.
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

/// The directory of the cgroup with this id.
pub(super) fn open(tree: &Path, id: u64, path: &str) -> Option<OwnedFd> {
    let path = tree.join(path.trim_start_matches('/'));
    let directory = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    (rustix::fs::fstat(&directory).ok()?.st_ino == id).then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_file_that_is_too_long_nothing_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let directory = OwnedFd::from(std::fs::File::open(folder.path()).unwrap());
        let oom_kills = |bytes: usize| {
            let mut buffer = Vec::new();
            let text = "oom_kill 12\n";
            let text = text.to_owned() + &"x".repeat(bytes - text.len());
            std::fs::write(folder.path().join("memory.events"), text).unwrap();
            let mut file = CgroupFile { directory: &directory, buffer: &mut buffer };
            file.text("memory.events").map(|text| (text.len(), keyed(text, "oom_kill")))
        };
        assert_eq!(oom_kills(MAX_FILE_BYTES), Ok((MAX_FILE_BYTES, Some(12))));
        assert_eq!(oom_kills(MAX_FILE_BYTES + 1), Err(Errno::FBIG));
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
        // A device that never saw any io may stand there alone.
        assert_eq!(io("8:0 \n"), Some(Io::default()));
    }
}
