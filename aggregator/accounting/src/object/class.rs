//! A DeviceClass and a DeviceTaintRule, decoded: which devices a class contains, and which devices an administrator taints.
use std::sync::Arc;

use serde::Deserialize;

use super::limits::{CLAIM_PARTS, Excess, TEXT_BYTES, over};
use super::meta::{Meta, instant_ms, nullable, rank};
use super::needed::Needed::{self, Fields, Whole};
use super::node::{RawTaint, Taint};
use super::request::RawSelector;
use super::slice::Listed;

/// A DeviceClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceClass {
    /// Its name.
    pub name: Arc<str>,
    /// Its UID; empty if it comes from a dump without UIDs.
    pub uid: Arc<str>,
    /// The rank of the API version that this was read from; higher is newer.
    pub rank: u8,
    /// When it was created, in ms since the Unix epoch.
    pub created_ms: Option<i64>,
    /// CEL expressions that its devices match.
    pub selectors: Box<[Arc<str>]>,
    /// The extended resource under which pods may request its devices, in addition to the implicit name that each class has.
    pub extended: Option<Arc<str>>,
    /// Which bound it exceeds, so that it is left out; `None` if it exceeds none.
    pub excess: Option<Excess>,
}

/// A DeviceTaintRule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaintRule {
    /// Its name.
    pub name: Arc<str>,
    /// Its UID; empty if it comes from a dump without UIDs.
    pub uid: Arc<str>,
    /// The rank of the API version that this was read from; higher is newer.
    pub rank: u8,
    /// The taint.
    pub taint: Taint,
    /// Driver, pool and name of the devices to taint. `None` matches all.
    only: [Option<Arc<str>>; 3],
    /// Whether it selects devices in a way that only older API servers support. Then it is not applied.
    pub is_unread: bool,
    /// Which bound it exceeds, so that it is left out; `None` if it exceeds none.
    pub excess: Option<Excess>,
}

impl TaintRule {
    /// Whether it taints a device.
    pub fn selects(&self, device: Listed<'_>) -> bool {
        let has = [&device.slice.driver, &device.slice.pool, device.name()];
        !self.is_unread && self.only.iter().zip(has).all(|(only, has)| only.as_ref().is_none_or(|only| only == has))
    }

    /// The driver and the pool whose devices it can taint; `None` matches all.
    pub fn about(&self) -> (Option<&Arc<str>>, Option<&Arc<str>>) {
        (self.only[0].as_ref(), self.only[1].as_ref())
    }
}

/// The fields of [`RawDeviceClass`] and its parts.
pub(crate) const CLASS_NEEDED: Needed = Fields(&[
    ("apiVersion", Whole),
    ("metadata", Fields(&[("name", Whole), ("uid", Whole), ("resourceVersion", Whole), ("creationTimestamp", Whole)])),
    ("spec", Fields(&[("selectors", Whole), ("extendedResourceName", Whole)])),
]);

/// The fields of [`RawTaintRule`] and its parts.
pub(crate) const RULE_NEEDED: Needed = Fields(&[
    ("apiVersion", Whole),
    ("metadata", Fields(&[("name", Whole), ("uid", Whole), ("resourceVersion", Whole)])),
    ("spec", Fields(&[("deviceSelector", Whole), ("taint", Whole)])),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawDeviceClass {
    #[serde(default, deserialize_with = "nullable")]
    api_version: String,
    metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawClassSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawClassSpec {
    #[serde(deserialize_with = "nullable")]
    selectors: Vec<RawSelector>,
    #[serde(deserialize_with = "nullable")]
    extended_resource_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawTaintRule {
    #[serde(default, deserialize_with = "nullable")]
    api_version: String,
    metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawRuleSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawRuleSpec {
    #[serde(deserialize_with = "nullable")]
    device_selector: RawDeviceSelector,
    #[serde(deserialize_with = "nullable")]
    taint: RawTaint,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawDeviceSelector {
    driver: Option<String>,
    pool: Option<String>,
    device: Option<String>,
    device_class_name: Option<String>,
    #[serde(deserialize_with = "nullable")]
    selectors: Vec<serde_json::Value>,
}

impl From<RawDeviceClass> for DeviceClass {
    fn from(raw: RawDeviceClass) -> Self {
        let RawDeviceClass { api_version, metadata, spec } = raw;
        let excess = over(spec.selectors.len(), CLAIM_PARTS, Excess::Devices).or(over(
            spec.extended_resource_name.len(),
            TEXT_BYTES,
            Excess::Text,
        ));
        Self {
            rank: rank(&api_version),
            created_ms: instant_ms(&metadata.creation_timestamp),
            selectors: spec.selectors.into_iter().take(CLAIM_PARTS).map(RawSelector::expression).collect(),
            extended: Some(spec.extended_resource_name).filter(|name| !name.is_empty()).map(Into::into),
            excess,
            name: metadata.name.into(),
            uid: metadata.uid.into(),
        }
    }
}

impl From<RawTaintRule> for TaintRule {
    fn from(raw: RawTaintRule) -> Self {
        let RawTaintRule { api_version, metadata, spec } = raw;
        let RawDeviceSelector { driver, pool, device, device_class_name, selectors } = spec.device_selector;
        Self {
            rank: rank(&api_version),
            taint: spec.taint.into(),
            is_unread: device_class_name.is_some() || !selectors.is_empty(),
            only: [driver, pool, device].map(|name| name.map(Into::into)),
            excess: None,
            name: metadata.name.into(),
            uid: metadata.uid.into(),
        }
    }
}
