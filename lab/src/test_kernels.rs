//! `cargo xtask test-kernels`: runs the agent's live tests on kernels other than this machine's, each booted in QEMU.
//!
//! This file lists the kernels and what each must show; `debian_kernel` downloads them and `guest` boots them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use xtask::{build_ebpf, facts, workspace};

use crate::debian_kernel::{DebianKernel, Image};
use crate::guest::{self, Guest};

/// Boot Debian's kernels in QEMU and run the agent's kernel tests in them.
///
/// Emulated (TCG), so it needs no KVM and its timings are not meaningful. As root it installs missing packages
/// (qemu-system-x86, busybox-static). Kernels are downloaded once, to $XDG_CACHE_HOME/mcad-metrics/kernels, else
/// ~/.cache/mcad-metrics/kernels. A kernel that can't be downloaded is printed as SKIPPED; in CI that is an error.
#[derive(Args, Default)]
pub(crate) struct TestKernels {
    /// Only this kernel; may be given several times
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// Run the tests whose path contains this; may be given several times
    #[arg(long, default_values_t = TESTS.map(str::to_owned), value_name = "PATH")]
    filter: Vec<String>,
    /// Check the package mirror for newer kernels, instead of using the cache
    #[arg(long)]
    update: bool,
}

/// The tests that need a kernel, by their modules.
const TESTS: [&str; 5] = ["live_tests", "parity_tests", "removed_tests", "rights_tests", "run_queue_tests"];

/// A kernel, and the source of cgroup values that the agent must choose on it.
struct Case {
    kernel: DebianKernel,
    tier: &'static str,
}

/// The kernel before the cgroup iterator, the oldest one with it, the stable one, and the newest one. Each proves
/// something else: the first has no iterator, the second is the oldest to which the probes are attached, the third runs
/// on most nodes, and the fourth counts memory in another way.
const CASES: [Case; 4] = [
    Case {
        kernel: DebianKernel { version: "5.10", suite: "bullseye", package: "linux-image-cloud-amd64" },
        tier: "files",
    },
    Case {
        kernel: DebianKernel { version: "6.1", suite: "bookworm", package: "linux-image-cloud-amd64" },
        tier: "bpf",
    },
    Case {
        kernel: DebianKernel { version: "6.12", suite: "bookworm", package: "linux-image-6.12-cloud-amd64" },
        tier: "bpf",
    },
    // The current version; since 6.16 the kernel flushes memory separately.
    Case {
        kernel: DebianKernel { version: "newest", suite: "trixie-backports", package: "linux-image-cloud-amd64" },
        tier: "bpf",
    },
];

/// QEMU, and a static shell for the guest.
const PACKAGES: [&str; 2] = ["qemu-system-x86", "busybox-static"];

impl TestKernels {
    pub(crate) fn run(self) -> Result<()> {
        let unknown = self.kernel.iter().find(|asked| CASES.iter().all(|case| case.kernel.version != **asked));
        if let Some(unknown) = unknown {
            let known: Vec<_> = CASES.iter().map(|case| case.kernel.version).collect();
            bail!("there is no kernel {unknown}; the kernels are {}", known.join(", "));
        }
        if std::env::consts::ARCH != "x86_64" {
            return workspace::skip("kernel matrix: its kernels and QEMU are those of x86_64");
        }
        if let Err(why) = ensure_packages() {
            return workspace::skip(&format!("kernel matrix: {why:#}"));
        }
        build_ebpf::ensure()?;
        let test = build_static_test()?;
        let is_asked = |case: &&Case| self.kernel.is_empty() || self.kernel.contains(&case.kernel.version.into());
        let mut cases = Vec::new();
        for case in CASES.iter().filter(is_asked) {
            match case.kernel.ensure(self.update) {
                Ok(image) => cases.push((case, image)),
                Err(why) => workspace::skip(&format!("kernel {}: {why:#}", case.kernel.version))?,
            }
        }
        let failed = at_once(&cases, |(case, image)| self.passes(case, image, &test));
        let failed: Vec<_> = failed.into_iter().map(|(case, _)| case.kernel.version).collect();
        ensure!(failed.is_empty(), "the kernel tests failed on {}", failed.join(", "));
        Ok(())
    }

    /// Whether the tests pass on a kernel. Every line of output begins with the kernel's version.
    fn passes(&self, case: &Case, image: &Image, test: &Path) -> bool {
        let version = case.kernel.version;
        println!("test-kernels: {version} ({})", image.release);
        let started = Instant::now();
        let outcome = self.test_in_guest(version, image, test, case.tier);
        match &outcome {
            Ok(()) => {
                println!("test-kernels: {version} passed in {:.1} min", started.elapsed().as_secs_f64() / 60.0);
            }
            Err(why) => println!("test-kernels: {version} FAILED: {why:#}"),
        }
        outcome.is_ok()
    }

    fn test_in_guest(&self, version: &str, image: &Image, test: &Path, tier: &str) -> Result<()> {
        let command = format!("MCAD_EXPECTED_TIER={tier} /test --test-threads=1 --nocapture {}", self.filter.join(" "));
        let guest = Guest {
            name: version,
            kernel: &image.path,
            programs: &[("test", test)],
            ram_disk: &image.ram_disk,
            command: &command,
        };
        let output = guest.run(|line| print(version, line))?;
        let verdict = output.lines.iter().rfind(|line| line.starts_with("test result: "));
        ensure!(output.exit_code == 0, "the tests exited with code {}", output.exit_code);
        let verdict = verdict.context("the tests printed no result")?;
        ensure!(!verdict.contains(" 0 passed"), "no test was run: {verdict}");
        Ok(())
    }
}

/// Prints the relevant lines of the guest's output: results, skips, and reasons of failures.
fn print(version: &str, line: &str) {
    if !line.trim().is_empty() {
        println!("  {version}: {line}");
    }
}

/// Runs all cases, as many at a time as this machine has CPUs, because an emulated machine keeps one busy. Returns the
/// cases that failed.
fn at_once<T: Sync>(cases: &[T], passes: impl Fn(&T) -> bool + Sync) -> Vec<&T> {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (left, failed) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..cpus.min(cases.len()) {
            scope.spawn(|| {
                while let Some(case) = next(&left) {
                    if !passes(case) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(case);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The next item of a list that several threads process.
fn next<'a, T>(left: &Mutex<std::slice::Iter<'a, T>>) -> Option<&'a T> {
    left.lock().unwrap_or_else(PoisonError::into_inner).next()
}

fn ensure_packages() -> Result<()> {
    let missing = facts::packages_missing(&PACKAGES).context("this is not a Debian system")?;
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(workspace::is_root(), "packages are missing: sudo apt-get install {}", missing.join(" "));
    println!("test-kernels: $ apt-get install {}", missing.join(" "));
    workspace::run(Command::new("apt-get").args(["update", "--quiet=2"]))?;
    workspace::run(
        Command::new("apt-get")
            .args(["install", "--yes", "--quiet=2", "--no-install-recommends"])
            .args(missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// The agent's library tests as one static program.
fn build_static_test() -> Result<PathBuf> {
    println!("test-kernels: building the agent's tests as a static program");
    build_static(&["test", "--package", "mcad-agent", "--lib", "--no-run"])
}

/// Builds a static program with these cargo arguments, in a target folder of its own, because the flags differ and the
/// usual builds should be kept.
pub(crate) fn build_static(words: &[&str]) -> Result<PathBuf> {
    let output = workspace::cargo(words)
        .args(["--quiet", "--target", guest::TARGET, "--target-dir", "target/guest"])
        .args(["--message-format", "json-render-diagnostics"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=debuginfo")
        // An emulated CPU runs unoptimised code too slowly.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "the agent does not compile; the errors are above");
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    executable(&messages).context("cargo reported no program")
}

/// The image of a kernel that is tested, by its name here.
pub(crate) fn image(version: &str) -> Result<Image> {
    ensure_packages()?;
    let case = CASES.iter().find(|case| case.kernel.version == version);
    case.with_context(|| format!("there is no kernel {version}"))?.kernel.ensure(false)
}

/// The program in cargo's messages, one JSON value per line.
fn executable(messages: &str) -> Option<PathBuf> {
    let named = messages.lines().rev().find_map(|line| line.split_once("\"executable\":\""))?.1;
    // Our paths contain nothing that JSON would escape; if they did, starting the program would fail with the path.
    named.split_once('"').map(|(path, _)| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_tried_once_and_those_that_fail_are_returned() {
        let tried = Mutex::new(Vec::new());
        let failed = at_once(&[1, 2, 3, 4, 5], |case| {
            tried.lock().unwrap().push(*case);
            case % 2 == 1
        });
        let sorted = |mut cases: Vec<i32>| {
            cases.sort_unstable();
            cases
        };
        assert_eq!(sorted(tried.into_inner().unwrap()), [1, 2, 3, 4, 5]);
        assert_eq!(sorted(failed.into_iter().copied().collect()), [2, 4]);
        assert!(at_once(&[], |_: &i32| false).is_empty());
    }

    #[test]
    fn the_test_program_is_the_one_that_cargo_names() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/t/deps/agent-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some("/t/deps/agent-1".into()));
        assert_eq!(executable(r#"{"reason":"build-finished"}"#), None);
    }
}
