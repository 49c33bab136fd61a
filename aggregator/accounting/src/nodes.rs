//! What is known of each node besides its Node object: its last report, its totals, its view, and how often it reports. Bounds how many
//! nodes are kept, how much of each, and for how long; reads no clock.
//!
//! Everything about a node is in one record, so a report needs one lookup in one table, and all parts of a record belong to the same
//! report. Pure: from (what was kept, the cluster, a report) to what is kept. Keeping views saves time and changes no result.
mod pace;

use std::sync::Arc;
use std::time::Duration;

use mcad_wire::reading::Report;
use mcad_wire::state_transfer::StateTransfer;

use self::pace::Pace;
use crate::cluster::Cluster;
use crate::cluster::devices::DeviceInput;
use crate::gpu_use::{HeldOnNode, Uses};
use crate::measure::{NamedPods, Places, PodName};
use crate::node_name::NodeName;
use crate::now::Now;
use crate::object::Pod;
use crate::options::Options;
use crate::reported::{NoNews, Stored};
use crate::table::Table;
use crate::totals::{ByNode, Differ, Jumps, NodeTotals, Totals};
use crate::views::{Kept, NodeView};

pub use self::pace::AT_ONCE;

/// How often data that is no longer needed is removed.
const TIDY_EVERY: Duration = Duration::from_mins(1);

/// The most nodes that are remembered only because they tried to report: nothing else is known of them. Each is remembered for the two
/// seconds in which it may not send [`AT_ONCE`] reports again.
pub const MOST_ASKING: usize = 65_536;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most nodes that may report.
    pub nodes: usize,
    /// How long a report is kept after its agent fell silent.
    pub keep: Duration,
    /// Memory for all reports, in bytes. A typical node takes 8 KiB, so the default is enough for 131,072 nodes, or for 1,000 whose reports
    /// are all of the largest permitted size.
    pub bytes: u64,
}

/// The default of [`Limits::bytes`].
pub const REPORT_BYTES: u64 = 1 << 30;

impl Limits {
    /// Without Kubernetes there is no list of nodes, so every node whose agent reports counts, for a limited time: an hour is long enough
    /// for an alert to show that an agent died. One machine runs one agent; a few more nodes are somebody's test.
    pub const LOCAL: Self = Self { nodes: 64, keep: Duration::from_hours(1), bytes: REPORT_BYTES };
    /// The API server lists the nodes, and reports of other nodes are refused; the data of a removed node is dropped after an hour.
    pub const KUBERNETES: Self = Self { nodes: usize::MAX, keep: Duration::from_hours(1), bytes: REPORT_BYTES };
    /// Reports come from a file beside a dump, and the dump lists the nodes.
    pub const REPLAY: Self = Self { nodes: usize::MAX, keep: Duration::from_hours(1 << 20), bytes: u64::MAX };
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Nodes {
    limits: Limits,
    /// The rules that views are made by.
    options: Options,
    /// Unsorted; sorted only when a caller needs an order, because a report looks up one record.
    records: Table<Arc<str>, NodeRecord>,
    /// What AppWrappers used since they were created.
    totals: Totals,
    /// How many nodes have a report.
    reporting: usize,
    /// Size of all their reports, in bytes.
    bytes: u64,
    /// An upper bound on the records that have nothing but a pace; counted again when it reaches the limit.
    asking: usize,
    /// Which inputs were known when the views were made.
    inputs: KnownInputs,
    tidied: Option<Now>,
}

/// Everything that is known of one node.
#[derive(Debug, Default)]
struct NodeRecord {
    /// `None` if no report arrived, or if it was dropped.
    report: Option<Arc<Stored>>,
    totals: NodeTotals,
    /// `None` if it has not been made yet, or if the cluster does not have the node.
    view: Option<Kept>,
    pace: Pace,
}

/// Which inputs besides Nodes are known. Without Pods, the requested, free and used amounts of a node are unknown; without claims, those of
/// its devices are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct KnownInputs {
    pods: bool,
    devices: DeviceInput,
}

/// What happened to a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is now the node's last report.
    Taken,
    /// It is a duplicate or stale: the sender need not repeat it.
    Dropped(NoNews),
}

/// Why a report is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The limit on reporting nodes is reached, and this report is of another node.
    #[error("the limit of {0} reporting nodes is reached")]
    Nodes(usize),
    /// The limit on the size of all reports is reached.
    #[error("the limit of {0} bytes for all reports is reached")]
    Bytes(u64),
}

/// A node at one instant.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The node, including what its agent found if its last report counts.
    pub view: Arc<NodeView>,
    /// Its agent's last report, whether or not it counts.
    pub report: Option<Arc<Stored>>,
    /// What its pods do with the devices that they hold. `None` if its last report does not count, or does not say.
    pub held: Option<Arc<HeldOnNode>>,
}

impl Nodes {
    /// Nothing is known yet; views are made by these options.
    pub fn new(limits: Limits, options: Options) -> Self {
        Self {
            limits,
            totals: Totals::new(options.pod_metrics),
            options,
            records: Table::default(),
            reporting: 0,
            bytes: 0,
            asking: 0,
            inputs: KnownInputs::default(),
            tidied: None,
        }
    }

    /// Sets [`Limits::bytes`], but to no less than is already in use.
    #[must_use]
    pub fn bounded(mut self, bytes: u64) -> Self {
        self.limits.bytes = bytes.max(self.bytes);
        self
    }

    /// The rules that views are made by.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What AppWrappers used since they were created.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The nodes whose report is kept, unsorted.
    pub fn reporting(&self) -> impl Iterator<Item = &Arc<str>> {
        self.records.iter().filter(|(_, record)| record.report.is_some()).map(|(name, _)| name)
    }

    /// The last report of a node.
    pub fn latest(&self, node: &str) -> Option<&Arc<Stored>> {
        self.records.get(node)?.report.as_ref()
    }

    /// Approximate size of all reports, in bytes.
    pub fn report_bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a node may report now; if so, this counts as one report.
    pub fn admits(&mut self, node: &NodeName, now: Now) -> bool {
        if let Some(record) = self.records.get_mut(node.as_str()) {
            return record.pace.admits(now);
        }
        if self.asking >= MOST_ASKING {
            self.forget_records(now);
            if self.asking >= MOST_ASKING {
                return false;
            }
        }
        self.asking += 1;
        self.records.entry(node.shared().clone()).or_default().pace.admits(now)
    }

    /// Takes a node's report, `encoded` as on the wire, if it is new: updates totals and the node's view. Returns how often each of its
    /// counters grew by more than is possible.
    pub fn take(
        &mut self,
        cluster: &Cluster,
        (node, report, encoded): (&NodeName, &Report<'_>, &[u8]),
        now: Now,
    ) -> Result<(Outcome, Jumps), Full> {
        self.make_room(node, now)?;
        self.forget_views_unless(KnownInputs::of(cluster));
        let record = if let Some(known) = self.records.get_mut(node.as_str()) {
            known
        } else {
            self.asking += 1;
            self.records.entry(node.shared().clone()).or_default()
        };
        let known = record.report.as_deref();
        if let Some(no_news) = known.and_then(|known| known.no_news(report)) {
            return Ok((Outcome::Dropped(no_news), Jumps::default()));
        }
        let before = known.map_or(0, Stored::weight);
        let stored = Arc::new(Stored::after(known, report, encoded, now));
        let bytes = self.bytes - before + stored.weight();
        // A report that is smaller than the previous one always fits.
        if bytes > self.limits.bytes && stored.weight() > before {
            return Err(Full::Bytes(self.limits.bytes));
        }
        self.bytes = bytes;
        self.reporting += usize::from(known.is_none());
        record.report = Some(Arc::clone(&stored));
        let mut jumps = Jumps::default();
        if let Some(there) = cluster.node_and_revision(report.node) {
            let were = record.view.as_ref().map(Kept::places);
            let named = NamedPods::find(cluster, report, were.unwrap_or(&Places::default()));
            jumps = self.totals.take(cluster, (&there.0.name, &mut record.totals), report, &named, now);
            let devices = record.view.as_mut().map(Kept::take_devices).unwrap_or_default();
            record.view = Some(Kept::new(cluster, there, Some((&stored, report, &named)), devices, &self.options));
        }
        self.tidy_in_time(cluster, now);
        Ok((Outcome::Taken, jumps))
    }

    /// Notes that a node's last report came from a file: when it was read does not show when it was made.
    pub fn came_from_file(&mut self, node: &NodeName) {
        if let Some(record) = self.records.get_mut(node.as_str()) {
            record.totals.came_from_file();
        }
    }

    /// Whether anything is kept about this pod, even if the cluster no longer has it.
    pub fn remembers(&self, node: &str, uid: &str) -> bool {
        self.records.get(node).is_some_and(|record| record.totals.remembers(uid))
    }

    /// Notes that a pod is about to leave the cluster; its agent may still report what it used.
    pub fn pod_gone(&mut self, cluster: &Cluster, pod: &Pod, now: Now) {
        if let Some((node, uid, appwrapper)) = NodeTotals::is_counted(cluster, pod) {
            self.records.entry(node.clone()).or_default().totals.gone(uid, appwrapper, now);
        }
    }

    /// All nodes of the cluster, sorted by name, with the reports that count.
    pub fn seen(&mut self, cluster: &Cluster, counts: impl Fn(&Stored) -> bool) -> Vec<Seen> {
        self.forget_views_unless(KnownInputs::of(cluster));
        let mut seen = Vec::with_capacity(self.records.len());
        for (node, held, revision) in cluster.nodes_and_revisions() {
            let record = match self.records.get_mut(&node.name) {
                Some(known) => known,
                None => self.records.entry(node.name.clone()).or_default(),
            };
            let report = record.report.as_ref().filter(|stored| counts(stored));
            let counting = report.is_some();
            let view = match &record.view {
                Some(kept) if kept.is_of(revision, report) => kept.view().clone(),
                _ => {
                    let decoded = report.map(|stored| stored.reading()).unwrap_or_default();
                    let named = NamedPods::find(cluster, &decoded, &Places::default());
                    let report = report.map(|stored| (stored, &decoded, &named));
                    let devices = record.view.as_mut().map(Kept::take_devices).unwrap_or_default();
                    let kept = Kept::new(cluster, (node, held, revision), report, devices, &self.options);
                    record.view.insert(kept).view().clone()
                }
            };
            let held = record.totals.held_now().filter(|_| counting).cloned();
            seen.push(Seen { view, report: record.report.clone(), held });
        }
        seen
    }

    /// Of each pod that the cluster has and that holds devices, how long they were busy and idled. Nothing if pod metrics are off.
    pub fn pods_idle_ns<'a>(&'a self, cluster: &'a Cluster) -> impl Iterator<Item = (&'a PodName, &'a Uses)> {
        let all = self.records.values().flat_map(|record| record.totals.pods_idle_ns());
        all.filter(|((namespace, pod), _)| cluster.pod(namespace, pod).is_some_and(|pod| pod.held_node().is_some()))
    }

    /// Drops the reports of agents that have been silent for too long; at intervals, drops everything else that is no longer needed.
    pub fn tidy(&mut self, cluster: &Cluster, now: Now) {
        self.forget_reports(now);
        self.tidy_in_time(cluster, now);
    }

    /// Drops all views; they are made again when needed.
    pub fn forget_views(&mut self) {
        self.records.values_mut().for_each(|record| record.view = None);
    }

    /// Writes all totals that another replica can take over.
    pub fn tell(&self, transfer: &mut StateTransfer) {
        self.totals.tell(self.records.iter().map(|(name, record)| (name, &record.totals)), transfer);
    }

    /// Takes over the totals of another replica, either all or none.
    pub fn learn(&mut self, cluster: &Cluster, transfer: &StateTransfer) -> Result<(), Differ> {
        self.totals.learn(cluster, transfer, &mut Records(&mut self.records))?;
        // Records of pods that are gone are dropped later, by what this replica sees.
        self.tidied = None;
        Ok(())
    }

    /// Refuses a report of a new node if the limit on reporting nodes is reached.
    fn make_room(&mut self, node: &NodeName, now: Now) -> Result<(), Full> {
        let is_full = |nodes: &Self| nodes.reporting >= nodes.limits.nodes && nodes.latest(node.as_str()).is_none();
        if is_full(self) {
            self.forget_reports(now);
            if is_full(self) {
                return Err(Full::Nodes(self.limits.nodes));
            }
        }
        Ok(())
    }

    /// Drops all views if an input became known or unknown since they were made.
    fn forget_views_unless(&mut self, inputs: KnownInputs) {
        if self.inputs != inputs {
            self.inputs = inputs;
            self.forget_views();
        }
    }

    fn forget_reports(&mut self, now: Now) {
        let keep = self.limits.keep;
        for record in self.records.values_mut() {
            if let Some(gone) = record.report.take_if(|stored| stored.age(now) >= stored.silent_after() + keep) {
                self.bytes -= gone.weight();
                self.reporting -= 1;
            }
        }
    }

    fn tidy_in_time(&mut self, cluster: &Cluster, now: Now) {
        if self.tidied.is_some_and(|last| now.since(last) < TIDY_EVERY) {
            return;
        }
        self.tidied = Some(now);
        self.totals.tidy(cluster);
        for (name, record) in &mut self.records {
            record.totals.tidy(cluster, name, now);
            record.view.take_if(|_| !cluster.has_node(name));
        }
        self.forget_records(now);
    }

    /// Drops records of nodes of which nothing is known, and counts those that must be kept for their pace.
    fn forget_records(&mut self, now: Now) {
        self.records.retain(|_, record| record.is_known() || !record.pace.is_full(now));
        self.asking = self.records.values().filter(|record| !record.is_known()).count();
    }
}

impl NodeRecord {
    /// Whether the record has more than a pace.
    fn is_known(&self) -> bool {
        self.report.is_some() || self.view.is_some() || !self.totals.is_empty()
    }
}

impl KnownInputs {
    fn of(cluster: &Cluster) -> Self {
        Self { pods: cluster.knows_pods(), devices: cluster.device_input() }
    }
}

/// The totals of all nodes, for the state transfer.
struct Records<'a>(&'a mut Table<Arc<str>, NodeRecord>);

impl ByNode for Records<'_> {
    fn get(&self, node: &str) -> Option<&NodeTotals> {
        Some(&self.0.get(node)?.totals)
    }

    fn get_or_new(&mut self, node: Arc<str>) -> &mut NodeTotals {
        &mut self.0.entry(node).or_default().totals
    }
}
