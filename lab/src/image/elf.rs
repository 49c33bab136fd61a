//! Reads from an ELF file: its loader, the libraries that it needs, and whether it is fake-nvml. It reads bytes, and no
//! files.

use anyhow::{Context as _, Result};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::read::{Object as _, ObjectSymbol as _};

/// The parts of an ELF file that matter for an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elf {
    /// Its architecture, by ELF's number.
    pub(crate) machine: u16,
    /// The path of its loader; `None` if it needs none.
    pub(crate) interpreter: Option<String>,
    /// The libraries that it names (DT_NEEDED).
    pub(crate) needed: Vec<String>,
    /// A function of NVML that it *defines*; other programs only look it up in the driver's library.
    pub(crate) nvml_function: Option<String>,
}

impl Elf {
    /// Reads a 64-bit file.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(bytes).context("it is not a 64-bit ELF file")?;
        let endian = header.endian().context("its byte order is not valid")?;
        let mut interpreter = None;
        for segment in header.program_headers(endian, bytes).context("its segments can't be read")? {
            if let Some(path) = segment.interpreter(endian, bytes).context("its loader can't be read")? {
                interpreter = Some(text(path));
            }
        }
        let sections = header.sections(endian, bytes).context("its sections can't be read")?;
        let dynamic = sections.dynamic_table(endian, bytes).context("its dynamic section can't be read")?;
        let mut needed = Vec::new();
        for entry in &dynamic {
            if entry.tag == object::elf::DT_NEEDED {
                needed.push(text(dynamic.string(entry).context("a library that it needs has no name")?));
            }
        }
        Ok(Self { machine: header.e_machine(endian), interpreter, needed, nvml_function: nvml_function(bytes)? })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A function that is defined with NVML's plain name, or one of fake-nvml's own.
fn nvml_function(bytes: &[u8]) -> Result<Option<String>> {
    let file = object::File::parse(bytes).context("its symbols can't be read")?;
    let mut defined = file.symbols().chain(file.dynamic_symbols()).filter(|symbol| !symbol.is_undefined());
    let found = defined.find_map(|symbol| symbol.name().ok().filter(|name| is_nvml(name)).map(str::to_owned));
    Ok(found)
}

/// Whether it is a name such as `nvmlInit_v2` or `fakeNvmlHung`. Rust's own names are mangled, so the types of a
/// binding do not match.
fn is_nvml(name: &str) -> bool {
    let capital = |rest: &str| rest.starts_with(|first: char| first.is_ascii_uppercase());
    name.strip_prefix("nvml").is_some_and(capital) || name.strip_prefix("fakeNvml").is_some_and(capital)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_an_executable_with_a_loader_and_libc() {
        let elf = Elf::read(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).unwrap();
        assert!(elf.interpreter.unwrap().contains("ld-linux"));
        assert!(elf.needed.iter().any(|library| library == "libc.so.6"), "{:?}", elf.needed);
    }

    #[test]
    fn fake_nvml_is_known_by_the_functions_that_it_has() {
        let library = fake_nvml::Installation::built_for_this_test().unwrap();
        let elf = Elf::read(&std::fs::read(library).unwrap()).unwrap();
        assert!(is_nvml(&elf.nvml_function.unwrap()));
        assert!(is_nvml("nvmlInit_v2") && is_nvml("fakeNvmlHung"));
        assert!(!is_nvml("nvml_wrapper") && !is_nvml("_ZN12nvml_wrapper4Nvml4init17h0E"));
    }

    #[test]
    fn what_is_no_elf_file_is_refused() {
        assert!(Elf::read(b"").is_err() && Elf::read(b"#!/bin/sh\n").is_err());
    }
}
