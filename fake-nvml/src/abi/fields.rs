//! Health: field values, remapped rows, ECC counters.

use std::ffi::{c_int, c_uint, c_ulonglong};

use nv::field_id;
use nvml_wrapper_sys::bindings as nv;

use super::device::whole;
use super::{Outcome, device_call, put};
use crate::library::Code;
use crate::scenario::Device;

/// How many fields NVML takes in one call.
const FIELDS_AT_MOST: c_int = 512;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    raw: nv::nvmlDevice_t,
    count: c_int,
    values: *mut nv::nvmlFieldValue_t,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetFieldValues", raw, |view, _, device| {
        if values.is_null() || !(1..=FIELDS_AT_MOST).contains(&count) {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: the caller gives `count` structs, each with its field id filled in.
        let values = unsafe { std::slice::from_raw_parts_mut(values, count as usize) };
        for value in values {
            value.timestamp = (view.elapsed_s * 1e6) as i64;
            value.latencyUsec = 0;
            value.valueType = nv::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
            match field(device, value.fieldId) {
                Ok(figure) => {
                    value.nvmlReturn = nv::nvmlReturn_enum_NVML_SUCCESS;
                    if value.fieldId == field_id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL {
                        value.valueType = nv::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
                    }
                    value.value = nv::nvmlValue_t { ullVal: figure };
                }
                Err(code) => value.nvmlReturn = code.0,
            }
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    raw: nv::nvmlDevice_t,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failure: *mut c_uint,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetRemappedRows", raw, |_, handle, device| {
        whole(handle)?;
        remaps(device)?;
        let rows = device.remapped_rows;
        // SAFETY: the caller gives room for four numbers.
        unsafe {
            put(correctable, rows.correctable)?;
            put(uncorrectable, rows.uncorrectable)?;
            put(pending, c_uint::from(rows.pending))?;
            put(failure, c_uint::from(rows.failure))
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    raw: nv::nvmlDevice_t,
    kind: nv::nvmlMemoryErrorType_t,
    _counter: nv::nvmlEccCounterType_t,
    out: *mut c_ulonglong,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetTotalEccErrors", raw, |_, handle, device| {
        whole(handle)?;
        // SAFETY: the caller gives room for one number.
        unsafe { put(out, ecc(device, kind)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryErrorCounter(
    raw: nv::nvmlDevice_t,
    kind: nv::nvmlMemoryErrorType_t,
    _counter: nv::nvmlEccCounterType_t,
    location: nv::nvmlMemoryLocation_t,
    out: *mut c_ulonglong,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetMemoryErrorCounter", raw, |_, handle, device| {
        whole(handle)?;
        if location != nv::nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_DRAM {
            return Err(Code::NOT_SUPPORTED);
        }
        // SAFETY: the caller gives room for one number.
        unsafe { put(out, ecc(device, kind)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEccMode(
    raw: nv::nvmlDevice_t,
    current: *mut nv::nvmlEnableState_t,
    pending: *mut nv::nvmlEnableState_t,
) -> nv::nvmlReturn_t {
    // SAFETY: the caller gives room for two numbers.
    device_call("nvmlDeviceGetEccMode", raw, |_, _, _| unsafe { put(current, 1).and_then(|()| put(pending, 1)) })
}

fn field(device: &Device, id: c_uint) -> Result<u64, Code> {
    if let Some(code) = device.field_errors.get(&id) {
        return Err(Code(*code));
    }
    let rows = device.remapped_rows;
    match id {
        field_id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL => {
            ecc(device, nv::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED)
        }
        field_id::NVML_FI_DEV_REMAPPED_COR => remaps(device).map(|()| rows.correctable.into()),
        field_id::NVML_FI_DEV_REMAPPED_UNC => remaps(device).map(|()| rows.uncorrectable.into()),
        field_id::NVML_FI_DEV_REMAPPED_PENDING => remaps(device).map(|()| rows.pending.into()),
        field_id::NVML_FI_DEV_REMAPPED_FAILURE => remaps(device).map(|()| rows.failure.into()),
        field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => Ok(device.recovery_action.into()),
        _ => Err(Code::NOT_SUPPORTED),
    }
}

/// Rows are remapped from Ampere on; before, pages were retired.
fn remaps(device: &Device) -> Outcome {
    if device.model().compute_capability < (8, 0) { Err(Code::NOT_SUPPORTED) } else { Ok(()) }
}

fn ecc(device: &Device, kind: nv::nvmlMemoryErrorType_t) -> Result<u64, Code> {
    match kind {
        nv::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED => Ok(0),
        nv::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED => Ok(device.ecc_uncorrected),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}
