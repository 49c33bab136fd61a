//! The sources of a sample: one file per source, and their common parts.
//!
//! A source reads and counts; the sampler decides what to do when a source fails.

pub mod bpf;
pub mod cgroup;
pub mod cgroup_file;
pub mod gpu;
#[cfg(test)]
mod live_tests;
pub mod machine;
pub mod memory_proof;
#[cfg(test)]
mod parity_tests;
pub mod paths;
mod pci_bus;
pub mod pods;
#[cfg(test)]
mod removed_tests;
#[cfg(test)]
mod rights_tests;
pub mod run_queue;
#[cfg(test)]
mod run_queue_tests;
pub mod values;

use std::io;
use std::path::PathBuf;

use crate::sample::assignment::AssignmentSample;
use crate::sample::gpu::{GpuSample, WorkerEnds};
use crate::sample::{CgroupSample, CgroupSource, Moment, Reason};

/// A source of values per cgroup.
///
/// Reading may block for as long as the kernel takes, so it happens on the sampler's own thread.
pub trait ReadCgroups: Send {
    /// Which source this is, also for failures.
    fn source(&self) -> CgroupSource;

    /// Reads all cgroups at this instant.
    fn read(&mut self) -> Result<CgroupSample, SourceError>;
}

/// A source of GPU values, for one vendor.
///
/// Request and response are separate, so that other sources are read while a driver takes its time.
pub trait ReadGpus: Send {
    /// Requests the values of this instant without waiting.
    fn ask(&mut self, at: Moment);

    /// Waits for the response to the latest request, up to the source's deadline.
    fn answer(&mut self) -> Result<GpuSample, SourceError>;

    /// Processes that called the driver's library and have ended. All 0 if no other process calls it.
    fn worker_ends(&self) -> WorkerEnds {
        WorkerEnds::default()
    }
}

/// A source of what kubelet assigned.
pub trait ReadAssignments: Send {
    /// Queries kubelet, up to the source's deadline. `None` if there is no kubelet here.
    fn read(&mut self, at: Moment) -> Result<Option<AssignmentSample>, SourceError>;
}

/// Why a source could not read its part.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source can't work on this machine or in this build, which is known from the start.
    #[error("{why}")]
    Unavailable {
        /// The reason for the report.
        reason: Reason,
        /// The reason for the log.
        why: String,
    },
    /// A file or directory could not be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Path of the file or directory.
        path: PathBuf,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// A file does not have the format that the kernel documents.
    #[error("{} has no {what}", path.display())]
    Malformed {
        /// Path of the file.
        path: PathBuf,
        /// What is missing in it.
        what: &'static str,
    },
    /// A step of the eBPF walk failed.
    #[error("cgroup walk by eBPF: cannot {step}")]
    Walk {
        /// What was attempted.
        step: &'static str,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// The GPUs could not be read.
    #[error(transparent)]
    Gpus(#[from] gpu::GpuError),
    /// Kubelet could not be queried.
    #[error(transparent)]
    Assignments(#[from] pods::PodsError),
    /// The eBPF walk ended before its last cgroup, or another walk overwrote it.
    #[error("cgroup walk {session} ended before the last cgroup")]
    WalkUnfinished {
        /// The kernel's number of the walk.
        session: u64,
    },
}

impl SourceError {
    /// The reason in reports and metrics, from a bounded set.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unavailable { reason, .. } => *reason,
            Self::Read { source, .. } | Self::Walk { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Reason::NotFound,
                io::ErrorKind::PermissionDenied => Reason::NotPermitted,
                _ => Reason::Io,
            },
            Self::Malformed { .. } => Reason::Malformed,
            Self::WalkUnfinished { .. } => Reason::WalkUnfinished,
            Self::Gpus(error) => error.reason(),
            Self::Assignments(error) => error.reason(),
        }
    }
}

/// A source that can't read anything on this machine and returns the reason each time.
#[derive(Debug)]
pub struct Unavailable {
    /// The source that it replaces.
    pub source: CgroupSource,
    /// The reason for the report.
    pub reason: Reason,
    /// The reason for the log.
    pub why: String,
}

impl ReadCgroups for Unavailable {
    fn source(&self) -> CgroupSource {
        self.source
    }

    fn read(&mut self) -> Result<CgroupSample, SourceError> {
        Err(SourceError::Unavailable { reason: self.reason, why: self.why.clone() })
    }
}
