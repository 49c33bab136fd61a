//! Limits the connections to the agent's own port, in total and per peer, and decides which one is closed for a new
//! one. It does the accounting; it knows no sockets.
//!
//! Every request is answered at once, from memory. So the connection whose last request is longest ago is closed, and a
//! new connection always gets a place.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Enough for a Prometheus, a kubelet and one or two users, with several connections each.
pub(super) const ALL: usize = 16;

/// Limit per peer address, so that kubelet and other clients on the node get as many places beside a peer with many
/// connections.
pub(super) const OF_PEER: usize = 8;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// A counter of connections and requests, which orders them.
    events: u64,
    all: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    peer: IpAddr,
    /// The counter's value at the last request of this connection, or when it was accepted.
    last_request: u64,
    leave: Arc<Notify>,
}

/// A connection's place, held until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    leave: Arc<Notify>,
}

impl Places {
    /// Takes a place for a new connection of that peer.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Place {
        let mut taken = self.taken();
        if taken.of_peer(peer) >= OF_PEER {
            taken.close_one_of(peer);
        } else if taken.all.len() >= ALL
            && let Some(most) = taken.all.iter().map(|entry| entry.peer).max_by_key(|peer| taken.of_peer(*peer))
        {
            taken.close_one_of(most);
        }
        taken.events += 1;
        let (id, leave) = (taken.events, Arc::new(Notify::new()));
        taken.all.push(Entry { id, peer, last_request: id, leave: Arc::clone(&leave) });
        drop(taken);
        Place { places: Arc::clone(self), id, leave }
    }

    /// Locks the state. A poisoned lock is usable: no change can panic half-way.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn of_peer(&self, peer: IpAddr) -> usize {
        self.all.iter().filter(|entry| entry.peer == peer).count()
    }

    fn close_one_of(&mut self, peer: IpAddr) {
        let of_peer = self.all.iter().enumerate().filter(|(_, entry)| entry.peer == peer);
        if let Some(at) = of_peer.min_by_key(|(_, entry)| entry.last_request).map(|(at, _)| at) {
            self.all.swap_remove(at).leave.notify_one();
        }
    }
}

impl Place {
    /// Records a request on this connection.
    pub(super) fn requested(&self) {
        let mut taken = self.places.taken();
        taken.events += 1;
        let now = taken.events;
        if let Some(entry) = taken.all.iter_mut().find(|entry| entry.id == self.id) {
            entry.last_request = now;
        }
    }

    /// Returns when this connection has to be closed.
    pub(super) async fn until_closing(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().all.retain(|entry| entry.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    /// Whether this connection has to be closed.
    fn must_close(place: &Place) -> bool {
        let mut left = tokio::task::unconstrained(Box::pin(place.until_closing()));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        std::future::Future::poll(std::pin::Pin::new(&mut left), &mut cx).is_ready()
    }

    #[test]
    fn whoever_has_not_asked_for_longest_gives_way_among_those_of_the_peer_that_has_the_most() {
        let places = Arc::new(Places::default());
        let all: Vec<_> = (0..ALL).map(|at| places.take(peer(if at % 2 == 0 { 1 } else { 100 + at as u8 }))).collect();
        all[0].requested();
        let more = places.take(peer(200));
        let told: Vec<_> = all.iter().enumerate().filter(|(_, place)| must_close(place)).map(|(at, _)| at).collect();
        assert_eq!(told, [2]);
        drop((all, more));
        assert!(places.taken().all.is_empty());
    }

    #[test]
    fn a_peer_that_has_as_many_as_it_may_loses_its_own() {
        let places = Arc::new(Places::default());
        let neighbour = places.take(peer(1));
        let crowd: Vec<_> = (0..3 * ALL).map(|_| places.take(peer(2))).collect();
        assert!(!must_close(&neighbour));
        assert_eq!(crowd.iter().filter(|place| !must_close(place)).count(), OF_PEER);
    }
}
