//! Where a sample comes from: one file per source, and what they have in common.
//!
//! A source reads and counts; what to do about a source that fails is the sampler's business.

pub mod bpf;
pub mod cgroup;
pub mod decode;
pub mod figures;
pub mod gpu;
#[cfg(test)]
mod live_tests;
pub mod machine;
pub mod memory_proof;
#[cfg(test)]
mod parity_tests;
pub mod paths;
pub mod pods;
#[cfg(test)]
mod removed_tests;
#[cfg(test)]
mod rights_tests;
pub mod run_queue;
#[cfg(test)]
mod run_queue_tests;

use std::io;
use std::path::PathBuf;

use crate::sample::assignment::AssignmentSample;
use crate::sample::gpu::{GpuSample, WorkerEnds};
use crate::sample::{CgroupSample, CgroupSource, Moment, Reason};

/// A source of per-cgroup figures.
///
/// Reading may block for as long as the kernel takes, so it happens on the sampler's own thread.
pub trait ReadCgroups: Send {
    /// Which source this is, also when it fails.
    fn source(&self) -> CgroupSource;

    /// Reads all cgroups at this instant.
    fn read(&mut self) -> Result<CgroupSample, SourceError>;
}

/// A source of GPU figures.
///
/// Asking and answering are apart, so that other sources are read while a driver takes its time.
pub trait ReadGpus: Send {
    /// Asks for the figures of this instant, and does not wait.
    fn ask(&mut self, at: Moment);

    /// Waits for what was asked last, as long as the source has patience.
    fn answer(&mut self) -> Result<GpuSample, SourceError>;

    /// Processes that called NVML and are no more.
    fn worker_ends(&self) -> WorkerEnds;
}

/// A source of what kubelet handed out.
pub trait ReadAssignments: Send {
    /// Asks kubelet, for as long as the source has patience. Absent: there is no kubelet here.
    fn read(&mut self, at: Moment) -> Result<Option<AssignmentSample>, SourceError>;
}

/// Why a source could not read its part.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source can't work on this machine or in this build, known from the start.
    #[error("{why}")]
    Unavailable {
        /// For the report.
        reason: Reason,
        /// For people.
        why: String,
    },
    /// A file or directory could not be opened or read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file was read and does not look as the kernel documents it.
    #[error("{} has no {what}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// A step of the eBPF walk failed.
    #[error("walk the cgroups by eBPF: {step}")]
    Walk {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The GPUs could not be read.
    #[error(transparent)]
    Gpus(#[from] gpu::GpuError),
    /// Kubelet could not be asked.
    #[error(transparent)]
    Assignments(#[from] pods::PodsError),
    /// The eBPF walk ended before its last cgroup, or another one overwrote it.
    #[error("the cgroup walk of session {session} did not come to its end")]
    WalkUnfinished {
        /// The kernel's number of the walk.
        session: u64,
    },
}

impl SourceError {
    /// The bounded reason that reports and metrics carry.
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

/// A source that can't read anything on this machine and says why each time it is asked.
#[derive(Debug)]
pub struct Unavailable {
    /// The source it stands for.
    pub source: CgroupSource,
    /// For the report.
    pub reason: Reason,
    /// For people.
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
