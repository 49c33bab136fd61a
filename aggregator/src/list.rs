//! Lists a cluster once and writes what figures need of it: `mcad-aggregator dump`. [`crate::dump`] reads it back.
//!
//! Owns what is asked of the API server, in which pages, and what is written of an answer. A page at a time is in memory. No Secret is
//! asked for, and of each object only those fields are written that the watches keep, without the environments and arguments of
//! templates.
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
use crate::watch::resource;
use crate::watch::seen::{SeenAppWrapper, SeenKind, SeenNode, SeenPod};

/// Objects asked for at once, as kubectl does: an answer of a few MB.
const PAGE: u32 = 500;

/// Why there is no dump.
#[derive(Debug, Error)]
pub enum ListError {
    /// The API server does not answer.
    #[error("the API server does not answer")]
    Unreachable(#[source] kube::Error),
    /// What was listed cannot be written.
    #[error("the dump could not be written")]
    Write(#[source] io::Error),
}

/// Lists nodes, pods and AppWrappers of every served version and writes them, with the record. `tell` is told how far it is.
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
    let mut lists = vec![writing.list::<SeenNode>(Source::Nodes).await?, writing.list::<SeenPod>(Source::Pods).await?];
    for served in Served::ALL {
        let source = Source::AppWrappers(served);
        let list = match serves(client, served).await {
            Ok(true) => writing.list::<SeenAppWrapper>(source).await?,
            Ok(false) => Listed::of(source),
            Err(error) => Listed { state: ListState::Failed, error: Some(sentence(&error)), ..Listed::of(source) },
        };
        lists.push(list);
    }
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

/// A dump while it is written.
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

    /// One more item.
    fn object(&mut self, object: &Value) -> io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.text(",\n")?;
        }
        serde_json::to_writer(&mut *self.out, object)?;
        Ok(())
    }

    /// Writes all objects of a list. What the API server refuses is no failure of the dump: the record says it.
    async fn list<K: SeenKind>(&mut self, source: Source) -> Result<Listed, ListError> {
        let mut listed = Listed { state: ListState::Listed, ..Listed::of(source) };
        let place = resource(source);
        let url = kube::api::DynamicObject::url_path(&place, None);
        let mut params = ListParams::default().limit(PAGE);
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

/// One answer to a list.
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
    /// Where the next page begins.
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

fn nullable<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What is needed of an object.
struct Item<K> {
    object: Value,
    kind: PhantomData<K>,
}

impl<'de, K: SeenKind> Deserialize<'de> for Item<K> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self { object: needed(K::KIND, from)?, kind: PhantomData })
    }
}

/// Whether the API server serves AppWrappers of a group and version.
async fn serves(client: &Client, served: Served) -> Result<bool, kube::Error> {
    match client.list_api_group_resources(served.api_version()).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == "appwrappers")),
        // An unknown group is answered in plain text, without a reason: the code decides.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the API server calls its version, and what time it is there.
async fn ask_version(client: &Client) -> Result<(Option<String>, Option<Timestamp>), ListError> {
    let request = Request::new("/version").list(&ListParams::default()).map_err(kube::Error::BuildRequest);
    let request = request.map_err(ListError::Unreachable)?.map(Body::from);
    let answer = client.send(request).await.map_err(ListError::Unreachable)?;
    let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
    let at = date.and_then(|date| rfc2822::parse(date).ok()).map(|at| at.timestamp());
    // Who may not ask for it may still list.
    let body = answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let version: Value = serde_json::from_slice(&body).unwrap_or(json!(null));
    Ok((version["gitVersion"].as_str().map(str::to_owned), at))
}

/// An error and its causes in a line.
fn sentence(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return match status.code {
            // The history that a list of many pages rests on is kept for five minutes.
            410 => "the list took longer than the API server keeps its history: make the dump again".to_owned(),
            _ => status.message.clone(),
        };
    }
    let causes = std::iter::successors(error.source(), |error| (**error).source());
    causes.fold(error.to_string(), |chain, cause| format!("{chain}: {cause}"))
}

#[cfg(test)]
mod tests;
