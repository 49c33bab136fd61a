//! The name of a node, as it keys what agents report and what the cluster has.
use std::fmt;
use std::sync::Arc;

/// Kubernetes' limit on a node's name, a DNS subdomain.
pub const MAX_BYTES: usize = 253;
/// Of what is no name, as many characters are kept for the message.
const MAX_SHOWN: usize = 256;

/// A node's name: visible ASCII, 1 to 253 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// A text that is no name of a node: its beginning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 1 to {MAX_BYTES} visible ASCII characters")]
pub struct NoNodeName(pub String);

impl NodeName {
    /// Takes a name that obeys the rules.
    pub fn new(name: &str) -> Result<Self, NoNodeName> {
        let visible = name.bytes().all(|byte| byte.is_ascii_graphic());
        if name.is_empty() || name.len() > MAX_BYTES || !visible {
            return Err(NoNodeName(name.chars().take(MAX_SHOWN).collect()));
        }
        Ok(Self(name.into()))
    }

    /// As text.
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
