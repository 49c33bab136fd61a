//! `cargo xtask test`: installs what tests need, runs all tests, and lists what could not be tested on this machine.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::test_output::TestOutput;
use crate::{browser, build_ebpf, facts, kubernetes, lab, workspace};

/// Run all tests, after installing what they need.
///
/// Builds the eBPF programs (and installs what that needs); downloads promtool and, where possible, an API server;
/// installs a browser and axe-core for the page; and runs `cargo test` for the workspace. Tests against the real kernel
/// need root.
///
/// Then boots other kernels in QEMU and runs the agent's kernel tests in them, as `cargo xtask test-kernels` does. With
/// arguments, only the tests that they name are run, and no kernels are booted.
///
/// A test that can't run here prints `SKIPPED: ` and the reason. Skipped tests are listed and counted at the end, and
/// do not count as passed. With CI=true, every skip is an error unless its reason is that there is no GPU.
#[derive(Args, Default)]
pub(crate) struct Test {
    /// Skip the kernels in QEMU, which take some minutes; refused if CI=true
    #[arg(long)]
    without_kernels: bool,
    /// Passed to `cargo test` instead of --workspace: `cargo xtask test -p mcad-agent NAME`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

impl Test {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(
            !self.without_kernels || !workspace::is_ci(),
            "--without-kernels is not allowed in CI, which must test everything"
        );
        if let Err(error) = build_ebpf::ensure() {
            ensure!(!workspace::is_ci(), "{error:#}");
            println!("test: WITHOUT eBPF; tests that need it are skipped: {error:#}");
        }
        let mut command = workspace::cargo(&["test", "--locked", "--no-fail-fast"]);
        if self.arguments.is_empty() {
            command.arg("--workspace");
        }
        command.args(&self.arguments).args(["--", "--show-output"]);
        if let Some(path) = path_with_promtool()? {
            command.env("PATH", path);
        }
        browser::ensure_or_say();
        if let Some(folder) = kubernetes::assets()? {
            command.env(kubernetes::ASSETS, folder);
        }

        let mut tests = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
        let mut output = TestOutput::default();
        for line in BufReader::new(tests.stdout.take().context("cargo has no standard output")?).split(b'\n') {
            let line = line.context("cannot read what cargo prints")?;
            let line = String::from_utf8_lossy(&line);
            if output.take(&line) {
                println!("{line}");
            }
        }
        let status = tests.wait()?;
        let kernels = if status.success() { self.kernels() } else { Ok(()) };

        for skip in output.skips() {
            println!("skipped {}: {}", skip.test, skip.reasons.join("; "));
        }
        // The usual format of test output, on a line of its own.
        println!("{}", output.summary());
        ensure!(status.success(), "tests failed or did not compile; see above");
        kernels?;
        ensure!(!output.is_empty() || !workspace::is_ci(), "no test ran");
        if workspace::is_ci() && output.skips().iter().any(|skip| !skip.is_for_want_of_a_gpu()) {
            bail!("in CI only tests that need a GPU may be skipped; a test above was skipped for another reason");
        }
        Ok(())
    }

    /// Runs the kernel tests on other kernels. They run last: what fails on this machine's kernel fails on the others
    /// too, and takes longer there.
    fn kernels(&self) -> Result<()> {
        if !self.arguments.is_empty() {
            return Ok(());
        }
        if self.without_kernels {
            return workspace::skip("kernels in QEMU: --without-kernels");
        }
        lab::run("test-kernels", &[])
    }
}

/// The search path with promtool on it. `None` if the path needs no change, or promtool is not available.
///
/// Debian's package is unpacked into the cache and not installed: installing it would start a server.
pub fn path_with_promtool() -> Result<Option<OsString>> {
    if facts::on_path("promtool").is_some() {
        return Ok(None);
    }
    let folder = workspace::cache()?.join("prometheus");
    let bin = folder.join("usr/bin");
    if !bin.join("promtool").is_file() {
        println!("test: downloading promtool, from Debian's package prometheus, to {}", folder.display());
        if let Err(error) = unpack("prometheus", &folder) {
            println!("test: WITHOUT promtool; tests that need it are skipped: {error:#}");
            return Ok(None);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([bin]);
    Ok(Some(std::env::join_paths(folders)?))
}

/// Downloads a Debian package and unpacks it into `folder`.
fn unpack(package: &str, folder: &PathBuf) -> Result<()> {
    facts::on_path("apt-get").context("there is no apt-get on this machine; put promtool on the path")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let download = || {
        // Download as this user: apt's own user can't write into the cache.
        let words = ["download", "--quiet=2", "--option=APT::Sandbox::User=", package];
        workspace::run(Command::new("apt-get").args(words).current_dir(folder))
    };
    if let Err(error) = download() {
        ensure!(workspace::is_root(), "{error:#}; as root, `apt-get update` may help");
        workspace::run(Command::new("apt-get").args(["update", "--quiet=2"]))?;
        download()?;
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            workspace::run(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(folder))?;
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
