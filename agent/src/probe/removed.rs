//! The program that runs when cgroups are removed, and its ring buffer. [`crate::pod_totals`] computes the totals of
//! pods from its records.

use std::{fmt, mem::offset_of};

use aya::{
    Btf, Ebpf,
    maps::{MapData, RingBuf},
    programs::{BtfTracePoint, tp_btf::BtfTracePointLink},
};
use mcad_wire::abi::{self, ARRAY_HEAD_BYTES, CgroupRemoved, RemovedCounts, RemovedOffsets, group};

use super::{ProbeError, mapped::Mapped};
use crate::{
    kernel_types::{KernelTypes, TypesError},
    sample::{Removals, Removed},
};

/// Enough for some 4,000 containers with the path lengths of kubelet and the runtimes: 400 a second at the default
/// interval. The size must be a power of two and a multiple of pages.
pub(super) const RING_BYTES: u32 = 1 << 20;

/// Limit of gathered records while walks fail and nothing takes them. After that the ring fills up, and the program
/// counts what it drops.
const GATHERED_AT_MOST: usize = 8192;

/// The record without its path.
const HEAD_BYTES: usize = size_of::<CgroupRemoved>() - abi::PATH_BYTES;

/// What the program needs when it is loaded.
#[derive(Clone, Copy, Debug)]
pub struct RemovedPlan {
    pub(super) offsets: RemovedOffsets,
}

impl RemovedPlan {
    /// The plan for this kernel with this many possible CPUs. An error if the kernel keeps the CPU time of cgroups in
    /// another way.
    pub fn new(types: &KernelTypes, cpus: u32) -> Result<Self, TypesError> {
        let of_processor = "bstat.cputime.sum_exec_runtime";
        // Until 6.15, one structure held both kinds of values.
        let (cgroup_rstat, rstat_cpu_ns) = match types.pointer("cgroup", "rstat_base_cpu") {
            Ok(pointer) => (pointer, types.offset("cgroup_rstat_base_cpu", of_processor)?),
            Err(_) => (types.pointer("cgroup", "rstat_cpu")?, types.offset("cgroup_rstat_cpu", of_processor)?),
        };
        let array_pointers = types.offset("bpf_array", "pptrs")?;
        if array_pointers as usize + size_of::<u64>() > ARRAY_HEAD_BYTES {
            return Err(TypesError::Unexpected {
                structure: "bpf_array",
                difference: "its member `pptrs` lies beyond the bytes that are read",
            });
        }
        Ok(Self {
            offsets: RemovedOffsets {
                cgroup_root: types.pointer("cgroup", "root")?,
                root_hierarchy: types.offset("cgroup_root", "hierarchy_id")?,
                cgroup_rstat,
                rstat_cpu_ns,
                array_pointers,
                cpus,
            },
        })
    }
}

/// The attached program.
pub struct RemovedProbe {
    ring: RingBuf<MapData>,
    /// Records read from the ring and not yet taken.
    gathered: Vec<Removed>,
    counts: Mapped<RemovedCounts>,
    /// Detaches the program when dropped.
    _link: BtfTracePointLink,
}

impl fmt::Debug for RemovedProbe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RemovedProbe").field("gathered", &self.gathered.len()).finish_non_exhaustive()
    }
}

impl RemovedProbe {
    /// Loads the program and attaches it.
    pub(super) fn attach(probes: &mut Ebpf, btf: &Btf) -> Result<Self, ProbeError> {
        let name = abi::REMOVED_PROGRAM;
        let in_program = |source| ProbeError::Program { name, source };
        let at_tracepoint = |source| ProbeError::AttachProgram { name, source };
        let counts = Mapped::of(probes, abi::REMOVED_COUNTS_MAP, 1)?;
        let ring = probes.take_map(abi::REMOVED_MAP).and_then(|map| RingBuf::try_from(map).ok());
        let ring = ring.ok_or(ProbeError::Missing { kind: "ring", name: abi::REMOVED_MAP })?;
        let program: Option<&mut BtfTracePoint> = probes.program_mut(name).and_then(|program| program.try_into().ok());
        let program = program.ok_or(ProbeError::Missing { kind: "tracepoint program", name })?;
        program.load("cgroup_rmdir", btf).map_err(in_program)?;
        let link = program.attach().map_err(at_tracepoint)?;
        let link = program.take_link(link).map_err(at_tracepoint)?;
        Ok(Self { ring, gathered: Vec::new(), counts, _link: link })
    }

    /// Empties the ring. The gathered records stay until they are taken, even if the walk that follows fails.
    pub fn gather(&mut self) {
        while self.gathered.len() < GATHERED_AT_MOST
            && let Some(record) = self.ring.next()
        {
            self.gathered.extend(decode(&record));
        }
    }

    /// Takes the gathered records for a sample that is complete at this instant.
    pub fn take(&mut self, read_until_ns: u64) -> Removals {
        let RemovedCounts { seen, told, dropped } = self.counts.get(0);
        Removals { removed: std::mem::take(&mut self.gathered), read_until_ns, seen, told, dropped }
    }
}

/// Decodes a record of the ring, which is cut off after its path. `None` if it was not written by our program.
fn decode(bytes: &[u8]) -> Option<Removed> {
    let (head, path) = bytes.split_at_checked(HEAD_BYTES)?;
    let word = |at: usize| Some(u64::from_ne_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let half = |at: usize| Some(u32::from_ne_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let groups = half(offset_of!(CgroupRemoved, groups))?;
    let path = path.get(..half(offset_of!(CgroupRemoved, path_bytes))? as usize)?;
    let oom_kills = word(offset_of!(CgroupRemoved, oom_kills))?;
    Some(Removed {
        at_ns: word(offset_of!(CgroupRemoved, at_ns))?,
        id: word(offset_of!(CgroupRemoved, id))?,
        parent_id: word(offset_of!(CgroupRemoved, parent_id))?,
        path: whole(path),
        cpu_ns: word(offset_of!(CgroupRemoved, cpu_ns))?,
        oom_kills: (groups & group::MEMORY_EVENTS != 0).then_some(oom_kills),
    })
}

/// The path as text. If the path was too long for the kernel: the complete components and one that replaces the rest,
/// so that it is not confused with the path of an ancestor.
fn whole(path: &[u8]) -> String {
    let text = path.strip_suffix(&[0]).unwrap_or(path);
    // The kernel and the program each leave out one byte for the NUL.
    if text.len() < abi::PATH_BYTES - 2 {
        return String::from_utf8_lossy(text).into_owned();
    }
    let end = text.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    format!("{}/?", String::from_utf8_lossy(&text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(path: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = [7_u64, 42, 41, 5_000, 3].into_iter().flat_map(u64::to_ne_bytes).collect();
        bytes.extend(group::MEMORY_EVENTS.to_ne_bytes());
        bytes.extend((path.len() as u32).to_ne_bytes());
        bytes.extend(path);
        bytes
    }

    #[test]
    fn a_record_ends_with_its_path() {
        let removed = decode(&record(b"/kubepods/odd \xff\0")).unwrap();
        let expected = Removed {
            at_ns: 7,
            id: 42,
            parent_id: 41,
            path: "/kubepods/odd \u{fffd}".into(),
            cpu_ns: 5_000,
            oom_kills: Some(3),
        };
        assert_eq!(removed, expected);
    }

    #[test]
    fn what_is_cut_short_is_no_record() {
        let bytes = record(b"/kubepods\0");
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_path_that_was_too_long_is_not_taken_for_a_shorter_one() {
        let long = [b"/kubepods/podx/".as_slice(), &[b'n'; 2000]].concat();
        assert_eq!(whole(&long[..abi::PATH_BYTES - 2]), "/kubepods/podx/?");
        assert_eq!(whole(b"/kubepods/podx\0"), "/kubepods/podx");
    }
}
