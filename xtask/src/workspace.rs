//! Where things are: the workspace's root, the cache outside it, the cargo that called us. It runs nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::probe_inputs;

/// As `probe_inputs` has it: what the sources' folder and cargo's are called in programs.
pub const REMAPPED: [&str; 2] = probe_inputs::REMAPPED;

/// The profile of cargo by which people are to build what they run: soon done, and fast enough (Cargo.toml).
pub const QUICK: &str = "quick";

/// The workspace's root folder.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where cargo puts a program or a library that it builds by this profile.
pub fn built(profile: &str, name: &str) -> PathBuf {
    target().join(folder(profile)).join(name)
}

/// What cargo calls the folder of a profile.
pub fn folder(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}

/// Every file that is part of the repository or about to be, by its path below the root. `None` where git does not know.
pub fn files() -> Option<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = output(&mut git)?;
    Some(listed.lines().filter(|path| root().join(path).is_file()).map(str::to_owned).collect())
}

/// The folder for what is built once a machine and not once a checkout. Deleting it costs time and nothing else.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|path| Path::new(path).is_absolute()) {
        Some(path) => PathBuf::from(path),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache")
        }
    };
    Ok(base.join("mcad-metrics"))
}

/// Flags of rustc that keep this machine's folders out of what it compiles: where the sources lie is nobody's business, and would make
/// of every machine's build another one.
pub fn remap_flags() -> Vec<OsString> {
    // Of two that fit, rustc takes the last.
    let folders = [Some(root().to_owned()), cargo_home()].into_iter().zip(REMAPPED);
    let flag = |(from, to): (Option<PathBuf>, &str)| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from?);
        flag.push(format!("={to}"));
        Some(flag)
    };
    folders.filter_map(flag).collect()
}

/// Where cargo keeps the sources of crates.
pub fn cargo_home() -> Option<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

/// The cargo of the pinned toolchain, in the workspace's root.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Builds all libraries, programs and tests of the workspace. Where the tests are built in any case, what is built by this for something
/// else costs little: by itself, a package asks for fewer features of its dependencies, and cargo compiles most of those once more.
pub fn build_all() -> Result<()> {
    run(&mut cargo(&["build", "--locked", "--workspace", "--lib", "--bins", "--tests"]))
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this is CI, where nothing that can be had may be skipped.
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Says what was not tested. In CI nothing may go untested.
pub fn skip(what: &str) -> Result<()> {
    println!("SKIPPED: {what}");
    anyhow::ensure!(!is_ci(), "in CI nothing may be skipped: {what}");
    Ok(())
}

/// Runs `command` to its end, its output going where ours goes.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    anyhow::ensure!(status.success(), "{} ended with {status}", line(command));
    Ok(())
}

/// What `command` writes to standard output, if it starts and succeeds.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(std::process::Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
