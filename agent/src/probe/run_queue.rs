//! The program that runs at each task switch, and its maps. [`crate::run_queue`] computes the totals of cgroups from
//! its values.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{Ordering, fence},
};

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, tp_btf::BtfTracePointLink},
};
use mcad_wire::abi::{self, RUN_QUEUE_WAYS, RunQueueCpu, RunQueueOffsets, RunQueuePlace, RunQueueSet};

use super::{ProbeError, mapped::Mapped};
use crate::{
    kernel_types::{KernelTypes, TypesError},
    sample::RunQueue,
};

/// Limit of map memory for waits per cgroup: with it, a machine with 256 CPUs has room for 1,024 cgroups on each.
const MAX_MAP_BYTES: usize = 8 << 20;
/// Limit of sets per CPU: no walk holds more than twice as many cgroups.
const MAX_SETS: u32 = 512;

/// What the program needs when it is loaded.
#[derive(Clone, Copy, Debug)]
pub struct RunQueuePlan {
    pub(super) offsets: RunQueueOffsets,
    pub(super) cpus: u32,
}

impl RunQueuePlan {
    /// The plan for this kernel with this many possible CPUs. An error if the kernel does not account the waits of
    /// tasks.
    pub fn new(types: &KernelTypes, cpus: u32) -> Result<Self, TypesError> {
        let offsets = RunQueueOffsets {
            task_pid: types.sized("task_struct", "pid", 4)?,
            task_run_delay: types.sized("task_struct", "sched_info.run_delay", 8)?,
            task_cgroups: types.pointer("task_struct", "cgroups")?,
            css_set_cgroup: types.pointer("css_set", "dfl_cgrp")?,
            cgroup_serial: types.sized("cgroup", "self.serial_nr", 8)?,
            cgroup_kn: types.pointer("cgroup", "kn")?,
            kernfs_id: types.sized("kernfs_node", "id", 8)?,
            sets: sets(cpus),
        };
        Ok(Self { offsets, cpus })
    }

    /// The same plan with one set per CPU.
    #[cfg(test)]
    pub(super) fn crowded(self) -> Self {
        Self { offsets: RunQueueOffsets { sets: 1, ..self.offsets }, ..self }
    }

    /// Entries of the maps of CPUs, sets and tasks.
    pub(super) fn map_entries(self) -> [u32; 3] {
        [self.cpus, self.cpus * self.offsets.sets, abi::RUN_QUEUE_TASKS]
    }
}

/// Sets per CPU: a power of two, as many as fit into the memory limit.
fn sets(cpus: u32) -> u32 {
    let fit = MAX_MAP_BYTES / size_of::<RunQueueSet>() / cpus.max(1) as usize;
    let largest = 1 << fit.max(1).ilog2();
    largest.min(MAX_SETS)
}

/// The attached program.
#[derive(Debug)]
pub struct RunQueueProbe {
    cpus: Mapped<RunQueueCpu>,
    sets: Mapped<RunQueueSet>,
    run: Mapped<u64>,
    /// The number of the latest run. The program is paused if its map holds another number.
    latest_run: u64,
    /// Detaches the program when dropped.
    _link: BtfTracePointLink,
}

/// Loads a program and attaches it to the task switch.
pub(super) fn at_switch(probes: &mut Ebpf, btf: &Btf, name: &'static str) -> Result<BtfTracePointLink, ProbeError> {
    let in_program = |source| ProbeError::Program { name, source };
    let at_tracepoint = |source| ProbeError::AttachProgram { name, source };
    let program: Option<&mut BtfTracePoint> = probes.program_mut(name).and_then(|program| program.try_into().ok());
    let program = program.ok_or(ProbeError::Missing { kind: "tracepoint program", name })?;
    program.load("sched_switch", btf).map_err(in_program)?;
    let link = program.attach().map_err(at_tracepoint)?;
    program.take_link(link).map_err(at_tracepoint)
}

/// The contents of the maps at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQueueReading {
    /// The sum over all CPUs; `run`, `pid` and `run_delay_ns` have no meaning here.
    pub all: RunQueueCpu,
    /// Waits by cgroup id.
    pub cgroups: HashMap<u64, RunQueue>,
}

impl RunQueueProbe {
    /// Loads the program, attaches it and lets it run.
    pub(super) fn attach(probes: &mut Ebpf, btf: &Btf, plan: RunQueuePlan) -> Result<Self, ProbeError> {
        let link = at_switch(probes, btf, abi::RUN_QUEUE_PROGRAM)?;
        let mut probe = Self {
            cpus: Mapped::of(probes, abi::RUN_QUEUE_CPUS_MAP, plan.cpus)?,
            sets: Mapped::writable(probes, abi::RUN_QUEUE_SETS_MAP, plan.cpus * plan.offsets.sets)?,
            run: Mapped::writable(probes, abi::RUN_QUEUE_RUN_MAP, 1)?,
            latest_run: 0,
            _link: link,
        };
        probe.resume();
        Ok(probe)
    }

    /// Reads all maps. The values of a cgroup that is running right now may differ by one wait.
    pub fn read(&self) -> RunQueueReading {
        let mut reading = RunQueueReading::default();
        for index in 0..self.cpus.len() {
            add_cpu(&mut reading.all, &self.cpus.get(index));
        }
        for index in 0..self.sets.len() {
            for place in self.taken(index).into_iter().flatten() {
                let total = reading.cgroups.entry(place.id).or_default();
                total.wait_ns += place.waits.wait_ns;
                total.waits += place.waits.waits;
            }
        }
        reading
    }

    /// Frees the places of ended cgroups.
    pub fn free(&mut self, ended: &HashSet<u64>) {
        if ended.is_empty() {
            return;
        }
        for index in 0..self.sets.len() {
            for (way, place) in self.taken(index).into_iter().enumerate() {
                if place.is_some_and(|place| ended.contains(&place.id)) {
                    let set = self.sets.pointer(index).cast::<RunQueuePlace>();
                    // SAFETY: in range of a writable mapping; the kernel reads this word as a whole. No task of an
                    // ended cgroup runs, so the program does not add to this place, and a cgroup that takes it resets
                    // it first.
                    unsafe { (&raw mut (*set.add(way)).serial).write_volatile(0) };
                }
            }
        }
    }

    /// The places of a set that are in use.
    fn taken(&self, index: usize) -> [Option<RunQueuePlace>; RUN_QUEUE_WAYS] {
        let set = self.sets.pointer(index).cast_const().cast::<RunQueuePlace>();
        std::array::from_fn(|way| {
            // SAFETY: in range of the mapping, aligned, and any bit pattern is a place (abi.rs). Volatile, because the
            // kernel writes it.
            let serial = unsafe { (&raw const (*set.add(way)).serial).read_volatile() };
            if serial == 0 {
                return None;
            }
            // The serial number is written last, so the other fields are read after it.
            fence(Ordering::Acquire);
            // SAFETY: as above.
            Some(unsafe { set.add(way).read_volatile() })
        })
    }

    /// How many CPUs this machine can have.
    pub fn cpus(&self) -> u32 {
        self.cpus.len() as u32
    }

    /// Pauses the program: from now on it only returns.
    pub fn pause(&mut self) {
        self.set_run(0);
    }

    /// Resumes the program. Waits during the pause are lost.
    pub fn resume(&mut self) {
        self.latest_run += 1;
        self.set_run(self.latest_run);
    }

    fn set_run(&mut self, run: u64) {
        // SAFETY: the only entry of a writable mapping; the kernel reads this word as a whole.
        unsafe { self.run.pointer(0).write_volatile(run) };
        fence(Ordering::Release);
    }
}

fn add_cpu(all: &mut RunQueueCpu, cpu: &RunQueueCpu) {
    all.switches += cpu.switches;
    all.mismatches += cpu.mismatches;
    all.unknown += cpu.unknown;
    all.all.wait_ns += cpu.all.wait_ns;
    all.all.waits += cpu.all.waits;
    all.dropped.wait_ns += cpu.dropped.wait_ns;
    all.dropped.waits += cpu.dropped.waits;
    all.timed += cpu.timed;
    all.timed_ns += cpu.timed_ns;
    for (sum, count) in all.histogram.iter_mut().zip(cpu.histogram) {
        *sum += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_memory_is_bounded_on_every_machine() {
        for cpus in [1, 2, 3, 64, 100, 256, 1024, 8192] {
            let (sets, bytes) = (sets(cpus), sets(cpus) as usize * cpus as usize * size_of::<RunQueueSet>());
            assert!(sets.is_power_of_two(), "{cpus}: {sets}");
            assert!(bytes <= MAX_MAP_BYTES || sets == 1, "{cpus}: {bytes}");
        }
        assert_eq!(sets(2) as usize * RUN_QUEUE_WAYS, 4096);
        assert_eq!(sets(256) as usize * RUN_QUEUE_WAYS, 1024);
    }
}
