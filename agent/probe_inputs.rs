//! Determines which eBPF object belongs to these sources: its name contains a hash of everything it is built from, so
//! that an outdated object is never used. Included by `agent/build.rs`, which embeds the object, and by `xtask`, which
//! builds it. Only std, because a build script compiles it. It builds nothing itself.

use std::io;
use std::path::{Path, PathBuf};

/// The flags of rustc for the eBPF programs. They are part of the hash, because other flags give another object.
///
/// `debuginfo=2` and `--btf` add BTF to the object; the kernel rejects the iterator without it.
pub(crate) const RUSTFLAGS: [&str; 2] = ["-Cdebuginfo=2", "-Clink-arg=--btf"];

/// The names that replace two folders of the build machine in the object, the sources' and cargo's own, so that equal
/// sources give equal objects. Part of the hash as well. If such a folder exists, LLVM reads the sources' lines from it
/// for its BTF.
pub(crate) const REMAPPED: [&str; 2] = ["/mcad-metrics", "/cargo"];

/// The files that the object is built from, relative to the workspace root, sorted.
pub(crate) fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        ["agent-ebpf/Cargo.toml", "wire/Cargo.toml", "wire/src/abi.rs", "wire/src/lib.rs"].map(PathBuf::from).into();
    let mut folders = vec![PathBuf::from("agent-ebpf/src"), PathBuf::from("agent-ebpf/aya-build/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The path of the object of the current sources, whether or not it exists.
pub(crate) fn object_path(root: &Path) -> io::Result<PathBuf> {
    Ok(folder(root).join(format!("probes-{:016x}.o", hash(root)?)))
}

/// The folder of the objects.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("target/bpf")
}

/// FNV-1a over the flags, the versions of aya's eBPF crates and each input's path and bytes, in order.
///
/// It is not cryptographic: there is nothing to gain by a collision in one's own tree.
fn hash(root: &Path) -> io::Result<u64> {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for flag in RUSTFLAGS.into_iter().chain(REMAPPED) {
        add(&mut hash, flag.as_bytes());
    }
    add(&mut hash, aya_versions(&std::fs::read_to_string(root.join("Cargo.lock"))?).as_bytes());
    for file in files(root)? {
        add(&mut hash, file.as_os_str().as_encoded_bytes());
        add(&mut hash, &std::fs::read(root.join(&file))?);
    }
    Ok(hash)
}

/// Adds one piece and a 0 byte, so that moving a byte from one piece to the next changes the hash.
fn add(hash: &mut u64, bytes: &[u8]) {
    for byte in bytes.iter().chain([&0]) {
        *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
}

/// The paragraphs of `Cargo.lock` for `aya-ebpf` and its parts. Other dependencies don't affect the eBPF programs.
fn aya_versions(lock: &str) -> String {
    lock.split("\n\n").filter(|package| package.contains("\nname = \"aya-ebpf")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const BASE: [(&str, &str); 7] = [
        ("agent-ebpf/Cargo.toml", "a"),
        ("agent-ebpf/src/main.rs", "b"),
        ("agent-ebpf/aya-build/src/lib.rs", "f"),
        ("wire/Cargo.toml", "c"),
        ("wire/src/abi.rs", "d"),
        ("wire/src/lib.rs", "e"),
        ("Cargo.lock", "v\n\n[[package]]\nname = \"aya-ebpf\"\nversion = \"1\"\n\n[[package]]\nname = \"z\"\n"),
    ];

    fn hash_with(changes: &[(&str, &str)]) -> u64 {
        let files: Vec<_> = BASE.iter().chain(changes).copied().collect();
        hash(workspace(&files).path()).unwrap()
    }

    #[test]
    fn equal_sources_give_equal_names_wherever_they_lie() {
        assert_eq!(hash_with(&[]), hash_with(&[]));
    }

    #[test]
    fn every_input_changes_the_name() {
        let before = hash_with(&[]);
        for (path, _) in BASE {
            let text =
                if path == "Cargo.lock" { "v\n\n[[package]]\nname = \"aya-ebpf\"\nversion = \"2\"\n" } else { "x" };
            assert_ne!(before, hash_with(&[(path, text)]), "{path}");
        }
        assert_ne!(before, hash_with(&[("agent-ebpf/src/maps/new.rs", "")]), "a new file in a new folder");
    }

    #[test]
    fn what_never_reaches_the_kernel_changes_nothing() {
        let before = hash_with(&[]);
        assert_eq!(before, hash_with(&[("wire/src/report.rs", "x")]));
        assert_eq!(before, hash_with(&[("agent-ebpf/src/notes.txt", "x")]));
        let lock = format!("{}version = \"9\"\n", BASE[6].1);
        assert_eq!(before, hash_with(&[("Cargo.lock", &lock)]), "another package's version");
    }

    #[test]
    fn a_byte_that_moves_between_files_is_seen() {
        let moved = hash_with(&[("wire/src/abi.rs", "de"), ("wire/src/lib.rs", "")]);
        assert_ne!(hash_with(&[]), moved);
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        let mut hash = 0xcbf2_9ce4_8422_2325;
        add(&mut hash, b"a");
        // FNV-1a 64 of "a" is af63dc4c8601ec8c according to its authors' tables; one more round for the 0 byte.
        assert_eq!(hash, 0xaf63_dc4c_8601_ec8c_u64.wrapping_mul(0x0100_0000_01b3));
    }
}
