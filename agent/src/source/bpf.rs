//! Values of cgroups from the kernel's iterator: one walk, and no file read per cgroup.
//!
//! The kernel's totals are as fresh as their last flush, and no system call flushes the whole tree; reading `cpu.stat`
//! of each child of the root does. The number of these reads does not grow with the pods on the node. A group of values
//! that the iterator cannot read on this kernel is read from each cgroup's files, and the sample lists it.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::Instant,
};

use mcad_wire::abi::{CgroupRecord, group};

use super::{
    ReadCgroups, SourceError,
    cgroup_file::{CgroupFile, open},
    memory_proof::{self, MemoryStateProof},
    paths::Paths,
    run_queue::RunQueues,
    values::{self, CPU_STAT, Decode, bit},
};
use crate::{
    clock,
    offsets::Flush,
    probe::{CgroupWalk, ProbeError, Probes, RemovedProbe, RunQueueChoice, WalkError},
    sample::{Cgroup, CgroupSample, CgroupSource, Group, ProbeCost},
};

/// The cgroup tree, read by the kernel's iterator.
#[derive(Debug)]
pub struct BpfCgroups {
    walk: CgroupWalk,
    run_queue: Option<RunQueues>,
    removed: Option<RemovedProbe>,
    tree: PathBuf,
    decode: Decode,
    /// Whether it is proven that the kernel keeps memory by kind where the program reads it.
    memory_state: MemoryStateProof,
    paths: Paths,
    /// The contents of the last file; reused for the next.
    buffer: Vec<u8>,
}

impl BpfCgroups {
    /// Loads the probes and attaches them to the tree mounted at `tree`.
    pub fn attach(sys_root: &Path, tree: &Path, capacity: u32, run_queue: RunQueueChoice) -> Result<Self, ProbeError> {
        let Probes { walk, run_queue, removed } =
            Probes::attach(&sys_root.join("kernel/btf/vmlinux"), tree, capacity, run_queue)?;
        Ok(Self {
            run_queue: run_queue.map(RunQueues::new),
            removed,
            decode: Decode::new(rustix::param::page_size()),
            memory_state: MemoryStateProof::new(walk.groups()),
            walk,
            tree: tree.to_owned(),
            paths: Paths::default(),
            buffer: Vec::new(),
        })
    }
}

impl ReadCgroups for BpfCgroups {
    fn source(&self) -> CgroupSource {
        CgroupSource::Bpf
    }

    /// Flushes, walks, decodes, and reads from files what the iterator cannot read on this kernel.
    fn read(&mut self) -> Result<CgroupSample, SourceError> {
        // Before the flush, so that the totals above these removed cgroups already include what they used.
        self.removed.iter_mut().for_each(RemovedProbe::gather);
        let started = Instant::now();
        flush(&self.tree, self.walk.flush())?;
        let flush_ns = nanoseconds_since(started);
        let started = Instant::now();
        let mut walked = self.walk.walk()?;
        let walk_ns = nanoseconds_since(started);
        if self.memory_state == MemoryStateProof::Wanted && memory_proof::can_prove(&walked, self.decode) {
            self.memory_state = memory_proof::compare(&mut self.walk, &self.tree, self.decode, &mut self.buffer)?;
            walked = self.walk.walk()?;
        }
        // After the walk: a cgroup that ended meanwhile was either walked, or is among these.
        let removals = self.removed.as_mut().map(|removed| removed.take(clock::now().uptime_ns));
        let walked_groups = WalkedGroups::new(walked.groups(), self.memory_state);
        let mut from_files = walked_groups.unwalkable;
        let mut cgroups = Vec::with_capacity(self.paths.count());
        let mut unnamed = 0;
        self.paths.begin();
        for (index, record) in walked.records() {
            let name = || walked.name(index, record.id);
            let Some(path) = self.paths.path(record.id, record.parent_id, name) else {
                unnamed += 1;
                continue;
            };
            let mut cgroup = self.decode.cgroup(record, walked_groups.readable, path);
            let missing = walked_groups.missing(record);
            if missing != 0 {
                fill_from_files(&self.tree, record.level, missing, &mut cgroup, &mut self.buffer);
            }
            // For the root, everything is read from files on every kernel; that does not count as a missing group.
            if record.level > 0 {
                from_files |= missing;
            }
            cgroups.push(cgroup);
        }
        let dropped = walked.dropped() + unnamed;
        let seen = cgroups.len() as u32 + dropped;
        let removed = removals.as_ref().map_or(&[][..], |removals| &removals.removed);
        let run_queue = self.run_queue.as_mut().map(|run_queue| run_queue.read(&mut cgroups, removed));
        let probes = Some(ProbeCost { walk_ns, flush_ns, run_queue });
        let from_files = groups_in(from_files).collect();
        Ok(CgroupSample { source: CgroupSource::Bpf, cgroups, from_files, probes, seen, dropped, removals })
    }
}

/// Which groups of values are taken from a walk, as bits.
#[derive(Clone, Copy, Debug)]
struct WalkedGroups {
    /// The walk can't read them for any cgroup.
    unwalkable: u32,
    /// The walk reads them and they are used.
    readable: u32,
    /// The walk reads them, but they are not proven and not used. The cgroups for which the walk read them have files
    /// for them.
    unproven: u32,
}

impl WalkedGroups {
    fn new(walkable: u32, memory_state: MemoryStateProof) -> Self {
        let readable = memory_state.without_unproven(walkable);
        Self { unwalkable: all_groups() & !walkable, readable, unproven: walkable & !readable }
    }

    /// Which groups of a cgroup have to be read from its files. For the root of the hierarchy the kernel keeps no
    /// totals.
    fn missing(&self, record: &CgroupRecord) -> u32 {
        if record.level == 0 {
            return all_groups();
        }
        let incomplete = if record.groups & group::IO_INCOMPLETE != 0 { group::IO } else { 0 };
        self.unwalkable | (record.groups & self.unproven) | incomplete
    }
}

fn all_groups() -> u32 {
    Group::ALL.into_iter().fold(0, |bits, group| bits | bit(group))
}

/// The groups of these bits, in order.
fn groups_in(bits: u32) -> impl Iterator<Item = Group> {
    Group::ALL.into_iter().filter(move |group| bits & bit(*group) != 0)
}

fn nanoseconds_since(instant: Instant) -> u64 {
    u64::try_from(instant.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Reads groups of one cgroup's values from its files, unless another cgroup has its name by now.
fn fill_from_files(tree: &Path, level: u32, groups: u32, cgroup: &mut Cgroup, buffer: &mut Vec<u8>) {
    let Some(directory) = open(tree, cgroup.id, &cgroup.path) else { return };
    let mut file = CgroupFile { directory: &directory, buffer };
    // The kernel keeps no totals for the root of the hierarchy; its file sums up those of the CPUs.
    if level == 0
        && let Ok(cpu_stat) = file.read(CPU_STAT)
    {
        values::fill_cpu(cpu_stat, cgroup);
    }
    for group in groups_in(groups) {
        values::fill(group, &mut file, cgroup);
    }
}

impl From<WalkError> for SourceError {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Open(source) => Self::Walk { step: "open the iterator", source },
            WalkError::Walk(source) => Self::Walk { step: "read the iterator", source },
            WalkError::Unfinished { session } => Self::WalkUnfinished { session },
        }
    }
}

/// Brings the totals of the tree up to date.
fn flush(tree: &Path, how: Flush) -> Result<(), SourceError> {
    let in_tree = |source| SourceError::Read { path: tree.to_owned(), source };
    let files: &[&str] = match how {
        Flush::Together => &["cpu.stat"],
        Flush::Apart => &["cpu.stat", "memory.stat", "io.stat"],
    };
    let mut scrap = [0; 1];
    for entry in fs::read_dir(tree).map_err(in_tree)? {
        let entry = entry.map_err(in_tree)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            for file in files {
                // Reading any part of the file makes the kernel generate all of it. A cgroup that was removed
                // meanwhile, or has no such controller, needs no flush.
                let _ = File::open(entry.path().join(file)).and_then(|mut file| file.read(&mut scrap));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_for_what_the_walk_lacks_and_for_what_is_not_believed_where_it_was_read() {
        let walkable = group::THROTTLING | group::MEMORY_STATE | group::IO;
        let missing = |proof, level, groups| {
            let record = CgroupRecord { level, groups, ..CgroupRecord::default() };
            WalkedGroups::new(walkable, proof).missing(&record)
        };
        let lacking = group::MEMORY | group::MEMORY_EVENTS | group::PIDS | group::PRESSURE;
        assert_eq!(missing(MemoryStateProof::Equal, 1, walkable), lacking);
        assert_eq!(missing(MemoryStateProof::Wanted, 1, walkable), lacking | group::MEMORY_STATE);
        assert_eq!(missing(MemoryStateProof::Different, 1, group::THROTTLING), lacking);
        assert_eq!(missing(MemoryStateProof::Equal, 1, group::IO_INCOMPLETE), lacking | group::IO);
        assert_eq!(missing(MemoryStateProof::Equal, 0, 0), lacking | walkable, "of the root everything");
    }

    #[test]
    fn groups_come_in_their_order() {
        let groups: Vec<Group> = groups_in(group::IO | group::THROTTLING | group::IO_INCOMPLETE).collect();
        assert_eq!(groups, [Group::Throttling, Group::Io]);
    }
}
