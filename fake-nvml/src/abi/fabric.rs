//! NVLink: the state of a device in the fabric, its links and their errors.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nv;

use super::device::whole;
use super::{device_call, put, struct_version};
use crate::library::{Code, View};
use crate::scenario::{Device, NvLink};

/// The mask of a fabric in which everything is known and nothing is wrong.
const WELL: u32 = nv::NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW_FALSE
    << nv::NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_DEGRADED_BW
    | nv::NVML_GPU_FABRIC_HEALTH_MASK_ROUTE_RECOVERY_FALSE << nv::NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_ROUTE_RECOVERY
    | nv::NVML_GPU_FABRIC_HEALTH_MASK_ROUTE_UNHEALTHY_FALSE << nv::NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_ROUTE_UNHEALTHY
    | nv::NVML_GPU_FABRIC_HEALTH_MASK_ACCESS_TIMEOUT_RECOVERY_FALSE
        << nv::NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_ACCESS_TIMEOUT_RECOVERY
    | nv::NVML_GPU_FABRIC_HEALTH_MASK_INCORRECT_CONFIGURATION_NONE
        << nv::NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_INCORRECT_CONFIGURATION;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    raw: nv::nvmlDevice_t,
    out: *mut nv::nvmlGpuFabricInfoV_t,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetGpuFabricInfoV", raw, |view, handle, device| {
        whole(handle)?;
        knows(view, 2)?;
        // SAFETY: the caller provides a struct whose first word is its version.
        let version = if out.is_null() { 0 } else { unsafe { out.cast::<u32>().read() } };
        let second = struct_version::<nv::nvmlGpuFabricInfo_v2_t>(2);
        let third = struct_version::<nv::nvmlGpuFabricInfo_v3_t>(3);
        let is_known = version == second || version == third && knows(view, 3).is_ok();
        if !is_known {
            return Err(Code::VERSION_MISMATCH);
        }
        let info = nv::nvmlGpuFabricInfo_v2_t {
            version,
            clusterUuid: [0; 16],
            status: device.fabric_status,
            cliqueId: 0,
            state: state(device)?,
            healthMask: device.fabric_health.unwrap_or(WELL),
        };
        // SAFETY: both versions begin with the fields of the second, and the version word determines which one it is.
        unsafe {
            out.cast::<nv::nvmlGpuFabricInfo_v2_t>().write(info);
            if version == third {
                (&raw mut (*out).healthSummary).write(nv::NVML_GPU_FABRIC_HEALTH_SUMMARY_NOT_SUPPORTED as u8);
            }
        }
        Ok(())
    })
}

/// The function of the first drivers with a fabric: its struct has neither a version nor the health.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuFabricInfo(
    raw: nv::nvmlDevice_t,
    out: *mut nv::nvmlGpuFabricInfo_t,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetGpuFabricInfo", raw, |view, handle, device| {
        whole(handle)?;
        knows(view, 1)?;
        let (status, state) = (device.fabric_status, state(device)?);
        // SAFETY: the caller provides room for one struct.
        unsafe { put(out, nv::nvmlGpuFabricInfo_t { clusterUuid: [0; 16], status, cliqueId: 0, state }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    raw: nv::nvmlDevice_t,
    link: c_uint,
    out: *mut nv::nvmlEnableState_t,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetNvLinkState", raw, |_, handle, device| {
        whole(handle)?;
        // SAFETY: the caller provides room for one number.
        unsafe { put(out, c_uint::from(!nvlink(device, link)?.inactive)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    raw: nv::nvmlDevice_t,
    link: c_uint,
    counter: nv::nvmlNvLinkErrorCounter_t,
    out: *mut c_ulonglong,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceGetNvLinkErrorCounter", raw, |_, handle, device| {
        whole(handle)?;
        let link = nvlink(device, link)?;
        if link.inactive {
            return Err(Code::NOT_SUPPORTED);
        }
        let count = match counter {
            nv::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY => link.replay,
            nv::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_RECOVERY => link.recovery,
            nv::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_FLIT => link.crc_flit,
            nv::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_DATA => link.crc_data,
            nv::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_ECC_DATA => link.ecc_data,
            _ => return Err(Code::INVALID_ARGUMENT),
        };
        // SAFETY: the caller provides room for one number.
        unsafe { put(out, count) }
    })
}

/// A driver without a function either returns an error, or lacks the symbol.
fn knows(view: &View, fabric_info: u32) -> Result<(), Code> {
    if view.scenario.driver.fabric_info < fabric_info { Err(Code::FUNCTION_NOT_FOUND) } else { Ok(()) }
}

fn state(device: &Device) -> Result<u8, Code> {
    if !device.model().fabric && device.fabric_state.is_none() {
        return Err(Code::NOT_SUPPORTED);
    }
    Ok(device.fabric_state.unwrap_or(nv::NVML_GPU_FABRIC_STATE_COMPLETED as u8))
}

fn nvlink(device: &Device, link: c_uint) -> Result<NvLink, Code> {
    let links = device.nvlinks();
    if links.is_empty() {
        return Err(Code::NOT_SUPPORTED);
    }
    links.get(link as usize).copied().ok_or(Code::INVALID_ARGUMENT)
}
