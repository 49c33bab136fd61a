//! Discovers periodically which kinds and versions of Dynamic Resource Allocation the API server serves, and watches each kind in the
//! newest version that this program supports. If a newer version appears, a watch of that version replaces the old one; the old state
//! is used until the new list is complete.

use std::collections::{BTreeMap, BTreeSet};

use kube::{Client, api::ListParams, core::Request, runtime::watcher::Config};
use mcad_accounting::cluster::Source;
use mcad_accounting::object::{DEVICE_GROUP, Kind, QUEUE_GROUP};
use serde::Deserialize;
use tokio::{
    select,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

use super::discovery::believed;
use super::listing::Listing;
use super::seen::{
    SeenClaim, SeenClass, SeenClusterQueue, SeenCohort, SeenFlavor, SeenLocalQueue, SeenSlice, SeenTaintRule,
    SeenTemplate, SeenWorkload,
};
use super::{Settings, Told, follow};

/// A group of the API: its kinds, and the message that tells which of them are served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ApiGroup {
    /// Its name.
    pub(crate) name: &'static str,
    /// The kinds of it that are known here.
    pub(crate) kinds: &'static [Kind],
    /// What is not known if the API server does not report which kinds it serves.
    what: &'static str,
    told: fn(Option<BTreeSet<Kind>>) -> Told,
}

/// Dynamic Resource Allocation.
pub(crate) const DEVICES: ApiGroup =
    ApiGroup { name: DEVICE_GROUP, kinds: &Kind::DEVICES, what: "devices and claims", told: Told::ServesDevices };
/// Kueue.
pub(crate) const QUEUES: ApiGroup =
    ApiGroup { name: QUEUE_GROUP, kinds: &Kind::QUEUES, what: "queues", told: Told::ServesQueues };

/// See the module's documentation.
pub(super) struct GroupDiscovery<'a> {
    group: ApiGroup,
    client: &'a Client,
    settings: Settings,
    tell: &'a mpsc::Sender<Told>,
    /// What counts as served. `None` if the API server has given no clear answer yet.
    served: Option<BTreeSet<Version>>,
    /// Those that were missing from the last answer.
    missing: BTreeSet<Version>,
    /// Unclear answers in a row.
    unclear: u32,
    /// Whether a message was sent.
    has_told: bool,
    /// The last message. `None` if it was that the served kinds are not known.
    told: Option<BTreeSet<Kind>>,
}

/// This many unclear answers in a row are not a transient failure of a starting API server.
const UNCLEAR: u32 = 2;

/// A kind in a version.
type Version = (Kind, &'static str);

impl<'a> GroupDiscovery<'a> {
    /// A discovery before its first request.
    pub(super) fn new(group: ApiGroup, client: &'a Client, settings: Settings, tell: &'a mpsc::Sender<Told>) -> Self {
        let missing = BTreeSet::new();
        Self { group, client, settings, tell, served: None, missing, unclear: 0, has_told: false, told: None }
    }

    /// Discovers and watches until the receiver is dropped. The watches are tasks that end when this ends.
    pub(super) async fn run(mut self) {
        let mut watches = JoinSet::new();
        let mut running: BTreeMap<Source, (Listing, AbortHandle)> = BTreeMap::new();
        let mut ticks = interval(self.settings.discover_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                _ = ticks.tick() => {}
                Some(_) = watches.join_next() => continue,
                () = self.tell.closed() => return,
            }
            self.ask().await;
            if self.served.is_none() && self.unclear < UNCLEAR {
                continue;
            }
            let listings = self.served.as_ref().map(|served| newest(self.group, served));
            let kinds =
                listings.as_ref().map(|listings| listings.iter().map(|listing| listing.source.kind()).collect());
            if !self.has_told || self.told != kinds {
                self.log(kinds.as_ref());
                if self.tell.send((self.group.told)(kinds.clone())).await.is_err() {
                    return;
                }
                (self.has_told, self.told) = (true, kinds);
            }
            let listings = listings.unwrap_or_default();
            running.retain(|_, (listing, watch)| {
                let stays = listings.contains(listing);
                if !stays {
                    watch.abort();
                }
                stays
            });
            for listing in listings {
                running.entry(listing.source).or_insert_with(|| {
                    let (client, settings, tell) = (self.client.clone(), self.settings, self.tell.clone());
                    tracing::debug!(?listing, "watch started");
                    (listing, watches.spawn(async move { watch(&client, listing, settings, &tell).await }))
                });
            }
        }
    }
}

impl GroupDiscovery<'_> {
    /// If the API server gives no clear answer, its last answer counts.
    async fn ask(&mut self) {
        match served(self.group, self.client).await {
            Ok(answer) => {
                self.served = Some(believed(self.served.as_ref(), &mut self.missing, &answer));
                self.unclear = 0;
            }
            Err(error) => {
                self.unclear = self.unclear.saturating_add(1);
                tracing::debug!(%error, "it is not known which kinds of {} are served", self.group.name);
            }
        }
    }

    /// A cluster that never had such kinds gets no log line.
    fn log(&self, kinds: Option<&BTreeSet<Kind>>) {
        let ApiGroup { name, what, .. } = self.group;
        match kinds {
            None => {
                tracing::warn!("the API server does not report which kinds of {name} it serves: {what} are not known");
            }
            Some(kinds) if kinds.is_empty() && !self.has_told => {}
            Some(kinds) => tracing::info!(?kinds, "kinds of {name} that the API server serves"),
        }
    }
}

/// Follows one list until the receiver is dropped.
async fn watch(client: &Client, listing: Listing, settings: Settings, tell: &mpsc::Sender<Told>) {
    let config = Config::default();
    match listing.source {
        Source::ResourceSlices => follow::<SeenSlice>(client, listing, config, settings, tell).await,
        Source::ResourceClaims => follow::<SeenClaim>(client, listing, config, settings, tell).await,
        Source::ResourceClaimTemplates => follow::<SeenTemplate>(client, listing, config, settings, tell).await,
        Source::DeviceClasses => follow::<SeenClass>(client, listing, config, settings, tell).await,
        Source::DeviceTaintRules => follow::<SeenTaintRule>(client, listing, config, settings, tell).await,
        Source::ClusterQueues => follow::<SeenClusterQueue>(client, listing, config, settings, tell).await,
        Source::LocalQueues => follow::<SeenLocalQueue>(client, listing, config, settings, tell).await,
        Source::Cohorts => follow::<SeenCohort>(client, listing, config, settings, tell).await,
        Source::ResourceFlavors => follow::<SeenFlavor>(client, listing, config, settings, tell).await,
        Source::Workloads => follow::<SeenWorkload>(client, listing, config, settings, tell).await,
        Source::Nodes | Source::Pods | Source::AppWrappers(_) => {}
    }
}

/// Each served kind in its newest served version.
fn newest(group: ApiGroup, served: &BTreeSet<Version>) -> BTreeSet<Listing> {
    let newest = |kind: &Kind| {
        let version = kind.versions().iter().find(|version| served.contains(&(*kind, **version)))?;
        Listing::of_group(*kind, version)
    };
    group.kinds.iter().filter_map(newest).collect()
}

/// Each kind of a group that the API server serves, in its newest served version.
pub(crate) async fn listings(group: ApiGroup, client: &Client) -> Result<BTreeSet<Listing>, kube::Error> {
    Ok(newest(group, &served(group, client).await?))
}

/// The versions of an API group.
#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

/// The kinds and versions of a group that the API server serves and this program supports. One small request if there are none, and one
/// more for each version.
async fn served(group: ApiGroup, client: &Client) -> Result<BTreeSet<Version>, kube::Error> {
    let ApiGroup { name, kinds, .. } = group;
    let request = Request::new(format!("/apis/{name}")).list(&ListParams::default());
    let request = request.map_err(kube::Error::BuildRequest)?;
    let group: Group = match client.request(request).await {
        Ok(group) => group,
        Err(error) if is_not_found(&error) => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let known: BTreeSet<&str> = kinds.iter().flat_map(|kind| kind.versions()).copied().collect();
    let mut served = BTreeSet::new();
    for version in known.into_iter().filter(|known| group.versions.iter().any(|of| of.version == **known)) {
        let list = match client.list_api_group_resources(&format!("{name}/{version}")).await {
            Ok(list) => list,
            Err(error) if is_not_found(&error) => continue,
            Err(error) => return Err(error),
        };
        let is_there = |kind: &Kind| {
            let plural = kind.plural().to_lowercase();
            kind.versions().contains(&version) && list.resources.iter().any(|known| known.name == plural)
        };
        served.extend(kinds.iter().copied().filter(is_there).map(|kind| (kind, version)));
    }
    Ok(served)
}

/// For an unknown group, the answer is plain text without a reason, so only the code is checked.
fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_watched_in_its_newest_version() {
        let served = [
            (Kind::ResourceSlice, "v1"),
            (Kind::ResourceSlice, "v1beta2"),
            (Kind::ResourceClaim, "v1beta2"),
            (Kind::ResourceClaim, "v1beta1"),
            (Kind::DeviceTaintRule, "v1alpha3"),
        ];
        let expected =
            [(Kind::ResourceSlice, "v1"), (Kind::ResourceClaim, "v1beta2"), (Kind::DeviceTaintRule, "v1alpha3")];
        let expected = expected.into_iter().filter_map(|(kind, version)| Listing::of_group(kind, version));
        assert_eq!(newest(DEVICES, &served.into()), expected.collect());
        assert_eq!(newest(DEVICES, &BTreeSet::new()), BTreeSet::new());
        let served = [(Kind::Cohort, "v1alpha1"), (Kind::Workload, "v1beta1"), (Kind::Workload, "v1beta2")];
        let expected = [(Kind::Cohort, "v1alpha1"), (Kind::Workload, "v1beta2")].into_iter();
        let expected = expected.filter_map(|(kind, version)| Listing::of_group(kind, version));
        assert_eq!(newest(QUEUES, &served.into()), expected.collect());
    }
}
