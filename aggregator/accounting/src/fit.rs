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
mod pods;
mod problem;
mod rooms;
mod search;
mod settle;
mod steps;

use crate::snapshot::Snapshot;
use crate::snapshot::verdict::Fits;

pub use self::choice::Choice;
pub use self::pods::{fitting, left, room, takes_pods};
use self::rooms::Rooms;
use self::steps::Steps;

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
