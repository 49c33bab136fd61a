//! The requests of a claim, prepared for allocation with their filters.
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::filters::{FilterId, Filters};
use crate::devices::offer::Offers;
use crate::object::request::{Choice, Constraint, Mode, Request, Requests};

/// The maximum number of devices that are allocated to one claim.
///
/// Source: kubernetes/api `resource/v1/types.go`, `AllocationResultsMaxSize`.
pub(super) const RESULTS: usize = 32;

/// A claim's requests.
pub(super) struct Plan {
    asked: Arc<Requests>,
    /// The filters of each request's alternatives.
    filters: Vec<Vec<FilterId>>,
    /// A class that it names and that does not exist; the claim cannot be allocated then.
    pub(super) missing_class: Option<Arc<str>>,
}

/// One way to satisfy a request.
#[derive(Clone, Copy)]
pub(super) struct Alternative<'p> {
    pub(super) request: &'p Request,
    pub(super) choice: &'p Choice,
    pub(super) filter: FilterId,
}

/// The plans so far, by requests.
#[derive(Default)]
pub(super) struct Plans {
    /// By the address of the requests.
    known: HashMap<*const Requests, Rc<Plan>>,
    /// By the contents of the requests: many templates have equal requests.
    equal: HashMap<Arc<Requests>, Rc<Plan>>,
    /// Keeps the requests at their address for as long as the address is used as a key.
    kept: Vec<Arc<Requests>>,
}

impl Plans {
    /// The plan for these requests.
    pub(super) fn of(&mut self, asked: &Arc<Requests>, offers: &Offers, filters: &mut Filters) -> Rc<Plan> {
        if let Some(known) = self.known.get(&Arc::as_ptr(asked)) {
            return known.clone();
        }
        let plan = match self.equal.get(asked) {
            Some(equal) => equal.clone(),
            None => Rc::new(Plan::new(asked, offers, filters)),
        };
        self.kept.push(asked.clone());
        self.known.insert(Arc::as_ptr(asked), plan.clone());
        self.equal.entry(asked.clone()).or_insert_with(|| plan.clone());
        plan
    }
}

impl Plan {
    fn new(asked: &Arc<Requests>, offers: &Offers, filters: &mut Filters) -> Self {
        let mut plan = Self { asked: asked.clone(), filters: Vec::new(), missing_class: None };
        for request in &asked.requests {
            let mut of_request = Vec::with_capacity(request.alternatives.len());
            for choice in &request.alternatives {
                match filters.of(choice, offers) {
                    Some(filter) => of_request.push(filter),
                    None => plan.missing_class = Some(choice.class.clone()),
                }
            }
            plan.filters.push(of_request);
        }
        plan
    }

    /// The number of its requests.
    pub(super) fn requests(&self) -> usize {
        self.asked.requests.len()
    }

    /// The ways to satisfy a request, in order.
    pub(super) fn alternatives(&self, request: usize) -> impl ExactSizeIterator<Item = Alternative<'_>> {
        let of = &self.asked.requests[request];
        let filters = &self.filters[request];
        of.alternatives.iter().zip(filters).map(move |(choice, filter)| Alternative {
            request: of,
            choice,
            filter: *filter,
        })
    }

    /// What its devices must have in common.
    pub(super) fn constraints(&self) -> &[Constraint] {
        &self.asked.constraints
    }

    /// The number of devices that the first alternatives request; a request for all devices counts as one.
    pub(super) fn first_devices(&self) -> i128 {
        let first = |request: &Request| request.alternatives.first().map_or(0, |choice| needs(choice).into());
        self.asked.requests.iter().map(first).fold(0, i128::saturating_add)
    }

    /// Whether an alternative of any request asks for all devices.
    pub(super) fn asks_for_all(&self) -> bool {
        let mut choices = self.asked.requests.iter().flat_map(|request| &request.alternatives);
        choices.any(|choice| choice.mode == Mode::All)
    }
}

/// The minimum number of devices that it takes for itself.
pub(super) fn needs(choice: &Choice) -> u64 {
    match choice.mode {
        _ if choice.is_admin => 0,
        Mode::Exactly(count) => count,
        Mode::All => 1,
        Mode::Unknown => 0,
    }
}

impl Alternative<'_> {
    /// Whether a constraint that names these requests applies to this one.
    pub(super) fn is_named_in(&self, names: &[Arc<str>]) -> bool {
        let is_named = |name: &Arc<str>| {
            **name == *self.request.name
                || (self.request.is_list
                    && name
                        .split_once('/')
                        .is_some_and(|(request, of)| *request == *self.request.name && *of == *self.choice.name))
        };
        names.is_empty() || names.iter().any(is_named)
    }
}
