//! Health: field values, remapped rows, ECC counters.

use std::ffi::{c_int, c_uint, c_ulonglong};
use std::mem;

use nv::field_id;
use nvml_wrapper_sys::bindings as nv;

use super::device::whole;
use super::{Outcome, device_call, put, struct_version};
use crate::library::Code;
use crate::scenario::{Device, NvLink};

/// How many fields NVML accepts in one call.
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
        // SAFETY: the caller provides `count` structs, each with its field id set.
        let values = unsafe { std::slice::from_raw_parts_mut(values, count as usize) };
        for value in values {
            value.timestamp = (view.elapsed_s * 1e6) as i64;
            value.latencyUsec = 0;
            value.valueType = nv::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
            match field(device, value.fieldId) {
                Ok(number) => {
                    value.nvmlReturn = nv::nvmlReturn_enum_NVML_SUCCESS;
                    if is_long(value.fieldId) {
                        value.valueType = nv::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
                    }
                    value.value = nv::nvmlValue_t { ullVal: number };
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
        // SAFETY: the caller provides room for four numbers.
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
        // SAFETY: the caller provides room for one number.
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
        // SAFETY: the caller provides room for one number.
        unsafe { put(out, ecc(device, kind)?) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSramEccErrorStatus(
    raw: nv::nvmlDevice_t,
    out: *mut nv::nvmlEccSramErrorStatus_t,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetSramEccErrorStatus", raw, |_, handle, device| {
        whole(handle)?;
        // SAFETY: the caller provides a struct whose first word is its version.
        let version = if out.is_null() { 0 } else { unsafe { out.cast::<u32>().read() } };
        if version != struct_version::<nv::nvmlEccSramErrorStatus_v1_t>(1) {
            return Err(Code::VERSION_MISMATCH);
        }
        // As for rows: older models have no such threshold.
        remaps(device)?;
        // SAFETY: plain numbers.
        let zero: nv::nvmlEccSramErrorStatus_t = unsafe { mem::zeroed() };
        let exceeded = c_uint::from(device.sram_threshold_exceeded);
        // SAFETY: the version word guarantees that there is room for this struct.
        unsafe { put(out, nv::nvmlEccSramErrorStatus_t { version, bThresholdExceeded: exceeded, ..zero }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEccMode(
    raw: nv::nvmlDevice_t,
    current: *mut nv::nvmlEnableState_t,
    pending: *mut nv::nvmlEnableState_t,
) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides room for two numbers.
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
        field_id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL => over_links(device, |link| link.replay),
        field_id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL => over_links(device, |link| link.recovery),
        field_id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL => over_links(device, |link| link.crc_flit),
        field_id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL => over_links(device, |link| link.crc_data),
        field_id::NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL => over_links(device, |link| link.ecc_data),
        _ => Err(Code::NOT_SUPPORTED),
    }
}

/// Counters have 64 bits, other values have 32.
fn is_long(id: c_uint) -> bool {
    matches!(
        id,
        field_id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL
            | field_id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL
            | field_id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL
            | field_id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL
            | field_id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL
            | field_id::NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL
    )
}

/// The sum over the links that are in use.
fn over_links(device: &Device, count: impl Fn(&NvLink) -> u64) -> Result<u64, Code> {
    let links = device.nvlinks();
    if links.is_empty() {
        return Err(Code::NOT_SUPPORTED);
    }
    Ok(links.iter().filter(|link| !link.inactive).map(count).sum())
}

/// Rows are remapped since Ampere; before, pages were retired.
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
