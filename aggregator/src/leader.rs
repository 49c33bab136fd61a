//! Which of the replicas speaks for the cluster. Owns the answer that every scrape asks for: whether this one does, now.
//!
//! Whoever holds the Lease speaks, and only until half of its duration after the last renewal was *asked for*, by this
//! machine's own clocks. Nothing has to run for that to end: a process that was paused, or whose timers are late, finds
//! at its next scrape that its time is over. The election itself is `election`'s, its requests are `lease`'s.
pub mod election;
pub mod lease;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcad_accounting::merge::Role;
use mcad_accounting::now::Now;
use tokio::sync::watch;

/// Whether this replica speaks for the cluster; all clones are one.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    mandate: Mutex<Mandate>,
    /// How many scrapes were read to their end that had nothing of the cluster in them.
    silent_scrapes: watch::Sender<u64>,
}

/// By what right this replica speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mandate {
    /// There is no other.
    Sole,
    /// A Lease says who.
    Elected {
        /// When the last renewal was asked for. Absent: it does not hold the Lease.
        renewed: Option<Now>,
        /// For how long that counts.
        lasts: Duration,
    },
    /// It holds the Lease, and is about to give it away.
    HandingOver,
}

impl Mandate {
    /// The wall clock is asked, too: a machine that was suspended may have stopped the other one. Whichever says that more
    /// time has passed is believed.
    fn role(self, now: Now) -> Role {
        match self {
            Self::Sole => Role::Leader,
            Self::Elected { renewed: Some(renewed), lasts } if elapsed(renewed, now) < lasts => Role::Leader,
            Self::Elected { .. } | Self::HandingOver => Role::Standby,
        }
    }
}

/// Time since `then`, by the clock that says more.
fn elapsed(then: Now, now: Now) -> Duration {
    let by_wall = Duration::from_millis(now.unix_ms.saturating_sub(then.unix_ms));
    now.since(then).max(by_wall)
}

impl Leadership {
    /// Of a replica that has no other beside it.
    pub fn sole() -> Self {
        Self::new(Mandate::Sole)
    }

    /// Of one that has to hold the Lease; it does not yet.
    pub fn elected(lasts: Duration) -> Self {
        Self::new(Mandate::Elected { renewed: None, lasts })
    }

    fn new(mandate: Mandate) -> Self {
        Self(Arc::new(Shared { mandate: Mutex::new(mandate), silent_scrapes: watch::Sender::new(0) }))
    }

    /// What this replica is at that instant.
    pub fn role(&self, now: Now) -> Role {
        self.mandate().role(now)
    }

    /// The last renewal of the Lease was asked for then; absent, it is not held.
    pub fn renewed(&self, at: Option<Now>) {
        if let Mandate::Elected { renewed, .. } = &mut *self.mandate() {
            *renewed = at;
        }
    }

    /// A scrape was read to its end, in which this replica was that.
    pub fn scraped(&self, role: Role) {
        if role == Role::Standby {
            self.0.silent_scrapes.send_modify(|scrapes| *scrapes += 1);
        }
    }

    /// Stops speaking for good, and waits until that was seen: until one more scrape was read to its end, or `limit` is
    /// over. Prometheus marks series as ended when a scrape lacks them; before that the next leader's would be added to
    /// them. Without having spoken there is nothing to wait for.
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
        tracing::info!(limit_s = limit.as_secs(), "handing over: the cluster's figures end with the next scrape");
        if tokio::time::timeout(limit, scrapes.changed()).await.is_ok() {
            tracing::info!("handed over: a scrape has seen the end of the cluster's figures");
        } else {
            tracing::warn!("handing over without a scrape: until the next one, sums may count twice");
        }
    }

    /// Every change of it is whole before it can panic.
    fn mandate(&self) -> MutexGuard<'_, Mandate> {
        self.0.mandate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(15);

    /// So many seconds by the clock that only runs, and by the one on the wall.
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
        // A suspended machine's running clock may have stood still.
        check(at(10, 1000), at(11, 1060), Role::Standby);
        // The wall clock was set back: the other one still runs.
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
            // One that began before, and that still had everything in it.
            speaker.scraped(Role::Leader);
            // A renewal that comes in the meantime does not make it speak again.
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
