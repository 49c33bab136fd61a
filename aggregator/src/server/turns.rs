//! Turns of requests that need a snapshot of the whole cluster: scrapes, pages, the API. Owns the order of turns, the number of requests
//! of one peer, and the number of stalled readers that continue without a turn.
//!
//! One request at a time: a second would only double the memory and finish no sooner. A request that waits for its reader gives its turn
//! back.
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mcad_accounting::table::Table;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most requests of one peer that wait, have their turn or have stalled: a Prometheus has one scrape, a proxy the pages of several
/// users. Each takes a quarter of a second at most, so a peer at its limit delays others by a second.
const OF_PEER: usize = 4;
/// The most stalled readers. Each holds a snapshot, 32 MiB for 10,000 nodes.
const STALLED: usize = 8;
/// The most stalled readers of one peer.
const STALLED_OF_PEER: usize = 2;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Turns {
    one: Arc<Semaphore>,
    asking: Mutex<Asking>,
}

#[derive(Debug, Default)]
struct Asking {
    stalled: usize,
    peers: Table<IpAddr, OfPeer>,
}

#[derive(Debug, Default)]
struct OfPeer {
    all: usize,
    stalled: usize,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    peer: IpAddr,
    /// `None` if the turn was given back.
    permit: Option<OwnedSemaphorePermit>,
    is_stalled: bool,
}

impl Turns {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { one: Arc::new(Semaphore::new(1)), asking: Mutex::default() })
    }

    /// Waits for a turn of this peer. `None` if the peer has too many requests.
    pub(super) async fn turn(self: &Arc<Self>, peer: IpAddr) -> Option<Turn> {
        {
            let mut asking = self.asking();
            let of_peer = asking.peers.entry(peer).or_default();
            if of_peer.all >= OF_PEER {
                return None;
            }
            of_peer.all += 1;
        }
        // The request counts from here on, also while it waits.
        let mut turn = Turn { turns: Arc::clone(self), peer, permit: None, is_stalled: false };
        turn.permit = Some(self.own().await?);
        Some(turn)
    }

    /// A turn of the server itself.
    pub(super) async fn own(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.one).acquire_owned().await.ok()
    }

    /// Every change is complete before a panic is possible, so a poisoned lock can be used.
    fn asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Gives the turn back during a wait for the reader. Returns false if too many readers have stalled, and this one must end.
    pub(super) fn give_back(&mut self) -> bool {
        let mut asking = self.turns.asking();
        let asking = &mut *asking;
        let has_room = asking.stalled < STALLED;
        let Some(of_peer) = asking.peers.get_mut(&self.peer).filter(|of_peer| of_peer.stalled < STALLED_OF_PEER) else {
            return false;
        };
        if has_room {
            of_peer.stalled += 1;
            asking.stalled += 1;
            self.is_stalled = true;
            self.permit = None;
        }
        has_room
    }

    /// Waits for another turn, on a thread that may block.
    pub(super) fn take_again(&mut self, runtime: &Handle) {
        self.permit = runtime.block_on(self.turns.own());
        self.go_on();
    }

    fn go_on(&mut self) {
        if std::mem::take(&mut self.is_stalled) {
            let mut asking = self.turns.asking();
            asking.stalled -= 1;
            if let Some(of_peer) = asking.peers.get_mut(&self.peer) {
                of_peer.stalled -= 1;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.go_on();
        let mut asking = self.turns.asking();
        if let Some(of_peer) = asking.peers.get_mut(&self.peer) {
            of_peer.all -= 1;
            if of_peer.all == 0 {
                asking.peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures::FutureExt as _;

    use super::*;

    fn peer(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    #[test]
    fn of_one_peer_so_many_wait_and_others_have_their_turn_in_order() {
        let turns = Turns::new();
        let first = turns.turn(peer(1)).now_or_never().flatten().unwrap();
        let mut waiting: Vec<_> = (1..OF_PEER).map(|_| Box::pin(turns.turn(peer(1)))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        assert!(turns.turn(peer(1)).now_or_never().unwrap().is_none(), "one too many");
        let mut other = Box::pin(turns.turn(peer(2)));
        assert!((&mut other).now_or_never().is_none());
        drop(first);
        // A request that ends before its turn leaves nothing behind.
        drop(waiting);
        drop(other.now_or_never().flatten().unwrap());
        assert_eq!(format!("{:?}", turns.asking()), "Asking { stalled: 0, peers: {} }");
    }

    #[test]
    fn so_many_stall_without_their_turn_and_of_one_peer_fewer() {
        let turns = Turns::new();
        let mut stalled = Vec::new();
        for number in 0..STALLED as u8 {
            for _ in 0..OF_PEER {
                let mut turn = turns.turn(peer(number)).now_or_never().flatten().unwrap();
                if turn.give_back() {
                    stalled.push(turn);
                }
            }
        }
        let peers: Vec<_> = stalled.iter().map(|turn| turn.peer).collect();
        assert_eq!(peers, [0, 0, 1, 1, 2, 2, 3, 3].map(peer));
        drop(stalled.pop());
        assert!(turns.turn(peer(9)).now_or_never().flatten().unwrap().give_back());
        drop(stalled);
        assert_eq!(format!("{:?}", turns.asking()), "Asking { stalled: 0, peers: {} }");
    }

    #[test]
    fn who_goes_on_needs_its_turn_again() {
        let turns = Turns::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut slow = turns.turn(peer(1)).now_or_never().flatten().unwrap();
        assert!(slow.give_back());
        assert!(turns.turn(peer(2)).now_or_never().flatten().is_some());
        slow.take_again(runtime.handle());
        assert!(turns.turn(peer(2)).now_or_never().is_none());
        assert_eq!(turns.asking().stalled, 0);
    }
}
