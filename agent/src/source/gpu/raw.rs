//! NVML calls that nvml-wrapper lacks, or for which it calls twice and allocates each time. It contains all `unsafe`
//! code of the GPU source.

use std::mem;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, EventSet};
use nvml_wrapper_sys::bindings as nv;

use super::reading::{FabricReading, ProcessReading};

/// How often a list is read again because it grew between the call that returns its length and the next one.
const ATTEMPTS: usize = 3;

/// No device has more processes; a larger number is wrong, and no memory is allocated for it.
const LIST_AT_MOST: u32 = 65_536;

/// The calls that return a device's state in the NVLink fabric, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FabricCall {
    /// The third version of the struct: new drivers only.
    Third,
    /// The second version of the struct, the first with the health: drivers since 535.
    Second,
    /// The function without a version and without the health.
    First,
}

impl FabricCall {
    /// The call for drivers that do not support this one. `None` if there is none.
    pub(super) fn older(self) -> Option<Self> {
        match self {
            Self::Third => Some(Self::Second),
            Self::Second => Some(Self::First),
            Self::First => None,
        }
    }
}

/// NVML's lists of the processes on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessList {
    /// Those that compute.
    Compute,
    /// Those that draw.
    Graphics,
    /// Clients of MPS, which computes for them.
    Mps,
}

impl ProcessList {
    pub(super) const ALL: [Self; 3] = [Self::Compute, Self::Graphics, Self::Mps];
}

/// Whether the driver lacks the function, or supports only other versions of its struct.
pub(super) fn is_unknown_to_driver(error: &NvmlError) -> bool {
    // nvml-wrapper has no name for that code.
    const VERSION_MISMATCH: u32 = nv::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    matches!(
        error,
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound | NvmlError::UnexpectedVariant(VERSION_MISMATCH)
    )
}

/// Buffers that are kept between calls, so that each list takes one call and no allocation while nothing changes.
#[derive(Default)]
pub(super) struct Room {
    processes: Vec<nv::nvmlProcessInfo_t>,
    shares: Vec<nv::nvmlProcessUtilizationSample_t>,
    samples: Vec<nv::nvmlSample_t>,
}

/// An Xid event as NVML delivers it.
pub(super) struct RawEvent<'nvml> {
    pub(super) device: Device<'nvml>,
    pub(super) xid: Option<u64>,
    pub(super) gpu_instance: Option<u32>,
}

impl Room {
    /// The processes of one list of a device, in MIG mode of all its instances. Also returns the number of calls.
    pub(super) fn processes(
        &mut self,
        device: &Device<'_>,
        which: ProcessList,
    ) -> (u32, Result<Vec<ProcessReading>, NvmlError>) {
        let library = device.nvml().lib();
        let call = match which {
            ProcessList::Compute => nvml_sym(library.nvmlDeviceGetComputeRunningProcesses_v3.as_ref()),
            ProcessList::Graphics => nvml_sym(library.nvmlDeviceGetGraphicsRunningProcesses_v3.as_ref()),
            ProcessList::Mps => nvml_sym(library.nvmlDeviceGetMPSComputeRunningProcesses_v3.as_ref()),
        };
        let call = match call {
            Ok(call) => *call,
            Err(error) => return (0, Err(error)),
        };
        // SAFETY: plain numbers.
        let zero = unsafe { mem::zeroed() };
        let (calls, listed) = list(&mut self.processes, 64, zero, |count, room| {
            // SAFETY: the handle is the device's own; `count` is the number of structs that fit.
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

    /// Fraction of the device's time by process, from each process's newest sample after `last_seen_us`, which is
    /// updated.
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
            // SAFETY: the handle is the device's own; `count` is the number of structs that fit.
            unsafe { call(device.handle(), room, count, since) }
        });
        let count = match listed {
            // There are no new samples.
            Err(NvmlError::NotFound) => 0,
            Err(error) => return (calls, Err(error)),
            Ok(count) => count,
        };
        let mut newest: Vec<(u32, u64, u32)> = Vec::new();
        // Entries with a timestamp or pid of 0 were not filled by the driver.
        for sample in self.shares[..count].iter().filter(|s| s.timeStamp > since && s.pid != 0 && s.smUtil <= 100) {
            *last_seen_us = (*last_seen_us).max(sample.timeStamp);
            newest.push((sample.pid, sample.timeStamp, sample.smUtil));
        }
        newest.sort_unstable_by_key(|(pid, at, _)| (*pid, std::cmp::Reverse(*at)));
        newest.dedup_by_key(|(pid, _, _)| *pid);
        (calls, Ok(newest.into_iter().map(|(pid, _, percent)| (pid, f64::from(percent) / 100.0)).collect()))
    }

    /// Mean utilisation of the samples after `last_seen_us`, which is updated. `None` if there are none.
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
            // SAFETY: the handle is the device's own; `count` is the number of structs that fit.
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
            // SAFETY: the driver returned that the values are unsigned ints, for which all bits are valid.
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

/// A device's state in the NVLink fabric.
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
    // SAFETY: the handle is the device's own; the version determines which part of the struct may be written.
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

/// Whether the number of uncorrectable errors of a device's SRAM exceeded the threshold.
pub(super) fn sram_threshold_exceeded(device: &Device<'_>) -> Result<bool, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetSramEccErrorStatus.as_ref())?;
    // SAFETY: plain numbers.
    let mut status: nv::nvmlEccSramErrorStatus_v1_t = unsafe { mem::zeroed() };
    // The only version so far.
    status.version = size_of::<nv::nvmlEccSramErrorStatus_v1_t>() as u32 | 1 << 24;
    // SAFETY: the handle is the device's own; the version determines the size of the struct.
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

/// The next event of a set, with a time limit. nvml-wrapper's own function leaves out the instance.
pub(super) fn wait<'nvml>(set: &EventSet<'nvml>, timeout_ms: u32) -> Result<RawEvent<'nvml>, NvmlError> {
    let call = nvml_sym(set.nvml.lib().nvmlEventSetWait_v2.as_ref())?;
    // SAFETY: plain numbers and a handle that is only used after NVML has set it.
    let mut event: nv::nvmlEventData_t = unsafe { mem::zeroed() };
    // SAFETY: the set is alive; there is room for one event.
    unsafe { nvml_try(call(set.handle(), &raw mut event, timeout_ms))? };
    let is_xid = event.eventType & u64::from(nv::nvmlEventTypeXidCriticalError) != 0;
    Ok(RawEvent {
        // SAFETY: NVML set the handle of a device that was registered with this set.
        device: unsafe { Device::new(event.device, set.nvml) },
        xid: is_xid.then_some(event.eventData),
        gpu_instance: (event.gpuInstanceId != u32::MAX).then_some(event.gpuInstanceId),
    })
}

/// Registers a device's Xid events with a set. nvml-wrapper's own function consumes the whole set if one device fails.
pub(super) fn register_xids(device: &Device<'_>, set: &EventSet<'_>) -> Result<(), NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceRegisterEvents.as_ref())?;
    // SAFETY: both handles are alive.
    unsafe { nvml_try(call(device.handle(), nv::nvmlEventTypeXidCriticalError.into(), set.handle())) }
}

/// Whether two handles are of the same device.
pub(super) fn same(a: &Device<'_>, b: &Device<'_>) -> bool {
    // SAFETY: the handles are only compared.
    unsafe { a.handle() == b.handle() }
}

/// Reads a list into the buffer, and again with a larger one if needed. Returns the number of calls and of entries.
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
                // Half as much again, because processes come in bursts.
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
                // SAFETY: `list` passes a pointer to its own variable.
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
