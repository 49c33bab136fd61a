//! What this kernel offers, and what to do with it: facts, then rules. Acting on the plan is `probe`'s.

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
    /// eBPF where kernel and rights allow it, else files.
    Auto,
    /// eBPF, or do not start.
    Bpf,
    /// The files of cgroup v2.
    Files,
}

/// What this process may ask of this kernel, learned once at start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts, each true or not, and the rules are one function")]
pub struct KernelFacts {
    /// `uname -r`.
    pub release: String,
    /// The probes were compiled into this agent.
    pub probes_built_in: bool,
    /// A cgroup v2 tree is mounted.
    pub cgroup2_mounted: bool,
    /// The kernel describes its own types.
    pub btf: bool,
    /// The kernel has the cgroup iterator (6.1 and later).
    pub cgroup_iterator: bool,
    /// This process may load and attach tracing programs.
    pub may_trace: bool,
}

/// Where cgroup figures will come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupPlan {
    /// The kernel's iterator.
    Bpf,
    /// The files of cgroupfs, because the iterator can't be had; None when files were asked for.
    Files(Option<NoProbes>),
    /// Nowhere: there is no cgroup v2 tree.
    Nowhere,
}

/// Why the kernel's iterator can't be had, in the order that a person would mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProbes {
    /// Built without an eBPF toolchain.
    #[error("this agent was built without probes; `cargo xtask build-ebpf` makes them")]
    NotBuiltIn,
    /// No BTF, so no offsets.
    #[error("this kernel does not describe its types (no /sys/kernel/btf/vmlinux; CONFIG_DEBUG_INFO_BTF)")]
    NoBtf,
    /// An older kernel.
    #[error("this kernel has no cgroup iterator (6.1 and later have it)")]
    NoIterator,
    /// Neither root nor the capabilities.
    #[error(
        "this process may not load probes: run it as root, or with CAP_BPF and CAP_PERFMON (in a pod's securityContext: \
         capabilities.add: [BPF, PERFMON]); it gives them up as soon as the probes run"
    )]
    NoRights,
}

impl NoProbes {
    /// As reports and metrics spell it.
    pub fn reason(self) -> Reason {
        match self {
            Self::NotBuiltIn => Reason::NoProbes,
            Self::NoBtf | Self::NoIterator => Reason::KernelUnsupported,
            Self::NoRights => Reason::NotPermitted,
        }
    }
}

/// The plan can't be what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--cgroup-source bpf was asked for, but {0}")]
pub struct CannotProbe(pub NoProbes);

impl KernelFacts {
    /// Asks the kernel. What can't be asked counts as not there.
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

    /// The rules.
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

/// The effective set in a text of `/proc/PID/status`; empty where there is none.
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
