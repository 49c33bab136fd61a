//! What the slack queue should lend at most: the ClusterQueue whose quota makes up for broken hardware.
//!
//! By two rules. The AppWrapper controller once set this limit itself, by cordoned and labelled nodes; that rule is
//! project-codeflare/appwrapper `internal/controller/appwrapper/slackcq_monitor.go` before commit ac6a13e. The other rule takes
//! the hardware that is missing behind the flavor.
use std::sync::Arc;

use super::FlavorResource;
use super::facts::Facts;
use super::hardware::FlavorAccount;
use super::held::PODS;
use crate::object::Node;
use crate::resource::Resource;
use crate::resource::amount::Amount;
use crate::views::NodeView;

/// The label by which Autopilot says how healthy a node's GPUs are.
const HEALTH: &str = "autopilot.ibm.com/gpuhealth";

/// One resource of the slack queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlackLimit {
    /// Its flavor, and the resource.
    pub of: FlavorResource,
    /// The limit by the rule of the AppWrapper controller. `None` if Nodes are not known.
    pub by_appwrapper: Option<Amount>,
    /// The limit by the hardware behind the flavor. `None` if that is not known.
    pub by_hardware: Option<Amount>,
}

/// The limits of the first flavor of the first group of that ClusterQueue.
pub(super) fn of(
    name: &str,
    facts: &Facts,
    nodes: Option<&[Arc<NodeView>]>,
    flavors: &[FlavorAccount],
) -> Vec<SlackLimit> {
    let Some(flavor) = facts.cluster_queue(name).and_then(|queue| queue.groups.first()?.flavors.first()) else {
        return Vec::new();
    };
    let account = flavors.iter().find(|account| account.name == flavor.name);
    let limit = |resource: &Resource, nominal: Amount| {
        let of_resource = account.and_then(|account| account.resources.iter().find(|(known, _)| known == resource));
        let unbacked = of_resource.and_then(|(_, resources)| resources.unbacked());
        SlackLimit {
            of: (flavor.name.clone(), resource.clone()),
            by_appwrapper: nodes.map(|nodes| {
                let gone = nodes.iter().map(|view| gone(&view.node, resource)).sum();
                nominal.minus(Amount::of(gone)).or_zero()
            }),
            // What is left of an unlimited quota is not known.
            by_hardware: unbacked.filter(|_| !nominal.is_unlimited()).map(|unbacked| nominal.minus(unbacked).or_zero()),
        }
    };
    flavor.quotas.iter().map(|(resource, quota)| limit(resource, quota.nominal)).collect()
}

/// How much of a node's capacity the AppWrapper controller did not count on.
fn gone(node: &Node, resource: &Resource) -> i128 {
    let capacity = match resource {
        Resource::Extended(name) if &**name == PODS => None,
        Resource::Extended(name) => node.capacity.get(resource).or_else(|| node.other_capacity.declared(name)),
        _ => node.capacity.get(resource),
    };
    let is_sick = || matches!(node.label(HEALTH), Some("TESTING" | "EVICT"));
    let is_gone = !node.is_deleting && (node.cordoned || *resource == Resource::Gpu && is_sick());
    if is_gone { capacity.unwrap_or(0) } else { 0 }
}
