//! The result of the search for a placement of pods on real nodes. [`crate::fit`] computes it from a snapshot; later
//! snapshots keep it as long as it applies to the same pods.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Part, Unplaced};
use crate::object::AppWrapperName;

/// The result of the attempt to place the pods of one AppWrapper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which of its pods were tried.
    pub part: Part,
    /// The number of pods that must be placed.
    pub needed: u64,
    /// The number of pods that the best attempt placed.
    pub placed: u64,
    /// The result.
    pub outcome: Outcome,
    /// The object that the result is about: one that does not exist or cannot be read. `None` if it is about no object
    /// in particular.
    pub about: Option<Arc<str>>,
}

/// Whether pods fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A placement was found.
    Fits,
    /// There is no placement.
    Never,
    /// No placement was found, and the search was stopped early.
    Unproven,
    /// It depends on something that cannot be decided here.
    Undecided(Undecided),
}

/// Why it is not known whether pods with claims to devices fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Undecided {
    /// A claim or claim template that they use does not exist.
    ClaimMissing,
    /// A claim contains a request of an unsupported form.
    Request,
    /// A selector expression could not be evaluated for some device.
    Selector,
    /// Shares of a device are allocated, and it is not known whether more are available.
    SharedDevice,
}

impl Outcome {
    /// Why it is not known whether the pods fit: the label `reason`. `None` if it is known.
    pub fn unknown(self) -> Option<&'static str> {
        match self {
            Self::Fits | Self::Never => None,
            Self::Unproven => Some("search"),
            Self::Undecided(Undecided::ClaimMissing) => Some("claim_missing"),
            Self::Undecided(Undecided::Request) => Some("request"),
            Self::Undecided(Undecided::Selector) => Some("selector"),
            Self::Undecided(Undecided::SharedDevice) => Some("shared_device"),
        }
    }
}

impl Verdict {
    /// Whether the pods fit. `None` if it is not known.
    pub fn fits(&self) -> Option<bool> {
        match self.outcome {
            Outcome::Fits => Some(true),
            Outcome::Never => Some(false),
            Outcome::Unproven | Outcome::Undecided(_) => None,
        }
    }

    /// Whether the result applies to these pods.
    pub fn is_on(&self, unplaced: &Unplaced) -> bool {
        (self.part, self.needed) == (unplaced.part, unplaced.needed)
    }
}

/// The results for all AppWrappers of one snapshot that need nodes, each computed as if it were the only one.
pub type Fits = BTreeMap<AppWrapperName, Verdict>;
