//! Which peers have sent valid tokens, and which send invalid ones. Owns the number of reviews that one peer may cause; reads no clock.
//! `identity` owns the number of reviews that all strangers together may cause.
//!
//! A stranger is a peer without an accepted token. Only few tokens of a peer that floods with invalid ones are reviewed, so that others
//! get their reviews. Agents, whose addresses are known, are not delayed by strangers when they renew their tokens.
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use mcad_accounting::table::Table;

/// How long a token that was not accepted counts.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// The most tokens of one peer that were not accepted within [`WINDOW`], for a stranger including those that are being reviewed: half of
/// the limit of all strangers.
pub(super) const OF_PEER: usize = 10;
/// The most peers with a valid token: six times the nodes of the largest cluster that Kubernetes supports.
const MAX_FRIENDS: usize = 32_768;
/// How long a valid token counts: an agent's token is renewed, and reviewed again, within a day.
const FRIEND_FOR: Duration = Duration::from_hours(24);
/// The most other peers, including those with invalid tokens within a second; at this limit, tokens of new peers are not reviewed.
const MAX_WATCHED: usize = 4_096;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Until when each peer is not a stranger.
    friends: Table<IpAddr, Duration>,
    watched: Table<IpAddr, Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    /// Reviews for a stranger that are not answered yet.
    asked: usize,
    /// The times at which tokens were not accepted.
    bad: VecDeque<Duration>,
}

/// Whether a token comes from a known peer or from a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Friend,
    Stranger,
}

/// Whether a token may be reviewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Yes; the caller must report [the answer](Peers::answered).
    Now(Sender),
    /// After another review for this peer is answered.
    Later,
    /// No: this peer has sent too many invalid tokens, or there are too many peers.
    Never,
}

/// The answer of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Good,
    Bad,
    /// No answer, which does not count against the peer.
    None,
}

impl Peers {
    /// Whether one more token of this peer may be reviewed.
    pub(super) fn ask(&mut self, peer: IpAddr, now: Duration) -> Turn {
        self.tidy(peer, now);
        let (asked, bad) = self.watched.get(&peer).map_or((0, 0), |watched| (watched.asked, watched.bad.len()));
        let is_friend = self.friends.get(&peer).is_some_and(|until| *until > now);
        let has_room = self.watched.len() < MAX_WATCHED || self.watched.contains_key(&peer);
        match (is_friend, has_room) {
            _ if bad >= OF_PEER => Turn::Never,
            (true, _) => Turn::Now(Sender::Friend),
            (false, false) => Turn::Never,
            (false, true) if asked + bad >= OF_PEER => Turn::Later,
            (false, true) => {
                self.watched.entry(peer).or_default().asked += 1;
                Turn::Now(Sender::Stranger)
            }
        }
    }

    pub(super) fn answered(&mut self, peer: IpAddr, sender: Sender, answer: Answer, now: Duration) {
        if sender == Sender::Stranger
            && let Some(watched) = self.watched.get_mut(&peer)
        {
            watched.asked = watched.asked.saturating_sub(1);
        }
        match answer {
            Answer::Good => self.befriend(peer, now),
            Answer::Bad => self.watched.entry(peer).or_default().bad.push_back(now),
            Answer::None => {}
        }
        self.tidy(peer, now);
    }

    fn befriend(&mut self, peer: IpAddr, now: Duration) {
        if self.friends.len() >= MAX_FRIENDS && !self.friends.contains_key(&peer) {
            self.friends.retain(|_, until| *until > now);
        }
        if self.friends.len() < MAX_FRIENDS || self.friends.contains_key(&peer) {
            self.friends.insert(peer, now + FRIEND_FOR);
        }
    }

    /// Removes entries that do not count any more: of this peer, and at the limit of all peers.
    fn tidy(&mut self, peer: IpAddr, now: Duration) {
        if self.watched.get_mut(&peer).is_some_and(|watched| watched.is_over(now)) {
            self.watched.remove(&peer);
        }
        if self.watched.len() >= MAX_WATCHED && !self.watched.contains_key(&peer) {
            self.watched.retain(|_, watched| !watched.is_over(now));
        }
    }
}

impl Watched {
    fn is_over(&mut self, now: Duration) -> bool {
        while self.bad.front().is_some_and(|at| *at + WINDOW <= now) {
            self.bad.pop_front();
        }
        self.asked == 0 && self.bad.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(number: usize) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number as u32).into()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// How many of 100 invalid tokens of a peer are reviewed.
    fn bad(peers: &mut Peers, number: usize, now: Duration) -> usize {
        let asked = (0..100).filter(|_| match peers.ask(peer(number), now) {
            Turn::Now(sender) => {
                peers.answered(peer(number), sender, Answer::Bad, now);
                true
            }
            Turn::Later | Turn::Never => false,
        });
        asked.count()
    }

    fn good(peers: &mut Peers, number: usize, now: Duration) -> Option<Sender> {
        let Turn::Now(sender) = peers.ask(peer(number), now) else { return None };
        peers.answered(peer(number), sender, Answer::Good, now);
        Some(sender)
    }

    #[test]
    fn of_one_peer_so_many_bad_tokens_are_asked_about_in_any_second() {
        let mut peers = Peers::default();
        for number in [1, 2] {
            assert_eq!(bad(&mut peers, number, ms(0)), OF_PEER);
            assert_eq!(bad(&mut peers, number, ms(999)), 0);
            assert_eq!(bad(&mut peers, number, ms(1000)), OF_PEER);
        }
        assert_eq!(good(&mut peers, 2, ms(1001)), None, "nor is it heard meanwhile");
        assert_eq!(good(&mut peers, 2, ms(2000)), Some(Sender::Stranger));
        assert_eq!(bad(&mut peers, 2, ms(2000)), OF_PEER, "nor does a good one buy more");
    }

    #[test]
    fn of_a_stranger_so_many_are_asked_about_at_once_and_of_a_friend_as_many_as_it_sends() {
        let mut peers = Peers::default();
        let asked: Vec<_> = (0..=OF_PEER).map(|_| peers.ask(peer(1), ms(0))).collect();
        assert_eq!(asked[..OF_PEER], [Turn::Now(Sender::Stranger); OF_PEER]);
        assert_eq!(asked[OF_PEER], Turn::Later);
        peers.answered(peer(1), Sender::Stranger, Answer::None, ms(0));
        assert_eq!(peers.ask(peer(1), ms(0)), Turn::Now(Sender::Stranger));
        peers.answered(peer(1), Sender::Stranger, Answer::Good, ms(0));
        let asked: Vec<_> = (0..99).map(|_| peers.ask(peer(1), ms(0))).collect();
        assert_eq!(asked, [Turn::Now(Sender::Friend); 99]);
        for _ in 1..OF_PEER {
            peers.answered(peer(1), Sender::Stranger, Answer::None, ms(0));
        }
        assert_eq!(peers.ask(peer(1), FRIEND_FOR), Turn::Now(Sender::Stranger));
    }

    #[test]
    fn no_more_is_remembered_than_may_be_and_what_is_over_makes_room() {
        let mut peers = Peers::default();
        for number in 0..MAX_FRIENDS + 9 {
            assert_eq!(good(&mut peers, number, ms(0)), Some(Sender::Stranger));
        }
        assert_eq!((peers.friends.len(), peers.watched.len()), (MAX_FRIENDS, 0));
        let (first, more) = (MAX_FRIENDS + 10, MAX_FRIENDS + 10 + MAX_WATCHED);
        for number in first..more {
            assert_eq!(bad(&mut peers, number, ms(0)), OF_PEER);
        }
        assert_eq!(bad(&mut peers, more, ms(999)), 0);
        assert_eq!(good(&mut peers, 0, ms(999)), Some(Sender::Friend));
        assert_eq!(bad(&mut peers, more, ms(1000)), OF_PEER);
        assert_eq!(peers.watched.len(), 1);
    }
}
