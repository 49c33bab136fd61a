//! Devices that are handed out several times each: time slices and the like. Owns what tells how many devices stand behind the
//! shares: an agent, else the labels of the node. No amount of the ladder rests on it.
use crate::hardware::Found;
use crate::object::Node;
use crate::resource::Resource;

/// A time-sliced resource may be renamed by this.
pub(crate) const SHARED: &str = ".shared";
/// The label of a resource that says how often each device is handed out ends so.
pub(crate) const REPLICAS: &str = ".replicas";
/// The label of a resource that says how many devices the node has ends so.
const COUNT: &str = ".count";

/// Shares of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// How many are handed out.
    pub shares: i128,
    /// Of how many devices.
    pub devices: i128,
}

impl Shares {
    /// Adds another node's.
    pub fn add(&mut self, other: Self) {
        self.shares += other.shares;
        self.devices += other.devices;
    }
}

/// Those of a node's resources, which it has so much of, that are shares of devices; in the same order.
pub fn of_node<'a>(
    node: &Node,
    installed: impl Iterator<Item = (&'a Resource, i128)>,
    found: &Found<'_>,
) -> Box<[(Resource, Shares)]> {
    // Few nodes share devices, and nothing need be looked up on the others: GPU feature discovery labels them with 1.
    let is_labelled = node.labels.iter().any(|(key, value)| key.ends_with(REPLICAS) && &**value != "1");
    let shared = installed.filter_map(|(resource, installed)| {
        let shares = match found.get(resource) {
            Some(_) => found.shares(resource),
            None if is_labelled => labelled(node, resource, installed),
            None => None,
        }?;
        Some((resource.clone(), shares))
    });
    shared.collect()
}

/// The name of the devices that a resource is shares of.
pub fn base(name: &str) -> &str {
    name.strip_suffix(SHARED).unwrap_or(name)
}

/// How often each device is handed out, by the label. 0, absent and unreadable say nothing.
pub(crate) fn labelled_replicas(node: &Node, base: &str) -> Option<i128> {
    number(node, base, REPLICAS)
}

fn labelled(node: &Node, resource: &Resource, installed: i128) -> Option<Shares> {
    let base = base(resource.name());
    let replicas = labelled_replicas(node, base).filter(|replicas| *replicas > 1 && installed > 0)?;
    let devices = number(node, base, COUNT).unwrap_or((installed / replicas).max(1));
    Some(Shares { shares: installed, devices })
}

fn number(node: &Node, base: &str, suffix: &str) -> Option<i128> {
    let number: u32 = node.label(&format!("{base}{suffix}"))?.trim().parse().ok()?;
    (number > 0).then_some(number.into())
}
