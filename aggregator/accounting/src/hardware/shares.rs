//! Devices that are handed out several times each, for example as time slices. Owns how many devices stand behind the shares: the agent's
//! value, or else the labels of the node. No amount of the ladder depends on it.
use crate::hardware::Found;
use crate::object::Node;
use crate::resource::Resource;

/// The suffix that the name of a time-sliced resource may get.
pub(crate) const SHARED: &str = ".shared";
/// The suffix of the label that states how many times each device of a resource is handed out.
pub(crate) const REPLICAS: &str = ".replicas";
/// The suffix of the label that states how many devices of a resource the node has.
const COUNT: &str = ".count";

/// Shares of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// How many shares are handed out.
    pub shares: i128,
    /// How many devices they are shares of.
    pub devices: i128,
}

impl Shares {
    /// Adds the shares of another node.
    pub fn add(&mut self, other: Self) {
        self.shares += other.shares;
        self.devices += other.devices;
    }
}

/// The resources of a node that are shares of devices, in the order of `installed`, which lists the node's resources and their amounts.
pub fn of_node<'a>(
    node: &Node,
    installed: impl Iterator<Item = (&'a Resource, i128)>,
    found: &Found<'_>,
) -> Box<[(Resource, Shares)]> {
    // Few nodes share devices, and on the others no label need be looked up: GPU feature discovery labels them with 1.
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

/// The name of the devices behind a resource, without the suffix for shares.
pub fn base(name: &str) -> &str {
    name.strip_suffix(SHARED).unwrap_or(name)
}

/// How many times each device is handed out, by the label. `None` if the label is 0, absent or unreadable.
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
