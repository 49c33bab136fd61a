//! Determines whether the pods of an AppWrapper that need a node would fit on real nodes (docs/accounting.md §5).
//!
//! Pure: it depends only on a snapshot, so it can be computed elsewhere and later; a result applies only to the pods it
//! was computed for. Each step runs only if the earlier steps did not decide: best fit (`rooms`), which almost always
//! decides; upper bounds on how many pods can be placed (`bounds`); best fit in other orders (`orders`); a search with
//! a limit (`search`). No step depends on a clock: equal snapshots give equal results.
mod allocation;
mod bounds;
mod choice;
mod claims;
mod columns;
mod device_bounds;
mod filters;
mod kinds;
mod known;
mod orders;
mod patterns;
mod placement;
mod plans;
mod pods;
mod problem;
mod rooms;
mod search;
mod settle;
mod steps;
mod stock;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::Missing;
use crate::devices::offer::Offers;
use crate::object::AppWrapperName;
use crate::snapshot::verdict::{Fits, Outcome, Verdict};
use crate::snapshot::{AppWrapperView, Nodes, Snapshot, Unplaced};

use self::claims::Claims;

pub use self::choice::Choice;
pub use self::pods::{fitting, left, room, takes_pods};
use self::rooms::Rooms;
use self::steps::Steps;

/// Computes the verdicts of a snapshot. Empty if Nodes, Pods or AppWrappers are not known.
pub fn fits(snapshot: &Snapshot) -> Fits {
    fits_within(snapshot, Steps::of_snapshot())
}

fn fits_within(snapshot: &Snapshot, steps: Steps) -> Fits {
    let Some((nodes, appwrappers)) = snapshot.complete() else { return Fits::new() };
    let mut fitter = Fitter::on(nodes, snapshot, steps);
    let place = |view: &AppWrapperView| {
        let name = &view.appwrapper.name;
        Some((name.clone(), fitter.place(name, view.unplaced.as_ref()?)?))
    };
    appwrappers.appwrappers.iter().filter_map(place).collect()
}

/// How many pods are on which node.
pub type PodsOnNodes = Vec<(Arc<str>, u64)>;

/// Tries to place pods on the nodes of a snapshot, each time as if nothing else needed a node.
pub struct Fitter<'a> {
    rooms: Rooms<'a>,
    offers: Option<&'a Offers>,
    claims: Option<Claims<'a>>,
    are_devices_unknown: bool,
    steps: Steps,
}

impl<'a> Fitter<'a> {
    /// On the nodes of a snapshot. `None` if Nodes or Pods are not known.
    pub fn new(snapshot: &'a Snapshot) -> Option<Self> {
        let nodes = snapshot.nodes.as_ref().filter(|_| snapshot.orphans.is_some())?;
        Some(Self::on(nodes, snapshot, Steps::of_snapshot()))
    }

    fn on(nodes: &'a Nodes, snapshot: &'a Snapshot, steps: Steps) -> Self {
        let offers = snapshot.offers.as_deref();
        Self {
            rooms: Rooms::new(nodes.nodes.iter().map(|view| &**view), &snapshot.options.tolerated),
            claims: offers.map(|offers| Claims::new(offers, Steps::of_claims())),
            offers,
            are_devices_unknown: snapshot.missing.contains(&Missing::Devices),
            steps,
        }
    }

    /// The same, with as many steps as at first: earlier pods have used up none.
    pub fn renewed(&mut self) -> &mut Self {
        self.steps = Steps::of_snapshot();
        if let Some(claims) = &mut self.claims {
            claims.renew(Steps::of_claims());
        }
        self
    }

    /// Whether pods that need a node fit. `None` if that depends on devices that are not known.
    pub fn place(&mut self, owner: &AppWrapperName, unplaced: &Unplaced) -> Option<Verdict> {
        let Self { rooms, offers, claims, are_devices_unknown, steps } = self;
        steps.begin();
        if !claims::concerns(&unplaced.groups, *offers) {
            let verdict = rooms.place(owner, unplaced, steps);
            // A claim may provide what kubelet does not declare enough of.
            let may_be_claimed = *are_devices_unknown
                && verdict.outcome != Outcome::Fits
                && unplaced.groups.iter().any(|group| group.requests.devices().next().is_some());
            return (!may_be_claimed).then_some(verdict);
        }
        claims.as_mut()?.place(rooms, owner, unplaced, steps)
    }

    /// The same, and how many pods best fit places on which node. Another step may place more of them.
    pub fn place_and_name(&mut self, owner: &AppWrapperName, unplaced: &Unplaced) -> Option<(Verdict, PodsOnNodes)> {
        self.rooms.placed = Some(Vec::new());
        let verdict = self.place(owner, unplaced);
        let mut by_place: BTreeMap<usize, u64> = BTreeMap::new();
        for (place, pods) in self.rooms.placed.take().unwrap_or_default() {
            *by_place.entry(place).or_default() += pods;
        }
        let name = |(place, pods): (usize, u64)| (self.rooms.view(place).node.name.clone(), pods);
        Some((verdict?, by_place.into_iter().map(name).collect()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Cluster;
    use crate::now::Now;
    use crate::object::{Kind, decode};
    use crate::options::Options;
    use crate::views::without_reports;

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

    /// Checks whether each AppWrapper fits, by name, on ten nodes and with these limits on examined nodes.
    fn check(usual: u64, of_unusual: u64, expected: &[Option<bool>]) {
        let nodes = (0..10).map(|at| node(&format!("n{at}")));
        let all = [appwrapper("a", 20, 30), appwrapper("b", 20, 30), appwrapper("usual", 2, 0)];
        let objects = nodes.chain(all).map(|(kind, value)| decode(kind, value).unwrap());
        let cluster = Cluster::from_objects(objects);
        let options = Options::default();
        let views = without_reports(&cluster, &options);
        let snapshot = Snapshot::new(&cluster, views, Now::default(), 0, &options);
        let fits = fits_within(&snapshot, Steps::with_looks(usual, of_unusual));
        assert_eq!(fits.values().map(crate::snapshot::verdict::Verdict::fits).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn appwrappers_that_take_long_keep_no_other_from_its_verdict() {
        // Each of the first two needs 20 groups and 30 conditions on 10 nodes, and some more for the text of each.
        check(1_000, 0, &[Some(true); 3]);
        check(100, 0, &[None, None, Some(true)]);
        check(100, 1_000, &[Some(true), None, Some(true)]);
        check(100, 2_000, &[Some(true); 3]);
    }
}
