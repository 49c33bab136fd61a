//! This kernel's types: offsets of members, values of enumerations and lengths of arrays, looked up by name in its BTF.
//!
//! [`crate::btf`] decodes BTF; this file finds members also inside anonymous structures and unions. [`crate::offsets`]
//! decides which members are needed.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::btf::{Btf, BtfError, Kind, Member, TypeId};

/// Limit of modifiers and typedefs between a member and its structure; real kernels have up to three.
const MAX_CHAIN: usize = 16;
/// Limit of nested anonymous structures; real kernels have up to four.
const MAX_ANONYMOUS_DEPTH: usize = 16;

/// Why something about the kernel's types is not known.
#[derive(Debug, Error)]
pub enum TypesError {
    /// The kernel's BTF could not be read.
    #[error("cannot use the kernel's BTF at {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: BtfError,
    },
    /// This kernel has no such structure.
    #[error("the kernel's BTF has no structure `{structure}`")]
    NoStructure {
        /// Its name.
        structure: &'static str,
    },
    /// The structure exists, but lacks a member.
    #[error("the kernel's structure `{structure}` has no member `{path}`")]
    NoMember {
        /// The structure.
        structure: &'static str,
        /// The member, as a dotted path.
        path: &'static str,
    },
    /// The kernel's enumeration has no such value.
    #[error("the kernel's enumeration `{enumeration}` has no `{name}`")]
    NoValue {
        /// The enumeration.
        enumeration: &'static str,
        /// The name.
        name: &'static str,
    },
    /// The members exist, but are not as this agent expects them.
    #[error("this kernel's `{structure}` is not as expected: {difference}")]
    Unexpected {
        /// The structure.
        structure: &'static str,
        /// The difference.
        difference: &'static str,
    },
}

/// The kernel's types.
#[derive(Debug)]
pub struct KernelTypes {
    btf: Btf,
}

impl KernelTypes {
    /// Opens the kernel's BTF (`/sys/kernel/btf/vmlinux`).
    pub fn open(path: &Path) -> Result<Self, TypesError> {
        let btf = Btf::open(path).map_err(|source| TypesError::Read { path: path.to_owned(), source })?;
        Ok(Self { btf })
    }

    /// Whether the kernel has a function of this name, which shows whether it has a certain iterator.
    pub fn has_function(&self, name: &str) -> bool {
        self.btf.find(name, Kind::Function).is_some()
    }

    /// The offset in bytes of the member that the dotted `path` leads to, from the start of `structure`.
    pub(crate) fn offset(&self, structure: &'static str, path: &'static str) -> Result<u32, TypesError> {
        let (bits, _) = self.reach(structure, path)?;
        // A bit field has no address.
        if bits % 8 != 0 {
            return Err(TypesError::NoMember { structure, path });
        }
        Ok(bits / 8)
    }

    /// Like [`Self::offset`], for a member that must have this size in bytes, because its type is not checked
    /// otherwise.
    pub(crate) fn sized(&self, structure: &'static str, path: &'static str, bytes: u32) -> Result<u32, TypesError> {
        match self.bytes(self.reach(structure, path)?.1, 0) {
            Some(found) if found == bytes => self.offset(structure, path),
            _ => Err(TypesError::Unexpected { structure, difference: "a member has another size" }),
        }
    }

    /// Like [`Self::offset`], for the element at `index` of an array whose elements must have this size in bytes.
    pub(crate) fn element(
        &self,
        structure: &'static str,
        path: &'static str,
        index: u32,
        bytes: u32,
    ) -> Result<u32, TypesError> {
        let array = self.plain_type(self.reach(structure, path)?.1).ok_or(TypesError::NoMember { structure, path })?;
        let element = self.btf.element(array).and_then(|element| self.bytes(element, 0));
        if index >= self.length(structure, path)? || element != Some(bytes) {
            return Err(TypesError::Unexpected {
                structure,
                difference: "an array is too short, or its elements have another size",
            });
        }
        let place = index.checked_mul(bytes).and_then(|place| place.checked_add(self.offset(structure, path).ok()?));
        place.ok_or(TypesError::NoMember { structure, path })
    }

    /// Like [`Self::offset`], for a member that must be a pointer.
    pub(crate) fn pointer(&self, structure: &'static str, path: &'static str) -> Result<u32, TypesError> {
        match self.plain_type(self.reach(structure, path)?.1).map(|id| self.btf.kind(id)) {
            Some(Kind::Pointer) => self.offset(structure, path),
            _ => Err(TypesError::NoMember { structure, path }),
        }
    }

    /// How many elements a member has that is an array.
    pub(crate) fn length(&self, structure: &'static str, path: &'static str) -> Result<u32, TypesError> {
        let array = self.plain_type(self.reach(structure, path)?.1);
        array.and_then(|id| self.btf.length(id)).ok_or(TypesError::NoMember { structure, path })
    }

    /// The value of a name in an enumeration.
    pub(crate) fn value(&self, enumeration: &'static str, name: &'static str) -> Result<u32, TypesError> {
        let found = self.btf.find(enumeration, Kind::Enum);
        let value = found.and_then(|id| self.btf.values(id).find(|(known, _)| *known == name));
        value.map(|(_, value)| value).ok_or(TypesError::NoValue { enumeration, name })
    }

    /// The type of the member that the dotted `path` leads to, and its offset in bits.
    fn reach(&self, structure: &'static str, path: &'static str) -> Result<(u32, TypeId), TypesError> {
        let mut current = self.btf.find(structure, Kind::Struct).ok_or(TypesError::NoStructure { structure })?;
        let mut bits = 0;
        for name in path.split('.') {
            let inner = self.structure_of(current).and_then(|of| self.member(of, name, 0));
            let Some((inner_bits, inner)) = inner else { return Err(TypesError::NoMember { structure, path }) };
            bits = inner_bits.checked_add(bits).ok_or(TypesError::NoMember { structure, path })?;
            current = inner;
        }
        Ok((bits, current))
    }

    /// The type of the member of this name, also inside anonymous structures and unions, and its offset in bits.
    fn member(&self, of: TypeId, name: &str, depth: usize) -> Option<(u32, TypeId)> {
        for Member { name: known, of, bit_offset, bit_field_bits } in self.btf.members(of) {
            if known == name {
                return (bit_field_bits == 0).then_some((bit_offset, of));
            }
            if known.is_empty() && depth < MAX_ANONYMOUS_DEPTH {
                let found = self.structure_of(of).and_then(|inner| self.member(inner, name, depth + 1));
                if let Some((bits, found)) = found {
                    return Some((bit_offset.checked_add(bits)?, found));
                }
            }
        }
        None
    }

    /// The size of a type in bytes.
    fn bytes(&self, id: TypeId, depth: usize) -> Option<u32> {
        let id = self.plain_type(id)?;
        match self.btf.kind(id) {
            Kind::Pointer => Some(size_of::<u64>() as u32),
            // An array of arrays: the kernel does not nest them deeper than structures.
            Kind::Array if depth < MAX_ANONYMOUS_DEPTH => {
                self.bytes(self.btf.element(id)?, depth + 1)?.checked_mul(self.btf.length(id)?)
            }
            _ => self.btf.bytes(id),
        }
    }

    /// The structure or union that a type is.
    fn structure_of(&self, id: TypeId) -> Option<TypeId> {
        self.plain_type(id).filter(|id| matches!(self.btf.kind(*id), Kind::Struct | Kind::Union))
    }

    /// The type behind typedefs and qualifiers.
    fn plain_type(&self, mut id: TypeId) -> Option<TypeId> {
        for _ in 0..MAX_CHAIN {
            match self.btf.kind(id) {
                Kind::Alias => id = self.btf.refers_to(id)?,
                _ => return Some(id),
            }
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
    const KIND_POINTER: u32 = 2;
    const KIND_ARRAY: u32 = 3;
    const KIND_STRUCT: u32 = 4;
    const KIND_UNION: u32 = 5;
    const KIND_ENUM: u32 = 6;
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

        fn array(mut self, of: u32, length: u32) -> Self {
            self.words(&[0, KIND_ARRAY << 24, 0, of, 1, length]);
            self
        }

        fn enumeration(mut self, name: &str, values: &[(&str, u32)]) -> Self {
            let name = self.string(name);
            self.words(&[name, (KIND_ENUM << 24) | values.len() as u32, 4]);
            for (value_name, value) in values {
                let value_name = self.string(value_name);
                self.words(&[value_name, *value]);
            }
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
            KernelTypes { btf: Btf::parse(self.bytes()).unwrap() }
        }

        fn bytes(self) -> Vec<u8> {
            let mut bytes = vec![0x9f, 0xeb, 1, 0];
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            for word in [24, 0, types, types, strings] {
                bytes.extend(u32::to_le_bytes(word));
            }
            bytes.extend(self.types);
            bytes.extend(self.strings);
            bytes
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
        assert!(matches!(types.offset("flags", "bits"), Err(TypesError::NoMember { .. })));
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
            types.offset("cgroup", "level").unwrap_err().to_string(),
            "the kernel's structure `cgroup` has no member `level`"
        );
        assert_eq!(types.value("e", "A").unwrap_err().to_string(), "the kernel's enumeration `e` has no `A`");
    }

    #[test]
    fn a_type_that_contains_itself_ends() {
        let types =
            Encoder::default().alias(KIND_TYPEDEF, "t", 1).composite(KIND_STRUCT, 0, "s", &[("a", 1, 0)]).types();
        assert!(types.offset("s", "a.b").is_err());
    }

    #[test]
    fn arrays_have_lengths_pointers_are_told_apart_and_names_have_values() {
        let types = Encoder::default()
            .int()
            .array(1, 38)
            .alias(KIND_POINTER, "", 1)
            .composite(KIND_STRUCT, 0, "s", &[("state", 2, 0), ("p", 3, 2048)])
            .enumeration("e", &[("A", 0), ("B", 7)])
            .types();
        assert_eq!(types.length("s", "state").unwrap(), 38);
        assert!(types.length("s", "p").is_err());
        assert_eq!(types.pointer("s", "p").unwrap(), 256);
        assert!(types.pointer("s", "state").is_err());
        assert_eq!(types.value("e", "B").unwrap(), 7);
        assert!(types.value("e", "C").is_err());
    }

    #[test]
    fn a_member_of_another_size_is_refused() {
        let types = Encoder::default()
            .int()
            .array(1, 3)
            .array(2, 2)
            .alias(KIND_POINTER, "", 1)
            .alias(KIND_TYPEDEF, "int_t", 1)
            .composite(KIND_STRUCT, 0, "s", &[("i", 5, 0), ("a", 2, 64), ("aa", 3, 256), ("p", 4, 512)])
            .types();
        assert_eq!(types.sized("s", "i", 4).unwrap(), 0);
        assert_eq!(types.sized("s", "a", 12).unwrap(), 8);
        assert_eq!(types.sized("s", "aa", 24).unwrap(), 32);
        assert_eq!(types.sized("s", "p", 8).unwrap(), 64);
        for path in ["i", "a", "aa", "p"] {
            let refused = types.sized("s", path, 5).unwrap_err().to_string();
            assert_eq!(refused, "this kernel's `s` is not as expected: a member has another size");
        }
        assert_eq!(types.element("s", "a", 2, 4).unwrap(), 16);
        assert!(types.element("s", "a", 3, 4).is_err(), "beyond its end");
        assert!(types.element("s", "a", 0, 8).is_err(), "of another size");
        assert!(types.element("s", "i", 0, 4).is_err(), "no array");
    }

    #[test]
    fn no_byte_that_is_another_makes_a_lookup_panic_or_loop() {
        let encoded = || {
            Encoder::default()
                .int()
                .array(1, 3)
                .alias(KIND_TYPEDEF, "int_t", 1)
                .composite(KIND_STRUCT, 0, "", &[("deep", 2, 32)])
                .composite(KIND_STRUCT, 0, "s", &[("i", 3, 0), ("", 4, 64), ("next", 5, 256)])
                .enumeration("e", &[("A", 0), ("B", 7)])
                .bytes()
        };
        let mut understood = 0;
        for place in 0..encoded().len() {
            for value in [0, 1, 0x1f, 0x7f, 0x80, 0xff] {
                let mut bytes = encoded();
                bytes[place] = value;
                let Ok(btf) = Btf::parse(bytes) else { continue };
                let types = KernelTypes { btf };
                for path in ["i", "deep", "next.next.next.deep"] {
                    let _ = (types.offset("s", path), types.pointer("s", path), types.length("s", path));
                    let _ = (types.sized("s", path, 4), types.element("s", path, 2, 4));
                }
                let _ = types.value("e", "B");
                understood += 1;
            }
        }
        assert!(understood > 500, "{understood}");
    }
}
