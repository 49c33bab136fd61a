//! Processes on a device, their memory and their share of its time.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nv;

use super::device::{SAMPLES_PER_S, percent, sample_us, unpartitioned};
use super::{device_call, put_list};
use crate::library::{Code, Handle, View};
use crate::scenario::{Device, List, Process};

/// NVML's value for a missing instance or a missing value.
const NO_INSTANCE: u32 = u32::MAX;
const NOT_AVAILABLE: u64 = u64::MAX;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    raw: nv::nvmlDevice_t,
    count: *mut c_uint,
    out: *mut nv::nvmlProcessInfo_t,
) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides a count and room for that many.
    unsafe { listed("nvmlDeviceGetComputeRunningProcesses_v3", List::Compute, raw, count, out) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    raw: nv::nvmlDevice_t,
    count: *mut c_uint,
    out: *mut nv::nvmlProcessInfo_t,
) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides a count and room for that many.
    unsafe { listed("nvmlDeviceGetGraphicsRunningProcesses_v3", List::Graphics, raw, count, out) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
    raw: nv::nvmlDevice_t,
    count: *mut c_uint,
    out: *mut nv::nvmlProcessInfo_t,
) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides a count and room for that many.
    unsafe { listed("nvmlDeviceGetMPSComputeRunningProcesses_v3", List::Mps, raw, count, out) }
}

/// # Safety
///
/// There is room for as many structs as `count` says.
unsafe fn listed(
    name: &'static str,
    list: List,
    raw: nv::nvmlDevice_t,
    count: *mut c_uint,
    out: *mut nv::nvmlProcessInfo_t,
) -> nv::nvmlReturn_t {
    device_call(name, raw, |view, handle, device| {
        let of_list = processes(view, handle, device)?.into_iter().filter(|process| process.lists.contains(&list));
        let of_list = of_list.map(|process| nv::nvmlProcessInfo_t {
            pid: process.pid,
            usedGpuMemory: process.memory_bytes.unwrap_or(NOT_AVAILABLE),
            gpuInstanceId: process.gpu_instance.unwrap_or(NO_INSTANCE),
            computeInstanceId: process.compute_instance.unwrap_or(NO_INSTANCE),
        });
        // SAFETY: guaranteed by the caller.
        unsafe { put_list(out, count, of_list.collect()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    raw: nv::nvmlDevice_t,
    out: *mut nv::nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    last_seen_us: c_ulonglong,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetProcessUtilization", raw, |view, handle, device| {
        unpartitioned(handle, device)?;
        let newest = (view.elapsed_s * SAMPLES_PER_S) as u64;
        let samples: Vec<_> = device
            .processes
            .iter()
            .filter_map(|process| {
                let level = process.utilization.as_ref()?;
                Some(nv::nvmlProcessUtilizationSample_t {
                    pid: process.pid,
                    timeStamp: sample_us(newest),
                    smUtil: percent(level, newest as f64 / SAMPLES_PER_S),
                    memUtil: 0,
                    encUtil: 0,
                    decUtil: 0,
                })
            })
            .filter(|sample| sample.timeStamp > last_seen_us)
            .collect();
        if samples.is_empty() {
            return Err(Code::NOT_FOUND);
        }
        // SAFETY: the caller provides a count and as much room as it says.
        unsafe { put_list(out, count, samples) }
    })
}

/// For an instance, the processes that run in it.
fn processes<'view>(view: &View, handle: Handle, device: &'view Device) -> Result<Vec<&'view Process>, Code> {
    if !handle.is_instance() {
        return Ok(device.processes.iter().collect());
    }
    let instance = view.instance(handle)?;
    let here = |process: &&Process| {
        process.gpu_instance == Some(instance.gpu_instance)
            && process.compute_instance.is_none_or(|id| id == instance.compute_instance)
    };
    Ok(device.processes.iter().filter(here).collect())
}
