//! Chooses the sources from the command line. For cgroups it determines the facts, applies the rules, and acts on the
//! plan; facts and rules are in `kernel`. How a source reads is in `source`.

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
        ReadCgroups, ReadGpus, Unavailable,
        bpf::BpfCgroups,
        cgroup::CgroupFiles,
        gpu::{self, NvmlGpus, Settings},
        pods::{PodResources, Socket},
    },
};

/// How long a driver or kubelet may take for one sample. Both respond within milliseconds, and a sample should be of
/// one instant.
const PATIENCE_AT_MOST: Duration = Duration::from_secs(2);
const PATIENCE_AT_LEAST: Duration = Duration::from_millis(500);

/// The same for the only sample of `--once`, which has to initialise NVML first: up to 6 s on a node with eight GPUs.
const PATIENCE_ONCE: Duration = Duration::from_secs(30);

/// The source of GPUs, which are NVIDIA's.
pub fn of_gpus(args: &Args) -> Box<dyn ReadGpus> {
    Box::new(NvmlGpus::new(&Settings {
        program: None,
        sandbox: args.sandbox,
        library: args.nvml.clone(),
        proc_root: args.proc_root.clone(),
        sys_root: args.sys_root.clone(),
        state_dir: args.state_dir.clone(),
        ignored_xids: args.ignore_xids.clone(),
        daemons: args.not_stray.clone(),
        deadline: patience(args),
        patience: args.nvml_patience,
        listen: gpu::LISTEN,
    }))
}

/// The source of what kubelet assigned.
pub fn of_assignments(args: &Args) -> PodResources {
    let socket = args.pod_resources.clone().map_or(Socket::Default, Socket::At);
    PodResources::new(&socket, patience(args))
}

fn patience(args: &Args) -> Duration {
    if args.once { PATIENCE_ONCE } else { (args.interval / 2).clamp(PATIENCE_AT_LEAST, PATIENCE_AT_MOST) }
}

/// The paths that sources and the sender read from.
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

/// The sources of values per cgroup, in order of preference: if one fails, the next is read.
///
/// An error if the source that the flags require cannot be used.
pub fn of_cgroups(args: &Args) -> anyhow::Result<Vec<Box<dyn ReadCgroups>>> {
    let mount = mounted(args);
    let mounted = matches!(mount, CgroupMount::At(_));
    let facts = KernelFacts::learn(&args.proc_root, &args.sys_root, probe::built_in(), mounted);
    tracing::info!(?facts, "facts about this kernel");
    let plan = facts.plan(args.cgroup_source)?;
    tracing::info!(?plan, ?mount, "plan for reading cgroups");
    let readers = match mount {
        CgroupMount::At(tree) => at(args, tree, plan)?,
        unusable => vec![unavailable(args.cgroup_source, &unusable)],
    };
    return_memory();
    Ok(readers)
}

/// Returns the memory that looking up the kernel's structures took, up to 20 MiB once. glibc would keep it otherwise.
fn return_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it accepts any number and touches only free memory.
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
            (Err(error), CgroupSourceChoice::Bpf) => return Err(error).context("--cgroup-source bpf cannot be used"),
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

/// A reader that returns the reason why nothing can be read.
fn unavailable(choice: CgroupSourceChoice, mount: &CgroupMount) -> Box<dyn ReadCgroups> {
    let (reason, why) = match mount {
        CgroupMount::OnlyV1 => {
            (Reason::CgroupV1Only, "only cgroup v1 is mounted, which has no reliable usage per pod".to_owned())
        }
        CgroupMount::OnlyPart(path) => (
            Reason::NoCgroupMount,
            format!(
                "{} is only a part of the cgroup tree; mount the host's tree and pass its path in --cgroup-root",
                path.display()
            ),
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
            tracing::warn!(path = %mountinfo.display(), %error, "mounts can't be read; pass the path of the cgroup tree in --cgroup-root");
            CgroupMount::Missing
        }
    }
}
