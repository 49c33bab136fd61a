//! What pages are made from, and the streams that update them. Owns the last hour, the interval of updates, and the limit of
//! streams. [`mcad_present::page`] owns the content of pages.
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Either;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use mcad_accounting::now::Now;
use mcad_accounting::snapshot::Snapshot;
use mcad_present::history::History;
use mcad_present::page::query::PageQuery;
use mcad_present::page::{self, Shown};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::Shared;
use super::answer::{Answer, text};
use super::draining;
use super::scrape::{Chunks, Piece};
use crate::replica::Replica;

/// Pieces in the queue of a stream. A slow reader gets the newest snapshot next, not all snapshots that it missed.
const PIECES_AHEAD: usize = 1;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Board {
    history: Mutex<Arc<History>>,
    /// What open pages get next. `None` before the first update, and while no page is open.
    posted: watch::Sender<Option<Arc<Posted>>>,
    streams: Arc<Semaphore>,
    most_streams: usize,
}

/// One instant, for all open pages.
#[derive(Debug)]
pub(super) struct Posted {
    snapshot: Snapshot,
    history: Arc<History>,
}

impl Posted {
    pub(super) fn shown(&self) -> Shown<'_> {
        Shown { snapshot: &self.snapshot, history: &self.history }
    }
}

impl Board {
    pub(super) fn new(streams: usize) -> Self {
        Self {
            history: Mutex::default(),
            posted: watch::Sender::new(None),
            streams: Arc::new(Semaphore::new(streams)),
            most_streams: streams,
        }
    }

    fn is_watched(&self) -> bool {
        self.streams.available_permits() < self.most_streams
    }

    /// A snapshot of now, and the last hour. Takes time for a large cluster.
    pub(super) fn look(&self, replica: &Replica) -> Posted {
        Posted { snapshot: replica.snapshot(), history: Arc::clone(&self.history()) }
    }

    fn remember(&self, snapshot: &Snapshot) {
        // Pages that are being rendered keep the previous history.
        Arc::make_mut(&mut self.history()).add(snapshot);
    }

    /// A poisoned lock is used: no change can panic half-way.
    fn history(&self) -> std::sync::MutexGuard<'_, Arc<History>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a snapshot at each beat while a page is open, and whenever the history needs a point, until the drain.
pub(super) async fn keep(shared: &Arc<Shared>) {
    let mut phase = shared.phase.clone();
    let mut beats = tokio::time::interval(shared.limits.beat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut remembered: Option<Now> = None;
    loop {
        tokio::select! {
            () = draining(&mut phase) => return,
            _ = beats.tick() => {}
        }
        // Beats do not fall on steps exactly: half a beat early is accepted.
        let step = shared.limits.history_step.saturating_sub(shared.limits.beat / 2);
        let due = remembered.is_none_or(|at| shared.replica.now().since(at) >= step);
        if !due && !shared.board.is_watched() {
            continue;
        }
        let Some(turn) = shared.turns.own().await else { return };
        let looking = Arc::clone(shared);
        let looked = tokio::task::spawn_blocking(move || {
            let snapshot = looking.replica.snapshot();
            if due {
                looking.board.remember(&snapshot);
            }
            drop(turn);
            Posted { snapshot, history: Arc::clone(&looking.board.history()) }
        });
        // It panicked, and the panic was printed. The next snapshot may succeed.
        let Ok(posted) = looked.await else { continue };
        if due {
            remembered = Some(posted.snapshot.made);
        }
        let posted = shared.board.is_watched().then(|| Arc::new(posted));
        // Without open pages it is not kept: a snapshot of a large cluster is large.
        shared.board.posted.send_replace(posted);
    }
}

/// Begins the stream of updates of a page.
pub(super) fn stream(query: PageQuery, shared: &Arc<Shared>) -> Answer {
    let Ok(place) = Arc::clone(&shared.board.streams).try_acquire_owned() else {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many open pages update themselves; reload this page to update it",
        );
    };
    let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
    // Nobody joins this task: it ends when its reader leaves or the drain begins, and the reader sees that.
    drop(tokio::spawn(send_updates(query, Arc::clone(shared), pieces, place)));
    let mut answer = Response::new(Either::Right(Chunks::new(receiver)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

async fn send_updates(
    query: PageQuery,
    shared: Arc<Shared>,
    pieces: mpsc::Sender<Piece>,
    _place: OwnedSemaphorePermit,
) {
    let (mut phase, mut posted) = (shared.phase.clone(), shared.board.posted.subscribe());
    // What was posted before may be older than the open page.
    posted.mark_unchanged();
    let query = Arc::new(query);
    let mut sent_hash = None;
    let mut event = format!("retry: {}\n\n", shared.limits.beat.max(Duration::from_secs(1)).as_millis());
    loop {
        tokio::select! {
            () = draining(&mut phase) => break,
            sent = pieces.send(Piece::Chunk(event.into_bytes())) => if sent.is_err() { return },
        }
        let next = tokio::select! {
            () = draining(&mut phase) => break,
            () = pieces.closed() => return,
            changed = posted.changed() => {
                if changed.is_err() {
                    break;
                }
                posted.borrow_and_update().clone()
            }
        };
        event = String::new();
        let Some(next) = next else { continue };
        let (requested, now) = (Arc::clone(&query), shared.replica.now());
        let rendered = tokio::task::spawn_blocking(move || page::renew(&requested, &next.shown(), now));
        // It panicked, and the panic was printed. The next update may succeed.
        let Ok(html) = rendered.await else { continue };
        let mut hasher = DefaultHasher::new();
        html.hash(&mut hasher);
        let hash = hasher.finish();
        event =
            if sent_hash.replace(hash) == Some(hash) { "event: same\ndata: 0\n\n".to_owned() } else { spelled(&html) };
    }
    // The reader may have left already.
    let _ = pieces.try_send(Piece::End);
}

/// An event in the format of event streams: each line of the data has a line of its own.
fn spelled(html: &str) -> String {
    let mut event = String::with_capacity(html.len() + 64);
    event.push_str("event: page\n");
    for line in html.split(['\n', '\r']) {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_page_ends_an_event() {
        assert_eq!(spelled("a\nevent: x\r\rb"), "event: page\ndata: a\ndata: event: x\ndata: \ndata: b\n\n");
    }
}
