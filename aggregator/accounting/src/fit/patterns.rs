//! How many pods of each kind a node can take at once: every choice that leaves no room for one more.
use std::collections::HashMap;

use super::problem::{Node, Problem};
use super::steps::{CutShort, Steps};

/// With more choices on one node the search would get nowhere.
const MOST_PATTERNS: usize = 4_096;

/// So many pods of each kind.
pub(super) type Pattern = Box<[u32]>;

/// The choices of all nodes. Many nodes have the same.
pub(super) struct Patterns {
    /// Each list of choices once.
    pub(super) classes: Vec<Vec<Pattern>>,
    /// How many nodes have each list.
    pub(super) nodes_of: Vec<usize>,
}

/// A node that is being filled.
pub(super) struct Filling<'p> {
    problem: &'p Problem,
    node: &'p Node,
    pub(super) pods: Box<[u32]>,
    /// What they take of each resource.
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
    /// With no pod yet.
    pub(super) fn new(problem: &'p Problem, node: &'p Node) -> Self {
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
        // Those of higher priority come after it, and must still fit.
        let later =
            (0..kinds.len()).filter(|at| *at == kind || has_some(*at) && kinds[*at].priority >= kinds[kind].priority);
        later.into_iter().all(|at| self.fits_with(at, kind))
    }

    /// Whether the pods of a kind find room after those of no higher priority and one more pod, and after what is to come.
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

    /// Every choice that goes on from here with this kind and those after it.
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
