//! Whose processes are on a GPU: the pod and container that a process's cgroup names.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::pod_cgroup::{self, PodCgroup};
use crate::sample::gpu::GpuUser;

/// After so many rounds a process's cgroup is read again: its number may be another's by now.
const ROUNDS_BELIEVED: u32 = 30;

/// Ten hierarchies of cgroup v1 with the longest path that any runtime makes.
const BYTES_AT_MOST: u64 = 16 * 1024;

/// Looks up processes, and remembers those that stay.
#[derive(Debug)]
pub(super) struct Users {
    proc_root: PathBuf,
    known: HashMap<u32, Known>,
    round: u32,
}

#[derive(Debug)]
struct Known {
    user: GpuUser,
    read: u32,
    seen: u32,
}

impl Users {
    pub(super) fn new(proc_root: &Path) -> Self {
        Self { proc_root: proc_root.to_owned(), known: HashMap::new(), round: 0 }
    }

    /// Begins a round: who was not asked for in the last one is forgotten.
    pub(super) fn begin_round(&mut self) {
        let last = self.round;
        self.round = self.round.wrapping_add(1);
        self.known.retain(|_, known| known.seen == last && last.wrapping_sub(known.read) < ROUNDS_BELIEVED);
    }

    /// Whose process this is.
    pub(super) fn of(&mut self, pid: u32) -> &GpuUser {
        let (round, proc_root) = (self.round, &self.proc_root);
        let known = self.known.entry(pid).or_insert_with(|| Known { user: user(proc_root, pid), read: round, seen: 0 });
        known.seen = round;
        &known.user
    }
}

/// A process that has ended or cannot be looked at is nobody's.
fn user(proc_root: &Path, pid: u32) -> GpuUser {
    let mut text = String::new();
    let file = fs::File::open(proc_root.join(pid.to_string()).join("cgroup"));
    match file.and_then(|file| file.take(BYTES_AT_MOST).read_to_string(&mut text)) {
        Ok(_) => parse(&text),
        Err(_) => GpuUser::default(),
    }
}

/// Lines `ID:CONTROLLERS:PATH`, one a hierarchy (cgroups(7)). With cgroup v1 or both versions, some hierarchies may not
/// follow the pods.
fn parse(text: &str) -> GpuUser {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.filter_map(pod_cgroup::parse).map(|place| of_place(&place)).next().unwrap_or_default()
}

fn of_place(place: &PodCgroup<'_>) -> GpuUser {
    match place {
        PodCgroup::Pod { uid } | PodCgroup::Beside { uid } => {
            GpuUser { pod_uid: uid.to_string(), container_id: String::new() }
        }
        PodCgroup::Container { uid, id } | PodCgroup::InContainer { uid, id } => {
            GpuUser { pod_uid: uid.to_string(), container_id: (*id).to_owned() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b0a3c6e-1111-4222-8333-444455556666";

    fn process(proc_root: &Path, pid: u32, cgroup: &str) {
        fs::create_dir_all(proc_root.join(pid.to_string())).unwrap();
        fs::write(proc_root.join(pid.to_string()).join("cgroup"), cgroup).unwrap();
    }

    #[test]
    fn a_process_is_its_containers_in_both_versions_of_cgroups() {
        let id = "a".repeat(64);
        let user = GpuUser { pod_uid: UID.to_owned(), container_id: id.clone() };
        let slice = format!("kubepods-pod{}.slice/cri-containerd-{id}.scope", UID.replace('-', "_"));
        assert_eq!(parse(&format!("0::/../../kubepods.slice/{slice}\n")), user);
        assert_eq!(parse(&format!("11:cpuset:/\n4:memory:/kubepods/burstable/pod{UID}/{id}\n0::/\n")), user);
        assert_eq!(parse("0::/system.slice/nvidia-persistenced.service\n"), GpuUser::default());
        assert_eq!(parse(""), GpuUser::default());
    }

    #[test]
    fn a_process_is_looked_up_once_while_it_stays_and_again_when_its_number_comes_back() {
        let proc_root = tempfile::tempdir().unwrap();
        let mut users = Users::new(proc_root.path());
        process(proc_root.path(), 7, &format!("0::/kubepods/pod{UID}\n"));
        users.begin_round();
        assert_eq!(users.of(7).pod_uid, UID);
        process(proc_root.path(), 7, "0::/\n");
        users.begin_round();
        assert_eq!(users.of(7).pod_uid, UID);
        users.begin_round();
        users.begin_round();
        assert_eq!(users.of(7).pod_uid, "");
        assert_eq!(users.of(8), &GpuUser::default());
    }

    #[test]
    fn even_a_process_that_stays_is_looked_up_again_after_a_while() {
        let proc_root = tempfile::tempdir().unwrap();
        let mut users = Users::new(proc_root.path());
        process(proc_root.path(), 7, "0::/\n");
        users.begin_round();
        users.of(7);
        process(proc_root.path(), 7, &format!("0::/kubepods/pod{UID}\n"));
        for _ in 0..=ROUNDS_BELIEVED {
            users.begin_round();
            users.of(7);
        }
        assert_eq!(users.of(7).pod_uid, UID);
    }
}
