//! The library's own state: the current scenario, initialisations, the devices they see, and calls that hang.
//!
//! It knows nothing of C; [`crate::abi`] does.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as nv;

use crate::crash;
use crate::scenario::{Device, Hang, MigInstance, Scenario};

/// The variable with the path of the scenario file. Without it, `scenario.json` beside the library itself is read.
const SCENARIO_VARIABLE: &str = "FAKE_NVML_SCENARIO";

/// How often a call that hangs or waits checks whether the scenario has changed.
const LOOK: Duration = Duration::from_millis(2);

/// What NVML returns when a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) nv::nvmlReturn_t);

impl Code {
    pub(crate) const UNINITIALIZED: Self = Self(nv::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED);
    pub(crate) const INVALID_ARGUMENT: Self = Self(nv::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    pub(crate) const NOT_SUPPORTED: Self = Self(nv::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
    pub(crate) const NOT_FOUND: Self = Self(nv::nvmlReturn_enum_NVML_ERROR_NOT_FOUND);
    pub(crate) const INSUFFICIENT_SIZE: Self = Self(nv::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    pub(crate) const DRIVER_NOT_LOADED: Self = Self(nv::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED);
    pub(crate) const TIMEOUT: Self = Self(nv::nvmlReturn_enum_NVML_ERROR_TIMEOUT);
    pub(crate) const GPU_IS_LOST: Self = Self(nv::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
    pub(crate) const FUNCTION_NOT_FOUND: Self = Self(nv::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND);
    pub(crate) const VERSION_MISMATCH: Self = Self(nv::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    pub(crate) const UNKNOWN: Self = Self(nv::nvmlReturn_enum_NVML_ERROR_UNKNOWN);
}

/// A device's handle: which of the devices that existed at initialisation, or which instance of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    /// Which initialisation it belongs to.
    epoch: u16,
    /// Index among the devices at initialisation.
    index: u16,
    /// GPU instance and compute instance.
    mig: Option<(u8, u8)>,
}

/// What one call uses: the scenario at that instant and the devices that its process can see.
pub(crate) struct View {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) elapsed_s: f64,
    epoch: u16,
    seen: Arc<[String]>,
}

#[derive(Default)]
struct State {
    /// Number of initialisations that were not shut down yet.
    users: u32,
    epoch: u16,
    /// [`crate::scenario::Driver::generation`] at initialisation.
    generation: u32,
    /// UUIDs of the devices at initialisation. NVML does not see devices that are added later.
    seen: Arc<[String]>,
    scenario: Option<Arc<Scenario>>,
    /// Inode, size and time of the file from which `scenario` was read.
    read_from: Option<(u64, u64, i64, i64)>,
    /// How many calls have hung so far.
    hung: u32,
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);
static LOADED_AT: LazyLock<Instant> = LazyLock::new(Instant::now);
static SCENARIO_FILE: LazyLock<Option<PathBuf>> = LazyLock::new(scenario_file);
static CALLS: AtomicU64 = AtomicU64::new(0);

/// How many calls this library has had, so that a test can limit the calls of one sample.
pub(crate) fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// How many calls have hung so far, so that a test can wait for the first one.
pub(crate) fn hung() -> u32 {
    lock().hung
}

/// Begins a call: counts it, and hangs or crashes if the scenario says so.
pub(crate) fn enter(call: &str, handle: Option<Handle>) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    suffer(call, handle);
}

/// Called while the library is being loaded.
pub(crate) fn load() {
    suffer("dlopen", None);
}

fn suffer(call: &str, handle: Option<Handle>) {
    let scenario = lock().current().ok();
    if let Some(crash) = scenario.iter().flat_map(|scenario| &scenario.crashes).find(|crash| crash.call == call) {
        crash::crash(crash.how);
    }
    let begun = Instant::now();
    let mut first_look = true;
    while hangs(call, handle, begun.elapsed(), std::mem::take(&mut first_look)) {
        std::thread::sleep(LOOK);
    }
}

/// The view for a call of this name, unless the call fails for every caller.
pub(crate) fn view(call: &str) -> Result<View, Code> {
    let mut state = lock();
    let scenario = state.current()?;
    if state.users == 0 {
        return Err(Code::UNINITIALIZED);
    }
    if !scenario.driver.loaded {
        return Err(Code::DRIVER_NOT_LOADED);
    }
    // NVML returns no better error when the driver was unloaded meanwhile.
    if scenario.driver.generation != state.generation {
        return Err(Code::UNKNOWN);
    }
    if let Some(code) = scenario.errors.get(call) {
        return Err(Code(*code));
    }
    let elapsed_s = scenario.clock_s.unwrap_or_else(|| LOADED_AT.elapsed().as_secs_f64());
    Ok(View { scenario, elapsed_s, epoch: state.epoch, seen: Arc::clone(&state.seen) })
}

/// Initialises; a second call only counts.
pub(crate) fn initialise() -> Result<(), Code> {
    let mut state = lock();
    let scenario = state.current()?;
    if !scenario.driver.loaded {
        return Err(Code::DRIVER_NOT_LOADED);
    }
    if let Some(code) = scenario.errors.get("nvmlInit_v2") {
        return Err(Code(*code));
    }
    if state.users == 0 {
        state.epoch = state.epoch.wrapping_add(1);
        state.generation = scenario.driver.generation;
        state.seen = scenario.devices.iter().filter(|device| !device.lost).map(|device| device.uuid.clone()).collect();
    }
    state.users += 1;
    Ok(())
}

/// Undoes one initialisation.
pub(crate) fn shut_down() -> Result<(), Code> {
    let mut state = lock();
    state.users = state.users.checked_sub(1).ok_or(Code::UNINITIALIZED)?;
    Ok(())
}

/// Waits until `ready` returns something or the time is up, checking the scenario repeatedly.
pub(crate) fn wait<T>(timeout: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if begun.elapsed() >= timeout {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

impl View {
    /// How many devices there were at initialisation.
    pub(crate) fn count(&self) -> usize {
        self.seen.len()
    }

    /// The number that a function returns: `right`, unless the scenario replaces it.
    pub(crate) fn returned(&self, function: &str, right: u32) -> u32 {
        self.scenario.counts.get(function).copied().unwrap_or(right)
    }

    /// The handle of the device with this index.
    pub(crate) fn handle(&self, index: usize) -> Result<Handle, Code> {
        let handle = Handle { epoch: self.epoch, index: index as u16, mig: None };
        if index >= self.seen.len() {
            return Err(Code::INVALID_ARGUMENT);
        }
        self.device(handle).map(|_| handle)
    }

    /// The handle of the first device that fits.
    pub(crate) fn find(&self, fits: impl Fn(&Device) -> bool) -> Result<Handle, Code> {
        let position = |index: &usize| self.scenario.devices.iter().any(|d| d.uuid == self.seen[*index] && fits(d));
        let index = (0..self.seen.len()).find(position).ok_or(Code::NOT_FOUND)?;
        self.handle(index)
    }

    /// The device of a handle, or the parent of the handle's instance.
    pub(crate) fn device(&self, handle: Handle) -> Result<&Device, Code> {
        if handle.epoch != self.epoch {
            return Err(Code::INVALID_ARGUMENT);
        }
        let uuid = self.seen.get(usize::from(handle.index)).ok_or(Code::INVALID_ARGUMENT)?;
        let device = self.scenario.devices.iter().find(|device| device.uuid == *uuid).ok_or(Code::GPU_IS_LOST)?;
        if device.lost { Err(Code::GPU_IS_LOST) } else { Ok(device) }
    }

    /// The instance of a handle.
    pub(crate) fn instance(&self, handle: Handle) -> Result<&MigInstance, Code> {
        let (gpu, compute) = handle.mig.ok_or(Code::INVALID_ARGUMENT)?;
        let of = |i: &&MigInstance| (i.gpu_instance, i.compute_instance) == (gpu.into(), compute.into());
        self.device(handle)?.mig.iter().flatten().find(of).ok_or(Code::NOT_FOUND)
    }
}

impl Handle {
    /// The handle of an instance of this device.
    pub(crate) fn instance(self, instance: &MigInstance) -> Self {
        Self { mig: Some((instance.gpu_instance as u8, instance.compute_instance as u8)), ..self }
    }

    /// The handle of the parent device; a device is its own parent.
    pub(crate) fn parent(self) -> Self {
        Self { mig: None, ..self }
    }

    pub(crate) fn is_instance(self) -> bool {
        self.mig.is_some()
    }

    /// Index among the devices at initialisation.
    pub(crate) fn index(self) -> u32 {
        self.index.into()
    }

    /// The handle as callers hold it. Never null, never an address.
    pub(crate) fn to_raw(self) -> nv::nvmlDevice_t {
        let mig = self.mig.map_or(0, |(gpu, compute)| 1 << 16 | usize::from(gpu) << 8 | usize::from(compute));
        let packed = usize::from(self.epoch) << 48 | (usize::from(self.index) + 1) << 24 | mig;
        std::ptr::without_provenance_mut(packed)
    }

    /// The handle of a caller. `None` if this library did not create it.
    pub(crate) fn from_raw(raw: nv::nvmlDevice_t) -> Option<Self> {
        let packed = raw.addr();
        let index = (packed >> 24 & 0xff_ffff).checked_sub(1)?;
        let mig = (packed >> 16 & 1 == 1).then_some(((packed >> 8) as u8, packed as u8));
        Some(Self { epoch: (packed >> 48) as u16, index: u16::try_from(index).ok()?, mig })
    }
}

impl State {
    /// The current scenario, read again if its file changed. A file that cannot be read changes nothing.
    fn current(&mut self) -> Result<Arc<Scenario>, Code> {
        if let Some(path) = SCENARIO_FILE.as_deref() {
            let stamp = std::fs::metadata(path).ok().map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
            if stamp.is_some() && stamp != self.read_from {
                self.read_from = stamp;
                self.read(path);
            }
        }
        // Without a scenario there is no driver.
        self.scenario.clone().ok_or(Code::DRIVER_NOT_LOADED)
    }

    fn read(&mut self, path: &Path) {
        let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
        match read.and_then(|text| Scenario::parse(&text).map_err(|error| error.to_string())) {
            Ok(scenario) => self.scenario = Some(Arc::new(scenario)),
            Err(error) => eprintln!("fake-nvml: {}: {error}", path.display()),
        }
    }
}

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a call hangs. The first check counts it among the hung calls.
fn hangs(call: &str, handle: Option<Handle>, since: Duration, first_look: bool) -> bool {
    let mut state = lock();
    let Ok(scenario) = state.current() else { return false };
    let uuid = handle.and_then(|handle| state.seen.get(usize::from(handle.index)));
    let fits = |hang: &&Hang| {
        (hang.call == call || hang.call == "*")
            && hang.device.as_ref().is_none_or(|device| Some(device) == uuid)
            && hang.seconds.is_none_or(|seconds| since.as_secs_f64() < seconds)
    };
    let Some(hang) = scenario.hangs.iter().find(fits) else { return false };
    if !first_look {
        return true;
    }
    if hang.calls.is_some_and(|calls| state.hung >= calls) {
        return false;
    }
    state.hung += 1;
    true
}

fn scenario_file() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(SCENARIO_VARIABLE) {
        return Some(path.into());
    }
    Some(file()?.with_file_name("scenario.json"))
}

/// The file from which this code was loaded.
pub(crate) fn file() -> Option<PathBuf> {
    let mut found = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    let here: fn() -> Option<PathBuf> = file;
    // SAFETY: `found` is room for one Dl_info, and dladdr knows the address of a function of this library.
    let found = unsafe {
        if libc::dladdr(here as *const libc::c_void, found.as_mut_ptr()) == 0 {
            return None;
        }
        found.assume_init()
    };
    if found.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr succeeded, so the name is a C string that lives as long as the library.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    Some(Path::new(OsStr::from_bytes(name.to_bytes())).to_owned())
}

/// Runs while the loader holds its lock, like constructors of a real library. Only if this is a library: as a part of a
/// test program it does nothing.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

extern "C" fn construct() {
    if file().is_some_and(|file| file.to_string_lossy().contains(".so")) {
        load();
    }
}
