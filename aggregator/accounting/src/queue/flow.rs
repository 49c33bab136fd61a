//! The maximum flow from flavors to nodes: for how much quota there is hardware if the hardware of each node counts once.
//!
//! Exact, by Dinic's algorithm on whole amounts. Nodes that the same flavors may use are one class.
use std::collections::VecDeque;

/// Nodes that the same flavors may use: what they have in all, and which flavors these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) capacity: i128,
    pub(super) flavors: Vec<usize>,
}

/// For how much of these quotas, by flavor, these nodes have the hardware.
pub(super) fn most(quotas: &[i128], classes: &[Class]) -> i128 {
    let (source, sink) = (0, 1);
    let flavor = |at: usize| 2 + at;
    let mut graph = Graph::new(2 + quotas.len() + classes.len());
    for (at, quota) in quotas.iter().enumerate() {
        graph.connect(source, flavor(at), *quota);
    }
    for (at, class) in classes.iter().enumerate() {
        let node = 2 + quotas.len() + at;
        graph.connect(node, sink, class.capacity);
        for of in &class.flavors {
            graph.connect(flavor(*of), node, class.capacity.min(quotas[*of]));
        }
    }
    graph.flow(source, sink)
}

struct Edge {
    to: usize,
    left: i128,
}

struct Graph {
    /// Each edge is followed by its reverse.
    edges: Vec<Edge>,
    from: Vec<Vec<usize>>,
}

impl Graph {
    fn new(nodes: usize) -> Self {
        Self { edges: Vec::new(), from: vec![Vec::new(); nodes] }
    }

    fn connect(&mut self, from: usize, to: usize, capacity: i128) {
        if capacity > 0 {
            self.from[from].push(self.edges.len());
            self.edges.push(Edge { to, left: capacity });
            self.from[to].push(self.edges.len());
            self.edges.push(Edge { to: from, left: 0 });
        }
    }

    fn flow(&mut self, source: usize, sink: usize) -> i128 {
        let mut flow = 0;
        loop {
            let levels = self.levels(source);
            if levels[sink].is_none() {
                return flow;
            }
            let mut next = vec![0; self.from.len()];
            while let Some(more) = self.push_along(source, sink, &levels, &mut next) {
                flow += more;
            }
        }
    }

    /// How many edges each node is away from the source.
    fn levels(&self, source: usize) -> Vec<Option<u32>> {
        let mut levels = vec![None; self.from.len()];
        levels[source] = Some(0);
        let mut queue = VecDeque::from([(source, 0)]);
        while let Some((at, level)) = queue.pop_front() {
            for edge in self.from[at].iter().map(|edge| &self.edges[*edge]).filter(|edge| edge.left > 0) {
                if levels[edge.to].is_none() {
                    levels[edge.to] = Some(level + 1);
                    queue.push_back((edge.to, level + 1));
                }
            }
        }
        levels
    }

    /// Pushes as much as one shortest way takes. `next` is the first edge of each node that may still lead on.
    fn push_along(&mut self, source: usize, sink: usize, levels: &[Option<u32>], next: &mut [usize]) -> Option<i128> {
        let mut way: Vec<usize> = Vec::new();
        let mut at = source;
        while at != sink {
            let Some(edge) = self.from[at].get(next[at]).copied() else {
                // A dead end: back, and never here again.
                let edge = way.pop()?;
                at = self.edges[edge ^ 1].to;
                next[at] += 1;
                continue;
            };
            let Edge { to, left } = self.edges[edge];
            if left > 0 && levels[to] == levels[at].map(|level| level + 1) {
                way.push(edge);
                at = to;
            } else {
                next[at] += 1;
            }
        }
        let more = way.iter().map(|edge| self.edges[*edge].left).min()?;
        for edge in way {
            self.edges[edge].left -= more;
            self.edges[edge ^ 1].left += more;
        }
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Hands out what is left of a class to these flavors in every way.
    fn hand_out(of: &[usize], left: i128, given: i128, quotas: &mut [i128], rest: &[Class]) -> i128 {
        let Some((flavor, others)) = of.split_first() else { return given + by_trying(quotas, rest) };
        let most = left.min(quotas[*flavor]);
        let mut best = 0;
        for amount in 0..=most {
            quotas[*flavor] -= amount;
            best = best.max(hand_out(others, left - amount, given + amount, quotas, rest));
            quotas[*flavor] += amount;
        }
        best
    }

    /// Hands out every unit in every way.
    fn by_trying(quotas: &mut [i128], classes: &[Class]) -> i128 {
        let Some((class, rest)) = classes.split_first() else { return 0 };
        hand_out(&class.flavors, class.capacity, 0, quotas, rest)
    }

    proptest! {
        #[test]
        fn the_flow_is_what_trying_every_way_finds(
            quotas in prop::collection::vec(0..6_i128, 1..4),
            classes in prop::collection::vec((0..5_i128, 0..8_usize), 0..4),
        ) {
            let classes: Vec<Class> = classes
                .into_iter()
                .map(|(capacity, mask)| Class {
                    capacity,
                    flavors: (0..quotas.len()).filter(|at| mask & 1 << at != 0).collect(),
                })
                .collect();
            prop_assert_eq!(most(&quotas, &classes), by_trying(&mut quotas.clone(), &classes));
        }
    }

    #[test]
    fn two_flavors_that_share_a_node_get_its_hardware_once() {
        let class = |capacity, flavors: &[usize]| Class { capacity, flavors: flavors.to_vec() };
        assert_eq!(most(&[8, 8], &[class(8, &[0, 1]), class(4, &[0])]), 12);
    }
}
