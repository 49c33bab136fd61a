//! Which groups and versions of AppWrappers the API server serves, asked again and again, with one watch on each that is.
//!
//! An API server that starts answers before it has read its definitions, so that a kind is served no longer is believed when
//! it is said for the second time. Its watch breaks meanwhile, and what it last said stands for as long as it does for every watch.

use std::collections::{BTreeMap, BTreeSet};

use kube::{Client, runtime::watcher::Config};
use mcad_accounting::cluster::Source;
use mcad_accounting::object::Served;
use tokio::{
    select,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

use super::{Settings, Told, follow, seen::SeenAppWrapper};

/// AppWrappers that are asked for at once. Each may be 1.5 MiB long, and an answer is in memory as a whole.
const PAGE: u32 = 64;

/// See the module's documentation.
pub struct Discovery<'a> {
    client: &'a Client,
    settings: Settings,
    tell: &'a mpsc::Sender<Told>,
    /// What was told last. Nothing, before the API server has answered for the first time.
    served: Option<BTreeSet<Served>>,
    /// Those of it that were not in the last answer.
    missing: BTreeSet<Served>,
}

impl<'a> Discovery<'a> {
    /// A discovery that has asked nothing yet.
    pub(super) fn new(client: &'a Client, settings: Settings, tell: &'a mpsc::Sender<Told>) -> Self {
        Self { client, settings, tell, served: None, missing: BTreeSet::new() }
    }

    /// Asks, tells and watches until nobody listens. The watches are tasks, so that a slow answer holds none of them up; they
    /// end with this.
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
                    let source = Source::AppWrappers(*version);
                    let (client, settings, tell) = (self.client.clone(), self.settings, self.tell.clone());
                    watches.spawn(async move {
                        follow::<SeenAppWrapper>(&client, source, Config::default().page_size(PAGE), settings, &tell)
                            .await;
                    })
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
                // An unknown group is answered in plain text, without a reason: the code decides.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    tracing::debug!(version = version.api_version(), %error, "can't tell whether it is served");
                    served.extend(self.served.iter().flatten().filter(|known| **known == version));
                }
            }
        }
        served
    }
}

/// What an answer comes to after the others: a kind that was served is gone when it is missing for the second time in a row.
fn believed(
    known: Option<&BTreeSet<Served>>,
    missing: &mut BTreeSet<Served>,
    answer: &BTreeSet<Served>,
) -> BTreeSet<Served> {
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
        // Nothing was known: there is nothing to hold on to.
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
