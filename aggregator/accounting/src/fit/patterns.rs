//! How many pods of each kind a node can take at once: every combination that leaves no room for another pod.
use std::collections::HashMap;

use super::problem::{NodeCapacity, Problem};
use super::steps::{CutShort, Steps};

/// With more combinations on one node, the search would not finish.
const MOST_PATTERNS: usize = 4_096;

/// The number of pods of each kind.
pub(super) type Pattern = Box<[u32]>;

/// The combinations of all nodes. Many nodes have equal lists.
pub(super) struct Patterns {
    /// Each list of combinations once.
    pub(super) classes: Vec<Vec<Pattern>>,
    /// The number of nodes with each list.
    pub(super) nodes_of: Vec<usize>,
}

/// A node that is being filled.
pub(super) struct Filling<'p> {
    problem: &'p Problem,
    node: &'p NodeCapacity,
    pub(super) pods: Box<[u32]>,
    /// What the pods take of each resource.
    taken: Box<[i128]>,
}

impl Patterns {
    pub(super) fn new(problem: &Problem, steps: &mut Steps) -> Result<Self, CutShort> {
        let mut of_room = HashMap::new();
        let mut of_list: HashMap<Vec<Pattern>, usize> = HashMap::new();
        let mut all = Self { classes: Vec::new(), nodes_of: Vec::new() };
        for node in &problem.nodes {
            steps.go(node.room.len())?;
            let key = (&node.room, node.takes, &node.preceded);
            let class = if let Some(class) = of_room.get(&key) {
                *class
            } else {
                let mut patterns = Vec::new();
                Filling::new(problem, node).each(0, &mut patterns, steps)?;
                let class = *of_list.entry(patterns).or_insert_with_key(|patterns| {
                    all.classes.push(patterns.clone());
                    all.nodes_of.push(0);
                    all.classes.len() - 1
                });
                of_room.insert(key, class);
                class
            };
            all.nodes_of[class] += 1;
        }
        Ok(all)
    }
}

impl<'p> Filling<'p> {
    /// Without any pods.
    pub(super) fn new(problem: &'p Problem, node: &'p NodeCapacity) -> Self {
        Self { problem, node, pods: vec![0; problem.kinds.len()].into(), taken: vec![0; node.room.len()].into() }
    }

    /// How much is left of a resource.
    pub(super) fn left(&self, resource: usize) -> i128 {
        self.node.room[resource] - self.taken[resource]
    }

    /// Whether one more pod of a kind fits.
    pub(super) fn takes(&self, kind: usize) -> bool {
        let kinds = &self.problem.kinds;
        let has_some = |other: usize| self.pods[other] > 0;
        if !self.node.takes(kind)
            || (0..kinds.len()).any(|other| kinds[kind].conflicts >> other & 1 == 1 && has_some(other))
        {
            return false;
        }
        if self.node.preceded.is_empty() {
            let mut requests = kinds[kind].requests.iter().zip(self.node.room.iter().zip(&self.taken));
            return requests.all(|(request, (room, taken))| *request <= 0 || taken + request <= *room);
        }
        // Pods of higher priority are placed later and must still fit.
        let later =
            (0..kinds.len()).filter(|at| *at == kind || has_some(*at) && kinds[*at].priority >= kinds[kind].priority);
        later.into_iter().all(|at| self.fits_with(at, kind))
    }

    /// Whether the pods of a kind fit after the pods of equal or lower priority, one more pod, and the nominated pods.
    fn fits_with(&self, at: usize, one_more: usize) -> bool {
        let kinds = &self.problem.kinds;
        let pods = |kind: usize| i128::from(self.pods[kind]) + i128::from(kind == one_more);
        (0..self.node.room.len()).filter(|resource| kinds[at].requests[*resource] > 0).all(|resource| {
            let before = (0..kinds.len()).filter(|kind| kinds[*kind].priority <= kinds[at].priority);
            let taken: i128 = before.map(|kind| pods(kind) * kinds[kind].requests[resource]).sum();
            taken + self.node.preceded[at][resource] <= self.node.room[resource]
        })
    }

    pub(super) fn put(&mut self, kind: usize) {
        self.pods[kind] += 1;
        for (taken, request) in self.taken.iter_mut().zip(&self.problem.kinds[kind].requests) {
            *taken += request;
        }
    }

    fn remove(&mut self, kind: usize) {
        self.pods[kind] -= 1;
        for (taken, request) in self.taken.iter_mut().zip(&self.problem.kinds[kind].requests) {
            *taken -= request;
        }
    }

    /// Adds every combination that extends the current one with this kind and later kinds.
    fn each(&mut self, kind: usize, patterns: &mut Vec<Pattern>, steps: &mut Steps) -> Result<(), CutShort> {
        let wants_more =
            |filling: &Self, kind: usize| filling.pods[kind] < filling.problem.kinds[kind].count && filling.takes(kind);
        if kind == self.pods.len() {
            steps.go(self.pods.len())?;
            if !(0..kind).any(|kind| wants_more(self, kind)) {
                patterns.push(self.pods.clone());
            }
            return if patterns.len() > MOST_PATTERNS { Err(CutShort) } else { Ok(()) };
        }
        while wants_more(self, kind) {
            steps.go(1)?;
            self.put(kind);
        }
        loop {
            self.each(kind + 1, patterns, steps)?;
            if self.pods[kind] == 0 {
                return Ok(());
            }
            self.remove(kind);
        }
    }
}
