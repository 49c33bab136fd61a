//! Which nodes belong to each flavor, what they have, and for how much of the quota there is hardware.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::facts::Facts;
use super::flow::{self, Class};
use crate::ladder::{NodeState, Reason, ResourceLadder};
use crate::object::{ResourceFlavor, Taint};
use crate::options::Options;
use crate::resource::amount::Amount;
use crate::resource::{Amounts, Resource};
use crate::table::Table;
use crate::views::NodeView;

/// A ResourceFlavor.
#[derive(Clone, Debug, PartialEq)]
pub struct FlavorAccount {
    /// Its name.
    pub name: Arc<str>,
    /// The number of its nodes in each state, in the order of [`NodeState::ALL`]. `None` if Nodes are not known.
    pub nodes: Option<[u64; 4]>,
    /// Each resource that has quota in it, in order.
    pub resources: Vec<(Resource, FlavorResources)>,
}

/// One resource of a ResourceFlavor.
#[derive(Clone, Debug, PartialEq)]
pub struct FlavorResources {
    /// Quota in all ClusterQueues and Cohorts.
    pub nominal: Amount,
    /// What its nodes have. `None` if it is no hardware, or not known.
    pub hardware: Option<FlavorHardware>,
}

/// What the nodes of a flavor have of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlavorHardware {
    /// What they have.
    pub installed: i128,
    /// Without what is lost or unhealthy.
    pub healthy: i128,
    /// Allocatable on those that its pods may use.
    pub admissible: i128,
    /// What pods need. `None` if Pods are not known.
    pub pods: Option<Backing>,
}

/// What is left for quota on the nodes of a flavor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backing {
    /// Free for its pods now.
    pub free: i128,
    /// Healthy and allocatable, without what pods request that no quota counts.
    pub backing: i128,
}

impl FlavorResources {
    /// Quota for which there is no hardware. `None` if that is not known.
    pub fn unbacked(&self) -> Option<Amount> {
        let backing = self.hardware?.pods?.backing;
        Some(self.nominal.minus(Amount::of(backing)).or_zero())
    }

    /// Hardware for which there is no quota. `None` if that is not known.
    pub fn uncovered(&self) -> Option<i128> {
        let backing = self.hardware?.pods?.backing;
        Some(self.nominal.units().map_or(0, |nominal| (backing - nominal).max(0)))
    }
}

/// One resource over all flavors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// Quota in all flavors, also in those without a ResourceFlavor.
    pub nominal: Amount,
    /// Quota for which there is no hardware.
    pub unbacked: Amount,
    /// Hardware for which there is no quota. `None` if a quota is unlimited.
    pub uncovered: Option<i128>,
}

/// Quota by flavor, by resource.
type Nominal = BTreeMap<Arc<str>, BTreeMap<Resource, Amount>>;

/// The flavors and the nodes.
pub(super) struct Hardware<'a> {
    facts: &'a Facts,
    nominal: Nominal,
    groups: Vec<Group<'a>>,
    /// Flavors, by their place, whose pods may use the same nodes.
    classes: Vec<Vec<usize>>,
    /// Resources that a node declares.
    declared: BTreeSet<&'a Resource>,
}

/// Everything of a node that decides which flavors it belongs to, and whether it takes their pods: the values of the labels that
/// flavors name, its taints, whether it is ready, and whether it is cordoned.
type Traits<'a> = (Vec<Option<&'a str>>, &'a [Taint], bool, bool);

/// Nodes that no flavor tells apart, added up. A cluster has many nodes and few of these.
struct Group<'a> {
    /// The number of these nodes.
    nodes: u64,
    /// Their state for the flavors whose labels they have, by the place of the flavor.
    flavors: Vec<(usize, NodeState)>,
    /// The place of their class. `None` if no pod may use them.
    class: Option<usize>,
    resources: BTreeMap<&'a Resource, Sum>,
}

/// What the nodes of a group have of a resource.
#[derive(Default)]
struct Sum {
    /// Whether one of them declares it.
    is_declared: bool,
    /// Whether it is not known of one of them how much it has.
    is_unknown: bool,
    /// Whether it is not known of one of them how much of it is free.
    is_free_unknown: bool,
    installed: i128,
    healthy: i128,
    allocatable: i128,
    pods: Backing,
}

impl Sum {
    /// Adds a node. `others` is what pods on it request whose Workload does not reserve quota.
    fn add(&mut self, rung: &ResourceLadder, others: i128) {
        let (Some(installed), Some(healthy)) = (rung.installed, rung.healthy) else {
            self.is_unknown = true;
            return;
        };
        let allocatable = rung.allocatable().unwrap_or(0);
        self.installed += installed;
        self.healthy += healthy;
        self.allocatable += allocatable;
        self.pods.backing += (healthy.min(allocatable) - others).max(0);
        match &rung.account {
            Some(account) => self.pods.free += account.free + account.withheld.get(Reason::Tainted),
            None => self.is_free_unknown = true,
        }
    }
}

impl<'a> Group<'a> {
    fn add(&mut self, view: &'a NodeView, others: Option<&Amounts>) {
        self.nodes += 1;
        for (resource, rung) in &view.rungs {
            let others = others.map_or(0, |others| others.get(resource));
            self.resources.entry(resource).or_default().add(rung, others);
        }
        let node = &view.node;
        for resource in node.capacity.resources().chain(node.allocatable.resources()) {
            let sum = self.resources.entry(resource).or_default();
            sum.is_declared = true;
            sum.is_unknown |= !view.rungs.iter().any(|(known, _)| known == resource);
        }
    }
}

impl<'a> Hardware<'a> {
    pub(super) fn new(facts: &'a Facts, nodes: &'a [Arc<NodeView>], options: &Options) -> Self {
        let keys: BTreeSet<&str> =
            facts.flavors.values().flat_map(|flavor| flavor.labels.iter().map(|(key, _)| &**key)).collect();
        let mut places = Places::default();
        let mut known: Table<Traits<'a>, usize> = Table::default();
        for view in nodes {
            let node = &view.node;
            let labels = keys.iter().map(|key| node.label(key)).collect();
            let at = *known
                .entry((labels, &node.taints, node.ready, node.cordoned))
                .or_insert_with(|| places.of(view, facts, options));
            places.groups[at].add(view, facts.others.get(&node.name));
        }
        let Places { groups, classes, .. } = places;
        let of_group = |group: &Group<'a>| {
            group.resources.iter().filter(|(_, sum)| sum.is_declared).map(|(resource, _)| *resource).collect::<Vec<_>>()
        };
        let declared = groups.iter().flat_map(of_group).collect();
        Self { facts, nominal: nominal(facts), groups, classes, declared }
    }

    fn is_hardware(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Cpu | Resource::Memory | Resource::Gpu => true,
            Resource::Extended(name) => name.starts_with("nvidia.com/") || self.declared.contains(resource),
        }
    }

    /// The account of each flavor.
    pub(super) fn flavors(&self) -> Vec<FlavorAccount> {
        let mut of_flavors: Vec<Vec<(&Group<'_>, NodeState)>> = vec![Vec::new(); self.facts.flavors.len()];
        for group in &self.groups {
            for (at, state) in &group.flavors {
                of_flavors[*at].push((group, *state));
            }
        }
        let account = |(name, groups): (&Arc<str>, Vec<(&Group<'_>, NodeState)>)| {
            let mut states = [0; 4];
            for (group, state) in &groups {
                states[*state as usize] += group.nodes;
            }
            let resources = self.nominal.get(name).into_iter().flatten().map(|(resource, nominal)| {
                let hardware = self.is_hardware(resource).then(|| self.of_groups(&groups, resource)).flatten();
                (resource.clone(), FlavorResources { nominal: *nominal, hardware })
            });
            FlavorAccount { name: name.clone(), nodes: Some(states), resources: resources.collect() }
        };
        self.facts.flavors.keys().zip(of_flavors).map(account).collect()
    }

    /// What these nodes have of a resource. `None` if that is not known of one of them.
    fn of_groups(&self, groups: &[(&Group<'_>, NodeState)], resource: &Resource) -> Option<FlavorHardware> {
        let mut all =
            FlavorHardware { pods: self.facts.knows_pods.then(Backing::default), ..FlavorHardware::default() };
        for (sum, state) in groups.iter().filter_map(|(group, state)| Some((group.resources.get(resource)?, *state))) {
            if sum.is_unknown {
                return None;
            }
            all.installed += sum.installed;
            all.healthy += sum.healthy;
            if state != NodeState::Admissible {
                continue;
            }
            all.admissible += sum.allocatable;
            if let Some(pods) = &mut all.pods {
                if sum.is_free_unknown {
                    return None;
                }
                pods.free += sum.pods.free;
                pods.backing += sum.pods.backing;
            }
        }
        Some(all)
    }

    /// How much hardware there is for the quotas of all flavors together.
    pub(super) fn totals(&self) -> Vec<(Resource, Total)> {
        let with_quota = self.nominal.values().flat_map(|resources| resources.keys());
        let with_quota = with_quota.filter(|resource| self.is_hardware(resource));
        let resources: BTreeSet<&Resource> = self.declared.iter().copied().chain(with_quota).collect();
        let total = |resource: &Resource| Some((resource.clone(), self.total(resource)?));
        resources.into_iter().filter_map(total).collect()
    }

    fn total(&self, resource: &Resource) -> Option<Total> {
        let of_flavor = |name: &Arc<str>| {
            self.nominal.get(name).and_then(|resources| resources.get(resource)).copied().unwrap_or_default()
        };
        let all = self.nominal.values().filter_map(|resources| resources.get(resource));
        let nominal = all.fold(Amount::ZERO, |sum, nominal| sum.plus(*nominal));
        let mut capacities = vec![0; self.classes.len()];
        for (group, class) in self.groups.iter().filter_map(|group| Some((group, group.class?))) {
            let Some(sum) = group.resources.get(resource) else { continue };
            if sum.is_unknown {
                return None;
            }
            capacities[class] += sum.pods.backing;
        }
        let backing: i128 = capacities.iter().sum();
        let Some(promised) = nominal.units() else {
            return Some(Total { nominal, unbacked: Amount::UNLIMITED, uncovered: None });
        };
        let quotas: Option<Vec<i128>> = self.facts.flavors.keys().map(|name| of_flavor(name).units()).collect();
        let class = |(flavors, capacity): (&Vec<usize>, i128)| Class { capacity, flavors: flavors.clone() };
        let classes: Vec<Class> = self.classes.iter().zip(capacities).map(class).collect();
        let flow = flow::most(&quotas?, &classes);
        Some(Total { nominal, unbacked: Amount::of(promised - flow), uncovered: Some(backing - flow) })
    }
}

/// The accounts of flavors if Nodes are not known: quota alone.
pub(super) fn nominal_only(facts: &Facts) -> Vec<FlavorAccount> {
    let nominal = nominal(facts);
    let account = |name: &Arc<str>| FlavorAccount {
        name: name.clone(),
        nodes: None,
        resources: nominal
            .get(name)
            .into_iter()
            .flatten()
            .map(|(resource, nominal)| (resource.clone(), FlavorResources { nominal: *nominal, hardware: None }))
            .collect(),
    };
    facts.flavors.keys().map(account).collect()
}

fn nominal(facts: &Facts) -> Nominal {
    let of_queues = facts.cluster_queues.iter().flat_map(|queue| queue.groups.iter());
    let groups = of_queues.chain(facts.cohorts.iter().flat_map(|cohort| cohort.groups.iter()));
    let mut nominal = Nominal::new();
    for flavor in groups.flat_map(|group| &group.flavors) {
        let resources = nominal.entry(flavor.name.clone()).or_default();
        for (resource, quota) in &flavor.quotas {
            let sum = resources.entry(resource.clone()).or_default();
            *sum = sum.plus(quota.nominal);
        }
    }
    nominal
}

/// The groups, and where each is.
#[derive(Default)]
struct Places<'a> {
    groups: Vec<Group<'a>>,
    classes: Vec<Vec<usize>>,
    /// By the states for flavors, and whether any pod may use the nodes.
    of_groups: HashMap<(Vec<(usize, NodeState)>, bool), usize>,
    of_classes: HashMap<Vec<usize>, usize>,
}

impl Places<'_> {
    /// The place of the group of a node.
    fn of(&mut self, view: &NodeView, facts: &Facts, options: &Options) -> usize {
        let node = &view.node;
        let matching = facts.flavors.values().enumerate().filter(|(_, flavor)| flavor.matches(node));
        let state = |flavor: &ResourceFlavor| {
            NodeState::by(node, |taint| options.tolerated.tolerates(taint) || flavor.passes(taint))
        };
        let flavors: Vec<(usize, NodeState)> = matching.map(|(at, flavor)| (at, state(flavor))).collect();
        let admitted = flavors.iter().filter(|(_, state)| *state == NodeState::Admissible);
        let admitted: Vec<usize> = admitted.map(|(at, _)| *at).collect();
        let counts = !admitted.is_empty() || view.state == Some(NodeState::Admissible);
        let Self { groups, classes, of_groups, of_classes } = self;
        *of_groups.entry((flavors.clone(), counts)).or_insert_with(|| {
            let class = counts.then(|| {
                *of_classes.entry(admitted.clone()).or_insert_with(|| {
                    classes.push(admitted);
                    classes.len() - 1
                })
            });
            groups.push(Group { nodes: 0, flavors, class, resources: BTreeMap::new() });
            groups.len() - 1
        })
    }
}
