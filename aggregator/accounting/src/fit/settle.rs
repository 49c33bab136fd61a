//! Decides what best fit left undecided, with the cheapest steps first: bounds, other orders, a search with a limit.
use super::patterns::Patterns;
use super::pods::{Pods, Room};
use super::problem::Problem;
use super::steps::{CutShort, Steps};
use super::{bounds, orders, search};
use crate::snapshot::verdict::Outcome;

/// Decides whether `needed` of the pods fit, and returns how many were placed.
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
        // One excluded part decides, even if the search for another part was stopped early.
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

/// Whether a placement is found. `false` means that none exists.
fn find(problem: &Problem, steps: &mut Steps) -> Result<bool, CutShort> {
    let patterns = Patterns::new(problem, steps)?;
    match bounds::weigh(problem, &patterns, steps)? {
        None => Ok(false),
        Some(weights) => search::search(problem, &patterns, &weights, steps),
    }
}
