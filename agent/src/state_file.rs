//! One file of the state directory, read and replaced as a whole. This module does that safely; the callers know the
//! contents.
//!
//! The directory is on the host and outlives the agent, so another program may have put something there under our
//! names. Therefore no link is followed, only regular files are read, and a file with unknown contents is moved aside
//! instead of being overwritten.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Extensions of two more files: the next contents, with the id of the process that writes them (an agent started by
/// hand may write at the same time); and the contents that could not be parsed.
const NEXT: &str = "next";
const DAMAGED: &str = "damaged";

/// One file.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    bytes_at_most: u64,
}

/// Whether the written file must survive a sudden stop of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It need not: the contents are useless after a reboot.
    ThisBoot,
    /// It must.
    ForGood,
}

impl StateFile {
    /// The file with this name in this directory, with a maximum length.
    pub fn new(state_dir: &Path, name: &str, bytes_at_most: u64) -> Self {
        Self { path: state_dir.join(name), bytes_at_most }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all of it. A link, a pipe, a file that is too long or not text is `InvalidData`, as a file with invalid
    /// contents is.
    pub fn read(&self) -> io::Result<String> {
        // Without NONBLOCK, opening a pipe would wait until somebody writes.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = match File::options().read(true).custom_flags(flags).open(&self.path) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(damaged("it is a symbolic link")),
            // A socket can't be opened at all.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(damaged("it is not a regular file")),
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Err(damaged("it is not a regular file"));
        }
        let mut text = String::new();
        // A limit also for a file that grows meanwhile.
        file.take(self.bytes_at_most + 1).read_to_string(&mut text)?;
        if text.len() as u64 > self.bytes_at_most {
            return Err(damaged("it is longer than what this agent writes"));
        }
        Ok(text)
    }

    /// Replaces the file atomically with this text. Only root can read it, because some contents may be read by root
    /// only.
    pub fn replace(&self, text: &str, durability: Durability) -> io::Result<()> {
        self.remove_leftovers();
        let next = self.path.with_extension(format!("{}.{NEXT}", std::process::id()));
        // A file that a killed agent left, or that somebody put there: remove the name itself, not what it links to.
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
        // Sync the name, too: otherwise the old file may come back after a sudden stop.
        if durability == Durability::ForGood { File::open(self.directory())?.sync_all() } else { Ok(()) }
    }

    fn directory(&self) -> &Path {
        self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Removes temporary files of processes that no longer exist, so that they do not accumulate. Files of existing
    /// processes, which may be writing, are not touched. A file that can't be removed does no harm.
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

    /// Renames whatever is there, and keeps it for inspection. Only the latest one is kept.
    pub fn put_aside(&self, why: &dyn std::fmt::Display) {
        let aside = self.path.with_extension(DAMAGED);
        let (path, kept_as) = (self.path.display(), aside.display());
        // A folder cannot replace a file. If nothing was there, there is nothing to remove.
        let _ = fs::remove_file(&aside);
        match fs::rename(&self.path, &aside) {
            Ok(()) => {
                tracing::warn!(%path, %why, %kept_as, "a state file is damaged; it was renamed, and a new one is started");
            }
            Err(error) => tracing::warn!(%path, %why, %error, "a state file is damaged, and can't be renamed"),
        }
    }
}

/// An error which means that the contents were not written by this agent.
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
            ("it is a symbolic link", &|| symlink("other", &path).unwrap()),
            ("it is not a regular file", &|| pipe(&path)),
            ("it is not a regular file", &|| fs::create_dir(&path).unwrap()),
            ("it is not a regular file", &|| drop(std::os::unix::net::UnixListener::bind(&path).unwrap())),
            ("it is longer than what this agent writes", &|| fs::write(&path, "seventeen bytes..").unwrap()),
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
        // The process may have ended, but was not waited for, so its id is not reused.
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
