//! The nodes one by one, each joined with what its agent reported.
//!
//! Owns when a node's view is made: as its report arrives, and before a snapshot where its objects have changed since, or
//! its report no longer counts. A snapshot of a large cluster is then mostly views that are there already. Pure: (what was
//! kept, the cluster, reports) to views, and what is kept makes no difference to them but in time.
use std::mem::take;
use std::sync::Arc;

use mcad_wire::reading::Report;

use crate::cluster::owner::ByOwner;
use crate::cluster::room::Room;
use crate::cluster::{Cluster, Held, Revision};
use crate::hardware::Found;
use crate::hardware::shares::{self, Shares};
use crate::ladder::{self, NodeState, Rung};
use crate::measure::{Device, MeasuredNode, NamedPods, Places, measure, measure_hardware};
use crate::node_name::NodeName;
use crate::object::Node;
use crate::options::Options;
use crate::reported::Stored;
use crate::resource::Resource;
use crate::table::Table;

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// The node as declared.
    pub node: Arc<Node>,
    /// Whether it takes pods.
    pub state: NodeState,
    /// Its ladder, in order of resource.
    pub rungs: Vec<(Resource, Rung)>,
    /// Those of its resources that are shares of devices.
    pub shares: Box<[(Resource, Shares)]>,
    /// What is left there beside the ladder; nothing if Pods are not known.
    pub room: Room,
    /// What its agent measured. Absent: no agent reports.
    pub measured: Option<MeasuredNode>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Views {
    options: Options,
    /// By node.
    kept: Table<Arc<str>, Kept>,
    /// Whether Pods were known when these were made.
    with_pods: WithPods,
}

/// Whether Pods are known: without them, what of a node is requested, free and used is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WithPods {
    #[default]
    Unknown,
    Known,
}

/// A view and what it was made from.
#[derive(Debug)]
struct Kept {
    revision: Revision,
    /// Absent: none that counts.
    report: Option<Arc<Stored>>,
    view: Arc<NodeView>,
    places: Places,
}

impl NodeView {
    /// The view of a node whose pods hold so much, without a report.
    pub fn without_report(node: &Arc<Node>, held: Option<&Held>, options: &Options) -> Self {
        Self::new(node, held, &Found::default(), None, options)
    }

    /// The same with what its agent found and measured. `held` is `None` if Pods are not known.
    pub fn new(
        node: &Arc<Node>,
        held: Option<&Held>,
        found: &Found<'_>,
        measured: Option<MeasuredNode>,
        options: &Options,
    ) -> Self {
        let state = NodeState::of(node, &options.tolerated);
        let requested = held.map(|held| ByOwner {
            appwrapper: held.requested.appwrapper.amounts(),
            other: held.requested.other.amounts(),
        });
        let requested = requested.as_ref().map(|ByOwner { appwrapper, other }| ByOwner { appwrapper, other });
        let rungs = ladder::of_node(node, state, requested, found);
        let shares = shares::of_node(node, rungs.iter().map(|(resource, rung)| (resource, rung.installed)), found);
        let room = held.map(|held| Room::new(node, held)).unwrap_or_default();
        Self { node: node.clone(), state, rungs, shares, room, measured }
    }

    /// The ladder of one resource.
    pub fn rung(&self, resource: &Resource) -> Option<&Rung> {
        self.rungs.iter().find(|(known, _)| known == resource).map(|(_, rung)| rung)
    }
}

impl Views {
    /// None yet; all are made by these options.
    pub fn new(options: Options) -> Self {
        Self { options, kept: Table::default(), with_pods: WithPods::default() }
    }

    /// By what they are made.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where the pods of a node were when its last report came, if one did.
    pub fn places(&self, node: &str) -> Option<&Places> {
        self.kept.get(node).map(|kept| &kept.places)
    }

    /// Takes in a report that has come from a node and names these pods.
    pub fn take(&mut self, cluster: &Cluster, stored: &Arc<Stored>, report: &Report<'_>, named: &NamedPods<'_>) {
        self.forget_unless(WithPods::of(cluster));
        if let Some((node, held, revision)) = cluster.node_and_revision(report.node) {
            let known = self.kept.get_mut(&node.name).map(Kept::take_devices).unwrap_or_default();
            let kept = Kept::new(cluster, (node, held, revision), Some((stored, report, named)), known, &self.options);
            match self.kept.get_mut(&node.name) {
                Some(known) => *known = kept,
                None => drop(self.kept.insert(node.name.clone(), kept)),
            }
        }
    }

    /// All nodes of the cluster in order of name, with the reports that count; those come in order of node, too.
    pub fn all(
        &mut self,
        cluster: &Cluster,
        reports: &[(NodeName, Arc<Stored>)],
        counts: impl Fn(&Stored) -> bool,
    ) -> Vec<Arc<NodeView>> {
        self.forget_unless(WithPods::of(cluster));
        let mut reports = reports;
        let mut views = Vec::with_capacity(self.kept.len());
        for (node, held, revision) in cluster.nodes_and_revisions() {
            let report = next_of(&mut reports, &node.name).filter(|stored| counts(stored));
            let view = match self.kept.get(&node.name) {
                Some(kept) if kept.is_of(revision, report) => kept.view.clone(),
                _ => {
                    let decoded = report.map(|stored| stored.reading()).unwrap_or_default();
                    let named = NamedPods::find(cluster, &decoded, &Places::default());
                    let report = report.map(|stored| (stored, &decoded, &named));
                    let known = self.kept.get_mut(&node.name).map(Kept::take_devices).unwrap_or_default();
                    let kept = Kept::new(cluster, (node, held, revision), report, known, &self.options);
                    let view = kept.view.clone();
                    self.kept.insert(node.name.clone(), kept);
                    view
                }
            };
            views.push(view);
        }
        if self.kept.len() > views.len() {
            self.kept.retain(|name, _| cluster.has_node(name));
        }
        views
    }

    /// Forgets all views where Pods became known or unknown since they were made.
    fn forget_unless(&mut self, with_pods: WithPods) {
        if self.with_pods != with_pods {
            self.with_pods = with_pods;
            self.kept.clear();
        }
    }
}

impl WithPods {
    fn of(cluster: &Cluster) -> Self {
        if cluster.knows_pods() { Self::Known } else { Self::Unknown }
    }
}

impl Kept {
    fn new(
        cluster: &Cluster,
        (node, held, revision): (&Arc<Node>, &Held, Revision),
        report: Option<(&Arc<Stored>, &Report<'_>, &NamedPods<'_>)>,
        known: Box<[Device]>,
        options: &Options,
    ) -> Self {
        let held = cluster.knows_pods().then_some(held);
        let view = match report {
            Some((stored, report, named)) => {
                let (found, measured) = match held {
                    Some(_) => measure(cluster, node, (stored, report), named, known, options.pod_metrics),
                    None => measure_hardware(node, report, known),
                };
                NodeView::new(node, held, &found, Some(measured), options)
            }
            None => NodeView::without_report(node, held, options),
        };
        let places = report.map(|(.., named)| Places::of(named)).unwrap_or_default();
        Self { revision, report: report.map(|(stored, ..)| stored.clone()), view: Arc::new(view), places }
    }

    /// The devices that are shown now, for the view that takes the place of this one. A snapshot that still has it keeps its own.
    fn take_devices(&mut self) -> Box<[Device]> {
        // Whatever comes between, this one is of no report any more.
        self.report = None;
        match Arc::get_mut(&mut self.view) {
            Some(view) => view.measured.as_mut().map(|measured| take(&mut measured.devices)),
            None => self.view.measured.as_ref().map(|measured| measured.devices.clone()),
        }
        .unwrap_or_default()
    }

    fn is_of(&self, revision: Revision, report: Option<&Arc<Stored>>) -> bool {
        let same_report = match (&self.report, report) {
            (Some(kept), Some(report)) => Arc::ptr_eq(kept, report),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        self.revision == revision && same_report
    }
}

/// The report of a node where both nodes and reports are gone through in order: those before it are passed over.
pub(crate) fn next_of<'a>(reports: &mut &'a [(NodeName, Arc<Stored>)], node: &str) -> Option<&'a Arc<Stored>> {
    let before = reports.iter().take_while(|(name, _)| name.as_str() < node).count();
    *reports = &reports[before..];
    reports.first().filter(|(name, _)| name.as_str() == node).map(|(_, stored)| stored)
}
