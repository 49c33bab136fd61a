//! Where this kernel keeps what the probes read: member offsets, found in its BTF at run time.
//!
//! Kernels differ in every offset and in some names, so nothing here is compiled in. Parsing BTF is btf-rs's work; this
//! file knows which members are wanted and how to reach them through anonymous structures and unions.

use std::path::{Path, PathBuf};

use btf_rs::{Backend, Btf, BtfType, Struct, Type};
use mcad_wire::abi::CgroupOffsets;
use thiserror::Error;

/// Modifiers and typedefs between a member and its structure; real kernels have up to three.
const MAX_CHAIN: usize = 16;
/// Anonymous structures within anonymous structures; real kernels have up to four.
const MAX_ANONYMOUS_DEPTH: usize = 16;

/// Why an offset is not known.
#[derive(Debug, Error)]
pub enum OffsetsError {
    /// The kernel's BTF could not be read.
    #[error("read the kernel's BTF at {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What was wrong with it.
        #[source]
        source: btf_rs::Error,
    },
    /// This kernel has no such structure.
    #[error("the kernel's BTF has no structure `{structure}`")]
    NoStructure {
        /// Its name.
        structure: &'static str,
    },
    /// The structure is there and lacks a member.
    #[error("the kernel's structure `{structure}` has no member `{path}`")]
    NoMember {
        /// The structure.
        structure: &'static str,
        /// The member, dotted.
        path: &'static str,
    },
}

/// The kernel's types.
#[expect(missing_debug_implementations, reason = "btf-rs has none to show")]
pub struct KernelTypes {
    btf: Btf,
}

impl KernelTypes {
    /// Maps the kernel's BTF (`/sys/kernel/btf/vmlinux`). It is not copied: resident memory is the pages looked at.
    pub fn open(path: &Path) -> Result<Self, OffsetsError> {
        let btf = Btf::from_file_with_backend(path, Backend::Mmap)
            // Some kernels refuse to map files of sysfs; then it is read, at about 20 MiB for the moment.
            .or_else(|_| Btf::from_file(path))
            .map_err(|source| OffsetsError::Read { path: path.to_owned(), source })?;
        Ok(Self { btf })
    }

    /// Whether the kernel has a function of this name: how it says that it has an iterator.
    pub fn has_function(&self, name: &str) -> bool {
        let Ok(types) = self.btf.resolve_types_by_name(name) else { return false };
        types.iter().any(|found| matches!(found, Type::Func(_)))
    }

    /// The offsets that the cgroup iterator needs.
    pub fn cgroup_offsets(&self) -> Result<CgroupOffsets, OffsetsError> {
        Ok(CgroupOffsets {
            cgroup_kn: self.offset("cgroup", "kn")?,
            cgroup_level: self.offset("cgroup", "level")?,
            cgroup_self_parent: self.offset("cgroup", "self.parent")?,
            cgroup_cpu_ns: self.offset("cgroup", "bstat.cputime.sum_exec_runtime")?,
            css_cgroup: self.offset("cgroup_subsys_state", "cgroup")?,
            kernfs_id: self.offset("kernfs_node", "id")?,
            kernfs_name: self.offset("kernfs_node", "name")?,
        })
    }

    /// The offset in bytes of the member that the dotted `path` leads to, from the start of `structure`.
    fn offset(&self, structure: &'static str, path: &'static str) -> Result<u32, OffsetsError> {
        let mut current = self.structure(structure)?;
        let mut bits = 0;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let (member_bits, member) =
                self.member(&current, name, 0).ok_or(OffsetsError::NoMember { structure, path })?;
            bits += member_bits;
            if names.peek().is_some() {
                current = self.structure_of(&member).ok_or(OffsetsError::NoMember { structure, path })?;
            }
        }
        // A bit field has no address.
        if bits % 8 != 0 {
            return Err(OffsetsError::NoMember { structure, path });
        }
        Ok(bits / 8)
    }

    fn structure(&self, name: &'static str) -> Result<Struct, OffsetsError> {
        let types = self.btf.resolve_types_by_name(name).unwrap_or_default();
        types
            .into_iter()
            .find_map(|found| match found {
                Type::Struct(found) => Some(found),
                _ => None,
            })
            .ok_or(OffsetsError::NoStructure { structure: name })
    }

    /// The member of this name, also inside anonymous structures and unions, and its offset in bits.
    fn member(&self, of: &Struct, name: &str, depth: usize) -> Option<(u32, btf_rs::Member)> {
        for member in &of.members {
            let member_name = self.btf.resolve_name(member).unwrap_or_default();
            if member_name == name {
                // With kind_flag a member's offset word holds a bit-field size too; a size of 0 is an ordinary member.
                return match member.bitfield_size() {
                    None | Some(0) => Some((member.bit_offset(), member.clone())),
                    Some(_) => None,
                };
            }
            if member_name.is_empty() && depth < MAX_ANONYMOUS_DEPTH {
                let found = self.structure_of(member).and_then(|inner| self.member(&inner, name, depth + 1));
                if let Some((bits, found)) = found {
                    return Some((member.bit_offset() + bits, found));
                }
            }
        }
        None
    }

    /// The structure or union that a member is, through typedefs and qualifiers.
    fn structure_of(&self, member: &dyn BtfType) -> Option<Struct> {
        let mut found = self.btf.resolve_chained_type(member).ok()?;
        for _ in 0..MAX_CHAIN {
            found = match found {
                Type::Struct(found) | Type::Union(found) => return Some(found),
                Type::Typedef(_) | Type::Const(_) | Type::Volatile(_) | Type::Restrict(_) | Type::TypeTag(_) => {
                    self.btf.resolve_chained_type(found.as_btf_type()?).ok()?
                }
                _ => return None,
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes the few kinds of BTF that the tests need: <https://docs.kernel.org/bpf/btf.html>.
    #[derive(Default)]
    struct Encoder {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    const KIND_INT: u32 = 1;
    const KIND_STRUCT: u32 = 4;
    const KIND_UNION: u32 = 5;
    const KIND_TYPEDEF: u32 = 8;
    const KIND_CONST: u32 = 10;

    impl Encoder {
        fn string(&mut self, text: &str) -> u32 {
            if self.strings.is_empty() {
                self.strings.push(0);
            }
            if text.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(text.as_bytes());
            self.strings.push(0);
            at
        }

        fn words(&mut self, words: &[u32]) {
            for word in words {
                self.types.extend(word.to_le_bytes());
            }
        }

        fn int(mut self) -> Self {
            let name = self.string("int");
            self.words(&[name, KIND_INT << 24, 4, 32]);
            self
        }

        /// A typedef or a qualifier of another type.
        fn alias(mut self, kind: u32, name: &str, of: u32) -> Self {
            let name = self.string(name);
            self.words(&[name, kind << 24, of]);
            self
        }

        /// Members are (name, type id, offset word).
        fn composite(mut self, kind: u32, kind_flag: u32, name: &str, members: &[(&str, u32, u32)]) -> Self {
            let name = self.string(name);
            self.words(&[name, (kind_flag << 31) | (kind << 24) | members.len() as u32, 64]);
            for (member, id, offset) in members {
                let member = self.string(member);
                self.words(&[member, *id, *offset]);
            }
            self
        }

        fn types(self) -> KernelTypes {
            let mut bytes = vec![0x9f, 0xeb, 1, 0];
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            for word in [24, 0, types, types, strings] {
                bytes.extend(u32::to_le_bytes(word));
            }
            bytes.extend(self.types);
            bytes.extend(self.strings);
            KernelTypes { btf: Btf::from_bytes(&bytes).unwrap() }
        }
    }

    #[test]
    fn a_dotted_path_adds_up_offsets_through_typedefs_and_qualifiers() {
        let types = Encoder::default()
            .int()
            .composite(KIND_STRUCT, 0, "inner", &[("x", 1, 0), ("y", 1, 32)])
            .alias(KIND_TYPEDEF, "inner_t", 2)
            .alias(KIND_CONST, "", 3)
            .composite(KIND_STRUCT, 0, "outer", &[("a", 1, 0), ("b", 4, 64)])
            .types();
        assert_eq!(types.offset("outer", "b.y").unwrap(), 12);
    }

    #[test]
    fn members_of_anonymous_unions_in_anonymous_structures_are_found() {
        let types = Encoder::default()
            .int()
            .composite(KIND_UNION, 0, "", &[("first", 1, 0), ("second", 1, 0)])
            .composite(KIND_STRUCT, 0, "", &[("pad", 1, 0), ("", 2, 32)])
            .composite(KIND_STRUCT, 0, "outer", &[("a", 1, 0), ("", 3, 128)])
            .types();
        assert_eq!(types.offset("outer", "second").unwrap(), 20);
    }

    #[test]
    fn a_bit_field_has_no_offset_but_its_neighbours_do() {
        let types = Encoder::default()
            .int()
            .composite(KIND_STRUCT, 1, "flags", &[("bits", 1, (3 << 24) | 8), ("whole", 1, 32)])
            .types();
        assert!(matches!(types.offset("flags", "bits"), Err(OffsetsError::NoMember { .. })));
        assert_eq!(types.offset("flags", "whole").unwrap(), 4);
    }

    #[test]
    fn what_is_missing_is_named() {
        let types = Encoder::default().int().composite(KIND_STRUCT, 0, "cgroup", &[("kn", 1, 0)]).types();
        assert_eq!(
            types.offset("kernfs_node", "id").unwrap_err().to_string(),
            "the kernel's BTF has no structure `kernfs_node`"
        );
        assert_eq!(
            types.cgroup_offsets().unwrap_err().to_string(),
            "the kernel's structure `cgroup` has no member `level`"
        );
    }

    #[test]
    fn a_type_that_contains_itself_ends() {
        let types =
            Encoder::default().alias(KIND_TYPEDEF, "t", 1).composite(KIND_STRUCT, 0, "s", &[("a", 1, 0)]).types();
        assert!(types.offset("s", "a.b").is_err());
    }

    #[test]
    fn this_kernel_has_them_all() {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        if !path.exists() {
            eprintln!("SKIPPED: this kernel has no BTF");
            return;
        }
        let types = KernelTypes::open(path).unwrap();
        let offsets = types.cgroup_offsets().unwrap();
        // Members of one structure do not overlap.
        let mut of_cgroup =
            [offsets.cgroup_kn, offsets.cgroup_level, offsets.cgroup_self_parent, offsets.cgroup_cpu_ns];
        of_cgroup.sort_unstable();
        assert!(of_cgroup.windows(2).all(|pair| pair[1] - pair[0] >= 4), "{offsets:?}");
        assert!(types.has_function("cgroup_mkdir"));
        assert!(!types.has_function("cgroup"), "a structure is no function");
    }
}
