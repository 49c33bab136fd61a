//! MIG: a device's mode, its instances and their properties.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as nv;

use super::device::whole;
use super::{Outcome, device_call, put};
use crate::library::{Code, Handle, View};
use crate::scenario::{Device, MigInstance};

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigMode(
    raw: nv::nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetMigMode", raw, |_, handle, device| {
        whole(handle)?;
        capable(device)?;
        let mode = if device.mig.is_some() { nv::NVML_DEVICE_MIG_ENABLE } else { nv::NVML_DEVICE_MIG_DISABLE };
        // SAFETY: the caller provides room for two numbers.
        unsafe { put(current, mode).and_then(|()| put(pending, mode)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(raw: nv::nvmlDevice_t, count: *mut c_uint) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetMaxMigDeviceCount", raw, |view, handle, device| {
        whole(handle)?;
        // SAFETY: the caller provides room for one number.
        unsafe { put(count, view.returned("nvmlDeviceGetMaxMigDeviceCount", device.model().mig_slices)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    raw: nv::nvmlDevice_t,
    index: c_uint,
    out: *mut nv::nvmlDevice_t,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetMigDeviceHandleByIndex", raw, |_, handle, device| {
        whole(handle)?;
        capable(device)?;
        if index >= device.model().mig_slices {
            return Err(Code::INVALID_ARGUMENT);
        }
        let instance = device.mig.as_ref().and_then(|all| all.get(index as usize)).ok_or(Code::NOT_FOUND)?;
        // SAFETY: the caller provides room for one handle.
        unsafe { put(out, handle.instance(instance).to_raw()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceIsMigDeviceHandle(raw: nv::nvmlDevice_t, out: *mut c_uint) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides room for one number.
    device_call("nvmlDeviceIsMigDeviceHandle", raw, |_, handle, _| unsafe {
        put(out, c_uint::from(handle.is_instance()))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    raw: nv::nvmlDevice_t,
    out: *mut nv::nvmlDevice_t,
) -> nv::nvmlReturn_t {
    instance_call("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", raw, |_, handle, _, _| {
        // SAFETY: the caller provides room for one handle.
        unsafe { put(out, handle.parent().to_raw()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(raw: nv::nvmlDevice_t, out: *mut c_uint) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides room for one number.
    instance_call("nvmlDeviceGetGpuInstanceId", raw, |_, _, _, instance| unsafe { put(out, instance.gpu_instance) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeInstanceId(raw: nv::nvmlDevice_t, out: *mut c_uint) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides room for one number.
    instance_call("nvmlDeviceGetComputeInstanceId", raw, |_, _, _, instance| unsafe {
        put(out, instance.compute_instance)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetAttributes_v2(
    raw: nv::nvmlDevice_t,
    out: *mut nv::nvmlDeviceAttributes_t,
) -> nv::nvmlReturn_t {
    instance_call("nvmlDeviceGetAttributes_v2", raw, |_, _, device, instance| {
        let model = device.model();
        let attributes = nv::nvmlDeviceAttributes_t {
            multiprocessorCount: model.multiprocessors / model.mig_slices.max(1) * instance.compute_slices(),
            sharedCopyEngineCount: instance.slices(),
            sharedDecoderCount: instance.slices(),
            sharedEncoderCount: 0,
            sharedJpegCount: instance.slices(),
            sharedOfaCount: 0,
            gpuInstanceSliceCount: instance.slices(),
            computeInstanceSliceCount: instance.compute_slices(),
            memorySizeMB: instance.memory_total_bytes(model) >> 20,
        };
        // SAFETY: the caller provides room for one struct.
        unsafe { put(out, attributes) }
    })
}

/// A call that only instances support.
fn instance_call(
    name: &str,
    raw: nv::nvmlDevice_t,
    answer: impl FnOnce(&View, Handle, &Device, &MigInstance) -> Outcome,
) -> nv::nvmlReturn_t {
    device_call(name, raw, |view, handle, device| answer(view, handle, device, view.instance(handle)?))
}

fn capable(device: &Device) -> Outcome {
    if device.model().mig_slices == 0 { Err(Code::NOT_SUPPORTED) } else { Ok(()) }
}
