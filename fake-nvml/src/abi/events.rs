//! Events: sets of devices to listen to, and the Xid errors delivered to them.
//!
//! NVML keeps no event from before a device was registered, and when several Xid errors wait, it delivers each with the
//! code of the last one. This library does the same.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nvml_wrapper_sys::bindings as nv;

use super::{Outcome, code, device_call, put, system_call};
use crate::library::{self, Code, Handle, View};
use crate::scenario::Xid;

const SUPPORTED: u64 = (nv::nvmlEventTypeXidCriticalError
    | nv::nvmlEventTypeSingleBitEccError
    | nv::nvmlEventTypeDoubleBitEccError) as u64;

/// Sets by number, each with its registered devices.
static SETS: Mutex<BTreeMap<usize, BTreeMap<String, Listener>>> = Mutex::new(BTreeMap::new());

struct Listener {
    handle: Handle,
    /// How many of the scenario's Xids of this device were delivered or missed.
    had: usize,
}

// A handle is a number, and so is the address of the set.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(out: *mut nv::nvmlEventSet_t) -> nv::nvmlReturn_t {
    system_call("nvmlEventSetCreate", |_| {
        let number = with_sets(|sets| {
            let number = sets.last_key_value().map_or(1, |(last, _)| last + 1);
            sets.insert(number, BTreeMap::new());
            number
        });
        // SAFETY: the caller provides room for one handle.
        unsafe { put(out, std::ptr::without_provenance_mut(number)) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetFree(set: nv::nvmlEventSet_t) -> nv::nvmlReturn_t {
    library::enter("nvmlEventSetFree", None);
    code(with_sets(|sets| sets.remove(&set.addr())).map(drop).ok_or(Code::INVALID_ARGUMENT))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    raw: nv::nvmlDevice_t,
    out: *mut c_ulonglong,
) -> nv::nvmlReturn_t {
    // SAFETY: the caller provides room for one number.
    device_call("nvmlDeviceGetSupportedEventTypes", raw, |_, _, _| unsafe { put(out, SUPPORTED) })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(
    raw: nv::nvmlDevice_t,
    types: c_ulonglong,
    set: nv::nvmlEventSet_t,
) -> nv::nvmlReturn_t {
    device_call("nvmlDeviceRegisterEvents", raw, |view, handle, device| {
        if types & !SUPPORTED != 0 || handle.is_instance() {
            return Err(Code::NOT_SUPPORTED);
        }
        let had = xids_of(view, &device.uuid).count();
        with_sets(|sets| {
            let listeners = sets.get_mut(&set.addr()).ok_or(Code::INVALID_ARGUMENT)?;
            listeners.insert(device.uuid.clone(), Listener { handle, had });
            Ok(())
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nv::nvmlEventSet_t,
    out: *mut nv::nvmlEventData_t,
    timeout_ms: c_uint,
) -> nv::nvmlReturn_t {
    const NAME: &str = "nvmlEventSetWait_v2";
    library::enter(NAME, None);
    let waited = library::wait(Duration::from_millis(timeout_ms.into()), || next(NAME, set).transpose());
    let outcome: Outcome = waited.unwrap_or(Err(Code::TIMEOUT)).and_then(|event| {
        // SAFETY: the caller provides room for one struct.
        unsafe { put(out, event) }
    });
    code(outcome)
}

fn next(name: &str, set: nv::nvmlEventSet_t) -> Result<Option<nv::nvmlEventData_t>, Code> {
    let view = library::view(name)?;
    with_sets(|sets| {
        let listeners = sets.get_mut(&set.addr()).ok_or(Code::INVALID_ARGUMENT)?;
        if view.scenario.other_events
            && let Some(listener) = listeners.values().next()
        {
            return Ok(Some(nv::nvmlEventData_t {
                device: listener.handle.to_raw(),
                eventType: nv::nvmlEventTypeClock.into(),
                eventData: 0,
                gpuInstanceId: u32::MAX,
                computeInstanceId: u32::MAX,
            }));
        }
        for (uuid, listener) in listeners {
            let Some(xid) = xids_of(&view, uuid).nth(listener.had) else { continue };
            listener.had += 1;
            let last = xids_of(&view, uuid).last().unwrap_or(xid);
            return Ok(Some(nv::nvmlEventData_t {
                device: listener.handle.to_raw(),
                eventType: nv::nvmlEventTypeXidCriticalError.into(),
                eventData: last.xid,
                gpuInstanceId: xid.gpu_instance.unwrap_or(u32::MAX),
                computeInstanceId: xid.compute_instance.unwrap_or(u32::MAX),
            }));
        }
        Ok(None)
    })
}

fn xids_of<'view>(view: &'view View, uuid: &'view str) -> impl Iterator<Item = &'view Xid> {
    view.scenario.xids.iter().filter(move |xid| xid.device == uuid)
}

fn with_sets<T>(act: impl FnOnce(&mut BTreeMap<usize, BTreeMap<String, Listener>>) -> T) -> T {
    act(&mut SETS.lock().unwrap_or_else(PoisonError::into_inner))
}
