//! Which system calls the kernel denies this process: a seccomp filter in classic BPF. Pure, except for installing it.
//!
//! It lists what is denied instead of what is allowed, because NVML's library runs under it, and which calls that makes
//! is up to the driver. It denies calls that affect other processes of the node, load anything into the kernel, change
//! what the process sees, or leave behind a program that gives its rights to others. Arguments are checked where only a
//! part of a call is needed: `kill` and similar calls only for this process, `prlimit64` only for this process, `bpf`
//! only to begin a walk, new files only without the setuid and setgid bits.

use std::io;
use std::mem::offset_of;

use libc::{c_long, sock_filter, sock_fprog};

/// The architecture of the running machine, as a filter sees it: other architectures have other call numbers.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// On x86_64, the calls of the x32 ABI have numbers from here on. This process makes none of them.
const FOREIGN_NUMBERS: u32 = 0x4000_0000;

/// All flags of `clone` that create a namespace.
const NEW_NAMESPACE: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// `enum bpf_cmd`: begins a walk over cgroups. Loading and attaching are done before the filter is installed.
const BPF_ITER_CREATE: u32 = 33;

/// Denied with any arguments.
const REFUSED: &[c_long] = &[
    // Other processes: their memory, files, signals and scheduling.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // What the process sees of the node.
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // The kernel, and the whole machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    // The mode and owner of files: a program of the agent that everybody can start as root would be a way out.
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SETXATTRAT,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    // Other ways to make calls, which a filter does not see.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Allowed only if this argument is 0, which means this process.
const OF_ONESELF: &[c_long] = &[
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
];

/// These numbers are the same on every architecture, but are not in the headers of every C library.
const FCHMODAT2: c_long = 452;
const SETXATTRAT: c_long = 463;

/// Calls that create a file or a folder, and which argument is its mode: denied with the setuid or setgid bit.
const WITH_A_MODE: &[(c_long, usize)] = &[
    (libc::SYS_openat, 3),
    (libc::SYS_mkdirat, 2),
    (libc::SYS_mknodat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
];
const OF_OWNER_OR_GROUP: u32 = libc::S_ISUID | libc::S_ISGID;

/// Denied to the process that calls NVML, in addition to what is denied to the agent. The agent's own filter allows
/// signals to the agent, with which a library could end it.
const REFUSED_TO_WORKER: &[c_long] = &[
    libc::SYS_bpf,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kill,
    libc::SYS_tgkill,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// Denied if this argument has one of these values. If a process sets itself or another as the owner of a file, the
/// kernel signals that process when the file becomes readable; F_SETSIG chooses the signal. So these calls could signal
/// any process.
const REFUSED_COMMANDS: &[(c_long, usize, &[u32])] = &[
    (libc::SYS_fcntl, 1, &[libc::F_SETOWN as u32, F_SETSIG, F_SETOWN_EX]),
    (libc::SYS_ioctl, 1, &[FIOSETOWN, SIOCSPGRP]),
];

/// From the kernel's `asm-generic/fcntl.h` and `sockios.h`; both architectures have these numbers.
const F_SETSIG: u32 = 10;
const F_SETOWN_EX: u32 = 15;
const FIOSETOWN: u32 = 0x8901;
const SIOCSPGRP: u32 = 0x8902;

/// The process that a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The agent.
    Agent {
        /// Its process id.
        pid: u32,
    },
    /// The process that calls NVML; it also inherits the agent's filter.
    Worker,
}

/// Installs the filter for this process and all that it starts. `no_new_privs` must be set.
pub(super) fn install(kind: Kind) -> io::Result<()> {
    let mut program = program(kind);
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let described = sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the description and the program that it points to outlive the call, which copies them.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const described,
        )
    };
    match answer {
        0 => Ok(()),
        // The id of a thread that has another filter.
        1.. => Err(io::Error::other("another thread has a different seccomp filter")),
        _ => Err(io::Error::last_os_error()),
    }
}

fn program(kind: Kind) -> Vec<sock_filter> {
    let mut program = vec![
        load(offset_of!(libc::seccomp_data, arch)),
        // Skips the denial.
        jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0),
        refuse(libc::EPERM),
        load(offset_of!(libc::seccomp_data, nr)),
        jump(libc::BPF_JGE, FOREIGN_NUMBERS, 0, 1),
        refuse(libc::EPERM),
    ];
    let mut only = |number: c_long, then: &[sock_filter]| {
        program.push(jump(libc::BPF_JEQ, number as u32, 0, then.len() as u8));
        program.extend_from_slice(then);
    };
    match kind {
        Kind::Agent { pid } => {
            for number in REFUSED {
                only(*number, &[refuse(libc::EPERM)]);
            }
            for number in OF_ONESELF {
                only(*number, &if_argument_is(0, 0));
            }
            for (number, index, commands) in REFUSED_COMMANDS {
                only(*number, &unless_argument_is(*index, commands));
            }
            // Not to others; a negative number would be a group or all processes.
            only(libc::SYS_kill, &if_argument_is(0, pid));
            only(libc::SYS_tgkill, &if_argument_is(0, pid));
            only(libc::SYS_bpf, &if_argument_is(0, BPF_ITER_CREATE));
            only(libc::SYS_clone, &if_argument_lacks(0, NEW_NAMESPACE));
            for (number, index) in WITH_A_MODE {
                only(*number, &if_argument_lacks(*index, OF_OWNER_OR_GROUP));
            }
            // Their flags and modes are in memory, which a filter cannot read. Callers that get this error use `clone`
            // and `openat` instead.
            only(libc::SYS_clone3, &[refuse(libc::ENOSYS)]);
            only(libc::SYS_openat2, &[refuse(libc::ENOSYS)]);
        }
        Kind::Worker => {
            for number in REFUSED_TO_WORKER {
                only(*number, &[refuse(libc::EPERM)]);
            }
            // Threads only: a process could outlive the agent.
            only(libc::SYS_clone, &if_argument_has(0, libc::CLONE_THREAD as u32));
        }
    }
    program.push(allow());
    program
}

fn if_argument_is(index: usize, value: u32) -> [sock_filter; 4] {
    [argument(index), jump(libc::BPF_JEQ, value, 0, 1), allow(), refuse(libc::EPERM)]
}

fn unless_argument_is(index: usize, values: &[u32]) -> Vec<sock_filter> {
    let mut then = vec![argument(index)];
    // Each jump skips the ones after it and the permission.
    let jumps = values.iter().enumerate().map(|(at, value)| jump(libc::BPF_JEQ, *value, (values.len() - at) as u8, 0));
    then.extend(jumps);
    then.extend([allow(), refuse(libc::EPERM)]);
    then
}

fn if_argument_has(index: usize, bit: u32) -> [sock_filter; 4] {
    [argument(index), jump(libc::BPF_JSET, bit, 0, 1), allow(), refuse(libc::EPERM)]
}

fn if_argument_lacks(index: usize, bits: u32) -> [sock_filter; 4] {
    [argument(index), jump(libc::BPF_JSET, bits, 1, 0), allow(), refuse(libc::EPERM)]
}

/// The lower half of an argument, which holds the whole of the numbers that are checked.
fn argument(index: usize) -> sock_filter {
    load(offset_of!(libc::seccomp_data, args) + 8 * index)
}

fn load(offset: usize) -> sock_filter {
    sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset as u32 }
}

/// A jump that skips `holds` instructions if the comparison holds, else `fails`.
fn jump(comparison: u32, value: u32, holds: u8, fails: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | comparison | libc::BPF_K) as u16, jt: holds, jf: fails, k: value }
}

fn allow() -> sock_filter {
    answer(libc::SECCOMP_RET_ALLOW)
}

fn refuse(error: i32) -> sock_filter {
    answer(libc::SECCOMP_RET_ERRNO | error as u32)
}

fn answer(value: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Emulates the kernel's execution of a filter, for the few instructions that are used.
    fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            0 => number,
            4 => arch,
            _ => {
                let argument = arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
        };
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let one = program[at];
            let code = u32::from(one.code);
            at += 1;
            let jumps = |holds: bool| usize::from(if holds { one.jt } else { one.jf });
            match code {
                _ if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => accumulator = word(one.k),
                _ if code == libc::BPF_JMP | libc::BPF_JEQ => at += jumps(accumulator == one.k),
                _ if code == libc::BPF_JMP | libc::BPF_JGE => at += jumps(accumulator >= one.k),
                _ if code == libc::BPF_JMP | libc::BPF_JSET => at += jumps(accumulator & one.k != 0),
                _ if code == libc::BPF_RET => return one.k,
                _ => panic!("{code:#x}"),
            }
        }
    }

    const ME: u32 = 4711;

    /// Checks the error that a call of the agent gets; 0 means that it is allowed.
    #[track_caller]
    fn check(number: c_long, first: u64, expected: i32) {
        check_all(Kind::Agent { pid: ME }, number, [first, 0, 0, 0, 0, 0], expected);
    }

    #[track_caller]
    fn check_all(kind: Kind, number: c_long, arguments: [u64; 6], expected: i32) {
        let answer = run(&program(kind), ARCHITECTURE, number as u32, arguments);
        let expected = if expected == 0 { libc::SECCOMP_RET_ALLOW } else { libc::SECCOMP_RET_ERRNO | expected as u32 };
        assert_eq!(answer, expected, "call {number} with {arguments:#x?}");
    }

    #[test]
    fn what_reaches_others_is_refused_and_the_same_on_oneself_is_not() {
        for number in REFUSED {
            check(*number, 0, libc::EPERM);
        }
        for number in [libc::SYS_kill, libc::SYS_tgkill] {
            check(number, ME.into(), 0);
            for other in [0, 1, u64::from(ME) + 1, u64::MAX, u64::from(ME).wrapping_neg()] {
                check(number, other, libc::EPERM);
            }
        }
        for number in OF_ONESELF {
            check(*number, 0, 0);
            check(*number, 1, libc::EPERM);
        }
    }

    #[test]
    fn nobody_is_signalled_by_way_of_a_file() {
        let agent = Kind::Agent { pid: ME };
        for command in 0..2000 {
            let expected = if [8, 10, 15].contains(&command) { libc::EPERM } else { 0 };
            check_all(agent, libc::SYS_fcntl, [7, command, 1, 0, 0, 0], expected);
        }
        for command in 0x8900..0x8a00 {
            let expected = if [0x8901, 0x8902].contains(&command) { libc::EPERM } else { 0 };
            check_all(agent, libc::SYS_ioctl, [7, command, 1, 0, 0, 0], expected);
            // The kernel ignores the upper half, too.
            check_all(agent, libc::SYS_ioctl, [7, command | 1 << 32, 1, 0, 0, 0], expected);
        }
    }

    #[test]
    fn a_walk_may_begin_and_nothing_may_be_loaded() {
        check(libc::SYS_bpf, BPF_ITER_CREATE.into(), 0);
        for command in (0..64).filter(|command| *command != u64::from(BPF_ITER_CREATE)) {
            check(libc::SYS_bpf, command, libc::EPERM);
        }
    }

    #[test]
    fn threads_and_processes_may_be_made_and_namespaces_may_not() {
        let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
        check(libc::SYS_clone, thread as u64, 0);
        check(libc::SYS_clone, (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as u64, 0);
        check(libc::SYS_clone, (libc::CLONE_NEWUSER | libc::SIGCHLD) as u64, libc::EPERM);
        check(libc::SYS_clone3, 0, libc::ENOSYS);
    }

    #[test]
    fn what_an_agent_needs_is_let_through() {
        for number in [
            libc::SYS_openat,
            libc::SYS_read,
            libc::SYS_execve,
            libc::SYS_wait4,
            libc::SYS_mmap,
            libc::SYS_ioctl,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_prctl,
            libc::SYS_renameat2,
            libc::SYS_exit_group,
            libc::SYS_pidfd_open,
        ] {
            check(number, 7, 0);
        }
    }

    #[test]
    fn calls_of_another_kind_are_refused_whatever_their_number() {
        let program = program(Kind::Agent { pid: ME });
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        // 32-bit x86: there, 37 is `kill`.
        assert_eq!(run(&program, 0x4000_0003, 37, [0; 6]), refused);
        assert_eq!(run(&program, ARCHITECTURE, FOREIGN_NUMBERS + 62, [0; 6]), refused);
    }

    #[test]
    fn files_may_be_made_and_none_that_gives_its_owners_rights_to_others() {
        for (number, index) in WITH_A_MODE {
            for (mode, expected) in [(0o100_600, 0), (0o1777, 0), (0o4755, libc::EPERM), (0o2755, libc::EPERM)] {
                let mut arguments = [0; 6];
                arguments[*index] = mode;
                check_all(Kind::Agent { pid: ME }, *number, arguments, expected);
            }
        }
        check(libc::SYS_openat2, 0, libc::ENOSYS);
    }

    #[test]
    fn the_process_that_calls_nvml_begins_no_walk_no_program_and_no_process_and_signals_nobody() {
        for number in REFUSED_TO_WORKER {
            // Also for calls that the agent may make.
            for first in [0, 33, u64::from(ME)] {
                check_all(Kind::Worker, *number, [first, 0, 0, 0, 0, 0], libc::EPERM);
            }
        }
        check_all(Kind::Worker, libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0], libc::EPERM);
        let vfork = (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as u64;
        check_all(Kind::Worker, libc::SYS_clone, [vfork, 0, 0, 0, 0, 0], libc::EPERM);
        let thread = (libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;
        check_all(Kind::Worker, libc::SYS_clone, [thread, 0, 0, 0, 0, 0], 0);
        check_all(Kind::Worker, libc::SYS_ioctl, [0; 6], 0);
    }
}
