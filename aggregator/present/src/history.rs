//! The last hour, as the page draws it: one point every few seconds, in a ring buffer. Pure: the server decides when to add points.
//!
//! A value that was unknown at an instant is `None` in its point, so that the line has a gap there instead of a zero.
use std::collections::VecDeque;
use std::time::Duration;

use mcad_accounting::now::Now;
use mcad_accounting::resource::Resource;
use mcad_accounting::snapshot::Snapshot;

use crate::resources::{in_unit, order};

/// How far back the history goes.
pub const SPAN: Duration = Duration::from_hours(1);

/// The time between two points: 240 points in an hour are about one for each pixel of a small chart.
pub const STEP: Duration = Duration::from_secs(15);

/// The largest number of points that are kept.
const POINTS: usize = (SPAN.as_secs() / STEP.as_secs()) as usize;

/// So many resources have charts. Nodes can declare any number of resources, and memory must not grow with it.
pub const RESOURCES: usize = 8;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct History {
    points: VecDeque<Point>,
}

/// One instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its time.
    pub at: Now,
    /// The values by resource, GPUs first.
    pub values: Vec<(Resource, ResourceValues)>,
}

/// The values of one resource that are drawn, in millicores, bytes or devices. `None` if a value was not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResourceValues {
    /// What is installed.
    pub installed: Option<f64>,
    /// What is healthy.
    pub healthy: Option<f64>,
    /// Requested by pods or held by their claims.
    pub held: Option<f64>,
    /// What is free for a new pod.
    pub free: Option<f64>,
    /// In use.
    pub used: Option<f64>,
}

impl History {
    /// Adds a point with the values of a snapshot, and removes points older than an hour.
    pub fn add(&mut self, snapshot: &Snapshot) {
        let at = snapshot.made;
        while self.points.len() >= POINTS || self.points.front().is_some_and(|first| at.since(first.at) > SPAN) {
            self.points.pop_front();
        }
        self.points.push_back(Point { at, values: values(snapshot) });
    }

    /// All points, oldest first.
    pub fn points(&self) -> impl ExactSizeIterator<Item = &Point> {
        self.points.iter()
    }
}

fn values(snapshot: &Snapshot) -> Vec<(Resource, ResourceValues)> {
    let mut all = snapshot.nodes.as_ref().map(of_nodes).unwrap_or_default();
    all.sort_by_key(|(resource, _): &(Resource, ResourceValues)| order(resource));
    all.truncate(RESOURCES);
    all
}

fn of_nodes(nodes: &mcad_accounting::snapshot::Nodes) -> Vec<(Resource, ResourceValues)> {
    let values = nodes.sums.iter().map(|(resource, rung)| {
        let used = nodes.used.get(resource).filter(|all| all.nodes > 0).and_then(|all| all.used.in_all());
        let values = ResourceValues {
            installed: rung.installed.map(|amount| amount as f64),
            healthy: rung.healthy.map(|amount| amount as f64),
            held: rung.account.as_ref().map(|account| account.requested_in_all() as f64),
            free: rung.account.as_ref().map(|account| account.free as f64),
            used: used.map(|used| in_unit(resource, used)),
        };
        (resource.clone(), values)
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use mcad_testkit::reports::{at, gpu, gpus, report, snapshot};

    use super::*;

    fn of(seconds: u64) -> Snapshot {
        let mut with = report("n-1", 1);
        with.gpus = Some(gpus(vec![gpu("GPU-1", Some(0.5)), gpu("GPU-2", Some(1.0))]));
        snapshot(vec![(with, at(seconds))], at(seconds))
    }

    #[test]
    fn gpus_come_first_and_what_is_unknown_is_absent() {
        let mut history = History::default();
        history.add(&of(0));
        let point = history.points().next().unwrap().clone();
        let (resource, values) = &point.values[0];
        assert_eq!(*resource, Resource::Gpu);
        let (installed, used) = (Some(2.0), Some(1.5));
        assert_eq!(*values, ResourceValues { installed, healthy: installed, held: None, free: None, used });
        // A rate needs two reports.
        assert_eq!((point.values[1].0.clone(), point.values[1].1.used), (Resource::Cpu, None));
    }

    #[test]
    fn an_hour_is_kept_however_many_points_are_added() {
        let mut history = History::default();
        (0..1000).for_each(|n| history.add(&of(n)));
        assert_eq!(history.points().len(), POINTS);
        history.add(&of(1000 + SPAN.as_secs()));
        assert_eq!(history.points().len(), 1);
    }
}
