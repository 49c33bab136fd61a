//! The filter of a request: the selectors of its class, its own selectors, and the capacities that a device must have.
//!
//! Each selector is compiled once, and evaluated once for devices that are equal in everything that it can query.
use std::collections::HashMap;
use std::sync::Arc;

use super::steps::{CutShort, Steps};
use crate::devices::offer::Offers;
use crate::expression::{Capacity, Described as _, Selector, Verdict};
use crate::object::request::Choice;
use crate::object::slice::{Likeness, Listed, qualified};
use crate::resource::quantity::Quantity;

/// The maximum number of compiled selectors. A request with further selectors leaves devices undecided.
const TEXTS: usize = 1_000;
/// The maximum number of cached results.
const DECIDED: usize = 1_000_000;
/// The time of an expression depends on its length: this many bytes count as one step.
const BYTES_PER_STEP: usize = 64;

/// Identifies a request's filter by its position in [`Filters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FilterId(u32);

/// All filters so far.
#[derive(Default)]
pub(super) struct Filters {
    texts: HashMap<Arc<str>, Option<usize>>,
    compiled: Vec<Compiled>,
    all: Vec<Filter>,
    known: HashMap<Filter, FilterId>,
    decided: HashMap<(FilterId, Likeness), Verdict>,
}

struct Compiled {
    selector: Selector,
    steps: usize,
    /// Whether it may query something in which otherwise equal devices differ.
    tells_apart: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Filter {
    /// `None` if there were too many selectors.
    selectors: Option<Box<[usize]>>,
    capacities: Box<[(Arc<str>, Quantity)]>,
}

impl Filters {
    /// The filter of a request. `None` if its class does not exist.
    pub(super) fn of(&mut self, choice: &Choice, offers: &Offers) -> Option<FilterId> {
        let class = offers.class(&choice.class)?;
        let texts = class.selectors.iter().chain(&choice.selectors);
        let all: Option<Box<[usize]>> = texts.map(|text| self.compile(text)).collect();
        // If a class has too many selectors, some are not known.
        let selectors = all.filter(|_| class.excess.is_none());
        let filter = Filter { selectors, capacities: choice.capacities.clone() };
        if let Some(known) = self.known.get(&filter) {
            return Some(*known);
        }
        let id = FilterId(u32::try_from(self.all.len()).ok()?);
        self.all.push(filter.clone());
        self.known.insert(filter, id);
        Some(id)
    }

    fn compile(&mut self, text: &Arc<str>) -> Option<usize> {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        if self.compiled.len() == TEXTS {
            return None;
        }
        // Text with escapes may name anything.
        let tells_apart = text.contains('\\') || text.to_ascii_lowercase().contains("uuid");
        let steps = 1 + text.len() / BYTES_PER_STEP;
        self.compiled.push(Compiled { selector: Selector::compile(text), steps, tells_apart });
        let place = Some(self.compiled.len() - 1);
        self.texts.insert(text.clone(), place);
        place
    }

    /// Whether a device passes a filter.
    pub(super) fn decide(&mut self, id: FilterId, listed: Listed<'_>, steps: &mut Steps) -> Result<Verdict, CutShort> {
        steps.go(1)?;
        let key = (id, listed.likeness());
        if let Some(known) = self.decided.get(&key) {
            return Ok(*known);
        }
        let Some(filter) = self.all.get(id.0 as usize) else { return Ok(Verdict::Undecided) };
        let (mut verdict, mut tells_apart) = (Verdict::Yes, false);
        let mut note = |of_part: Verdict| {
            verdict = match (verdict, of_part) {
                (Verdict::No, _) | (_, Verdict::No) => Verdict::No,
                (Verdict::Undecided, _) | (_, Verdict::Undecided) => Verdict::Undecided,
                (Verdict::Yes, Verdict::Yes) => Verdict::Yes,
            };
        };
        match &filter.selectors {
            None => note(Verdict::Undecided),
            Some(selectors) => {
                for compiled in selectors.iter().filter_map(|at| self.compiled.get(*at)) {
                    steps.go(compiled.steps)?;
                    tells_apart |= compiled.tells_apart;
                    note(compiled.selector.decide(&listed));
                }
            }
        }
        for (name, wanted) in &filter.capacities {
            let (domain, name) = qualified(name, &listed.slice.driver);
            note(match listed.capacity(domain, name) {
                Some(Capacity::Amount(there)) if wanted.nanos() <= there.nanos() => Verdict::Yes,
                Some(Capacity::Amount(_)) | None => Verdict::No,
                Some(Capacity::Other) => Verdict::Undecided,
            });
        }
        if !tells_apart && self.decided.len() < DECIDED {
            self.decided.insert(key, verdict);
        }
        Ok(verdict)
    }
}
