//! Decides which replicas to send to, from the results of look-ups and deliveries. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The maximum number of replicas. The aggregator has two, and four during a rollout. A name with more addresses does
/// not belong to an aggregator.
pub(super) const MAX_REPLICAS: usize = 8;

/// The outcome of the last attempt at a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// It responded.
    Answered,
    /// It did not respond.
    Failed,
}

/// The replicas that reports are sent to.
#[derive(Debug, Default)]
pub(super) struct Replicas(BTreeMap<SocketAddr, Replica>);

#[derive(Clone, Copy, Debug)]
struct Replica {
    is_listed: bool,
    last: Option<Delivered>,
}

/// Which deliveries to begin and which to end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) new: Vec<SocketAddr>,
    pub(super) gone: Vec<SocketAddr>,
}

impl Replicas {
    /// Processes the addresses of the name. If there are none, nothing is known now, and nothing changes.
    ///
    /// A replica that is no longer listed is kept while it responds: a Service leaves out a replica that is not ready
    /// for a moment, and ten thousand agents should not disconnect and reconnect for that.
    pub(super) fn found(&mut self, addresses: &[SocketAddr]) -> Change {
        let Some(first) = addresses.first() else { return Change::default() };
        // A Service with two address families lists each replica under both. The system's resolver puts the reachable
        // family first.
        let mut listed: Vec<_> = addresses.iter().filter(|address| address.is_ipv4() == first.is_ipv4()).collect();
        listed.sort_unstable();
        listed.dedup();
        for (address, replica) in &mut self.0 {
            replica.is_listed = listed.binary_search(&address).is_ok();
        }
        let is_gone = |replica: &Replica| !replica.is_listed && replica.last != Some(Delivered::Answered);
        let gone: Vec<_> = self.0.iter().filter(|(_, replica)| is_gone(replica)).map(|(at, _)| *at).collect();
        for address in &gone {
            self.0.remove(address);
        }
        let unknown: Vec<_> = listed.into_iter().copied().filter(|address| !self.0.contains_key(address)).collect();
        let room = MAX_REPLICAS.saturating_sub(self.0.len());
        let new: Vec<_> = unknown.into_iter().take(room).collect();
        self.0.extend(new.iter().map(|address| (*address, Replica { is_listed: true, last: None })));
        Change { new, gone }
    }

    /// Processes the outcome of an attempt. Returns whether the replica is gone.
    pub(super) fn delivered(&mut self, address: SocketAddr, delivered: Delivered) -> bool {
        let Some(replica) = self.0.get_mut(&address) else { return false };
        replica.last = Some(delivered);
        let is_gone = !replica.is_listed && delivered == Delivered::Failed;
        if is_gone {
            self.0.remove(&address);
        }
        is_gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split_whitespace().map(|address| address.parse().unwrap()).collect()
    }

    /// Asserts which replicas are new and which are gone after a look-up.
    #[track_caller]
    fn check(replicas: &mut Replicas, found: &str, new: &str, gone: &str) {
        let expected = Change { new: addresses(new), gone: addresses(gone) };
        assert_eq!(replicas.found(&addresses(found)), expected, "{found}");
    }

    #[test]
    fn replicas_come_and_go_as_they_are_listed() {
        let mut replicas = Replicas::default();
        check(&mut replicas, "10.0.0.2:1 10.0.0.1:1 10.0.0.2:1", "10.0.0.1:1 10.0.0.2:1", "");
        check(&mut replicas, "10.0.0.1:1 10.0.0.2:1", "", "");
        check(&mut replicas, "10.0.0.3:1 10.0.0.1:1", "10.0.0.3:1", "10.0.0.2:1");
    }

    #[test]
    fn a_look_up_that_finds_nothing_changes_nothing() {
        let mut replicas = Replicas::default();
        check(&mut replicas, "10.0.0.1:1", "10.0.0.1:1", "");
        check(&mut replicas, "", "", "");
        check(&mut replicas, "10.0.0.1:1", "", "");
    }

    #[test]
    fn one_that_is_no_longer_listed_stays_while_it_answers() {
        let (a, mut replicas) = ("10.0.0.1:1".parse().unwrap(), Replicas::default());
        check(&mut replicas, "10.0.0.1:1 10.0.0.2:1", "10.0.0.1:1 10.0.0.2:1", "");
        assert!(!replicas.delivered(a, Delivered::Failed));
        assert!(!replicas.delivered(a, Delivered::Answered));
        check(&mut replicas, "10.0.0.2:1", "", "");
        assert!(!replicas.delivered(a, Delivered::Answered));
        assert!(replicas.delivered(a, Delivered::Failed));
        assert!(!replicas.delivered(a, Delivered::Failed));
        // When it is listed again, it counts as new.
        check(&mut replicas, "10.0.0.1:1 10.0.0.2:1", "10.0.0.1:1", "");
    }

    #[test]
    fn of_two_families_the_one_that_comes_first_counts() {
        check(&mut Replicas::default(), "10.0.0.1:1 [fd00::1]:1 10.0.0.2:1", "10.0.0.1:1 10.0.0.2:1", "");
        check(&mut Replicas::default(), "[fd00::1]:1 10.0.0.1:1", "[fd00::1]:1", "");
    }

    #[test]
    fn there_is_a_bound() {
        let many = (1..=MAX_REPLICAS + 1).map(|at| format!("10.0.0.{at}:1")).collect::<Vec<_>>();
        let mut replicas = Replicas::default();
        check(&mut replicas, &many.join(" "), &many[..MAX_REPLICAS].join(" "), "");
        check(&mut replicas, &many[1..].join(" "), &many[MAX_REPLICAS], &many[0]);
    }
}
