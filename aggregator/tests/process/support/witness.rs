//! Who speaks for the cluster, seen from outside: by scrapes of two replicas again and again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::aggregator::{Aggregator, glance};

/// A family of the cluster's, there as soon as the cluster is known.
pub(crate) const OF_THE_CLUSTER: &str = "\nmcad_nodes{state=";

/// Whether this replica speaks for the cluster.
pub(crate) fn speaks(replica: &Aggregator) -> bool {
    replica.scrape().contains(OF_THE_CLUSTER)
}

/// Scrapes both again and again, as Prometheus would, and fails if ever both spoke, the one soon after the other.
pub(crate) struct Witness {
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Seen>>,
}

/// What a witness saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) pairs: u64,
    /// Who was seen to speak, by turns.
    pub(crate) turns: Vec<usize>,
    /// When the last scrape began that saw one speak.
    pub(crate) last: Option<Instant>,
}

impl Witness {
    pub(crate) fn of(replicas: [&Aggregator; 2]) -> Self {
        let addresses = replicas.map(|replica| replica.metrics.clone());
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            loop {
                // What is there when it is asked what it saw, it has seen.
                let is_last = ended.load(Ordering::Relaxed);
                let began = Instant::now();
                let speaks = thread::scope(|scope| {
                    let scrapes = [0, 1].map(|who| {
                        scope.spawn({
                            let address = &addresses[who];
                            move || glance(address).is_some_and(|text| text.contains(OF_THE_CLUSTER))
                        })
                    });
                    scrapes.map(|scrape| scrape.join().unwrap())
                });
                assert_ne!(speaks, [true, true], "both spoke: {seen:?}");
                seen.pairs += 1;
                if let Some(who) = speaks.iter().position(|speaks| *speaks) {
                    seen.last = Some(began);
                    if seen.turns.last() != Some(&who) {
                        seen.turns.push(who);
                    }
                }
                if is_last {
                    return seen;
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self { end, thread: Some(thread) }
    }

    pub(crate) fn saw(mut self) -> Seen {
        self.end.store(true, Ordering::Relaxed);
        let seen = self.thread.take().unwrap().join().unwrap();
        assert!(seen.pairs > 1, "{seen:?}");
        seen
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}
