//! The search with a limit: node by node, every combination of pods that the node can take, until everything needed is
//! placed or nothing is left to try.
//!
//! It skips only branches that contain no placement: remainders that a bound excludes, and remainders that have at
//! least as many pods of each kind as one that already failed from the same node on. So nodes with equal combinations,
//! and pods of one kind, are not tried in every order.
use std::cmp::Reverse;

use super::bounds::{Weights, counts, heaviest, least};
use super::patterns::{Pattern, Patterns};
use super::problem::Problem;
use super::steps::{CutShort, Steps};

/// Whether there is a placement.
pub(super) fn search(
    problem: &Problem,
    patterns: &Patterns,
    weights: &[Weights],
    steps: &mut Steps,
) -> Result<bool, CutShort> {
    let mut search = Search::new(problem, patterns, weights, steps)?;
    search.run(steps)
}

struct Search<'p> {
    kinds: usize,
    /// The number of pods that need not be placed.
    spare: u64,
    /// The combinations of each node, in the order in which nodes are tried.
    nodes: Vec<Vec<&'p Pattern>>,
    weights: &'p [Weights],
    /// For each weighting, the highest weight that can be placed from a node on.
    most_from: Vec<Vec<i128>>,
    /// The pods left to place before each node, one row per node.
    rests: Vec<u32>,
    /// The next combination to try on each node.
    next: Vec<usize>,
    /// Remainders before each node that failed.
    vain: Vec<Vec<Box<[u32]>>>,
}

impl<'p> Search<'p> {
    fn new(
        problem: &Problem,
        patterns: &'p Patterns,
        weights: &'p [Weights],
        steps: &mut Steps,
    ) -> Result<Self, CutShort> {
        let kinds = problem.kinds.len();
        steps.go(problem.nodes.len() * (kinds + weights.len()))?;
        // Nodes with few combinations first; for each node, the heaviest combination first.
        let mut classes: Vec<usize> = (0..patterns.classes.len()).collect();
        classes.sort_by_key(|class| patterns.classes[*class].len());
        let guide = weights.first();
        let choices = |class: usize| {
            let mut choices: Vec<&Pattern> = patterns.classes[class].iter().collect();
            let weigh = |pattern: &Pattern| guide.map(|weights| weight(pattern, weights));
            choices.sort_by_key(|pattern| Reverse(weigh(pattern)));
            choices
        };
        let nodes: Vec<_> = classes.iter().flat_map(|class| vec![choices(*class); patterns.nodes_of[*class]]).collect();
        let most = |weights: &Weights| {
            let of_class: Vec<i128> =
                patterns.classes.iter().map(|class| heaviest(class, weights).map_or(0, |(weight, _)| weight)).collect();
            let of_node = classes.iter().flat_map(|class| vec![of_class[*class]; patterns.nodes_of[*class]]);
            let mut most: Vec<i128> = of_node.chain([0]).collect();
            for at in (0..most.len() - 1).rev() {
                most[at] += most[at + 1];
            }
            most
        };
        let mut rests = vec![0; (nodes.len() + 1) * kinds];
        rests[..kinds].copy_from_slice(&counts(problem));
        Ok(Self {
            kinds,
            spare: problem.pods().saturating_sub(problem.needed),
            weights,
            most_from: weights.iter().map(most).collect(),
            rests,
            next: vec![0; nodes.len() + 1],
            vain: vec![Vec::new(); nodes.len() + 1],
            nodes,
        })
    }

    fn run(&mut self, steps: &mut Steps) -> Result<bool, CutShort> {
        let mut at = 0;
        let mut is_new = true;
        loop {
            if is_new {
                steps.go(self.kinds * (1 + self.weights.len() + self.vain[at].len()))?;
                if self.wanting(at) == 0 {
                    return Ok(true);
                }
                self.next[at] = 0;
            }
            if is_new && self.is_hopeless(at) || self.next[at] == self.nodes[at].len() {
                if !is_new {
                    let rest = self.rest(at).into();
                    self.vain[at].push(rest);
                }
                if at == 0 {
                    return Ok(false);
                }
                (at, is_new) = (at - 1, false);
                continue;
            }
            self.take(at);
            (at, is_new) = (at + 1, true);
        }
    }

    fn rest(&self, at: usize) -> &[u32] {
        &self.rests[at * self.kinds..][..self.kinds]
    }

    /// The number of pods that must still be placed.
    fn wanting(&self, at: usize) -> u64 {
        self.rest(at).iter().copied().map(u64::from).sum::<u64>().saturating_sub(self.spare)
    }

    /// Whether nothing from this node on places all pods that must be placed.
    fn is_hopeless(&self, at: usize) -> bool {
        let (rest, wanting) = (self.rest(at), self.wanting(at));
        let exceeds = |(weights, most): (&Weights, &Vec<i128>)| least(weights, rest, wanting) > most[at];
        let no_less = |vain: &[u32]| vain.iter().zip(rest).all(|(vain, rest)| vain <= rest);
        at == self.nodes.len()
            || self.weights.iter().zip(&self.most_from).any(exceeds)
            || self.vain[at].iter().any(|vain| no_less(vain))
    }

    /// Applies the node's next combination.
    fn take(&mut self, at: usize) {
        let pattern = self.nodes[at][self.next[at]];
        self.next[at] += 1;
        let (before, after) = self.rests.split_at_mut((at + 1) * self.kinds);
        let before = &before[at * self.kinds..];
        for ((after, before), pods) in after.iter_mut().zip(before).zip(pattern) {
            *after = before.saturating_sub(*pods);
        }
    }
}

fn weight(pattern: &[u32], weights: &[i128]) -> i128 {
    pattern.iter().zip(weights).map(|(pods, weight)| i128::from(*pods) * weight).sum()
}
