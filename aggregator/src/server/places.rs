//! The places of a listener's connections: how many there may be in all, of one peer and of one node, and which connection gives
//! way when there is no more room. Owns that account; knows no sockets.
//!
//! A connection that waits for a request, or has not proven whose it is, may be told to give way. One that is being answered, or
//! that has proven to be an agent's, may not.
mod account;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use account::{Account, Id};
use mcad_accounting::node_name::NodeName;
use tokio::sync::{Notify, SetOnce};

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// In all, without the reserved ones.
    pub(super) all: usize,
    /// Of one peer's address.
    pub(super) of_peer: usize,
    /// Beyond all these: places in which probes alone are answered.
    pub(super) reserved: usize,
    /// That have proven to be of one node.
    pub(super) of_node: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Places {
    bounds: Bounds,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    seats: Account,
    reserved: Account,
}

/// Which of the two accounts a place is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seat {
    Whole,
    Reserved,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    seat: Seat,
    id: Id,
    leave: Arc<Notify>,
    proof: SetOnce<()>,
}

/// A place whose connection is being answered, for as long as this lives.
#[derive(Debug)]
pub(super) struct Busy(Arc<Place>);

impl Places {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, taken: Mutex::default() })
    }

    /// A place for one more connection of that peer, where another one gives way if it must. `None` where nobody can.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        let Taken { seats, reserved } = &mut *taken;
        let (all, of_peer) = (self.bounds.all, self.bounds.of_peer);
        let has_seat = if seats.of_peer(peer) >= of_peer {
            seats.send_away_one_of(peer)
        } else {
            seats.len() < all || seats.send_away_one()
        };
        let leave = Arc::new(Notify::new());
        let (seat, id) = if has_seat {
            (Seat::Whole, seats.add(peer, Arc::clone(&leave)))
        } else if self.bounds.reserved > 0 && (reserved.len() < self.bounds.reserved || reserved.send_away_one()) {
            (Seat::Reserved, reserved.add(peer, Arc::clone(&leave)))
        } else {
            return None;
        };
        drop(taken);
        Some(Place { places: Arc::clone(self), seat, id, leave, proof: SetOnce::new() })
    }

    /// Every change is whole before it can panic.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether it is one of those in which probes alone are answered.
    pub(super) fn is_reserved(&self) -> bool {
        self.seat == Seat::Reserved
    }

    /// It is being answered, and does not give way meanwhile.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.with(|account| account.busy(self.id));
        Busy(Arc::clone(self))
    }

    /// It has proven to be of that node, or of nobody who would have to prove anything, and does not give way any more: but to
    /// those of its own node that come after it.
    pub(super) fn proven(&self, node: Option<&NodeName>) {
        // Nearly every report finds that done.
        if self.proof.initialized() || self.proof.set(()).is_err() {
            return;
        }
        let most = self.places.bounds.of_node;
        self.with(|account| account.proven(self.id, node, most));
    }

    /// Returns when it has proven whose it is.
    pub(super) async fn proof(&self) {
        self.proof.wait().await;
    }

    /// Returns when it has to give way.
    pub(super) async fn left(&self) {
        self.leave.notified().await;
    }

    fn with(&self, change: impl FnOnce(&mut Account)) {
        let mut taken = self.places.taken();
        change(match self.seat {
            Seat::Whole => &mut taken.seats,
            Seat::Reserved => &mut taken.reserved,
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.with(|account| account.remove(self.id));
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.with(|account| account.idle(self.0.id));
    }
}

#[cfg(test)]
mod tests;
