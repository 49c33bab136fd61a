//! Which rights the walk needs, determined by experiment on this machine's kernel. Capabilities belong to a thread, so
//! each experiment uses its own thread.

use std::{fs, path::Path, thread};

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::{
    ReadCgroups,
    bpf::BpfCgroups,
    live_tests::{Branch, tree},
};
use crate::{
    probe::{ProbeError, RunQueueChoice},
    rights,
};

fn hold(capabilities: CapabilitySet) {
    let sets = CapabilitySets { effective: capabilities, permitted: capabilities, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).unwrap();
}

fn attach(tree: &Path) -> Result<BpfCgroups, ProbeError> {
    BpfCgroups::attach("/sys".as_ref(), tree, 8192, RunQueueChoice::On)
}

/// Runs on a thread of its own, so that no other test loses its rights.
fn apart(test: impl FnOnce() + Send) {
    thread::scope(|scope| scope.spawn(test).join()).unwrap();
}

#[test]
fn two_capabilities_are_needed_and_enough() {
    let Some(tree) = tree() else { return };
    let both = CapabilitySet::BPF | CapabilitySet::PERFMON;
    for (held, expected) in [
        (both, true),
        (CapabilitySet::SYS_ADMIN, true),
        (CapabilitySet::BPF, false),
        (CapabilitySet::PERFMON, false),
        (CapabilitySet::all() - both - CapabilitySet::SYS_ADMIN, false),
    ] {
        let tree = &tree;
        apart(move || {
            // No more than this process has: root in a container has fewer than all.
            hold(held & rustix::thread::capabilities(None).unwrap().permitted);
            let attached = attach(tree);
            assert_eq!(attached.is_ok(), expected, "with {held:?}: {:?}", attached.err());
        });
    }
}

#[test]
fn what_is_attached_needs_no_rights_any_more() {
    let Some(tree) = tree() else { return };
    let branch = Branch::new(&tree);
    apart(|| {
        let mut source = attach(&tree).unwrap();
        rights::give_up().unwrap();
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            let value = status.lines().find_map(|line| line.strip_prefix(set)).unwrap().trim();
            assert_eq!(value, "0000000000000000", "{set}");
        }
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        for _ in 0..3 {
            let sample = source.read().unwrap();
            let own = sample.cgroups.iter().find(|cgroup| *cgroup.path == *branch.relative).unwrap();
            assert!(own.cpu_ns.is_some() && own.run_queue.is_some(), "{own:?}");
        }
        assert!(attach(&tree).is_err(), "rights came back");
    });
}
