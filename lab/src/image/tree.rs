//! The files of one layer: sorted, with the same owner, times and permissions on every machine. It reads nothing from
//! disk.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

/// The permissions of a file. Only the owner may write, and root owns everything, so a program cannot change itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Everybody may read it.
    Read,
    /// Everybody may read and execute it, or list it.
    Execute,
}

impl Rights {
    pub(crate) fn mode(self) -> u32 {
        match self {
            Self::Read => 0o644,
            Self::Execute => 0o755,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File(Vec<u8>, Rights),
}

/// Files by their paths from the image's root, without a leading `/`. A folder comes before its contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Adds a file, and its folders.
    pub(crate) fn add(&mut self, path: &str, bytes: impl Into<Vec<u8>>, rights: Rights) {
        for (slash, _) in path.match_indices('/') {
            self.0.entry(path[..slash].to_owned()).or_insert(Node::Folder);
        }
        self.0.insert(path.to_owned(), Node::File(bytes.into(), rights));
    }

    /// The total size of all files.
    pub(crate) fn bytes(&self) -> usize {
        let size = |node: &Node| if let Node::File(bytes, _) = node { bytes.len() } else { 0 };
        self.0.values().map(size).sum()
    }

    /// The tree as an archive with this time for all entries.
    pub(crate) fn tar(&self, written_s: u64) -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, node) in &self.0 {
            let (path, bytes, rights, kind) = match node {
                Node::Folder => (format!("{path}/"), [].as_slice(), Rights::Execute, EntryType::Directory),
                Node::File(bytes, rights) => (path.clone(), bytes.as_slice(), *rights, EntryType::Regular),
            };
            append(&mut archive, &path, bytes, Entry { kind, mode: rights.mode(), written_s })?;
        }
        archive.into_inner()
    }

    /// Writes the files to an existing folder.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        for (path, node) in &self.0 {
            let path = folder.join(path);
            let rights = match node {
                Node::Folder => {
                    std::fs::create_dir_all(&path)?;
                    Rights::Execute
                }
                Node::File(bytes, rights) => {
                    std::fs::write(&path, bytes)?;
                    *rights
                }
            };
            // Independent of the umask.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(rights.mode()))?;
        }
        Ok(())
    }
}

/// The properties of an archive's entry besides its name and bytes.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    pub(crate) written_s: u64,
}

/// Appends an entry that belongs to root, by id and without a name.
pub(crate) fn append<W: io::Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    bytes: &[u8],
    entry: Entry,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(entry.kind);
    header.set_mode(entry.mode);
    header.set_mtime(entry.written_s);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes)
}

/// Compressed, without a time or the name of a system.
pub(crate) fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    // 255 means that the operating system is unknown; the library's default is the one it runs on.
    let mut encoder = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_the_same_bytes_in_whatever_order_it_was_made() {
        let (mut one, mut other) = (Tree::default(), Tree::default());
        one.add("etc/passwd", "p", Rights::Read);
        one.add("usr/bin/x", "x", Rights::Execute);
        other.add("usr/bin/x", "x", Rights::Execute);
        other.add("etc/passwd", "p", Rights::Read);
        let bytes = one.tar(7).unwrap();
        assert_eq!(bytes, other.tar(7).unwrap());
        assert_eq!(gzip(&bytes).unwrap(), gzip(&bytes).unwrap());
        assert_ne!(bytes, one.tar(8).unwrap());
        assert_eq!(one.bytes(), 2);
    }

    #[test]
    fn folders_come_first_and_nothing_names_who_made_it() {
        let mut tree = Tree::default();
        tree.add("usr/bin/x", "x", Rights::Execute);
        let bytes = tree.tar(7).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 7));
            assert_eq!((header.username().unwrap(), header.groupname().unwrap()), (Some(""), Some("")));
            (String::from_utf8(entry.path_bytes().into_owned()).unwrap(), header.mode().unwrap())
        });
        let entries: Vec<_> = entries.collect();
        let paths: Vec<_> = entries.iter().map(|(path, mode)| (path.as_str(), *mode)).collect();
        assert_eq!(paths, [("usr/", 0o755), ("usr/bin/", 0o755), ("usr/bin/x", 0o755)]);
    }
}
