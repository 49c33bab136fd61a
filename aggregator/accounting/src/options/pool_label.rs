//! The node label whose value names a node's pool. Owns the default, and which keys `--pool-label` takes.
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use super::selector;

/// The label that names the model of a node's GPUs: GPU feature discovery sets it.
pub const DEFAULT: &str = "nvidia.com/gpu.product";

/// A label that `--pool-label KEY` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLabel(Arc<str>);

/// Why a text cannot be the key of a label.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a valid label key; write it as on the nodes, for example topology.kubernetes.io/zone")]
pub struct ParseError(String);

impl PoolLabel {
    /// The key.
    pub fn key(&self) -> &str {
        &self.0
    }
}

impl FromStr for PoolLabel {
    type Err = ParseError;

    fn from_str(key: &str) -> Result<Self, ParseError> {
        if selector::is_key(key) { Ok(Self(key.into())) } else { Err(ParseError(key.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_the_key_of_a_label_names_pools() {
        for key in [DEFAULT, "pool", "node.kubernetes.io/instance-type"] {
            assert_eq!(key.parse::<PoolLabel>().unwrap().key(), key);
        }
        for key in ["", "a b", "pool=gpu", "/pool", "example.com/"] {
            let refused = key.parse::<PoolLabel>().unwrap_err().to_string();
            assert!(refused.contains("write it as on the nodes"), "{refused}");
        }
    }
}
