//! Takes a sample: reads each source once, in order of preference. It never fails: what a source could not read is
//! absent, with the reason.
//!
//! It has no timer and sends nothing: [`crate::ticker`] decides when to sample.

use std::time::Duration;

use crate::gpu_time::GpuTime;
use crate::pod_totals::PodTotals;
use crate::pod_totals::kept::KeptPods;
use crate::sample::assignment::AssignmentSample;
use crate::sample::gpu::GpuSample;
use crate::sample::{CgroupSample, Failure, Moment, Sample, SourceName, chain};
use crate::source::machine::MachineFiles;
use crate::source::{ReadAssignments, ReadCgroups, ReadGpus, SourceError};

/// Takes samples.
pub struct Sampler {
    clock: Clock,
    machine: MachineFiles,
    /// The first source that can read is used. All are tried again each time, so a source that recovers is used again.
    cgroups: Vec<Box<dyn ReadCgroups>>,
    gpus: Option<(Box<dyn ReadGpus>, GpuTime)>,
    assignments: Option<Box<dyn ReadAssignments>>,
    pods: PodTotals,
    kept_pods: Option<KeptPods>,
}

/// Returns the current time on both clocks.
pub type Clock = Box<dyn FnMut() -> Moment + Send>;

impl Sampler {
    /// A sampler of these sources. The cgroup sources are in order of preference.
    pub fn new(clock: Clock, machine: MachineFiles, cgroups: Vec<Box<dyn ReadCgroups>>) -> Self {
        Self { clock, machine, cgroups, gpus: None, assignments: None, pods: PodTotals::default(), kept_pods: None }
    }

    /// Adds GPUs to the samples, which are planned this far apart.
    #[must_use]
    pub fn with_gpus(mut self, gpus: Box<dyn ReadGpus>, interval: Duration) -> Self {
        self.gpus = Some((gpus, GpuTime::new(interval)));
        self
    }

    /// Adds what kubelet assigned to the samples.
    #[must_use]
    pub fn with_assignments(mut self, assignments: Box<dyn ReadAssignments>) -> Self {
        self.assignments = Some(assignments);
        self
    }

    /// Adds the pods' totals that an earlier agent of this node kept, and keeps them for the next one.
    #[must_use]
    pub fn with_kept_pods(mut self, kept: KeptPods) -> Self {
        self.pods = kept.recall();
        self.kept_pods = Some(kept);
        self
    }

    /// Takes one sample. It blocks until the kernel has responded.
    pub fn sample(&mut self) -> Sample {
        let at = (self.clock)();
        if let Some((gpus, _)) = &mut self.gpus {
            gpus.ask(at);
        }
        let (machine, errors) = self.machine.read();
        let mut failures: Vec<Failure> = errors.iter().map(|error| failure(SourceName::Machine, error)).collect();
        let mut cgroups = self.read_cgroups(&mut failures);
        if let Some(cgroups) = &mut cgroups {
            self.pods.take(at.uptime_ns, cgroups);
            if let Some(kept) = &mut self.kept_pods {
                kept.keep(&self.pods);
            }
        }
        let ended_pods = self.pods.ended().cloned().collect();
        let assignments = self.read_assignments(at, &mut failures);
        let gpus = self.read_gpus(at, cgroups.as_ref(), &mut failures);
        let worker_ends = self.gpus.as_ref().map(|(gpus, _)| gpus.worker_ends()).unwrap_or_default();
        Sample { at, machine, cgroups, gpus, worker_ends, assignments, ended_pods, failures }
    }

    fn read_assignments(&mut self, at: Moment, failures: &mut Vec<Failure>) -> Option<AssignmentSample> {
        self.assignments.as_mut()?.read(at).unwrap_or_else(|error| {
            failures.push(failure(SourceName::Assignments, &error));
            None
        })
    }

    fn read_gpus(
        &mut self,
        at: Moment,
        cgroups: Option<&CgroupSample>,
        failures: &mut Vec<Failure>,
    ) -> Option<GpuSample> {
        let (gpus, time) = self.gpus.as_mut()?;
        let mut gpus = match gpus.answer() {
            Ok(gpus) => Some(gpus),
            Err(error) => {
                failures.push(failure(SourceName::Gpus, &error));
                None
            }
        };
        time.take(at, gpus.as_mut(), cgroups);
        gpus
    }

    fn read_cgroups(&mut self, failures: &mut Vec<Failure>) -> Option<CgroupSample> {
        for reader in &mut self.cgroups {
            match reader.read() {
                Ok(cgroups) => return Some(cgroups),
                Err(error) => failures.push(failure(SourceName::Cgroups(reader.source()), &error)),
            }
        }
        None
    }
}

fn failure(source: SourceName, error: &SourceError) -> Failure {
    Failure { source, reason: error.reason(), detail: chain(error) }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;
    use crate::sample::{CgroupSource, Reason};

    struct Scripted(CgroupSource, Vec<Result<CgroupSample, SourceError>>);

    impl ReadCgroups for Scripted {
        fn source(&self) -> CgroupSource {
            self.0
        }

        fn read(&mut self) -> Result<CgroupSample, SourceError> {
            self.1.remove(0)
        }
    }

    fn read_by(source: CgroupSource) -> CgroupSample {
        CgroupSample {
            source,
            cgroups: Vec::new(),
            from_files: Vec::new(),
            probes: None,
            seen: 0,
            dropped: 0,
            removals: None,
        }
    }

    fn refused() -> SourceError {
        SourceError::Walk { step: "create the iterator", source: io::ErrorKind::PermissionDenied.into() }
    }

    fn sampler(cgroups: Vec<Box<dyn ReadCgroups>>) -> Sampler {
        let mut ticks = 0;
        let clock = move || {
            ticks += 1;
            Moment { unix_ms: ticks, uptime_ns: ticks }
        };
        let nowhere = Path::new("/nonexistent");
        Sampler::new(Box::new(clock), MachineFiles::new(nowhere, nowhere), cgroups)
    }

    #[test]
    fn a_source_that_fails_gives_way_to_the_next_and_is_asked_again_next_time() {
        let bpf = Scripted(CgroupSource::Bpf, vec![Err(refused()), Ok(read_by(CgroupSource::Bpf))]);
        let files = Scripted(CgroupSource::Files, vec![Ok(read_by(CgroupSource::Files))]);
        let mut sampler = sampler(vec![Box::new(bpf), Box::new(files)]);
        let first = sampler.sample();
        assert_eq!(first.cgroups.unwrap().source, CgroupSource::Files);
        let failure = first.failures.last().unwrap();
        assert_eq!((failure.source, failure.reason), (SourceName::Cgroups(CgroupSource::Bpf), Reason::NotPermitted));
        assert_eq!(failure.detail, "cgroup walk by eBPF: cannot create the iterator: permission denied");
        let second = sampler.sample();
        assert_eq!(second.cgroups.unwrap().source, CgroupSource::Bpf);
        assert_eq!(second.at.unix_ms, 2);
    }

    #[test]
    fn a_machine_of_which_nothing_can_be_read_still_gives_a_sample() {
        let mut sampler = sampler(vec![Box::new(Scripted(CgroupSource::Bpf, vec![Err(refused())]))]);
        let sample = sampler.sample();
        assert_eq!(sample.cgroups, None);
        assert_eq!(sample.machine, crate::sample::Machine::default());
        let reasons: Vec<_> = sample.failures.iter().map(|failure| (failure.source, failure.reason)).collect();
        let machine = (SourceName::Machine, Reason::NotFound);
        let bpf = (SourceName::Cgroups(CgroupSource::Bpf), Reason::NotPermitted);
        assert_eq!(reasons, [machine, machine, machine, bpf]);
    }
}
