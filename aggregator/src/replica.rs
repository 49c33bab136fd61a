//! What one running aggregator holds: the store behind its lock, the clock, the figures about itself. Owns the order of the
//! steps from a body to the store and from the store to a snapshot; knows no transport.
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::{Clock, Now};
use crate::exposition::{Closed, Exposition, Sink};
use crate::merge::{self, Snapshot, View};
use crate::metrics;
use crate::receive::{self, Refusal};
use crate::self_metrics::SelfMetrics;
use crate::store::{Outcome, Store};

/// One running aggregator.
#[derive(Debug)]
pub struct Replica {
    clock: Clock,
    view: View,
    store: Mutex<Store>,
    figures: SelfMetrics,
}

impl Replica {
    /// One that has heard nothing yet.
    pub fn new(clock: Clock, view: View, store: Store, figures: SelfMetrics) -> Self {
        Self { clock, view, store: Mutex::new(store), figures }
    }

    /// The figures about itself.
    pub fn figures(&self) -> &SelfMetrics {
        &self.figures
    }

    /// What time it is here.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Takes the body of a report and counts what became of it.
    pub fn take(&self, body: Result<&[u8], Refusal>) -> Result<Outcome, Refusal> {
        let outcome = body.and_then(receive::receive).and_then(|received| {
            let node = received.node.clone();
            let now = self.now();
            self.store().insert(received, now).inspect(|outcome| tracing::debug!(%node, ?outcome, "report received"))
        });
        match &outcome {
            Ok(Outcome::Taken) => self.figures.received.inc(),
            Ok(Outcome::Dropped(reason)) => self.figures.dropped(*reason),
            Err(refusal) => self.count_refusal(refusal),
        }
        outcome
    }

    /// The snapshot of this instant.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.now();
        let reports = self.store().reports(now);
        merge::merge(self.view, &reports, now)
    }

    /// Writes `/metrics`, all from one snapshot, and says how many bytes it was.
    pub fn expose(&self, sink: &mut dyn Sink) -> Result<u64, Closed> {
        let began = self.now();
        let snapshot = self.snapshot();
        let mut out = Exposition::new(sink);
        metrics::write(&snapshot, self.now(), &mut out);
        match self.figures.text() {
            Ok(text) => out.raw(&text),
            // Without them the rest is still right.
            Err(error) => tracing::error!(%error, "the figures about itself could not be written"),
        }
        let result = out.finish();
        match result {
            Ok(bytes) => self.figures.scraped(self.now().since(began), bytes),
            Err(Closed) => self.figures.scrapes_cut.inc(),
        }
        result
    }

    fn count_refusal(&self, refusal: &Refusal) {
        // The first of its kind is a change of state; the rest are counted.
        if self.figures.refused(refusal) == 0 {
            tracing::warn!(reason = refusal.reason(), %refusal, "first report refused for this reason");
        } else {
            tracing::debug!(reason = refusal.reason(), %refusal, "report refused");
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // Every change of the store is one insertion or removal, so a thread that died in between left it whole.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
