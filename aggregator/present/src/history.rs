//! The last hour as the page draws it: one point every few seconds, in a ring. Pure; who adds points, and when, is the server's.
//!
//! What was unknown at an instant is absent from its point, so that a line has a gap there and no zero.
use std::collections::VecDeque;
use std::time::Duration;

use mcad_accounting::merge::Snapshot;
use mcad_accounting::now::Now;
use mcad_accounting::resource::Resource;

use crate::resources::order;

/// How far back it goes.
pub const SPAN: Duration = Duration::from_hours(1);

/// From one point to the next: 240 points an hour are one for each pixel or two of a small line.
pub const STEP: Duration = Duration::from_secs(15);

/// The most points that are kept.
const POINTS: usize = (SPAN.as_secs() / STEP.as_secs()) as usize;

/// So many resources have lines. Nodes may declare any number of them, and memory must not grow with it.
pub const RESOURCES: usize = 8;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct History {
    points: VecDeque<Point>,
}

/// One instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// When it was.
    pub at: Now,
    /// By resource, GPUs first.
    pub figures: Vec<(Resource, Figures)>,
}

/// What of one resource is drawn: whole millicores, bytes or devices. Absent: it was not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// What there is.
    pub installed: Option<f64>,
    /// What of it works.
    pub healthy: Option<f64>,
    /// What pods hold.
    pub held: Option<f64>,
    /// What a new pod could get.
    pub free: Option<f64>,
    /// What is in use.
    pub used: Option<f64>,
}

impl History {
    /// Adds what a snapshot shows, and forgets what is older than an hour.
    pub fn add(&mut self, snapshot: &Snapshot) {
        let at = snapshot.made;
        while self.points.len() >= POINTS || self.points.front().is_some_and(|first| at.since(first.at) > SPAN) {
            self.points.pop_front();
        }
        self.points.push_back(Point { at, figures: figures(snapshot) });
    }

    /// All points, the oldest first.
    pub fn points(&self) -> impl ExactSizeIterator<Item = &Point> {
        self.points.iter()
    }
}

fn figures(snapshot: &Snapshot) -> Vec<(Resource, Figures)> {
    let mut all = match &snapshot.kubernetes {
        None => snapshot.cluster.iter().map(|(resource, all)| (resource.clone(), local(resource, &all.sums))).collect(),
        Some(kubernetes) => kubernetes.nodes.as_ref().map(of_nodes).unwrap_or_default(),
    };
    all.sort_by_key(|(resource, _): &(Resource, Figures)| order(resource));
    all.truncate(RESOURCES);
    all
}

fn of_nodes(nodes: &mcad_accounting::snapshot::Nodes) -> Vec<(Resource, Figures)> {
    let figures = nodes.sums.iter().map(|(resource, rung)| {
        let used = nodes.used.get(resource).filter(|all| all.nodes > 0).and_then(|all| in_all(resource, &all.used));
        let figures = Figures {
            installed: Some(rung.installed as f64),
            healthy: Some(rung.healthy as f64),
            held: rung.account.as_ref().map(|account| account.requested_in_all() as f64),
            free: rung.account.as_ref().map(|account| account.free as f64),
            used,
        };
        (resource.clone(), figures)
    });
    figures.collect()
}

fn local(resource: &Resource, sums: &mcad_accounting::merge::Figures) -> Figures {
    Figures {
        installed: sums.installed.map(|amount| amount as f64),
        healthy: sums.healthy.map(|amount| amount as f64),
        used: in_all(resource, &sums.used),
        ..Figures::default()
    }
}

/// Nothing where nothing was measured.
fn in_all(resource: &Resource, used: &mcad_accounting::measure::Used) -> Option<f64> {
    let parts = [used.appwrapper, used.other, used.system];
    let known = parts.into_iter().flatten().map(|part| crate::resources::in_unit(resource, part));
    used.is_measured().then(|| known.sum())
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
        let (resource, figures) = &point.figures[0];
        assert_eq!(*resource, Resource::Gpu);
        let (installed, used) = (Some(2.0), Some(1.5));
        assert_eq!(*figures, Figures { installed, healthy: installed, held: None, free: None, used });
        // One report tells no rate.
        assert_eq!((point.figures[1].0.clone(), point.figures[1].1.used), (Resource::Cpu, None));
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
