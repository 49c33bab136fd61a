//! What objects of all kinds have: `metadata`, conditions, a version. And how an absent, a null and an empty field become equal.
use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Deserializer};

/// `metadata` of any object: the fields that matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Meta {
    #[serde(deserialize_with = "nullable")]
    pub(crate) name: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) namespace: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) uid: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) creation_timestamp: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) deletion_timestamp: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) owner_references: Vec<RawOwner>,
}

/// An owner of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RawOwner {
    #[serde(deserialize_with = "nullable")]
    pub(crate) api_version: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) name: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) uid: String,
}

/// A condition of an object's status.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RawCondition {
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) status: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) reason: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) message: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) last_transition_time: String,
}

impl Meta {
    /// The label's value; an empty value counts as absent.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Reads null as the default.
pub fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Milliseconds since the Unix epoch; `None` if the text is not an instant.
pub fn instant_ms(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// The rank of a version of an API group; higher is newer. 0 if there is none, or an older one.
pub(crate) fn rank(api_version: &str) -> u8 {
    match api_version.rsplit('/').next() {
        Some("v1") => 4,
        Some("v1beta2") => 3,
        Some("v1beta1") => 2,
        Some("v1alpha3") => 1,
        _ => 0,
    }
}
