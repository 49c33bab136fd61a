//! The state transfer: at its start, a replica fetches totals and histograms from another replica. Owns which replica is queried and
//! when, and how long reports wait for the answer.
//!
//! Reports wait at first, because a state transfer before the first report is exact. If no replica answers, reports are accepted;
//! a later state transfer is still correct, except for what both replicas saw in between.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::leader::lease::Holder;
use crate::peer;
use crate::replica::Replica;
use crate::seldom::Seldom;
use crate::transfer_state::{StateTransferError, TransferState};
use crate::trust::peers::Credentials;

/// How long reports wait for an answer once the cluster is known. Agents send the next report after the same time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two requests. A state transfer of a large cluster costs the other replica a second of a core.
const AGAIN: Duration = Duration::from_secs(5);

/// Time between two checks whether the cluster is known.
const LOOK: Duration = Duration::from_millis(200);

/// Queries the holder of the Lease until one answer arrives.
pub async fn run(replica: Arc<Replica>, holder: watch::Receiver<Holder>, credentials: &Credentials) {
    while !replica.knows_cluster() {
        sleep(LOOK).await;
    }
    let mut until_nobody = holder.clone();
    let mut fetching = std::pin::pin!(fetch_until_done(&replica, holder, credentials));
    tokio::select! {
        () = &mut fetching => return,
        () = sleep(PATIENCE) => {}
        // An error means that the holder will not change any more.
        _ = until_nobody.wait_for(|holder| *holder == Holder::Nobody) => {}
    }
    replica.past_is(TransferState::Unknown);
    fetching.await;
}

async fn fetch_until_done(replica: &Arc<Replica>, mut holder: watch::Receiver<Holder>, credentials: &Credentials) {
    let mut warned = Seldom::default();
    loop {
        let at = holder.borrow_and_update().clone();
        let again = if let Holder::At(address) = at {
            match fetch(replica, &address, credentials).await {
                Ok(bytes) => {
                    tracing::info!(peer = address, bytes, "state transfer from another replica is complete");
                    return;
                }
                Err(error) => match warned.again(replica.now()) {
                    None => tracing::debug!(peer = address, %error, "state transfer failed"),
                    Some(unsaid) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(
                            peer = address,
                            cause,
                            unsaid,
                            "state transfer from another replica failed and is retried: {error}"
                        );
                    }
                },
            }
            AGAIN
        } else {
            Duration::MAX
        };
        tokio::select! {
            () = sleep(again) => {}
            changed = holder.changed() => if changed.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

async fn fetch(replica: &Arc<Replica>, address: &str, credentials: &Credentials) -> Result<usize, StateTransferError> {
    let peer: SocketAddr = address.parse().map_err(|_| StateTransferError::Address(address.to_owned()))?;
    let bytes = peer::fetch(peer, credentials).await?;
    let length = bytes.len();
    let replica = Arc::clone(replica);
    // A large state transfer takes time and holds locks that a task must not wait for.
    let applied = tokio::task::spawn_blocking(move || {
        replica.apply_transfer(&mcad_wire::state_transfer::StateTransfer::decode(bytes)?)
    })
    .await;
    match applied {
        Ok(applied) => applied.map(|()| length),
        // Only after a panic, which was printed.
        Err(_) => Err(StateTransferError::NoCluster),
    }
}
