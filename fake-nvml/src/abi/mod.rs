//! NVML's C functions: each checks its arguments as NVML does and returns values of the scenario.
//!
//! The functions are in one file per noun; their common parts are here. They have NVML's names, so the snake case lint
//! is off.
#![allow(non_snake_case)]

mod device;
mod events;
mod fabric;
mod fields;
mod mig;
mod processes;
mod system;

use std::ffi::c_char;

use nvml_wrapper_sys::bindings as nv;

use crate::library::{self, Code, Handle, View};
use crate::scenario::Device;

type Outcome = Result<(), Code>;

/// A call without a device.
fn system_call(name: &str, answer: impl FnOnce(&View) -> Outcome) -> nv::nvmlReturn_t {
    library::enter(name, None);
    code(library::view(name).and_then(|view| answer(&view)))
}

/// A call on a device or a MIG instance.
fn device_call(
    name: &str,
    raw: nv::nvmlDevice_t,
    answer: impl FnOnce(&View, Handle, &Device) -> Outcome,
) -> nv::nvmlReturn_t {
    let handle = Handle::from_raw(raw);
    library::enter(name, handle);
    code(library::view(name).and_then(|view| {
        let handle = handle.ok_or(Code::INVALID_ARGUMENT)?;
        let device = view.device(handle)?;
        if let Some(code) = device.errors.get(name).or_else(|| device.errors.get("*")) {
            return Err(Code(*code));
        }
        answer(&view, handle, device)
    }))
}

fn code(outcome: Outcome) -> nv::nvmlReturn_t {
    outcome.map_or_else(|code| code.0, |()| nv::nvmlReturn_enum_NVML_SUCCESS)
}

/// Writes one value to the caller's memory.
///
/// # Safety
///
/// `out` is null or room for one `T`.
unsafe fn put<T>(out: *mut T, value: T) -> Outcome {
    if out.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller guarantees the room.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes a C string to the caller's memory.
///
/// # Safety
///
/// `out` is null or room for `length` bytes.
unsafe fn put_text(out: *mut c_char, length: u32, text: &str) -> Outcome {
    if out.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    // SAFETY: the text and its terminator fit into `length` bytes, which the caller guarantees.
    unsafe {
        out.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

/// Writes a list and its length to the caller's memory. If there is too little room, returns an error and the required
/// length.
///
/// # Safety
///
/// `count` is null or points to the number of `T` that fit at `out`, which may be null.
unsafe fn put_list<T>(out: *mut T, count: *mut u32, values: Vec<T>) -> Outcome {
    if count.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    // SAFETY: not null, and guaranteed by the caller.
    let room = unsafe { count.replace(values.len() as u32) };
    if values.is_empty() {
        return Ok(());
    }
    if out.is_null() || (room as usize) < values.len() {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    for (index, value) in values.into_iter().enumerate() {
        // SAFETY: `index` is less than `room`.
        unsafe { out.add(index).write(value) };
    }
    Ok(())
}

/// The bytes of a C string buffer with a fixed size; a longer text is cut off.
fn buffer<const SIZE: usize>(text: &str) -> [c_char; SIZE] {
    let mut buffer = [0; SIZE];
    for (to, from) in buffer.iter_mut().zip(text.bytes().take(SIZE - 1)) {
        *to = from as c_char;
    }
    buffer
}

/// The version word of a versioned struct.
fn struct_version<T>(version: u32) -> u32 {
    size_of::<T>() as u32 | version << 24
}
