//! Finds out whose processes are on a GPU: the pod and container in the process's cgroup; and which of them are daemons, by name.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::pod_cgroup::{self, PodCgroup};
use crate::sample::gpu::GpuUser;

/// After this many rounds a process's cgroup is read again, because its id may belong to another process by then.
const ROUNDS_BELIEVED: u32 = 30;

/// Enough for ten hierarchies of cgroup v1 with the longest path that any runtime uses.
const BYTES_AT_MOST: u64 = 16 * 1024;

/// The longest name of a process that the kernel keeps (`TASK_COMM_LEN` without the final 0); longer names are cut.
const COMM_BYTES: usize = 15;

/// Processes that serve others on a GPU or observe them: MPS, DCGM, the device plugin, this program.
pub const DAEMONS: [&str; 6] = [
    "nvidia-cuda-mps-server",
    "nvidia-cuda-mps-control",
    "nv-hostengine",
    "dcgm-exporter",
    "nvidia-device-plugin",
    "mcad-agent",
];

/// Looks up processes, and caches those that stay.
#[derive(Debug)]
pub(super) struct Users {
    proc_root: PathBuf,
    /// Names of daemons, as the kernel keeps them.
    daemons: HashSet<Vec<u8>>,
    /// Whether these are the host's processes, by the ids that NVML uses. Then one that is not there has ended.
    sees_host: bool,
    known: HashMap<u32, Known>,
    round: u32,
}

#[derive(Debug)]
struct Known {
    process: Process,
    read: u32,
    seen: u32,
}

/// What is known about a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) user: GpuUser,
    /// Whether it serves other processes or observes them.
    pub(super) is_daemon: bool,
}

impl Users {
    pub(super) fn new(proc_root: &Path, daemons: &[String]) -> Self {
        let cut = |name: &String| name.as_bytes()[..name.len().min(COMM_BYTES)].to_vec();
        Self {
            proc_root: proc_root.to_owned(),
            sees_host: sees_host(proc_root),
            daemons: daemons.iter().map(cut).collect(),
            known: HashMap::new(),
            round: 0,
        }
    }

    /// Whether these are the host's processes. In another PID namespace, the driver may list only some of them.
    pub(super) fn sees_host(&self) -> bool {
        self.sees_host
    }

    /// Begins a round: drops processes that were not looked up in the last round, and those that could not be read though they can be.
    pub(super) fn begin_round(&mut self) {
        let last = self.round;
        self.round = self.round.wrapping_add(1);
        let sees_host = self.sees_host;
        self.known.retain(|_, known| {
            let is_believed = last.wrapping_sub(known.read) < ROUNDS_BELIEVED;
            known.seen == last && is_believed && !(sees_host && known.process.user.unreadable)
        });
    }

    /// What is known about a process. `None` if it has ended since NVML listed it.
    pub(super) fn of(&mut self, pid: u32) -> Option<&Process> {
        if !self.known.contains_key(&pid) {
            let known = Known { process: self.look_up(pid)?, read: self.round, seen: 0 };
            self.known.insert(pid, known);
        }
        let known = self.known.get_mut(&pid)?;
        known.seen = self.round;
        Some(&known.process)
    }

    /// What was known about a process in this round or the one before.
    pub(super) fn lately(&self, pid: u32) -> Option<&Process> {
        self.known.get(&pid).map(|known| &known.process)
    }

    fn look_up(&self, pid: u32) -> Option<Process> {
        let folder = self.proc_root.join(pid.to_string());
        let user = match read(&folder.join("cgroup"), BYTES_AT_MOST) {
            Ok(text) => parse(&String::from_utf8_lossy(&text)),
            Err(error) if self.sees_host && has_ended(&error) => return None,
            Err(_) => GpuUser { unreadable: true, ..GpuUser::default() },
        };
        let name = read(&folder.join("comm"), COMM_BYTES as u64 + 1);
        Some(Process { user, is_daemon: name.is_ok_and(|name| self.daemons.contains(name.trim_ascii_end())) })
    }
}

/// Whether a folder has the processes of the host's PID namespace, whose inode the kernel fixes (`PROC_PID_INIT_INO`).
fn sees_host(proc_root: &Path) -> bool {
    fs::read_link(proc_root.join("self/ns/pid")).is_ok_and(|namespace| namespace.as_os_str() == "pid:[4026531836]")
}

/// Whether the error of reading a file of a process means that there is no such process.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn read(path: &Path, bytes_at_most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(bytes_at_most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Lines `ID:CONTROLLERS:PATH`, one per hierarchy (cgroups(7)). With cgroup v1 or both versions, some hierarchies may
/// not follow the pods.
fn parse(text: &str) -> GpuUser {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.filter_map(pod_cgroup::parse).map(|place| of_place(&place)).next().unwrap_or_default()
}

fn of_place(place: &PodCgroup<'_>) -> GpuUser {
    match place {
        PodCgroup::Pod { uid } | PodCgroup::Beside { uid } => {
            GpuUser { pod_uid: uid.to_string(), ..GpuUser::default() }
        }
        PodCgroup::Container { uid, id } | PodCgroup::InContainer { uid, id } => {
            GpuUser { pod_uid: uid.to_string(), container_id: (*id).to_owned(), unreadable: false }
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
        let user = GpuUser { pod_uid: UID.to_owned(), container_id: id.clone(), unreadable: false };
        let slice = format!("kubepods-pod{}.slice/cri-containerd-{id}.scope", UID.replace('-', "_"));
        assert_eq!(parse(&format!("0::/../../kubepods.slice/{slice}\n")), user);
        assert_eq!(parse(&format!("11:cpuset:/\n4:memory:/kubepods/burstable/pod{UID}/{id}\n0::/\n")), user);
        assert_eq!(parse("0::/system.slice/nvidia-persistenced.service\n"), GpuUser::default());
        assert_eq!(parse(""), GpuUser::default());
    }

    #[test]
    fn a_process_is_looked_up_once_while_it_stays_and_again_when_its_number_comes_back() {
        let proc_root = tempfile::tempdir().unwrap();
        let mut users = Users::new(proc_root.path(), &[]);
        process(proc_root.path(), 7, &format!("0::/kubepods/pod{UID}\n"));
        users.begin_round();
        assert_eq!(users.of(7).unwrap().user.pod_uid, UID);
        process(proc_root.path(), 7, "0::/\n");
        users.begin_round();
        assert_eq!(users.of(7).unwrap().user.pod_uid, UID);
        users.begin_round();
        users.begin_round();
        assert_eq!(users.of(7).unwrap().user.pod_uid, "");
        assert!(users.of(8).unwrap().user.unreadable);
    }

    #[test]
    fn daemons_are_told_by_name_as_far_as_the_kernel_keeps_it() {
        let proc_root = tempfile::tempdir().unwrap();
        // An empty name is that of no process, also not of one whose name cannot be read.
        let daemons = ["nvidia-cuda-mps-server", "mcad-agent", ""].map(str::to_owned);
        let mut users = Users::new(proc_root.path(), &daemons);
        users.begin_round();
        for (pid, comm, is_daemon) in
            [(1, "nvidia-cuda-mps\n", true), (2, "mcad-agent\n", true), (3, "mcad\n", false), (4, "python\n", false)]
        {
            process(proc_root.path(), pid, "0::/\n");
            fs::write(proc_root.path().join(pid.to_string()).join("comm"), comm).unwrap();
            assert_eq!(users.of(pid).unwrap().is_daemon, is_daemon, "{comm}");
        }
        assert!(!users.of(5).unwrap().is_daemon);
    }

    #[test]
    fn a_process_that_is_gone_has_ended_where_the_hosts_processes_are_seen_and_is_unreadable_elsewhere() {
        let proc_root = tempfile::tempdir().unwrap();
        let unreadable = |users: &mut Users| users.of(7).map(|process| process.user.unreadable);
        let mut elsewhere = Users::new(proc_root.path(), &[]);
        elsewhere.begin_round();
        assert_eq!(unreadable(&mut elsewhere), Some(true));
        fs::create_dir_all(proc_root.path().join("self/ns")).unwrap();
        std::os::unix::fs::symlink("pid:[4026531836]", proc_root.path().join("self/ns/pid")).unwrap();
        let mut users = Users::new(proc_root.path(), &[]);
        users.begin_round();
        assert_eq!(unreadable(&mut users), None);
        // What is there and could not be read is tried again in the next round.
        fs::create_dir_all(proc_root.path().join("7/cgroup")).unwrap();
        users.begin_round();
        assert_eq!(unreadable(&mut users), Some(true));
        fs::remove_dir(proc_root.path().join("7/cgroup")).unwrap();
        process(proc_root.path(), 7, "0::/\n");
        users.begin_round();
        assert_eq!(unreadable(&mut users), Some(false));
    }

    #[test]
    fn even_a_process_that_stays_is_looked_up_again_after_a_while() {
        let proc_root = tempfile::tempdir().unwrap();
        let mut users = Users::new(proc_root.path(), &[]);
        process(proc_root.path(), 7, "0::/\n");
        users.begin_round();
        users.of(7);
        process(proc_root.path(), 7, &format!("0::/kubepods/pod{UID}\n"));
        for _ in 0..=ROUNDS_BELIEVED {
            users.begin_round();
            users.of(7);
        }
        assert_eq!(users.of(7).unwrap().user.pod_uid, UID);
    }
}
