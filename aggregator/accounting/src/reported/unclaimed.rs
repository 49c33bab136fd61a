//! Memory of GPUs that is in use although no process on the GPU uses it: what a dead process left behind.
//!
//! The driver frees the memory of a process shortly after its end, and reads amounts and processes one after another. So only what two
//! reports in a row show counts. Owns what is kept of a report for that.
use std::sync::Arc;

use mcad_wire::reading::{Gpu, GpuUse, Report};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Unclaimed(Box<[OfGpu]>);

#[derive(Debug)]
struct OfGpu {
    uuid: Arc<str>,
    /// In the last report.
    bytes: u64,
    /// In the report before. `None` if it is not known.
    before: Option<u64>,
}

impl Unclaimed {
    /// What a report shows. `known` is that of the report before, if it is of the same agent process.
    pub(super) fn after(known: Option<&Self>, report: &Report<'_>) -> Self {
        let known = known.map_or(&[][..], |known| &known.0);
        let gpus = report.gpus.as_ref().map_or(&[][..], |gpus| &gpus.devices);
        let of_gpu = |gpu: &Gpu<'_>| {
            let bytes = unclaimed_bytes(gpu)?;
            let was = known.iter().find(|was| *was.uuid == *gpu.uuid);
            let uuid = was.map_or_else(|| gpu.uuid.into(), |was| was.uuid.clone());
            Some(OfGpu { uuid, bytes, before: was.map(|was| was.bytes) })
        };
        Self(gpus.iter().filter_map(of_gpu).collect())
    }

    /// What both reports show of this GPU. `None` if one of them does not tell.
    pub(super) fn lasting(&self, uuid: &str) -> Option<u64> {
        let of = self.0.iter().find(|of| *of.uuid == *uuid)?;
        Some(of.bytes.min(of.before?))
    }

    /// Approximate size in bytes.
    pub(super) fn weight(&self) -> usize {
        size_of_val(&*self.0) + self.0.iter().map(|of| of.uuid.len() + 2 * size_of::<usize>()).sum::<usize>()
    }
}

/// `None` if the memory of a process is not known, or the processes are not all known. In MIG mode, memory is that of instances.
fn unclaimed_bytes(gpu: &Gpu<'_>) -> Option<u64> {
    if gpu.mig_mode == Some(true) || gpu.uses_complete == Some(false) {
        return None;
    }
    let present = |used: &&GpuUse<'_>| used.processes > 0;
    let mut left = gpu.memory_used_bytes?;
    for used in gpu.uses.iter().filter(present) {
        left = left.saturating_sub(used.memory_used_bytes?);
    }
    Some(left)
}
