//! `cargo xtask build-ebpf`: compiles `agent-ebpf` for the kernel, to where `agent/build.rs` looks for it.

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

/// Build the kernel half of the agent, with BTF, and list its programs and maps.
///
/// The object goes to target/bpf/probes-HASH.o, where HASH is made of all it is built from: an object that is there is up to
/// date, and one for other sources is never used. `cargo build` then embeds it in mcad-agent. Runs `setup` first.
#[derive(Args, Default)]
pub(crate) struct BuildEbpf {
    /// Build although an object of the present sources is there
    #[arg(long)]
    force: bool,
}

impl BuildEbpf {
    pub(crate) fn run(self) -> Result<()> {
        let object =
            probe_inputs::object_path(workspace::root()).context("cannot read the sources of the kernel half")?;
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

/// Builds the object of the present sources if it isn't there, and says so only then.
pub fn ensure() -> Result<()> {
    ensure_with(&mut Steps::new("build-ebpf", STEPS))
}

/// How many steps [`ensure_with`] takes.
pub(crate) const STEPS: usize = 2;

/// The same as part of a verb that takes more steps. Where the object is there, it takes both steps at once and prints nothing.
pub(crate) fn ensure_with(steps: &mut Steps) -> Result<()> {
    let object = probe_inputs::object_path(workspace::root()).context("cannot read the sources of the kernel half")?;
    if object.exists() {
        steps.skip(STEPS);
        return Ok(());
    }
    let toolchain = steps.step("finding or installing what the eBPF build needs", setup::TAKES, setup::ensure);
    if toolchain.is_err() {
        steps.skip(STEPS - 1);
    }
    let toolchain = toolchain?;
    steps.step("compiling the kernel half of the agent", TAKES, || build(&toolchain, &object))
}

/// How long the kernel half takes on two cores.
const TAKES: &str = "half a minute when new";

fn describe(object: &Path) -> Result<String> {
    let bytes = std::fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    object::describe(&bytes).with_context(|| format!("{} is of no use", object.display()))
}

fn build(toolchain: &Toolchain, object: &Path) -> Result<()> {
    println!("build-ebpf: compiling the kernel half by {} ({TAKES})", toolchain.way);
    let started = Instant::now();
    let target = workspace::root().join("target/bpf-build");
    workspace::run(&mut command(toolchain, &target))
        .context("the kernel half does not compile; its errors are above")?;

    let built = target.join(TARGET).join("release/agent-ebpf");
    describe(&built)?;
    std::fs::create_dir_all(probe_inputs::folder(workspace::root()))?;
    // By rename, so that a build of the agent at the same time sees the whole object or none.
    let half = object.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::copy(&built, &half).with_context(|| format!("cannot copy {} to {}", built.display(), half.display()))?;
    std::fs::rename(&half, object)
        .with_context(|| format!("cannot rename {} to {}", half.display(), object.display()))?;
    println!("build-ebpf: done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// The toolchain's own cargo and rustc by their paths: through rustup's shims, rust-toolchain.toml would choose others.
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
        // Where a target is named, these are for the target alone: macros and build scripts are the host's.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\x1f")))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker.path)
        // bpf-linker optimises across crates itself, and needs every crate as bitcode.
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "full")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none");
    match toolchain.way {
        // The packaged `core` is there, but the target's attributes are unstable.
        Way::Debian => {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        Way::Rustup => {
            command.args(["-Z", "build-std=core"]);
            // Where the linker finds the LLVM that it borrows.
            if let Some(library) = toolchain.rustc.path.ancestors().nth(2).map(|sysroot| sysroot.join("lib")) {
                command.env("LD_LIBRARY_PATH", library);
            }
        }
    }
    command
}

/// Whether a variable is one that the calling cargo or rustup sets for its own toolchain, or a person for the host's build.
/// What says how to reach registries is not.
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
        // The encoded ones are for the named target only, and take the place of all others.
        assert!(value(&environment, "CARGO_ENCODED_RUSTFLAGS").unwrap().contains("--btf"));
        for other in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
            assert_eq!(value(&environment, other), None);
        }
    }

    #[test]
    fn the_toolchain_that_called_us_does_not_leak_in() {
        // `cargo test` sets CARGO and CARGO_MANIFEST_DIR; both must be taken away, or Debian's cargo would call rustup's.
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
