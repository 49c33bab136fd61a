//! Discovers periodically which groups and versions of AppWrappers the API server serves, and watches each of them.
//!
//! A starting API server answers before it has read its definitions. So a version counts as no longer served only when it is missing
//! from two answers in a row. Meanwhile its watch breaks, and its last state is used as long as for every broken watch.

use std::collections::{BTreeMap, BTreeSet};

use kube::{Client, runtime::watcher::Config};
use mcad_accounting::object::Served;
use tokio::{
    select,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

use super::{Settings, Told, follow, listing::Listing, seen::SeenAppWrapper};

/// See the module's documentation.
pub struct Discovery<'a> {
    client: &'a Client,
    settings: Settings,
    tell: &'a mpsc::Sender<Told>,
    /// The last message. `None` before the first answer of the API server.
    served: Option<BTreeSet<Served>>,
    /// Those that were missing from the last answer.
    missing: BTreeSet<Served>,
}

impl<'a> Discovery<'a> {
    /// A discovery before its first request.
    pub(super) fn new(client: &'a Client, settings: Settings, tell: &'a mpsc::Sender<Told>) -> Self {
        Self { client, settings, tell, served: None, missing: BTreeSet::new() }
    }

    /// Discovers and watches until the receiver is dropped. The watches are tasks, so that a slow answer delays none of them; they
    /// end when this ends.
    pub(super) async fn run(mut self) {
        let mut watches = JoinSet::new();
        let mut running: BTreeMap<Served, AbortHandle> = BTreeMap::new();
        let mut ticks = interval(self.settings.discover_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                _ = ticks.tick() => {}
                Some(_) = watches.join_next() => continue,
                () = self.tell.closed() => return,
            }
            let answer = self.ask().await;
            let served = believed(self.served.as_ref(), &mut self.missing, &answer);
            if self.served.as_ref() == Some(&served) {
                continue;
            }
            tracing::info!(?served, "AppWrappers that the API server serves");
            if self.tell.send(Told::Serves(served.iter().copied().collect())).await.is_err() {
                return;
            }
            running.retain(|version, watch| {
                let stays = served.contains(version);
                if !stays {
                    watch.abort();
                }
                stays
            });
            for version in &served {
                running.entry(*version).or_insert_with(|| {
                    let listing = Listing::appwrappers(*version);
                    let (client, settings, tell) = (self.client.clone(), self.settings, self.tell.clone());
                    watches.spawn(async move {
                        follow::<SeenAppWrapper>(&client, listing, Config::default(), settings, &tell).await;
                    })
                });
            }
            self.served = Some(served);
        }
    }

    /// The served groups and versions. If the API server gives no clear answer, its last answer counts.
    async fn ask(&self) -> BTreeSet<Served> {
        let mut served = BTreeSet::new();
        for version in Served::ALL {
            match self.client.list_api_group_resources(version.api_version()).await {
                Ok(list) if list.resources.iter().any(|resource| resource.name == "appwrappers") => {
                    served.insert(version);
                }
                Ok(_) => {}
                // For an unknown group, the answer is plain text without a reason, so only the code is checked.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    tracing::debug!(version = version.api_version(), %error, "it is not known whether this version is served");
                    served.extend(self.served.iter().flatten().filter(|known| **known == version));
                }
            }
        }
        served
    }
}

/// What counts as served after an answer: a kind that was served is gone when it is missing from two answers in a row.
pub(super) fn believed<T: Ord + Clone>(
    known: Option<&BTreeSet<T>>,
    missing: &mut BTreeSet<T>,
    answer: &BTreeSet<T>,
) -> BTreeSet<T> {
    let missing_now = known.map(|known| known - answer).unwrap_or_default();
    let missing_before = std::mem::replace(missing, missing_now);
    let doubted = &*missing - &missing_before;
    answer | &doubted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_gone_when_it_is_missing_twice_in_a_row() {
        let [old, new, mcad] = Served::ALL;
        let (mut known, mut missing) = (None, BTreeSet::new());
        let mut check = |answer: &[Served], expected: &[Served]| {
            let served = believed(known.as_ref(), &mut missing, &answer.iter().copied().collect());
            assert_eq!(served, expected.iter().copied().collect(), "{answer:?}");
            known = Some(served);
        };
        // No earlier answer to keep.
        check(&[], &[]);
        check(&[old, mcad], &[old, mcad]);
        check(&[old], &[old, mcad]);
        check(&[old, mcad], &[old, mcad]);
        // One is missing for the first time, the other for the second.
        check(&[old], &[old, mcad]);
        check(&[new], &[old, new]);
        check(&[], &[new]);
        check(&[], &[]);
        check(&[old], &[old]);
    }
}
