//! Caches how many pods of a kind fit on all nodes: many AppWrappers wait for the same, and each is placed as if it
//! were the only one.
//!
//! Identical pods are placed one after the other, so if a number of pods fits, fewer also fit. Only results that do not
//! depend on undecided questions are cached.
use std::collections::HashMap;
use std::rc::Rc;

use super::placement::{Kind, Use};
use crate::object::HostPort;
use crate::resource::Amounts;

/// The maximum number of cached kinds.
const KINDS: usize = 10_000;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Known {
    of_kind: HashMap<KindKey, Filled>,
}

/// What identical pods have in common. The addresses belong to objects that live as long as this cache.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct KindKey {
    requests: Amounts,
    ports: Box<[HostPort]>,
    priority: i64,
    selected: usize,
    plans: Box<[usize]>,
}

/// How many pods of a kind were placed.
#[derive(Clone, Copy)]
struct Filled {
    /// The number of pods that were placed.
    pods: u64,
    /// Whether no more can be placed.
    is_all: bool,
}

impl KindKey {
    /// The key of a kind. `None` if its pods share a claim.
    pub(super) fn of(kind: &Kind<'_>) -> Option<Self> {
        let plan = |of: &Use| match of {
            Use::Own(plan) => Some(Rc::as_ptr(plan) as usize),
            Use::Shared(_) => None,
        };
        Some(Self {
            requests: kind.group.requests.clone(),
            ports: kind.group.ports.clone(),
            priority: kind.group.priority,
            selected: kind.selected.as_ptr() as usize,
            plans: kind.claims.iter().map(plan).collect::<Option<_>>()?,
        })
    }
}

impl Known {
    /// How many of `wanted` pods can be placed, if that is known.
    pub(super) fn placed(&self, key: &KindKey, wanted: u64) -> Option<u64> {
        let filled = self.of_kind.get(key)?;
        (filled.is_all || wanted <= filled.pods).then(|| filled.pods.min(wanted))
    }

    /// Records that `placed` of `wanted` pods were placed and that nodes share no devices.
    pub(super) fn note(&mut self, key: KindKey, placed: u64, wanted: u64) {
        let now = Filled { pods: placed, is_all: placed < wanted };
        if self.of_kind.len() < KINDS || self.of_kind.contains_key(&key) {
            let known = self.of_kind.entry(key).or_insert(now);
            if now.is_all || now.pods > known.pods {
                *known = now;
            }
        }
    }
}
