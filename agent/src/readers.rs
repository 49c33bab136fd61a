//! Which sources there are, given the command line. For cgroups it learns the facts, asks the rules, and acts on the plan:
//! the facts and the rules are `kernel`'s. How a source reads is its own affair.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::{
    args::Args,
    cgroup_mount::{self, CgroupMount},
    kernel::{CgroupPlan, CgroupSourceChoice, KernelFacts},
    probe,
    sample::{CgroupSource, Reason},
    sandbox::Paths,
    source::{
        ReadCgroups, Unavailable,
        bpf::BpfCgroups,
        cgroup::CgroupFiles,
        gpu::{self, NvmlGpus, Settings},
        pods::{PodResources, Socket},
    },
};

/// What a driver or kubelet may take to answer one sample: both take milliseconds, and a sample should be of one instant.
const PATIENCE_AT_MOST: Duration = Duration::from_secs(2);
const PATIENCE_AT_LEAST: Duration = Duration::from_millis(500);

/// For the only sample of `--once`, which has to initialise NVML first: up to 6 s on a node with eight GPUs.
const PATIENCE_ONCE: Duration = Duration::from_secs(30);

/// The GPUs.
pub fn of_gpus(args: &Args) -> NvmlGpus {
    NvmlGpus::new(&Settings {
        program: None,
        sandbox: args.sandbox,
        library: args.nvml.clone(),
        proc_root: args.proc_root.clone(),
        sys_root: args.sys_root.clone(),
        state_dir: args.state_dir.clone(),
        ignored_xids: args.ignore_xids.clone(),
        deadline: patience(args),
        patience: args.nvml_patience,
        listen: gpu::LISTEN,
    })
}

/// What kubelet handed out.
pub fn of_assignments(args: &Args) -> PodResources {
    let socket = args.pod_resources.clone().map_or(Socket::Default, Socket::At);
    PodResources::new(&socket, patience(args))
}

fn patience(args: &Args) -> Duration {
    if args.once { PATIENCE_ONCE } else { (args.interval / 2).clamp(PATIENCE_AT_LEAST, PATIENCE_AT_MOST) }
}

/// Paths that sources and the sender read from then on.
pub fn paths(args: &Args) -> Paths {
    let cgroups = match mounted(args) {
        CgroupMount::At(path) => Some(path),
        _ => None,
    };
    Paths {
        proc_root: args.proc_root.clone(),
        sys_root: args.sys_root.clone(),
        cgroups,
        library: args.nvml.clone(),
        renewed: args.aggregator_ca.iter().chain(&args.token).cloned().collect(),
        state_dir: args.state_dir.clone(),
    }
}

fn mounted(args: &Args) -> CgroupMount {
    match &args.cgroup_root {
        Some(path) => CgroupMount::At(path.clone()),
        None => mount(&args.proc_root.join("self/mountinfo")),
    }
}

/// The sources of per-cgroup figures, in order of preference: the next is asked when one fails.
///
/// An error means that what was asked for by name can't be had.
pub fn of_cgroups(args: &Args) -> anyhow::Result<Vec<Box<dyn ReadCgroups>>> {
    let mount = mounted(args);
    let mounted = matches!(mount, CgroupMount::At(_));
    let facts = KernelFacts::learn(&args.proc_root, &args.sys_root, probe::built_in(), mounted);
    tracing::info!(?facts, "what this kernel offers");
    let plan = facts.plan(args.cgroup_source)?;
    tracing::info!(?plan, ?mount, "what will be done with it");
    let readers = match mount {
        CgroupMount::At(tree) => at(args, tree, plan)?,
        unusable => vec![nowhere(args.cgroup_source, &unusable)],
    };
    return_memory();
    Ok(readers)
}

/// Gives back what finding the kernel's structures took, up to 20 MiB once: glibc would keep it for good.
fn return_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes any number and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn at(args: &Args, tree: PathBuf, plan: CgroupPlan) -> anyhow::Result<Vec<Box<dyn ReadCgroups>>> {
    let mut readers: Vec<Box<dyn ReadCgroups>> = Vec::new();
    if let CgroupPlan::Files(Some(why)) = plan {
        tracing::warn!(%why, "cgroups are read from files");
    }
    if plan == CgroupPlan::Bpf {
        let attached = BpfCgroups::attach(&args.sys_root, &tree, probe::MAX_CGROUPS, args.run_queue);
        match (attached, args.cgroup_source) {
            (Ok(reader), _) => readers.push(Box::new(reader)),
            (Err(error), CgroupSourceChoice::Bpf) => return Err(error).context("--cgroup-source bpf was asked for"),
            (Err(error), _) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(error, "the probes can't be used on this kernel; cgroups are read from files");
            }
        }
    }
    if args.cgroup_source != CgroupSourceChoice::Bpf {
        readers.push(Box::new(CgroupFiles::new(tree)));
    }
    Ok(readers)
}

/// A reader that says each time why nothing can be read.
fn nowhere(choice: CgroupSourceChoice, mount: &CgroupMount) -> Box<dyn ReadCgroups> {
    let (reason, why) = match mount {
        CgroupMount::OnlyV1 => (
            Reason::CgroupV1Only,
            "only cgroup v1 is mounted, which has no usage per pod that could be relied on".to_owned(),
        ),
        CgroupMount::OnlyPart(path) => (
            Reason::NoCgroupMount,
            format!("{} is a part of the cgroup tree; mount the host's and name it by --cgroup-root", path.display()),
        ),
        CgroupMount::Missing | CgroupMount::At(_) => {
            (Reason::NoCgroupMount, "no cgroup hierarchy is mounted".to_owned())
        }
    };
    let source = match choice {
        CgroupSourceChoice::Bpf => CgroupSource::Bpf,
        CgroupSourceChoice::Files | CgroupSourceChoice::Auto => CgroupSource::Files,
    };
    Box::new(Unavailable { source, reason, why })
}

fn mount(mountinfo: &Path) -> CgroupMount {
    match std::fs::read_to_string(mountinfo) {
        Ok(text) => cgroup_mount::find(&text),
        Err(error) => {
            tracing::warn!(path = %mountinfo.display(), %error, "mounts can't be read; --cgroup-root names the tree");
            CgroupMount::Missing
        }
    }
}
