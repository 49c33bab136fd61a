//! Upper bounds on how many pods can get devices: proofs that no placement exists, whatever devices each pod is given.
//!
//! They count devices that could be allocated at the same time, by their remaining counters and their units, without
//! deciding which pod gets which device.
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::allocation::matching;
use super::placement::{Placement, Use as Claim};
use super::plans::{Plan, needs};
use super::steps::{CutShort, Steps};
use super::stock::{DeviceId, OnNode, Reading, Stock, Use};

/// The bounds of the pods of each kind, added up over the nodes.
struct Bounds {
    /// How many pods of each kind can be placed.
    most: Vec<u64>,
    /// The minimum number of devices that one pod of each kind takes, on any node.
    least: Vec<u64>,
    /// How many pods can be placed of all kinds that take devices on every node.
    most_of_all: u64,
    /// All devices that some pod may take.
    devices: u64,
    /// Those devices that are not on a single node.
    wide: HashSet<DeviceId>,
}

/// Whether there are too few devices, or too few nodes with enough devices, for `needed` pods.
pub(super) fn exclude(placement: &mut Placement<'_, '_, '_>, needed: u64, steps: &mut Steps) -> Result<bool, CutShort> {
    let kinds = placement.kinds;
    let (most, least) = (vec![0; kinds.len()], vec![u64::MAX; kinds.len()]);
    let mut bounds = Bounds { most, least, most_of_all: 0, devices: 0, wide: HashSet::new() };
    for place in 0..placement.rooms.count() {
        steps.go(kinds.len())?;
        if kinds.iter().any(|kind| kind.selected[place]) {
            bounds.add(placement, place, steps)?;
        }
    }
    let possible = kinds.iter().zip(&bounds.most).map(|(kind, most)| kind.count.min(*most));
    let (mut with_devices, mut without) = (0_u64, 0_u64);
    for (pods, least) in possible.clone().zip(&bounds.least) {
        let sum = if *least > 0 { &mut with_devices } else { &mut without };
        *sum = sum.saturating_add(pods);
    }
    if with_devices.min(bounds.most_of_all).saturating_add(without) < needed {
        return Ok(true);
    }
    // As many pods of each kind as can be placed alone; those that take the fewest devices first. Devices of a claim
    // that all pods share are not counted.
    let mut pods: Vec<(u64, u64)> = bounds.least.into_iter().zip(possible).filter(|(_, pods)| *pods > 0).collect();
    pods.sort_unstable();
    let (mut wanting, mut least) = (needed, 0_u64);
    for (each, count) in pods {
        let taken = count.min(wanting);
        least = least.saturating_add(each.saturating_mul(taken));
        wanting -= taken;
    }
    Ok(least > bounds.devices)
}

/// What pods of one kind may take on a node.
#[derive(Default)]
struct OfKind {
    /// The minimum number of devices per pod.
    least: u64,
    /// The devices, by position among those of the node.
    devices: HashSet<usize>,
}

impl Bounds {
    /// Adds the node at a position.
    fn add(&mut self, placement: &mut Placement<'_, '_, '_>, place: usize, steps: &mut Steps) -> Result<(), CutShort> {
        let kinds = placement.kinds;
        let view = placement.rooms.view(place);
        let on = placement.stock.on(place, view, steps)?;
        let mut all: HashSet<usize> = HashSet::new();
        // The minimum number of devices among the pods that take any.
        let mut fewest = u64::MAX;
        for (at, kind) in kinds.iter().enumerate() {
            if !kind.selected[place] || kind.missing_class.is_some() {
                continue;
            }
            let is_claim = kind.claims_on(&view.node);
            let mut most = placement.room_for(kind, &is_claim, place);
            if most == 0 {
                continue;
            }
            let own = kind.claims.iter().filter_map(|claim| match claim {
                Claim::Own(plan) => Some(plan),
                Claim::Shared(_) => None,
            });
            let by_name = kind.extended.iter().zip(&is_claim).filter(|(_, is_claim)| **is_claim).map(|((_, p), _)| p);
            let mut of_kind = OfKind::default();
            for plan in own.chain(by_name) {
                if plan.asks_for_all() && on.has_unusable_pool {
                    most = 0;
                }
                most = most.min(of_kind.add(placement.stock, (place, &on), plan, steps)?);
            }
            let there = at_once(placement.stock, (place, &on), &of_kind.devices, steps)?;
            most = most.min(there.checked_div(of_kind.least).unwrap_or(u64::MAX));
            self.most[at] = self.most[at].saturating_add(most);
            self.least[at] = self.least[at].min(of_kind.least);
            if of_kind.least > 0 {
                fewest = fewest.min(of_kind.least);
            }
            all.extend(of_kind.devices);
        }
        self.most_of_all =
            self.most_of_all.saturating_add(at_once(placement.stock, (place, &on), &all, steps)? / fewest);
        let (local, wide): (HashSet<usize>, HashSet<usize>) =
            all.into_iter().partition(|at| on.devices[*at].listed.node().is_some());
        let new: HashSet<usize> = wide.into_iter().filter(|at| self.wide.insert(on.devices[*at].id)).collect();
        for devices in [local, new] {
            self.devices = self.devices.saturating_add(at_once(placement.stock, (place, &on), &devices, steps)?);
        }
        Ok(())
    }
}

impl OfKind {
    /// Adds a claim, and returns for how many pods there are devices.
    fn add<'a>(
        &mut self,
        stock: &mut Stock<'a>,
        on: (usize, &OnNode<'a>),
        plan: &Plan,
        steps: &mut Steps,
    ) -> Result<u64, CutShort> {
        let mut most = u64::MAX;
        for request in 0..plan.requests() {
            let mut needed = u64::MAX;
            let mut of_request: HashSet<usize> = HashSet::new();
            for alternative in plan.alternatives(request) {
                needed = needed.min(needs(alternative.choice));
                let tolerates =
                    |at: &usize| on.1.devices[*at].is_tolerated(|taint| alternative.choice.tolerates(taint));
                of_request.extend(matching(stock, on.1, alternative, steps)?.into_iter().filter(tolerates));
            }
            // Administrative access takes no devices.
            if (1..u64::MAX).contains(&needed) {
                most = most.min(at_once(stock, on, &of_request, steps)? / needed);
                self.least = self.least.saturating_add(needed);
                self.devices.extend(of_request);
            }
        }
        Ok(most)
    }
}

/// An upper bound on how many of these devices can be allocated at the same time.
fn at_once<'a>(
    stock: &mut Stock<'a>,
    (place, on): (usize, &OnNode<'a>),
    devices: &HashSet<usize>,
    steps: &mut Steps,
) -> Result<u64, CutShort> {
    let mut sum = 0_u64;
    let mut units: HashSet<u32> = HashSet::new();
    let mut sets: BTreeMap<(u32, Arc<str>), Vec<usize>> = BTreeMap::new();
    for at in devices {
        let device = &on.devices[*at];
        steps.go(1 + device.listed.described().consumes.len())?;
        match stock.available(place, on, device) {
            None => continue,
            Some(Use::Share) => return Ok(u64::MAX),
            // There may be as many shares as there are claims.
            Some(_) if device.is_shareable() && stock.reading != Reading::Worst => return Ok(u64::MAX),
            Some(_) => {}
        }
        match device.listed.described().consumes.first() {
            Some((set, _)) => sets.entry((device.id.0, set.clone())).or_default().push(*at),
            None => match device.whole_unit() {
                // Of the devices that are all of the same unit, one.
                Some(unit) => sum += u64::from(units.insert(unit)),
                None => sum += 1,
            },
        }
    }
    for ((pool, set), of_set) in sets {
        sum = sum.saturating_add(of_counters(stock, pool, &set, on, &of_set, steps)?);
    }
    Ok(sum)
}

/// The same for devices that consume one counter set: the remaining value of each counter, divided by the smallest
/// amount that a device consumes.
fn of_counters(
    stock: &mut Stock<'_>,
    pool: u32,
    set: &str,
    on: &OnNode<'_>,
    devices: &[usize],
    steps: &mut Steps,
) -> Result<u64, CutShort> {
    let mut least: BTreeMap<&str, (usize, i128)> = BTreeMap::new();
    for at in devices {
        let consumes = on.devices[*at].listed.described().consumes.iter().filter(|(of, _)| **of == *set);
        for (counter, amount) in consumes.flat_map(|(_, counters)| counters) {
            steps.go(1)?;
            let (count, least) = least.entry(counter).or_insert((0, i128::MAX));
            *count += 1;
            *least = amount.nanos().min(*least);
        }
    }
    let mut most = devices.len() as u64;
    for (counter, (count, least)) in least {
        // Only counters that every device consumes.
        if count == devices.len() && least > 0 {
            let left = stock.left_of(pool).of_counter(set, counter).max(0);
            most = most.min(u64::try_from(left / least).unwrap_or(u64::MAX));
        }
    }
    Ok(most)
}
