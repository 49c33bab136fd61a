//! The record of a dump: what `mcad-aggregator dump` writes beside the objects. It says when the dump was made, of which API server,
//! which kinds that serves, and of which all objects are there.
use std::collections::BTreeSet;

use mcad_accounting::cluster::Source;
use mcad_accounting::object::Kind;
use mcad_accounting::object::meta::instant_ms;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ItemError;

/// Group and version of the record.
pub const API_VERSION: &str = "mcad-metrics/v1";
/// Kind of the record.
pub const KIND: &str = "Dump";

/// See the module's documentation. Readers pass over what they do not know, so that lists of other kinds can be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Group and version of the record.
    pub api_version: String,
    /// Kind of the record.
    pub kind: String,
    /// When the first list was asked for, in RFC 3339.
    pub instant: String,
    /// Whose clock said so.
    pub clock: WhoseClock,
    /// What the API server calls its version. Absent: it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// The version of this program that wrote it.
    #[serde(default)]
    pub written_by: String,
    /// What was asked for.
    pub lists: Vec<Listed>,
}

/// Whose clock an instant is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WhoseClock {
    /// The API server's.
    Server,
    /// The machine's on which the dump was made.
    Local,
}

/// What became of one list of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Group and version.
    pub api_version: String,
    /// The kind of its objects.
    pub kind: String,
    /// How many objects of it are in the dump.
    pub objects: u64,
    /// Whether they are all.
    pub state: ListState,
    /// Why they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How far a list came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ListState {
    /// All of it is there.
    Listed,
    /// The API server does not serve the kind.
    NotServed,
    /// It could not be read, or not to its end.
    Failed,
}

/// Whether an object is our own.
pub(super) fn is_one(api_version: &str) -> bool {
    api_version.split_once('/').is_some_and(|(group, _)| group == "mcad-metrics")
}

impl Record {
    pub(super) fn read(value: Value) -> Result<Self, ItemError> {
        let version = value["apiVersion"].as_str().unwrap_or_default().to_owned();
        if version != API_VERSION || value["kind"] != KIND {
            let object = value["kind"].as_str().unwrap_or_default().to_owned();
            return Err(ItemError::Version { object, version, known: format!("{API_VERSION} {KIND}") });
        }
        serde_json::from_value(value).map_err(ItemError::Record)
    }

    /// When the dump was made, in ms since the Unix epoch. Absent: it is no instant.
    pub fn unix_ms(&self) -> Option<i64> {
        instant_ms(&self.instant)
    }

    /// What became of the lists of a kind.
    pub fn lists_of(&self, kind: Kind) -> impl Iterator<Item = &Listed> {
        self.lists.iter().filter(move |list| Kind::named(&list.api_version, &list.kind) == Some(kind))
    }

    /// The kinds of which all objects are in the dump.
    pub fn known(&self) -> BTreeSet<Kind> {
        let is_known = |kind: &Kind| {
            let mut lists = self.lists_of(*kind).filter(|list| list.state != ListState::NotServed).peekable();
            lists.peek().is_some() && lists.all(|list| list.state == ListState::Listed)
        };
        Kind::ALL.into_iter().filter(is_known).collect()
    }
}

impl Listed {
    /// What is known of a list before it is asked for.
    pub fn of(source: Source) -> Self {
        let api_version = match source {
            Source::Nodes | Source::Pods => "v1",
            Source::AppWrappers(served) => served.api_version(),
        };
        let (api_version, kind) = (api_version.to_owned(), format!("{:?}", source.kind()));
        Self { api_version, kind, objects: 0, state: ListState::NotServed, error: None }
    }
}
