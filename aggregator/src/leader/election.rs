//! The rules of the leader election, like those of Kubernetes' own components. Owns the next action; pure: (state, event, time) to
//! (state, action). Uses no API.
//!
//! - Time is that of this machine. A holder is gone if its record has not changed for the duration of the Lease *since it was first
//!   seen here*, whatever times the record contains.
//! - Every write names the resource version that it is based on: if two writes race, one is refused.
//! - A renewal counts from when it was requested, not from when it was answered. So a replica that has waited for the whole
//!   duration began to wait after the holder's time had begun.
use std::time::Duration;

use mcad_accounting::now::Now;

/// The settings of the election.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This process of this replica.
    pub identity: String,
    /// How long other replicas wait after the last renewal that they saw.
    pub duration: Duration,
}

impl Settings {
    /// How long this replica is the leader after a renewal. In the other half of the duration, Prometheus sees that it no longer
    /// is, before another replica becomes the leader.
    pub fn speaks(&self) -> Duration {
        self.duration / 2
    }

    /// Time between two rounds: a few may fail while a renewal counts.
    pub fn round(&self) -> Duration {
        self.duration / 10
    }

    /// Time-out of one request. A request that hangs must leave time for another.
    pub fn request(&self) -> Duration {
        self.duration / 6
    }

    /// How much longer than others a replica without a state transfer waits: a replica that has the totals should become the
    /// leader.
    fn patience(&self) -> Duration {
        self.round() * 2
    }
}

/// The content of a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Changes with every write.
    pub version: String,
    /// The holder's identity; empty if nobody holds it.
    pub holder: String,
    /// How long it is held after a renewal.
    pub duration: Duration,
    /// The address at which other replicas can request a state transfer from the holder.
    pub address: Option<String>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The time to wait is over.
    Tick,
    /// The Lease was read; `None` if it does not exist.
    Read(Option<Record>),
    /// A write succeeded.
    Wrote {
        /// When it was requested.
        asked: Now,
        /// The Lease after the write.
        record: Record,
    },
    /// A request was refused, for example because it lost a race, or was not answered: a write may still take effect.
    Failed,
    /// This replica is about to end.
    Leave,
}

/// Whether this replica may become the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does not know the cluster yet, so it has no metrics to export.
    NotReady,
    /// It knows the cluster, but has not received the history from another replica.
    WithoutHistory,
    /// It knows the cluster and the history.
    Ready,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wait, then tick.
    Wait(Duration),
    /// Read the Lease.
    Read,
    /// Write the Lease, based on the version that was last seen.
    Write(Claim),
    /// Nothing more to do: this replica does not hold the Lease.
    Done,
}

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A new Lease, held by this replica.
    Create,
    /// This replica as the new holder.
    Acquire,
    /// A renewal by this replica.
    Renew,
    /// No holder.
    Release,
}

/// The election, as one replica sees it.
#[derive(Clone, Debug)]
pub struct Election {
    settings: Settings,
    /// The last content of the Lease, and when it was first seen. `None` if it was not read or does not exist.
    seen: Option<(Record, Now)>,
    /// When the last successful renewal was requested. `None` if this replica does not hold the Lease.
    renewed: Option<Now>,
    /// Whether the content may be outdated.
    stale: bool,
    leaving: bool,
}

impl Election {
    /// A new election: the Lease was not read and is not held.
    pub fn new(settings: Settings) -> Self {
        Self { settings, seen: None, renewed: None, stale: true, leaving: false }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When the last successful renewal was requested. `None` if this replica does not hold the Lease.
    pub fn renewed(&self) -> Option<Now> {
        self.renewed
    }

    /// The last content of the Lease.
    pub fn seen(&self) -> Option<&Record> {
        self.seen.as_ref().map(|(record, _)| record)
    }

    /// Processes an event and returns the next action.
    pub fn step(&mut self, event: Event, standing: Standing, now: Now) -> Action {
        match event {
            Event::Tick => self.begin(),
            Event::Leave => {
                self.leaving = true;
                self.begin()
            }
            Event::Failed => {
                self.stale = true;
                if self.leaving && self.renewed.is_none() { Action::Done } else { self.wait() }
            }
            Event::Read(record) => {
                self.see(record, now);
                if self.leaving && self.renewed.is_none() {
                    return Action::Done;
                }
                self.claim(standing, now).map_or_else(Action::Wait, Action::Write)
            }
            Event::Wrote { asked, record } => {
                self.see(Some(record), now);
                self.renewed = self.holds().then_some(asked);
                match (self.leaving, self.renewed) {
                    (true, None) => Action::Done,
                    (true, Some(_)) => Action::Write(Claim::Release),
                    (false, _) => self.wait(),
                }
            }
        }
    }

    fn wait(&self) -> Action {
        Action::Wait(self.settings.round())
    }

    /// The first request of a round.
    fn begin(&self) -> Action {
        match (self.renewed, self.leaving, self.stale) {
            (None, true, _) => Action::Done,
            (None, false, _) | (Some(_), _, true) => Action::Read,
            (Some(_), true, false) => Action::Write(Claim::Release),
            (Some(_), false, false) => Action::Write(Claim::Renew),
        }
    }

    fn see(&mut self, record: Option<Record>, now: Now) {
        self.stale = false;
        let since =
            self.seen.take().filter(|(known, _)| Some(known) == record.as_ref()).map_or(now, |(_, since)| since);
        self.seen = record.map(|record| (record, since));
        if !self.holds() {
            self.renewed = None;
        }
    }

    fn holds(&self) -> bool {
        self.seen().is_some_and(|record| record.holder == self.settings.identity)
    }

    /// What to write after the Lease was read, or how long to wait: one round, or the rest of the holder's time.
    fn claim(&self, standing: Standing, now: Now) -> Result<Claim, Duration> {
        let round = self.settings.round();
        let patience = match standing {
            Standing::WithoutHistory => self.settings.patience(),
            Standing::NotReady | Standing::Ready => Duration::ZERO,
        };
        match &self.seen {
            Some((record, _)) if record.holder == self.settings.identity => {
                Ok(if self.leaving { Claim::Release } else { Claim::Renew })
            }
            _ if standing == Standing::NotReady => Err(round),
            None => Ok(Claim::Create),
            Some((record, since)) => {
                // A holder of another version may hold it for longer, or may assume that others wait for longer.
                let held = record.duration.max(self.settings.duration);
                let free = if record.holder.is_empty() { patience } else { held + patience };
                match free.saturating_sub(now.since(*since)) {
                    Duration::ZERO => Ok(Claim::Acquire),
                    rest => Err(rest.min(round)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
