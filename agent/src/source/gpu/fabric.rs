//! Derives from a device's state in the NVLink fabric why it should not be used, and its warnings. It makes no calls.

use nvml_wrapper_sys::bindings as nv;

use super::reading::FabricReading;
use crate::sample::gpu::{Unhealthy, Warning};

/// A condition of the health mask that is either true or false, and its position in the mask. NVML's header calls the
/// width of a condition a mask, too: it is applied after shifting.
struct Condition {
    shift: u32,
    mask: u32,
}

/// `NVML_GPU_FABRIC_HEALTH_MASK_*_TRUE` has the same value for every such condition; 0 is "not supported", and 2 is
/// "false".
const TRUE: u32 = 1;

const DEGRADED_BANDWIDTH: Condition = Condition {
    shift: nv::NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_DEGRADED_BW,
    mask: nv::NVML_GPU_FABRIC_HEALTH_MASK_WIDTH_DEGRADED_BW,
};
const ROUTE_RECOVERY: Condition = Condition {
    shift: nv::NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_ROUTE_RECOVERY,
    mask: nv::NVML_GPU_FABRIC_HEALTH_MASK_WIDTH_ROUTE_RECOVERY,
};
const ROUTE_UNHEALTHY: Condition = Condition {
    shift: nv::NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_ROUTE_UNHEALTHY,
    mask: nv::NVML_GPU_FABRIC_HEALTH_MASK_WIDTH_ROUTE_UNHEALTHY,
};
const ACCESS_TIMEOUT: Condition = Condition {
    shift: nv::NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_ACCESS_TIMEOUT_RECOVERY,
    mask: nv::NVML_GPU_FABRIC_HEALTH_MASK_WIDTH_ACCESS_TIMEOUT_RECOVERY,
};

/// The faults of the configuration, of which at most one is reported at a time.
const CONFIGURATION: Condition = Condition {
    shift: nv::NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_INCORRECT_CONFIGURATION,
    mask: nv::NVML_GPU_FABRIC_HEALTH_MASK_WIDTH_INCORRECT_CONFIGURATION,
};

impl FabricReading {
    /// Why the device should not be used.
    pub(super) fn unhealthy(&self) -> impl Iterator<Item = Unhealthy> {
        let of_state = match u32::from(self.state) {
            nv::NVML_GPU_FABRIC_STATE_NOT_STARTED | nv::NVML_GPU_FABRIC_STATE_IN_PROGRESS => {
                Some(Unhealthy::FabricNotReady)
            }
            // In other states the status has no meaning.
            nv::NVML_GPU_FABRIC_STATE_COMPLETED if self.status != nv::nvmlReturn_enum_NVML_SUCCESS => {
                Some(Unhealthy::FabricFailed)
            }
            _ => None,
        };
        let of_configuration = match self.of_mask(&CONFIGURATION) {
            None
            | Some(
                nv::NVML_GPU_FABRIC_HEALTH_MASK_INCORRECT_CONFIGURATION_NOT_SUPPORTED
                | nv::NVML_GPU_FABRIC_HEALTH_MASK_INCORRECT_CONFIGURATION_NONE,
            ) => None,
            Some(nv::NVML_GPU_FABRIC_HEALTH_MASK_INCORRECT_CONFIGURATION_NO_PARTITION) => {
                Some(Unhealthy::FabricNoPartition)
            }
            // Wrong serial numbers, too few NVLinks, and what newer drivers add.
            Some(_) => Some(Unhealthy::FabricMisconfigured),
        };
        let has = |condition, reason| self.holds(condition).then_some(reason);
        let route = has(&ROUTE_UNHEALTHY, Unhealthy::FabricRouteUnhealthy);
        let timeout = has(&ACCESS_TIMEOUT, Unhealthy::FabricAccessTimeout);
        [of_state, route, timeout, of_configuration].into_iter().flatten()
    }

    /// Problems of a device that works nevertheless.
    pub(super) fn warnings(&self) -> impl Iterator<Item = Warning> {
        let has = |condition, warning| self.holds(condition).then_some(warning);
        let bandwidth = has(&DEGRADED_BANDWIDTH, Warning::FabricDegradedBandwidth);
        // Traffic is only delayed; a route that can't be recovered is reported as unhealthy.
        let recovery = has(&ROUTE_RECOVERY, Warning::FabricRouteRecovery);
        [bandwidth, recovery].into_iter().flatten()
    }

    fn holds(&self, condition: &Condition) -> bool {
        self.of_mask(condition) == Some(TRUE)
    }

    /// A device that is in no fabric has no health there, whatever the bits are.
    fn of_mask(&self, condition: &Condition) -> Option<u32> {
        let is_known = u32::from(self.state) != nv::NVML_GPU_FABRIC_STATE_NOT_SUPPORTED;
        self.health_mask.filter(|_| is_known).map(|mask| mask >> condition.shift & condition.mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETED: FabricReading = FabricReading { state: 3, status: 0, health_mask: None };
    /// Everything is known and nothing is wrong: each of the four conditions is 2, and the configuration is 1.
    const WELL: u32 = 0x1aa;

    #[track_caller]
    fn check(reading: FabricReading, unhealthy: &[Unhealthy], warnings: &[Warning]) {
        assert_eq!(reading.unhealthy().collect::<Vec<_>>(), unhealthy, "{reading:x?}");
        assert_eq!(reading.warnings().collect::<Vec<_>>(), warnings, "{reading:x?}");
    }

    fn with_mask(mask: u32) -> FabricReading {
        FabricReading { health_mask: Some(mask), ..COMPLETED }
    }

    #[test]
    fn a_status_counts_once_the_state_is_completed_and_not_before() {
        let with = |state, status| FabricReading { state, status, health_mask: Some(0) };
        check(with(3, 0), &[], &[]);
        check(with(3, 999), &[Unhealthy::FabricFailed], &[]);
        check(with(3, 1), &[Unhealthy::FabricFailed], &[]);
        for state in [1, 2] {
            check(with(state, 999), &[Unhealthy::FabricNotReady], &[]);
        }
        // Not in a fabric, and an unknown state.
        for state in [0, 4] {
            check(with(state, 999), &[], &[]);
        }
    }

    #[test]
    fn each_condition_of_the_mask_has_its_own_reason_and_only_where_it_holds() {
        check(COMPLETED, &[], &[]);
        check(with_mask(0), &[], &[]);
        check(with_mask(WELL), &[], &[]);
        check(with_mask(0x1a9), &[], &[Warning::FabricDegradedBandwidth]);
        check(with_mask(0x1a6), &[], &[Warning::FabricRouteRecovery]);
        check(with_mask(0x19a), &[Unhealthy::FabricRouteUnhealthy], &[]);
        check(with_mask(0x16a), &[Unhealthy::FabricAccessTimeout], &[]);
        check(with_mask(0x4aa), &[Unhealthy::FabricNoPartition], &[]);
        // Serial numbers of the system and the chassis, too few NVLinks, firmware, location, and an unknown fault.
        for fault in [2, 3, 5, 6, 7, 15] {
            check(with_mask(fault << 8 | 0xaa), &[Unhealthy::FabricMisconfigured], &[]);
        }
        // Higher bits belong to later drivers.
        check(with_mask(0xffff_f000 | WELL), &[], &[]);
    }

    #[test]
    fn all_that_is_wrong_at_once_is_said() {
        let all = FabricReading { status: 999, ..with_mask(0x455) };
        let unhealthy = [
            Unhealthy::FabricFailed,
            Unhealthy::FabricRouteUnhealthy,
            Unhealthy::FabricAccessTimeout,
            Unhealthy::FabricNoPartition,
        ];
        check(all, &unhealthy, &[Warning::FabricDegradedBandwidth, Warning::FabricRouteRecovery]);
    }

    #[test]
    fn a_device_that_is_in_no_fabric_has_no_health_in_it() {
        check(FabricReading { state: 0, ..with_mask(0x455) }, &[], &[]);
    }
}
