//! The requests of a claim: devices of classes, and constraints on them. Such requests are in a ResourceClaim, in a ResourceClaimTemplate,
//! and in an AppWrapper that contains its own.
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::constraints::Toleration;
use super::limits::{CLAIM_PARTS, Excess, over};
use super::meta::nullable;
use super::node::Taint;
use crate::resource::quantity::{Quantity, Spelled};

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requests {
    /// The requests, in the order of the spec.
    pub requests: Box<[Request]>,
    /// What the devices of several requests must have in common.
    pub constraints: Box<[Constraint]>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Its name, unique in the claim.
    pub name: Arc<str>,
    /// The alternatives, of which the first that can be allocated is used. Empty if the request is of a form that this program does not
    /// know.
    pub alternatives: Box<[Choice]>,
    /// Whether the alternatives have their own names in addition to the name of the request.
    pub is_list: bool,
}

/// One way to satisfy a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Its name, if it is one of several.
    pub name: Arc<str>,
    /// The device class; empty if it names none.
    pub class: Arc<str>,
    /// CEL expressions that a device must match in addition to those of its class.
    pub selectors: Box<[Arc<str>]>,
    /// How many devices.
    pub mode: Mode,
    /// Whether it requests admin access: it monitors devices that others hold, and holds none.
    pub is_admin: bool,
    /// Taints of devices that it tolerates.
    tolerations: Box<[Toleration]>,
    /// How much of its capacities a device must have, by name as written in the request.
    pub capacities: Box<[(Arc<str>, Quantity)]>,
    /// How many of these amounts could not be read.
    pub unreadable: u32,
}

/// How many devices are requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// This many devices.
    Exactly(u64),
    /// All devices on a node.
    All,
    /// A number of devices in a form that this program does not know.
    Unknown,
}

/// What devices must have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Constraint {
    /// The same value of an attribute.
    Match(Box<[Arc<str>]>, Arc<str>),
    /// Different values of an attribute.
    Distinct(Box<[Arc<str>]>, Arc<str>),
    /// A constraint of a form that this program does not know.
    Unknown,
}

impl Choice {
    /// Whether it tolerates the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|toleration| toleration.tolerates(taint))
    }
}

impl Requests {
    /// A request for `count` devices of a class, and nothing else.
    pub fn of_class(class: &Arc<str>, count: u64) -> Self {
        let choice = Choice {
            name: Arc::default(),
            class: class.clone(),
            selectors: Box::default(),
            mode: Mode::Exactly(count),
            is_admin: false,
            tolerations: Box::default(),
            capacities: Box::default(),
            unreadable: 0,
        };
        let request = Request { name: Arc::default(), alternatives: [choice].into(), is_list: false };
        Self { requests: [request].into(), constraints: Box::default() }
    }

    /// Reads the `devices` of a claim's spec.
    pub(crate) fn read(raw: RawDevices) -> (Arc<Self>, Option<Excess>) {
        let parts = raw.requests.iter().map(RawRequest::size).sum::<usize>() + raw.constraints.len();
        let excess = over(parts, CLAIM_PARTS, Excess::Devices);
        if excess.is_some() {
            return (Arc::default(), excess);
        }
        let requests = raw.requests.into_iter().map(Request::from).collect();
        let constraints = raw.constraints.into_iter().map(Constraint::from).collect();
        (Arc::new(Self { requests, constraints }), None)
    }

    /// The number of quantities in them that could not be read.
    pub fn unreadable(&self) -> u32 {
        self.requests.iter().flat_map(|request| &request.alternatives).map(|choice| choice.unreadable).sum()
    }

    /// The class of the request with the name that a claim's result has: `REQUEST`, or `REQUEST/ALTERNATIVE`.
    pub fn class_of(&self, name: &str) -> Option<&Arc<str>> {
        let (name, alternative) = name.split_once('/').map_or((name, None), |(name, of)| (name, Some(of)));
        let request = self.requests.iter().find(|request| *request.name == *name)?;
        let choice = match alternative {
            Some(alternative) => request.alternatives.iter().find(|choice| *choice.name == *alternative),
            None => request.alternatives.first(),
        }?;
        Some(&choice.class).filter(|class| !class.is_empty())
    }
}

/// `devices` of the spec of a claim.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawDevices {
    #[serde(deserialize_with = "nullable")]
    requests: Vec<RawRequest>,
    #[serde(deserialize_with = "nullable")]
    constraints: Vec<RawConstraint>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawRequest {
    #[serde(deserialize_with = "nullable")]
    name: String,
    exactly: Option<RawChoice>,
    first_available: Option<Vec<RawChoice>>,
    /// v1beta1 has here what later versions have in `exactly`.
    #[serde(flatten)]
    inline: RawChoice,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawChoice {
    #[serde(deserialize_with = "nullable")]
    name: String,
    #[serde(deserialize_with = "nullable")]
    device_class_name: String,
    #[serde(deserialize_with = "nullable")]
    selectors: Vec<RawSelector>,
    #[serde(deserialize_with = "nullable")]
    allocation_mode: String,
    #[serde(deserialize_with = "nullable")]
    count: i64,
    #[serde(deserialize_with = "nullable")]
    admin_access: bool,
    #[serde(deserialize_with = "nullable")]
    tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "nullable")]
    capacity: RawCapacity,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCapacity {
    #[serde(deserialize_with = "nullable")]
    requests: BTreeMap<String, Spelled>,
}

/// A selector. If it is not written in CEL, what it selects is unknown.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawSelector {
    cel: Option<RawExpression>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawExpression {
    #[serde(deserialize_with = "nullable")]
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawConstraint {
    #[serde(deserialize_with = "nullable")]
    requests: Vec<String>,
    match_attribute: Option<String>,
    distinct_attribute: Option<String>,
}

impl RawSelector {
    /// The expression. If there is none, an empty text, which is not a valid expression.
    pub(crate) fn expression(self) -> Arc<str> {
        self.cel.unwrap_or_default().expression.into()
    }
}

impl RawRequest {
    fn size(&self) -> usize {
        let of_list = self.first_available.iter().flatten().map(RawChoice::size).sum::<usize>();
        1 + of_list + self.inline.size() + self.exactly.as_ref().map_or(0, RawChoice::size)
    }
}

impl RawChoice {
    fn size(&self) -> usize {
        1 + self.selectors.len() + self.tolerations.len() + self.capacity.requests.len()
    }
}

impl From<RawRequest> for Request {
    fn from(raw: RawRequest) -> Self {
        let RawRequest { name, exactly, first_available, inline } = raw;
        let is_list = first_available.is_some();
        let alternatives = match (exactly, first_available) {
            (Some(exactly), None) => [exactly.into()].into(),
            (None, Some(list)) => list.into_iter().map(Choice::from).collect(),
            (None, None) if !inline.device_class_name.is_empty() => [inline.into()].into(),
            _ => Box::default(),
        };
        Self { name: name.into(), alternatives, is_list }
    }
}

impl From<RawChoice> for Choice {
    fn from(raw: RawChoice) -> Self {
        let mode = match raw.allocation_mode.as_str() {
            // The API server's defaults.
            "" | "ExactCount" => Mode::Exactly(if raw.count == 0 { 1 } else { raw.count.max(0).unsigned_abs() }),
            "All" => Mode::All,
            _ => Mode::Unknown,
        };
        let mut unreadable = 0;
        let mut read = |(name, Spelled(quantity)): (String, Spelled)| {
            unreadable += u32::from(quantity.is_err());
            Some((Arc::from(name), quantity.ok()?))
        };
        let capacities = raw.capacity.requests.into_iter().filter_map(&mut read).collect();
        Self {
            name: raw.name.into(),
            class: raw.device_class_name.into(),
            selectors: raw.selectors.into_iter().map(RawSelector::expression).collect(),
            mode,
            is_admin: raw.admin_access,
            tolerations: raw.tolerations.into(),
            capacities,
            unreadable,
        }
    }
}

impl From<RawConstraint> for Constraint {
    fn from(raw: RawConstraint) -> Self {
        let requests = raw.requests.into_iter().map(Arc::from).collect();
        match (raw.match_attribute, raw.distinct_attribute) {
            (Some(attribute), None) => Self::Match(requests, attribute.into()),
            (None, Some(attribute)) => Self::Distinct(requests, attribute.into()),
            _ => Self::Unknown,
        }
    }
}

/// The requests in the spec of a claim or of a template's claim; `None` if it is not such a spec.
pub(crate) fn of_spec(spec: &Value) -> Option<(Arc<Requests>, Option<Excess>)> {
    Some(Requests::read(RawDevices::deserialize(spec.get("devices")?).ok()?))
}
