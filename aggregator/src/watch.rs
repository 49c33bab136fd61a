//! Watches the API server and turns its objects into events of the cluster. Owns which lists are watched and how a broken watch is
//! handled; [`mcad_accounting::cluster`] owns the meaning of the objects.
//!
//! One watch per list: nodes, pods, AppWrappers of every served group and version, and devices, claims and Kueue's objects in the newest
//! served version; the served kinds and versions may change. A broken watch is resumed where it was; meanwhile the last state is used, for
//! [`Settings::grace`]. After that the list counts as lost and is fetched again: until it is complete, metrics are absent, not zero.

mod consistency;
pub(crate) mod listing;
pub(crate) mod seen;

mod discovery;
pub(crate) mod group_discovery;

use std::{collections::BTreeSet, fmt::Debug, pin::pin, time::Duration};

use futures::{Stream, StreamExt};
use kube::{
    Api, Client,
    runtime::watcher::{self, Config, watcher},
};
use mcad_accounting::cluster::{Event, Source};
use mcad_accounting::object::alike::Alike;
use mcad_accounting::object::{Kind, Object, Served};
use mcad_accounting::options::{Options, QueueMetrics};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use self::consistency::{Asked, Consistency, Inconsistent, Watched, answers};
use self::group_discovery::{DEVICES, GroupDiscovery, QUEUES};
use self::listing::Listing;
use self::seen::{Seen, SeenKind, SeenNode, SeenPod};

pub use self::discovery::Discovery;

/// Pods that can hold resources or count for an AppWrapper: bound pods that did not fail. The API server cannot filter more.
const PODS: &str = "spec.nodeName!=,status.phase!=Failed";

/// Waits after errors double from the first to the last. Kubernetes' own clients wait as long.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Errors further apart than this belong to different failures: a resumed watch sends nothing until something changes, so silence
/// means success. Longer than the longest wait plus a time-out to connect.
const TROUBLE_ENDS: Duration = Duration::from_mins(1);

/// How the API server is watched.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long the last state of a broken watch is used. A rolling restart of the API server takes less.
    pub grace: Duration,
    /// Time between two discoveries of the served versions of AppWrappers and kinds of devices: three small requests, one more, and
    /// one for each version of the latter.
    pub discover_every: Duration,
    /// Time between two consistency checks of the watches: for each, a list of the metadata of one object.
    pub check_every: Duration,
    /// Whether Kueue's objects are watched. Of these there may be a hundred thousand.
    pub queues: bool,
}

impl Settings {
    /// Watches what these options show.
    pub fn of(options: &Options) -> Self {
        Self { queues: options.queue_metrics == QueueMetrics::On, ..Self::default() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let (discover_every, check_every) = (Duration::from_secs(10), Duration::from_secs(10));
        Self { grace: Duration::from_secs(30), discover_every, check_every, queues: true }
    }
}

/// A message of the watches.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all messages are events; a box for each would cost more")]
pub enum Told {
    /// A change of the cluster.
    Event(Event),
    /// The groups and versions of AppWrappers that the API server serves.
    Serves(Vec<Served>),
    /// The kinds of Dynamic Resource Allocation that the API server serves; `None` if not known.
    ServesDevices(Option<BTreeSet<Kind>>),
    /// The same for Kueue; also `None` if its kinds are not watched.
    ServesQueues(Option<BTreeSet<Kind>>),
    /// An object that could not be decoded and is left out; the text has its name and the reason.
    Undecodable(Source, String),
    /// A watch broke, for one of [`REASONS`].
    Broke(Source, &'static str),
}

/// Watches until the receiver is dropped.
pub async fn run(client: Client, settings: Settings, tell: mpsc::Sender<Told>) {
    let nodes = follow::<SeenNode>(&client, Listing::NODES, Config::default(), settings, &tell);
    let pods = follow::<SeenPod>(&client, Listing::PODS, Config::default().fields(PODS), settings, &tell);
    let appwrappers = Discovery::new(&client, settings, &tell).run();
    let devices = Box::pin(GroupDiscovery::new(DEVICES, &client, settings, &tell).run());
    let queues = Box::pin(async {
        if settings.queues {
            GroupDiscovery::new(QUEUES, &client, settings, &tell).run().await;
        } else {
            // If nobody hears this, nothing is watched any more.
            let _ = tell.send(Told::ServesQueues(None)).await;
        }
    });
    // These futures are large and are parts of other futures.
    tokio::join!(Box::pin(nodes), Box::pin(pods), appwrappers, devices, queues);
}

/// Follows one list until the receiver is dropped.
async fn follow<K: SeenKind>(
    client: &Client,
    listing: Listing,
    config: Config,
    settings: Settings,
    tell: &mpsc::Sender<Told>,
) where
    Seen<K>: DeserializeOwned + Clone + Debug + Send + 'static,
{
    let source = listing.source;
    let api: Api<Seen<K>> = Api::all_with(client.clone(), &listing.resource());
    let config = Config { page_size: listing.page().or(config.page_size), ..config };
    let watched = if config.field_selector.is_none() { Watched::All } else { Watched::Selected };
    let mut known = Consistency::new(watched);
    loop {
        let events = pin!(watcher(api.clone(), config.clone()));
        let asked = pin!(answers(client, listing, settings.check_every, &known));
        let follower = Follower::new(source, settings, tell);
        match follower.follow(events, asked, &mut known).await {
            Ended::Inconsistent(why) => {
                tracing::warn!(%source, reason = why.reason(), "the objects of the API server differ from those of its watch: they are listed again");
                if tell.send(Told::Broke(source, why.reason())).await.is_err() {
                    return;
                }
            }
            Ended::Lost => {
                if tell.send(Told::Event(Event::Lost(source))).await.is_err() {
                    return;
                }
            }
            Ended::Unheard => return,
        }
    }
}

/// Why a watch is no longer followed.
enum Ended {
    /// It was broken for too long: its last state is no longer used.
    Lost,
    /// The API server has other objects than the watch reported. The last state is used until the list is complete again.
    Inconsistent(Inconsistent),
    /// The receiver was dropped.
    Unheard,
}

/// One watch, from its first list on.
struct Follower<'a> {
    source: Source,
    settings: Settings,
    tell: &'a mpsc::Sender<Told>,
    /// Objects of a list that is not complete yet.
    listed: Vec<Object>,
    /// Values that the listed objects share.
    alike: Alike,
    trouble: Option<Trouble>,
}

/// A series of errors without success.
#[derive(Clone, Copy)]
struct Trouble {
    since: Instant,
    latest: Instant,
    wait: Duration,
}

impl<'a> Follower<'a> {
    fn new(source: Source, settings: Settings, tell: &'a mpsc::Sender<Told>) -> Self {
        Self { source, settings, tell, listed: Vec::new(), alike: Alike::default(), trouble: None }
    }

    async fn follow<K: SeenKind>(
        mut self,
        mut events: impl Stream<Item = watcher::Result<watcher::Event<Seen<K>>>> + Unpin,
        mut asked: impl Stream<Item = Asked> + Unpin,
        known: &mut Consistency,
    ) -> Ended {
        loop {
            let event = tokio::select! {
                // Events first: the answer already includes them.
                biased;
                event = events.next() => event,
                Some(asked) = asked.next() => match known.check(&asked) {
                    Some(why) => return Ended::Inconsistent(why),
                    None => continue,
                },
            };
            // kube's stream never ends; if it did, a fresh list would be needed.
            let Some(event) = event else { return Ended::Lost };
            if let Ok(event) = &event {
                known.note(event);
            }
            let told = match event {
                Ok(event) => {
                    self.trouble = None;
                    self.take(event)
                }
                Err(error) => {
                    tracing::debug!(source = ?self.source, %error, "a watch broke");
                    Some(Told::Broke(self.source, reason(&error)))
                }
            };
            let broke = matches!(told, Some(Told::Broke(..)));
            if let Some(told) = told
                && self.tell.send(told).await.is_err()
            {
                return Ended::Unheard;
            }
            if broke && self.wait_out().await {
                return Ended::Lost;
            }
        }
    }

    /// Waits before the next attempt; returns true if the grace period is over.
    async fn wait_out(&mut self) -> bool {
        let now = Instant::now();
        let ongoing = self.trouble.filter(|trouble| now - trouble.latest < TROUBLE_ENDS);
        let (since, wait) =
            ongoing.map_or((now, FIRST_WAIT), |trouble| (trouble.since, (trouble.wait * 2).min(LAST_WAIT)));
        self.trouble = Some(Trouble { since, latest: now, wait });
        if now - since >= self.settings.grace {
            return true;
        }
        sleep(wait.min(self.settings.grace)).await;
        false
    }

    /// The message for an event of the watch; `None` if it is part of a list.
    fn take<K: SeenKind>(&mut self, event: watcher::Event<Seen<K>>) -> Option<Told> {
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                None
            }
            watcher::Event::InitApply(seen) => match seen.object {
                Ok(mut object) => {
                    self.alike.share(&mut object);
                    self.listed.push(object);
                    None
                }
                Err(why) => Some(Told::Undecodable(self.source, why)),
            },
            watcher::Event::InitDone => {
                self.alike = Alike::default();
                Some(Told::Event(Event::Reset(self.source, std::mem::take(&mut self.listed))))
            }
            watcher::Event::Apply(seen) => Some(match seen.object {
                Ok(object) => Told::Event(Event::Apply(object)),
                Err(why) => Told::Undecodable(self.source, why),
            }),
            watcher::Event::Delete(seen) => Some(match seen.object {
                Ok(object) => Told::Event(Event::Delete(object)),
                Err(why) => Told::Undecodable(self.source, why),
            }),
        }
    }
}

/// All reasons for which a watch breaks: a bounded set, for a label.
pub const REASONS: [&str; 11] = [
    "forbidden",
    "unauthorized",
    "not_served",
    "expired",
    "refused",
    "unreachable",
    "undecodable",
    "no_resource_version",
    "rewound",
    "count_differs",
    "other",
];

/// One of [`REASONS`].
fn reason(error: &watcher::Error) -> &'static str {
    let of_client = |error: &kube::Error| match error {
        kube::Error::Api(status) if status.code == 403 => "forbidden",
        kube::Error::Api(status) if status.code == 401 => "unauthorized",
        kube::Error::Api(status) if status.code == 404 => "not_served",
        kube::Error::Api(status) if status.code == 410 => "expired",
        kube::Error::Api(_) => "refused",
        kube::Error::HyperError(_) | kube::Error::Service(_) => "unreachable",
        kube::Error::SerdeError(_) => "undecodable",
        _ => "other",
    };
    match error {
        watcher::Error::WatchError(status) if status.code == 410 => "expired",
        watcher::Error::WatchError(_) => "refused",
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => of_client(error),
        watcher::Error::NoResourceVersion => "no_resource_version",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use kube::client::Body;

    use super::*;

    /// The paths that are requested of an API server that serves nothing, and whether Kueue's kinds are said not to be watched.
    async fn requested(queue_metrics: QueueMetrics) -> (BTreeSet<String>, bool) {
        let (ask, mut asked) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            ask.send(request.uri().path().to_owned()).unwrap();
            async { Ok::<_, Infallible>(Response::builder().status(404).body(Body::empty()).unwrap()) }
        });
        let (tell, mut told) = mpsc::channel(64);
        let settings = Settings::of(&Options { queue_metrics, ..Options::default() });
        let watch = run(Client::new(service, "default"), settings, tell);
        let mut is_unwatched = false;
        let hear = async {
            while let Some(told) = told.recv().await {
                is_unwatched |= matches!(told, Told::ServesQueues(None));
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(25), async { tokio::join!(watch, hear) }).await;
        let mut paths = BTreeSet::new();
        while let Ok(path) = asked.try_recv() {
            paths.insert(path);
        }
        (paths, is_unwatched)
    }

    #[tokio::test(start_paused = true)]
    async fn with_queue_metrics_off_nothing_of_kueue_is_requested_and_nothing_waits_for_it() {
        let kueue = "/apis/kueue.x-k8s.io";
        let (on, is_unwatched) = requested(QueueMetrics::On).await;
        assert!(on.contains(kueue) && !is_unwatched, "{on:?}");
        let (off, is_unwatched) = requested(QueueMetrics::Off).await;
        assert!(off.contains("/apis/resource.k8s.io") && is_unwatched, "{off:?}");
        assert!(!off.iter().any(|path| path.starts_with(kueue)), "{off:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_is_lost_after_the_grace_and_waits_longer_each_time() {
        let (tell, _told) = mpsc::channel(8);
        let settings = Settings { grace: Duration::from_secs(30), ..Settings::default() };
        let mut follower = Follower::new(Source::Nodes, settings, &tell);
        let started = Instant::now();
        let mut attempts = 0;
        while !follower.wait_out().await {
            attempts += 1;
        }
        let took = started.elapsed();
        assert!(took >= settings.grace && took < settings.grace + LAST_WAIT, "{took:?}");
        assert!((8..=12).contains(&attempts), "{attempts} attempts");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_long_after_another_is_a_new_trouble() {
        let (tell, _told) = mpsc::channel(8);
        let mut follower = Follower::new(Source::Nodes, Settings::default(), &tell);
        assert!(!follower.wait_out().await);
        sleep(TROUBLE_ENDS * 2).await;
        assert!(!follower.wait_out().await);
        assert_eq!(follower.trouble.map(|trouble| trouble.wait), Some(FIRST_WAIT));
    }
}
