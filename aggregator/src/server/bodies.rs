//! Limits on report bodies that are being read: their total memory, the memory of one peer, and one body at a time for each
//! node.
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mcad_accounting::node_name::NodeName;
use mcad_accounting::table::Table;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Bodies {
    kib: u32,
    read: Mutex<Read>,
}

#[derive(Debug, Default)]
struct Read {
    kib: u32,
    peers: Table<IpAddr, u32>,
    nodes: HashSet<NodeName>,
}

/// Room for a body while it is read.
#[derive(Debug)]
pub(super) struct Room<'a> {
    bodies: &'a Bodies,
    node: Option<&'a NodeName>,
    peer: IpAddr,
    kib: u32,
}

impl Bodies {
    /// With this limit on the total, in KiB.
    pub(super) fn new(kib: u32) -> Self {
        Self { kib, read: Mutex::default() }
    }

    /// The limit of one peer: a quarter is left to others, which is enough for 500 reports of a usual size.
    fn of_one_peer(&self) -> u32 {
        self.kib / 4 * 3
    }

    /// Reserves room for a body of this size. `node` is its sender, if known.
    pub(super) fn begin<'a>(&'a self, node: Option<&'a NodeName>, peer: IpAddr, kib: u32) -> Option<Room<'a>> {
        let mut read = self.read();
        let of_peer = read.peers.get(&peer).copied().unwrap_or(0);
        let fits = |before: u32, limit| before.checked_add(kib).is_some_and(|after| after <= limit);
        if !fits(read.kib, self.kib) || !fits(of_peer, self.of_one_peer()) {
            return None;
        }
        // An agent sends its reports one after another.
        if let Some(node) = node
            && !read.nodes.insert(node.clone())
        {
            return None;
        }
        read.kib += kib;
        *read.peers.entry(peer).or_default() += kib;
        Some(Room { bodies: self, node, peer, kib })
    }

    /// Every change is complete before a panic is possible, so a poisoned lock can be used.
    fn read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut read = self.bodies.read();
        read.kib -= self.kib;
        if let Some(of_peer) = read.peers.get_mut(&self.peer) {
            *of_peer -= self.kib;
            if *of_peer == 0 {
                read.peers.remove(&self.peer);
            }
        }
        if let Some(node) = self.node {
            read.nodes.remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    #[test]
    fn no_peer_takes_what_is_left_to_others_and_together_they_take_no_more_than_there_is() {
        let bodies = Bodies::new(8);
        let most = bodies.begin(None, peer(1), 6);
        assert!(most.is_some() && bodies.begin(None, peer(1), 1).is_none());
        let rest = bodies.begin(None, peer(2), 2);
        assert!(rest.is_some() && bodies.begin(None, peer(3), 1).is_none());
        drop(most);
        assert!(bodies.begin(None, peer(1), 7).is_none());
        assert!(bodies.begin(None, peer(3), u32::MAX).is_none());
        assert!(bodies.begin(None, peer(1), 6).is_some());
    }

    #[test]
    fn a_node_has_one_body_at_a_time_from_wherever_it_comes() {
        let (bodies, one, other) = (Bodies::new(8), NodeName::new("one").unwrap(), NodeName::new("other").unwrap());
        let first = bodies.begin(Some(&one), peer(1), 1);
        assert!(first.is_some());
        assert!(bodies.begin(Some(&one), peer(2), 1).is_none());
        assert!(bodies.begin(Some(&other), peer(1), 1).is_some());
        drop(first);
        assert!(bodies.begin(Some(&one), peer(2), 1).is_some());
        let left = format!("{:?}", bodies.read());
        assert_eq!(left, "Read { kib: 0, peers: {}, nodes: {} }");
    }

    #[test]
    fn an_empty_body_leaves_nothing_behind() {
        let bodies = Bodies::new(8);
        drop(bodies.begin(None, peer(1), 0));
        assert_eq!(format!("{:?}", bodies.read()), "Read { kib: 0, peers: {}, nodes: {} }");
    }
}
