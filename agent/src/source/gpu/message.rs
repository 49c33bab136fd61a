//! The messages on the socket between the agent and its process for NVML: requests in one direction, responses in the
//! other, each with its length first. Every length and every text is bounded, because the responses depend on a
//! third-party library.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::reading::Reading;

/// Limit of one message, enough for ten thousand processes; a longer one is rejected. Decoding takes at most twenty
/// times this.
const BYTES_AT_MOST: usize = 256 << 10;

/// How much buffer is kept between two messages: eight GPUs with some processes each take a tenth of it.
const ROOM_KEPT: usize = 32 << 10;

/// Limit of the text of an error of NVML or the loader: enough to be helpful.
const DETAIL_BYTES_AT_MOST: usize = 512;

/// The requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// A round of calls.
    Read,
    /// The same after initialising NVML again: devices may have come back.
    ReadAnew,
}

/// A request and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) number: u64,
    pub(super) question: Question,
}

/// The response to a request.
pub(super) type Answer = Result<Reading, Failure>;

/// A response and the number of its request.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Answered {
    pub(super) number: u64,
    pub(super) answer: Answer,
}

/// Why NVML gave no reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    /// A text for the log.
    pub(super) detail: String,
}

/// The kind of the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cause {
    /// There is no library, or none for this architecture.
    NoLibrary,
    /// The library finds no driver, or one of another version.
    NoDriver,
    /// The driver denies access.
    NotPermitted,
    /// Any other error.
    Driver,
}

impl Failure {
    pub(super) fn new(cause: Cause, mut detail: String) -> Self {
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_AT_MOST));
        Self { cause, detail }
    }
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// The other side has closed the socket.
    #[error("the other side has closed the socket")]
    Closed,
    /// The received bytes are not a message.
    #[error("the received bytes are not a message")]
    Nonsense,
    /// The message is longer than the limit.
    #[error("a message has more than {BYTES_AT_MOST} bytes")]
    TooLong,
    /// The kernel returned an error.
    #[error("cannot use the socket")]
    Io(#[source] io::Error),
}

/// One end of the socket.
#[derive(Debug)]
pub(super) struct Line {
    stream: UnixStream,
    /// Received bytes that are not a whole message yet.
    came: Vec<u8>,
}

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, came: Vec::new() }
    }

    /// Sends one message. On a non-blocking socket, a message that does not fit into the buffer is an error.
    pub(super) fn send(&mut self, message: &impl Serialize) -> Result<(), LineError> {
        let body = postcard::to_allocvec(message).map_err(|error| LineError::Io(io::Error::other(error)))?;
        if body.len() > BYTES_AT_MOST {
            return Err(LineError::TooLong);
        }
        let mut framed = Vec::with_capacity(4 + body.len());
        framed.extend_from_slice(&(body.len() as u32).to_le_bytes());
        framed.extend_from_slice(&body);
        self.stream.write_all(&framed).map_err(closed)
    }

    /// Receives one message and waits at most this long for it; without a time, as long as the other side exists.
    /// `None` if the time is over.
    pub(super) fn receive<T: DeserializeOwned>(&mut self, wait: Option<Duration>) -> Result<Option<T>, LineError> {
        let begun = Instant::now();
        let mut chunk = [0; 4096];
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if !self.is_readable(wait.map(|wait| wait.saturating_sub(begun.elapsed())))? {
                return Ok(None);
            }
            match self.stream.read(&mut chunk).map_err(closed)? {
                0 => return Err(LineError::Closed),
                read => self.came.extend_from_slice(&chunk[..read]),
            }
        }
    }

    /// Closes the socket for both sides.
    pub(super) fn close(&self) {
        // An error means that it is closed.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Takes a whole message out of the received bytes.
    fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        let Some((length, rest)) = self.came.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > BYTES_AT_MOST {
            return Err(LineError::Nonsense);
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let (message, left) = postcard::take_from_bytes(body).map_err(|_| LineError::Nonsense)?;
        if !left.is_empty() {
            return Err(LineError::Nonsense);
        }
        self.came.drain(..4 + length);
        self.came.shrink_to(ROOM_KEPT);
        Ok(Some(message))
    }

    /// Whether there is something to read, including the end.
    fn is_readable(&self, wait: Option<Duration>) -> Result<bool, LineError> {
        let wait = wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() });
        loop {
            match poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], wait.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(LineError::Io(error.into())),
            }
        }
    }
}

fn closed(error: io::Error) -> LineError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => LineError::Closed,
        _ => LineError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::gpu::reading::{DeviceReading, ProcessReading};

    fn pair() -> (Line, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Line::new(ours), theirs)
    }

    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn a_reading_arrives_as_it_was_sent_also_in_pieces() {
        let mut device = DeviceReading::of(&"GPU-1".into(), &"L4".into(), &"0000:18:00.0".into());
        device.utilization_ratio = Some(0.1 + 0.2);
        device.processes =
            vec![ProcessReading { pid: 7, memory_bytes: None, gpu_instance: Some(1), compute_instance: None }];
        let sent = Answered {
            number: 3,
            answer: Ok(Reading { devices: vec![device], initialised: true, ..Reading::default() }),
        };
        let (ours, mut theirs) = pair();
        let mut sender = ours;
        sender.send(&sent).unwrap();
        let mut bytes = vec![0; 4096];
        let length = theirs.read(&mut bytes).unwrap();
        let (mut receiver, mut in_pieces) = pair();
        for byte in &bytes[..length - 1] {
            in_pieces.write_all(&[*byte]).unwrap();
            assert!(receiver.receive::<Answered>(NOW).unwrap().is_none());
        }
        in_pieces.write_all(&bytes[length - 1..length]).unwrap();
        assert_eq!(receiver.receive::<Answered>(NOW).unwrap(), Some(sent));
        drop(in_pieces);
        assert!(matches!(receiver.receive::<Answered>(None), Err(LineError::Closed)));
    }

    #[test]
    fn what_is_no_message_is_refused_before_there_is_room_for_it() {
        for nonsense in
            [&b"\xff\xff\xff\xff"[..], b"\x01\0\0\0\0", b"\x04\0\0\0\x01\x00\x00\x00", b"free text, from printf"]
        {
            let (mut ours, mut theirs) = pair();
            theirs.write_all(nonsense).unwrap();
            assert!(matches!(ours.receive::<Asked>(NOW), Err(LineError::Nonsense)), "{nonsense:?}");
        }
    }

    #[test]
    fn a_message_has_a_bound_and_so_has_what_is_said_of_a_failure() {
        let (mut ours, theirs) = pair();
        assert!(matches!(ours.send(&vec![1_u8; BYTES_AT_MOST]), Err(LineError::TooLong)));
        drop(theirs);
        assert!(matches!(ours.send(&1_u8), Err(LineError::Closed)));
        assert_eq!(Failure::new(Cause::Driver, "ü".repeat(1000)).detail, "ü".repeat(DETAIL_BYTES_AT_MOST / 2));
    }
}
