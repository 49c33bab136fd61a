//! `cargo xtask bench-cgroups` and `bench-switches`: repeat the agent's measurements of docs/benchmarks.md. The agent's
//! examples do the measuring.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use xtask::{build_ebpf, workspace};

use crate::guest::Guest;
use crate::test_kernels;

/// Compare reading cgroups by the eBPF iterator with reading their files.
///
/// Needs root. Runs on this machine, or with --kernel in an emulated guest, where only ratios are meaningful.
#[derive(Args)]
pub(crate) struct BenchCgroups {
    /// Run in a guest with one of the kernels of test-kernels
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
}

/// Measure the cost of the eBPF program at each task switch against an empty program. Needs root.
#[derive(Args)]
pub(crate) struct BenchSwitches {}

impl BenchCgroups {
    pub(crate) fn run(self) -> Result<()> {
        match self.kernel {
            None => here("bench_cgroups"),
            Some(version) => in_guest(&version, "bench_cgroups"),
        }
    }
}

impl BenchSwitches {
    #[expect(clippy::unused_self, reason = "every verb has the same method")]
    pub(crate) fn run(self) -> Result<()> {
        here("bench_switches")
    }
}

fn here(example: &str) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let tree = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let Some(tree) = tree else { bail!("no cgroup v2 tree is mounted here") };
    build_ebpf::ensure()?;
    workspace::run(&mut workspace::cargo(&[
        "run",
        "--quiet",
        "--release",
        "--package",
        "mcad-agent",
        "--example",
        example,
        "--",
        tree,
    ]))
}

fn in_guest(version: &str, example: &str) -> Result<()> {
    build_ebpf::ensure()?;
    let image = test_kernels::image(version)?;
    let program = test_kernels::build_static(&["build", "--release", "--package", "mcad-agent", "--example", example])?;
    println!("{example} on {}, emulated: only ratios are meaningful", image.release);
    let guest = Guest {
        name: version,
        kernel: &image.path,
        programs: &[("bench", &program)],
        ram_disk: &image.ram_disk,
        command: "/bench /sys/fs/cgroup",
    };
    let output = guest.run(|line| println!("{line}"))?;
    ensure!(output.exit_code == 0, "{example} exited with code {}", output.exit_code);
    Ok(())
}
