//! Upper bounds: proofs that no placement exists.
//!
//! Each bound assigns a weight to every kind of pods. If the highest weights that the nodes can take add up to less
//! than the lowest weight of as many pods as are needed, there is no placement. The weights are integers, so the proof
//! is exact.
use super::patterns::{Pattern, Patterns};
use super::problem::{NodeCapacity, Problem};
use super::steps::{CutShort, Steps};

/// The number of rounds that improve the weights: kinds for which too little room was found get more weight.
const ROUNDS: usize = 48;
/// The step size in the first round.
const PACE: f64 = 0.7;
/// The highest of the weights that are found in this way.
const LARGEST: f64 = (1_u64 << 20) as f64;
/// How many weightings bound the search: each of them is evaluated in every step.
const KEPT: usize = 8;

/// The weight of one pod of each kind.
pub(super) type Weights = Box<[i128]>;

/// The lowest weight of `needed` pods, of which there are `counts` of each kind.
pub(super) fn least(weights: &[i128], counts: &[u32], needed: u64) -> i128 {
    let all: u64 = counts.iter().copied().map(u64::from).sum();
    if needed >= all {
        return weights.iter().zip(counts).map(|(weight, count)| weight * i128::from(*count)).sum();
    }
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_unstable_by_key(|kind| weights[*kind]);
    let mut wanting = needed;
    let mut sum = 0;
    for kind in order {
        let pods = wanting.min(counts[kind].into());
        sum += weights[kind] * i128::from(pods);
        wanting -= pods;
    }
    sum
}

/// Whether there is no placement because there is too little of some resource, for all kinds of pods or for kinds that
/// fit nowhere else.
pub(super) fn exclude(problem: &Problem, steps: &mut Steps) -> Result<bool, CutShort> {
    let counts = counts(problem);
    for kinds in confined(problem, steps)? {
        for resource in 0..problem.kinds.first().map_or(0, |kind| kind.requests.len()) {
            let weigh = |(at, kind): (usize, &super::problem::Kind)| {
                if kinds >> at & 1 == 1 { kind.requests[resource] } else { 0 }
            };
            let weights: Weights = problem.kinds.iter().enumerate().map(weigh).collect();
            steps.go(problem.nodes.len())?;
            let most: i128 = problem.nodes.iter().map(|node| most_of_room(node, &weights, resource)).sum();
            if most < least(&weights, &counts, problem.needed) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// An upper bound on the sum of the requests of pods on a node.
fn most_of_room(node: &NodeCapacity, weights: &[i128], resource: usize) -> i128 {
    let taken = weights.iter().enumerate().filter(|(kind, weight)| **weight > 0 && node.takes(*kind));
    match taken.map(|(_, weight)| *weight).reduce(greatest_divisor) {
        Some(divisor) => node.room[resource] / divisor * divisor,
        None => 0,
    }
}

fn greatest_divisor(mut a: i128, mut b: i128) -> i128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// All kinds, and for each kind the kinds that can only go where it can go: bit sets, each once.
fn confined(problem: &Problem, steps: &mut Steps) -> Result<Vec<u64>, CutShort> {
    let kinds = problem.kinds.len();
    // For each kind, the kinds that can go where it cannot go.
    let mut elsewhere = vec![0_u64; kinds];
    steps.go(problem.nodes.len() * kinds)?;
    for node in &problem.nodes {
        for (kind, elsewhere) in elsewhere.iter_mut().enumerate() {
            if !node.takes(kind) {
                *elsewhere |= node.takes;
            }
        }
    }
    let all = u64::MAX >> (64 - kinds.max(1));
    let mut sets: Vec<u64> = elsewhere.into_iter().map(|elsewhere| all & !elsewhere).chain([all]).collect();
    sets.sort_unstable();
    sets.dedup();
    Ok(sets)
}

/// The weightings that come closest to a proof, the best first. `None` if one is a proof.
pub(super) fn weigh(
    problem: &Problem,
    patterns: &Patterns,
    steps: &mut Steps,
) -> Result<Option<Vec<Weights>>, CutShort> {
    let (kinds, counts) = (problem.kinds.len(), counts(problem));
    let cost = patterns.classes.iter().map(Vec::len).sum::<usize>() * kinds;
    let resources = problem.kinds.first().map_or(0, |kind| kind.requests.len());
    let of_resource = |at: usize| problem.kinds.iter().map(|kind| kind.requests[at].max(0)).collect::<Weights>();
    let of_kind = |at: usize| (0..kinds).map(|kind| i128::from(kind == at)).collect::<Weights>();
    let mut tried: Vec<(f64, Weights)> = Vec::new();
    let mut fractions = first_fractions(problem);
    let plain = (0..resources).map(of_resource).chain((0..kinds).map(of_kind)).map(Some);
    for (round, weights) in plain.chain(std::iter::repeat_n(None, ROUNDS)).enumerate() {
        steps.go(cost)?;
        let is_plain = weights.is_some();
        let weights = weights.unwrap_or_else(|| in_whole(&fractions));
        let mut placed = vec![0_i128; kinds];
        let mut most = 0;
        for (class, nodes) in patterns.classes.iter().zip(&patterns.nodes_of) {
            let Some((weight, pattern)) = heaviest(class, &weights) else { continue };
            let nodes = *nodes as i128;
            most += weight * nodes;
            for (placed, pods) in placed.iter_mut().zip(pattern) {
                *placed += i128::from(*pods) * nodes;
            }
        }
        let least = least(&weights, &counts, problem.needed);
        if most < least {
            return Ok(None);
        }
        tried.push((most as f64 / (least as f64).max(f64::MIN_POSITIVE), weights));
        if is_plain {
            continue;
        }
        let pace = PACE / (1.0 + round as f64).sqrt();
        for (fraction, (placed, count)) in fractions.iter_mut().zip(placed.iter().zip(&counts)) {
            let (placed, count) = (*placed as f64, f64::from(*count));
            *fraction *= (pace * (count - placed) / count.max(placed).max(1.0)).exp();
        }
    }
    tried.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    tried.dedup_by(|(_, a), (_, b)| a == b);
    Ok(Some(tried.into_iter().take(KEPT).map(|(_, weights)| weights).collect()))
}

/// Each kind's share of everything that is left.
fn first_fractions(problem: &Problem) -> Vec<f64> {
    let resources = 0..problem.kinds.first().map_or(0, |kind| kind.requests.len());
    let left: Vec<f64> =
        resources.map(|at| problem.nodes.iter().map(|node| node.room[at] as f64).sum::<f64>().max(1.0)).collect();
    let share = |requests: &[i128]| requests.iter().zip(&left).map(|(request, left)| *request as f64 / left).sum();
    problem.kinds.iter().map(|kind| share(&kind.requests)).collect()
}

fn in_whole(fractions: &[f64]) -> Weights {
    let largest = fractions.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    fractions.iter().map(|fraction| (fraction / largest * LARGEST) as i128).collect()
}

/// The combination with the highest weight.
pub(super) fn heaviest<'p>(class: &'p [Pattern], weights: &[i128]) -> Option<(i128, &'p Pattern)> {
    let weigh = |pattern: &Pattern| -> i128 {
        pattern.iter().zip(weights).map(|(pods, weight)| i128::from(*pods) * weight).sum()
    };
    class.iter().map(|pattern| (weigh(pattern), pattern)).max_by_key(|(weight, _)| *weight)
}

pub(super) fn counts(problem: &Problem) -> Vec<u32> {
    problem.kinds.iter().map(|kind| kind.count).collect()
}
