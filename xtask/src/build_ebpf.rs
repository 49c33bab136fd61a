//! `cargo xtask build-ebpf`: compiles `agent-ebpf` for the kernel and puts the object where `agent/build.rs` looks for
//! it.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::plan::{Toolchain, Way};
use crate::progress::Steps;
use crate::{object, probe_inputs, setup, workspace};

const TARGET: &str = "bpfel-unknown-none";

/// Build the eBPF programs of the agent, with BTF, and list the programs and maps.
///
/// The object is written to target/bpf/probes-HASH.o. HASH covers everything that the object is built from, so an
/// existing object with that hash is up to date, and an object built from other sources is never used. `cargo build`
/// then embeds it in mcad-agent. Runs `setup` first.
#[derive(Args, Default)]
pub(crate) struct BuildEbpf {
    /// Build even if an object of the current sources exists
    #[arg(long)]
    force: bool,
}

impl BuildEbpf {
    pub(crate) fn run(self) -> Result<()> {
        let object =
            probe_inputs::object_path(workspace::root()).context("cannot read the sources of the eBPF programs")?;
        if object.exists() && !self.force {
            println!("build-ebpf: up to date; --force builds it again");
        } else {
            let toolchain = setup::ensure()?;
            build(&toolchain, &object)?;
        }
        let shown = object.strip_prefix(workspace::root()).unwrap_or(&object);
        println!("{}", shown.display());
        print!("{}", describe(&object)?);
        Ok(())
    }
}

/// Builds the object of the current sources if it does not exist. Prints something only in that case.
pub fn ensure() -> Result<()> {
    ensure_with(&mut Steps::new("build-ebpf", STEPS))
}

/// How many steps [`ensure_with`] takes.
pub(crate) const STEPS: usize = 2;

/// Like [`ensure`], as part of a verb with more steps. If the object exists, it completes both steps at once and prints
/// nothing.
pub(crate) fn ensure_with(steps: &mut Steps) -> Result<()> {
    let object =
        probe_inputs::object_path(workspace::root()).context("cannot read the sources of the eBPF programs")?;
    if object.exists() {
        steps.skip(STEPS);
        return Ok(());
    }
    let toolchain = steps.step("finding or installing what the eBPF build needs", setup::TAKES, setup::ensure);
    if toolchain.is_err() {
        steps.skip(STEPS - 1);
    }
    let toolchain = toolchain?;
    steps.step("compiling the eBPF programs of the agent", TAKES, || build(&toolchain, &object))
}

/// How long it takes to build the eBPF programs on two cores.
const TAKES: &str = "half a minute the first time";

fn describe(object: &Path) -> Result<String> {
    let bytes = std::fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    object::describe(&bytes).with_context(|| format!("{} cannot be used", object.display()))
}

fn build(toolchain: &Toolchain, object: &Path) -> Result<()> {
    println!("build-ebpf: compiling the eBPF programs with {} ({TAKES})", toolchain.way);
    let started = Instant::now();
    let target = workspace::root().join("target/bpf-build");
    workspace::run(&mut command(toolchain, &target))
        .context("the eBPF programs do not compile; the errors are above")?;

    let built = target.join(TARGET).join("release/agent-ebpf");
    describe(&built)?;
    std::fs::create_dir_all(probe_inputs::folder(workspace::root()))?;
    // Renamed into place, so that a build of the agent that runs at the same time sees either the complete object or
    // none.
    let half = object.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::copy(&built, &half).with_context(|| format!("cannot copy {} to {}", built.display(), half.display()))?;
    std::fs::rename(&half, object)
        .with_context(|| format!("cannot rename {} to {}", half.display(), object.display()))?;
    println!("build-ebpf: done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Calls the toolchain's own cargo and rustc by their paths: rustup's shims would choose the toolchain of
/// rust-toolchain.toml.
fn command(toolchain: &Toolchain, target_dir: &Path) -> Command {
    let mut command = Command::new(&toolchain.cargo);
    command.current_dir(workspace::root());
    for (name, _) in std::env::vars_os() {
        if is_foreign(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    let flags: Vec<OsString> =
        probe_inputs::RUSTFLAGS.iter().map(OsString::from).chain(workspace::remap_flags()).collect();
    command
        .args(["build", "--package", "agent-ebpf", "--bin", "agent-ebpf", "--release", "--locked", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .env("RUSTC", &toolchain.rustc.path)
        // With `--target`, these flags apply to the target alone; macros and build scripts are compiled for the host
        // without them.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\x1f")))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker.path)
        // bpf-linker optimises across crates itself, and needs every crate as bitcode.
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "full")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none");
    match toolchain.way {
        // Debian packages a prebuilt `core`, but the attributes of this target are unstable.
        Way::Debian => {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        Way::Rustup => {
            command.args(["-Z", "build-std=core"]);
            // The linker loads rustc's LLVM from this folder.
            if let Some(library) = toolchain.rustc.path.ancestors().nth(2).map(|sysroot| sysroot.join("lib")) {
                command.env("LD_LIBRARY_PATH", library);
            }
        }
    }
    command
}

/// Whether the calling cargo or rustup sets this variable for its own toolchain, or a user sets it for the host's
/// build. Variables that configure access to registries are kept.
fn is_foreign(variable: &str) -> bool {
    let named = ["CARGO", "LD_LIBRARY_PATH", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"];
    let prefixes = [
        "CARGO_BUILD_",
        "CARGO_ENCODED_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "RUSTC",
        "RUSTDOC",
    ];
    named.contains(&variable) || prefixes.iter().any(|prefix| variable.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Linker, Llvm, Rustc};

    fn environment(way: Way) -> Vec<(String, Option<String>)> {
        let toolchain = Toolchain {
            way,
            cargo: "/t/bin/cargo".into(),
            rustc: Rustc { path: "/t/bin/rustc".into(), llvm: Llvm { major: 22, minor: 1 } },
            linker: Linker { path: "/c/bpf-linker".into(), llvm: None },
        };
        let command = command(&toolchain, Path::new("/target"));
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        command.get_envs().map(|(name, value)| (text(name), value.map(text))).collect()
    }

    fn value(environment: &[(String, Option<String>)], name: &str) -> Option<String> {
        environment.iter().find(|(other, _)| other == name).and_then(|(_, value)| value.clone())
    }

    #[test]
    fn flags_for_the_kernel_do_not_reach_the_hosts_macros() {
        let environment = environment(Way::Debian);
        // The encoded flags apply to the named target only, and replace all others.
        assert!(value(&environment, "CARGO_ENCODED_RUSTFLAGS").unwrap().contains("--btf"));
        for other in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
            assert_eq!(value(&environment, other), None);
        }
    }

    #[test]
    fn the_toolchain_that_called_us_does_not_leak_in() {
        // `cargo test` sets CARGO and CARGO_MANIFEST_DIR. Both must be removed, or Debian's cargo would call rustup's.
        let environment = environment(Way::Debian);
        assert!(environment.contains(&("CARGO_MANIFEST_DIR".to_owned(), None)));
        assert_eq!(value(&environment, "RUSTC").unwrap(), "/t/bin/rustc");
        assert!(!is_foreign("CARGO_HOME") && !is_foreign("CARGO_HTTP_PROXY") && !is_foreign("PATH"));
    }

    #[test]
    fn only_debians_stable_compiler_needs_the_bootstrap_variable() {
        assert_eq!(value(&environment(Way::Debian), "RUSTC_BOOTSTRAP").unwrap(), "1");
        assert_eq!(value(&environment(Way::Rustup), "RUSTC_BOOTSTRAP"), None);
        assert_eq!(value(&environment(Way::Rustup), "LD_LIBRARY_PATH").unwrap(), "/t/lib");
    }
}
