//! Keeps the pods' totals in a file of the host across restarts of the agent.
//!
//! The file is written with each sample. It is never flushed to the disk, because it is useless after a reboot: after a
//! crash of the agent, the kernel's memory still has the data. The new file replaces the old one atomically. A file of
//! another boot is ignored. A damaged file is ignored, too, and kept under another name.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::{ENDED_AT_MOST, Living, PodTotals};
use crate::pod_cgroup::PodUid;
use crate::sample::{EndedPod, RunQueue};
use crate::state_file::{Durability, StateFile};

const FILE: &str = "pods";
const HEAD: &str = "mcad-agent pods 1";

/// How many living pods are kept: more than any kubelet runs (110 by default, 500 on the largest nodes).
const LIVING_AT_MOST: usize = 1024;
/// Limit of the size: this many lines, each with a UID and six numbers of at most 20 digits, are 360 KiB.
const BYTES_AT_MOST: u64 = 512 * 1024;

/// The file.
#[derive(Debug)]
pub struct KeptPods {
    file: StateFile,
    boot_id: String,
    /// Whether writing failed and that was logged.
    is_failing: bool,
}

impl KeptPods {
    /// The file in this directory, for this boot.
    pub fn new(state_dir: &Path, boot_id: &str) -> Self {
        Self { file: StateFile::new(state_dir, FILE, BYTES_AT_MOST), boot_id: boot_id.to_owned(), is_failing: false }
    }

    /// What an earlier agent of this boot wrote.
    pub fn recall(&self) -> PodTotals {
        let path = self.file.path().display();
        match self.file.read() {
            Ok(text) => match parse(&text, &self.boot_id) {
                Ok(totals) => return totals,
                Err(Unusable::OtherBoot) => {
                    tracing::info!(%path, "the kept totals of pods are from another boot and are ignored");
                }
                Err(Unusable::Damaged) => self.file.put_aside(&"this version of the agent cannot parse it"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => self.file.put_aside(&error),
            Err(error) => tracing::warn!(%path, %error, "the totals of pods that an earlier agent kept can't be read"),
        }
        PodTotals::default()
    }

    /// Writes the totals.
    pub fn keep(&mut self, totals: &PodTotals) {
        match self.file.replace(&text(totals, &self.boot_id), Durability::ThisBoot) {
            Ok(()) => self.is_failing = false,
            Err(error) if !self.is_failing => {
                tracing::warn!(path = %self.file.path().display(), %error, "the totals of pods can't be kept for the next agent");
                self.is_failing = true;
            }
            Err(_) => {}
        }
    }
}

/// The format: a line with the boot id and a checksum of the rest, then one line per pod.
fn text(totals: &PodTotals, boot_id: &str) -> String {
    let mut lines = String::new();
    // Writing to a String cannot fail.
    let mut line = |kind: &str, uid: &PodUid, id: u64, values: [Option<u64>; 4], end: &str| {
        let _ = write!(lines, "{kind} {uid} {id}");
        for value in values {
            let _ = match value {
                Some(value) => write!(lines, " {value}"),
                None => write!(lines, " -"),
            };
        }
        let _ = writeln!(lines, "{end}");
    };
    let values = |cpu_ns, oom_kills, run_queue: Option<RunQueue>| {
        [cpu_ns, oom_kills, run_queue.map(|of| of.wait_ns), run_queue.map(|of| of.waits)]
    };
    for pod in &totals.ended {
        let end = format!(" {} {}", pod.ended_ns, u8::from(pod.watched));
        line("ended", &pod.uid, pod.id, values(pod.cpu_ns, pod.oom_kills, pod.run_queue), &end);
    }
    for (uid, pod) in totals.living.iter().filter(|(_, pod)| pod.seen_until_ns.is_some()).take(LIVING_AT_MOST) {
        let Some(id) = pod.id else { continue };
        line("living", uid, id, values(pod.cpu_ns, pod.oom_kills, pod.run_queue), "");
    }
    format!("{HEAD} {boot_id} {:016x}\n{lines}", sum(&lines))
}

/// Why a file's text cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unusable {
    /// It is complete, but its values are of another boot, or of an unknown one.
    OtherBoot,
    /// It is not what this version writes.
    Damaged,
}

fn parse(text: &str, boot_id: &str) -> Result<PodTotals, Unusable> {
    let (head, lines) = text.split_once('\n').ok_or(Unusable::Damaged)?;
    let written_boot = head
        .strip_prefix(HEAD)
        .and_then(|rest| rest.strip_suffix(&format!(" {:016x}", sum(lines))))
        .ok_or(Unusable::Damaged)?;
    if boot_id.is_empty() || written_boot.trim_start() != boot_id {
        return Err(Unusable::OtherBoot);
    }
    totals(lines).ok_or(Unusable::Damaged)
}

fn totals(lines: &str) -> Option<PodTotals> {
    let mut totals = PodTotals::default();
    let mut ended = VecDeque::new();
    for line in lines.lines().take(ENDED_AT_MOST + LIVING_AT_MOST) {
        let words: Vec<&str> = line.split(' ').collect();
        let [kind, uid, id, cpu_ns, oom_kills, wait_ns, waits, end @ ..] = &words[..] else { return None };
        let uid = PodUid::known(uid)?;
        let id = id.parse().ok()?;
        let value = |word: &str| if word == "-" { Some(None) } else { word.parse().ok().map(Some) };
        let (cpu_ns, oom_kills) = (value(cpu_ns)?, value(oom_kills)?);
        let run_queue = value(wait_ns)?.zip(value(waits)?).map(|(wait_ns, waits)| RunQueue { wait_ns, waits });
        match (*kind, end) {
            ("living", []) => {
                let carried = run_queue.unwrap_or_default();
                // What is reported of the pod before it is seen again may be in its total already.
                let seen_until_ns = Some(u64::MAX);
                let pod =
                    Living { id: Some(id), cpu_ns, oom_kills, run_queue, carried, seen_until_ns, ..Living::default() };
                totals.living.insert(uid, pod);
            }
            ("ended", [ended_ns, watched]) => {
                let (ended_ns, watched) = (ended_ns.parse().ok()?, *watched == "1");
                ended.push_back(EndedPod { uid, id, cpu_ns, oom_kills, run_queue, ended_ns, watched });
            }
            _ => return None,
        }
    }
    totals.ended = ended;
    Some(totals)
}

/// FNV-1a: enough to detect a damaged file, whose values might be above the true ones.
fn sum(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const UID: &str = "0b0a3c6e-5d8e-4a3f-9c1d-7e6f5a4b3c2d";

    fn totals() -> PodTotals {
        let uid = || PodUid::known(UID).unwrap();
        let run_queue = Some(RunQueue { wait_ns: 5, waits: 2 });
        let ended = EndedPod {
            uid: uid(),
            id: 3,
            cpu_ns: Some(u64::MAX),
            oom_kills: None,
            run_queue: None,
            ended_ns: 9,
            watched: true,
        };
        let living = Living { id: Some(7), cpu_ns: Some(1), run_queue, seen_until_ns: Some(1), ..Living::default() };
        PodTotals { living: [(uid(), living)].into(), ended: [ended].into(), removals_dropped: 0 }
    }

    #[test]
    fn what_is_kept_is_what_is_recalled_in_the_same_boot_alone() {
        let directory = tempfile::tempdir().unwrap();
        KeptPods::new(directory.path(), "boot").keep(&totals());
        let recalled = KeptPods::new(directory.path(), "boot").recall();
        assert_eq!(recalled.ended, totals().ended);
        let pod = &recalled.living[&PodUid::known(UID).unwrap()];
        assert_eq!((pod.id, pod.cpu_ns, pod.oom_kills), (Some(7), Some(1), None));
        assert_eq!(pod.carried, RunQueue { wait_ns: 5, waits: 2 });
        let other = KeptPods::new(directory.path(), "other").recall();
        assert_eq!((other.living.len(), other.ended.len()), (0, 0));
        let none = KeptPods::new(&directory.path().join("none"), "boot").recall();
        assert_eq!((none.living.len(), none.ended.len()), (0, 0));
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let whole = text(&totals(), "boot");
        assert!(parse(&whole, "boot").is_ok());
        assert_eq!(parse(&whole, "other").err(), Some(Unusable::OtherBoot));
        for at in 0..whole.len() {
            assert_eq!(parse(&whole[..at], "boot").err(), Some(Unusable::Damaged), "cut at {at}");
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= 1;
            let damaged = String::from_utf8(bytes).unwrap();
            assert!(parse(&damaged, "boot").is_err(), "damaged at {at}");
        }
        // Without a boot id it is unknown which boot the values belong to.
        assert_eq!(parse(&text(&totals(), ""), "").err(), Some(Unusable::OtherBoot));
    }

    #[test]
    fn a_damaged_file_is_kept_for_a_person_and_one_of_another_boot_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join(FILE), directory.path().join("pods.damaged"));
        let mut kept = KeptPods::new(directory.path(), "boot");
        fs::write(&path, "half a fi").unwrap();
        assert_eq!(kept.recall().ended.len(), 0);
        kept.keep(&totals());
        assert_eq!((fs::read_to_string(&aside).unwrap().as_str(), kept.recall().ended.len()), ("half a fi", 1));
        fs::remove_file(&aside).unwrap();
        KeptPods::new(directory.path(), "other").recall();
        assert!(path.exists() && !aside.exists());
        // Reading a pipe would never end, and a link may lead to any file.
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/proc/self/environ", &path).unwrap();
        assert_eq!(kept.recall().ended.len(), 0);
        assert!(fs::symlink_metadata(&aside).unwrap().is_symlink());
    }

    #[test]
    fn the_file_is_never_larger_than_what_is_read() {
        let line = "ended 00000000-0000-0000-0000-000000000000".len() + 6 * 21 + 3;
        assert!(((ENDED_AT_MOST + LIVING_AT_MOST) * line + 200) as u64 <= BYTES_AT_MOST);
    }
}
