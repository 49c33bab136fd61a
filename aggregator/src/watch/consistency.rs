//! Checks periodically whether the objects of a watch are still those of the API server.
//!
//! A watch misses no event. But a restore of etcd is no event: it replaces the history, and a watch that continues from before sends
//! nothing about objects that vanished. Two values in the answer to a list of one object reveal it: the version of the list, which
//! otherwise never decreases, and the number of objects.
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::{Stream, stream};
use hashbrown::HashSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{DynamicObject, ListParams};
use kube::core::{Request, Resource as _};
use kube::runtime::watcher::Event;
use mcad_accounting::object::meta::nullable;
use mcad_accounting::table::Secret;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::{sleep, timeout};

use super::listing::Listing;
use super::seen::{Seen, SeenKind};

/// After each new list, this many times as much evidence is needed for the next one: a server that estimates the count, or
/// versions that go up and down, must not cause a list each time.
const UNCURED: u32 = 2;
/// The most evidence that is needed: ten minutes of checks.
const NEEDED_AT_MOST: u32 = 64;
/// After this many successful checks in a row, one failed check is enough again.
const CURED: u32 = 6;

/// Evidence for one kind of inconsistency, and how much is needed.
#[derive(Clone, Copy, Debug)]
struct Evidence {
    against: u32,
    needed: u32,
    /// Successful checks in a row.
    for_it: u32,
}

impl Default for Evidence {
    fn default() -> Self {
        Self { against: 0, needed: 1, for_it: 0 }
    }
}

impl Evidence {
    /// Records a check and returns whether a new list is needed.
    fn weigh(&mut self, is_wrong: bool) -> bool {
        if !is_wrong {
            (self.against, self.for_it) = (0, self.for_it.saturating_add(1));
            if self.for_it >= CURED {
                self.needed = 1;
            }
            return false;
        }
        (self.against, self.for_it) = (self.against + 1, 0);
        if self.against < self.needed {
            return false;
        }
        (self.against, self.needed) = (0, (self.needed * UNCURED).min(NEEDED_AT_MOST));
        true
    }
}

/// Minimum and maximum.
type Range = (u64, u64);

/// An inconsistency that a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inconsistent {
    /// The server's history is not the one that was watched.
    Rewound,
    /// The server has more or fewer objects than the watch reported.
    Count,
}

impl Inconsistent {
    /// One of [`super::REASONS`].
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Rewound => "rewound",
            Self::Count => "count_differs",
        }
    }
}

/// What the watch of one list reported, for comparison with the server's answers.
#[derive(Debug)]
pub(super) struct Consistency {
    hasher: Secret,
    /// Hashes of the names of all objects; `None` if only part of the list is watched, since the server does not count that part.
    names: Option<HashSet<u64>>,
    /// The newest version that was seen; 0 before the first numeric version. Read before each request to the server.
    newest: Arc<AtomicU64>,
    /// Whether the list is complete.
    is_listed: bool,
    /// The numbers of objects that the watch has had since the previous check.
    seen: Range,
    /// The server's count at the previous check, and the numbers that the watch had until then. It is compared at the next check: by
    /// then, the watch has reported objects that were created or deleted at that moment.
    said: Option<(u64, Range)>,
    counts: Evidence,
    versions: Evidence,
}

/// The answer to a list of one object.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub(super) struct Asked {
    #[serde(default, deserialize_with = "nullable")]
    metadata: AskedMeta,
    #[serde(default, deserialize_with = "nullable")]
    items: Items,
    /// The newest version that the watch had reported before the request. A later one may be newer than the answer.
    #[serde(skip)]
    told: u64,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
struct AskedMeta {
    #[serde(deserialize_with = "nullable")]
    resource_version: String,
    #[serde(rename = "continue", deserialize_with = "nullable")]
    next: String,
    remaining_item_count: Option<u64>,
}

/// The number of objects in the answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(from = "Vec<IgnoredAny>")]
struct Items(u64);

impl From<Vec<IgnoredAny>> for Items {
    fn from(items: Vec<IgnoredAny>) -> Self {
        Self(items.len() as u64)
    }
}

impl Asked {
    /// The number of objects on the server. `None` if the answer does not contain it.
    fn count(&self) -> Option<u64> {
        match self.metadata.remaining_item_count {
            Some(remaining) => Some(self.items.0 + remaining),
            None => self.metadata.next.is_empty().then_some(self.items.0),
        }
    }
}

impl Consistency {
    /// For a list without any events yet.
    pub(super) fn new(watched: Watched) -> Self {
        let names = (watched == Watched::All).then(HashSet::new);
        Self {
            hasher: Secret::default(),
            names,
            newest: Arc::default(),
            is_listed: false,
            seen: (0, 0),
            said: None,
            counts: Evidence::default(),
            versions: Evidence::default(),
        }
    }

    /// Records an event of the watch.
    pub(super) fn note<K: SeenKind>(&mut self, event: &Event<Seen<K>>) {
        match event {
            Event::Init => self.list_begins(),
            Event::InitApply(seen) | Event::Apply(seen) => self.there(seen.meta()),
            Event::InitDone => self.list_ends(),
            Event::Delete(seen) => self.gone(seen.meta()),
        }
    }

    /// A list begins.
    fn list_begins(&mut self) {
        self.names.iter_mut().for_each(HashSet::clear);
        self.newest.store(0, Relaxed);
        (self.is_listed, self.said) = (false, None);
    }

    /// A list is complete.
    fn list_ends(&mut self) {
        self.is_listed = true;
        self.seen = (u64::MAX, 0);
        self.saw_so_many();
    }

    /// Records the current number of objects.
    fn saw_so_many(&mut self) {
        let now = self.names.as_ref().map_or(0, |names| names.len() as u64);
        self.seen = (self.seen.0.min(now), self.seen.1.max(now));
    }

    /// An object was added or changed.
    fn there(&mut self, meta: &ObjectMeta) {
        let name = self.hash(meta);
        if let Some(names) = &mut self.names {
            names.insert(name);
        }
        self.saw_so_many();
        self.saw(meta.resource_version.as_deref().unwrap_or_default());
    }

    /// An object was deleted.
    fn gone(&mut self, meta: &ObjectMeta) {
        let name = self.hash(meta);
        if let Some(names) = &mut self.names {
            names.remove(&name);
        }
        self.saw_so_many();
        self.saw(meta.resource_version.as_deref().unwrap_or_default());
    }

    /// Compares with the server's answer; if the result is `Some`, the list must be fetched again.
    pub(super) fn check(&mut self, asked: &Asked) -> Option<Inconsistent> {
        if !self.is_listed {
            return None;
        }
        let is_older = asked.metadata.resource_version.parse().is_ok_and(|version: u64| version < asked.told);
        if self.versions.weigh(is_older) {
            return Some(Inconsistent::Rewound);
        }
        if is_older {
            return None;
        }
        self.saw(&asked.metadata.resource_version);
        let (Some(names), Some(count)) = (&self.names, asked.count()) else { return None };
        let now = names.len() as u64;
        let seen = std::mem::replace(&mut self.seen, (now, now));
        let (before, earlier) = self.said.replace((count, seen))?;
        let (least, most) = (earlier.0.min(seen.0), earlier.1.max(seen.1));
        self.counts.weigh(!(least..=most).contains(&before)).then_some(Inconsistent::Count)
    }

    fn saw(&mut self, version: &str) {
        self.newest.fetch_max(version.parse().unwrap_or(0), Relaxed);
    }

    fn hash(&self, meta: &ObjectMeta) -> u64 {
        self.hasher.hash_one((&meta.namespace, &meta.name))
    }
}

/// How much of a list is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// The whole list.
    All,
    /// The objects that match a field selector: the server does not count these.
    Selected,
}

/// The server's answers, one for each `every`. Without an answer there is no item; the watch itself notices such a failure.
pub(super) fn answers(
    client: &Client,
    listing: Listing,
    every: Duration,
    known: &Consistency,
) -> impl Stream<Item = Asked> + use<> {
    let (url, newest) = (DynamicObject::url_path(&listing.resource(), None), Arc::clone(&known.newest));
    let source = listing.source;
    stream::unfold((client.clone(), url, newest), move |(client, url, newest)| async move {
        loop {
            sleep(every).await;
            let told = newest.load(Relaxed);
            match timeout(every, ask(&client, &url)).await {
                Ok(Ok(asked)) => return Some((Asked { told, ..asked }, (client, url, newest))),
                Ok(Err(error)) => tracing::debug!(%source, %error, "the consistency check failed"),
                Err(_) => tracing::debug!(%source, "the consistency check got no answer in time"),
            }
        }
    })
}

/// Requests the metadata of one object. Without a resource version, the answer is current and not from a cache.
async fn ask(client: &Client, url: &str) -> Result<Asked, kube::Error> {
    let request =
        Request::new(url).list_metadata(&ListParams::default().limit(1)).map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::pin;

    use futures::StreamExt as _;
    use http::Response;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn meta(name: &str, version: u64) -> ObjectMeta {
        ObjectMeta { name: Some(name.into()), resource_version: Some(version.to_string()), ..ObjectMeta::default() }
    }

    fn asked(answer: Value) -> Asked {
        serde_json::from_value(answer).unwrap()
    }

    /// An answer with this version and number of objects.
    fn of(version: &str, count: u64) -> Asked {
        let (first, remaining) = (count.min(1), count.saturating_sub(1));
        let mut metadata = json!({ "resourceVersion": version });
        if remaining > 0 {
            metadata["continue"] = "more".into();
            metadata["remainingItemCount"] = remaining.into();
        }
        asked(json!({ "metadata": metadata, "items": vec![json!({}); first as usize] }))
    }

    fn listed(watched: Watched, names: &[&str]) -> Consistency {
        let mut known = Consistency::new(watched);
        list(&mut known, names);
        known
    }

    fn list(known: &mut Consistency, names: &[&str]) {
        known.list_begins();
        for (at, name) in names.iter().enumerate() {
            known.there(&meta(name, 100 + at as u64));
        }
        known.list_ends();
    }

    #[test]
    fn a_history_that_goes_back_is_another_one_at_once() {
        for watched in [Watched::All, Watched::Selected] {
            let mut known = listed(watched, &["a", "b"]);
            let check = |known: &mut Consistency, version, count| {
                let told = known.newest.load(Relaxed);
                known.check(&Asked { told, ..of(version, count) })
            };
            assert_eq!(check(&mut known, "101", 2), None);
            assert_eq!(check(&mut known, "500", 2), None, "versions count what happens to other kinds as well");
            assert_eq!(check(&mut known, "499", 2), Some(Inconsistent::Rewound));
            // After a new list, that list counts.
            list(&mut known, &["a"]);
            assert_eq!(check(&mut known, "120", 1), None);
        }
    }

    #[test]
    fn versions_that_go_to_and_fro_cost_ever_fewer_lists() {
        let mut known = listed(Watched::Selected, &["a"]);
        let mut lists = 0;
        for _ in 0..256 {
            if known.check(&Asked { told: 200, ..of("100", 1) }).is_some() {
                lists += 1;
                list(&mut known, &["a"]);
            }
        }
        assert!((5..=10).contains(&lists), "{lists}");
    }

    #[test]
    fn what_the_watch_told_while_the_answer_was_under_way_is_no_sign() {
        let mut known = listed(Watched::All, &["a"]);
        let answer = Asked { told: 100, ..of("150", 1) };
        known.there(&meta("a", 151));
        assert_eq!(known.check(&answer), None);
    }

    #[test]
    fn another_count_counts_only_when_it_lasts() {
        let mut known = listed(Watched::All, &["a", "b"]);
        assert_eq!(known.check(&of("200", 1)), None, "the watch may not have told yet");
        known.gone(&meta("b", 200));
        assert_eq!(known.check(&of("200", 1)), None);
        assert_eq!(known.check(&of("201", 0)), None);
        assert_eq!(known.check(&of("201", 0)), Some(Inconsistent::Count));
    }

    #[test]
    fn objects_that_come_and_go_all_the_time_are_no_sign_however_late_they_are_told() {
        let mut known = listed(Watched::All, &["a"]);
        for at in 0..100_u64 {
            // The server already has objects that the watch reports after the request, or no longer has objects that it reported before.
            assert_eq!(known.check(&of("900", if at % 2 == 0 { 2 } else { 1 })), None, "{at}");
            if at % 2 == 0 {
                known.there(&meta("b", 200 + at));
            } else {
                known.gone(&meta("b", 200 + at));
            }
            known.there(&meta("c", 200 + at));
            known.gone(&meta("c", 200 + at));
        }
    }

    #[test]
    fn an_object_that_changes_is_still_one() {
        let mut known = listed(Watched::All, &["a"]);
        (0..5).for_each(|at| known.there(&meta("a", 200 + at)));
        known.gone(&meta("never there", 300));
        for _ in 0..5 {
            assert_eq!(known.check(&of("300", 1)), None);
        }
    }

    #[test]
    fn a_server_whose_count_is_never_right_costs_ever_fewer_lists_and_a_right_one_ends_that() {
        let mut known = listed(Watched::All, &["a"]);
        let mut lists = 0;
        for _ in 0..256 {
            if known.check(&of("300", 7)).is_some() {
                lists += 1;
                list(&mut known, &["a"]);
            }
        }
        assert!((5..=10).contains(&lists), "{lists}");
        (0..=CURED).for_each(|_| assert_eq!(known.check(&of("300", 1)), None));
        assert_eq!(known.check(&of("300", 7)), None);
        assert_eq!(known.check(&of("300", 7)), Some(Inconsistent::Count));
    }

    #[test]
    fn nothing_is_wrong_before_all_is_listed_or_where_the_server_does_not_say() {
        let mut known = Consistency::new(Watched::All);
        known.list_begins();
        known.there(&meta("a", 100));
        assert_eq!(known.check(&of("1", 7)), None);
        let silent = [
            json!({}),
            json!({ "metadata": null, "items": null }),
            // More than one, and not how many.
            json!({ "metadata": { "continue": "more", "resourceVersion": "opaque" }, "items": [{}] }),
        ];
        let mut known = listed(Watched::Selected, &["a"]);
        for answer in silent {
            assert_eq!((known.check(&asked(answer.clone())), known.check(&asked(answer))), (None, None));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_object_is_asked_for_each_time_and_a_server_that_fails_is_asked_again() {
        let (tell, mut told) = tokio::sync::mpsc::channel(8);
        let times = std::sync::atomic::AtomicU8::new(0);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let accept = request.headers()["accept"].to_str().unwrap().to_owned();
            tell.try_send((request.uri().to_string(), accept)).unwrap();
            let metadata = json!({ "resourceVersion": "9", "continue": "x", "remainingItemCount": 4 });
            let answer = json!({ "metadata": metadata, "items": [{}] });
            let is_first = times.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            let response = Response::builder().status(if is_first { 500 } else { 200 });
            let response = response.body(Body::from(answer.to_string().into_bytes())).unwrap();
            async move { Ok::<_, Infallible>(response) }
        });
        let client = Client::new(service, "default");
        let mut known = Consistency::new(Watched::Selected);
        known.there(&meta("p", 7));
        let mut answers = pin!(answers(&client, Listing::PODS, Duration::from_secs(10), &known));
        let answer = answers.next().await.unwrap();
        assert_eq!((answer.count(), &*answer.metadata.resource_version, answer.told), (Some(5), "9", 7));
        for _ in 0..2 {
            let (uri, accept) = told.recv().await.unwrap();
            assert_eq!(uri, "/api/v1/pods?&limit=1");
            assert!(accept.contains("PartialObjectMetadataList"), "{accept}");
        }
    }
}
