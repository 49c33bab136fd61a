//! Cgroup figures by the kernel's iterator: one walk, no file read per cgroup.
//!
//! The kernel's totals are as fresh as their last flush, and no system call flushes the whole tree; reading `cpu.stat` of
//! each child of the root does. That file access does not grow with the pods on the node. A group of figures that this kernel
//! does not give is read from each cgroup's files, and the sample names it.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use mcad_wire::abi::group;
use rustix::fs::{Mode, OFlags};

use super::{
    ReadCgroups, SourceError,
    decode::{Decode, bit},
    figures::CgroupFile,
    memory_proof::{self, MemoryStateProof},
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
    /// Paths of the cgroups seen by the last walk, by id: a name is composed once in a cgroup's life.
    paths: HashMap<u64, Arc<str>>,
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
            paths: HashMap::new(),
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
        if self.memory_state == MemoryStateProof::Wanted {
            self.memory_state = memory_proof::seek(&mut self.walk, &self.tree, self.decode, &mut self.buffer)?;
        }
        let (walkable, readable) = (self.walk.groups(), self.memory_state.without_unproven(self.walk.groups()));
        // What the walk can't read may be there for any cgroup; what it reads and is not believed is only where it was read.
        let unwalkable: Vec<Group> = Group::ALL.into_iter().filter(|group| walkable & bit(*group) == 0).collect();
        let mut unbelieved: Vec<Group> = Vec::new();
        let started = Instant::now();
        let walked = self.walk.walk()?;
        let walk_ns = nanoseconds_since(started);
        let removals = self.removed.as_mut().map(|removed| removed.take(clock::now().uptime_ns));
        let mut cgroups = Vec::with_capacity(self.paths.len());
        let mut paths = HashMap::with_capacity(self.paths.len());
        let mut unnamed = 0;
        for (index, record) in walked.records() {
            let known = self.paths.remove(&record.id);
            let path = known.or_else(|| compose(&paths, record.parent_id, walked.name(index, record.id)));
            let Some(path) = path else {
                unnamed += 1;
                continue;
            };
            paths.insert(record.id, Arc::clone(&path));
            let mut cgroup = self.decode.cgroup(&record, readable, path);
            let unread = record.groups & walkable & !readable;
            let unread_groups = Group::ALL.into_iter().filter(|group| unread & bit(*group) != 0);
            let incomplete = (record.groups & group::IO_INCOMPLETE != 0).then_some(Group::Io);
            let missing: Vec<Group> = match record.level {
                0 => Group::ALL.to_vec(),
                _ => unwalkable.iter().copied().chain(unread_groups).chain(incomplete).collect(),
            };
            if !missing.is_empty() {
                fill_from_files(&self.tree, record.level, &missing, &mut cgroup, &mut self.buffer);
            }
            if record.level > 0 {
                unbelieved.extend(missing.into_iter().filter(|group| !unwalkable.contains(group)));
                unbelieved.dedup();
            }
            cgroups.push(cgroup);
        }
        let dropped = walked.dropped() + unnamed;
        self.paths = paths;
        let seen = cgroups.len() as u32 + dropped;
        let mut from_files = unwalkable;
        from_files.append(&mut unbelieved);
        from_files.sort_unstable();
        from_files.dedup();
        let removed = removals.as_ref().map_or(&[][..], |removals| &removals.removed);
        let run_queue = self.run_queue.as_mut().map(|run_queue| run_queue.read(&mut cgroups, removed));
        let probes = Some(ProbeCost { walk_ns, flush_ns, run_queue });
        Ok(CgroupSample { source: CgroupSource::Bpf, cgroups, from_files, probes, seen, dropped, removals })
    }
}

fn nanoseconds_since(instant: Instant) -> u64 {
    u64::try_from(instant.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Reads groups of one cgroup's figures from its files, unless another one has its name by now.
fn fill_from_files(tree: &Path, level: u32, groups: &[Group], cgroup: &mut Cgroup, buffer: &mut Vec<u8>) {
    let Some(directory) = open(tree, cgroup.id, &cgroup.path) else { return };
    let mut file = CgroupFile { directory: &directory, buffer };
    // The kernel keeps no totals for the root of the hierarchy; its file adds up the processors' own.
    if level == 0 {
        let _ = file.fill_cpu(cgroup);
    }
    for group in groups {
        file.fill(*group, cgroup);
    }
}

/// The directory of the cgroup with this id.
pub(super) fn open(tree: &Path, id: u64, path: &str) -> Option<OwnedFd> {
    let path = tree.join(path.trim_start_matches('/'));
    let directory = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    (rustix::fs::fstat(&directory).ok()?.st_ino == id).then_some(directory)
}

/// The path of a cgroup below its parent. The first of a walk has no parent among `paths`: it is the root, whatever its name.
pub(super) fn compose(paths: &HashMap<u64, Arc<str>>, parent_id: u64, name: Option<String>) -> Option<Arc<str>> {
    if paths.is_empty() {
        return Some(Arc::from("/"));
    }
    let (parent, name) = (paths.get(&parent_id)?, name?);
    let separator = if parent.ends_with('/') { "" } else { "/" };
    Some(Arc::from(format!("{parent}{separator}{name}")))
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

    fn paths(known: &[(u64, &str)]) -> HashMap<u64, Arc<str>> {
        known.iter().map(|(id, path)| (*id, Arc::from(*path))).collect()
    }

    #[test]
    fn a_path_is_the_parents_and_the_name() {
        let known = paths(&[(1, "/"), (7, "/kubepods.slice")]);
        let check = |parent, name: Option<&str>, expected: Option<&str>| {
            assert_eq!(compose(&known, parent, name.map(str::to_owned)).as_deref(), expected);
        };
        check(1, Some("system.slice"), Some("/system.slice"));
        check(7, Some("x"), Some("/kubepods.slice/x"));
        check(8, Some("an orphan"), None);
        check(7, None, None);
    }

    #[test]
    fn the_first_of_a_walk_is_the_root_whatever_the_kernel_calls_it() {
        assert_eq!(compose(&paths(&[]), 99, Some("docker-1234.scope".into())).as_deref(), Some("/"));
    }
}
