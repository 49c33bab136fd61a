//! The GPUs of a node, read through NVML: which devices exist, which are healthy, and who uses them.
//!
//! Calls are made in a process of their own (`worker`, `session`, `device`, `nvlink`, `raw`), which `watchdog` queries,
//! ends and starts (`process`, `restarts`), and return as plain values (`message`, `reading`). On the sampler's thread,
//! further modules derive values over time or from other sources than NVML: `pci_bus` for all vendors, `remembered`,
//! `fabric`, `health`, `users`, `ledger`. Only these modules of the agent use nvml-wrapper.

mod device;
mod fabric;
mod fields;
mod health;
mod ledger;
mod library;
mod message;
mod nvlink;
mod process;
mod raw;
mod reading;
mod remembered;
mod restarts;
mod session;
#[cfg(test)]
mod tests;
mod users;
mod watchdog;
mod worker;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use health::IGNORED_XIDS;
pub use remembered::forget;
pub use users::DAEMONS;
pub use worker::{WorkerError, serve_agent};

use self::health::Xids;
use self::ledger::{Elapsed, Ledger};
use self::message::{Cause, Failure, Question};
use self::process::Launch;
use self::reading::{DeviceReading, FabricReading, Fault, Memory, Reading};
use self::remembered::Remembered;
use self::users::Users;
use self::watchdog::Watchdog;
use super::pci_bus::PciBus;
use super::{ReadGpus, SourceError};
use crate::sample::gpu::{Gpu, GpuSample, Load, MigInstance, WorkerEnd, WorkerEnds};
use crate::sample::{Moment, Reason};
use crate::sandbox::Sandbox;
use crate::vendor::NVIDIA;

/// Paths and time limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program whose subcommand `nvml-worker` calls NVML. `None` means this program.
    pub program: Option<PathBuf>,
    /// Whether that program restricts itself.
    pub sandbox: Sandbox,
    /// Path of the NVML library. `None`: it is searched in the usual places.
    pub library: Option<PathBuf>,
    /// The host's `/proc`.
    pub proc_root: PathBuf,
    /// The host's `/sys`.
    pub sys_root: PathBuf,
    /// Where the largest number of GPUs is remembered. `None`: only in this process.
    pub state_dir: Option<PathBuf>,
    /// Xids that do not affect health.
    pub ignored_xids: Vec<u64>,
    /// Names of processes that serve other processes on a GPU or observe them, and so do not use it themselves.
    pub daemons: Vec<String>,
    /// How long to wait for a response.
    pub deadline: Duration,
    /// How long a request may stay without a response before the process is replaced.
    pub patience: Duration,
    /// How long one wait for events lasts, which is also how long a request may have to wait.
    pub listen: Duration,
}

/// [`Settings::listen`] of an agent: the process wakes ten times a second, for some 10 µs each time.
pub const LISTEN: Duration = Duration::from_millis(100);

/// When to search for a lost device by initialising NVML again, which wakes every GPU and takes seconds: a minute after
/// it was first missed, then after twice the time, up to an hour.
const SEARCH_FIRST_NS: u64 = 60 * 1_000_000_000;
const SEARCH_AT_MOST_NS: u64 = 3600 * 1_000_000_000;

/// A part of the driver version of fake-nvml, which no real driver has.
const FAKE: &str = "fake";

/// Reads the GPUs.
pub struct NvmlGpus {
    watchdog: Watchdog,
    bus: PciBus,
    remembered: Remembered,
    xids: Xids,
    users: Users,
    ledger: Ledger,
    asked: Option<(Moment, Question)>,
    /// When the last round was, if it succeeded.
    last_ns: Option<u64>,
    /// Whether the driver failed since the last response; neither a timeout nor a failure of the process counts.
    driver_failed: bool,
    search: Option<Search>,
    /// Addresses on the bus in the last successful round.
    on_bus: BTreeSet<String>,
}

/// A search for missing devices.
#[derive(Clone, Copy, Debug)]
struct Search {
    due_ns: u64,
    wait_ns: u64,
}

impl Search {
    /// How long to wait after one more search that found nothing.
    fn next_wait_ns(self) -> u64 {
        (self.wait_ns * 2).clamp(SEARCH_FIRST_NS, SEARCH_AT_MOST_NS)
    }
}

/// Why the GPUs could not be read.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// A call takes too long or hangs.
    #[error("NVML does not respond in time")]
    Timeout,
    /// The process that calls NVML is not running.
    #[error("the process that calls NVML {detail}")]
    Worker {
        /// How it ended.
        end: WorkerEnd,
        /// Details for the log.
        detail: String,
    },
    /// NVML gave no reading.
    #[error("{detail}")]
    Nvml {
        /// The kind of the failure.
        reason: Reason,
        /// The message of NVML or the loader.
        detail: String,
    },
    /// The PCI bus can't be read.
    #[error("cannot list {}", path.display())]
    Bus {
        /// The directory.
        path: PathBuf,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
}

impl GpuError {
    /// The reason in reports and metrics, from a bounded set.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Timeout | Self::Worker { end: WorkerEnd::Hung, .. } => Reason::Timeout,
            Self::Worker { end: WorkerEnd::Signal | WorkerEnd::Exited, .. } => Reason::Crashed,
            Self::Worker { end: WorkerEnd::Nonsense, .. } => Reason::Malformed,
            Self::Nvml { reason, .. } => *reason,
            Self::Bus { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Reason::NotPermitted,
            Self::Bus { .. } | Self::Worker { end: WorkerEnd::NotStarted, .. } => Reason::Io,
        }
    }
}

impl From<Failure> for GpuError {
    fn from(Failure { cause, detail }: Failure) -> Self {
        let reason = match cause {
            Cause::NoLibrary => Reason::NoLibrary,
            Cause::NoDriver => Reason::NoDriver,
            Cause::NotPermitted => Reason::NotPermitted,
            Cause::Driver => Reason::Driver,
        };
        Self::Nvml { reason, detail }
    }
}

impl NvmlGpus {
    /// A source with these settings. It makes no calls and starts nothing yet.
    pub fn new(settings: &Settings) -> Self {
        let launch = Launch {
            program: settings.program.clone(),
            sandbox: settings.sandbox,
            library: settings.library.clone(),
            events: settings.listen,
        };
        Self {
            watchdog: Watchdog::new(launch, settings.deadline, settings.patience),
            bus: PciBus::new(&NVIDIA, &settings.sys_root),
            remembered: Remembered::new(settings.state_dir.as_deref(), &settings.sys_root),
            xids: Xids::new(settings.ignored_xids.iter().copied()),
            users: Users::new(&settings.proc_root, &settings.daemons),
            ledger: Ledger::default(),
            asked: None,
            last_ns: None,
            driver_failed: false,
            search: None,
            on_bus: BTreeSet::new(),
        }
    }

    /// If there is no library or no driver, and no GPU on the bus would need one, this is a node without GPUs.
    fn without(&mut self, error: GpuError) -> Result<GpuSample, GpuError> {
        if !matches!(error.reason(), Reason::NoLibrary | Reason::NoDriver) || !self.look_at_bus()?.is_empty() {
            return Err(error);
        }
        Ok(GpuSample { remembered: self.remembered.note(std::iter::empty()), ..GpuSample::default() })
    }

    fn look_at_bus(&mut self) -> Result<BTreeSet<String>, GpuError> {
        self.bus.gpus().map_err(|(path, source)| GpuError::Bus { path, source })
    }

    /// Processes the results of one round.
    fn account(&mut self, at: Moment, question: Question, reading: Reading) -> Result<GpuSample, GpuError> {
        let on_bus = self.look_at_bus()?;
        let fake = reading.driver_version.contains(FAKE);
        if fake && reading.initialised {
            tracing::warn!("these GPUs are fake: the library is fake-nvml");
        }
        // The process initialised NVML without being asked to: the driver was reloaded.
        let reloaded = reading.initialised && question == Question::Read && self.last_ns.is_some();
        if reloaded || self.driver_failed {
            self.xids.driver_was_away();
        }
        self.xids.note(&reading, at.uptime_ns);
        let since_last_ns = self.last_ns.map(|last| at.uptime_ns.saturating_sub(last));
        let elapsed = Elapsed { now_ns: at.uptime_ns, since_last_ns };
        self.users.begin_round();
        self.ledger.begin_round(at.uptime_ns);

        let remembered = self.remembered.note(reading.devices.iter().map(|device| &device.uuid));
        let lost_bus_ids: Vec<String> = on_bus.iter().filter(|address| !lists(&reading, address)).cloned().collect();
        let missing = !lost_bus_ids.is_empty() || reading.devices.iter().any(|d| d.health.fault == Some(Fault::Lost));
        self.plan_search(missing, at.uptime_ns, question, on_bus);

        let devices = reading.devices.iter().map(|device| self.device(device, elapsed)).collect();
        Ok(GpuSample {
            fake,
            driver_version: Some(reading.driver_version),
            devices,
            lost_bus_ids,
            remembered,
            calls: reading.calls,
            since_last_ns,
            resource: NVIDIA.gpu,
            part_prefix: NVIDIA.part_prefix,
        })
    }

    /// Plans the next search for lost devices: at once if the bus has changed.
    fn plan_search(&mut self, missing: bool, now_ns: u64, question: Question, on_bus: BTreeSet<String>) {
        let bus_changed = self.last_ns.is_some() && self.on_bus != on_bus;
        self.on_bus = on_bus;
        let wait_ns = match self.search {
            _ if !missing => {
                self.search = None;
                return;
            }
            _ if bus_changed => 0,
            None => SEARCH_FIRST_NS,
            // This round was a search and found nothing.
            Some(search) if question == Question::ReadAnew => search.next_wait_ns(),
            Some(_) => return,
        };
        self.search = Some(Search { due_ns: now_ns + wait_ns, wait_ns });
    }

    fn device(&mut self, device: &DeviceReading, elapsed: Elapsed) -> Gpu {
        self.ledger.processes(device, &mut self.users, elapsed);
        let unhealthy = self.xids.of_device(device);
        let instance = |instance: &reading::InstanceReading| MigInstance {
            uuid: instance.uuid.clone(),
            profile: instance.profile.clone(),
            gpu_instance: instance.gpu_instance,
            compute_instance: instance.compute_instance,
            unhealthy: self.xids.of_instance(device, &unhealthy, instance.gpu_instance),
            load: Load { uses: self.ledger.uses(&instance.uuid), ..with_memory(instance.memory) },
        };
        let mig_instances = device.instances.iter().map(instance).collect();
        let load = Load {
            utilization_ratio: device.utilization_ratio,
            busy_ns: self.ledger.busy(device, elapsed),
            busy_gain_ns: ledger::gain(device, elapsed),
            uses: self.ledger.uses(&device.uuid),
            ..with_memory(device.memory)
        };
        Gpu {
            uuid: device.uuid.clone(),
            model: device.model.clone(),
            bus_id: device.bus_id.clone(),
            mig_mode: device.mig_mode,
            mig_instances,
            unhealthy,
            warnings: device.health.fabric.iter().flat_map(FabricReading::warnings).collect(),
            load,
            lists_failed: device.lists_failed,
            uses_complete: !device.lists_failed && device.lists_compute && self.users.sees_host(),
            xid_errors: self.xids.counts(&device.uuid),
            nvlink_errors: device.nvlink_errors,
        }
    }
}

impl ReadGpus for NvmlGpus {
    fn ask(&mut self, at: Moment) {
        let due = self.search.is_some_and(|search| search.due_ns <= at.uptime_ns);
        let question = if due { Question::ReadAnew } else { Question::Read };
        self.watchdog.ask(question);
        self.asked = Some((at, question));
    }

    fn answer(&mut self) -> Result<GpuSample, SourceError> {
        // Without a request there is no response.
        let Some((at, question)) = self.asked.take() else { return Err(GpuError::Timeout.into()) };
        let sample = match self.watchdog.answer() {
            Ok(reading) => self.account(at, question, reading),
            Err(error) => {
                self.driver_failed |= matches!(error, GpuError::Nvml { .. });
                self.last_ns = None;
                // A search that takes longer than the deadline counts as done: the next request gets its result, and
                // must not start another.
                if let Some(search) = self.search.filter(|_| question == Question::ReadAnew) {
                    let wait_ns = search.next_wait_ns();
                    self.search = Some(Search { due_ns: at.uptime_ns + wait_ns, wait_ns });
                }
                return self.without(error).map_err(SourceError::from);
            }
        };
        self.driver_failed = false;
        self.last_ns = sample.is_ok().then_some(at.uptime_ns);
        sample.map_err(SourceError::from)
    }

    fn worker_ends(&self) -> WorkerEnds {
        self.watchdog.ends()
    }
}

/// A device that fell off the bus while NVML had it open is listed, and reports itself as lost.
fn lists(reading: &Reading, address: &str) -> bool {
    reading.devices.iter().any(|device| *device.bus_id == *address)
}

fn with_memory(memory: Option<Memory>) -> Load {
    Load {
        memory_used_bytes: memory.map(|memory| memory.used_bytes),
        memory_total_bytes: memory.map(|memory| memory.total_bytes),
        ..Load::default()
    }
}

impl std::fmt::Debug for NvmlGpus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NvmlGpus").field("asked", &self.asked).finish_non_exhaustive()
    }
}
