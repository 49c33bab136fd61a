//! Who has a place, and in which order those give way that may be told to: of the peer that has the most of them the one that
//! has waited longest.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use mcad_accounting::node_name::NodeName;
use mcad_accounting::table::Table;
use tokio::sync::Notify;

/// Which place.
pub(super) type Id = u64;
/// When a connection began to wait, in the order of such events.
type Since = u64;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Counts places and waits.
    events: u64,
    places: Table<Id, Entry>,
    /// How many each peer has.
    peers: Table<IpAddr, usize>,
    /// Those that may be told to give way.
    waiting: Table<IpAddr, BTreeMap<Since, Id>>,
    /// The same peers in the order in which they lose one: the last one first.
    ranks: BTreeSet<Rank>,
    /// Those that have proven to be of a node, the oldest first.
    nodes: Table<NodeName, VecDeque<Id>>,
}

/// How many wait, since when the first of them has, whose they are.
type Rank = (usize, Reverse<Since>, IpAddr);

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    state: State,
    leave: Arc<Notify>,
}

#[derive(Debug)]
enum State {
    Waiting(Since),
    Busy,
    Proven(Option<NodeName>),
}

impl Account {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn of_peer(&self, peer: IpAddr) -> usize {
        self.peers.get(&peer).copied().unwrap_or(0)
    }

    /// One more place; its connection waits.
    pub(super) fn add(&mut self, peer: IpAddr, leave: Arc<Notify>) -> Id {
        let id = self.event();
        *self.peers.entry(peer).or_default() += 1;
        self.wait(peer, id, id);
        self.places.insert(id, Entry { peer, state: State::Waiting(id), leave });
        id
    }

    /// False: nobody may be told to give way.
    pub(super) fn send_away_one(&mut self) -> bool {
        self.ranks.last().copied().is_some_and(|(_, _, peer)| self.send_away_one_of(peer))
    }

    /// The same of one peer.
    pub(super) fn send_away_one_of(&mut self, peer: IpAddr) -> bool {
        let longest = self.waiting.get(&peer).and_then(|waiting| waiting.first_key_value());
        let Some(id) = longest.map(|(_, id)| *id) else { return false };
        self.send_away(id);
        true
    }

    pub(super) fn busy(&mut self, id: Id) {
        // One that was sent away is not in the account any more.
        let Some(entry) = self.places.get_mut(&id) else { return };
        if let State::Waiting(since) = entry.state {
            entry.state = State::Busy;
            let peer = entry.peer;
            self.stop_waiting(peer, since);
        }
    }

    pub(super) fn idle(&mut self, id: Id) {
        let since = self.event();
        let Some(entry) = self.places.get_mut(&id) else { return };
        if matches!(entry.state, State::Busy) {
            entry.state = State::Waiting(since);
            let peer = entry.peer;
            self.wait(peer, since, id);
        }
    }

    /// Of a node there are so many at most: the oldest gives way.
    pub(super) fn proven(&mut self, id: Id, node: Option<&NodeName>, most: usize) {
        self.busy(id);
        let Some(entry) = self.places.get_mut(&id) else { return };
        if matches!(entry.state, State::Proven(_)) {
            return;
        }
        entry.state = State::Proven(node.cloned());
        let Some(node) = node else { return };
        let of_node = self.nodes.entry(node.clone()).or_default();
        of_node.push_back(id);
        let oldest = if of_node.len() > most { of_node.front().copied() } else { None };
        if let Some(oldest) = oldest {
            self.send_away(oldest);
        }
    }

    /// It is over, for whatever reason.
    pub(super) fn remove(&mut self, id: Id) {
        drop(self.take_out(id));
    }

    fn send_away(&mut self, id: Id) {
        if let Some(entry) = self.take_out(id) {
            entry.leave.notify_one();
        }
    }

    fn take_out(&mut self, id: Id) -> Option<Entry> {
        let entry = self.places.remove(&id)?;
        if let Some(count) = self.peers.get_mut(&entry.peer) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&entry.peer);
            }
        }
        match &entry.state {
            State::Waiting(since) => self.stop_waiting(entry.peer, *since),
            State::Proven(Some(node)) => {
                if let Some(of_node) = self.nodes.get_mut(node) {
                    of_node.retain(|known| *known != id);
                    if of_node.is_empty() {
                        self.nodes.remove(node);
                    }
                }
            }
            State::Busy | State::Proven(None) => {}
        }
        Some(entry)
    }

    fn event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    fn wait(&mut self, peer: IpAddr, since: Since, id: Id) {
        let waiting = self.waiting.entry(peer).or_default();
        let before = rank(peer, waiting);
        waiting.insert(since, id);
        let after = rank(peer, waiting);
        self.rank_anew(before, after);
    }

    fn stop_waiting(&mut self, peer: IpAddr, since: Since) {
        let Some(waiting) = self.waiting.get_mut(&peer) else { return };
        let before = rank(peer, waiting);
        waiting.remove(&since);
        let after = rank(peer, waiting);
        if after.is_none() {
            self.waiting.remove(&peer);
        }
        self.rank_anew(before, after);
    }

    fn rank_anew(&mut self, before: Option<Rank>, after: Option<Rank>) {
        if let Some(before) = before {
            self.ranks.remove(&before);
        }
        self.ranks.extend(after);
    }
}

/// `None` where none waits.
fn rank(peer: IpAddr, waiting: &BTreeMap<Since, Id>) -> Option<Rank> {
    waiting.first_key_value().map(|(since, _)| (waiting.len(), Reverse(*since), peer))
}
