//! Proves whether this kernel keeps memory by kind where the walk reads it.
//!
//! Since 6.11, the kernel's types do not include the order of `memcg_vmstats.state`. So the values that the walk reads
//! there are used only after they were found equal to a cgroup's `memory.stat`. Until then, and permanently if they
//! differ, files are read.

use std::{collections::HashMap, path::Path, sync::Arc};

use mcad_wire::abi::{CgroupRecord, group};

use super::{
    SourceError,
    cgroup_file::{self, CgroupFile},
    paths::Paths,
    values::{self, Decode, MemoryState},
};
use crate::probe::{CgroupWalk, Walked};

/// The state of the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryStateProof {
    /// Not proven yet: no cgroup was suitable so far.
    Wanted,
    /// The values are where the walk reads them.
    Equal,
    /// The values are elsewhere, or this kernel has none.
    Different,
}

impl MemoryStateProof {
    /// The state at the start, given the groups that the walk can read.
    pub fn new(groups: u32) -> Self {
        if groups & group::MEMORY_STATE == 0 { Self::Different } else { Self::Wanted }
    }

    /// The groups whose values may be used.
    pub fn without_unproven(self, groups: u32) -> u32 {
        match self {
            Self::Equal => groups,
            Self::Wanted | Self::Different => groups & !group::MEMORY_STATE,
        }
    }
}

/// How many cgroups are compared before the next sample tries again. Their values change meanwhile, so most of them
/// prove nothing.
const CANDIDATES: usize = 8;

/// Whether a walk met a cgroup that could prove something, so that two more walks are worthwhile.
pub fn can_prove(walked: &Walked<'_>, decode: Decode) -> bool {
    walked.records().any(|(_, record)| has_state(record) && is_conclusive(&decode.memory_state(record)))
}

/// Compares the walk with files: a walk, the files, and another walk.
pub fn compare(
    walk: &mut CgroupWalk,
    tree: &Path,
    decode: Decode,
    buffer: &mut Vec<u8>,
) -> Result<MemoryStateProof, SourceError> {
    let before = states(walk, decode)?;
    let mut candidates: Vec<&Seen> = before.values().filter(|seen| is_conclusive(&seen.state)).collect();
    candidates.sort_by_key(|seen| std::cmp::Reverse(seen.state.inactive_file_bytes));
    candidates.truncate(CANDIDATES);
    if candidates.is_empty() {
        return Ok(MemoryStateProof::Wanted);
    }
    let mut compared = Vec::new();
    for seen in candidates {
        let directory = cgroup_file::open(tree, seen.id, &seen.path);
        let file =
            directory.and_then(|directory| values::memory_state(&mut CgroupFile { directory: &directory, buffer }));
        compared.extend(file.map(|file| (seen.id, seen.state, file)));
    }
    let after = states(walk, decode)?;
    let verdicts = compared.into_iter().filter_map(|(id, before, file)| verdict(before, file, after.get(&id)?.state));
    Ok(decide(verdicts))
}

struct Seen {
    id: u64,
    path: Arc<str>,
    state: MemoryState,
}

fn states(walk: &mut CgroupWalk, decode: Decode) -> Result<HashMap<u64, Seen>, SourceError> {
    let walked = walk.walk()?;
    let mut paths = Paths::default();
    let mut states = HashMap::new();
    for (index, record) in walked.records() {
        let name = || walked.name(index, record.id);
        let Some(path) = paths.path(record.id, record.parent_id, name) else { continue };
        if has_state(record) {
            states.insert(record.id, Seen { id: record.id, path, state: decode.memory_state(record) });
        }
    }
    Ok(states)
}

fn has_state(record: &CgroupRecord) -> bool {
    record.level > 0 && record.groups & group::MEMORY_STATE != 0
}

/// Whether equality of these values proves something: none is 0 and no two are equal.
fn is_conclusive(state: &MemoryState) -> bool {
    let MemoryState { anon_bytes, file_bytes, inactive_file_bytes } = *state;
    inactive_file_bytes > 0
        && anon_bytes > 0
        && file_bytes != inactive_file_bytes
        && anon_bytes != file_bytes
        && anon_bytes != inactive_file_bytes
}

/// The result for one cgroup. `None` if its values changed.
fn verdict(before: MemoryState, file: MemoryState, after: MemoryState) -> Option<bool> {
    if before == after { Some(before == file) } else { (before == file || after == file).then_some(true) }
}

/// One cgroup that differs outweighs all that are equal.
fn decide(verdicts: impl Iterator<Item = bool>) -> MemoryStateProof {
    verdicts.fold(MemoryStateProof::Wanted, |proof, equal| match (proof, equal) {
        (MemoryStateProof::Different, _) | (_, false) => MemoryStateProof::Different,
        (_, true) => MemoryStateProof::Equal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(anon_bytes: u64, file_bytes: u64, inactive_file_bytes: u64) -> MemoryState {
        MemoryState { anon_bytes, file_bytes, inactive_file_bytes }
    }

    #[test]
    fn figures_that_prove_nothing_are_not_asked() {
        assert!(is_conclusive(&state(1, 2, 3)));
        for nothing in [state(0, 2, 1), state(1, 2, 0), state(1, 2, 2), state(2, 2, 1), state(1, 2, 1)] {
            assert!(!is_conclusive(&nothing), "{nothing:?}");
        }
    }

    #[test]
    fn a_cgroup_that_moved_can_prove_but_not_refute() {
        let (a, b, c) = (state(1, 2, 3), state(4, 5, 6), state(7, 8, 9));
        assert_eq!(verdict(a, a, a), Some(true));
        assert_eq!(verdict(a, b, a), Some(false));
        assert_eq!(verdict(a, b, b), Some(true));
        assert_eq!(verdict(a, a, b), Some(true));
        assert_eq!(verdict(a, c, b), None);
    }

    #[test]
    fn one_that_differs_outweighs_all_others() {
        assert_eq!(decide([].into_iter()), MemoryStateProof::Wanted);
        assert_eq!(decide([true, true].into_iter()), MemoryStateProof::Equal);
        assert_eq!(decide([true, false, true].into_iter()), MemoryStateProof::Different);
    }

    #[test]
    fn what_is_not_proven_is_not_read() {
        let all = group::MEMORY_STATE | group::PIDS;
        assert_eq!(MemoryStateProof::new(all), MemoryStateProof::Wanted);
        assert_eq!(MemoryStateProof::Wanted.without_unproven(all), group::PIDS);
        assert_eq!(MemoryStateProof::Different.without_unproven(all), group::PIDS);
        assert_eq!(MemoryStateProof::Equal.without_unproven(all), all);
        assert_eq!(MemoryStateProof::new(group::PIDS), MemoryStateProof::Different);
    }
}
