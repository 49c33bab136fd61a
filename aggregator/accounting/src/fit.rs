//! Whether the pods of an AppWrapper that need a place would fit on real nodes (docs/accounting.md §5).
//!
//! Pure, from a snapshot alone, so that it can be worked out elsewhere and later; the answer says only what it is about. Each
//! step is tried only where those before it have not decided: best fit (`rooms`), which decides nearly always; upper bounds on
//! how many pods can be placed (`bounds`); best fit in other orders (`orders`); a search that ends (`search`). No step
//! looks at a clock: equal snapshots give equal answers.
mod bounds;
mod choice;
mod columns;
mod orders;
mod patterns;
mod problem;
mod rooms;
mod search;
mod steps;

use std::collections::BTreeMap;

use crate::object::AppWrapperName;
use crate::snapshot::{Part, Snapshot, Unplaced};

pub use self::choice::Choice;
use self::rooms::Rooms;
pub use self::rooms::{fitting, left, room, takes_pods};
use self::steps::Steps;

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

/// Works out the verdicts of a snapshot; none where Nodes, Pods or AppWrappers are not known.
pub fn fits(snapshot: &Snapshot) -> Fits {
    let Some((nodes, appwrappers)) = snapshot.complete() else { return Fits::new() };
    let mut rooms = Rooms::new(nodes.nodes.iter().map(|view| &**view), &snapshot.options.tolerated);
    let mut steps = Steps::of_snapshot();
    let place = |view: &crate::snapshot::AppWrapperView| {
        let unplaced = view.unplaced.as_ref()?;
        let name = &view.appwrapper.name;
        steps.begin();
        Some((name.clone(), rooms.place(name, unplaced, &mut steps)))
    };
    appwrappers.appwrappers.iter().filter_map(place).collect()
}
