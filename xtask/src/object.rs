//! Describes the contents of an eBPF object: its programs and maps. It builds and loads nothing.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};

/// Describes the object in lines: programs with their sections and instructions, maps, size of the BTF, size of the
/// file.
///
/// An error if the object cannot be loaded because it has no program or no BTF.
pub(crate) fn describe(bytes: &[u8]) -> Result<String> {
    let file = object::File::parse(bytes).context("not an ELF object")?;
    let mut programs = Vec::new();
    let mut maps = Vec::new();
    for symbol in file.symbols().filter(object::ObjectSymbol::is_global) {
        let Some(section) = symbol.section_index().and_then(|index| file.section_by_index(index).ok()) else {
            continue;
        };
        let (name, section_name) = (symbol.name()?.to_owned(), section.name()?.to_owned());
        if section.kind() == SectionKind::Text && section_name != ".text" {
            programs.push((name, section_name, symbol.size() / INSTRUCTION_BYTES));
        } else if section_name == ".maps" || section_name == "maps" {
            maps.push(name);
        }
    }
    programs.sort();
    maps.sort();
    ensure!(!programs.is_empty(), "the object holds no program");
    let btf_bytes = file.section_by_name(".BTF").map_or(0, |section| section.size());
    ensure!(btf_bytes > 0, "the object holds no BTF, and the kernel rejects objects without BTF");

    let mut lines = String::new();
    for (name, section, instructions) in &programs {
        writeln!(lines, "  program {name:<24} {section:<24} {instructions} instructions")?;
    }
    for name in &maps {
        writeln!(lines, "  map     {name}")?;
    }
    writeln!(
        lines,
        "  {} programs, {} maps, {} bytes, {btf_bytes} of them BTF",
        programs.len(),
        maps.len(),
        bytes.len()
    )?;
    Ok(lines)
}

/// The size of one eBPF instruction.
const INSTRUCTION_BYTES: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(describe(b"").is_err());
        assert!(describe(b"#!/bin/sh\n").is_err());
    }

    #[test]
    fn an_object_without_btf_is_refused() {
        // This test's own executable is ELF, and has neither programs nor BTF.
        let this_test = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(describe(&this_test).is_err());
    }
}
