//! Objects of the cluster, decoded to the few fields that the figures rest on.
//!
//! Owns what is read of an object and how. What the figures make of them is in [`crate::cluster`].
//!
//! Decoding is lenient where a wrong value costs that value alone (an unreadable quantity is absent, and counted), and
//! strict where the object's shape is wrong: that object is an error with the path of the field, and is left out.
pub(crate) mod appwrapper;
pub(crate) mod constraints;
pub(crate) mod meta;
pub(crate) mod needed;
pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod port;
pub(crate) mod quantities;
pub(crate) mod spec;
pub(crate) mod template;

use serde::de::{DeserializeOwned, DeserializeSeed as _, Deserializer};
use serde_json::Value;
use thiserror::Error;

pub use appwrapper::{AppWrapper, AppWrapperName, Served, Version};
pub use constraints::Constraints;
pub use node::{Declared, Effect, Node, Taint};
pub use pod::{Marks, Phase, Pod, Rare};
pub use port::HostPort;

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
    let needed = match kind {
        Kind::Node => node::NEEDED,
        Kind::Pod => pod::NEEDED,
        Kind::AppWrapper => appwrapper::NEEDED,
    };
    needed.deserialize(from)
}

/// Decodes an object of that kind.
pub fn decode(kind: Kind, value: Value) -> Result<Object, ObjectError> {
    if value["metadata"]["name"].as_str().is_none_or(str::is_empty) {
        return Err(ObjectError::Nameless { object: called(kind, &value) });
    }
    Ok(match kind {
        Kind::Node => Object::Node(raw::<node::RawNode>(kind, value)?.into()),
        Kind::Pod => Object::Pod(raw::<pod::RawPod>(kind, value)?.into()),
        Kind::AppWrapper => Object::AppWrapper(raw::<appwrapper::RawAppWrapper>(kind, value)?.into()),
    })
}

fn raw<T: DeserializeOwned>(kind: Kind, value: Value) -> Result<T, ObjectError> {
    // To keep account of the path costs as much as to decode, so it is done only for an object that is wrong.
    T::deserialize(&value).or_else(|_| {
        let object = called(kind, &value);
        serde_path_to_error::deserialize(value).map_err(|error| ObjectError::Field {
            object,
            field: error.path().to_string(),
            source: error.into_inner(),
        })
    })
}

fn called(kind: Kind, value: &Value) -> String {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    match text("namespace") {
        "" => format!("{kind:?} {}", text("name")),
        namespace => format!("{kind:?} {namespace}/{}", text("name")),
    }
}
