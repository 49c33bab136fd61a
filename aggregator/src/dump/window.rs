//! The part of a file that is in memory: bytes that were read and not used yet. Owns reading on and skipping, not the meaning of
//! the bytes.
use std::io::{self, Read};

/// Bytes per step. Kubernetes objects are rarely larger than a hundredth of it, so little is parsed twice.
const STEP: usize = 1 << 20;

/// See the module's documentation.
pub(super) struct Window<R> {
    from: R,
    bytes: Vec<u8>,
    /// The start of the unused bytes in `bytes`.
    start: usize,
    /// Whether the file ends after `bytes`.
    ended: bool,
    /// Lines before `start`.
    lines: usize,
}

impl<R: Read> Window<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, bytes: Vec::new(), start: 0, ended: false, lines: 0 }
    }

    /// The bytes that were read and not used.
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The line, from 1, at which [`Self::unread`] begins.
    pub(super) fn line(&self) -> usize {
        self.lines + 1
    }

    /// Skips bytes.
    pub(super) fn skip(&mut self, bytes: usize) {
        let end = self.start + bytes;
        self.lines += memchr::memchr_iter(b'\n', &self.bytes[self.start..end]).count();
        self.start = end;
    }

    /// Reads more bytes; returns false at the end of the file.
    pub(super) fn more(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.bytes.drain(..self.start);
        self.start = 0;
        // Doubling, so that a long object is not parsed again and again.
        let wanted = STEP.max(self.bytes.len()) as u64;
        let read = self.from.by_ref().take(wanted).read_to_end(&mut self.bytes)?;
        self.ended = read == 0;
        Ok(read > 0)
    }
}
