//! The part of a file that is in memory: what was read and is not used yet. Owns growing and moving on; what the bytes mean is
//! the reader's.
use std::io::{self, Read};

/// What is read at once. An object of Kubernetes is seldom larger than a hundredth of it, so that little is parsed twice.
const STEP: usize = 1 << 20;

/// See the module's documentation.
pub(super) struct Window<R> {
    from: R,
    bytes: Vec<u8>,
    /// Where in `bytes` begins what is not used yet.
    start: usize,
    /// Nothing follows `bytes`.
    ended: bool,
    /// Lines before `start`.
    lines: usize,
}

impl<R: Read> Window<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, bytes: Vec::new(), start: 0, ended: false, lines: 0 }
    }

    /// What was read and is not used.
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The line, from 1, at which [`Self::unread`] begins.
    pub(super) fn line(&self) -> usize {
        self.lines + 1
    }

    /// Moves on.
    pub(super) fn skip(&mut self, bytes: usize) {
        let end = self.start + bytes;
        self.lines += memchr::memchr_iter(b'\n', &self.bytes[self.start..end]).count();
        self.start = end;
    }

    /// Reads on; false where there is no more.
    pub(super) fn more(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.bytes.drain(..self.start);
        self.start = 0;
        // One that does not fit doubles what is read, so that a long one is not read again and again.
        let wanted = STEP.max(self.bytes.len()) as u64;
        let read = self.from.by_ref().take(wanted).read_to_end(&mut self.bytes)?;
        self.ended = read == 0;
        Ok(read > 0)
    }
}
