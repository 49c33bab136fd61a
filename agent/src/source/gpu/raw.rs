//! NVML calls that nvml-wrapper lacks, or for which it calls twice and allocates each time. All `unsafe` of the GPU
//! source is here.

use std::mem;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, EventSet};
use nvml_wrapper_sys::bindings as nv;

use super::reading::{FabricReading, ProcessReading};

/// How often a list is asked for again because it grew between the answer "so many" and the next call.
const ATTEMPTS: usize = 3;

/// More than any device has processes; what says more is not to be believed, and not to be allocated for.
const LIST_AT_MOST: u32 = 65_536;

/// How a driver is asked for a device's place in the NVLink fabric, the newest way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FabricCall {
    /// The struct's third version: new drivers alone.
    Third,
    /// The struct's second version, the first with the health: drivers from 535 on.
    Second,
    /// The function without a version, and without the health.
    First,
}

impl FabricCall {
    /// The way to ask a driver that does not know this one. Absent: there is none.
    pub(super) fn older(self) -> Option<Self> {
        match self {
            Self::Third => Some(Self::Second),
            Self::Second => Some(Self::First),
            Self::First => None,
        }
    }
}

/// Whether the driver lacks the function, or knows only other versions of its struct.
pub(super) fn is_unknown_to_driver(error: &NvmlError) -> bool {
    // nvml-wrapper has no name for that code.
    const VERSION_MISMATCH: u32 = nv::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    matches!(
        error,
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound | NvmlError::UnexpectedVariant(VERSION_MISMATCH)
    )
}

/// Room that is kept from call to call, so that a steady node costs one call a list and no allocation.
#[derive(Default)]
pub(super) struct Room {
    processes: Vec<nv::nvmlProcessInfo_t>,
    shares: Vec<nv::nvmlProcessUtilizationSample_t>,
    samples: Vec<nv::nvmlSample_t>,
}

/// One Xid as NVML delivers it.
pub(super) struct RawEvent<'nvml> {
    pub(super) device: Device<'nvml>,
    pub(super) xid: Option<u64>,
    pub(super) gpu_instance: Option<u32>,
}

impl Room {
    /// Processes that compute on a device, in MIG mode on all its instances. Also says how many calls it took.
    pub(super) fn processes(&mut self, device: &Device<'_>) -> (u32, Result<Vec<ProcessReading>, NvmlError>) {
        let call = match nvml_sym(device.nvml().lib().nvmlDeviceGetComputeRunningProcesses_v3.as_ref()) {
            Ok(call) => *call,
            Err(error) => return (0, Err(error)),
        };
        // SAFETY: plain numbers.
        let zero = unsafe { mem::zeroed() };
        let (calls, listed) = list(&mut self.processes, 64, zero, |count, room| {
            // SAFETY: the handle is the device's own; `count` says how many structs there is room for.
            unsafe { call(device.handle(), count, room) }
        });
        let known = |id: u32| (id != u32::MAX).then_some(id);
        let reading = |process: &nv::nvmlProcessInfo_t| ProcessReading {
            pid: process.pid,
            memory_bytes: (process.usedGpuMemory != u64::MAX).then_some(process.usedGpuMemory),
            gpu_instance: known(process.gpuInstanceId),
            compute_instance: known(process.computeInstanceId),
        };
        (calls, listed.map(|count| self.processes[..count].iter().map(reading).collect()))
    }

    /// Share of the device's time by process, newest sample each, of those after `last_seen_us`, which moves on.
    pub(super) fn process_ratios(
        &mut self,
        device: &Device<'_>,
        last_seen_us: &mut u64,
    ) -> (u32, Result<Vec<(u32, f64)>, NvmlError>) {
        let call = match nvml_sym(device.nvml().lib().nvmlDeviceGetProcessUtilization.as_ref()) {
            Ok(call) => *call,
            Err(error) => return (0, Err(error)),
        };
        // SAFETY: plain numbers.
        let zero = unsafe { mem::zeroed() };
        let since = *last_seen_us;
        let (calls, listed) = list(&mut self.shares, 64, zero, |count, room| {
            // SAFETY: the handle is the device's own; `count` says how many structs there is room for.
            unsafe { call(device.handle(), room, count, since) }
        });
        let count = match listed {
            // Nothing new.
            Err(NvmlError::NotFound) => 0,
            Err(error) => return (calls, Err(error)),
            Ok(count) => count,
        };
        let mut newest: Vec<(u32, u64, u32)> = Vec::new();
        // Stamps of 0 and pids of 0 are slots that the driver did not fill.
        for sample in self.shares[..count].iter().filter(|s| s.timeStamp > since && s.pid != 0 && s.smUtil <= 100) {
            *last_seen_us = (*last_seen_us).max(sample.timeStamp);
            newest.push((sample.pid, sample.timeStamp, sample.smUtil));
        }
        newest.sort_unstable_by_key(|(pid, at, _)| (*pid, std::cmp::Reverse(*at)));
        newest.dedup_by_key(|(pid, _, _)| *pid);
        (calls, Ok(newest.into_iter().map(|(pid, _, percent)| (pid, f64::from(percent) / 100.0)).collect()))
    }

    /// Mean utilisation of the samples after `last_seen_us`, which moves on; absent when there is none.
    pub(super) fn mean_ratio(
        &mut self,
        device: &Device<'_>,
        last_seen_us: &mut u64,
    ) -> (u32, Result<Option<f64>, NvmlError>) {
        let call = match nvml_sym(device.nvml().lib().nvmlDeviceGetSamples.as_ref()) {
            Ok(call) => *call,
            Err(error) => return (0, Err(error)),
        };
        let kind = nv::nvmlSamplingType_enum_NVML_GPU_UTILIZATION_SAMPLES;
        let since = *last_seen_us;
        let mut value_type = nv::nvmlValueType_enum_NVML_VALUE_TYPE_COUNT;
        let zero = nv::nvmlSample_t { timeStamp: 0, sampleValue: nv::nvmlValue_t { ullVal: 0 } };
        let (calls, listed) = list(&mut self.samples, 128, zero, |count, room| {
            // SAFETY: the handle is the device's own; `count` says how many structs there is room for.
            unsafe { call(device.handle(), kind, since, &raw mut value_type, count, room) }
        });
        let count = match listed {
            Err(NvmlError::NotFound) => return (calls, Ok(None)),
            Err(error) => return (calls, Err(error)),
            Ok(count) => count,
        };
        if value_type != nv::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT {
            return (calls, Err(NvmlError::NotSupported));
        }
        let (mut sum, mut seen) = (0_u64, 0_u64);
        for sample in self.samples[..count].iter().filter(|sample| sample.timeStamp > since) {
            *last_seen_us = (*last_seen_us).max(sample.timeStamp);
            // SAFETY: the driver said that the values are unsigned ints, and any bits are one.
            let percent = unsafe { sample.sampleValue.uiVal };
            if percent <= 100 {
                sum += u64::from(percent);
                seen += 1;
            }
        }
        (calls, Ok((seen > 0).then(|| sum as f64 / (seen * 100) as f64)))
    }
}

/// GPU instance id of a MIG instance.
pub(super) fn gpu_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut id = 0;
    // SAFETY: the handle is the device's own; there is room for one number.
    unsafe { nvml_try(call(device.handle(), &raw mut id))? };
    Ok(id)
}

/// Compute instance id of a MIG instance.
pub(super) fn compute_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetComputeInstanceId.as_ref())?;
    let mut id = 0;
    // SAFETY: the handle is the device's own; there is room for one number.
    unsafe { nvml_try(call(device.handle(), &raw mut id))? };
    Ok(id)
}

/// A device's place in the NVLink fabric.
pub(super) fn fabric(device: &Device<'_>, ask: FabricCall) -> Result<FabricReading, NvmlError> {
    let version = match ask {
        FabricCall::Third => size_of::<nv::nvmlGpuFabricInfo_v3_t>() as u32 | 3 << 24,
        FabricCall::Second => size_of::<nv::nvmlGpuFabricInfo_v2_t>() as u32 | 2 << 24,
        FabricCall::First => return first_fabric(device),
    };
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    // The third version begins with the fields of the second, so its struct has room for either.
    // SAFETY: plain numbers.
    let mut info: nv::nvmlGpuFabricInfoV_t = unsafe { mem::zeroed() };
    info.version = version;
    // SAFETY: the handle is the device's own; the version says which part of the struct may be written.
    unsafe { nvml_try(call(device.handle(), &raw mut info))? };
    Ok(FabricReading { state: info.state, status: info.status, health_mask: Some(info.healthMask) })
}

fn first_fabric(device: &Device<'_>) -> Result<FabricReading, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuFabricInfo.as_ref())?;
    // SAFETY: plain numbers.
    let mut info: nv::nvmlGpuFabricInfo_t = unsafe { mem::zeroed() };
    // SAFETY: the handle is the device's own; there is room for one struct, which has no versions.
    unsafe { nvml_try(call(device.handle(), &raw mut info))? };
    Ok(FabricReading { state: info.state, status: info.status, health_mask: None })
}

/// Whether a device has had more uncorrectable errors of its SRAM than it should.
pub(super) fn sram_threshold_exceeded(device: &Device<'_>) -> Result<bool, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetSramEccErrorStatus.as_ref())?;
    // SAFETY: plain numbers.
    let mut status: nv::nvmlEccSramErrorStatus_v1_t = unsafe { mem::zeroed() };
    // The only version that there is.
    status.version = size_of::<nv::nvmlEccSramErrorStatus_v1_t>() as u32 | 1 << 24;
    // SAFETY: the handle is the device's own; the version says how large the struct is.
    unsafe { nvml_try(call(device.handle(), &raw mut status))? };
    Ok(status.bThresholdExceeded != 0)
}

/// Whether an NVLink of a device is in use.
pub(super) fn nvlink_is_active(device: &Device<'_>, link: u32) -> Result<bool, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetNvLinkState.as_ref())?;
    let mut state = nv::nvmlEnableState_enum_NVML_FEATURE_DISABLED;
    // SAFETY: the handle is the device's own; there is room for one number.
    unsafe { nvml_try(call(device.handle(), link, &raw mut state))? };
    Ok(state == nv::nvmlEnableState_enum_NVML_FEATURE_ENABLED)
}

/// Errors of one kind, `NVML_NVLINK_ERROR_*`, of one NVLink.
pub(super) fn nvlink_errors(device: &Device<'_>, link: u32, kind: u32) -> Result<u64, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetNvLinkErrorCounter.as_ref())?;
    let mut count = 0;
    // SAFETY: the handle is the device's own; there is room for one number.
    unsafe { nvml_try(call(device.handle(), link, kind, &raw mut count))? };
    Ok(count)
}

/// The next event of a set, waiting this long for it. nvml-wrapper's own leaves out the instance.
pub(super) fn wait<'nvml>(set: &EventSet<'nvml>, timeout_ms: u32) -> Result<RawEvent<'nvml>, NvmlError> {
    let call = nvml_sym(set.nvml.lib().nvmlEventSetWait_v2.as_ref())?;
    // SAFETY: plain numbers and a handle that is only used once NVML has filled it in.
    let mut event: nv::nvmlEventData_t = unsafe { mem::zeroed() };
    // SAFETY: the set is alive; there is room for one event.
    unsafe { nvml_try(call(set.handle(), &raw mut event, timeout_ms))? };
    let is_xid = event.eventType & u64::from(nv::nvmlEventTypeXidCriticalError) != 0;
    Ok(RawEvent {
        // SAFETY: NVML filled in the handle of a device that was registered with this set.
        device: unsafe { Device::new(event.device, set.nvml) },
        xid: is_xid.then_some(event.eventData),
        gpu_instance: (event.gpuInstanceId != u32::MAX).then_some(event.gpuInstanceId),
    })
}

/// Registers a device's Xid events with a set. nvml-wrapper's own takes the whole set away when one device fails.
pub(super) fn register_xids(device: &Device<'_>, set: &EventSet<'_>) -> Result<(), NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceRegisterEvents.as_ref())?;
    // SAFETY: both handles are alive.
    unsafe { nvml_try(call(device.handle(), nv::nvmlEventTypeXidCriticalError.into(), set.handle())) }
}

/// Two handles of the same device.
pub(super) fn same(a: &Device<'_>, b: &Device<'_>) -> bool {
    // SAFETY: the handles are only compared.
    unsafe { a.handle() == b.handle() }
}

/// Asks for a list with the room there is, and again with as much as is needed. How many calls, and how many entries.
fn list<T: Copy>(
    room: &mut Vec<T>,
    at_first: usize,
    zero: T,
    mut call: impl FnMut(*mut u32, *mut T) -> nv::nvmlReturn_t,
) -> (u32, Result<usize, NvmlError>) {
    if room.is_empty() {
        room.resize(at_first, zero);
    }
    for attempt in 1..=ATTEMPTS {
        let mut count = room.len() as u32;
        match call(&raw mut count, room.as_mut_ptr()) {
            nv::nvmlReturn_enum_NVML_SUCCESS => return (attempt as u32, Ok((count as usize).min(room.len()))),
            nv::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE
                if count as usize > room.len() && count <= LIST_AT_MOST =>
            {
                // Half as much again: processes come in bursts.
                room.resize(count as usize + count as usize / 2, zero);
            }
            other => return (attempt as u32, Err(other.into())),
        }
    }
    (ATTEMPTS as u32, Err(NvmlError::InsufficientSize(None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_grows_as_far_as_it_may_and_no_further() {
        let ask = |entries: u32| {
            let mut room = Vec::new();
            let asked = list(&mut room, 4, 0_u8, |count, _| {
                // SAFETY: `list` hands out a number of its own.
                let count = unsafe { &mut *count };
                let fits = *count >= entries;
                *count = entries;
                if fits { nv::nvmlReturn_enum_NVML_SUCCESS } else { nv::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE }
            });
            (asked.0, asked.1.ok(), room.len() as u32)
        };
        assert_eq!(ask(4), (1, Some(4), 4));
        assert_eq!(ask(LIST_AT_MOST), (2, Some(LIST_AT_MOST as usize), LIST_AT_MOST + LIST_AT_MOST / 2));
        assert_eq!(ask(LIST_AT_MOST + 1), (1, None, 4), "nobody has as many processes");
    }
}
