//! Allocates devices on one node to the claims of one pod: the first solution, as the scheduler finds it.
//!
//! Tries claim after claim, request after request, alternative after alternative, and device after device in the order
//! of pool, slice and position, with backtracking.
//!
//! Source: kubernetes/dynamic-resource-allocation `structured/internal/incubating/allocator_incubating.go`.
use std::rc::Rc;

use super::plans::{Alternative, Plan, RESULTS};
use super::steps::{CutShort, Steps};
use super::stock::{CandidateDevice, OnNode, Reading, Stock, Use};
use crate::expression::{Attribute, Verdict};
use crate::object::request::{Constraint, Mode};

/// The maximum number of devices that are searched for one pod: each is a step of a recursion.
const DEEPEST: usize = 512;

/// The devices that match, by claim, request and alternative, as positions among those of the node.
type Matches = Vec<Vec<Vec<Vec<usize>>>>;

/// The devices of each claim, as positions among those of the node.
pub(super) type Allocated = Vec<Vec<usize>>;

/// Allocates devices to the claims of a pod on the node at a position. Allocates nothing and returns `None` if there
/// are not enough.
pub(super) fn allocate<'a>(
    stock: &mut Stock<'a>,
    (place, on): (usize, &OnNode<'a>),
    claims: &[Rc<Plan>],
    steps: &mut Steps,
) -> Result<Option<Allocated>, CutShort> {
    let mut all = Vec::with_capacity(claims.len());
    let mut deepest = 0_usize;
    for claim in claims {
        let mut of_claim = Vec::with_capacity(claim.requests());
        let mut most_of_claim = 0_usize;
        for request in 0..claim.requests() {
            let mut of_request = Vec::with_capacity(claim.alternatives(request).len());
            let (mut most, mut is_possible) = (0, false);
            for alternative in claim.alternatives(request) {
                if alternative.choice.mode == Mode::All && on.has_unusable_pool {
                    return Ok(None);
                }
                let mut matches = matching(stock, on, alternative, steps)?;
                if alternative.choice.mode == Mode::All && stock.reading == Reading::Fewest {
                    matches = fewest(stock, (place, on), alternative, matches, steps)?;
                }
                let wanted = wanted(alternative, matches.len());
                is_possible |= wanted.is_some();
                most = most.max(wanted.unwrap_or(0));
                of_request.push(matches);
            }
            if !is_possible {
                return Ok(None);
            }
            most_of_claim += most;
            of_claim.push(of_request);
        }
        deepest += most_of_claim.min(RESULTS);
        all.push(of_claim);
    }
    if deepest > DEEPEST {
        return Err(CutShort);
    }
    let mark = stock.mark();
    let mut allocation = Allocation { stock, place, on, claims, matches: &all, chosen: Vec::new(), steps };
    if allocation.has_too_few()? {
        return Ok(None);
    }
    let is_done = allocation.go_on(0, 0);
    let chosen: Vec<(usize, usize)> = allocation.chosen.iter().map(|of| (of.claim, of.device)).collect();
    if !matches!(is_done, Ok(true)) {
        stock.take_back(mark);
        return is_done.map(|_| None);
    }
    stock.settle(mark);
    let mut allocated: Allocated = vec![Vec::new(); claims.len()];
    for (claim, device) in chosen {
        allocated[claim].push(device);
    }
    Ok(Some(allocated))
}

/// The devices that match a request, whether or not they are available.
pub(super) fn matching(
    stock: &mut Stock<'_>,
    on: &OnNode<'_>,
    alternative: Alternative<'_>,
    steps: &mut Steps,
) -> Result<Vec<usize>, CutShort> {
    let mut matches = Vec::new();
    for (at, device) in on.devices.iter().enumerate() {
        let is_meant = match stock.filters.decide(alternative.filter, device.listed, steps)? {
            Verdict::Yes => true,
            Verdict::No => false,
            Verdict::Undecided => {
                stock.doubts.of_selectors = true;
                stock.doubts.of_all |= alternative.choice.mode == Mode::All;
                stock.reading != Reading::Worst
            }
        };
        if is_meant {
            matches.push(at);
        }
    }
    Ok(matches)
}

/// Of the devices that may match a request for all devices: those that match with certainty, or if there are none, one
/// that is available.
fn fewest<'a>(
    stock: &mut Stock<'a>,
    (place, on): (usize, &OnNode<'a>),
    alternative: Alternative<'_>,
    matches: Vec<usize>,
    steps: &mut Steps,
) -> Result<Vec<usize>, CutShort> {
    let choice = alternative.choice;
    let (mut certain, mut one) = (Vec::new(), None);
    for at in matches {
        let device = &on.devices[at];
        if stock.filters.decide(alternative.filter, device.listed, steps)? == Verdict::Yes {
            certain.push(at);
        } else if one.is_none()
            && device.is_tolerated(|taint| choice.tolerates(taint))
            && (choice.is_admin || stock.available(place, on, device).is_some())
        {
            one = Some(at);
        }
    }
    Ok(if certain.is_empty() { one.into_iter().collect() } else { certain })
}

/// How many devices an alternative takes of `matches` matching devices. `None` if there are too few, or more than a
/// claim can get.
fn wanted(alternative: Alternative<'_>, matches: usize) -> Option<usize> {
    let wanted = match alternative.choice.mode {
        Mode::Exactly(count) => usize::try_from(count).ok()?,
        Mode::All => matches.max(1),
        Mode::Unknown => return None,
    };
    (wanted <= matches && wanted <= RESULTS).then_some(wanted)
}

struct Allocation<'s, 'a> {
    stock: &'s mut Stock<'a>,
    place: usize,
    on: &'s OnNode<'a>,
    claims: &'s [Rc<Plan>],
    matches: &'s Matches,
    chosen: Vec<Chosen<'s>>,
    steps: &'s mut Steps,
}

/// A device that was chosen.
struct Chosen<'s> {
    claim: usize,
    alternative: Alternative<'s>,
    device: usize,
}

/// The request that is being satisfied, and its current alternative.
#[derive(Clone, Copy)]
struct At<'s> {
    claim: usize,
    request: usize,
    way: usize,
    alternative: Alternative<'s>,
}

impl<'s> Allocation<'s, '_> {
    /// Whether fewer devices are left than are needed in any case, so that not every combination is tried in vain.
    fn has_too_few(&mut self) -> Result<bool, CutShort> {
        let on = self.on;
        self.steps.go(on.devices.len())?;
        let is_left: Vec<bool> =
            on.devices.iter().map(|device| self.stock.available(self.place, on, device).is_some()).collect();
        let (mut needed, mut there) = (0, vec![false; is_left.len()]);
        for (claim, matches) in self.claims.iter().zip(self.matches) {
            for (request, of_request) in matches.iter().enumerate() {
                let mut least = None;
                for (alternative, of_way) in claim.alternatives(request).zip(of_request) {
                    let Some(wanted) = wanted(alternative, of_way.len()) else { continue };
                    self.steps.go(of_way.len())?;
                    let is_admin = alternative.choice.is_admin;
                    let tolerates =
                        |at: &usize| on.devices[*at].is_tolerated(|taint| alternative.choice.tolerates(taint));
                    let left: Vec<usize> =
                        of_way.iter().copied().filter(|at| (is_admin || is_left[*at]) && tolerates(at)).collect();
                    if left.len() < wanted {
                        continue;
                    }
                    let own = if is_admin { 0 } else { wanted };
                    least = Some(least.map_or(own, |least: usize| least.min(own)));
                    for at in left {
                        there[at] |= is_left[at];
                    }
                }
                let Some(least) = least else { return Ok(true) };
                needed += least;
            }
        }
        Ok(there.into_iter().filter(|is_there| *is_there).count() < needed)
    }

    /// The minimum number of devices for a claim's requests from `request` on.
    fn least_from(&self, claim: usize, request: usize) -> usize {
        let plan = &self.claims[claim];
        let of_request = |request: usize| {
            let ways = plan.alternatives(request).zip(&self.matches[claim][request]);
            ways.filter_map(|(alternative, of_way)| wanted(alternative, of_way.len())).min().unwrap_or(0)
        };
        (request..plan.requests()).map(of_request).sum()
    }

    /// Satisfies a request and all that follow it.
    fn go_on(&mut self, mut claim: usize, mut request: usize) -> Result<bool, CutShort> {
        let claims = self.claims;
        let plan = loop {
            match claims.get(claim) {
                None => return Ok(true),
                Some(plan) if request < plan.requests() => break plan,
                Some(_) => (claim, request) = (claim + 1, 0),
            }
        };
        let given = self.chosen.iter().filter(|chosen| chosen.claim == claim).count();
        let rest = self.least_from(claim, request + 1);
        self.steps.go(plan.requests())?;
        for (way, alternative) in plan.alternatives(request).enumerate() {
            let of_way = self.matches[claim][request][way].len();
            let Some(wanted) = wanted(alternative, of_way) else { continue };
            if given + wanted + rest <= RESULTS && self.choose(At { claim, request, way, alternative }, wanted, 0)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Chooses `wanted` devices for a request, starting at match `from`, and continues with the next request.
    fn choose(&mut self, at: At<'s>, wanted: usize, from: usize) -> Result<bool, CutShort> {
        if wanted == 0 {
            return self.go_on(at.claim, at.request + 1);
        }
        let matches: &'s [usize] = &self.matches[at.claim][at.request][at.way];
        let on = self.on;
        // A request for all devices needs each of them.
        let last = if at.alternative.choice.mode == Mode::All { from + 1 } else { matches.len() + 1 - wanted };
        for (next, &place) in matches.iter().enumerate().take(last).skip(from) {
            self.steps.go(1)?;
            let device = &on.devices[place];
            let Some(use_of) = self.use_of(at, place)? else { continue };
            let mark = self.stock.mark();
            self.stock.give(self.place, device, use_of);
            self.chosen.push(Chosen { claim: at.claim, alternative: at.alternative, device: place });
            if self.choose(at, wanted - 1, next + 1)? {
                return Ok(true);
            }
            self.chosen.pop();
            self.stock.take_back(mark);
        }
        Ok(false)
    }

    /// How a device can be allocated for a request in addition to the chosen ones. `None` if it cannot.
    fn use_of(&mut self, at: At<'s>, place: usize) -> Result<Option<Use>, CutShort> {
        let device = &self.on.devices[place];
        self.steps.go(self.chosen.len() + device.listed.described().consumes.len())?;
        let choice = at.alternative.choice;
        if self.chosen.iter().any(|chosen| chosen.device == place)
            || !device.is_tolerated(|taint| choice.tolerates(taint))
            || !self.satisfies(at, device)
        {
            return Ok(None);
        }
        if choice.is_admin {
            return Ok(self.stock.has_counters(device).then_some(Use::Admin));
        }
        Ok(self.stock.available(self.place, self.on, device))
    }

    /// Whether a device meets the constraints of its claim together with the chosen devices.
    fn satisfies(&self, at: At<'s>, device: &CandidateDevice<'_>) -> bool {
        let of_claim = || self.chosen.iter().filter(|chosen| chosen.claim == at.claim);
        self.claims[at.claim].constraints().iter().all(|constraint| {
            let (Constraint::Match(names, attribute) | Constraint::Distinct(names, attribute)) = constraint else {
                return false;
            };
            if !at.alternative.is_named_in(names) {
                return true;
            }
            let Some((domain, name)) = attribute.split_once('/') else { return false };
            let Some(own) = device.listed.attribute_of(domain, name) else { return false };
            let mut others = of_claim()
                .filter(|chosen| chosen.alternative.is_named_in(names))
                .map(|chosen| self.on.devices[chosen.device].listed.attribute_of(domain, name));
            match constraint {
                Constraint::Match(..) => others.next().is_none_or(|first| is_same(first, own)),
                _ => others.all(|other| *own != Attribute::Other && other != Some(own)),
            }
        })
    }
}

/// Values of an unsupported type are equal to nothing.
fn is_same(a: Option<&Attribute>, b: &Attribute) -> bool {
    *b != Attribute::Other && a == Some(b)
}
