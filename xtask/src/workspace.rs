//! Paths: the workspace's root, the cache outside it, the cargo that called this program. It also runs commands.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::probe_inputs;

/// The names that replace the sources' folder and cargo's folder in compiled programs, from `probe_inputs`.
pub const REMAPPED: [&str; 2] = probe_inputs::REMAPPED;

/// The cargo profile for programs that developers build to run: it compiles quickly, and its programs are fast enough
/// (Cargo.toml).
pub const QUICK: &str = "quick";

/// The workspace's root folder.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The folder where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The path of a program or library that cargo builds with this profile.
pub fn built(profile: &str, name: &str) -> PathBuf {
    target().join(folder(profile)).join(name)
}

/// The name of the folder that cargo uses for a profile.
pub fn folder(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}

/// Every file that is part of the repository or not ignored, by its path below the root. `None` if git fails.
pub fn files() -> Option<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = output(&mut git)?;
    Some(listed.lines().filter(|path| root().join(path).is_file()).map(str::to_owned).collect())
}

/// The folder for what is built once per machine instead of once per checkout. If you delete it, it is built again.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|path| Path::new(path).is_absolute()) {
        Some(path) => PathBuf::from(path),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache")
        }
    };
    Ok(base.join("mcad-metrics"))
}

/// Flags of rustc that keep the paths of this machine out of compiled programs: they are private, and would make the
/// builds of two machines differ.
pub fn remap_flags() -> Vec<OsString> {
    // If two prefixes match, rustc uses the last.
    let folders = [Some(root().to_owned()), cargo_home()].into_iter().zip(REMAPPED);
    let flag = |(from, to): (Option<PathBuf>, &str)| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from?);
        flag.push(format!("={to}"));
        Some(flag)
    };
    folders.filter_map(flag).collect()
}

/// The folder where cargo keeps the sources of crates.
pub fn cargo_home() -> Option<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

/// The cargo of the pinned toolchain, run in the workspace's root.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Builds all libraries, programs and tests of the workspace. If the tests are built anyway, building one more program
/// this way costs little: a package that is built alone enables fewer features of its dependencies, and cargo compiles
/// most of those again.
pub fn build_all() -> Result<()> {
    run(&mut cargo(&["build", "--locked", "--workspace", "--lib", "--bins", "--tests"]))
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this is CI, where no test may be skipped unless it needs something that CI cannot have.
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Prints what was not tested. In CI this is an error.
pub fn skip(what: &str) -> Result<()> {
    println!("SKIPPED: {what}");
    anyhow::ensure!(!is_ci(), "in CI nothing may be skipped: {what}");
    Ok(())
}

/// Runs `command` until it exits. Its output goes to the output of this process.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    anyhow::ensure!(status.success(), "{} exited with {status}", line(command));
    Ok(())
}

/// The standard output of `command`. `None` if it cannot be started or fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(std::process::Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as a user would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
