//! When a dump was made: its ages are relative to this instant (docs/accounting.md §6), never to the reader's clock.
use std::fmt;

use k8s_openapi::jiff::Timestamp;
use mcad_accounting::object::meta::instant_ms;
use serde_json::Value;

/// The instant of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// Milliseconds since the Unix epoch.
    pub unix_ms: i64,
    /// The source of the instant.
    pub by: By,
}

/// The source of the instant of a dump, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The record of `mcad-aggregator dump`.
    Record,
    /// The flag `--at`.
    Flag,
    /// The newest time in the objects.
    Newest,
}

impl By {
    /// The name for scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Record => "recorded",
            Self::Flag => "given",
            Self::Newest => "newest",
        }
    }

    /// The text for people, after the instant.
    pub fn words(self) -> &'static str {
        match self {
            Self::Record => "recorded when the dump was made",
            Self::Flag => "given with --at",
            Self::Newest => "the newest time in the dump",
        }
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.unix_ms) {
            Ok(at) => write!(f, "{at}"),
            Err(_) => write!(f, "{} ms", self.unix_ms),
        }
    }
}

/// The newest time in an object's `creationTimestamp`, `managedFields` and `status.conditions`.
pub(super) fn newest_ms(object: &Value) -> Option<i64> {
    fn elements(list: &Value) -> impl Iterator<Item = &Value> {
        list.as_array().into_iter().flatten()
    }
    let (metadata, conditions) = (&object["metadata"], &object["status"]["conditions"]);
    let written = elements(&metadata["managedFields"]).map(|entry| &entry["time"]);
    let conditions = elements(conditions).filter_map(Value::as_object).flat_map(serde_json::Map::values);
    let times = [&metadata["creationTimestamp"]].into_iter().chain(written).chain(conditions);
    times.filter_map(Value::as_str).filter(|text| has_its_form(text)).filter_map(instant_ms).max()
}

/// Whether a text begins like RFC 3339, `2026-01-05T`: a cheap check that most texts fail.
fn has_its_form(text: &str) -> bool {
    matches!(text.as_bytes(), [_, _, _, _, b'-', _, _, b'-', _, _, b'T' | b't' | b' ', ..])
}
