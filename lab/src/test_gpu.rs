//! `cargo xtask test-gpu`: runs the agent with this machine's NVIDIA GPUs, read only; prints and checks what it read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mcad_wire::report::{Gpu, GpuUse, Report};
use xtask::child::Child;
use xtask::{build_ebpf, facts, workspace};

use crate::spin;

/// How long the small kernel may take to run for the first time: the driver translates it, and may have to wake the
/// GPU.
const KERNEL_TIMEOUT: Duration = Duration::from_mins(1);
/// How long the load runs before the agent reads: longer than NVML's sampling period, which is at most a second.
const LOAD: Duration = Duration::from_secs(3);
/// The small kernel ends after this time if it is not killed before.
const SPIN: Duration = Duration::from_mins(2);

/// The first PID namespace of every kernel: PROC_PID_INIT_INO in include/linux/proc_ns.h.
const HOST_PIDS: &str = "pid:[4026531836]";

/// Check the agent against this machine's NVIDIA GPUs.
///
/// Changes no settings of the devices. Builds the agent, reads the GPUs with it, compares them with nvidia-smi if that
/// is installed, and reads them again while a small kernel keeps the first GPU busy. Prints whether cgroups are read by
/// eBPF on this machine. On a machine without a GPU it prints SKIPPED.
#[derive(Args)]
pub(crate) struct TestGpu {
    /// Fail if there is no NVIDIA GPU
    #[arg(long)]
    require: bool,
    /// Only run the small kernel; used by this command itself
    #[arg(long, hide = true)]
    spin: bool,
}

impl TestGpu {
    pub(crate) fn run(self) -> Result<()> {
        if self.spin {
            return spin::spin(SPIN);
        }
        let on_bus = on_bus(Path::new("/sys"));
        if on_bus.is_empty() && !has_driver(Path::new("/proc")) {
            let why = "no NVIDIA GPU on this machine's bus, and no driver loaded";
            ensure!(!self.require, "{why}");
            println!("SKIPPED: {why}");
            return Ok(());
        }
        println!("test-gpu: on the bus: {}", on_bus.iter().cloned().collect::<Vec<_>>().join(" "));
        if let Err(error) = build_ebpf::ensure() {
            println!("test-gpu: WITHOUT eBPF: {error:#}");
        }
        workspace::run(&mut workspace::cargo(&["build", "--quiet", "--locked", "-p", "mcad-agent"]))?;

        let idle = once()?;
        print(&idle);
        check_inventory(&idle, &on_bus)?;
        check_against_nvidia_smi(&idle)?;
        print_cgroups(&idle);
        check_under_load()?;
        println!("test-gpu: ok");
        Ok(())
    }
}

/// PCI addresses of NVIDIA's display controllers and accelerators.
fn on_bus(sys: &Path) -> BTreeSet<String> {
    let devices = std::fs::read_dir(sys.join("bus/pci/devices")).into_iter().flatten().flatten();
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let is_gpu = |path: &Path| {
        read(path.join("vendor")).trim() == "0x10de"
            && ["0x0300", "0x0302"].iter().any(|class| read(path.join("class")).starts_with(class))
    };
    let found = devices.filter(|device| is_gpu(&device.path()));
    found.map(|device| device.file_name().to_string_lossy().into_owned()).collect()
}

/// A container may have access to the driver but not to the bus.
fn has_driver(proc: &Path) -> bool {
    proc.join("driver/nvidia/version").exists()
}

/// Takes one sample with the agent.
fn once() -> Result<Report> {
    let mut agent = Command::new(workspace::target().join("debug/mcad-agent"));
    agent.args(["--once", "--node-name", "test-gpu", "--report-cgroups", "all"]);
    let output = agent.output().context("cannot start mcad-agent")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mcad-agent --once exited with {}:\n{said}", output.status);
    serde_json::from_slice(&output.stdout).context("the output of mcad-agent --once is not a report")
}

fn devices(report: &Report) -> &[Gpu] {
    report.gpus.as_ref().map_or(&[], |gpus| &gpus.devices)
}

/// Prints the report without the cgroups.
fn print(report: &Report) {
    let cgroups = report.cgroups.as_ref();
    let (source, count) = cgroups.map_or(("nowhere", 0), |all| (&*all.source, all.cgroups.len()));
    println!("test-gpu: {count} cgroups from {source}");
    let gpus = serde_json::to_string_pretty(&report.gpus).unwrap_or_else(|error| error.to_string());
    println!("test-gpu: GPUs: {gpus}");
}

fn check_inventory(report: &Report, on_bus: &BTreeSet<String>) -> Result<()> {
    let absent = || {
        let reasons = report.absences.iter().filter(|absence| absence.source == "gpus");
        reasons.map(|absence| absence.reason.clone()).collect::<Vec<_>>().join(", ")
    };
    let gpus = report.gpus.as_ref().with_context(|| format!("the agent has no values of GPUs: {}", absent()))?;
    ensure!(!gpus.fake, "these GPUs are fake-nvml's");
    ensure!(!gpus.devices.is_empty(), "the agent lists no GPU: {}", absent());
    for gpu in &gpus.devices {
        let uuid = &gpu.uuid;
        ensure!(uuid.starts_with("GPU-"), "{uuid:?} is not a UUID");
        ensure!(!gpu.model.is_empty(), "{uuid} has no model");
        ensure!(on_bus.is_empty() || on_bus.contains(&gpu.bus_id), "{uuid} at {:?} is not on the bus", gpu.bus_id);
        let (used, total) = (gpu.memory_used_bytes, gpu.memory_total_bytes);
        ensure!(total.is_some_and(|total| total > 0) && used <= total, "{uuid} has {used:?} of {total:?} bytes in use");
    }
    let known = gpus.devices.len() + gpus.lost_bus_ids.len();
    ensure!(known >= on_bus.len(), "{} GPUs are on the bus, but the agent knows only {known}", on_bus.len());
    println!("test-gpu: inventory: {} listed, {} lost", gpus.devices.len(), gpus.lost_bus_ids.len());
    Ok(())
}

fn check_against_nvidia_smi(report: &Report) -> Result<()> {
    if facts::on_path("nvidia-smi").is_none() {
        println!("test-gpu: WITHOUT nvidia-smi; UUIDs are not compared");
        return Ok(());
    }
    let mut smi = Command::new("nvidia-smi");
    smi.args(["--query-gpu=uuid", "--format=csv,noheader"]);
    let listed = workspace::output(&mut smi).context("nvidia-smi is installed but does not list UUIDs")?;
    let theirs: BTreeSet<&str> = listed.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let ours: BTreeSet<&str> = devices(report).iter().map(|gpu| &*gpu.uuid).collect();
    ensure!(ours == theirs, "nvidia-smi lists {theirs:?}, the agent {ours:?}");
    println!("test-gpu: the same UUIDs as nvidia-smi's");
    Ok(())
}

/// Prints the source of cgroups. It depends on the kernel and not on GPUs, so it is no reason to fail.
fn print_cgroups(report: &Report) {
    match report.cgroups.as_ref().map_or("", |cgroups| &*cgroups.source) {
        "bpf" => println!("test-gpu: cgroups are read by eBPF"),
        source => println!("test-gpu: WITHOUT eBPF on this kernel (root: {}): {source:?}", workspace::is_root()),
    }
}

/// While a small kernel runs, a GPU is busy, and its container is known. In MIG mode there may be no utilisation; then
/// a message says so.
fn check_under_load() -> Result<()> {
    let mut command = Command::new(std::env::current_exe().context("this program has no path")?);
    command.args(["test-gpu", "--spin"]);
    let mut kernel = Child::start("small-kernel", command, &workspace::target().join("test-gpu"))?;
    kernel.wait_for_line(spin::RUNNING, KERNEL_TIMEOUT)?;
    std::thread::sleep(LOAD);
    let busy = once();
    kernel.check()?;
    kernel.end();
    let busy = busy?;
    print(&busy);
    let utilization = devices(&busy).iter().filter_map(|gpu| gpu.utilization_ratio).reduce(f64::max);
    match utilization {
        Some(ratio) if ratio > 0.0 => println!("test-gpu: utilisation under load: {ratio}"),
        Some(_) => bail!("a kernel runs, and no GPU is busy"),
        None => println!("test-gpu: WITHOUT utilisation: no device reports it"),
    }
    check_processes(&busy)
}

/// The small kernel's process is identified by its cgroup, which is the same as that of this process.
fn check_processes(report: &Report) -> Result<()> {
    let instances = devices(report).iter().flat_map(|gpu| &gpu.mig_instances);
    let all = devices(report).iter().flat_map(|gpu| &gpu.uses).chain(instances.flat_map(|instance| &instance.uses));
    let users: Vec<_> = all.filter(|user| user.processes > 0).collect();
    for user in &users {
        let who = if user.pod_uid.is_empty() { "no pod" } else { &user.pod_uid };
        println!("test-gpu: {} processes of {who}, container {:?}", user.processes, user.container_id);
    }
    if std::fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace != Path::new(HOST_PIDS)) {
        println!(
            "test-gpu: WITHOUT the host's process ids, which NVML reports: the containers of processes are not checked"
        );
        return Ok(());
    }
    let own = std::fs::read_to_string("/proc/self/cgroup").context("cannot read the cgroup of this process")?;
    let is_ours = |user: &GpuUse| {
        if own.contains("kubepods") {
            !user.container_id.is_empty() && own.contains(&user.container_id)
        } else {
            user.pod_uid.is_empty()
        }
    };
    ensure!(
        users.into_iter().any(is_ours),
        "the small kernel runs in {own:?}, but no GPU has a process in that cgroup"
    );
    println!("test-gpu: the small kernel's process was found by its cgroup");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_on_the_bus_are_told_from_other_devices_of_their_maker() {
        let sys = tempfile::tempdir().unwrap();
        let device = |address: &str, vendor: &str, class: &str| {
            let folder = sys.path().join("bus/pci/devices").join(address);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("vendor"), format!("{vendor}\n")).unwrap();
            std::fs::write(folder.join("class"), format!("{class}\n")).unwrap();
        };
        assert!(on_bus(sys.path()).is_empty());
        device("0000:18:00.0", "0x10de", "0x030200");
        device("0000:19:00.0", "0x10de", "0x030000");
        // An NVSwitch, the audio device of a graphics card, and another vendor's GPU.
        device("0000:1a:00.0", "0x10de", "0x068000");
        device("0000:19:00.1", "0x10de", "0x040300");
        device("0000:00:02.0", "0x8086", "0x030000");
        assert_eq!(on_bus(sys.path()), ["0000:18:00.0", "0000:19:00.0"].map(str::to_owned).into());
    }

    #[test]
    fn a_fake_gpu_is_no_real_one() {
        let gpus = mcad_wire::report::Gpus { fake: true, ..Default::default() };
        let report = Report { gpus: Some(gpus), ..Report::default() };
        assert!(check_inventory(&report, &BTreeSet::new()).unwrap_err().to_string().contains("fake-nvml"));
        let error = check_inventory(&Report::default(), &BTreeSet::new()).unwrap_err();
        assert!(error.to_string().starts_with("the agent has no values of GPUs"), "{error}");
    }
}
