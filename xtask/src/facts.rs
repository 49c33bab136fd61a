//! Inspects this machine for what the eBPF build needs. It changes nothing and decides nothing; `plan` decides.
//!
//! Everything takes a fraction of a second: it reads files and runs a few commands that only print.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use object::read::elf::{Dyn, FileHeader};

use crate::plan::{
    DEBIAN_LINKER, DebianFacts, Facts, Linker, Llvm, Nightly, PACKAGES, PINNED_NIGHTLY, RUSTUP_LINKER, Rustc,
    RustupFacts,
};
use crate::workspace::{cache, is_root, output};

/// All facts of this machine.
pub(crate) fn read() -> Result<Facts> {
    let cache = cache()?;
    Ok(Facts { root: is_root(), debian: debian(&cache), rustup: rustup(&cache) })
}

/// Which of `packages` are not installed. `None` if there is no dpkg.
pub fn packages_missing(packages: &[&'static str]) -> Option<Vec<&'static str>> {
    // It fails if one package is unknown, and still prints the others.
    let listed = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package}\\t${db:Status-Status}\\n"])
        .args(packages)
        .output()
        .ok()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let installed = |package: &str| listed.lines().any(|line| line.split_once('\t') == Some((package, "installed")));
    Some(packages.iter().copied().filter(|package| !installed(package)).collect())
}

fn debian(cache: &Path) -> Option<DebianFacts> {
    on_path("apt-get")?;
    let linker_root = cache.join(format!("bpf-linker-{DEBIAN_LINKER}"));
    Some(DebianFacts {
        packages_missing: packages_missing(&PACKAGES)?,
        rustc: packaged("rustc-web", "rustc").and_then(rustc),
        cargo: packaged("cargo-web", "cargo"),
        linker: debian_linker(&linker_root),
        linker_root,
    })
}

/// The linker in the cache, else one on the path that is linked with an LLVM of this machine's packages.
fn debian_linker(root: &Path) -> Option<Linker> {
    linker(&in_cache(root), DEBIAN_LINKER).or_else(|| {
        let on_path = linker(&on_path(LINKER)?, DEBIAN_LINKER)?;
        on_path.llvm.is_some().then_some(on_path)
    })
}

/// The program `name` that `package` installed.
fn packaged(package: &str, name: &str) -> Option<PathBuf> {
    let files = output(Command::new("dpkg").args(["--listfiles", package]).stderr(std::process::Stdio::null()))?;
    files.lines().map(PathBuf::from).find(|path| path.ends_with(Path::new("bin").join(name)) && path.is_file())
}

fn rustup(cache: &Path) -> Option<RustupFacts> {
    let list = output(Command::new("rustup").args(["toolchain", "list"]))?;
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    // `nightly-x86_64-unknown-linux-gnu` is `nightly`. Of those with a date, the pinned one is known to work.
    let nightlies = names.filter_map(|name| {
        let short = [PINNED_NIGHTLY, "nightly"].into_iter().find(|short| {
            name.strip_prefix(short)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("-x86") || rest.starts_with("-aarch"))
        })?;
        nightly(short)
    });
    let linker_root = cache.join(format!("bpf-linker-{RUSTUP_LINKER}"));
    Some(RustupFacts { nightlies: nightlies.collect(), linker: rustup_linker(&linker_root), linker_root })
}

/// The linker in the cache, else one on the path that loads the LLVM of rustc.
fn rustup_linker(root: &Path) -> Option<Linker> {
    linker(&in_cache(root), RUSTUP_LINKER).or_else(|| {
        let on_path = linker(&on_path(LINKER)?, RUSTUP_LINKER)?;
        on_path.llvm.is_none().then_some(on_path)
    })
}

fn nightly(name: &str) -> Option<Nightly> {
    let path = output(Command::new("rustup").args(["which", "rustc", "--toolchain", name]))?;
    let path = PathBuf::from(path.trim());
    let bin = path.parent()?.to_owned();
    let source = bin.parent()?.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    Some(Nightly { name: name.to_owned(), rustc: rustc(path)?, cargo: bin.join("cargo"), rust_src: source.is_file() })
}

fn rustc(path: PathBuf) -> Option<Rustc> {
    let verbose = output(Command::new(&path).arg("-vV"))?;
    let llvm = llvm_of_rustc(&verbose)?;
    Some(Rustc { path, llvm })
}

/// The name of the linker's executable.
const LINKER: &str = "bpf-linker";

/// Where `cargo install --root` puts the linker.
fn in_cache(root: &Path) -> PathBuf {
    root.join("bin").join(LINKER)
}

/// The linker at this path, if it can be started and has this version.
fn linker(path: &Path, version: &str) -> Option<Linker> {
    let printed = output(Command::new(path).arg("--version"))?;
    if printed.split_whitespace().nth(1) != Some(version) {
        return None;
    }
    let llvm = std::fs::read(path).ok().and_then(|bytes| llvm_of_linker(&bytes));
    Some(Linker { path: path.to_owned(), llvm })
}

/// Parses `LLVM version: 22.1.8` in the output of `rustc -vV`.
fn llvm_of_rustc(verbose: &str) -> Option<Llvm> {
    let version = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm(version)
}

/// The linker does not print its LLVM version, but names the library it needs: `libLLVM.so.22.1`, `libLLVM-17.so`.
fn llvm_of_linker(bytes: &[u8]) -> Option<Llvm> {
    needed_libraries(bytes).ok()?.iter().find_map(|library| llvm_of_library(library))
}

fn llvm_of_library(name: &str) -> Option<Llvm> {
    let name = name.strip_prefix("libLLVM")?;
    llvm(name.strip_prefix(".so.").or_else(|| name.strip_prefix('-'))?)
}

/// Parses `22.1.8`, `22.1`, `17.so` or `22.1-rust-1.95.0-stable`.
fn llvm(version: &str) -> Option<Llvm> {
    let mut numbers = version.split(['.', '-']);
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next().and_then(|minor| minor.parse().ok()).unwrap_or(0);
    Some(Llvm { major, minor })
}

/// The shared libraries that a 64-bit ELF file names.
fn needed_libraries(bytes: &[u8]) -> object::Result<Vec<String>> {
    let header = object::elf::FileHeader64::<object::Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let Some((dynamic, link)) = sections.dynamic(endian, bytes)? else { return Ok(Vec::new()) };
    let strings = sections.strings(endian, bytes, link)?;
    let needed = dynamic.iter().filter(|entry| entry.tag(endian) == object::elf::DT_NEEDED);
    needed.map(|entry| Ok(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned())).collect()
}

/// The program `name` on the path.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustc_tells_its_llvm() {
        let llvm = llvm_of_rustc("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n");
        assert_eq!(llvm, Some(Llvm { major: 22, minor: 1 }));
        assert_eq!(llvm_of_rustc("rustc 1.96.0\n"), None);
    }

    #[test]
    fn the_linkers_llvm_is_in_the_name_of_the_library_it_needs() {
        assert_eq!(llvm_of_library("libLLVM.so.22.1"), Some(Llvm { major: 22, minor: 1 }));
        assert_eq!(llvm_of_library("libLLVM.so.22.1-rust-1.95.0-stable"), Some(Llvm { major: 22, minor: 1 }));
        assert_eq!(llvm_of_library("libLLVM-17.so"), Some(Llvm { major: 17, minor: 0 }));
        assert_eq!(llvm_of_library("libc.so.6"), None);
    }

    #[test]
    fn needed_libraries_are_read_from_a_real_executable() {
        let this_test = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let libraries = needed_libraries(&this_test).unwrap();
        assert!(libraries.iter().any(|library| library.starts_with("libc.so")), "{libraries:?}");
        assert!(needed_libraries(b"#!/bin/sh\n").is_err());
    }
}
