//! The nodes, each joined with what its agent reported.
//!
//! A view is computed when a report arrives, and before a snapshot if the node's objects have changed since or its
//! report is no longer valid. A snapshot of a large cluster therefore mostly reuses existing views. Decides when a
//! stored view is still valid; the records of `nodes` store the views.
use std::mem::take;
use std::sync::Arc;

use mcad_wire::reading::Report;

use crate::cluster::devices::{DeviceInput, PoolName};
use crate::cluster::owner::ByOwner;
use crate::cluster::room::Room;
use crate::cluster::{BoundRequests, Cluster, Revision};
use crate::devices::exceptions::{Exception, Exceptions};
use crate::devices::{NodeDevices, Unit};
use crate::hardware::Found;
use crate::hardware::shares::{self, Shares};
use crate::ladder::{self, Kubelet, NodeState, ResourceLadder};
use crate::measure::{Device, MeasuredNode, NamedPods, Places, measure, measure_alone, measure_hardware};
use crate::object::{AppWrapperName, Node, Origin};
use crate::options::Options;
use crate::reported::Stored;
use crate::resource::{Amounts, Resource};

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// The node as declared.
    pub node: Arc<Node>,
    /// Whether it accepts pods. `None` without Kubernetes.
    pub state: Option<NodeState>,
    /// Its ladders, by resource.
    pub rungs: Vec<(Resource, ResourceLadder)>,
    /// Its resources that are shares of devices.
    pub shares: Box<[(Resource, Shares)]>,
    /// What is free there besides the ladder; empty if Pods are not known.
    pub room: Room,
    /// What its agent measured. `None` if no agent reports.
    pub measured: Option<MeasuredNode>,
    /// What claims and slices add to the ladder. `None` if they do not concern this node or are not known.
    pub devices: Option<Box<DeviceSums>>,
}

/// A resource, and the profile that its device is partitioned into.
pub type Partition = (Resource, Arc<str>);

/// What is stored about the devices of a node in addition to its ladder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceSums {
    /// What AppWrappers hold in addition to the requests of their pods ([`NodeDevices::beside_requests`]).
    pub beside_requests: Box<[(AppWrapperName, Amounts)]>,
    /// Exceptional conditions.
    pub exceptions: Exceptions,
    /// The number of GPUs that are held, but by no claim as a whole, by resource.
    pub partly_held: Box<[(Resource, u64)]>,
    /// The number of further partitions that it could provide, by resource and profile.
    pub partitions: Box<[(Partition, u64)]>,
    /// Devices that an agent reports as broken or missing.
    pub broken: Box<[(PoolName, Arc<str>)]>,
}

impl DeviceSums {
    fn of(devices: NodeDevices) -> Self {
        let physical = devices.units.iter().filter(|(_, units)| units.are_physical());
        Self {
            partly_held: physical.map(|(resource, units)| (resource.clone(), units.partly_held())).collect(),
            beside_requests: devices.beside_requests.into(),
            exceptions: devices.exceptions,
            partitions: devices.partitions.into_iter().collect(),
            broken: devices.broken.into(),
        }
    }
}

/// A view and the state it was computed from.
#[derive(Debug)]
pub(crate) struct Kept {
    revision: Revision,
    /// `None` if there is no valid report.
    report: Option<Arc<Stored>>,
    view: Arc<NodeView>,
    places: Places,
}

impl NodeView {
    /// The view of a node without a report. `held` is what its pods hold, `None` if Pods are not known.
    pub fn without_report(node: &Arc<Node>, held: Option<&BoundRequests>, options: &Options) -> Self {
        Self::new(node, held, &Found::default(), None, None, options)
    }

    /// The same with what its agent found and measured. `held` is `None` if Pods are not known.
    pub fn new(
        node: &Arc<Node>,
        held: Option<&BoundRequests>,
        found: &Found<'_>,
        measured: Option<MeasuredNode>,
        devices: Option<(NodeDevices, DeviceInput)>,
        options: &Options,
    ) -> Self {
        let state = (node.origin == Origin::Kubernetes).then(|| NodeState::of(node, &options.tolerated));
        let (mut devices, input) =
            devices.map_or((None, DeviceInput::Absent), |(devices, input)| (Some(devices), input));
        let mut requested = held.map(|held| ByOwner {
            appwrapper: held.requested.appwrapper.amounts(),
            other: held.requested.other.amounts(),
        });
        if let (Some(requested), Some(devices)) = (&mut requested, &devices) {
            requested.appwrapper.add_times(&devices.covered.appwrapper, -1);
            requested.other.add_times(&devices.covered.other, -1);
        }
        let requested = requested.as_ref().map(|ByOwner { appwrapper, other }| ByOwner { appwrapper, other });
        let mut rungs = match (state, &measured) {
            // Nothing declares what the node has, and its agent is silent.
            (None, None) => Vec::new(),
            _ => ladder::of_node(node, state, requested, found, devices.as_ref()),
        };
        if input == DeviceInput::Unknown {
            rungs.retain(|(resource, rung)| ladder::stands_without_claims(node, resource, rung));
        }
        if let Some(devices) = &mut devices {
            note_doubly_declared(devices, node, &rungs);
        }
        let devices = devices.filter(|_| input == DeviceInput::Known).map(|devices| Box::new(DeviceSums::of(devices)));
        let installed = rungs.iter().filter_map(|(resource, rung)| Some((resource, rung.installed?)));
        let shares = shares::of_node(node, installed, found);
        let room = held.map(|held| Room::new(node, held)).unwrap_or_default();
        Self { node: node.clone(), state, rungs, shares, room, measured, devices }
    }

    /// The ladder of one resource.
    pub fn rung(&self, resource: &Resource) -> Option<&ResourceLadder> {
        self.rungs.iter().find(|(known, _)| known == resource).map(|(_, rung)| rung)
    }
}

/// What claims and slices add on this node, given what its agent found. `None` if the cluster has no claims.
pub fn devices_of(
    cluster: &Cluster,
    node: &Node,
    found: &Found<'_>,
    options: &Options,
) -> Option<(NodeDevices, DeviceInput)> {
    match cluster.device_input() {
        DeviceInput::Absent => None,
        input => {
            let broken = |unit: &Unit| found.gpus().is_some_and(|gpus| unit.is_broken_among(gpus));
            let devices = NodeDevices::of_node(cluster, node, &options.device_resources, &broken);
            // In a cluster without claims, most nodes have nothing to add.
            devices
                .map(|devices| (devices, input))
                .or((input == DeviceInput::Unknown).then(|| (NodeDevices::default(), input)))
        }
    }
}

/// Counts the devices that both kubelet and slices declare. The ladder counts them once.
fn note_doubly_declared(devices: &mut NodeDevices, node: &Node, rungs: &[(Resource, ResourceLadder)]) {
    for (resource, rung) in rungs {
        if let Some(units) = devices.units.get(resource) {
            let doubly = ladder::units::doubly_declared(Kubelet::of(node, resource), units, rung);
            devices.exceptions.add(Exception::DoublyDeclared, u64::try_from(doubly).unwrap_or(0));
        }
    }
}

/// All nodes of a cluster, by name, without reports.
pub fn without_reports(cluster: &Cluster, options: &Options) -> Vec<Arc<NodeView>> {
    let held = |held| cluster.knows_pods().then_some(held);
    let view = |(node, of): (&Arc<Node>, _)| {
        let found = Found::default();
        let devices = devices_of(cluster, node, &found, options);
        Arc::new(NodeView::new(node, held(of), &found, None, devices, options))
    };
    cluster.nodes().map(view).collect()
}

impl Kept {
    pub(crate) fn new(
        cluster: &Cluster,
        (node, held, revision): (&Arc<Node>, &BoundRequests, Revision),
        report: Option<(&Arc<Stored>, &Report<'_>, &NamedPods<'_>)>,
        known: Box<[Device]>,
        options: &Options,
    ) -> Self {
        let held = cluster.knows_pods().then_some(held);
        let (found, measured) = match (report, node.origin, held) {
            (None, ..) => (Found::default(), None),
            (Some((stored, report, _)), Origin::Agent, _) => with_measured(measure_alone(stored, report)),
            (Some((stored, report, named)), Origin::Kubernetes, Some(_)) => {
                with_measured(measure(cluster, node, (stored, report), named, known, options))
            }
            (Some((stored, report, _)), Origin::Kubernetes, None) => {
                with_measured(measure_hardware(node, (stored, report), known, options))
            }
        };
        let view = NodeView::new(node, held, &found, measured, devices_of(cluster, node, &found, options), options);
        let places = report.map(|(.., named)| Places::of(named)).unwrap_or_default();
        Self { revision, report: report.map(|(stored, ..)| stored.clone()), view: Arc::new(view), places }
    }

    /// The view.
    pub(crate) fn view(&self) -> &Arc<NodeView> {
        &self.view
    }

    /// The places of the node's pods when its last report arrived, if there was one.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Takes the current devices, for the view that will replace this one. A snapshot that still uses this view keeps
    /// its own copy.
    pub(crate) fn take_devices(&mut self) -> Box<[Device]> {
        // From now on, the stored view is not valid for any report.
        self.report = None;
        match Arc::get_mut(&mut self.view) {
            Some(view) => view.measured.as_mut().map(|measured| take(&mut measured.devices)),
            None => self.view.measured.as_ref().map(|measured| measured.devices.clone()),
        }
        .unwrap_or_default()
    }

    /// Whether the view was computed from this revision and report.
    pub(crate) fn is_of(&self, revision: Revision, report: Option<&Arc<Stored>>) -> bool {
        let same_report = match (&self.report, report) {
            (Some(kept), Some(report)) => Arc::ptr_eq(kept, report),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        self.revision == revision && same_report
    }
}

fn with_measured((found, measured): (Found<'_>, MeasuredNode)) -> (Found<'_>, Option<MeasuredNode>) {
    (found, Some(measured))
}
