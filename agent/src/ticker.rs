//! Takes a sample once per interval and puts the report into a channel. It owns the thread and the schedule.
//!
//! The channel holds only the latest report: a receiver never gets an outdated one, and nothing grows if nothing is
//! received.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use prost::Message as _;
use rustix::time::ClockId;
use tokio::sync::watch;

use crate::report::{Identity, Listed, bounded};
use crate::sample::{Failure, Sample};
use crate::sampler::Sampler;
use crate::self_metrics::SelfMetrics;

/// A report ready to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its sequence number, starting at 1.
    pub sequence: u64,
    /// The report in protobuf.
    pub bytes: Arc<[u8]>,
}

/// What each tick needs.
pub struct Tick {
    sampler: Sampler,
    identity: Identity,
    listed: Listed,
    metrics: Arc<SelfMetrics>,
    slot: watch::Sender<Option<Outgoing>>,
    sequence: u64,
    failing: Vec<Failure>,
}

impl Tick {
    /// Ticks that sample with `sampler` and put their reports into `slot`.
    pub fn new(
        sampler: Sampler,
        identity: Identity,
        listed: Listed,
        metrics: Arc<SelfMetrics>,
        slot: watch::Sender<Option<Outgoing>>,
    ) -> Self {
        Self { sampler, identity, listed, metrics, slot, sequence: 0, failing: Vec::new() }
    }

    /// Takes one sample and makes one report.
    fn run(&mut self) {
        let (started, cpu_before) = (Instant::now(), thread_cpu());
        let mut sample = self.sampler.sample();
        self.sequence += 1;
        let report = bounded(&self.identity, self.sequence, &mut sample, self.listed);
        let bytes = report.encode_to_vec();
        tracing::debug!(sequence = self.sequence, bytes = bytes.len(), "sampled");
        self.slot.send_replace(Some(Outgoing { sequence: self.sequence, bytes: bytes.into() }));
        self.metrics.ticked(&sample, started.elapsed(), thread_cpu().saturating_sub(cpu_before));
        self.log_changes(sample);
    }

    /// Logs a failure when it begins and when it ends, not in every interval.
    fn log_changes(&mut self, sample: Sample) {
        let same = |a: &Failure, b: &Failure| (a.source, a.reason) == (b.source, b.reason);
        for new in sample.failures.iter().filter(|now| !self.failing.iter().any(|old| same(now, old))) {
            let (source, reason) = (new.source.as_str(), new.reason.as_str());
            tracing::warn!(source, reason, detail = new.detail, "a source failed; its values are absent");
        }
        for old in self.failing.iter().filter(|old| !sample.failures.iter().any(|now| same(now, old))) {
            let (source, reason) = (old.source.as_str(), old.reason.as_str());
            tracing::info!(source, reason, "a source no longer fails for this reason");
        }
        self.failing = sample.failures;
    }
}

/// The running thread. Dropping it stops the ticks, and closes the channel once the tick in progress has ended.
pub struct Ticker {
    /// Dropped to stop the thread; nothing is ever sent.
    _stop: mpsc::Sender<Infallible>,
}

/// A node's offset in each interval, from 0 to 1: always the same for a name, and evenly distributed over many names.
/// Ten thousand agents that start at once, as after an update, then report one after the other.
pub fn turn(node: &str) -> f64 {
    let mut hash = DefaultHasher::new();
    hash.write(node.as_bytes());
    hash.finish() as f64 / (u64::MAX as f64 + 1.0)
}

/// Starts ticking on a thread of its own, first after this node's offset in the interval and then every `interval`.
///
/// Reading /proc, cgroups and a driver blocks: for milliseconds or, on a broken node, forever. On its own thread that
/// delays only the next sample: reports are still sent, /metrics responds, and SIGTERM ends the process. A pool of
/// blocking threads would do the same, but create and destroy a thread every interval.
pub fn start(mut tick: Tick, interval: Duration, turn: f64) -> io::Result<Ticker> {
    let (stop, stopped) = mpsc::channel::<Infallible>();
    thread::Builder::new().name("ticker".to_owned()).spawn(move || {
        let mut due = Instant::now() + interval.mul_f64(turn);
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(due.saturating_duration_since(Instant::now())) {
            tick.run();
            let (next, missed) = next_due(due, interval, Instant::now());
            tick.metrics.ticks_missed(missed);
            due = next;
        }
    })?;
    Ok(Ticker { _stop: stop })
}

/// The next multiple of `interval` after `due` that is still to come, and how many were missed: a slow tick does not
/// shift later ones, and missed ticks are not made up for.
fn next_due(due: Instant, interval: Duration, now: Instant) -> (Instant, u64) {
    let late = now.saturating_duration_since(due);
    let missed = late.as_nanos() / interval.as_nanos().max(1);
    let steps = u32::try_from(missed).unwrap_or(u32::MAX).saturating_add(1);
    (due + interval.saturating_mul(steps), u64::from(steps - 1))
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mcad_wire::report::Report;

    use super::*;
    use crate::source::machine::MachineFiles;

    #[test]
    fn a_slow_tick_is_not_made_up_for_and_does_not_shift_the_next() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let interval = Duration::from_millis(100);
        assert_eq!(next_due(start, interval, start), (at(100), 0));
        assert_eq!(next_due(start, interval, at(99)), (at(100), 0));
        assert_eq!(next_due(start, interval, at(100)), (at(200), 1));
        assert_eq!(next_due(start, interval, at(350)), (at(400), 3));
    }

    #[test]
    fn turns_are_a_nodes_own_and_evenly_spread() {
        assert_eq!(turn("gpu-17").to_bits(), turn("gpu-17").to_bits());
        let mut tenths = [0; 10];
        for node in 0..10_000 {
            tenths[(turn(&format!("gpu-{node}")) * 10.0) as usize] += 1;
        }
        // A thousand each, within four standard deviations.
        assert!(tenths.iter().all(|count| (880..1120).contains(count)), "{tenths:?}");
    }

    #[tokio::test]
    async fn ticks_leave_numbered_reports_and_close_the_slot_when_dropped() {
        let nowhere = Path::new("/nonexistent");
        let sampler = Sampler::new(Box::new(crate::clock::now), MachineFiles::new(nowhere, nowhere), Vec::new());
        let identity = Identity {
            node: "n".to_owned(),
            boot_id: String::new(),
            started_at_ms: 1,
            interval_ms: 1,
            agent_version: String::new(),
        };
        let metrics = Arc::new(SelfMetrics::new().unwrap());
        let (slot, mut reports) = watch::channel(None);
        let tick = Tick::new(sampler, identity, Listed::Pods, Arc::clone(&metrics), slot);
        let ticker = start(tick, Duration::from_millis(1), 0.5).unwrap();
        let third = |latest: &Option<Outgoing>| latest.as_ref().is_some_and(|one| one.sequence >= 3);
        let latest = reports.wait_for(third).await.unwrap().clone().unwrap();
        let report = mcad_wire::report::Report::decode(&*latest.bytes).unwrap();
        assert_eq!(report.sequence, latest.sequence);
        assert_eq!(report, Report { node: "n".to_owned(), ..report.clone() });
        drop(ticker);
        while reports.changed().await.is_ok() {}
    }
}
