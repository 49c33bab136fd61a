//! Taints that count as tolerated by every pod: `--tolerate-taint KEY[:EFFECT]` (docs/accounting.md §4, §5).
//!
//! Owns how such a taint is written and which node taints it matches. What a tolerated taint means for a node is in [`crate::ladder`], what
//! it means for a pod is in [`crate::fit`].
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::object::{Effect, Taint};
use crate::resource::NVIDIA_GPU;

/// A taint that is tolerated: a key and one effect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToleratedTaint {
    key: Arc<str>,
    effect: Repelling,
}

/// The effects that keep new pods off a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repelling {
    NoSchedule,
    NoExecute,
}

/// All tolerated taints, sorted, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tolerated(BTreeSet<ToleratedTaint>);

/// Why a text is not a taint that can be tolerated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There is no key.
    #[error("the key of the taint is missing; write KEY or KEY:EFFECT, as in nvidia.com/gpu:NoExecute")]
    NoKey,
    /// The key contains a character that a taint's key cannot contain.
    #[error("{0:?} cannot be the key of a taint; write KEY or KEY:EFFECT, as in nvidia.com/gpu:NoExecute")]
    Key(String),
    /// `KEY=VALUE`.
    #[error("a taint is tolerated whatever its value is; leave out \"={0}\"")]
    Value(String),
    /// An effect that does not prevent scheduling.
    #[error("a PreferNoSchedule taint does not prevent scheduling, so it need not be tolerated; leave it out")]
    Prefer,
    /// An effect that Kubernetes does not know.
    #[error("unknown effect {0:?}; write KEY:NoSchedule (the same as KEY) or KEY:NoExecute")]
    Effect(String),
}

impl ToleratedTaint {
    /// The key. If it is the name of a resource, pods that request this resource tolerate the taint.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The effect: `NoSchedule` or `NoExecute`.
    pub fn effect(&self) -> Effect {
        match self.effect {
            Repelling::NoSchedule => Effect::NoSchedule,
            Repelling::NoExecute => Effect::NoExecute,
        }
    }

    /// Whether a node's taint has this key and effect.
    pub fn matches(&self, taint: &Taint) -> bool {
        taint.effect == self.effect() && taint.key == self.key
    }
}

impl Tolerated {
    /// Whether the node's taint is one of them.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.0.iter().any(|tolerated| tolerated.matches(taint))
    }

    /// Every tolerated taint.
    pub fn iter(&self) -> impl Iterator<Item = &ToleratedTaint> {
        self.0.iter()
    }
}

impl Default for Tolerated {
    /// The taint of NVIDIA's device plugin with the effect `NoSchedule` alone, as the admission plugin ExtendedResourceToleration tolerates
    /// it.
    fn default() -> Self {
        [ToleratedTaint { key: NVIDIA_GPU.into(), effect: Repelling::NoSchedule }].into_iter().collect()
    }
}

impl FromIterator<ToleratedTaint> for Tolerated {
    fn from_iter<T: IntoIterator<Item = ToleratedTaint>>(taints: T) -> Self {
        Self(taints.into_iter().collect())
    }
}

impl FromStr for ToleratedTaint {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        // Kubernetes allows no `:` in a taint's key.
        let (key, effect) = text.split_once(':').unwrap_or((text, "NoSchedule"));
        if let Some((_, value)) = key.split_once('=') {
            return Err(ParseError::Value(value.to_owned()));
        }
        if key.is_empty() {
            return Err(ParseError::NoKey);
        }
        if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte)) {
            return Err(ParseError::Key(key.to_owned()));
        }
        let effect = match effect {
            "NoSchedule" => Repelling::NoSchedule,
            "NoExecute" => Repelling::NoExecute,
            "PreferNoSchedule" => return Err(ParseError::Prefer),
            other => return Err(ParseError::Effect(other.to_owned())),
        };
        Ok(Self { key: key.into(), effect })
    }
}

impl fmt::Display for ToleratedTaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.effect {
            Repelling::NoSchedule => f.write_str(&self.key),
            Repelling::NoExecute => write!(f, "{}:NoExecute", self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<[bool; 2], &str>) {
        let tolerated = text.parse::<ToleratedTaint>().map(|taint| Tolerated::from_iter([taint]));
        let taint = |effect| Taint { key: "team".into(), value: "x".into(), effect };
        let effects = [Effect::NoSchedule, Effect::NoExecute];
        let found = tolerated.map(|tolerated| effects.map(|effect| tolerated.tolerates(&taint(effect))));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (found, expected) => panic!("{text}: {found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn a_key_alone_means_no_schedule_and_an_effect_means_itself_alone() {
        check("team", Ok([true, false]));
        check("team:NoSchedule", Ok([true, false]));
        check("team:NoExecute", Ok([false, true]));
        check("other", Ok([false, false]));
    }

    #[test]
    fn what_is_no_taint_that_can_be_tolerated_is_refused_with_what_to_write() {
        check("", Err("write KEY or KEY:EFFECT"));
        check(":NoExecute", Err("write KEY or KEY:EFFECT"));
        check("a b", Err("\"a b\" cannot be the key"));
        check("team=x", Err("leave out \"=x\""));
        check("team=x:NoExecute", Err("leave out \"=x\""));
        check("team:PreferNoSchedule", Err("does not prevent scheduling"));
        check("team:noexecute", Err("write KEY:NoSchedule (the same as KEY) or KEY:NoExecute"));
        check("team:", Err("unknown effect \"\""));
    }

    #[test]
    fn a_tolerated_taint_is_shown_as_it_is_written() {
        for text in ["team", "nvidia.com/gpu", "team:NoExecute"] {
            assert_eq!(text.parse::<ToleratedTaint>().unwrap().to_string(), text);
        }
    }
}
