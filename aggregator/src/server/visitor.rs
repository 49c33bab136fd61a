//! The client of a connection: its listener, its address, when it connected, and its place. `routes` owns the answers to its
//! requests.
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::Side;
use super::places::Place;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) side: Side,
    pub(super) peer: IpAddr,
    pub(super) came: Instant,
    pub(super) place: Arc<Place>,
}

impl Visitor {
    pub(super) fn new(side: Side, peer: IpAddr, place: Place) -> Self {
        Self { side, peer, came: Instant::now(), place: Arc::new(place) }
    }
}
