//! Lists a cluster once and writes the fields that metrics need: `mcad-aggregator dump`. [`crate::dump`] reads the result.
//!
//! Owns the requests, their pages, and which fields are written. One page at a time is in memory. Secrets are not requested, and only
//! those fields of each object are written that the watches keep, without environments and arguments of pod templates.
use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, Write};
use std::marker::PhantomData;

use http_body_util::BodyExt as _;
use k8s_openapi::jiff::{Timestamp, fmt::rfc2822};
use kube::api::ListParams;
use kube::core::{Request, Resource as _};
use kube::{Client, client::Body};
use mcad_accounting::cluster::Source;
use mcad_accounting::object::bare::bare;
use mcad_accounting::object::{Kind, Served, needed};
use mcad_present::version;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::{Value, json};
use thiserror::Error;

use crate::clock::Clock;
use crate::dump::record::{API_VERSION, KIND, ListState, Listed, Record, WhoseClock};
use crate::watch::group_discovery::{self, ApiGroup, DEVICES, QUEUES};
use crate::watch::listing::Listing;
use crate::watch::seen::{
    SeenAppWrapper, SeenClaim, SeenClass, SeenClusterQueue, SeenCohort, SeenFlavor, SeenKind, SeenLocalQueue, SeenNode,
    SeenPod, SeenSlice, SeenTaintRule, SeenTemplate, SeenWorkload,
};

/// Objects per request, as in kubectl: an answer of a few MB.
const PAGE: u32 = 500;

/// Why a dump failed.
#[derive(Debug, Error)]
pub enum ListError {
    /// The API server does not answer.
    #[error("the API server does not answer")]
    Unreachable(#[source] kube::Error),
    /// The dump cannot be written.
    #[error("the dump could not be written")]
    Write(#[source] io::Error),
}

/// Lists nodes, pods, AppWrappers of every served version, and devices and claims in the newest served version, and writes them with the
/// record. `tell` receives the progress.
pub async fn write(
    client: &Client,
    clock: &Clock,
    out: &mut (dyn Write + Send),
    tell: &mut (dyn FnMut(String) + Send),
) -> Result<Record, ListError> {
    let (server_version, at) = ask_version(client).await?;
    let (instant, clock) = match at {
        Some(at) => (at, WhoseClock::Server),
        None => (Timestamp::from_millisecond(clock.now().unix_ms as i64).unwrap_or_default(), WhoseClock::Local),
    };
    let mut writing = Writing { client, out, tell, is_first: true };
    writing.text("{\"apiVersion\":\"v1\",\"kind\":\"List\",\"metadata\":{},\"items\":[\n").map_err(ListError::Write)?;
    let mut lists =
        vec![writing.list::<SeenNode>(Listing::NODES).await?, writing.list::<SeenPod>(Listing::PODS).await?];
    for served in Served::ALL {
        let listing = Listing::appwrappers(served);
        let list = match serves(client, served).await {
            Ok(true) => writing.list::<SeenAppWrapper>(listing).await?,
            Ok(false) => unlisted(listing),
            Err(error) => Listed { state: ListState::Failed, error: Some(sentence(&error)), ..unlisted(listing) },
        };
        lists.push(list);
    }
    lists.extend(writing.group(DEVICES).await?);
    lists.extend(writing.group(QUEUES).await?);
    let record = Record {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        instant: instant.to_string(),
        clock,
        server_version,
        written_by: format!("mcad-aggregator {}", version::text()),
        lists,
    };
    let written = serde_json::to_value(&record).map_err(io::Error::from).and_then(|value| writing.object(&value));
    written.and_then(|()| writing.text("\n]}\n")).and_then(|()| writing.out.flush()).map_err(ListError::Write)?;
    Ok(record)
}

/// A dump that is being written.
struct Writing<'a> {
    client: &'a Client,
    out: &'a mut (dyn Write + Send),
    tell: &'a mut (dyn FnMut(String) + Send),
    is_first: bool,
}

impl Writing<'_> {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// Writes one item.
    fn object(&mut self, object: &Value) -> io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.text(",\n")?;
        }
        serde_json::to_writer(&mut *self.out, object)?;
        Ok(())
    }

    /// Writes all kinds of a group, each in its newest served version.
    async fn group(&mut self, group: ApiGroup) -> Result<Vec<Listed>, ListError> {
        let ApiGroup { name, kinds, .. } = group;
        let (served, failed) = match group_discovery::listings(group, self.client).await {
            Ok(served) => (served, None),
            Err(error) => {
                let why = format!("cannot determine which kinds of {name} the API server serves: {}", sentence(&error));
                (self.tell)(why.clone());
                (BTreeSet::new(), Some(why))
            }
        };
        let mut lists = Vec::new();
        for kind in kinds.iter().copied() {
            let listing = served.iter().find(|listing| listing.source.kind() == kind).copied();
            lists.push(match listing.map(|listing| (listing, listing.source)) {
                Some((listing, Source::ResourceSlices)) => self.list::<SeenSlice>(listing).await?,
                Some((listing, Source::ResourceClaims)) => self.list::<SeenClaim>(listing).await?,
                Some((listing, Source::ResourceClaimTemplates)) => self.list::<SeenTemplate>(listing).await?,
                Some((listing, Source::DeviceClasses)) => self.list::<SeenClass>(listing).await?,
                Some((listing, Source::DeviceTaintRules)) => self.list::<SeenTaintRule>(listing).await?,
                Some((listing, Source::ClusterQueues)) => self.list::<SeenClusterQueue>(listing).await?,
                Some((listing, Source::LocalQueues)) => self.list::<SeenLocalQueue>(listing).await?,
                Some((listing, Source::Cohorts)) => self.list::<SeenCohort>(listing).await?,
                Some((listing, Source::ResourceFlavors)) => self.list::<SeenFlavor>(listing).await?,
                Some((listing, Source::Workloads)) => self.list::<SeenWorkload>(listing).await?,
                _ => {
                    let newest = kind.versions().first().copied().unwrap_or_default();
                    let state = if failed.is_some() { ListState::Failed } else { ListState::NotServed };
                    Listed { state, error: failed.clone(), ..Listed::of(format!("{name}/{newest}"), kind) }
                }
            });
        }
        Ok(lists)
    }

    /// Writes all objects of a list. If the API server refuses the list, the dump continues and the record contains the error.
    async fn list<K: SeenKind>(&mut self, listing: Listing) -> Result<Listed, ListError> {
        let mut listed = Listed { state: ListState::Listed, ..unlisted(listing) };
        let (source, place) = (listing.source, listing.resource());
        let url = kube::api::DynamicObject::url_path(&place, None);
        let mut params = ListParams::default().limit(listing.page().map_or(PAGE, |page| page.min(PAGE)));
        loop {
            let page = match self.page::<K>(&url, &params).await {
                Ok(page) => page,
                Err(error) => {
                    let why = sentence(&error);
                    (self.tell)(format!("{source}: {why}"));
                    return Ok(Listed { state: ListState::Failed, error: Some(format!("{source}: {why}")), ..listed });
                }
            };
            for Item { mut object, .. } in page.items {
                let Some(fields) = object.as_object_mut() else { continue };
                fields.insert("apiVersion".to_owned(), place.api_version.as_str().into());
                fields.insert("kind".to_owned(), place.kind.as_str().into());
                if let (Kind::AppWrapper, Some(spec)) = (K::KIND, fields.get_mut("spec")) {
                    bare(spec);
                }
                self.object(&object).map_err(ListError::Write)?;
                listed.objects += 1;
            }
            let next = page.metadata.next.filter(|next| !next.is_empty());
            let Some(next) = next else { break };
            (self.tell)(format!("{source}: {} so far", listed.objects));
            params = params.continue_token(&next);
        }
        (self.tell)(format!("{source}: {}", listed.objects));
        Ok(listed)
    }

    async fn page<K: SeenKind>(&self, url: &str, params: &ListParams) -> Result<Page<K>, kube::Error> {
        let request = Request::new(url).list(params).map_err(kube::Error::BuildRequest)?;
        self.client.request(request).await
    }
}

/// One page of a list.
#[derive(serde::Deserialize)]
#[serde(bound = "")]
struct Page<K: SeenKind> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default = "Vec::new", deserialize_with = "nullable")]
    items: Vec<Item<K>>,
}

#[derive(Default, serde::Deserialize)]
struct PageMeta {
    /// The token of the next page.
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

fn nullable<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The needed fields of an object.
struct Item<K> {
    object: Value,
    kind: PhantomData<K>,
}

impl<'de, K: SeenKind> Deserialize<'de> for Item<K> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self { object: needed(K::KIND, from)?, kind: PhantomData })
    }
}

/// The record of a list before it is requested.
fn unlisted(listing: Listing) -> Listed {
    Listed::of(listing.resource().api_version, listing.source.kind())
}

/// Whether the API server serves AppWrappers of a group and version.
async fn serves(client: &Client, served: Served) -> Result<bool, kube::Error> {
    match client.list_api_group_resources(served.api_version()).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == "appwrappers")),
        // For an unknown group, the answer is plain text without a reason, so only the code is checked.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// The version and the time of the API server.
async fn ask_version(client: &Client) -> Result<(Option<String>, Option<Timestamp>), ListError> {
    let request = Request::new("/version").list(&ListParams::default()).map_err(kube::Error::BuildRequest);
    let request = request.map_err(ListError::Unreachable)?.map(Body::from);
    let answer = client.send(request).await.map_err(ListError::Unreachable)?;
    let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
    let at = date.and_then(|date| rfc2822::parse(date).ok()).map(|at| at.timestamp());
    // A user without the right to read the version may still list.
    let body = answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let version: Value = serde_json::from_slice(&body).unwrap_or(json!(null));
    Ok((version["gitVersion"].as_str().map(str::to_owned), at))
}

/// An error and its causes in one line.
fn sentence(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return match status.code {
            // The API server keeps the history that pages of a list need for five minutes.
            410 => "the list took longer than the API server keeps its history: make the dump again".to_owned(),
            _ => status.message.clone(),
        };
    }
    let causes = std::iter::successors(error.source(), |error| (**error).source());
    causes.fold(error.to_string(), |chain, cause| format!("{chain}: {cause}"))
}

#[cfg(test)]
mod tests;
