//! The program of an image: how cargo builds it, and the checks of the result.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use xtask::workspace;
use xtask::workspace::REMAPPED;

use super::elf::Elf;
use super::recipe::{Program, Sources};

/// A program that may go into an image.
pub(crate) struct Binary {
    pub(crate) bytes: Vec<u8>,
    pub(crate) elf: Elf,
}

/// Builds a program with a cargo profile, and checks the result.
pub(crate) fn build(program: Program, profile: &str, sources: &Sources) -> Result<Binary> {
    let target = workspace::target().join("image");
    workspace::run(&mut command(program, profile, &target, &sources.revision))
        .with_context(|| format!("{} does not compile; the errors are above", program.name()))?;
    refuse_test_crates(program)?;
    let path = target.join(triple()).join(workspace::folder(profile)).join(program.name());
    read(program, &path, sources).with_context(|| format!("{} cannot be used in an image", path.display()))
}

/// The target of the image's program: this machine's architecture, and glibc.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Built in a folder separate from a developer's builds, because its flags differ. With an explicit target, so that the
/// flags do not apply to macros and build scripts, which both programs then share.
fn command(program: Program, profile: &str, target: &Path, revision: &str) -> Command {
    let mut command = workspace::cargo(&["build", "--locked", "--profile", profile, "--target", &triple()]);
    command.args(["--package", program.name(), "--bin", program.name(), "--target-dir"]).arg(target);
    // Cargo's spelling of a profile in the name of a variable.
    let variable = profile.to_uppercase().replace('-', "_");
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags(program))
        // Names of functions are kept for backtraces; files and lines of other machines are removed.
        .env(format!("CARGO_PROFILE_{variable}_STRIP"), "debuginfo")
        .env("MCAD_REVISION", revision);
    command
}

/// Cargo's home and the folder of the sources must not occur in the program; neither must cargo's target folder, which
/// is in the sources.
fn flags(program: Program) -> OsString {
    let mut flags = workspace::remap_flags();
    if program == Program::Aggregator {
        flags.push("-Ctarget-feature=+crt-static".into());
    }
    flags.join(OsStr::new("\x1f"))
}

/// Refuses crates that replace hardware in tests: no installed program may contain them.
fn refuse_test_crates(program: Program) -> Result<()> {
    let words = ["tree", "--locked", "--edges", "normal", "--prefix", "none", "--package", program.name()];
    let tree = workspace::output(&mut workspace::cargo(&words)).context("`cargo tree` failed")?;
    for test_crate in ["fake-nvml", "fake-kubelet"] {
        ensure!(
            !tree.lines().any(|line| line.split(' ').next() == Some(test_crate)),
            "{} depends on {test_crate}, which is for tests: move it to [dev-dependencies]",
            program.name()
        );
    }
    Ok(())
}

/// Reads a program and checks it.
fn read(program: Program, path: &Path, sources: &Sources) -> Result<Binary> {
    let bytes = std::fs::read(path).context("the program can't be read")?;
    let elf = Elf::read(&bytes)?;
    check_kind(program, &elf)?;
    if let Some(folder) =
        named(&bytes, &folders(workspace::root(), &workspace::target(), workspace::cargo_home().as_deref()))
    {
        bail!(
            "it contains {folder}, a folder of this machine, so builds on other machines would differ; see --remap-path-prefix"
        );
    }
    let said = workspace::output(Command::new(path).arg("--version")).context("`--version` fails")?;
    check_version(program, said.trim(), sources)?;
    Ok(Binary { bytes, elf })
}

/// Texts that occur in a program which contains folders of the machine that built it: the folders of our sources, of
/// crates, and of what build scripts write. With some of their subfolders, because a folder's name alone may be so
/// short that it occurs in any program.
fn folders(root: &Path, target: &Path, cargo_home: Option<&Path>) -> Vec<String> {
    let below = |folder: &Path, names: &[&str]| {
        // A folder whose name equals its replacement can't be distinguished from it, and reveals nothing.
        let names = if REMAPPED.iter().any(|name| folder == Path::new(name)) { &[] } else { names };
        names.iter().map(|name| folder.join(name).display().to_string()).collect::<Vec<_>>()
    };
    let sources = below(
        root,
        &[
            "agent/src",
            "agent-ebpf/src",
            "aggregator/src",
            "aggregator/accounting/src",
            "aggregator/present/src",
            "wire/src",
        ],
    );
    let crates = cargo_home.map(|home| below(home, &["registry/src"])).unwrap_or_default();
    [sources, crates, below(target, &["image/"])].concat()
}

/// The first of these texts that occurs in it.
fn named<'a>(bytes: &[u8], folders: &'a [String]) -> Option<&'a str> {
    let text = String::from_utf8_lossy(bytes);
    folders.iter().find(|folder| text.contains(folder.as_str())).map(String::as_str)
}

fn check_kind(program: Program, elf: &Elf) -> Result<()> {
    if let Some(function) = &elf.nvml_function {
        bail!("it defines {function}, so it contains fake-nvml, whose GPUs do not exist; build it without fake-nvml");
    }
    match (program, &elf.interpreter) {
        (Program::Agent, None) => {
            bail!("it is linked statically and can't open the driver's libnvidia-ml.so.1; build it without crt-static")
        }
        (Program::Aggregator, Some(loader)) => {
            bail!("it needs {loader}, but its image has no libraries; build it with crt-static")
        }
        (Program::Aggregator, None) => {
            ensure!(elf.needed.is_empty(), "it needs {}, but its image has no libraries", elf.needed.join(", "));
        }
        (Program::Agent, Some(_)) => {}
    }
    Ok(())
}

/// Checks the version line, which `version::text` of either program prints.
fn check_version(program: Program, said: &str, Sources { version, revision, .. }: &Sources) -> Result<()> {
    let expected = format!("{} {version} ({revision}", program.name());
    ensure!(
        said.starts_with(&expected),
        "it prints {said:?} instead of {expected:?}, so it is an old one; build it again"
    );
    if program == Program::Agent {
        ensure!(
            said.ends_with(", probes embedded)"),
            "it contains no probes, which the agent of an image needs: `cargo xtask build-ebpf` builds them, and \
             MCAD_PROBES must not name another object"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        Sources { version: "1.2.3".to_owned(), revision: "0123456789ab".to_owned(), written_s: 0 }
    }

    fn refusal(result: Result<()>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn an_agent_without_probes_is_refused_with_what_to_do() {
        let check = |said: &str| check_version(Program::Agent, said, &sources());
        check("mcad-agent 1.2.3 (0123456789ab, probes embedded)").unwrap();
        assert!(refusal(check("mcad-agent 1.2.3 (0123456789ab, no probes)")).contains("cargo xtask build-ebpf"));
    }

    #[test]
    fn a_program_of_another_commit_is_refused() {
        let check = |said: &str| check_version(Program::Aggregator, said, &sources());
        check("mcad-aggregator 1.2.3 (0123456789ab)").unwrap();
        for said in ["mcad-aggregator 1.2.2 (0123456789ab)", "mcad-aggregator 1.2.3 (unknown)", "mcad-agent 1.2.3"] {
            assert!(refusal(check(said)).contains("build it again"), "{said}");
        }
    }

    #[test]
    fn fake_nvml_is_refused_in_either() {
        let library = fake_nvml::Installation::built_for_this_test().unwrap();
        let elf = Elf::read(&std::fs::read(library).unwrap()).unwrap();
        for program in [Program::Agent, Program::Aggregator] {
            assert!(refusal(check_kind(program, &elf)).contains("it contains fake-nvml"));
            refuse_test_crates(program).unwrap();
        }
    }

    #[test]
    fn a_program_that_names_a_folder_of_this_machine_is_refused() {
        let folders = folders(Path::new("/s"), Path::new("/elsewhere/t"), Some(Path::new("/h/.cargo")));
        let found = |text: &str| named(text.as_bytes(), &folders).map(str::to_owned);
        assert_eq!(found("panicked at /s/aggregator/src/main.rs").as_deref(), Some("/s/aggregator/src"));
        assert_eq!(found("x/h/.cargo/registry/src/index-1/tokio").as_deref(), Some("/h/.cargo/registry/src"));
        let written = "/elsewhere/t/image/x86_64/release/build/x/out/y.rs";
        assert_eq!(found(written).as_deref(), Some("/elsewhere/t/image/"));
        assert_eq!(found("/mcad-metrics/agent/src/main.rs, /cargo/registry/src/index-1/tokio, x/s/agent"), None);
        // The folders by their replaced names.
        let [root, home] = REMAPPED.map(Path::new);
        let text = format!("{}/wire/src {}/registry/src", root.display(), home.display());
        assert_eq!(named(text.as_bytes(), &super::folders(root, Path::new("/t"), Some(home))), None);
    }

    #[test]
    fn the_agent_has_a_loader_and_the_aggregator_needs_none() {
        let dynamic = Elf { interpreter: Some("/lib64/ld.so".to_owned()), ..Elf::default() };
        check_kind(Program::Agent, &dynamic).unwrap();
        check_kind(Program::Aggregator, &Elf::default()).unwrap();
        assert!(refusal(check_kind(Program::Agent, &Elf::default())).contains("statically"));
        assert!(refusal(check_kind(Program::Aggregator, &dynamic)).contains("crt-static"));
        let shared = Elf { needed: vec!["libc.so.6".to_owned()], ..Elf::default() };
        assert!(refusal(check_kind(Program::Aggregator, &shared)).contains("libc.so.6"));
    }

    #[test]
    fn a_program_is_built_apart_from_a_developers_and_names_no_folder_of_this_machine() {
        let command = command(Program::Aggregator, "release", Path::new("/t"), "0123456789ab");
        let value = |name: &str| {
            let mut found = command.get_envs().filter(|(other, _)| *other == name);
            found.next().and_then(|(_, value)| value).map(|value| value.to_string_lossy().into_owned())
        };
        let flags = value("CARGO_ENCODED_RUSTFLAGS").unwrap();
        let root = format!("--remap-path-prefix={}=/mcad-metrics", workspace::root().display());
        assert!(flags.split('\x1f').any(|flag| flag == root), "{flags}");
        assert!(flags.ends_with("+crt-static"));
        assert_eq!(value("MCAD_REVISION").unwrap(), "0123456789ab");
        assert_eq!(value("CARGO_PROFILE_RELEASE_STRIP").unwrap(), "debuginfo");
    }
}
