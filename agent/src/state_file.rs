//! One file of the state directory: read and replaced as a whole. It owns how that is done safely; what is in a file is its user's.
//!
//! The directory is on the host, and outlives the agent: what lies there by a name of ours may be somebody else's doing. So no link is
//! followed, nothing but a regular file is read, and what can't be understood is put aside instead of being overwritten.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Beside the file: what it will be next, by the number of the process that writes it (one started by hand may be at it as the agent is); and what it was
/// and nobody understood.
const NEXT: &str = "next";
const DAMAGED: &str = "damaged";

/// One file.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    bytes_at_most: u64,
}

/// Whether what is written must outlive a machine that stops at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It need not: what is in the file says nothing about another boot.
    ThisBoot,
    /// It must.
    ForGood,
}

impl StateFile {
    /// The file of this name in this directory, never longer than that.
    pub fn new(state_dir: &Path, name: &str, bytes_at_most: u64) -> Self {
        Self { path: state_dir.join(name), bytes_at_most }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of it. A link, a pipe, a file that is too long and one that is no text are `InvalidData`, as damaged as one whose text says
    /// nothing.
    pub fn read(&self) -> io::Result<String> {
        // Without NONBLOCK the opening of a pipe would wait until somebody writes.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = match File::options().read(true).custom_flags(flags).open(&self.path) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(damaged("a symbolic link")),
            // A socket can't be opened at all.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(damaged("no regular file")),
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Err(damaged("no regular file"));
        }
        let mut text = String::new();
        // Also one that grows meanwhile has a bound.
        file.take(self.bytes_at_most + 1).read_to_string(&mut text)?;
        if text.len() as u64 > self.bytes_at_most {
            return Err(damaged("longer than this agent writes it"));
        }
        Ok(text)
    }

    /// Puts this text in its place, in one step. For root alone: only root may read some of what is kept.
    pub fn replace(&self, text: &str, durability: Durability) -> io::Result<()> {
        self.remove_leftovers();
        let next = self.path.with_extension(format!("{}.{NEXT}", std::process::id()));
        // What an agent left that was killed meanwhile, or what somebody put there: the name itself, not what it leads to.
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = OFlags::NOFOLLOW.bits() as i32;
        let mut file = File::options().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&next)?;
        file.write_all(text.as_bytes())?;
        if durability == Durability::ForGood {
            file.sync_all()?;
        }
        fs::rename(next, &self.path)?;
        // The name, too: a machine that stops would have the older file.
        if durability == Durability::ForGood { File::open(self.directory())?.sync_all() } else { Ok(()) }
    }

    fn directory(&self) -> &Path {
        self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Removes what processes were about to put in place that are no more, so that there is no end of such files. Of a process that is there, and may
    /// be at it, nothing is touched. What can't be removed stays: it is in nobody's way.
    fn remove_leftovers(&self) {
        let Some(name) = self.path.file_name().and_then(|name| name.to_str()) else { return };
        let writer = |file: &str| -> Option<u32> {
            file.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(NEXT)?.strip_suffix('.')?.parse().ok()
        };
        for entry in fs::read_dir(self.directory()).into_iter().flatten().flatten() {
            let writer = entry.file_name().to_str().and_then(writer);
            if writer.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Takes what is there out of the way, whatever it is, and keeps it for a person under another name. Only the last such is kept.
    pub fn put_aside(&self, why: &dyn std::fmt::Display) {
        let aside = self.path.with_extension(DAMAGED);
        let (path, kept_as) = (self.path.display(), aside.display());
        // A folder does not take the place of a file. If nothing was there, there is nothing to remove.
        let _ = fs::remove_file(&aside);
        match fs::rename(&self.path, &aside) {
            Ok(()) => tracing::warn!(%path, %why, %kept_as, "a state file is damaged; it is renamed, and begun anew"),
            Err(error) => tracing::warn!(%path, %why, %error, "a state file is damaged, and can't be renamed"),
        }
    }
}

/// An error that means that what is there is not what this agent wrote.
pub fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn file(directory: &Path) -> StateFile {
        StateFile::new(directory, "state", 16)
    }

    fn pipe(path: &Path) {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    }

    #[test]
    fn what_was_put_there_is_read_and_is_roots_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path());
        assert_eq!(file.read().unwrap_err().kind(), io::ErrorKind::NotFound);
        for text in ["one", "sixteen bytes...", ""] {
            file.replace(text, Durability::ForGood).unwrap();
            assert_eq!(file.read().unwrap(), text);
        }
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn neither_a_link_nor_a_pipe_nor_a_folder_nor_too_much_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = (directory.path().join("state"), file(directory.path()));
        fs::write(directory.path().join("other"), "secret").unwrap();
        let cases: [(&str, &dyn Fn()); 6] = [
            ("a symbolic link", &|| symlink("other", &path).unwrap()),
            ("no regular file", &|| pipe(&path)),
            ("no regular file", &|| fs::create_dir(&path).unwrap()),
            ("no regular file", &|| drop(std::os::unix::net::UnixListener::bind(&path).unwrap())),
            ("longer than this agent writes it", &|| fs::write(&path, "seventeen bytes..").unwrap()),
            ("stream did not contain valid UTF-8", &|| fs::write(&path, [0xff]).unwrap()),
        ];
        for (why, make) in cases {
            make();
            let error = file.read().unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::InvalidData, why));
            file.put_aside(&error);
            assert_eq!(file.read().unwrap_err().kind(), io::ErrorKind::NotFound, "{why}");
            let aside = directory.path().join("state.damaged");
            assert!(fs::symlink_metadata(&aside).is_ok(), "{why}");
            let _ = fs::remove_dir(&aside);
        }
    }

    #[test]
    fn what_another_process_is_writing_is_its_own_until_that_is_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path());
        let mut other = std::process::Command::new("true").spawn().unwrap();
        let its = directory.path().join(format!("state.{}.next", other.id()));
        let beside = ["states.1.next", "state.x.next", "state.next", "1.next"].map(|name| directory.path().join(name));
        for path in beside.iter().chain([&its]) {
            fs::write(path, "half").unwrap();
        }
        // It may have ended, but nobody has looked: its number is not given to another.
        file.replace("one", Durability::ThisBoot).unwrap();
        assert_eq!(fs::read_to_string(&its).unwrap(), "half");
        other.wait().unwrap();
        file.replace("two", Durability::ThisBoot).unwrap();
        assert!(!its.exists());
        assert!(beside.iter().all(|path| path.exists()), "what is not ours is left alone");
        assert_eq!(file.read().unwrap(), "two");
    }

    #[test]
    fn what_a_link_leads_to_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = (directory.path().join("state"), file(directory.path()));
        let other = directory.path().join("other");
        fs::write(&other, "secret").unwrap();
        let next = directory.path().join(format!("state.{}.next", std::process::id()));
        symlink("other", &next).unwrap();
        symlink("other", &path).unwrap();
        file.replace("new", Durability::ThisBoot).unwrap();
        assert_eq!(
            (fs::read_to_string(&other).unwrap(), file.read().unwrap()),
            ("secret".to_owned(), "new".to_owned())
        );
        fs::remove_file(&path).unwrap();
        pipe(&next);
        file.replace("newer", Durability::ThisBoot).unwrap();
        assert_eq!(file.read().unwrap(), "newer");
        assert!(!fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    }
}
