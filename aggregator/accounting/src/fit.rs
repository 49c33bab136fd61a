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
    fits_within(snapshot, Steps::of_snapshot())
}

fn fits_within(snapshot: &Snapshot, mut steps: Steps) -> Fits {
    let Some((nodes, appwrappers)) = snapshot.complete() else { return Fits::new() };
    let mut rooms = Rooms::new(nodes.nodes.iter().map(|view| &**view), &snapshot.options.tolerated);
    let place = |view: &crate::snapshot::AppWrapperView| {
        let unplaced = view.unplaced.as_ref()?;
        let name = &view.appwrapper.name;
        steps.begin();
        Some((name.clone(), rooms.place(name, unplaced, &mut steps)))
    };
    appwrappers.appwrappers.iter().filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Cluster;
    use crate::object::{Kind, decode};
    use crate::options::Options;
    use crate::views::Views;

    fn node(name: &str) -> (Kind, Value) {
        let amounts = json!({ "cpu": "8", "memory": "8Gi", "pods": "110" });
        let status = json!({ "capacity": amounts, "allocatable": amounts, "conditions": [{ "type": "Ready", "status": "True" }] });
        (Kind::Node, json!({ "metadata": { "name": name }, "status": status }))
    }

    fn appwrapper(name: &str, groups: usize, tolerations: usize) -> (Kind, Value) {
        let spec = json!({
            "containers": [{ "resources": { "requests": { "cpu": "1m" } } }],
            "tolerations": (0..tolerations).map(|at| json!({ "key": format!("k{at}"), "operator": "Exists" })).collect::<Vec<_>>(),
        });
        let component = json!({ "template": { "spec": spec }, "podSets": vec![json!({ "path": "template" }); groups] });
        let metadata = json!({ "name": name, "namespace": "a" });
        let value = json!({
            "apiVersion": "workload.codeflare.dev/v1beta2", "metadata": metadata, "spec": { "components": [component] },
            "status": { "phase": "Suspended" },
        });
        (Kind::AppWrapper, value)
    }

    /// Whether each fits, in order of name, on ten nodes and within these looks at them.
    fn check(usual: u64, of_unusual: u64, expected: &[Option<bool>]) {
        let nodes = (0..10).map(|at| node(&format!("n{at}")));
        let all = [appwrapper("a", 20, 30), appwrapper("b", 20, 30), appwrapper("usual", 2, 0)];
        let objects = nodes.chain(all).map(|(kind, value)| decode(kind, value).unwrap());
        let cluster = Cluster::from_objects(objects);
        let options = Options::default();
        let views = Views::new(options.clone()).all(&cluster, &[], |_| true);
        let snapshot = Snapshot::new(&cluster, views, 0, &options);
        let fits = fits_within(&snapshot, Steps::with_looks(usual, of_unusual));
        assert_eq!(fits.values().map(crate::snapshot::verdict::Verdict::fits).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn appwrappers_that_take_long_keep_no_other_from_its_verdict() {
        // Each of the first two: 20 groups and 30 conditions on 10 nodes, and some for the text of each.
        check(1_000, 0, &[Some(true); 3]);
        check(100, 0, &[None, None, Some(true)]);
        check(100, 1_000, &[Some(true), None, Some(true)]);
        check(100, 2_000, &[Some(true); 3]);
    }
}
