//! The record that `mcad-aggregator dump` writes in addition to the objects. It contains when the dump was made, the version of the API
//! server, the served kinds, and whether all objects of a kind are in the dump.
use std::collections::BTreeSet;

use mcad_accounting::object::Kind;
use mcad_accounting::object::meta::instant_ms;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ItemError;

/// Group and version of the record.
pub const API_VERSION: &str = "mcad-metrics/v1";
/// Kind of the record.
pub const KIND: &str = "Dump";

/// See the module's documentation. Readers ignore unknown content, so that lists of other kinds can be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Group and version of the record.
    pub api_version: String,
    /// Kind of the record.
    pub kind: String,
    /// When the first list was requested, in RFC 3339.
    pub instant: String,
    /// The clock of that instant.
    pub clock: WhoseClock,
    /// The version of the API server. `None` if it did not report one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// The version of this program that wrote it.
    #[serde(default)]
    pub written_by: String,
    /// The requested lists.
    pub lists: Vec<Listed>,
}

/// The clock of an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WhoseClock {
    /// The API server's.
    Server,
    /// That of the machine on which the dump was made.
    Local,
}

/// The result of one list request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Group and version.
    pub api_version: String,
    /// The kind of its objects.
    pub kind: String,
    /// The number of its objects in the dump.
    pub objects: u64,
    /// Whether these are all objects.
    pub state: ListState,
    /// Why these are not all objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Whether a list was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ListState {
    /// All objects are in the dump.
    Listed,
    /// The API server does not serve the kind.
    NotServed,
    /// The list could not be read, or not to its end.
    Failed,
}

/// Whether an object has our own API group.
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

    /// When the dump was made, in ms since the Unix epoch. `None` if the instant cannot be parsed.
    pub fn unix_ms(&self) -> Option<i64> {
        instant_ms(&self.instant)
    }

    /// The results of the lists of a kind.
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
    /// A list before it is requested: it counts as not served.
    pub fn of(api_version: String, kind: Kind) -> Self {
        Self { api_version, kind: kind.name().to_owned(), objects: 0, state: ListState::NotServed, error: None }
    }
}
