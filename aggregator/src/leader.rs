//! Which replica is the leader. Owns the answer that every scrape needs: whether this replica is the leader now.
//!
//! The holder of the Lease is the leader, but only until half of the Lease's duration after its last renewal was *requested*, by
//! this machine's own clocks. Nothing has to run for leadership to end: a process that was paused, or whose timers are late, finds
//! at its next scrape that its time is over. `election` has the rules, `lease` the requests.
pub mod election;
pub mod lease;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcad_accounting::now::Now;
use mcad_accounting::snapshot::Role;
use tokio::sync::watch;

/// Whether this replica is the leader; clones share their state.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    mandate: Mutex<Mandate>,
    /// The number of scrapes without cluster metrics that were read to the end.
    silent_scrapes: watch::Sender<u64>,
}

/// What makes this replica the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mandate {
    /// There is no other replica.
    Sole,
    /// A Lease decides.
    Elected {
        /// When the last renewal was requested. `None` if this replica does not hold the Lease.
        renewed: Option<Now>,
        /// How long a renewal counts.
        lasts: Duration,
    },
    /// It holds the Lease and is about to release it.
    HandingOver,
}

impl Mandate {
    /// Also uses the wall clock, since a suspended machine may have stopped the other clock. The clock by which more time has
    /// passed counts.
    fn role(self, now: Now) -> Role {
        match self {
            Self::Sole => Role::Leader,
            Self::Elected { renewed: Some(renewed), lasts } if elapsed(renewed, now) < lasts => Role::Leader,
            Self::Elected { .. } | Self::HandingOver => Role::Standby,
        }
    }
}

/// Time since `then`, by the clock by which more time has passed.
fn elapsed(then: Now, now: Now) -> Duration {
    let by_wall = Duration::from_millis(now.unix_ms.saturating_sub(then.unix_ms));
    now.since(then).max(by_wall)
}

impl Leadership {
    /// For a single replica.
    pub fn sole() -> Self {
        Self::new(Mandate::Sole)
    }

    /// For a replica that must hold the Lease, and does not hold it yet.
    pub fn elected(lasts: Duration) -> Self {
        Self::new(Mandate::Elected { renewed: None, lasts })
    }

    fn new(mandate: Mandate) -> Self {
        Self(Arc::new(Shared { mandate: Mutex::new(mandate), silent_scrapes: watch::Sender::new(0) }))
    }

    /// The role of this replica at that instant.
    pub fn role(&self, now: Now) -> Role {
        self.mandate().role(now)
    }

    /// Sets when the last renewal of the Lease was requested; `None` if this replica does not hold it.
    pub fn renewed(&self, at: Option<Now>) {
        if let Mandate::Elected { renewed, .. } = &mut *self.mandate() {
            *renewed = at;
        }
    }

    /// Records that a scrape was read to its end in which this replica had that role.
    pub fn scraped(&self, role: Role) {
        if role == Role::Standby {
            self.0.silent_scrapes.send_modify(|scrapes| *scrapes += 1);
        }
    }

    /// Stops being the leader for good and waits until a scrape has seen that: until one more scrape was read to its end, or
    /// `limit` has passed. Prometheus marks series as stale when a scrape lacks them; before that, sums would count the series of
    /// the next leader in addition. Returns at once if this replica is not the leader.
    pub async fn hand_over(&self, now: Now, limit: Duration) {
        let mut scrapes = self.0.silent_scrapes.subscribe();
        {
            let mut mandate = self.mandate();
            if !matches!(*mandate, Mandate::Elected { .. }) || mandate.role(now) != Role::Leader {
                return;
            }
            *mandate = Mandate::HandingOver;
            scrapes.mark_unchanged();
        }
        tracing::info!(limit_s = limit.as_secs(), "handing over: the next scrape has no cluster metrics");
        if tokio::time::timeout(limit, scrapes.changed()).await.is_ok() {
            tracing::info!("handed over: a scrape has seen the end of the cluster metrics");
        } else {
            tracing::warn!("handing over without a scrape: until the next scrape, sums may count twice");
        }
    }

    /// Every change is complete before a panic is possible, so a poisoned lock can be used.
    fn mandate(&self) -> MutexGuard<'_, Mandate> {
        self.0.mandate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(15);

    /// Seconds by the monotonic clock and by the wall clock.
    fn at(running_s: u64, wall_s: u64) -> Now {
        Now { since_start: Duration::from_secs(running_s), unix_ms: wall_s * 1000 }
    }

    #[track_caller]
    fn check(renewed: Now, now: Now, expected: Role) {
        let leadership = Leadership::elected(LASTS);
        leadership.renewed(Some(renewed));
        assert_eq!(leadership.role(now), expected, "{renewed:?} {now:?}");
    }

    #[test]
    fn a_renewal_counts_for_a_time_by_whichever_clock_ran_further() {
        check(at(10, 1000), at(10, 1000), Role::Leader);
        check(at(10, 1000), at(24, 1014), Role::Leader);
        check(at(10, 1000), at(25, 1015), Role::Standby);
        // On a suspended machine, the monotonic clock may have stood still.
        check(at(10, 1000), at(11, 1060), Role::Standby);
        // The wall clock was set back: the monotonic clock still counts.
        check(at(10, 1000), at(24, 900), Role::Leader);
        check(at(10, 1000), at(25, 900), Role::Standby);
    }

    #[test]
    fn without_a_renewal_it_is_a_standby_and_without_another_replica_always_the_leader() {
        assert_eq!(Leadership::elected(LASTS).role(at(0, 0)), Role::Standby);
        let sole = Leadership::sole();
        sole.renewed(None);
        assert_eq!(sole.role(at(1 << 40, 0)), Role::Leader);
    }

    #[tokio::test(start_paused = true)]
    async fn handing_over_ends_the_speaking_at_once_and_waits_for_a_scrape_that_saw_it() {
        let leadership = Leadership::elected(LASTS);
        leadership.renewed(Some(at(10, 10)));
        leadership.scraped(Role::Standby);
        let began = tokio::time::Instant::now();
        let speaker = leadership.clone();
        let meanwhile = async {
            tokio::task::yield_now().await;
            assert_eq!(speaker.role(at(10, 10)), Role::Standby);
            // A scrape that began before and still had the cluster metrics.
            speaker.scraped(Role::Leader);
            // A renewal in the meantime does not make it the leader again.
            speaker.renewed(Some(at(11, 11)));
            assert_eq!(speaker.role(at(11, 11)), Role::Standby);
            tokio::time::sleep(Duration::from_secs(7)).await;
            speaker.scraped(Role::Standby);
        };
        tokio::join!(leadership.hand_over(at(10, 10), Duration::from_secs(30)), meanwhile);
        assert_eq!(began.elapsed(), Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hand_over_that_nobody_scrapes_has_a_limit() {
        let leadership = Leadership::elected(LASTS);
        leadership.renewed(Some(at(10, 10)));
        let began = tokio::time::Instant::now();
        leadership.hand_over(at(10, 10), Duration::from_secs(30)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_speak_has_nothing_to_hand_over() {
        let began = tokio::time::Instant::now();
        Leadership::sole().hand_over(at(10, 10), Duration::from_secs(30)).await;
        Leadership::elected(LASTS).hand_over(at(10, 10), Duration::from_secs(30)).await;
        let late = Leadership::elected(LASTS);
        late.renewed(Some(at(10, 10)));
        late.hand_over(at(60, 60), Duration::from_secs(30)).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
