//! Fit of pods with claims against trying every placement by the plainest rules: what is found to fit has one, what is found not to has
//! none.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::collections::BTreeMap;

use mcad_accounting::options::Options;
use mcad_accounting::snapshot::verdict::Outcome;
use mcad_testkit::build::{node, object, spec, v1beta2, with};
use mcad_testkit::snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};

const DRA: &str = "resource.k8s.io/v1";
const DRIVER: &str = "gpu.nvidia.com";
/// Parts that each set of counters has.
const PARTS: u8 = 4;

#[derive(Clone, Debug)]
struct Device {
    /// On this node; absent: on all.
    node: Option<usize>,
    model: u8,
    /// Of its set of counters, of which each node and the network has one; 0: it consumes none.
    parts: u8,
    is_held: bool,
    is_tainted: bool,
}

#[derive(Clone, Debug)]
struct Choice {
    /// Absent: all there are.
    count: Option<u8>,
    /// Absent: any.
    model: Option<u8>,
    tolerates: bool,
}

#[derive(Clone, Debug)]
struct Request {
    alternatives: Vec<Choice>,
    /// All its devices are of one model.
    is_matching: bool,
}

#[derive(Clone, Debug)]
struct Group {
    pods: u8,
    cores: u8,
    /// Each pod has a claim with these.
    requests: Vec<Request>,
    /// They use the claim that all share.
    shares: bool,
}

#[derive(Clone, Debug)]
struct Case {
    cores: Vec<u8>,
    devices: Vec<Device>,
    groups: Vec<Group>,
    shared: Request,
    min: u8,
}

fn request() -> impl Strategy<Value = Request> {
    let count = prop_oneof![4 => (1..3_u8).prop_map(Some), 1 => Just(None)];
    let choice = (count, proptest::option::of(0..2_u8), proptest::bool::weighted(0.3))
        .prop_map(|(count, model, tolerates)| Choice { count, model, tolerates });
    (proptest::collection::vec(choice, 1..3), proptest::bool::weighted(0.2))
        .prop_map(|(alternatives, is_matching)| Request { alternatives, is_matching })
}

fn cases() -> impl Strategy<Value = Case> {
    let device = (
        proptest::option::weighted(0.8, 0..3_usize),
        0..2_u8,
        0..=PARTS,
        proptest::bool::weighted(0.15),
        proptest::bool::weighted(0.15),
    )
        .prop_map(|(node, model, parts, is_held, is_tainted)| Device { node, model, parts, is_held, is_tainted });
    let group = (1..3_u8, 0..3_u8, proptest::collection::vec(request(), 0..3), proptest::bool::weighted(0.3))
        .prop_map(|(pods, cores, requests, shares)| Group { pods, cores, requests, shares });
    (
        proptest::collection::vec(1..4_u8, 1..4),
        proptest::collection::vec(device, 0..5),
        proptest::collection::vec(group, 1..3),
        request(),
        0..3_u8,
    )
        .prop_map(|(cores, devices, mut groups, shared, min)| {
            let nodes = cores.len();
            let devices =
                devices.into_iter().map(|of| Device { node: of.node.map(|node| node % nodes), ..of }).collect();
            // Three pods at most.
            if groups.iter().map(|group| group.pods).sum::<u8>() > 3 {
                for group in &mut groups {
                    group.pods = 1;
                }
            }
            Case { cores, devices, groups, shared, min }
        })
}

fn pool_of(node: Option<usize>) -> String {
    // Those of the network come after those of nodes.
    node.map_or("x".to_owned(), |node| format!("n{node}"))
}

fn devices_of(requests: &[Request]) -> Value {
    let choice = |(at, choice): (usize, &Choice)| {
        let mut of = json!({"name": format!("w{at}"), "deviceClassName": "any"});
        match choice.count {
            Some(count) => (of["allocationMode"], of["count"]) = ("ExactCount".into(), count.into()),
            None => of["allocationMode"] = "All".into(),
        }
        if let Some(model) = choice.model {
            let text = format!("device.attributes['{DRIVER}'].model == {model}");
            of["selectors"] = json!([{"cel": {"expression": text}}]);
        }
        if choice.tolerates {
            of["tolerations"] = json!([{"operator": "Exists"}]);
        }
        of
    };
    let request = |(at, request): (usize, &Request)| {
        let first: Vec<_> = request.alternatives.iter().enumerate().map(choice).collect();
        json!({"name": format!("r{at}"), "firstAvailable": first})
    };
    let matching = |(at, request): (usize, &Request)| {
        request
            .is_matching
            .then(|| json!({"matchAttribute": format!("{DRIVER}/model"), "requests": [format!("r{at}")]}))
    };
    json!({
        "requests": requests.iter().enumerate().map(request).collect::<Vec<_>>(),
        "constraints": requests.iter().enumerate().filter_map(matching).collect::<Vec<_>>(),
    })
}

fn objects(case: &Case) -> Vec<Value> {
    let meta = |name: &str| json!({"name": name, "namespace": "a"});
    let of = |kind: &str, name: &str, spec: Value| json!({"apiVersion": DRA, "kind": kind, "metadata": meta(name), "spec": spec});
    let mut objects: Vec<Value> = case
        .cores
        .iter()
        .enumerate()
        .map(|(at, cores)| node(&format!("n{at}"), json!({"cpu": cores.to_string()})))
        .collect();
    objects.push(of("DeviceClass", "any", json!({"selectors": [{"cel": {"expression": "true"}}]})));
    let mut pools: BTreeMap<String, (Option<usize>, Vec<Value>)> = BTreeMap::new();
    for (at, device) in case.devices.iter().enumerate() {
        let pool = pool_of(device.node);
        let mut value = json!({"name": format!("d{at}"), "attributes": {"model": {"int": device.model}}});
        if device.parts > 0 {
            let amount = device.parts.to_string();
            value["consumesCounters"] = json!([{"counterSet": "s", "counters": {"c": {"value": amount}}}]);
        }
        if device.is_tainted {
            value["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
        }
        if device.is_held {
            let result = json!({"request": "r", "driver": DRIVER, "pool": pool, "device": format!("d{at}")});
            let held = of("ResourceClaim", &format!("held-{at}"), json!({}));
            objects.push(with(held, "/status", json!({"allocation": {"devices": {"results": [result]}}})));
        }
        pools.entry(pool).or_insert((device.node, Vec::new())).1.push(value);
    }
    for (pool, (node, devices)) in pools {
        let mut spec = json!({
            "driver": DRIVER, "pool": {"name": pool, "generation": 1, "resourceSliceCount": 1}, "devices": devices,
            "sharedCounters": [{"name": "s", "counters": {"c": {"value": PARTS.to_string()}}}],
        });
        match node {
            Some(node) => spec["nodeName"] = format!("n{node}").into(),
            None => spec["allNodes"] = true.into(),
        }
        objects.push(of("ResourceSlice", &format!("slice-{pool}"), spec));
    }
    objects.push(of("ResourceClaim", "shared", json!({"devices": devices_of(std::slice::from_ref(&case.shared))})));
    let mut components = Vec::new();
    for (at, group) in case.groups.iter().enumerate() {
        let template =
            of("ResourceClaimTemplate", &format!("t{at}"), json!({"spec": {"devices": devices_of(&group.requests)}}));
        objects.push(template);
        let mut claims = vec![json!({"name": "own", "resourceClaimTemplateName": format!("t{at}")})];
        if group.shares {
            claims.push(json!({"name": "shared", "resourceClaimName": "shared"}));
        }
        let pod = with(spec(json!({"cpu": group.cores.to_string()})), "/resourceClaims", json!(claims));
        components.push(
            json!({"podSets": [{"path": "template.t", "replicas": group.pods}], "template": {"t": {"spec": pod}}}),
        );
    }
    let waiting = v1beta2("w", json!(components), "Suspended");
    objects.push(with(waiting, "/spec/schedulingSpec", json!({"minAvailable": case.min})));
    objects
}

/// A request, and whether it is of the claim that all share.
type Asked<'a> = (bool, &'a Request);

/// Plain rules: all in order of pool and device, the first solution.
struct Plain<'a> {
    case: &'a Case,
    order: Vec<usize>,
}

#[derive(Clone)]
struct State {
    cores: Vec<u8>,
    taken: Vec<bool>,
    /// The devices of the claim that all share, once it has some.
    shared: Option<Vec<usize>>,
    pods: Vec<u8>,
}

impl Plain<'_> {
    fn parts_left(&self, taken: &[bool], node: Option<usize>) -> u8 {
        let of_set = self.case.devices.iter().zip(taken).filter(|(device, is_taken)| device.node == node && **is_taken);
        PARTS.saturating_sub(of_set.map(|(device, _)| device.parts).sum())
    }

    fn reaches(&self, device: usize, node: usize) -> bool {
        self.case.devices[device].node.is_none_or(|on| on == node)
    }

    /// The devices for these requests, each with whether it is for the claim that all share.
    fn allocate(&self, node: usize, requests: &[Asked<'_>], taken: &mut Vec<bool>) -> Option<Vec<(bool, usize)>> {
        let Some(((is_shared, request), rest)) = requests.split_first() else { return Some(Vec::new()) };
        for choice in &request.alternatives {
            let meant = |at: &usize| {
                self.reaches(*at, node) && choice.model.is_none_or(|model| self.case.devices[*at].model == model)
            };
            let meant: Vec<usize> = self.order.iter().copied().filter(meant).collect();
            let count = choice.count.map_or(meant.len(), usize::from);
            if count == 0 {
                continue;
            }
            if let Some(found) =
                self.choose(node, (*is_shared, request, choice), &meant, count, &mut Vec::new(), rest, taken)
            {
                return Some(found);
            }
        }
        None
    }

    #[expect(clippy::too_many_arguments, reason = "as plain as can be")]
    fn choose(
        &self,
        node: usize,
        of: (bool, &Request, &Choice),
        meant: &[usize],
        count: usize,
        chosen: &mut Vec<usize>,
        rest: &[Asked<'_>],
        taken: &mut Vec<bool>,
    ) -> Option<Vec<(bool, usize)>> {
        if chosen.len() == count {
            let others = self.allocate(node, rest, taken)?;
            return Some(chosen.iter().map(|device| (of.0, *device)).chain(others).collect());
        }
        for (at, device) in meant.iter().enumerate() {
            let facts = &self.case.devices[*device];
            let is_other = || chosen.first().is_some_and(|first| self.case.devices[*first].model != facts.model);
            if taken[*device]
                || facts.parts > self.parts_left(taken, facts.node)
                || (facts.is_tainted && !of.2.tolerates)
                || (of.1.is_matching && is_other())
                || !self.is_unit_free(*device, taken)
            {
                continue;
            }
            taken[*device] = true;
            chosen.push(*device);
            if let Some(found) = self.choose(node, of, &meant[at + 1..], count, chosen, rest, taken) {
                return Some(found);
            }
            chosen.pop();
            taken[*device] = false;
        }
        None
    }

    /// Devices of a node that consume from its set are one unit, and one that is all of it is had only alone.
    fn is_unit_free(&self, device: usize, taken: &[bool]) -> bool {
        let facts = &self.case.devices[device];
        let of_unit = |(other, is_taken): (&Device, &bool)| *is_taken && other.node == facts.node && other.parts > 0;
        facts.node.is_none() || facts.parts < PARTS || !self.case.devices.iter().zip(taken).any(of_unit)
    }

    fn place(&self, state: &State, group: usize, node: usize) -> Option<State> {
        let of = &self.case.groups[group];
        if state.pods[group] == 0 || state.cores[node] < of.cores {
            return None;
        }
        let mut next = state.clone();
        let mut requests: Vec<Asked<'_>> = of.requests.iter().map(|request| (false, request)).collect();
        if of.shares {
            match &state.shared {
                Some(devices) if !devices.iter().all(|device| self.reaches(*device, node)) => return None,
                Some(_) => {}
                None => requests.push((true, &self.case.shared)),
            }
        }
        let found = self.allocate(node, &requests, &mut next.taken)?;
        if of.shares && state.shared.is_none() {
            next.shared =
                Some(found.into_iter().filter(|(is_shared, _)| *is_shared).map(|(_, device)| device).collect());
        }
        next.cores[node] -= of.cores;
        next.pods[group] -= 1;
        Some(next)
    }

    fn any(&self, state: &State, needed: u8) -> bool {
        if needed == 0 {
            return true;
        }
        (0..self.case.groups.len()).any(|group| {
            (0..self.case.cores.len())
                .any(|node| self.place(state, group, node).is_some_and(|next| self.any(&next, needed - 1)))
        })
    }
}

fn fits_plainly(case: &Case) -> bool {
    let mut order: Vec<usize> = (0..case.devices.len()).collect();
    order.sort_by_key(|at| (pool_of(case.devices[*at].node), *at));
    let plain = Plain { case, order };
    let all: u8 = case.groups.iter().map(|group| group.pods).sum();
    let state = State {
        cores: case.cores.clone(),
        taken: case.devices.iter().map(|device| device.is_held).collect(),
        shared: None,
        pods: case.groups.iter().map(|group| group.pods).collect(),
    };
    plain.any(&state, if case.min == 0 { all } else { case.min.min(all) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_is_found_to_fit_does_and_what_is_found_not_to_does_not(case in cases()) {
        let objects = objects(&case).iter().map(object).collect();
        let snapshot = snapshot(objects, &Options::default());
        let view = &snapshot.appwrappers.as_ref().unwrap().appwrappers[0];
        let outcome = view.unplaced.as_ref().unwrap().verdict.as_ref().unwrap().outcome;
        let expected = if fits_plainly(&case) { Outcome::Fits } else { Outcome::Never };
        prop_assert_eq!(outcome, expected);
    }
}
