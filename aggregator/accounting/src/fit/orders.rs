//! Places pods one after the other in several orders: each order may find a placement that best fit misses.
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::patterns::Filling;
use super::problem::Problem;
use super::steps::{CutShort, Steps};

/// Which of the nodes that a pod fits on is chosen.
#[derive(Clone, Copy)]
enum Onto {
    LeastLeft,
    MostLeft,
}

/// Tries all orders until everything needed is placed, and records the highest number of placed pods.
pub(super) fn place(problem: &Problem, placed: &mut u64, steps: &mut Steps) -> Result<(), CutShort> {
    let kinds = 0..problem.kinds.len();
    let resources = 0..problem.kinds.first().map_or(0, |kind| kind.requests.len());
    for resource in resources {
        for onto in [Onto::LeastLeft, Onto::MostLeft] {
            let mut largest_first: Vec<usize> = kinds.clone().collect();
            largest_first.sort_by_key(|kind| Reverse(problem.kinds[*kind].requests[resource]));
            let mut choosiest_first = largest_first.clone();
            steps.go(problem.nodes.len())?;
            choosiest_first.sort_by_key(|kind| problem.nodes.iter().filter(|node| node.takes(*kind)).count());
            for order in [largest_first, choosiest_first] {
                *placed = in_order(problem, &order, resource, onto, steps)?.max(*placed);
                if *placed >= problem.needed {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// How many pods are placed, kind by kind.
fn in_order(
    problem: &Problem,
    order: &[usize],
    resource: usize,
    onto: Onto,
    steps: &mut Steps,
) -> Result<u64, CutShort> {
    steps.go(problem.nodes.len())?;
    let mut fillings: Vec<_> = problem.nodes.iter().map(|node| Filling::new(problem, node)).collect();
    let key = |filling: &Filling<'_>| match onto {
        Onto::LeastLeft => -filling.left(resource),
        Onto::MostLeft => filling.left(resource),
    };
    let mut placed = 0;
    for &kind in order {
        let mut wanting = problem.kinds[kind].count;
        steps.go(fillings.len())?;
        let open = fillings.iter().enumerate().filter(|(_, filling)| filling.takes(kind));
        let mut open: BinaryHeap<_> = open.map(|(at, filling)| (key(filling), Reverse(at))).collect();
        while wanting > 0
            && let Some((_, Reverse(at))) = open.pop()
        {
            // The cost of placing a pod and finding the next node.
            steps.go(10)?;
            fillings[at].put(kind);
            (wanting, placed) = (wanting - 1, placed + 1);
            if fillings[at].takes(kind) {
                open.push((key(&fillings[at]), Reverse(at)));
            }
        }
    }
    Ok(placed)
}
