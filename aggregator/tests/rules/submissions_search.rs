//! How many copies of a submission fit, against trying every placement on up to six nodes, some of them imagined away or uncordoned.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use mcad_accounting::change::Change;
use mcad_accounting::trial::Trial;
use mcad_testkit::build::{node, spec, waiting, with};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::submissions::{ground, submission};

/// GPUs and cores.
type Amounts = [u8; 2];

#[derive(Clone, Debug)]
struct Node {
    free: Amounts,
    cordoned: bool,
    /// Imagined away.
    gone: bool,
    /// Imagined to be uncordoned.
    uncordoned: bool,
}

#[derive(Clone, Debug)]
struct Group {
    count: u8,
    needs: Amounts,
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let often = proptest::bool::weighted;
    let node = ([0..5_u8, 0..5], often(0.3), often(0.2), often(0.5))
        .prop_map(|(free, cordoned, gone, uncordoned)| Node { free, cordoned, gone, uncordoned });
    proptest::collection::vec(node, 1..=6)
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let group = (1..3_u8, [0..4_u8, 1..4]).prop_map(|(count, needs)| Group { count, needs });
    proptest::collection::vec(group, 1..3)
}

fn quantities([gpus, cores]: Amounts) -> Value {
    json!({"nvidia.com/gpu": gpus.to_string(), "cpu": cores.to_string()})
}

/// Whether all of these pods can be placed on what is left. Identical pods, which stand together, go to nodes in their order: `from` the
/// node of the last one.
fn fits_by_force(left: &mut Vec<Amounts>, pods: &[Amounts], from: usize) -> bool {
    let Some((pod, rest)) = pods.split_first() else { return true };
    (from..left.len()).any(|at| {
        let before = left[at];
        if (0..2).any(|of| pod[of] > before[of]) {
            return false;
        }
        left[at] = [before[0] - pod[0], before[1] - pod[1]];
        let found = fits_by_force(left, rest, if rest.first() == Some(pod) { at } else { 0 });
        left[at] = before;
        found
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn as_many_copies_fit_as_there_are_placements_for(nodes in nodes(), groups in groups(), copies in 1..5_u32) {
        let named = || nodes.iter().enumerate().map(|(at, node)| (format!("n{at}"), node));
        let objects: Vec<Value> = named()
            .map(|(name, of)| with(node(&name, quantities(of.free)), "/spec/unschedulable", json!(of.cordoned)))
            .collect();
        let gone = named().filter(|(_, node)| node.gone).map(|(name, _)| Change::Without(name));
        let uncordoned = named().filter(|(_, node)| node.uncordoned && !node.gone).map(|(name, _)| Change::Uncordon(name));
        let changes: Vec<Change> = uncordoned.chain(gone).collect();
        let sets: Vec<(u32, Value)> = groups.iter().map(|group| (group.count.into(), spec(quantities(group.needs)))).collect();
        let submission = submission(&waiting(&sets));
        let ground = ground(&objects, &changes, std::slice::from_ref(&submission));
        let found = Trial::new(&ground).submit(&submission, copies).nodes.unwrap();

        let takes = |node: &&Node| !node.gone && (!node.cordoned || node.uncordoned);
        let mut left: Vec<Amounts> = nodes.iter().filter(takes).map(|node| node.free).collect();
        let pods = |copies: u32| -> Vec<Amounts> {
            groups.iter().flat_map(|group| vec![group.needs; usize::from(group.count) * copies as usize]).collect()
        };
        let most = (0..=copies).rev().find(|copies| fits_by_force(&mut left, &pods(*copies), 0)).unwrap();
        prop_assert_eq!((found.fit, found.is_most), (most, true));
    }
}
