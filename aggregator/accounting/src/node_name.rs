//! The name of a node. Both agents' reports and the cluster's Nodes are looked up by it.
use std::fmt;
use std::sync::Arc;

/// Kubernetes' limit on a node's name, a DNS subdomain.
pub const MAX_BYTES: usize = 253;
/// How many characters of an invalid name are kept for the error message.
const MAX_SHOWN: usize = 256;

/// A node's name: visible ASCII, 1 to 253 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// A text that is not a valid node name; only its beginning is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 1 to {MAX_BYTES} visible ASCII characters")]
pub struct NoNodeName(pub String);

impl NodeName {
    /// Checks a name and takes it if it is valid.
    pub fn new(name: &str) -> Result<Self, NoNodeName> {
        let visible = name.bytes().all(|byte| byte.is_ascii_graphic());
        if name.is_empty() || name.len() > MAX_BYTES || !visible {
            return Err(NoNodeName(name.chars().take(MAX_SHOWN).collect()));
        }
        Ok(Self(name.into()))
    }

    /// The name as shared text.
    pub(crate) fn shared(&self) -> &Arc<str> {
        &self.0
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
