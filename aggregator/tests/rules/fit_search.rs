//! Fit on nodes against trying every placement: what is found to fit has a placement, what is found not to has none.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use mcad_accounting::options::Options;
use mcad_accounting::snapshot::verdict::Outcome;
use mcad_testkit::build::{node, object, pod, v1beta2, with};
use mcad_testkit::snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};

/// What a pod needs, or a node has left, of GPUs, cores, GiB of scratch.
type Amounts = [u8; 3];

#[derive(Clone, Debug)]
struct Node {
    free: Amounts,
    /// How many pods more.
    pods: u8,
    zone: u8,
    tainted: bool,
    /// In use.
    port: Option<u16>,
    /// A pod that is to come: its priority, what it needs, and whether it is of the AppWrapper itself.
    nominated: Option<(u8, Amounts, bool)>,
}

#[derive(Clone, Debug)]
struct Group {
    count: u8,
    needs: Amounts,
    zone: Option<u8>,
    tolerates: bool,
    port: Option<u16>,
    priority: u8,
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let nominated = (0..2_u8, [0..2_u8, 0..2, 0..2], proptest::bool::weighted(0.2));
    let node = (
        [0..5_u8, 0..6, 0..4],
        0..4_u8,
        0..2_u8,
        proptest::bool::weighted(0.2),
        proptest::option::weighted(0.2, 80..82_u16),
        proptest::option::weighted(0.3, nominated),
    );
    let node = node.prop_map(|(free, pods, zone, tainted, port, nominated)| Node {
        free,
        pods,
        zone,
        tainted,
        port,
        nominated,
    });
    proptest::collection::vec(node, 1..4)
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let group = (
        1..3_u8,
        [0..4_u8, 0..4, 0..3],
        proptest::option::weighted(0.2, 0..2_u8),
        proptest::bool::weighted(0.5),
        proptest::option::weighted(0.2, 80..82_u16),
        0..2_u8,
    );
    let group = group.prop_map(|(count, needs, zone, tolerates, port, priority)| Group {
        count,
        needs,
        zone,
        tolerates,
        port,
        priority,
    });
    proptest::collection::vec(group, 1..4)
}

fn quantities([gpus, cores, scratch]: Amounts) -> Value {
    json!({"nvidia.com/gpu": gpus.to_string(), "cpu": cores.to_string(), "ephemeral-storage": format!("{scratch}Gi")})
}

fn ports(port: Option<u16>) -> Value {
    port.iter().map(|port| json!({"hostPort": port, "containerPort": port})).collect::<Vec<_>>().into()
}

fn spec(group: &Group) -> Value {
    let selector = group.zone.map_or(json!({}), |zone| json!({"zone": zone.to_string()}));
    let tolerations = if group.tolerates { json!([{"operator": "Exists"}]) } else { json!([]) };
    json!({
        "containers": [{"resources": {"requests": quantities(group.needs)}, "ports": ports(group.port)}],
        "nodeSelector": selector, "tolerations": tolerations, "priority": group.priority,
    })
}

fn objects(nodes: &[Node], groups: &[Group], min: u8) -> Vec<Value> {
    let mut objects = Vec::new();
    for (at, of) in nodes.iter().enumerate() {
        let name = format!("n{at}");
        let mut amounts = quantities(of.free);
        amounts["pods"] = (of.pods + u8::from(of.port.is_some())).to_string().into();
        let node = with(node(&name, amounts), "/metadata/labels", json!({"zone": of.zone.to_string()}));
        let taints = if of.tainted { json!([{"key": "team", "effect": "NoSchedule"}]) } else { json!([]) };
        objects.push(with(node, "/spec/taints", taints));
        if of.port.is_some() {
            let pod = pod(&format!("p{at}"), &name, json!({}));
            objects.push(with(pod, "/spec/containers/0/ports", ports(of.port)));
        }
        if let Some((priority, needs, own)) = of.nominated {
            let pod = with(pod(&format!("q{at}"), "", quantities(needs)), "/spec/priority", json!(priority));
            let pod = with(pod, "/status", json!({"phase": "Pending", "nominatedNodeName": name}));
            let owner = if own { json!({"workload.codeflare.dev/appwrapper": "w"}) } else { json!({}) };
            objects.push(with(pod, "/metadata/labels", owner));
        }
    }
    let components: Vec<_> = groups
        .iter()
        .map(|group| json!({"podSets": [{"path": "template.t", "replicas": group.count}], "template": {"t": {"spec": spec(group)}}}))
        .collect();
    let waiting = v1beta2("w", json!(components), "Suspended");
    objects.push(with(waiting, "/spec/schedulingSpec", json!({"minAvailable": min})));
    objects
}

/// Whether some of the pods, so many, can be placed: every pod on every node, or nowhere.
fn fits_by_force(nodes: &[Node], groups: &[Group], min: u8) -> bool {
    let pods: Vec<&Group> = groups.iter().flat_map(|group| vec![group; group.count.into()]).collect();
    let needed = if min == 0 { pods.len() } else { pods.len().min(min.into()) };
    let mut on: Vec<Vec<&Group>> = vec![Vec::new(); nodes.len()];
    place(nodes, &pods, needed, &mut on)
}

fn place<'g>(nodes: &[Node], pods: &[&'g Group], needed: usize, on: &mut [Vec<&'g Group>]) -> bool {
    if needed == 0 {
        return true;
    }
    let Some((pod, rest)) = pods.split_first() else { return false };
    for at in 0..nodes.len() {
        on[at].push(pod);
        if takes_in_some_order(&nodes[at], &on[at]) && place(nodes, rest, needed - 1, on) {
            return true;
        }
        on[at].pop();
    }
    rest.len() >= needed && place(nodes, rest, needed, on)
}

fn takes_in_some_order(node: &Node, pods: &[&Group]) -> bool {
    fn next(node: &Node, placed: &[&Group], left: &[&Group]) -> bool {
        left.is_empty()
            || (0..left.len()).any(|at| {
                let mut left = left.to_vec();
                let pod = left.remove(at);
                takes(node, placed, pod) && next(node, &[placed, &[pod]].concat(), &left)
            })
    }
    next(node, &[], pods)
}

/// The scheduler's filters, for one pod after those that are placed.
fn takes(node: &Node, placed: &[&Group], pod: &Group) -> bool {
    let nominated = node.nominated.filter(|(priority, _, own)| *priority >= pod.priority && !own);
    let there = placed.len() + usize::from(nominated.is_some());
    let has_room = (0..3).all(|of| {
        let taken: u8 = placed.iter().map(|pod| pod.needs[of]).sum();
        pod.needs[of] == 0 || taken + pod.needs[of] + nominated.map_or(0, |(_, needs, _)| needs[of]) <= node.free[of]
    });
    has_room
        && there < node.pods.into()
        && (!node.tainted || pod.tolerates)
        && pod.zone.is_none_or(|zone| zone == node.zone)
        && pod.port.is_none_or(|port| node.port != Some(port) && placed.iter().all(|placed| placed.port != Some(port)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_fits_has_a_placement_and_what_does_not_has_none(nodes in nodes(), groups in groups(), min in 0..5_u8) {
        let objects = objects(&nodes, &groups, min);
        let snapshot = snapshot(objects.iter().map(object).collect(), &Options::default());
        let view = &snapshot.appwrappers.as_ref().unwrap().appwrappers[0];
        let verdict = view.unplaced.as_ref().unwrap().verdict.as_ref().unwrap();
        let expected = if fits_by_force(&nodes, &groups, min) { Outcome::Fits } else { Outcome::Never };
        prop_assert_eq!(verdict.outcome, expected, "{:?}", verdict);
        prop_assert_eq!(verdict.placed >= verdict.needed, expected == Outcome::Fits);
    }
}
