//! Who holds the Lease: the rules by which replicas take turns, as Kubernetes' own components have them. Owns what to do
//! next; pure: (what was known, what happened, when) to (what is known, what to do). It knows no API.
//!
//! - Time is this machine's own. That a holder is gone is known by its record not changing for as long as the Lease lasts
//!   *since it was first seen here*, whatever times stand in it.
//! - Every write names the version of the record that it rests on: of two that race one is refused.
//! - What counts of a renewal is when it was asked for, not when it was answered. So whoever waited for the whole duration
//!   began to wait after the holder's time had begun.
use std::time::Duration;

use mcad_accounting::now::Now;

/// How the election is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This replica, in this life of it.
    pub identity: String,
    /// For how long others hold off after the last renewal that they saw.
    pub duration: Duration,
}

impl Settings {
    /// For how long a renewal allows to speak for the cluster. The other half of the duration is for Prometheus to see that
    /// this replica does not any more, before another does.
    pub fn speaks(&self) -> Duration {
        self.duration / 2
    }

    /// From one round to the next: within the time that a renewal counts, a few may fail.
    pub fn round(&self) -> Duration {
        self.duration / 10
    }

    /// For one request. One that hangs must leave room for another.
    pub fn request(&self) -> Duration {
        self.duration / 6
    }

    /// How much longer than others a replica waits that could not ask another for its totals: if one has them, it shall be
    /// that one which speaks.
    fn patience(&self) -> Duration {
        self.round() * 2
    }
}

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Changes with every write.
    pub version: String,
    /// Who holds it; empty: nobody.
    pub holder: String,
    /// For how long after a renewal.
    pub duration: Duration,
    /// Where other replicas may ask the holder for its totals.
    pub address: Option<String>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The time to wait is over.
    Tick,
    /// The Lease is this, or is not there.
    Read(Option<Record>),
    /// A write was done.
    Wrote {
        /// When it was asked for.
        asked: Now,
        /// The Lease since then.
        record: Record,
    },
    /// A request was refused, for having lost a race or otherwise, or was not answered: it may yet be done.
    Failed,
    /// This replica is about to end.
    Leave,
}

/// What this replica is fit for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does not know the cluster yet: it would have nothing to say.
    NotReady,
    /// It knows the cluster, but not what others know of the past.
    Unseeded,
    /// All that it can be.
    Ready,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wait, then tick.
    Wait(Duration),
    /// Read the Lease.
    Read,
    /// Write the Lease, as the version that was last seen.
    Write(Claim),
    /// Nothing more: the Lease is not held.
    Done,
}

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A Lease where there was none, held by this replica.
    Create,
    /// This replica instead of who held it.
    Acquire,
    /// This replica for longer.
    Renew,
    /// Nobody.
    Release,
}

/// The election, as one replica sees it.
#[derive(Clone, Debug)]
pub struct Election {
    settings: Settings,
    /// What the Lease last said, and since when it has. Absent: it was not read, or is not there.
    seen: Option<(Record, Now)>,
    /// When the renewal was asked for that was last granted. Absent: this replica does not hold the Lease.
    renewed: Option<Now>,
    /// Whether what was seen may have been overtaken.
    stale: bool,
    leaving: bool,
}

impl Election {
    /// Nothing is known, and nothing held.
    pub fn new(settings: Settings) -> Self {
        Self { settings, seen: None, renewed: None, stale: true, leaving: false }
    }

    /// The rules.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When the renewal was asked for that was last granted. Absent: this replica does not hold the Lease.
    pub fn renewed(&self) -> Option<Now> {
        self.renewed
    }

    /// What the Lease last said.
    pub fn seen(&self) -> Option<&Record> {
        self.seen.as_ref().map(|(record, _)| record)
    }

    /// Takes in what happened.
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

    /// What to write, now that the Lease was read; or until when to wait: for a round, or for the rest of the holder's time.
    fn claim(&self, standing: Standing, now: Now) -> Result<Claim, Duration> {
        let round = self.settings.round();
        let patience = match standing {
            Standing::Unseeded => self.settings.patience(),
            Standing::NotReady | Standing::Ready => Duration::ZERO,
        };
        match &self.seen {
            Some((record, _)) if record.holder == self.settings.identity => {
                Ok(if self.leaving { Claim::Release } else { Claim::Renew })
            }
            _ if standing == Standing::NotReady => Err(round),
            None => Ok(Claim::Create),
            Some((record, since)) => {
                // A holder of another version may mean to hold it for longer, or may think that others wait for longer.
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
