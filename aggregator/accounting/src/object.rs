//! Objects of the cluster, decoded to the few fields that the figures rest on.
//!
//! Owns what is read of an object and how. What the figures make of them is in [`crate::cluster`].
//!
//! Decoding is lenient where a wrong value costs that value alone (an unreadable quantity is absent, and counted), and
//! strict where the object's shape is wrong: that object is an error with the path of the field, and is left out.
pub(crate) mod appwrapper;
pub mod bare;
pub(crate) mod constraints;
pub mod demand;
pub(crate) mod limits;
pub mod meta;
pub mod needed;
pub(crate) mod node;
pub mod others;
pub(crate) mod pod;
pub(crate) mod port;
pub(crate) mod quantities;
pub(crate) mod spec;
pub(crate) mod template;
#[cfg(test)]
mod work_tests;

use std::fmt::Write as _;

use serde::Deserialize as _;
use serde::de::{DeserializeOwned, DeserializeSeed as _, Deserializer};
use serde_json::Value;
use thiserror::Error;

pub use appwrapper::{AppWrapper, AppWrapperName, Served, Version};
pub use constraints::Constraints;
pub use limits::Excess;
pub use node::{Declared, Effect, Node, Taint};
pub use pod::{Marks, Phase, Pod, Rare};
pub use port::HostPort;

use crate::resource::Resource;
use crate::resource::quantity::{QuantityError, Spelled};

/// An object that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Node.
    Node(Node),
    /// A Pod.
    Pod(Pod),
    /// An AppWrapper.
    AppWrapper(AppWrapper),
}

impl Object {
    /// How many of its quantities could not be read.
    pub fn unreadable(&self) -> u32 {
        match self {
            Self::Node(node) => node.unreadable,
            Self::Pod(pod) => pod.unreadable,
            Self::AppWrapper(appwrapper) => appwrapper.demand.unreadable,
        }
    }

    /// Which bound it is over: then an AppWrapper is left out, and a part of a Node or a Pod.
    pub fn excess(&self) -> Option<Excess> {
        match self {
            Self::Node(node) => node.excess,
            Self::Pod(pod) => pod.excess,
            Self::AppWrapper(appwrapper) => appwrapper.excess,
        }
    }

    /// What is left out where it is over a bound.
    pub fn left_out_of_it(&self) -> &'static str {
        match self.kind() {
            Kind::AppWrapper => "it is left out",
            Kind::Node | Kind::Pod => "the surplus is left out",
        }
    }

    /// Namespace, empty for a Node, and name.
    pub fn name(&self) -> (&str, &str) {
        match self {
            Self::Node(node) => ("", &node.name),
            Self::Pod(pod) => (&pod.namespace, &pod.name),
            Self::AppWrapper(AppWrapper { name, .. }) => (&name.namespace, &name.name),
        }
    }

    /// Kind, namespace and name.
    pub fn called(&self) -> String {
        let (namespace, name) = self.name();
        let slash = if namespace.is_empty() { "" } else { "/" };
        format!("{:?} {namespace}{slash}{name}", self.kind())
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::AppWrapper(_) => Kind::AppWrapper,
        }
    }
}

/// The kinds of objects that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
    /// AppWrapper of a version that this knows.
    AppWrapper,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Node, Self::Pod, Self::AppWrapper];

    /// The fields that [`decode`] needs.
    pub fn needed(self) -> needed::Needed {
        match self {
            Self::Node => node::NEEDED,
            Self::Pod => pod::NEEDED,
            Self::AppWrapper => appwrapper::NEEDED,
        }
    }

    /// The kind that an object calls itself; absent where it is none of ours.
    pub fn named(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "Node") => Some(Self::Node),
            ("v1", "Pod") => Some(Self::Pod),
            (version, "AppWrapper") if Served::ALL.iter().any(|served| served.api_version() == version) => {
                Some(Self::AppWrapper)
            }
            _ => None,
        }
    }
}

/// An object that could not be decoded.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// A field has another shape than the API gives it.
    #[error("{object}: field `{field}`")]
    Field {
        /// Kind, namespace and name, as far as it says.
        object: String,
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It has no name, or none at all.
    #[error("{object}: field `metadata.name` is empty")]
    Nameless {
        /// Kind, namespace and name, as far as it says.
        object: String,
    },
}

/// What [`decode`] needs of an object of that kind; the rest is passed over, and never in memory.
pub fn needed<'de, D: Deserializer<'de>>(kind: Kind, from: D) -> Result<Value, D::Error> {
    kind.needed().deserialize(from)
}

/// Decodes an object of that kind.
#[expect(clippy::needless_pass_by_value, reason = "whoever decodes is through with it")]
pub fn decode(kind: Kind, value: Value) -> Result<Object, ObjectError> {
    read(kind, &value)
}

/// The same of a value that is looked at again.
pub fn read(kind: Kind, value: &Value) -> Result<Object, ObjectError> {
    if value["metadata"]["name"].as_str().is_none_or(str::is_empty) {
        return Err(ObjectError::Nameless { object: called(kind, value) });
    }
    Ok(match kind {
        Kind::Node => Object::Node(raw::<node::RawNode>(kind, value)?.into()),
        Kind::Pod => Object::Pod(raw::<pod::RawPod>(kind, value)?.into()),
        Kind::AppWrapper => Object::AppWrapper(raw::<appwrapper::RawAppWrapper>(kind, value)?.into()),
    })
}

fn raw<T: DeserializeOwned>(kind: Kind, value: &Value) -> Result<T, ObjectError> {
    // To keep account of the path costs as much as to decode, so it is done only for an object that is wrong.
    T::deserialize(value).or_else(|_| {
        let object = called(kind, value);
        serde_path_to_error::deserialize(value).map_err(|error| ObjectError::Field {
            object,
            field: error.path().to_string(),
            source: error.into_inner(),
        })
    })
}

/// A quantity of an object that could not be read, and counts as absent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{object}: field `{field}`: {why}; it counts as absent")]
pub struct UnreadableQuantity {
    /// Kind, namespace and name.
    pub object: String,
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub why: QuantityError,
}

/// The quantities of an object that cannot be read. Slow: for an object that has some ([`Object::unreadable`]).
pub fn unreadable(kind: Kind, value: &Value) -> Vec<UnreadableQuantity> {
    let mut found = Vec::new();
    find_unreadable(value, &mut String::new(), &mut |field, why| {
        found.push(UnreadableQuantity { object: called(kind, value), field: field.to_owned(), why });
    });
    found
}

/// Lists of quantities, by the names that they have in all kinds.
const QUANTITIES: [&str; 6] = ["requests", "limits", "capacity", "allocatable", "overhead", "allocatedResources"];

fn find_unreadable(value: &Value, path: &mut String, tell: &mut impl FnMut(&str, QuantityError)) {
    let length = path.len();
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let dot = if length == 0 { "" } else { "." };
                path.push_str(dot);
                path.push_str(name);
                if let (true, Value::Object(list)) = (QUANTITIES.contains(&name.as_str()), field) {
                    for (resource, quantity) in list.iter().filter(|(name, _)| Resource::named(name).is_some()) {
                        if let Ok(Spelled(Err(why))) = Spelled::deserialize(quantity) {
                            tell(&format!("{path}[{resource}]"), why);
                        }
                    }
                } else {
                    find_unreadable(field, path, tell);
                }
                path.truncate(length);
            }
        }
        Value::Array(elements) => {
            for (at, element) in elements.iter().enumerate() {
                // Writing to a String has no error.
                let _ = write!(path, "[{at}]");
                find_unreadable(element, path, tell);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn called(kind: Kind, value: &Value) -> String {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    match text("namespace") {
        "" => format!("{kind:?} {}", text("name")),
        namespace => format!("{kind:?} {namespace}/{}", text("name")),
    }
}
