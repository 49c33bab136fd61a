//! What this kernel supports, and the rules that decide where cgroup values are read from. The module `probe` carries
//! out the decision.

use std::{fs, path::Path};

use clap::ValueEnum;

use crate::{kernel_types::KernelTypes, sample::Reason};

/// Linux capabilities by number: `include/uapi/linux/capability.h`.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// `--cgroup-source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CgroupSourceChoice {
    /// eBPF if the kernel and the agent's rights allow it, else files.
    Auto,
    /// eBPF; do not start without it.
    Bpf,
    /// The files of cgroup v2.
    Files,
}

/// What this kernel supports and this process may do, determined once at start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, and one function holds the rules")]
pub struct KernelFacts {
    /// `uname -r`.
    pub release: String,
    /// Whether the probes were compiled into this agent.
    pub probes_built_in: bool,
    /// Whether a cgroup v2 tree is mounted.
    pub cgroup2_mounted: bool,
    /// Whether the kernel has BTF, the description of its types.
    pub btf: bool,
    /// Whether the kernel has the cgroup iterator (6.1 and later).
    pub cgroup_iterator: bool,
    /// Whether this process may load and attach tracing programs.
    pub may_trace: bool,
}

/// Where values of cgroups are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupPlan {
    /// The kernel's cgroup iterator.
    Bpf,
    /// The files of cgroupfs, with the reason why the iterator cannot be used; `None` if the flags request files.
    Files(Option<NoProbes>),
    /// Nowhere: there is no cgroup v2 tree.
    Nowhere,
}

/// Why the kernel's iterator cannot be used, in the order in which a user would fix it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProbes {
    /// The agent was built without an eBPF toolchain.
    #[error("this agent was built without probes; `cargo xtask build-ebpf` builds them")]
    NotBuiltIn,
    /// The kernel has no BTF, so offsets are unknown.
    #[error("this kernel has no BTF (no /sys/kernel/btf/vmlinux; it needs CONFIG_DEBUG_INFO_BTF)")]
    NoBtf,
    /// The kernel is too old.
    #[error("this kernel has no cgroup iterator (6.1 and later have it)")]
    NoIterator,
    /// The process is neither root nor has the capabilities.
    #[error(
        "this process is not permitted to load probes: run it as root, or with CAP_BPF and CAP_PERFMON (in a pod's securityContext: \
         capabilities.add: [BPF, PERFMON]); the agent drops these rights as soon as the probes are attached"
    )]
    NoRights,
}

impl NoProbes {
    /// The reason as reports and metrics name it.
    pub fn reason(self) -> Reason {
        match self {
            Self::NotBuiltIn => Reason::NoProbes,
            Self::NoBtf | Self::NoIterator => Reason::KernelUnsupported,
            Self::NoRights => Reason::NotPermitted,
        }
    }
}

/// `--cgroup-source bpf` is set, but the iterator cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--cgroup-source bpf is set, but {0}")]
pub struct CannotProbe(pub NoProbes);

impl KernelFacts {
    /// Determines the facts. What cannot be determined counts as missing.
    pub fn learn(proc_root: &Path, sys_root: &Path, probes_built_in: bool, cgroup2_mounted: bool) -> Self {
        let types = KernelTypes::open(&sys_root.join("kernel/btf/vmlinux")).ok();
        let status = fs::read_to_string(proc_root.join("self/status")).unwrap_or_default();
        Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            probes_built_in,
            cgroup2_mounted,
            btf: types.is_some(),
            cgroup_iterator: types.is_some_and(|types| types.has_function("bpf_iter_cgroup")),
            may_trace: may_trace(effective_capabilities(&status)),
        }
    }

    /// Applies the rules.
    pub fn plan(&self, choice: CgroupSourceChoice) -> Result<CgroupPlan, CannotProbe> {
        if !self.cgroup2_mounted {
            return Ok(CgroupPlan::Nowhere);
        }
        let missing = [
            (self.probes_built_in, NoProbes::NotBuiltIn),
            (self.btf, NoProbes::NoBtf),
            (self.cgroup_iterator, NoProbes::NoIterator),
            (self.may_trace, NoProbes::NoRights),
        ]
        .into_iter()
        .find_map(|(there, why)| (!there).then_some(why));
        match (choice, missing) {
            (CgroupSourceChoice::Files, _) => Ok(CgroupPlan::Files(None)),
            (CgroupSourceChoice::Auto | CgroupSourceChoice::Bpf, None) => Ok(CgroupPlan::Bpf),
            (CgroupSourceChoice::Auto, Some(why)) => Ok(CgroupPlan::Files(Some(why))),
            (CgroupSourceChoice::Bpf, Some(why)) => Err(CannotProbe(why)),
        }
    }
}

/// The effective capabilities in the text of `/proc/PID/status`; 0 if there are none.
fn effective_capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0)
}

/// CAP_BPF loads programs and maps, CAP_PERFMON lets them read kernel memory; CAP_SYS_ADMIN includes both.
fn may_trace(capabilities: u64) -> bool {
    let has = |capability: u32| capabilities & (1 << capability) != 0;
    has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn able() -> KernelFacts {
        KernelFacts {
            release: "6.12.0".into(),
            probes_built_in: true,
            cgroup2_mounted: true,
            btf: true,
            cgroup_iterator: true,
            may_trace: true,
        }
    }

    #[test]
    fn a_kernel_that_has_everything_is_read_by_its_iterator() {
        assert_eq!(able().plan(CgroupSourceChoice::Auto), Ok(CgroupPlan::Bpf));
        assert_eq!(able().plan(CgroupSourceChoice::Bpf), Ok(CgroupPlan::Bpf));
    }

    #[test]
    fn files_are_read_when_they_are_asked_for() {
        assert_eq!(able().plan(CgroupSourceChoice::Files), Ok(CgroupPlan::Files(None)));
    }

    #[test]
    fn what_is_missing_decides_and_is_named() {
        let cases = [
            (KernelFacts { probes_built_in: false, ..able() }, NoProbes::NotBuiltIn),
            (KernelFacts { btf: false, cgroup_iterator: false, ..able() }, NoProbes::NoBtf),
            (KernelFacts { cgroup_iterator: false, ..able() }, NoProbes::NoIterator),
            (KernelFacts { may_trace: false, ..able() }, NoProbes::NoRights),
        ];
        for (facts, why) in cases {
            assert_eq!(facts.plan(CgroupSourceChoice::Auto), Ok(CgroupPlan::Files(Some(why))), "{facts:?}");
            assert_eq!(facts.plan(CgroupSourceChoice::Bpf), Err(CannotProbe(why)), "{facts:?}");
        }
    }

    #[test]
    fn without_a_cgroup_v2_tree_there_is_nothing_to_read() {
        for choice in [CgroupSourceChoice::Auto, CgroupSourceChoice::Bpf, CgroupSourceChoice::Files] {
            assert_eq!(KernelFacts { cgroup2_mounted: false, ..able() }.plan(choice), Ok(CgroupPlan::Nowhere));
        }
    }

    #[test]
    fn rights_are_both_capabilities_or_all() {
        let status = |set: &str| format!("Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t{set}\nCapBnd:\tff\n");
        let check =
            |set: &str, expected| assert_eq!(may_trace(effective_capabilities(&status(set))), expected, "{set}");
        check("000001ffffffffff", true);
        check("000000c000000000", true);
        check("0000008000000000", false);
        check("0000004000000000", false);
        check("0000000000200000", true);
        check("not hexadecimal", false);
        assert!(!may_trace(effective_capabilities("")));
    }
}
