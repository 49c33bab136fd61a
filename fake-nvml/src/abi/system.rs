//! The library and the driver: initialisation, shutdown, versions, error texts.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings as nv;

use super::{code, put, put_text, system_call};
use crate::library;

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> nv::nvmlReturn_t {
    library::enter("nvmlInit_v2", None);
    code(library::initialise())
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit() -> nv::nvmlReturn_t {
    nvmlInit_v2()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nv::nvmlReturn_t {
    nvmlInit_v2()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> nv::nvmlReturn_t {
    library::enter("nvmlShutdown", None);
    code(library::shut_down())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides `length` bytes of room.
    system_call("nvmlSystemGetDriverVersion", |view| unsafe {
        put_text(version, length, &view.scenario.driver_version())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides `length` bytes of room.
    system_call("nvmlSystemGetNVMLVersion", |view| unsafe {
        put_text(version, length, &format!("13.{}", view.scenario.driver_version()))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides room for one number.
    system_call("nvmlSystemGetCudaDriverVersion_v2", |_| unsafe { put(version, 13_000) })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(result: nv::nvmlReturn_t) -> *const c_char {
    let text = match result {
        nv::nvmlReturn_enum_NVML_SUCCESS => c"Success",
        nv::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED => c"Uninitialized",
        nv::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT => c"Invalid Argument",
        nv::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED => c"Not Supported",
        nv::nvmlReturn_enum_NVML_ERROR_NO_PERMISSION => c"Insufficient Permissions",
        nv::nvmlReturn_enum_NVML_ERROR_NOT_FOUND => c"Not Found",
        nv::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE => c"Insufficient Size",
        nv::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND => c"Function Not Found",
        nv::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED => c"Driver Not Loaded",
        nv::nvmlReturn_enum_NVML_ERROR_TIMEOUT => c"Timeout",
        nv::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST => c"GPU is lost",
        nv::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH => c"Argument version mismatch",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

/// Not in NVML: how many calls the library has had.
#[unsafe(no_mangle)]
extern "C" fn fakeNvmlCalls() -> u64 {
    library::calls()
}

/// Not in NVML: how many calls have hung so far, including those that hang now.
#[unsafe(no_mangle)]
extern "C" fn fakeNvmlHung() -> u32 {
    library::hung()
}
