//! Cgroup figures by the kernel's iterator: one walk, no file read per cgroup.
//!
//! The kernel's totals are as fresh as their last flush, and no system call flushes the whole tree; reading `cpu.stat` of
//! each child of the root does. That file access does not grow with the pods on the node. A group of figures that this kernel
//! does not give is read from each cgroup's files, and the sample names it.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::Instant,
};

use mcad_wire::abi::{CgroupRecord, group};

use super::{
    ReadCgroups, SourceError,
    decode::{Decode, bit},
    figures::{CgroupFile, open},
    memory_proof::{self, MemoryStateProof},
    paths::Paths,
    run_queue::RunQueues,
};
use crate::{
    clock,
    offsets::Flush,
    probe::{CgroupWalk, ProbeError, Probes, RemovedProbe, RunQueueChoice, WalkError},
    sample::{Cgroup, CgroupSample, CgroupSource, Group, ProbeCost},
};

/// The cgroup tree as the kernel walks it.
#[derive(Debug)]
pub struct BpfCgroups {
    walk: CgroupWalk,
    run_queue: Option<RunQueues>,
    removed: Option<RemovedProbe>,
    tree: PathBuf,
    decode: Decode,
    /// Whether the kernel keeps memory by kind where it is looked for.
    memory_state: MemoryStateProof,
    paths: Paths,
    /// What the last file held; reused by the next.
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

    /// Flushes, walks, decodes, and fills in from files what this kernel does not give.
    fn read(&mut self) -> Result<CgroupSample, SourceError> {
        // Before the flush: the totals above a cgroup that is told of now will have what it used.
        self.removed.iter_mut().for_each(RemovedProbe::gather);
        let started = Instant::now();
        flush(&self.tree, self.walk.flush())?;
        let flush_ns = nanoseconds_since(started);
        let started = Instant::now();
        let mut walked = self.walk.walk()?;
        let walk_ns = nanoseconds_since(started);
        if self.memory_state == MemoryStateProof::Wanted && memory_proof::may_tell(&walked, self.decode) {
            self.memory_state = memory_proof::seek(&mut self.walk, &self.tree, self.decode, &mut self.buffer)?;
            walked = self.walk.walk()?;
        }
        // After the walk: what ended meanwhile was walked, or is among these.
        let removals = self.removed.as_mut().map(|removed| removed.take(clock::now().uptime_ns));
        let believed = Believed::new(walked.groups(), self.memory_state);
        let mut from_files = believed.unwalkable;
        let mut cgroups = Vec::with_capacity(self.paths.count());
        let mut unnamed = 0;
        self.paths.begin();
        for (index, record) in walked.records() {
            let name = || walked.name(index, record.id);
            let Some(path) = self.paths.path(record.id, record.parent_id, name) else {
                unnamed += 1;
                continue;
            };
            let mut cgroup = self.decode.cgroup(record, believed.readable, path);
            let missing = believed.missing(record);
            if missing != 0 {
                fill_from_files(&self.tree, record.level, missing, &mut cgroup, &mut self.buffer);
            }
            // Of the root everything is read from files, on every kernel; that says nothing of the others.
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

/// Which groups of figures are taken from a walk, as bits.
#[derive(Clone, Copy, Debug)]
struct Believed {
    /// What the walk can't read may be there for any cgroup.
    unwalkable: u32,
    /// What it reads and is believed.
    readable: u32,
    /// What it reads and is not believed is only where it was read.
    unbelieved: u32,
}

impl Believed {
    fn new(walkable: u32, memory_state: MemoryStateProof) -> Self {
        let readable = memory_state.without_unproven(walkable);
        Self { unwalkable: all_groups() & !walkable, readable, unbelieved: walkable & !readable }
    }

    /// What of a cgroup has to be read from its files. Of the root of the hierarchy the kernel keeps no totals.
    fn missing(&self, record: &CgroupRecord) -> u32 {
        if record.level == 0 {
            return all_groups();
        }
        let incomplete = if record.groups & group::IO_INCOMPLETE != 0 { group::IO } else { 0 };
        self.unwalkable | (record.groups & self.unbelieved) | incomplete
    }
}

fn all_groups() -> u32 {
    Group::ALL.into_iter().fold(0, |bits, group| bits | bit(group))
}

/// In the order of the groups.
fn groups_in(bits: u32) -> impl Iterator<Item = Group> {
    Group::ALL.into_iter().filter(move |group| bits & bit(*group) != 0)
}

fn nanoseconds_since(instant: Instant) -> u64 {
    u64::try_from(instant.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Reads groups of one cgroup's figures from its files, unless another one has its name by now.
fn fill_from_files(tree: &Path, level: u32, groups: u32, cgroup: &mut Cgroup, buffer: &mut Vec<u8>) {
    let Some(directory) = open(tree, cgroup.id, &cgroup.path) else { return };
    let mut file = CgroupFile { directory: &directory, buffer };
    // The kernel keeps no totals for the root of the hierarchy; its file adds up the processors' own.
    if level == 0 {
        let _ = file.fill_cpu(cgroup);
    }
    for group in groups_in(groups) {
        file.fill(group, cgroup);
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
                // Reading anything of the file makes the kernel write all of it. A cgroup that went away meanwhile, or has no such
                // controller, needs no flush.
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
            Believed::new(walkable, proof).missing(&record)
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
