//! Runs a small kernel on the first NVIDIA GPU, with the driver's own library, as load for `test-gpu`. It is
//! independent of the agent, and changes no settings of the device.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::Write as _;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use libloading::{Library, Symbol};

/// The line that is printed when the kernel has run once.
pub(crate) const RUNNING: &str = "spinning";

/// Keeps one multiprocessor busy for the given number of nanoseconds. Written for compute capability 5.0, of 2014,
/// which the driver translates for the present GPU.
const KERNEL: &CStr = c"
.version 6.0
.target sm_50
.address_size 64
.visible .entry spin(.param .u64 for_ns)
{
    .reg .pred %again;
    .reg .u64 %for, %start, %now, %gone;
    ld.param.u64 %for, [for_ns];
    mov.u64 %start, %globaltimer;
again:
    mov.u64 %now, %globaltimer;
    sub.u64 %gone, %now, %start;
    setp.lt.u64 %again, %gone, %for;
    @%again bra again;
    ret;
}
";

/// The duration of one launch: far less than the driver allows for a kernel on a device with a display.
const LAUNCH_NS: u64 = 100_000_000;

/// Runs the kernel repeatedly for this long.
pub(crate) fn spin(duration: Duration) -> Result<()> {
    // SAFETY: the driver's library, whose initialisers can run in any process.
    let library = unsafe { Library::new("libcuda.so.1") }.context("cannot load libcuda.so.1")?;
    let cuda = Cuda { library: &library };
    cuda.start()?;
    let function = cuda.load()?;
    let until = Instant::now() + duration;
    let mut told = false;
    while Instant::now() < until {
        cuda.launch(function)?;
        if !told {
            println!("{RUNNING}");
            std::io::stdout().flush()?;
            told = true;
        }
    }
    Ok(())
}

/// The driver API, as declared in cuda.h. Contexts, modules and functions are opaque pointers.
struct Cuda<'a> {
    library: &'a Library,
}

impl Cuda<'_> {
    /// A context on the first device, current on this thread until the process ends.
    fn start(&self) -> Result<()> {
        let mut device: c_int = 0;
        let mut context: *mut c_void = null_mut();
        // SAFETY: each name has the type that cuda.h declares; the pointers are to locals that outlive the calls.
        unsafe {
            let init: Symbol<'_, unsafe extern "C" fn(c_uint) -> c_int> = self.library.get(b"cuInit\0")?;
            check("cuInit", init(0))?;
            let get: Symbol<'_, unsafe extern "C" fn(*mut c_int, c_int) -> c_int> =
                self.library.get(b"cuDeviceGet\0")?;
            check("cuDeviceGet", get(&raw mut device, 0))?;
            let create: Symbol<'_, unsafe extern "C" fn(*mut *mut c_void, c_uint, c_int) -> c_int> =
                self.library.get(b"cuCtxCreate_v2\0")?;
            check("cuCtxCreate", create(&raw mut context, 0, device))
        }
    }

    fn load(&self) -> Result<*mut c_void> {
        let mut module: *mut c_void = null_mut();
        let mut function: *mut c_void = null_mut();
        // SAFETY: as above; the image is text that ends with a zero, and the module is never unloaded.
        unsafe {
            let load: Symbol<'_, unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> c_int> =
                self.library.get(b"cuModuleLoadData\0")?;
            check("cuModuleLoadData", load(&raw mut module, KERNEL.as_ptr().cast()))?;
            let get: Symbol<'_, unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> c_int> =
                self.library.get(b"cuModuleGetFunction\0")?;
            check("cuModuleGetFunction", get(&raw mut function, module, c"spin".as_ptr()))?;
        }
        Ok(function)
    }

    /// Launches the kernel once and waits for its end.
    fn launch(&self, function: *mut c_void) -> Result<()> {
        type Launch = unsafe extern "C" fn(
            *mut c_void,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            *mut c_void,
            *mut *mut c_void,
            *mut *mut c_void,
        ) -> c_int;
        let mut for_ns = LAUNCH_NS;
        let mut parameters = [(&raw mut for_ns).cast::<c_void>()];
        // SAFETY: as above; one block with one thread, the default stream, and the kernel's number and types of
        // parameters, which the driver has copied when it returns.
        unsafe {
            let launch: Symbol<'_, Launch> = self.library.get(b"cuLaunchKernel\0")?;
            let parameters = parameters.as_mut_ptr();
            check("cuLaunchKernel", launch(function, 1, 1, 1, 1, 1, 1, 0, null_mut(), parameters, null_mut()))?;
            let wait: Symbol<'_, unsafe extern "C" fn() -> c_int> = self.library.get(b"cuCtxSynchronize\0")?;
            check("cuCtxSynchronize", wait())
        }
    }
}

fn check(call: &str, code: c_int) -> Result<()> {
    ensure!(code == 0, "{call} returned {code}; see CUresult in cuda.h");
    Ok(())
}
