//! Cgroup figures by the kernel's iterator: one walk, no file read per cgroup.
//!
//! The kernel's totals are as fresh as their last flush, and no system call flushes the whole tree; reading `cpu.stat` of
//! each child of the root does. That is the only file access here, and it does not grow with the pods on the node.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{ReadCgroups, SourceError};
use crate::{
    probe::{CgroupWalk, ProbeError, WalkError},
    sample::{Cgroup, CgroupSample, CgroupSource},
};

/// `cpu.stat` has 14 lines of under 40 bytes on the newest kernel.
const CPU_STAT_BYTES: usize = 4096;

/// The cgroup tree as the kernel walks it.
#[derive(Debug)]
pub struct BpfCgroups {
    walk: CgroupWalk,
    tree: PathBuf,
    /// Paths of the cgroups seen by the last walk, by id: a name is composed once in a cgroup's life.
    paths: HashMap<u64, Arc<str>>,
}

impl BpfCgroups {
    /// Loads the probes and attaches them to the tree mounted at `tree`.
    pub fn attach(sys_root: &Path, tree: &Path, capacity: u32) -> Result<Self, ProbeError> {
        let walk = CgroupWalk::attach(&sys_root.join("kernel/btf/vmlinux"), tree, capacity)?;
        Ok(Self { walk, tree: tree.to_owned(), paths: HashMap::new() })
    }
}

impl ReadCgroups for BpfCgroups {
    fn source(&self) -> CgroupSource {
        CgroupSource::Bpf
    }

    /// Flushes, walks and decodes.
    fn read(&mut self) -> Result<CgroupSample, SourceError> {
        let root_cpu_ns = flush(&self.tree)?;
        let walked = self.walk.walk()?;
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
            // The kernel keeps no such total for the root of the hierarchy; its file adds up the processors' own.
            let cpu_ns = if record.level == 0 { root_cpu_ns } else { Some(record.cpu_ns) };
            paths.insert(record.id, Arc::clone(&path));
            cgroups.push(Cgroup {
                id: record.id,
                parent_id: record.parent_id,
                path,
                cpu_ns,
                memory_bytes: None,
                memory_inactive_file_bytes: None,
                oom_kills: None,
            });
        }
        let dropped = walked.dropped() + unnamed;
        self.paths = paths;
        let seen = cgroups.len() as u32 + dropped;
        Ok(CgroupSample { source: CgroupSource::Bpf, cgroups, seen, dropped })
    }
}

/// The path of a cgroup below its parent. The first of a walk has no parent among `paths`: it is the root, whatever its name.
fn compose(paths: &HashMap<u64, Arc<str>>, parent_id: u64, name: Option<String>) -> Option<Arc<str>> {
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

/// Brings the totals of the tree up to date and answers the root's own CPU time, where its file has it.
fn flush(tree: &Path) -> Result<Option<u64>, SourceError> {
    let in_tree = |source| SourceError::Read { path: tree.to_owned(), source };
    for entry in fs::read_dir(tree).map_err(in_tree)? {
        let entry = entry.map_err(in_tree)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // A cgroup that went away meanwhile needs no flush.
            let _ = read_cpu_stat(&entry.path());
        }
    }
    Ok(read_cpu_stat(tree).ok().and_then(|text| usage_ns(&text)))
}

fn read_cpu_stat(cgroup: &Path) -> io::Result<String> {
    let mut text = String::with_capacity(CPU_STAT_BYTES);
    File::open(cgroup.join("cpu.stat"))?.take(CPU_STAT_BYTES as u64).read_to_string(&mut text)?;
    Ok(text)
}

/// `usage_usec` of a `cpu.stat`.
fn usage_ns(cpu_stat: &str) -> Option<u64> {
    let usec: u64 = cpu_stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()?;
    usec.checked_mul(1000)
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

    #[test]
    fn usage_is_read_wherever_the_line_stands() {
        assert_eq!(usage_ns("usage_usec 17\nuser_usec 9\n"), Some(17_000));
        assert_eq!(usage_ns("user_usec 9\nusage_usec 0\n"), Some(0));
        assert_eq!(usage_ns("user_usec 9\n"), None);
        assert_eq!(usage_ns("usage_usec 18446744073709551615\n"), None);
    }
}
