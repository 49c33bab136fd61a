//! Decides whether a device is healthy, from its present state in NVML and from past Xid events. It makes no calls and
//! has no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::reading::{DeviceReading, FabricReading, Fault, HealthReading, Reading, XidEvent};
use crate::sample::gpu::Unhealthy;

/// Xids that are caused by applications and do not indicate a problem of the device. The list of NVIDIA's device plugin
/// (`internal/rm/health.go`).
pub const IGNORED_XIDS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// If the driver requests no action after an Xid (field 230), the device is healthy again after this time without
/// another Xid.
const QUIET_NS: u64 = 5 * 60 * 1_000_000_000;

/// Limit of different codes counted per device: NVIDIA documents some 170, and a node sees a handful.
const CODES_AT_MOST: usize = 64;

/// The Xids of a node's devices.
#[derive(Debug)]
pub(super) struct Xids {
    ignored: BTreeSet<u64>,
    devices: BTreeMap<Arc<str>, DeviceXids>,
}

#[derive(Debug, Default)]
struct DeviceXids {
    counts: BTreeMap<u64, u64>,
    /// Whether an Xid makes the device as a whole unhealthy.
    whole: Option<Suspicion>,
    /// The GPU instances of it that an Xid makes unhealthy.
    instances: BTreeMap<u32, Suspicion>,
}

/// An Xid without a sign of recovery so far.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since_ns: u64,
    /// Whether the device was away or requested an action since then. When that is no longer the case, it was repaired.
    was_down: bool,
}

impl Xids {
    pub(super) fn new(ignored: impl IntoIterator<Item = u64>) -> Self {
        Self { ignored: ignored.into_iter().collect(), devices: BTreeMap::new() }
    }

    /// Counts the events of one round, and removes suspicions that the round shows to be over.
    pub(super) fn note(&mut self, reading: &Reading, now_ns: u64) {
        for (uuid, device) in &mut self.devices {
            let health = reading.devices.iter().find(|listed| listed.uuid == *uuid).map(|listed| &listed.health);
            device.whole = device.whole.and_then(|suspicion| suspicion.after(health, now_ns));
            device.instances.retain(|_, suspicion| match suspicion.after(health, now_ns) {
                Some(after) => {
                    *suspicion = after;
                    true
                }
                None => false,
            });
        }
        for event in &reading.xids {
            self.count(event, now_ns);
        }
    }

    /// The driver was unloaded: the devices that come back were reset.
    pub(super) fn driver_was_away(&mut self) {
        for device in self.devices.values_mut() {
            let suspicions = device.whole.iter_mut().chain(device.instances.values_mut());
            suspicions.for_each(|suspicion| suspicion.was_down = true);
        }
    }

    /// Counts by code.
    pub(super) fn counts(&self, uuid: &str) -> Vec<(u64, u64)> {
        let device = self.devices.get(uuid);
        device.map_or_else(Vec::new, |device| device.counts.iter().map(|(xid, count)| (*xid, *count)).collect())
    }

    /// Why this device should not be used.
    pub(super) fn of_device(&self, device: &DeviceReading) -> Vec<Unhealthy> {
        let suspected = self.devices.get(&device.uuid).is_some_and(|xids| xids.whole.is_some());
        reasons(&device.health, suspected)
    }

    /// Why an instance should not be used, including the reasons of its parent.
    pub(super) fn of_instance(
        &self,
        parent: &DeviceReading,
        of_parent: &[Unhealthy],
        gpu_instance: Option<u32>,
    ) -> Vec<Unhealthy> {
        let mut reasons = of_parent.to_vec();
        let xids = self.devices.get(&parent.uuid);
        let suspected = gpu_instance.is_some_and(|id| xids.is_some_and(|xids| xids.instances.contains_key(&id)));
        if suspected && !reasons.contains(&Unhealthy::Xid) {
            reasons.push(Unhealthy::Xid);
            reasons.sort_unstable();
        }
        reasons
    }

    fn count(&mut self, event: &XidEvent, now_ns: u64) {
        let device = self.devices.entry(Arc::clone(&event.uuid)).or_default();
        if device.counts.len() < CODES_AT_MOST || device.counts.contains_key(&event.xid) {
            *device.counts.entry(event.xid).or_default() += 1;
        }
        if self.ignored.contains(&event.xid) {
            return;
        }
        let suspicion = Suspicion { since_ns: now_ns, was_down: false };
        match event.gpu_instance {
            Some(id) => drop(device.instances.insert(id, suspicion)),
            None => device.whole = Some(suspicion),
        }
    }
}

impl Suspicion {
    /// What remains of the suspicion after a round with this health. `None` as health means that the device was not
    /// listed.
    fn after(self, health: Option<&HealthReading>, now_ns: u64) -> Option<Self> {
        let Some(health) = health else { return Some(Self { was_down: true, ..self }) };
        let acts = health.recovery_action.is_some_and(|action| action != 0);
        if health.fault.is_some() || acts {
            return Some(Self { was_down: true, ..self });
        }
        let quiet = health.recovery_action == Some(0) && now_ns.saturating_sub(self.since_ns) >= QUIET_NS;
        (!self.was_down && !quiet).then_some(self)
    }
}

fn reasons(health: &HealthReading, suspected: bool) -> Vec<Unhealthy> {
    let fault = health.fault.map(|fault| match fault {
        Fault::Lost => Unhealthy::Lost,
        Fault::ResetRequired => Unhealthy::NeedsReset,
        Fault::Unreadable => Unhealthy::Unreadable,
    });
    let action = match health.recovery_action {
        None | Some(0) => None,
        Some(1) => Some(Unhealthy::NeedsReset),
        Some(2) => Some(Unhealthy::NeedsReboot),
        Some(3) => Some(Unhealthy::NeedsDrainP2p),
        Some(4) => Some(Unhealthy::NeedsDrainAndReset),
        Some(_) => Some(Unhealthy::NeedsUnknown),
    };
    let has = |holds: bool, reason: Unhealthy| holds.then_some(reason);
    let found = [
        fault,
        action,
        has(suspected, Unhealthy::Xid),
        has(health.ecc_uncorrected.is_some_and(|errors| errors > 0), Unhealthy::EccUncorrected),
        has(health.row_remap_failed == Some(true), Unhealthy::RowRemapFailed),
        has(health.row_remap_pending == Some(true), Unhealthy::RowRemapPending),
        has(health.sram_threshold_exceeded == Some(true), Unhealthy::SramThresholdExceeded),
    ];
    let of_fabric = health.fabric.iter().flat_map(FabricReading::unhealthy);
    // Sorted, each once: a device may request a reset in two ways.
    found.into_iter().flatten().chain(of_fabric).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn device(health: HealthReading) -> DeviceReading {
        DeviceReading { health, ..DeviceReading::of(&"g".into(), &"m".into(), &"b".into()) }
    }

    fn round(health: Option<HealthReading>, xids: &[(u64, Option<u32>)]) -> Reading {
        let xids = xids.iter().map(|(xid, gpu_instance)| XidEvent {
            uuid: "g".into(),
            xid: *xid,
            gpu_instance: *gpu_instance,
        });
        Reading { devices: health.into_iter().map(device).collect(), xids: xids.collect(), ..Reading::default() }
    }

    fn well() -> HealthReading {
        HealthReading { recovery_action: Some(0), ..HealthReading::default() }
    }

    fn suspected(xids: &Xids) -> bool {
        xids.of_device(&device(HealthReading::default())).contains(&Unhealthy::Xid)
    }

    #[test]
    fn each_sign_has_its_reason_and_what_is_not_told_has_none() {
        let check = |health: HealthReading, expected: &[Unhealthy]| assert_eq!(reasons(&health, false), expected);
        check(HealthReading::default(), &[]);
        check(well(), &[]);
        check(HealthReading { ecc_uncorrected: Some(1), ..well() }, &[Unhealthy::EccUncorrected]);
        check(HealthReading { row_remap_failed: Some(true), ..well() }, &[Unhealthy::RowRemapFailed]);
        check(HealthReading { row_remap_pending: Some(true), ..well() }, &[Unhealthy::RowRemapPending]);
        check(HealthReading { sram_threshold_exceeded: Some(true), ..well() }, &[Unhealthy::SramThresholdExceeded]);
        check(HealthReading { sram_threshold_exceeded: Some(false), ..well() }, &[]);
        let fabric = |state, status| FabricReading { state, status, health_mask: Some(0x400) };
        let both = [Unhealthy::FabricNotReady, Unhealthy::FabricNoPartition];
        check(HealthReading { fabric: Some(fabric(2, 0)), ..well() }, &both);
        let both = [Unhealthy::FabricFailed, Unhealthy::FabricNoPartition];
        check(HealthReading { fabric: Some(fabric(3, 999)), ..well() }, &both);
        check(HealthReading { recovery_action: Some(9), ..well() }, &[Unhealthy::NeedsUnknown]);
        let twice = HealthReading { fault: Some(Fault::ResetRequired), recovery_action: Some(1), ..well() };
        check(twice, &[Unhealthy::NeedsReset]);
    }

    #[test]
    fn an_ignored_xid_is_counted_and_says_nothing_of_health() {
        let mut xids = Xids::new(IGNORED_XIDS);
        xids.note(&round(Some(well()), &[(13, None), (13, None), (31, None)]), 0);
        assert!(!suspected(&xids));
        assert_eq!(xids.counts("g"), [(13, 2), (31, 1)]);
        let mut strict = Xids::new([]);
        strict.note(&round(Some(well()), &[(13, None)]), 0);
        assert!(suspected(&strict));
    }

    #[test]
    fn a_device_that_was_away_after_its_xid_and_is_back_is_well() {
        let lost = HealthReading { fault: Some(Fault::Lost), ..HealthReading::default() };
        for away in [Some(lost), None, Some(HealthReading { recovery_action: Some(1), ..well() })] {
            let mut xids = Xids::new(IGNORED_XIDS);
            xids.note(&round(Some(HealthReading::default()), &[(79, None)]), 0);
            xids.note(&round(away, &[]), 1);
            assert!(suspected(&xids));
            xids.note(&round(Some(HealthReading::default()), &[]), 2);
            assert!(!suspected(&xids));
            assert_eq!(xids.counts("g"), [(79, 1)]);
        }
    }

    #[test]
    fn a_device_that_the_driver_does_not_vouch_for_stays_under_suspicion() {
        let mut xids = Xids::new(IGNORED_XIDS);
        xids.note(&round(Some(well()), &[(74, None)]), 0);
        xids.note(&round(Some(HealthReading::default()), &[]), 1000 * SECOND);
        assert!(suspected(&xids));
        xids.note(&round(Some(well()), &[(74, None)]), 1000 * SECOND);
        xids.note(&round(Some(well()), &[]), 1299 * SECOND);
        assert!(suspected(&xids));
        xids.note(&round(Some(well()), &[]), 1300 * SECOND);
        assert!(!suspected(&xids));
    }

    #[test]
    fn a_driver_that_was_loaded_anew_has_reset_its_devices() {
        let mut xids = Xids::new(IGNORED_XIDS);
        xids.note(&round(Some(HealthReading::default()), &[(119, None)]), 0);
        xids.driver_was_away();
        xids.note(&round(Some(HealthReading::default()), &[]), 1);
        assert!(!suspected(&xids));
    }

    #[test]
    fn an_xid_of_one_instance_is_its_own_and_one_of_the_parent_is_everyones() {
        let mut xids = Xids::new(IGNORED_XIDS);
        xids.note(&round(Some(well()), &[(94, Some(7))]), 0);
        let of = |xids: &Xids, id| {
            let parent = device(well());
            xids.of_instance(&parent, &xids.of_device(&parent), Some(id))
        };
        assert_eq!((of(&xids, 7), of(&xids, 8)), (vec![Unhealthy::Xid], vec![]));
        xids.note(&round(Some(well()), &[(79, None)]), 0);
        assert_eq!((of(&xids, 7), of(&xids, 8)), (vec![Unhealthy::Xid], vec![Unhealthy::Xid]));
    }

    #[test]
    fn counted_codes_have_a_bound() {
        let mut xids = Xids::new(0..1000);
        let events: Vec<_> = (0..1000).map(|xid| (xid, None)).collect();
        xids.note(&round(Some(well()), &events), 0);
        xids.note(&round(Some(well()), &[(5, None)]), 0);
        assert_eq!((xids.counts("g").len(), xids.counts("g")[5]), (CODES_AT_MOST, (5, 2)));
    }
}
