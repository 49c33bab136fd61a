//! Which groups and versions of AppWrappers the API server serves, asked again and again, with one watch on each that is.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use kube::Client;
use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{Settings, Told, follow_appwrappers};
use crate::object::Served;

/// See the module's documentation.
pub struct Discovery<'a> {
    client: &'a Client,
    settings: Settings,
    tell: &'a mpsc::Sender<Told>,
    /// What was told last. Nothing, before the API server has answered for the first time.
    served: Option<BTreeSet<Served>>,
}

impl<'a> Discovery<'a> {
    /// A discovery that has asked nothing yet.
    pub(super) fn new(client: &'a Client, settings: Settings, tell: &'a mpsc::Sender<Told>) -> Self {
        Self { client, settings, tell, served: None }
    }

    /// Asks, tells and watches until nobody listens.
    pub(super) async fn run(mut self) {
        let mut watches: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        // Dropping an end ends its watch.
        let mut ends: BTreeMap<Served, oneshot::Sender<()>> = BTreeMap::new();
        let mut ticks = interval(self.settings.discover_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                _ = ticks.tick() => {}
                Some(()) = watches.next(), if !watches.is_empty() => continue,
                () = self.tell.closed() => return,
            }
            let served = self.ask().await;
            if self.served.as_ref() == Some(&served) {
                continue;
            }
            tracing::info!(?served, "AppWrappers that the API server serves");
            if self.tell.send(Told::Serves(served.iter().copied().collect())).await.is_err() {
                return;
            }
            ends.retain(|version, _| served.contains(version));
            for version in &served {
                ends.entry(*version).or_insert_with(|| {
                    let (end, ended) = oneshot::channel();
                    let (client, settings, tell, version) = (self.client, self.settings, self.tell, *version);
                    let watch = async move {
                        select! {
                            () = follow_appwrappers(client, version, settings, tell) => {}
                            _ = ended => {}
                        }
                    };
                    watches.push(watch.boxed());
                    end
                });
            }
            self.served = Some(served);
        }
    }

    /// The groups and versions served. Where the API server gives no clear answer, what it last said stands.
    async fn ask(&self) -> BTreeSet<Served> {
        let mut served = BTreeSet::new();
        for version in Served::ALL {
            match self.client.list_api_group_resources(version.api_version()).await {
                Ok(list) if list.resources.iter().any(|resource| resource.name == "appwrappers") => {
                    served.insert(version);
                }
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(version = version.api_version(), %error, "can't tell whether it is served");
                    served.extend(self.served.iter().flatten().filter(|known| **known == version));
                }
            }
        }
        served
    }
}
