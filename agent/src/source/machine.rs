//! The machine as a whole, from `/proc` and `/sys`. It parses three files, and computes nothing over time.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::sample::Machine;
use crate::source::SourceError;

/// Reads the machine's values.
#[derive(Debug)]
pub struct MachineFiles {
    stat: PathBuf,
    meminfo: PathBuf,
    cpus_online: PathBuf,
    user_hz: u64,
}

impl MachineFiles {
    /// Values of the machine whose `/proc` and `/sys` are mounted at these paths.
    pub fn new(proc_root: &Path, sys_root: &Path) -> Self {
        Self {
            stat: proc_root.join("stat"),
            meminfo: proc_root.join("meminfo"),
            cpus_online: sys_root.join("devices/system/cpu/online"),
            user_hz: rustix::param::clock_ticks_per_second(),
        }
    }

    /// Reads what can be read. Each file that can't be read leaves its values absent and adds one error.
    pub fn read(&self) -> (Machine, Vec<SourceError>) {
        let mut errors = Vec::new();
        let mut kept = |result: Result<_, _>| result.map_err(|error| errors.push(error)).ok();
        let cpu_busy_ns =
            kept(value(&self.stat, "line `cpu` with its seven numbers", |text| cpu_busy_ns(text, self.user_hz)));
        let cpus_online = kept(value(&self.cpus_online, "list of CPUs", |text| cpus_online(text).map(u64::from)));
        let memory = read(&self.meminfo);
        let mut machine = Machine {
            cpus_online: cpus_online.and_then(|count| u32::try_from(count).ok()),
            cpu_busy_ns,
            ..Machine::default()
        };
        match memory {
            Err(error) => errors.push(error),
            Ok(text) => {
                machine.memory_total_bytes = meminfo_bytes(&text, "MemTotal");
                machine.memory_free_bytes = meminfo_bytes(&text, "MemFree");
                machine.memory_inactive_file_bytes = meminfo_bytes(&text, "Inactive(file)");
                if machine.memory_total_bytes.is_none() {
                    errors.push(SourceError::Malformed { path: self.meminfo.clone(), what: "line `MemTotal`" });
                }
            }
        }
        (machine, errors)
    }
}

/// Enough for the first line of `stat`, the only one that is used, and for all of `meminfo`.
const READ_BYTES: u64 = 16 * 1024;

fn read(path: &Path) -> Result<String, SourceError> {
    let read = || -> io::Result<String> {
        let mut bytes = Vec::with_capacity(READ_BYTES as usize);
        std::fs::File::open(path)?.take(READ_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map_err(|source| SourceError::Read { path: path.to_owned(), source })
}

fn value(path: &Path, what: &'static str, parse: impl Fn(&str) -> Option<u64>) -> Result<u64, SourceError> {
    parse(&read(path)?).ok_or_else(|| SourceError::Malformed { path: path.to_owned(), what })
}

/// Busy time of the CPUs: user, nice, system, irq and softirq of the line `cpu`, which sums up all CPUs.
///
/// `idle` and `iowait` are not busy; `steal` is time that the hypervisor gave to others; `guest` and `guest_nice` are
/// included in `user` and `nice` already (proc_stat(5)). The kernel counts in ticks of `USER_HZ`.
fn cpu_busy_ns(stat: &str, user_hz: u64) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    let &[user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks.as_slice() else { return None };
    let busy = [user, nice, system, irq, softirq].into_iter().try_fold(0_u64, u64::checked_add)?;
    let ns = u128::from(busy) * 1_000_000_000 / u128::from(user_hz.max(1));
    u64::try_from(ns).ok()
}

/// The kernel's list format: `0-3,8,10-11`.
fn cpus_online(ranges: &str) -> Option<u32> {
    ranges.trim().split(',').try_fold(0_u32, |count, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// The value of a line `KEY:   123 kB`, in bytes.
fn meminfo_bytes(meminfo: &str, key: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Reason;

    #[test]
    fn a_file_is_read_as_far_as_its_figures_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat");
        for (bytes, expected) in [(READ_BYTES, READ_BYTES), (READ_BYTES + 1, READ_BYTES)] {
            std::fs::write(&path, "x".repeat(bytes as usize)).unwrap();
            assert_eq!(read(&path).unwrap().len() as u64, expected);
        }
    }

    #[test]
    fn busy_time_leaves_out_idle_iowait_steal_and_guests() {
        let stat = "cpu  100 20 30 5000 600 7 8 900 50 10\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n";
        assert_eq!(cpu_busy_ns(stat, 100), Some((100 + 20 + 30 + 7 + 8) * 10_000_000));
        assert_eq!(cpu_busy_ns(stat, 1000), Some((100 + 20 + 30 + 7 + 8) * 1_000_000));
    }

    #[test]
    fn busy_time_is_absent_where_the_line_is_short_or_missing() {
        for stat in ["", "cpu0 1 2 3 4 5 6 7\n", "cpu  1 2 3 4 5 6\n", "cpu  1 2 x 4 5 6 7\n"] {
            assert_eq!(cpu_busy_ns(stat, 100), None, "{stat:?}");
        }
        assert_eq!(cpu_busy_ns("cpu  18446744073709551615 1 0 0 0 0 0\n", 100), None);
        assert_eq!(cpu_busy_ns("cpu  18446744073709551615 0 0 0 0 0 0\n", 100), None);
    }

    #[test]
    fn processors_online_come_as_ranges_and_single_numbers() {
        for (ranges, expected) in [
            ("0\n", Some(1)),
            ("0-1\n", Some(2)),
            ("0-3,8,10-11\n", Some(7)),
            ("0-255", Some(256)),
            ("", None),
            ("3-0", None),
            ("0-", None),
            ("a", None),
            ("0-4294967295", None),
        ] {
            assert_eq!(cpus_online(ranges), expected, "{ranges:?}");
        }
    }

    #[test]
    fn meminfo_is_in_kibibytes_and_its_keys_are_whole_words() {
        let meminfo = "MemTotal:        8000 kB\nMemFree:  10 kB\nInactive:  77 kB\nInactive(file):   5 kB\nHugePages_Total:  3\n";
        assert_eq!(meminfo_bytes(meminfo, "MemTotal"), Some(8_192_000));
        assert_eq!(meminfo_bytes(meminfo, "Inactive(file)"), Some(5120));
        assert_eq!(meminfo_bytes(meminfo, "HugePages_Total"), None);
        assert_eq!(meminfo_bytes(meminfo, "Mem"), None);
        assert_eq!(meminfo_bytes("MemTotal: 18446744073709551615 kB", "MemTotal"), None);
    }

    #[test]
    fn a_file_that_is_missing_or_malformed_takes_only_its_own_figures_along() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("stat"), "cpu  1 0 0 0 0 0 0\n").unwrap();
        std::fs::write(root.path().join("meminfo"), "MemFree: 4 kB\n").unwrap();
        let (machine, errors) = MachineFiles::new(root.path(), root.path()).read();
        assert!(machine.cpu_busy_ns.is_some());
        assert_eq!(machine.cpus_online, None);
        assert_eq!((machine.memory_total_bytes, machine.memory_free_bytes), (None, Some(4096)));
        let reasons: Vec<Reason> = errors.iter().map(SourceError::reason).collect();
        assert_eq!(reasons, [Reason::NotFound, Reason::Malformed]);
    }
}
