//! Tests of the rules of the election with values: no API, and the test sets the time.
use super::*;

fn at(seconds: u64) -> Now {
    Now { since_start: Duration::from_secs(seconds), unix_ms: seconds * 1000 }
}

fn election() -> Election {
    Election::new(Settings { identity: "me".into(), duration: Duration::from_secs(30) })
}

fn record(version: u64, holder: &str) -> Record {
    Record { version: version.to_string(), holder: holder.into(), duration: Duration::from_secs(30), address: None }
}

const ROUND: Action = Action::Wait(Duration::from_secs(3));

/// The rest of the holder's time.
const A_SECOND: Action = Action::Wait(Duration::from_secs(1));

/// Plays a sequence of events, each with time in seconds and standing, and checks the action and the time of the renewal by which the
/// Lease is held.
#[track_caller]
fn check(story: &[(u64, Standing, Event, Action, Option<u64>)]) -> Election {
    let mut election = election();
    for (seconds, standing, event, expected, renewed) in story {
        let action = election.step(event.clone(), *standing, at(*seconds));
        assert_eq!(action, *expected, "at {seconds} s, after {event:?}");
        assert_eq!(election.renewed(), renewed.map(at), "at {seconds} s, after {event:?}");
    }
    election
}

use Event::{Failed, Leave, Read, Tick, Wrote};
use Standing::{NotReady, Ready, WithoutHistory};

fn wrote(asked_s: u64, version: u64, holder: &str) -> Event {
    Wrote { asked: at(asked_s), record: record(version, holder) }
}

#[test]
fn where_there_is_no_lease_it_is_made_and_then_renewed_without_being_read_again() {
    check(&[
        (0, Ready, Tick, Action::Read, None),
        (1, Ready, Read(None), Action::Write(Claim::Create), None),
        // The time of the request counts.
        (3, Ready, wrote(1, 1, "me"), ROUND, Some(1)),
        (6, Ready, Tick, Action::Write(Claim::Renew), Some(1)),
        (7, Ready, wrote(6, 2, "me"), ROUND, Some(6)),
    ]);
}

#[test]
fn a_holder_is_gone_when_its_record_has_not_changed_for_the_whole_duration_by_our_own_clock() {
    check(&[
        (100, Ready, Read(Some(record(1, "other"))), ROUND, None),
        (129, Ready, Read(Some(record(1, "other"))), A_SECOND, None),
        // It was renewed, so its time restarts.
        (130, Ready, Read(Some(record(2, "other"))), ROUND, None),
        (159, Ready, Read(Some(record(2, "other"))), A_SECOND, None),
        (160, Ready, Read(Some(record(2, "other"))), Action::Write(Claim::Acquire), None),
        (161, Ready, wrote(160, 3, "me"), ROUND, Some(160)),
    ]);
}

#[test]
fn a_holder_that_means_to_hold_longer_is_given_that_time_and_one_that_means_shorter_ours() {
    for (duration_s, gone_s) in [(60, 60), (5, 30)] {
        let held = Record { duration: Duration::from_secs(duration_s), ..record(1, "other") };
        check(&[
            (0, Ready, Read(Some(held.clone())), ROUND, None),
            (gone_s - 1, Ready, Read(Some(held.clone())), A_SECOND, None),
            (gone_s, Ready, Read(Some(held)), Action::Write(Claim::Acquire), None),
        ]);
    }
}

#[test]
fn a_lease_that_was_released_is_taken_at_once() {
    check(&[(5, Ready, Read(Some(record(1, ""))), Action::Write(Claim::Acquire), None)]);
}

#[test]
fn who_does_not_know_the_past_lets_others_go_first() {
    check(&[
        (0, WithoutHistory, Read(Some(record(1, ""))), ROUND, None),
        (5, WithoutHistory, Read(Some(record(1, ""))), A_SECOND, None),
        (6, WithoutHistory, Read(Some(record(1, ""))), Action::Write(Claim::Acquire), None),
    ]);
    check(&[
        (0, WithoutHistory, Read(Some(record(1, "other"))), ROUND, None),
        (35, WithoutHistory, Read(Some(record(1, "other"))), A_SECOND, None),
        (36, WithoutHistory, Read(Some(record(1, "other"))), Action::Write(Claim::Acquire), None),
    ]);
    // If nobody ever held it, there is no history.
    check(&[(0, WithoutHistory, Read(None), Action::Write(Claim::Create), None)]);
}

#[test]
fn who_does_not_know_the_cluster_takes_nothing() {
    check(&[
        (0, NotReady, Read(None), ROUND, None),
        (3, NotReady, Read(Some(record(1, ""))), ROUND, None),
        (900, NotReady, Read(Some(record(1, ""))), ROUND, None),
    ]);
}

#[test]
fn who_lost_a_race_reads_who_won_it() {
    check(&[
        (0, Ready, Read(Some(record(1, ""))), Action::Write(Claim::Acquire), None),
        (1, Ready, Failed, ROUND, None),
        (4, Ready, Tick, Action::Read, None),
        (5, Ready, Read(Some(record(2, "other"))), ROUND, None),
        (34, Ready, Read(Some(record(2, "other"))), A_SECOND, None),
    ]);
}

#[test]
fn a_renewal_that_is_not_answered_extends_nothing_and_is_made_up_for() {
    let election = check(&[
        (0, Ready, Read(None), Action::Write(Claim::Create), None),
        (0, Ready, wrote(0, 1, "me"), ROUND, Some(0)),
        (3, Ready, Tick, Action::Write(Claim::Renew), Some(0)),
        (8, Ready, Failed, ROUND, Some(0)),
        // The write may have succeeded: only a read shows the current version.
        (11, Ready, Tick, Action::Read, Some(0)),
        (12, Ready, Read(Some(record(2, "me"))), Action::Write(Claim::Renew), Some(0)),
        (13, Ready, wrote(12, 3, "me"), ROUND, Some(12)),
    ]);
    assert_eq!(election.settings().speaks(), Duration::from_secs(15));
}

#[test]
fn whoever_was_paused_past_its_lease_reads_of_its_successor_and_holds_nothing() {
    check(&[
        (0, Ready, Read(None), Action::Write(Claim::Create), None),
        (0, Ready, wrote(0, 1, "me"), ROUND, Some(0)),
        // Suspended for a minute: the timer fires late, and the renewal is based on an outdated version.
        (63, Ready, Tick, Action::Write(Claim::Renew), Some(0)),
        (63, Ready, Failed, ROUND, Some(0)),
        (66, Ready, Tick, Action::Read, Some(0)),
        (66, Ready, Read(Some(record(2, "other"))), ROUND, None),
    ]);
}

#[test]
fn a_pause_of_the_one_who_waits_is_no_sign_that_the_holder_is_gone() {
    check(&[
        (0, Ready, Read(Some(record(1, "other"))), ROUND, None),
        (600, Ready, Tick, Action::Read, None),
        (600, Ready, Read(Some(record(200, "other"))), ROUND, None),
    ]);
}

#[test]
fn a_lease_that_somebody_deleted_is_no_longer_held() {
    check(&[
        (0, Ready, Read(None), Action::Write(Claim::Create), None),
        (0, Ready, wrote(0, 1, "me"), ROUND, Some(0)),
        (3, Ready, Failed, ROUND, Some(0)),
        (6, Ready, Read(None), Action::Write(Claim::Create), None),
    ]);
}

#[test]
fn who_leaves_gives_the_lease_back_and_who_has_none_just_leaves() {
    check(&[
        (0, Ready, Read(None), Action::Write(Claim::Create), None),
        (0, Ready, wrote(0, 1, "me"), ROUND, Some(0)),
        (2, Ready, Leave, Action::Write(Claim::Release), Some(0)),
        (2, Ready, wrote(2, 2, ""), Action::Done, None),
    ]);
    check(&[(0, Ready, Read(Some(record(1, "other"))), ROUND, None), (1, Ready, Leave, Action::Done, None)]);
}

#[test]
fn who_leaves_after_a_request_that_failed_looks_first_and_never_takes_a_lease() {
    check(&[
        (0, Ready, Read(None), Action::Write(Claim::Create), None),
        (0, Ready, wrote(0, 1, "me"), ROUND, Some(0)),
        (3, Ready, Failed, ROUND, Some(0)),
        (4, Ready, Leave, Action::Read, Some(0)),
        (4, Ready, Read(Some(record(2, "me"))), Action::Write(Claim::Release), Some(0)),
        (5, Ready, Failed, ROUND, Some(0)),
        (8, Ready, Tick, Action::Read, Some(0)),
        (8, Ready, Read(Some(record(3, "other"))), Action::Done, None),
    ]);
}

/// Two replicas and one Lease, with all possible failures between them; time in steps of 100 ms.
mod two {
    use mcad_accounting::snapshot::Role;
    use proptest::prelude::*;

    use super::*;
    use crate::leader::Leadership;

    struct Replica {
        election: Election,
        leadership: Leadership,
        /// Suspended until then: it does nothing, but may be scraped as it wakes.
        asleep_until: u64,
        /// What it waits for: a time, or an answer to a request.
        waits: Waits,
    }

    enum Waits {
        Until(u64),
        /// The answer to a request, with the time of the request and of the answer, unless it is lost.
        Answer {
            asked: u64,
            comes: u64,
            event: Option<Event>,
        },
    }

    fn now(tick: u64) -> Now {
        Now { since_start: Duration::from_millis(tick * 100), unix_ms: tick * 100 }
    }

    #[derive(Default)]
    struct Server {
        version: u64,
        lease: Option<Record>,
    }

    impl Server {
        fn write(&mut self, claim: Claim, base: Option<&Record>, me: &str) -> Option<Record> {
            if self.lease.as_ref() != base {
                return None;
            }
            self.version += 1;
            let holder = if claim == Claim::Release { "" } else { me };
            self.lease = Some(record(self.version, holder));
            self.lease.clone()
        }
    }

    /// The fate of a request: the time until it takes effect, the time until it is answered, and whether it or its answer is
    /// lost.
    type Fate = (u64, u64, bool, bool);

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn never_do_two_speak_and_half_the_duration_lies_between_them(
            fates in proptest::collection::vec((0..60_u64, 0..60_u64, proptest::bool::weighted(0.1), proptest::bool::weighted(0.1)), 40..400),
            sleeps in proptest::collection::vec((0..3000_u64, 0..2_usize, 1..900_u64), 0..6),
            cuts in proptest::collection::vec((0..3000_u64, 0..2_usize, 100..900_u64), 0..6),
        ) {
            let mut server = Server::default();
            // Writes in progress: when they take effect, their replica, when they were requested, and their base version.
            let mut under_way: Vec<(u64, usize, u64, Claim, Option<Record>)> = Vec::new();
            let mut fates: std::collections::VecDeque<Fate> = fates.into();
            let mut replicas = ["a", "b"].map(|identity| {
                let election = Election::new(Settings { identity: identity.into(), duration: Duration::from_secs(30) });
                Replica { leadership: Leadership::elected(election.settings().speaks()), election, asleep_until: 0, waits: Waits::Until(0) }
            });
            let mut last_spoke: Option<(u64, usize)> = None;
            for tick in 0..3000_u64 {
                for (when, who, long) in &sleeps {
                    if *when == tick {
                        replicas[*who].asleep_until = tick + long;
                    }
                }
                let (due, later): (Vec<_>, _) = under_way.into_iter().partition(|(done, ..)| *done <= tick);
                under_way = later;
                for (_, who, of, claim, base) in due {
                    let identity = replicas[who].election.settings().identity.clone();
                    let done = server.write(claim, base.as_ref(), &identity);
                    if let Waits::Answer { asked, event, .. } = &mut replicas[who].waits && *asked == of {
                        *event = Some(done.map_or(Event::Failed, |record| Event::Wrote { asked: now(*asked), record }));
                    }
                }
                #[expect(clippy::needless_range_loop, reason = "who it is matters, and others are looked at")]
                for who in 0..2 {
                    // Scraped at any instant, also before anything else ran after a suspension.
                    if replicas[who].asleep_until > tick {
                        continue;
                    }
                    if replicas[who].leadership.role(now(tick)) == Role::Leader {
                        if let Some((spoke, other)) = last_spoke && other != who {
                            prop_assert!(tick - spoke >= 150, "{other} spoke at {spoke}, {who} at {tick}");
                        }
                        last_spoke = Some((tick, who));
                    }
                    let event = match &mut replicas[who].waits {
                        Waits::Until(until) if *until <= tick => Event::Tick,
                        Waits::Answer { asked, .. } if *asked + 50 <= tick => Event::Failed,
                        Waits::Answer { comes, event, .. } if *comes <= tick && event.is_some() => event.take().unwrap(),
                        _ => continue,
                    };
                    let replica = &mut replicas[who];
                    let action = replica.election.step(event, Standing::Ready, now(tick));
                    replica.leadership.renewed(replica.election.renewed());
                    let (there, back, lost, lost_back) = fates.pop_front().unwrap_or((0, 0, false, false));
                    // For a while no request of one replica gets through.
                    let is_cut = cuts.iter().any(|(when, whose, long)| *whose == who && (*when..when + long).contains(&tick));
                    let lost_there = lost || is_cut;
                    let comes = if lost_back { u64::MAX } else { tick + there + back };
                    replica.waits = match action {
                        Action::Wait(wait) => Waits::Until(tick + wait.as_millis() as u64 / 100),
                        Action::Read => Waits::Answer { asked: tick, comes, event: (!lost_there).then(|| Event::Read(server.lease.clone())) },
                        Action::Write(claim) => {
                            if !lost_there {
                                under_way.push((tick + there, who, tick, claim, replica.election.seen().cloned()));
                            }
                            Waits::Answer { asked: tick, comes, event: None }
                        }
                        Action::Done => panic!("nobody left"),
                    };
                }
            }
        }
    }
}
