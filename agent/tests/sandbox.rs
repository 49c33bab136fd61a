//! What a compromised agent can do to its node: each call is made by root without capabilities, first without the
//! sandbox, then in it.
//!
//! This test's own program makes the calls: it is started once more as `trial`.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mcad_agent::rights;
use mcad_agent::sandbox::{self, Enforced, Paths};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};

/// Parameters of `trial`: the process to access, a folder of its own, and whether and how it is restricted.
const VICTIM: &str = "MCAD_TRIAL_VICTIM";
const STATE: &str = "MCAD_TRIAL_STATE";
const CONFINED: &str = "MCAD_TRIAL_CONFINED";

/// How it is restricted: as this kernel supports it, or as a kernel without Landlock, because Landlock would hide what
/// the filter allows.
const AS_THE_KERNEL_CAN: &str = "as-the-kernel-can";
const FILTER_ALONE: &str = "filter-alone";

/// A process of root without capabilities, like helpers of kubelet and the runtime; killed with the test.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Victim {
    fn start() -> Self {
        let mut command = Command::new("sleep");
        command.arg("600").env("SECRET", "of-somebody-else").stdin(Stdio::null()).stdout(Stdio::null());
        command.process_group(0);
        // SAFETY: between fork and exec it only makes system calls.
        unsafe { command.pre_exec(|| rights::give_up().map(drop).map_err(io::Error::other)) };
        Self(command.spawn().unwrap())
    }
}

/// Makes all attempts and prints a line for each: the name, and `allowed` or the error.
#[test]
fn trial() {
    let Ok(victim) = std::env::var(VICTIM) else { return };
    let (victim, state) = (victim.parse::<i32>().unwrap(), PathBuf::from(std::env::var_os(STATE).unwrap()));
    let paths = Paths {
        proc_root: "/proc".into(),
        sys_root: "/sys".into(),
        cgroups: Some("/sys/fs/cgroup".into()),
        renewed: vec![state.join("trust/token")],
        state_dir: Some(state.join("own")),
        ..Paths::default()
    };
    rights::give_up().unwrap();
    if let Some(how) = std::env::var_os(CONFINED) {
        if how == FILTER_ALONE {
            take_landlock_away();
        }
        let confined = sandbox::confine_agent(&paths);
        confined.filter.unwrap();
        let landlock = match confined.files.unwrap() {
            Enforced::Nothing => "none",
            Enforced::Files => "files",
            Enforced::FilesAndSignals => "all",
        };
        println!("TRIED landlock {landlock}");
    }
    for (name, outcome) in attempts(victim, &state) {
        match outcome {
            Ok(()) => println!("TRIED {name} allowed"),
            Err(error) => println!("TRIED {name} {:?}", error.kind()),
        }
    }
}

/// Simulates a kernel without Landlock for this thread: the system call returns that it does not exist.
fn take_landlock_away() {
    let one = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let returns = libc::BPF_RET | libc::BPF_K;
    let mut program = [
        one(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        one(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_landlock_create_ruleset as u32),
        one(returns, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        one(returns, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let described = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: the description and the program that it points to outlive the call, which copies them.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const described) };
    assert_eq!(answer, 0, "{}", io::Error::last_os_error());
}

/// Attempts that affect the victim or the node, and then what the agent must still be able to do.
fn attempts(victim: i32, state: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let pid = Pid::from_raw(victim).unwrap();
    let of = |name: &str| PathBuf::from(format!("/proc/{victim}/{name}"));
    // A stopped process continues, a running one does not notice.
    let signal = Signal::CONT;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
    let beside = |name: &str| state.join("own").join(name);
    let own = beside("file");
    let write = |path: PathBuf| fs::OpenOptions::new().write(true).open(path).map(drop);
    vec![
        ("kill", rustix::process::kill_process(pid, signal).map_err(Into::into)),
        ("kill_all", call(libc::SYS_kill, [-victim, 0, 0])),
        ("tgkill", call(libc::SYS_tgkill, [victim, victim, signal.as_raw()])),
        ("tkill", call(libc::SYS_tkill, [victim, signal.as_raw(), 0])),
        ("pidfd_send_signal", pidfd.and_then(|fd| rustix::process::pidfd_send_signal(fd, signal)).map_err(Into::into)),
        ("fcntl_setown", with_a_socket(|fd| call(libc::SYS_fcntl, [fd, libc::F_SETOWN, victim]))),
        ("fcntl_setown_ex", with_a_socket(|fd| fcntl_setown_ex(fd, victim))),
        ("fcntl_setsig", with_a_socket(|fd| call(libc::SYS_fcntl, [fd, F_SETSIG, libc::SIGCONT]))),
        ("ioctl_fiosetown", with_a_socket(|fd| ioctl_owner(fd, FIOSETOWN, victim))),
        ("ioctl_siocspgrp", with_a_socket(|fd| ioctl_owner(fd, SIOCSPGRP, victim))),
        ("memory_from_a_child", memory_from_a_child()),
        ("prlimit", prlimit(pid)),
        ("setpriority", call(libc::SYS_setpriority, [libc::PRIO_PROCESS as i32, victim, 1])),
        ("sched_setaffinity", sched_setaffinity(victim)),
        ("ptrace", ptrace(victim)),
        ("process_vm_readv", call(libc::SYS_process_vm_readv, [victim, 0, 0])),
        ("unshare", unshare()),
        ("environ", fs::read(of("environ")).map(drop)),
        ("maps", fs::read(of("maps")).map(drop)),
        ("mem", fs::File::open(of("mem")).map(drop)),
        ("fd", fs::read_link(of("fd/0")).map(drop)),
        ("oom_score_adj", write(of("oom_score_adj"))),
        ("chmod", fs::set_permissions(&own, fs::Permissions::from_mode(0o4755))),
        ("chown", std::os::unix::fs::chown(&own, Some(0), Some(0))),
        (
            "make_set_user_id",
            fs::OpenOptions::new().write(true).create_new(true).mode(0o4755).open(beside("made")).map(drop),
        ),
        ("make_set_group_id_folder", fs::DirBuilder::new().mode(0o2755).create(beside("folder"))),
        ("mknod_set_user_id", mknod(&beside("node"), 0o4755)),
        ("write_elsewhere", fs::write(state.join("elsewhere"), "x")),
        ("abstract_socket", abstract_socket(victim).and_then(|socket| UnixStream::connect_addr(&socket)).map(drop)),
        ("start_another", Command::new("true").status().map(drop)),
        ("read_elsewhere", fs::read(state.join("secret")).map(drop)),
        // What the agent needs.
        ("cgroup", fs::read(of("cgroup")).map(drop)),
        ("token", fs::read(state.join("trust/token")).map(drop)),
        (
            "own_state_for_root_alone",
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside("root")).map(drop),
        ),
        ("own_state", fs::write(state.join("own/file"), "x")),
        ("meminfo", fs::read("/proc/meminfo").map(drop)),
        ("self", rustix::process::kill_process(rustix::process::getpid(), signal).map_err(Into::into)),
        ("start_itself", Command::new("/proc/self/exe").arg("--list").stdout(Stdio::null()).status().map(drop)),
    ]
}

/// A system call with numbers as arguments; missing ones are 0.
fn call(number: libc::c_long, [a, b, c]: [i32; 3]) -> io::Result<()> {
    let rest: libc::c_long = 0;
    // SAFETY: none of the attempted calls takes an address in these arguments, or one that is not 0.
    let answer = unsafe {
        libc::syscall(number, libc::c_long::from(a), libc::c_long::from(b), libc::c_long::from(c), rest, rest, rest)
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// From the kernel's headers.
const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;
const FIOSETOWN: i32 = 0x8901;
const SIOCSPGRP: i32 = 0x8902;

/// The owner of a socket is signalled when something can be read; that only requires the same user.
fn with_a_socket(attempt: impl Fn(i32) -> io::Result<()>) -> io::Result<()> {
    let (socket, _other) = UnixStream::pair()?;
    attempt(socket.as_raw_fd())
}

fn fcntl_setown_ex(fd: i32, victim: i32) -> io::Result<()> {
    // `struct f_owner_ex`: a process, by its id.
    let owner = [1, victim];
    // SAFETY: the owner outlives the call, which reads it.
    if unsafe { libc::fcntl(fd, F_SETOWN_EX, owner.as_ptr()) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn ioctl_owner(fd: i32, request: i32, victim: i32) -> io::Result<()> {
    // SAFETY: the number outlives the call, which reads it.
    if unsafe { libc::ioctl(fd, request as _, &raw const victim) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Creates a user namespace, in which the process has all capabilities. Only a process with one thread can do so, so it
/// is done in a child.
fn unshare() -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--list").stdout(Stdio::null());
    let leave = || {
        // SAFETY: it only takes a number.
        if unsafe { libc::unshare(libc::CLONE_NEWUSER) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec it makes one system call.
    unsafe { command.pre_exec(leave) };
    command.status().map(drop)
}

/// A child, like the process that calls NVML, opens the memory of its parent.
fn memory_from_a_child() -> io::Result<()> {
    // The memory of this thread: the first thread of a test still has its capabilities.
    let (process, thread) = (std::process::id(), rustix::thread::gettid());
    let memory = CString::new(format!("/proc/{process}/task/{thread}/mem")).unwrap();
    let mut command = Command::new("/proc/self/exe");
    command.arg("--list").stdout(Stdio::null());
    let open = move || {
        // SAFETY: the name outlives the call.
        if unsafe { libc::open(memory.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) } < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    // SAFETY: between fork and exec it makes one system call.
    unsafe { command.pre_exec(open) };
    command.status().map(drop)
}

/// The abstract socket of the victim, a process outside the sandbox.
fn abstract_socket(victim: i32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("mcad-trial-{victim}"))
}

fn mknod(path: &Path, mode: u32) -> io::Result<()> {
    let file = rustix::fs::FileType::RegularFile;
    rustix::fs::mknodat(rustix::fs::CWD, path, file, mode.into(), 0).map_err(Into::into)
}

fn prlimit(pid: Pid) -> io::Result<()> {
    let limit = Rlimit { current: Some(100), maximum: Some(1000) };
    rustix::process::prlimit(Some(pid), Resource::Nofile, limit).map(drop).map_err(Into::into)
}

fn sched_setaffinity(victim: i32) -> io::Result<()> {
    let pid = Pid::from_raw(victim);
    let cpus = rustix::thread::sched_getaffinity(pid)?;
    rustix::thread::sched_setaffinity(pid, &cpus).map_err(Into::into)
}

fn ptrace(victim: i32) -> io::Result<()> {
    // SAFETY: it only takes numbers.
    let answer = unsafe { libc::ptrace(libc::PTRACE_SEIZE, victim, 0, 0) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The outcome of each attempt, by name.
fn try_all(confined: Option<&str>) -> BTreeMap<String, String> {
    let victim = Victim::start();
    let socket = abstract_socket(victim.0.id().cast_signed()).unwrap();
    let _listener = UnixListener::bind_addr(&socket).unwrap();
    let state = tempfile::tempdir().unwrap();
    fs::create_dir(state.path().join("own")).unwrap();
    fs::write(state.path().join("own/file"), "x").unwrap();
    fs::write(state.path().join("secret"), "x").unwrap();
    // As kubelet creates it: a link to a folder that changes.
    fs::create_dir_all(state.path().join("trust/..first")).unwrap();
    fs::write(state.path().join("trust/..first/token"), "x").unwrap();
    symlink("..first", state.path().join("trust/..data")).unwrap();
    symlink("..data/token", state.path().join("trust/token")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "trial", "--nocapture"]);
    command.env(VICTIM, victim.0.id().to_string()).env(STATE, state.path());
    if let Some(how) = confined {
        command.env(CONFINED, how);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines = text.lines().filter_map(|line| line.split("TRIED ").nth(1)?.split_once(' '));
    lines.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())).collect()
}

#[test]
fn a_compromised_agent_reaches_no_other_process_and_no_file_that_it_does_not_need() {
    const NEEDED: [&str; 7] =
        ["cgroup", "token", "own_state", "own_state_for_root_alone", "meminfo", "self", "start_itself"];
    const OF_LANDLOCK: [&str; 9] = [
        "environ",
        "maps",
        "mem",
        "fd",
        "oom_score_adj",
        "write_elsewhere",
        "read_elsewhere",
        "start_another",
        "abstract_socket",
    ];
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root without capabilities is tried by root alone");
        return;
    }
    let before = try_all(None);
    // The sandbox must be what denies the calls: without it, root without capabilities may make all of them.
    let refused: Vec<_> = before.iter().filter(|(_, outcome)| *outcome != "allowed").collect();
    assert_eq!(refused, Vec::<(&String, &String)>::new());
    for how in [FILTER_ALONE, AS_THE_KERNEL_CAN] {
        let within = try_all(Some(how));
        let landlock = within["landlock"] != "none";
        match how {
            FILTER_ALONE => assert!(!landlock, "it was taken away"),
            _ if landlock => {}
            _ => eprintln!("SKIPPED: files of the sandbox: this kernel has no Landlock"),
        }
        for (name, outcome) in within.iter().filter(|(name, _)| *name != "landlock") {
            match name.as_str() {
                needed if NEEDED.contains(&needed) => assert_eq!(outcome, "allowed", "{name}, {how}"),
                "abstract_socket" if within["landlock"] == "files" => {}
                file if OF_LANDLOCK.contains(&file) && !landlock => assert_eq!(outcome, "allowed", "{name}, {how}"),
                _ => assert_eq!(outcome, "PermissionDenied", "{name}, {how}"),
            }
        }
        assert_eq!(within.len(), before.len() + 1);
    }
}

/// The agent's own binary with all its sources, in its usual sandbox.
#[test]
fn within_the_sandbox_the_agent_reads_all_that_it_reports() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let scenario = fake_nvml::Scenario::of(2, "L4");
    let library = fake_nvml::Installation::built_for_this_test().unwrap();
    let installation = fake_nvml::Installation::new(&library, root, &scenario).unwrap();
    let socket = root.join("pod-resources.sock");
    let kubelet = fake_kubelet::Kubelet::start(root, &socket).unwrap();
    kubelet.pod_resources().responses().assign("ml", "train-0", "main", "nvidia.com/gpu", &[&scenario.devices[0].uuid]);
    let output = Command::new(env!("CARGO_BIN_EXE_mcad-agent"))
        .arg("--once")
        .args([Path::new("--nvml"), installation.library(), Path::new("--pod-resources"), &socket])
        .args([Path::new("--state-dir"), root])
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    let report: mcad_wire::report::Report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.absences, [], "{log}");
    assert_eq!((report.gpus.unwrap().devices.len(), report.assignments.unwrap().assigned.len()), (2, 1));
    assert!(report.machine.is_some() && report.cgroups.is_some());
    assert!(root.join("gpus").exists(), "the state directory can be written: {log}");
    assert!(log.contains("(seccomp)") && log.contains("Landlock"), "what is in force is said: {log}");
}
