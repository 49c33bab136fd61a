//! `cargo xtask bench-cgroups` and `bench-switches`: what docs/benchmarks.md says of the agent, measured anew. The measuring is
//! done by the agent's examples.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use xtask::{build_ebpf, workspace};

use crate::guest::Guest;
use crate::test_kernels;

/// Measure the walk over the cgroups against reading their files.
///
/// Needs root. Here, or in an emulated guest with --kernel, where only ratios mean something.
#[derive(Args)]
pub(crate) struct BenchCgroups {
    /// In a guest with one of the kernels of test-kernels
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
}

/// Measure the program at the switch of tasks against one that returns at once. Needs root.
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
    #[expect(clippy::unused_self, reason = "as every verb")]
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
    println!("{example} on {}, emulated: only ratios mean something", image.release);
    let guest = Guest {
        name: version,
        kernel: &image.path,
        programs: &[("bench", &program)],
        ram_disk: &image.ram_disk,
        command: "/bench /sys/fs/cgroup",
    };
    let output = guest.run(|line| println!("{line}"))?;
    ensure!(output.exit_code == 0, "{example} ended with exit code {}", output.exit_code);
    Ok(())
}
