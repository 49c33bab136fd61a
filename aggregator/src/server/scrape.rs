//! The body of `/metrics`: a thread writes it a few chunks ahead of the peer that reads it. Owns this hand-over and the
//! compression.
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body, Bytes, Frame};
use mcad_present::exposition::{CHUNK_BYTES, Closed, Sink};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, timeout};

use super::turns::Turn;
use crate::replica::Replica;

/// Chunks between the writer and the reader: half a megabyte, so that a local reader rarely waits.
const CHUNKS_AHEAD: usize = 8;

/// The encoding of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
}

/// The body that is being written.
#[derive(Debug)]
pub(super) struct Chunks {
    pieces: mpsc::Receiver<Piece>,
    _held: Option<OwnedSemaphorePermit>,
}

impl Chunks {
    pub(super) fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self { pieces, _held: None }
    }

    /// A complete body; `held` is dropped after it was read.
    pub(super) fn whole(body: Vec<u8>, held: OwnedSemaphorePermit) -> Self {
        let (sender, pieces) = mpsc::channel(2);
        for piece in [Piece::Chunk(body), Piece::End] {
            // The channel has room for two.
            let _ = sender.try_send(piece);
        }
        Self { pieces, _held: Some(held) }
    }
}

/// A part of a body.
#[derive(Debug)]
pub(super) enum Piece {
    Chunk(Vec<u8>),
    /// The end. Without it, a truncated body would look complete, and series would seem to end.
    End,
}

/// The writer ended before the text was complete.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the exposition is incomplete")]
pub(super) struct Cut;

/// How long the writer waits for the reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// In total, while others wait for their turn.
    pub(super) in_turn: Duration,
    /// Without any progress.
    pub(super) stall: Duration,
}

/// Starts writing; `turn` is given back at the end, and during waits for the reader beyond [`Patience::in_turn`].
pub(super) fn begin(replica: Arc<Replica>, encoding: Encoding, patience: Patience, turn: Turn) -> Chunks {
    let (pieces, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let runtime = Handle::current();
    // The thread is not joined: the reader sees its end in the channel, and a reader that disconnects ends it.
    drop(tokio::task::spawn_blocking(move || {
        let mut sender = Sender { pieces, runtime, patience, turn };
        let written = match encoding {
            Encoding::Plain => replica.expose(&mut sender).map(drop),
            Encoding::Gzip => {
                let mut gzip = Gzip { encoder: GzEncoder::new(Vec::new(), Compression::fast()), next: &mut sender };
                replica.expose(&mut gzip).and_then(|_| gzip.finish())
            }
        };
        if written.and_then(|()| sender.send(Piece::End)).is_err() {
            tracing::debug!("the reader of a scrape disconnected or stalled");
        }
    }));
    Chunks::new(receiver)
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.pieces.poll_recv(cx).map(|piece| match piece {
            Some(Piece::Chunk(chunk)) => Some(Ok(Frame::data(chunk.into()))),
            Some(Piece::End) => None,
            None => Some(Err(Cut)),
        })
    }
}

struct Sender {
    pieces: mpsc::Sender<Piece>,
    runtime: Handle,
    /// The remaining patience.
    patience: Patience,
    turn: Turn,
}

impl Sender {
    fn send(&mut self, piece: Piece) -> Result<(), Closed> {
        let piece = match self.pieces.try_send(piece) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(piece)) => piece,
            Err(TrySendError::Closed(_)) => return Err(Closed),
        };
        let began = Instant::now();
        let room = self.runtime.block_on(timeout(self.patience.in_turn, self.pieces.reserve()));
        self.patience.in_turn = self.patience.in_turn.saturating_sub(began.elapsed());
        if let Ok(room) = room {
            room.map_err(|_| Closed)?.send(piece);
            return Ok(());
        }
        if !self.turn.give_back() {
            return Err(Closed);
        }
        let room = self.runtime.block_on(timeout(self.patience.stall, self.pieces.reserve()));
        room.map_err(|_| Closed)?.map_err(|_| Closed)?.send(piece);
        self.turn.take_again(&self.runtime);
        Ok(())
    }
}

impl Sink for Sender {
    fn take(&mut self, chunk: Vec<u8>) -> Result<(), Closed> {
        self.send(Piece::Chunk(chunk))
    }
}

struct Gzip<'a> {
    encoder: GzEncoder<Vec<u8>>,
    next: &'a mut Sender,
}

impl Gzip<'_> {
    fn finish(self) -> Result<(), Closed> {
        let rest = self.encoder.finish().map_err(|_| Closed)?;
        self.next.take(rest)
    }
}

impl Sink for Gzip<'_> {
    fn take(&mut self, chunk: Vec<u8>) -> Result<(), Closed> {
        // Writing to a Vec never fails.
        self.encoder.write_all(&chunk).map_err(|_| Closed)?;
        if self.encoder.get_ref().len() >= CHUNK_BYTES {
            let full = std::mem::take(self.encoder.get_mut());
            self.next.take(full)?;
        }
        Ok(())
    }
}
