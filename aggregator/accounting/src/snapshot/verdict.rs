//! What was found about whether pods fit on real nodes. [`crate::fit`] finds it, from a snapshot; the snapshots after it carry it along,
//! as long as it is about the same pods.
use std::collections::BTreeMap;

use super::{Part, Unplaced};
use crate::object::AppWrapperName;

/// What became of the attempt to place one AppWrapper's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which of its pods they are.
    pub part: Part,
    /// Pods that must be placed.
    pub needed: u64,
    /// Pods that were placed in the best attempt.
    pub placed: u64,
    /// What that says.
    pub outcome: Outcome,
}

/// Whether pods fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A placement was found.
    Fits,
    /// There is none.
    Never,
    /// None was found, and the search was cut short.
    Unproven,
}

impl Verdict {
    /// Whether the pods fit. Absent: the search was cut short.
    pub fn fits(&self) -> Option<bool> {
        match self.outcome {
            Outcome::Fits => Some(true),
            Outcome::Never => Some(false),
            Outcome::Unproven => None,
        }
    }

    /// It is about these pods.
    pub fn is_on(&self, unplaced: &Unplaced) -> bool {
        (self.part, self.needed) == (unplaced.part, unplaced.needed)
    }
}

/// Verdicts on all AppWrappers of one snapshot that need places, each as if it were the only one.
pub type Fits = BTreeMap<AppWrapperName, Verdict>;
