//! The past that a replica learns of another when it starts: totals and histograms. Owns whom it asks and when, and how long
//! reports wait for it.
//!
//! Reports wait at first, because what is learnt before the first of them fits exactly. Where nobody answers they are let
//! in, and what is learnt later still fits, but for what both saw in between.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::leader::lease::Holder;
use crate::past::{Past, SeedError};
use crate::peer;
use crate::replica::Replica;
use crate::seldom::Seldom;
use crate::trust::peers::Credentials;

/// How long reports wait for an answer, once the cluster is known. Agents send the next one after as long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two questions. A seed of a large cluster takes the one who tells it a second of a core.
const AGAIN: Duration = Duration::from_secs(5);

/// Between two looks whether the cluster is known.
const LOOK: Duration = Duration::from_millis(200);

/// Asks whoever holds the Lease, until it was answered once.
pub async fn run(replica: Arc<Replica>, holder: watch::Receiver<Holder>, credentials: &Credentials) {
    while !replica.knows_cluster() {
        sleep(LOOK).await;
    }
    let mut until_nobody = holder.clone();
    let mut learn = std::pin::pin!(learn(&replica, holder, credentials));
    tokio::select! {
        () = &mut learn => return,
        () = sleep(PATIENCE) => {}
        // An error: nobody will be known any more.
        _ = until_nobody.wait_for(|holder| *holder == Holder::Nobody) => {}
    }
    replica.past_is(Past::Unknown);
    learn.await;
}

async fn learn(replica: &Arc<Replica>, mut holder: watch::Receiver<Holder>, credentials: &Credentials) {
    let mut warned = Seldom::default();
    loop {
        let at = holder.borrow_and_update().clone();
        let again = if let Holder::At(address) = at {
            match ask(replica, &address, credentials).await {
                Ok(bytes) => {
                    tracing::info!(peer = address, bytes, "learnt of another replica what was before");
                    return;
                }
                Err(error) => match warned.again(replica.now()) {
                    None => tracing::debug!(peer = address, %error, "nothing was learnt"),
                    Some(unsaid) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(
                            peer = address,
                            cause,
                            unsaid,
                            "nothing was learnt of another replica, which is asked again: {error}"
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

async fn ask(replica: &Arc<Replica>, address: &str, credentials: &Credentials) -> Result<usize, SeedError> {
    let peer: SocketAddr = address.parse().map_err(|_| SeedError::Address(address.to_owned()))?;
    let bytes = peer::fetch(peer, credentials).await?;
    let length = bytes.len();
    let replica = Arc::clone(replica);
    // A large one takes a while, and holds locks meanwhile that a task must not wait for.
    let learnt = tokio::task::spawn_blocking(move || replica.learn(&mcad_wire::seed::Seed::decode(bytes)?)).await;
    match learnt {
        Ok(learnt) => learnt.map(|()| length),
        // Only where it panicked, which was printed.
        Err(_) => Err(SeedError::NoCluster),
    }
}
