//! Devices: found by index, UUID or bus id; their properties, memory and utilisation.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nv;

use super::{Outcome, buffer, device_call, put, put_list, put_text, struct_version, system_call};
use crate::library::{Code, Handle, View};
use crate::scenario::{Device, Level};

/// NVML takes six samples of utilisation a second and keeps this many.
pub(super) const SAMPLES_PER_S: f64 = 6.0;
const SAMPLES_KEPT: u64 = 100;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides room for one number.
    system_call("nvmlDeviceGetCount_v2", |view| unsafe {
        put(count, view.returned("nvmlDeviceGetCount_v2", view.count() as c_uint))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: *mut nv::nvmlDevice_t) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides room for one handle.
    system_call("nvmlDeviceGetHandleByIndex_v2", |view| unsafe { put(out, view.handle(index as usize)?.to_raw()) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, out: *mut nv::nvmlDevice_t) -> nv::nvmlReturn_t {
    system_call("nvmlDeviceGetHandleByUUID", |view| {
        // SAFETY: the caller provides a C string.
        let uuid = unsafe { text(uuid) }?;
        let handle = view.find(|device| device.uuid == uuid).or_else(|_| instance_by_uuid(view, uuid))?;
        // SAFETY: the caller provides room for one handle.
        unsafe { put(out, handle.to_raw()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(
    bus_id: *const c_char,
    out: *mut nv::nvmlDevice_t,
) -> nv::nvmlReturn_t {
    system_call("nvmlDeviceGetHandleByPciBusId_v2", |view| {
        // SAFETY: the caller provides a C string.
        let bus_id = unsafe { text(bus_id) }?;
        let handle = view.find(|device| device.bus_id.to_lowercase().ends_with(&bus_id.to_lowercase()))?;
        // SAFETY: the caller provides room for one handle.
        unsafe { put(out, handle.to_raw()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(raw: nv::nvmlDevice_t, out: *mut c_char, length: c_uint) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetName", raw, |view, handle, device| {
        let model = crate::model::by_name(&device.model).map_or(device.model.as_str(), |model| model.name);
        let name = match view.instance(handle) {
            Ok(instance) => format!("{model} MIG {}", instance.profile),
            Err(_) => model.to_owned(),
        };
        // SAFETY: the caller provides `length` bytes of room.
        unsafe { put_text(out, length, &name) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(raw: nv::nvmlDevice_t, out: *mut c_char, length: c_uint) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetUUID", raw, |view, handle, device| {
        let uuid = if handle.is_instance() { &view.instance(handle)?.uuid } else { &device.uuid };
        // SAFETY: the caller provides `length` bytes of room.
        unsafe { put_text(out, length, uuid) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSerial(raw: nv::nvmlDevice_t, out: *mut c_char, length: c_uint) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides `length` bytes of room.
    device_call("nvmlDeviceGetSerial", raw, |_, handle, _| unsafe {
        put_text(out, length, &format!("165{:010}", handle.index()))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetIndex(raw: nv::nvmlDevice_t, out: *mut c_uint) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides room for one number.
    device_call("nvmlDeviceGetIndex", raw, |_, handle, _| unsafe { put(out, handle.index()) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMinorNumber(raw: nv::nvmlDevice_t, out: *mut c_uint) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides room for one number.
    device_call("nvmlDeviceGetMinorNumber", raw, |_, handle, _| unsafe { put(out, handle.index()) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetBrand(raw: nv::nvmlDevice_t, out: *mut nv::nvmlBrandType_t) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides room for one number.
    device_call("nvmlDeviceGetBrand", raw, |_, _, _| unsafe { put(out, nv::nvmlBrandType_enum_NVML_BRAND_NVIDIA) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    raw: nv::nvmlDevice_t,
    major: *mut c_int,
    minor: *mut c_int,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetCudaComputeCapability", raw, |_, _, device| {
        let (of_major, of_minor) = device.model().compute_capability;
        // SAFETY: the caller provides room for two numbers.
        unsafe { put(major, of_major).and_then(|()| put(minor, of_minor)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(raw: nv::nvmlDevice_t, out: *mut nv::nvmlPciInfo_t) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetPciInfo_v3", raw, |_, handle, device| {
        whole(handle)?;
        let mut parts = device.bus_id.split([':', '.']).map(|part| u32::from_str_radix(part, 16).unwrap_or(0));
        let mut part = || parts.next().unwrap_or(0);
        let (domain, bus, slot) = (part(), part(), part());
        let info = nv::nvmlPciInfo_t {
            busIdLegacy: buffer(device.bus_id.strip_prefix("0000").unwrap_or(&device.bus_id)),
            domain,
            bus,
            device: slot,
            pciDeviceId: device.model().pci_device_id,
            pciSubSystemId: 0x16c1_10de,
            busId: buffer(&device.bus_id),
        };
        // SAFETY: the caller provides room for one struct.
        unsafe { put(out, info) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo(raw: nv::nvmlDevice_t, out: *mut nv::nvmlMemory_t) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetMemoryInfo", raw, |view, handle, device| {
        let (total, reserved, used) = memory(view, handle, device)?;
        // SAFETY: the caller provides room for one struct. The first version counts the driver's share as used.
        unsafe { put(out, nv::nvmlMemory_t { total, free: total - reserved - used, used: reserved + used }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    raw: nv::nvmlDevice_t,
    out: *mut nv::nvmlMemory_v2_t,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetMemoryInfo_v2", raw, |view, handle, device| {
        // SAFETY: the caller provides a struct whose first word is its version.
        let version = unsafe { out.as_ref() }.ok_or(Code::INVALID_ARGUMENT)?.version;
        if version != struct_version::<nv::nvmlMemory_v2_t>(2) {
            return Err(Code::VERSION_MISMATCH);
        }
        let (total, reserved, used) = memory(view, handle, device)?;
        let free = total - reserved - used;
        // SAFETY: as above.
        unsafe { put(out, nv::nvmlMemory_v2_t { version, total, reserved, free, used }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    raw: nv::nvmlDevice_t,
    out: *mut nv::nvmlUtilization_t,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetUtilizationRates", raw, |view, handle, device| {
        unpartitioned(handle, device)?;
        let used = device.memory_used_bytes() as f64 / device.model().memory_total_bytes as f64;
        let gpu = percent(&device.utilization, view.elapsed_s);
        // SAFETY: the caller provides room for one struct.
        unsafe { put(out, nv::nvmlUtilization_t { gpu, memory: (used * 100.0) as c_uint }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSamples(
    raw: nv::nvmlDevice_t,
    kind: nv::nvmlSamplingType_t,
    last_seen_us: c_ulonglong,
    value_type: *mut nv::nvmlValueType_t,
    count: *mut c_uint,
    out: *mut nv::nvmlSample_t,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetSamples", raw, |view, handle, device| {
        unpartitioned(handle, device)?;
        if kind != nv::nvmlSamplingType_enum_NVML_GPU_UTILIZATION_SAMPLES {
            return Err(Code::NOT_SUPPORTED);
        }
        let newest = (view.elapsed_s * SAMPLES_PER_S) as u64;
        let samples: Vec<_> = (newest.saturating_sub(SAMPLES_KEPT - 1)..=newest)
            .map(|sample| nv::nvmlSample_t {
                timeStamp: sample_us(sample),
                sampleValue: nv::nvmlValue_t { uiVal: percent(&device.utilization, sample as f64 / SAMPLES_PER_S) },
            })
            .filter(|sample| sample.timeStamp > last_seen_us)
            .collect();
        if samples.is_empty() {
            return Err(Code::NOT_FOUND);
        }
        // If the caller queries the number of samples, NVML returns the size of its buffer.
        let asked_for_size = out.is_null();
        // SAFETY: the caller provides room for one number, and for `count` samples or none.
        unsafe {
            put(value_type, nv::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT)?;
            if asked_for_size { put(count, SAMPLES_KEPT as c_uint) } else { put_list(out, count, samples) }
        }
    })
}

/// Instances do not support this value.
pub(super) fn whole(handle: Handle) -> Outcome {
    if handle.is_instance() { Err(Code::INVALID_ARGUMENT) } else { Ok(()) }
}

/// In MIG mode neither a device nor its instances support this value.
pub(super) fn unpartitioned(handle: Handle, device: &Device) -> Outcome {
    if handle.is_instance() || device.mig.is_some() { Err(Code::NOT_SUPPORTED) } else { Ok(()) }
}

/// In whole percent, as NVML returns it.
pub(super) fn percent(level: &Level, seconds: f64) -> c_uint {
    (level.at(seconds) * 100.0).round() as c_uint
}

/// The timestamp of the sample with this number.
pub(super) fn sample_us(sample: u64) -> u64 {
    // A time in 2023: timestamps are never near 0.
    1_700_000_000_000_000 + (sample as f64 / SAMPLES_PER_S * 1e6) as u64
}

/// Total memory, what the driver reserves, and what is used.
fn memory(view: &View, handle: Handle, device: &Device) -> Result<(u64, u64, u64), Code> {
    let model = device.model();
    if !handle.is_instance() {
        return Ok((model.memory_total_bytes, model.memory_reserved_bytes, device.memory_used_bytes()));
    }
    let instance = view.instance(handle)?;
    let here = device.processes.iter().filter(|process| process.gpu_instance == Some(instance.gpu_instance));
    let used = instance.memory_used_bytes + here.filter_map(|process| process.memory_bytes).sum::<u64>();
    let total = instance.memory_total_bytes(model);
    Ok((total, 0, used.min(total)))
}

fn instance_by_uuid(view: &View, uuid: &str) -> Result<Handle, Code> {
    let has = |device: &Device| device.mig.iter().flatten().any(|instance| instance.uuid == uuid);
    let parent = view.find(has)?;
    let instance = view.device(parent)?.mig.iter().flatten().find(|instance| instance.uuid == uuid);
    Ok(parent.instance(instance.ok_or(Code::NOT_FOUND)?))
}

/// # Safety
///
/// `raw` is null or a C string that outlives the call.
unsafe fn text<'call>(raw: *const c_char) -> Result<&'call str, Code> {
    if raw.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    // SAFETY: not null, and guaranteed by the caller.
    unsafe { CStr::from_ptr(raw) }.to_str().map_err(|_| Code::INVALID_ARGUMENT)
}
