//! Who is at the other end of a connection, as far as it is known: by which listener it came, from where and when, which place it has. What
//! is answered to its requests is `routes`'.
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
