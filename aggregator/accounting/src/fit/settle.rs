//! Decides what best fit left undecided, by the steps that cost least first: bounds, other orders, a search that ends.
use super::patterns::Patterns;
use super::pods::{Pods, Room};
use super::problem::Problem;
use super::steps::{CutShort, Steps};
use super::{bounds, orders, search};
use crate::snapshot::verdict::Outcome;

/// Decides whether so many of the pods fit, and says how many were placed.
pub(super) fn settle(pods: &[Pods<'_>], rooms: &[Room<'_>], needed: u64, steps: &mut Steps) -> (Outcome, u64) {
    let mut placed = 0;
    let outcome = Problem::new(pods, rooms, needed, steps).and_then(|problem| decide(&problem, &mut placed, steps));
    (outcome.unwrap_or(Outcome::Unproven), placed)
}

fn decide(problem: &Problem, placed: &mut u64, steps: &mut Steps) -> Result<Outcome, CutShort> {
    if bounds::exclude(problem, steps)? {
        return Ok(Outcome::Never);
    }
    orders::place(problem, placed, steps)?;
    if *placed >= problem.needed {
        return Ok(Outcome::Fits);
    }
    let mut outcome = Outcome::Fits;
    for part in problem.parts() {
        // One part that is excluded decides, also where another was cut short.
        match find(&part, steps) {
            Ok(true) => {}
            Ok(false) => return Ok(Outcome::Never),
            Err(CutShort) => outcome = Outcome::Unproven,
        }
    }
    if outcome == Outcome::Fits {
        *placed = problem.needed;
    }
    Ok(outcome)
}

/// Whether a placement is found, or excluded.
fn find(problem: &Problem, steps: &mut Steps) -> Result<bool, CutShort> {
    let patterns = Patterns::new(problem, steps)?;
    match bounds::weigh(problem, &patterns, steps)? {
        None => Ok(false),
        Some(weights) => search::search(problem, &patterns, &weights, steps),
    }
}
