//! `cargo xtask e2e`: installs the images with `kubectl apply -k` on a real node and checks them with a real
//! Prometheus. This file checks the requirements, and starts and ends the node; [`inside`] runs on the node.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process_group};
use xtask::interrupts::Interrupts;
use xtask::{facts, kubernetes, test, workspace};

mod inside;

mod base;
mod network;
mod node;
mod wait;

mod api_server;
mod kubectl;
mod prometheus;

mod amounts;
mod audit;
mod chain;
mod disturbances;
mod existing;
mod install;
mod rights;
mod workload;

/// Install mcad-metrics on a real Kubernetes node and check it through a real Prometheus.
///
/// Starts a Kubernetes node on this machine in namespaces of its own (with a kit beside the checkout, ../shared/kube).
/// Applies deploy/base with the images. Runs pods that use CPU time and hold fake GPUs, which fake-nvml and a device
/// plugin provide. Then queries Prometheus for all metrics, checks the agent's rights, and compares the aggregator's
/// requests to the API server with its rights. After that it breaks things one after another and checks which alerts
/// fire. Nothing remains except logs, in target/e2e.
///
/// Needs root, kubectl and a C compiler. Without the kit it prints SKIPPED.
///
/// With --context it installs on an existing cluster instead, and only if nothing of the installation exists there. It
/// applies, compares the metrics of sections A to C and G with kubectl's output, checks the admitted rights, applies
/// again, deletes, and checks that nothing is left. It breaks nothing, runs no workload of its own, and prints what it
/// leaves out for that reason. It can't load images on the nodes: name images that they can pull (--image-agent,
/// --image-aggregator), or load them yourself.
#[derive(Args, Default)]
pub(crate) struct E2e {
    /// Image archives written by `cargo xtask image`, instead of building new ones
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Folder of the kit
    #[arg(long, value_name = "DIR")]
    kit: Option<PathBuf>,
    /// Use fake-nvml and fake-kubelet as they were built before
    #[arg(long, conflicts_with = "context")]
    no_build: bool,
    /// Use an existing cluster, by its kubectl context; without a name the current one
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["images", "kit"])]
    context: Option<String>,
    /// The kustomization to install there; deploy/base by default
    #[arg(long, value_name = "DIR", requires = "context")]
    overlay: Option<PathBuf>,
    /// The agent's image there, if not the overlay's
    #[arg(long, value_name = "REFERENCE", requires = "context")]
    image_agent: Option<String>,
    /// The aggregator's image there, if not the overlay's
    #[arg(long, value_name = "REFERENCE", requires = "context")]
    image_aggregator: Option<String>,
    /// Run on the node, with this work folder; used by this command itself
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

impl E2e {
    pub(crate) fn run(self) -> Result<()> {
        if let Some(work) = &self.inside {
            return inside::run(work);
        }
        if self.context.is_some() {
            return self.on_existing();
        }
        let scripts = self.kit.clone().unwrap_or_else(|| workspace::root().join(kubernetes::KIT));
        if !scripts.join("cluster.sh").is_file() {
            ensure!(self.kit.is_none(), "{} has no cluster.sh", scripts.display());
            let missing = format!("no Kubernetes node can be started: there is no kit at {}", scripts.display());
            ensure!(!workspace::is_ci(), "{missing}; in CI only tests of GPU hardware may be skipped");
            println!("SKIPPED: {missing}");
            return Ok(());
        }
        ensure!(workspace::is_root(), "a node needs namespaces, mounts and cgroups: run this as root");
        for (program, package) in [("kubectl", "kubernetes-client"), ("gcc", "gcc"), ("python3", "python3")] {
            ensure!(facts::on_path(program).is_some(), "there is no {program} on the path; Debian has it in {package}");
        }
        let work = empty(workspace::target().join("e2e"))?;
        let kit = kubernetes::kit(&scripts)?;
        let images = self.images(&scripts, &work)?;
        if !self.no_build {
            let words = ["build", "--quiet", "--locked", "-p", "fake-nvml", "-p", "fake-kubelet"];
            workspace::run(&mut workspace::cargo(&words))?;
        }
        start_node(&scripts, &kit, &work, &images)
    }

    /// Runs on an existing cluster.
    fn on_existing(self) -> Result<()> {
        ensure!(facts::on_path("kubectl").is_some(), "there is no kubectl on the path");
        let context = match self.context.filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => kubectl::kubectl(&["config", "current-context"])?.trim().to_owned(),
        };
        let overlay = self.overlay.unwrap_or_else(|| workspace::root().join("deploy/base"));
        let images = [self.image_agent, self.image_aggregator];
        let existing =
            existing::Existing::as_shipped(context, overlay, images, empty(workspace::target().join("e2e-existing"))?);
        // An interrupt ends all waiting, and removes what was installed.
        let _interrupts = Interrupts::take_over()?;
        println!("e2e: on the existing cluster {}", existing.context);
        let started = std::time::Instant::now();
        existing::run(&existing, &mut |what| println!("e2e: [{:>3} s] {what}", started.elapsed().as_secs()))?;
        println!("e2e: ok");
        Ok(())
    }

    /// The archives of all images.
    fn images(&self, scripts: &Path, work: &Path) -> Result<Vec<PathBuf>> {
        let folder = if let Some(folder) = &self.images {
            folder.clone()
        } else {
            let folder = workspace::target().join("images");
            println!("e2e: building images (some minutes the first time)");
            let this = std::env::current_exe().context("this program has no path")?;
            workspace::run(Command::new(this).arg("image").arg("--out").arg(&folder).current_dir(workspace::root()))?;
            folder
        };
        let mut images: Vec<_> = ["agent", "aggregator"].map(|name| folder.join(format!("mcad-{name}.tar"))).into();
        images.push(burn_image(scripts, work)?);
        for image in &images {
            ensure!(image.is_file(), "there is no image archive {}", image.display());
        }
        Ok(images)
    }
}

/// An empty folder.
fn empty(folder: PathBuf) -> Result<PathBuf> {
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// A static program in an image of its own.
fn burn_image(scripts: &Path, work: &Path) -> Result<PathBuf> {
    let (binary, archive) = (work.join("burn"), work.join("burn.tar"));
    let mut compile = Command::new("rustc");
    compile.args(["--edition=2024", "--crate-type=bin", "-O", "-C", "target-feature=+crt-static", "-o"]);
    workspace::run(compile.arg(&binary).arg("lab/e2e/burn.rs").current_dir(workspace::root()))?;
    workspace::run(
        Command::new("python3").arg(scripts.join("image.py")).arg(workload::BURN).args([&binary, &archive]),
    )?;
    Ok(archive)
}

/// Runs this program on a node, until it exits.
fn start_node(scripts: &Path, kit: &Path, work: &Path, images: &[PathBuf]) -> Result<()> {
    let this = std::env::current_exe().context("this program has no path")?;
    let mut command = Command::new(scripts.join("cluster.sh"));
    command.arg(kit).arg(work.join("node")).args(images).arg("--").arg(this).args(["e2e", "--inside"]).arg(work);
    if let Some(path) = test::path_with_promtool()? {
        command.env("PATH", path);
    }
    // A process group of its own, so that only this process passes Ctrl-C on, and also a SIGTERM.
    command.process_group(0);
    println!("e2e: starting a node (about 16 s)");
    let interrupts = Interrupts::take_over()?;
    let mut child = command.spawn().with_context(|| format!("cannot start {}", scripts.display()))?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for the node")? {
            break status;
        }
        if interrupts.within(wait::PAUSE)
            && let Some(group) = group
        {
            println!("e2e: interrupted; the node ends");
            let _gone = kill_process_group(group, Signal::INT);
        }
    };
    // Removes gigabytes of layers; logs are kept.
    for folder in ["lib", "log", "containerd", "kubelet", "etcd"] {
        let _absent = std::fs::remove_dir_all(work.join("node").join(folder));
    }
    ensure!(status.success(), "e2e exited with {status}; logs are in {}", work.display());
    println!("e2e: ok");
    Ok(())
}
