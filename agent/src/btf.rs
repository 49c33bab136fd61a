//! Decodes the BPF Type Format (BTF), in which the kernel describes its own types. What is looked up, and what its
//! absence means, is decided in [`crate::kernel_types`].
//!
//! Format: <https://docs.kernel.org/bpf/btf.html>. Implemented here because the only crate that reads all of this is
//! under the LGPL, which a statically linked agent can't easily comply with (docs/decisions/0002). Every access is
//! checked: with a damaged file, functions return `None` and never panic.

use std::{fs::File, io, path::Path};

use memmap2::MmapOptions;
use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// A shorter header does not include the fields that are read.
const HEADER_BYTES: usize = 24;
/// A type begins with its name, its kind and vlen, and its size or the type it refers to.
const TYPE_BYTES: usize = 12;
/// The BTF of a distribution's kernel has 6 MiB; with all kernel options enabled it has 30 MiB.
const MAX_BYTES: u64 = 256 << 20;

/// Why a file is not usable BTF.
#[derive(Debug, Error)]
pub enum BtfError {
    /// It could not be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is malformed.
    #[error("it has {0}")]
    Malformed(&'static str),
}

/// The number of a type; 0 is void.
pub(crate) type TypeId = u32;

/// The kind of a type, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pointer,
    Array,
    Struct,
    Union,
    Enum,
    Function,
    /// A typedef or a qualifier: another name for the type it refers to.
    Alias,
    Other,
}

/// A member of a structure or union.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    /// Empty if the member is anonymous.
    pub(crate) name: &'a str,
    pub(crate) of: TypeId,
    pub(crate) bit_offset: u32,
    /// 0 if the member is not a bit field.
    pub(crate) bit_field_bits: u32,
}

/// A BTF file, and where each type begins in it.
#[derive(Debug)]
pub(crate) struct Btf {
    bytes: Bytes,
    strings: usize,
    strings_end: usize,
    /// Indexed by type id minus one.
    types: Vec<u32>,
}

/// Mapped if the kernel allows it, so that only the accessed pages are resident.
#[derive(Debug)]
enum Bytes {
    Mapped(memmap2::Mmap),
    Read(Vec<u8>),
}

impl Btf {
    /// Opens a file such as `/sys/kernel/btf/vmlinux`.
    pub(crate) fn open(path: &Path) -> Result<Self, BtfError> {
        let file = File::open(path).map_err(BtfError::Read)?;
        // SAFETY: the mapping is private and read-only, and sysfs never changes or truncates this file. If a user names
        // another file instead and truncates it meanwhile, the process ends, which is no worse than naming a wrong
        // file.
        let mapped = unsafe { MmapOptions::new().map_copy_read_only(&file) };
        let bytes = match mapped {
            Ok(mapped) => Bytes::Mapped(mapped),
            // Kernels before 6.16 do not allow mapping it.
            Err(_) => Bytes::Read(read(file)?),
        };
        Self::index(bytes)
    }

    #[cfg(test)]
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        Self::index(Bytes::Read(bytes))
    }

    fn index(bytes: Bytes) -> Result<Self, BtfError> {
        let all: &[u8] = bytes.all();
        if all.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            return Err(BtfError::Malformed("a magic number that differs from this machine's BTF"));
        }
        if all.get(2) != Some(&VERSION) {
            return Err(BtfError::Malformed("an unknown version"));
        }
        let field = |at| word(all, at).map(|word| word as usize);
        let header = [field(4), field(8), field(12), field(16), field(20)];
        let [Some(header), Some(types), Some(types_len), Some(strings), Some(strings_len)] = header else {
            return Err(BtfError::Malformed("no complete header"));
        };
        let (begin, strings) = (header.saturating_add(types), header.saturating_add(strings));
        let (end, strings_end) = (begin.saturating_add(types_len), strings.saturating_add(strings_len));
        if header < HEADER_BYTES || end > all.len() || strings_end > all.len() || u32::try_from(end).is_err() {
            return Err(BtfError::Malformed("sections beyond its end"));
        }
        let mut starts = Vec::new();
        let mut at = begin;
        while at < end {
            starts.push(at as u32);
            let length = type_bytes(all, at).ok_or(BtfError::Malformed("a type of an unknown kind"))?;
            at += length;
        }
        Ok(Self { strings, strings_end, types: starts, bytes })
    }

    /// The first type of that name and kind.
    pub(crate) fn find(&self, name: &str, kind: Kind) -> Option<TypeId> {
        let found = |id: &TypeId| self.kind(*id) == kind && self.name(*id) == name;
        (1..=self.types.len() as TypeId).find(found)
    }

    /// The kind of a type.
    pub(crate) fn kind(&self, id: TypeId) -> Kind {
        match self.info(id).map(|info| (info >> 24) & 0x1f) {
            Some(2) => Kind::Pointer,
            Some(3) => Kind::Array,
            Some(4) => Kind::Struct,
            Some(5) => Kind::Union,
            Some(6) => Kind::Enum,
            // typedef, volatile, const, restrict, type tag
            Some(8..=11 | 18) => Kind::Alias,
            Some(12) => Kind::Function,
            _ => Kind::Other,
        }
    }

    /// The type that a pointer points to, or that an alias is another name for.
    pub(crate) fn refers_to(&self, id: TypeId) -> Option<TypeId> {
        self.word(id, 8)
    }

    /// The members of a structure or union. Empty for other types.
    pub(crate) fn members(&self, id: TypeId) -> impl Iterator<Item = Member<'_>> {
        let info = self.info(id).filter(|_| matches!(self.kind(id), Kind::Struct | Kind::Union)).unwrap_or(0);
        let with_sizes = info >> 31 == 1;
        (0..info & 0xffff).map_while(move |place| {
            let at = TYPE_BYTES + 12 * place as usize;
            let offset = self.word(id, at + 8)?;
            let (bit_offset, bit_field_bits) =
                if with_sizes { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
            Some(Member { name: self.text(self.word(id, at)?), of: self.word(id, at + 4)?, bit_offset, bit_field_bits })
        })
    }

    /// The names of an enumeration and their values. Empty for other types.
    pub(crate) fn values(&self, id: TypeId) -> impl Iterator<Item = (&str, u32)> {
        let count = self.info(id).filter(|_| self.kind(id) == Kind::Enum).unwrap_or(0) & 0xffff;
        (0..count).map_while(move |place| {
            let at = TYPE_BYTES + 8 * place as usize;
            Some((self.text(self.word(id, at)?), self.word(id, at + 4)?))
        })
    }

    /// How many elements an array has.
    pub(crate) fn length(&self, id: TypeId) -> Option<u32> {
        (self.kind(id) == Kind::Array).then(|| self.word(id, TYPE_BYTES + 8))?
    }

    /// The type of an array's elements.
    pub(crate) fn element(&self, id: TypeId) -> Option<TypeId> {
        (self.kind(id) == Kind::Array).then(|| self.word(id, TYPE_BYTES))?
    }

    /// The size in bytes of types that record it themselves: integers, structures, unions, enumerations, floats.
    pub(crate) fn bytes(&self, id: TypeId) -> Option<u32> {
        match self.info(id)? >> 24 & 0x1f {
            1 | 4..=6 | 16 | 19 => self.word(id, 8),
            _ => None,
        }
    }

    fn name(&self, id: TypeId) -> &str {
        self.word(id, 0).map_or("", |at| self.text(at))
    }

    fn info(&self, id: TypeId) -> Option<u32> {
        self.word(id, 4)
    }

    /// The word at an offset in bytes from the start of a type.
    fn word(&self, id: TypeId, bytes: usize) -> Option<u32> {
        let begin = *self.types.get((id as usize).checked_sub(1)?)?;
        word(self.bytes.all(), begin as usize + bytes)
    }

    /// A NUL-terminated string; empty if there is none.
    fn text(&self, at: u32) -> &str {
        let from = self.strings.saturating_add(at as usize);
        let rest = self.bytes.all().get(from..self.strings_end).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
        std::str::from_utf8(&rest[..end]).unwrap_or_default()
    }
}

impl Bytes {
    fn all(&self) -> &[u8] {
        match self {
            Self::Mapped(mapped) => mapped,
            Self::Read(read) => read,
        }
    }
}

fn read(file: File) -> Result<Vec<u8>, BtfError> {
    let mut bytes = Vec::new();
    let length = io::copy(&mut io::Read::take(file, MAX_BYTES), &mut bytes).map_err(BtfError::Read)?;
    if length == MAX_BYTES { Err(BtfError::Malformed("more bytes than the agent reads")) } else { Ok(bytes) }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// The size in bytes of the type at `at`. `None` for an unknown kind, because it is then not known where the next type
/// begins.
fn type_bytes(all: &[u8], at: usize) -> Option<usize> {
    let info = word(all, at + 4)?;
    let count = (info & 0xffff) as usize;
    let more = match (info >> 24) & 0x1f {
        // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
        2 | 7..=12 | 16 | 18 => 0,
        // integer, variable, declaration tag
        1 | 14 | 17 => 4,
        // array
        3 => 12,
        // structure, union, data section, 64-bit enumeration
        4 | 5 | 15 | 19 => 12 * count,
        // enumeration, prototype
        6 | 13 => 8 * count,
        _ => return None,
    };
    Some(TYPE_BYTES + more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(types: u32, strings: u32) -> Vec<u8> {
        let mut bytes = [&MAGIC.to_ne_bytes()[..], &[VERSION, 0]].concat();
        for field in [24, 0, types, types, strings] {
            bytes.extend(u32::to_ne_bytes(field));
        }
        bytes
    }

    #[test]
    fn what_is_no_btf_is_refused_with_the_reason() {
        let check = |bytes: Vec<u8>, expected: &str| assert_eq!(Btf::parse(bytes).unwrap_err().to_string(), expected);
        check(Vec::new(), "it has a magic number that differs from this machine's BTF");
        check(b"\x7fELF\x02\x01\x01\x00".to_vec(), "it has a magic number that differs from this machine's BTF");
        check([&MAGIC.to_ne_bytes()[..], &[9]].concat(), "it has an unknown version");
        check(header(0, 0)[..20].to_vec(), "it has no complete header");
        check(header(4, 0), "it has sections beyond its end");
        check(header(u32::MAX, u32::MAX), "it has sections beyond its end");
        let unknown = [header(12, 0), vec![0; 4], (31_u32 << 24).to_ne_bytes().to_vec(), vec![0; 4]].concat();
        check(unknown, "it has a type of an unknown kind");
    }

    #[test]
    fn every_type_of_this_kernel_is_walked_and_its_own_are_found() {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        if !path.exists() {
            eprintln!("SKIPPED: this kernel has no BTF");
            return;
        }
        let btf = Btf::open(path).unwrap();
        assert!(btf.types.len() > 10_000, "{} types", btf.types.len());
        let task = btf.find("task_struct", Kind::Struct).unwrap();
        assert!(btf.members(task).any(|member| member.name == "comm" && btf.length(member.of) == Some(16)));
        assert_eq!(btf.find("task_struct", Kind::Function), None);
        let hooks = btf.find("bpf_attach_type", Kind::Enum).unwrap();
        assert!(btf.values(hooks).any(|value| value == ("BPF_TRACE_ITER", 28)));
    }

    #[test]
    fn a_file_cut_anywhere_never_panics() {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        let Ok(whole) = std::fs::read(path) else {
            eprintln!("SKIPPED: this kernel has no BTF");
            return;
        };
        for cut in (0..whole.len()).step_by(whole.len() / 50) {
            assert!(Btf::parse(whole[..cut].to_vec()).is_err(), "cut at {cut}");
        }
    }
}
