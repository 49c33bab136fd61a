//! Watches the API server and turns what it says into events of the cluster. Owns what is asked for and how its absence is
//! told; what the objects mean is [`mcad_accounting::cluster`]'s.
//!
//! One watch per list: nodes, pods, and AppWrappers of every group and version that is served, which may come and go. A watch
//! that breaks is resumed where it was; the last state stands meanwhile, for [`Settings::grace`]. After that it is
//! said to be lost, and a fresh list begins: the figures are absent, not zero, until it is complete.

mod consistency;
mod discovery;
pub(crate) mod seen;

use std::{fmt::Debug, pin::pin, time::Duration};

use futures::{Stream, StreamExt};
use kube::{
    Api, Client,
    core::ApiResource,
    runtime::watcher::{self, Config, watcher},
};
use mcad_accounting::cluster::{Event, Source};
use mcad_accounting::object::{Object, Served};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use self::consistency::{Asked, Consistency, Inconsistent, Watched, answers};
use self::seen::{Seen, SeenKind, SeenNode, SeenPod};

pub use self::discovery::Discovery;

/// Pods that can hold anything or count for an AppWrapper: bound ones that did not fail. All that the API server can filter.
const PODS: &str = "spec.nodeName!=,status.phase!=Failed";

/// Waits after errors double from the first to the last. The API server's own clients wait as long.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Errors further apart than this belong to different troubles: a watch that resumed has nothing to say until something
/// changes, so its silence is how success looks. Longer than the longest wait and a time-out to connect.
const TROUBLE_ENDS: Duration = Duration::from_mins(1);

/// How the API server is watched.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long what a broken watch last said is held to be true. A rolling restart of the API server takes less.
    pub grace: Duration,
    /// Time between two questions which versions of AppWrappers are served: three small requests.
    pub discover_every: Duration,
    /// Time between two questions whether a watch tells what the API server has: a list of one object's metadata for each.
    pub check_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let (discover_every, check_every) = (Duration::from_secs(10), Duration::from_secs(10));
        Self { grace: Duration::from_secs(30), discover_every, check_every }
    }
}

/// What the watches have to say.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all that is told are events; a box for each would cost more")]
pub enum Told {
    /// Something happened to the cluster.
    Event(Event),
    /// The API server serves AppWrappers of these groups and versions, and of no others.
    Serves(Vec<Served>),
    /// An object could not be decoded. It is left out; the sentence says which and why.
    Undecodable(Source, String),
    /// A watch broke, for a reason of a bounded set.
    Broke(Source, &'static str),
}

/// Watches until the receiver of what is told is gone.
pub async fn run(client: Client, settings: Settings, tell: mpsc::Sender<Told>) {
    let nodes = follow::<SeenNode>(&client, Source::Nodes, Config::default(), settings, &tell);
    let pods = follow::<SeenPod>(&client, Source::Pods, Config::default().fields(PODS), settings, &tell);
    let appwrappers = Discovery::new(&client, settings, &tell).run();
    // Each is large, and they are parts of futures that others hold.
    tokio::join!(Box::pin(nodes), Box::pin(pods), appwrappers);
}

/// Follows one list until the receiver is gone.
async fn follow<K: SeenKind>(
    client: &Client,
    source: Source,
    config: Config,
    settings: Settings,
    tell: &mpsc::Sender<Told>,
) where
    Seen<K>: DeserializeOwned + Clone + Debug + Send + 'static,
{
    let api: Api<Seen<K>> = Api::all_with(client.clone(), &resource(source));
    let watched = if config.field_selector.is_none() { Watched::All } else { Watched::Selected };
    let mut known = Consistency::new(watched);
    loop {
        let events = pin!(watcher(api.clone(), config.clone()));
        let asked = pin!(answers(client, source, settings.check_every, &known));
        let follower = Follower { source, settings, tell, listed: Vec::new(), trouble: None };
        match follower.follow(events, asked, &mut known).await {
            Ended::Inconsistent(why) => {
                tracing::warn!(%source, reason = why.reason(), "the API server has other objects than its watch told of: they are listed anew");
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
    /// It was broken for too long: what it said is no longer held to be true.
    Lost,
    /// The API server has something else than it told. What it told stands until all is listed anew.
    Inconsistent(Inconsistent),
    /// Nobody listens.
    Unheard,
}

/// One watch, from its first list on.
struct Follower<'a> {
    source: Source,
    settings: Settings,
    tell: &'a mpsc::Sender<Told>,
    /// Objects of a list that is not complete yet.
    listed: Vec<Object>,
    trouble: Option<Trouble>,
}

/// Errors without success between them.
#[derive(Clone, Copy)]
struct Trouble {
    since: Instant,
    latest: Instant,
    wait: Duration,
}

impl Follower<'_> {
    async fn follow<K: SeenKind>(
        mut self,
        mut events: impl Stream<Item = watcher::Result<watcher::Event<Seen<K>>>> + Unpin,
        mut asked: impl Stream<Item = Asked> + Unpin,
        known: &mut Consistency,
    ) -> Ended {
        loop {
            let event = tokio::select! {
                // What the watch has told already is in the answer, too.
                biased;
                event = events.next() => event,
                Some(asked) = asked.next() => match known.check(&asked) {
                    Some(why) => return Ended::Inconsistent(why),
                    None => continue,
                },
            };
            // kube's stream has no end; were it to have one, a fresh list is the answer.
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

    /// Waits before the next attempt; true when there were enough of them.
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

    /// What an event of the watch comes to; None where it is a part of a list.
    fn take<K: SeenKind>(&mut self, event: watcher::Event<Seen<K>>) -> Option<Told> {
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                None
            }
            watcher::Event::InitApply(seen) => match seen.object {
                Ok(object) => {
                    self.listed.push(object);
                    None
                }
                Err(why) => Some(Told::Undecodable(self.source, why)),
            },
            watcher::Event::InitDone => Some(Told::Event(Event::Reset(self.source, std::mem::take(&mut self.listed)))),
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

/// Why a watch can break: a bounded set, for a label.
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

/// Where the API server has a list.
pub(crate) fn resource(source: Source) -> ApiResource {
    let (group, version, kind, plural) = match source {
        Source::Nodes => ("", "v1", "Node", "nodes"),
        Source::Pods => ("", "v1", "Pod", "pods"),
        Source::AppWrappers(served) => {
            let (group, version) = served.api_version().split_once('/').unwrap_or_default();
            (group, version, "AppWrapper", "appwrappers")
        }
    };
    ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: if group.is_empty() { version.into() } else { format!("{group}/{version}") },
        kind: kind.into(),
        plural: plural.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_its_address() {
        let check = |source, url: &str| {
            let resource = resource(source);
            let base = if resource.group.is_empty() { "/api" } else { "/apis" };
            assert_eq!(format!("{base}/{}/{}", resource.api_version, resource.plural), url);
        };
        check(Source::Nodes, "/api/v1/nodes");
        check(Source::Pods, "/api/v1/pods");
        check(Source::AppWrappers(Served::WorkloadV1Beta2), "/apis/workload.codeflare.dev/v1beta2/appwrappers");
        check(Source::AppWrappers(Served::McadV1Beta1), "/apis/mcad.ibm.com/v1beta1/appwrappers");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_is_lost_after_the_grace_and_waits_longer_each_time() {
        let (tell, _told) = mpsc::channel(8);
        let settings = Settings { grace: Duration::from_secs(30), ..Settings::default() };
        let mut follower = Follower { source: Source::Nodes, settings, tell: &tell, listed: Vec::new(), trouble: None };
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
        let mut follower = Follower {
            source: Source::Nodes,
            settings: Settings::default(),
            tell: &tell,
            listed: Vec::new(),
            trouble: None,
        };
        assert!(!follower.wait_out().await);
        sleep(TROUBLE_ENDS * 2).await;
        assert!(!follower.wait_out().await);
        assert_eq!(follower.trouble.map(|trouble| trouble.wait), Some(FIRST_WAIT));
    }
}
