//! The program at the switch of tasks, and its maps. What its figures mean for cgroups is [`crate::run_queue`]'s.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{Ordering, fence},
};

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, tp_btf::BtfTracePointLink},
};
use mcad_wire::abi::{self, RUN_QUEUE_WAYS, RunQueueCpu, RunQueueOffsets, RunQueueSet};

use super::{ProbeError, mapped::Mapped};
use crate::{
    kernel_types::{KernelTypes, TypesError},
    sample::RunQueue,
};

/// Map memory for waits by cgroup, at most: a machine of 256 processors then has room for 1,024 cgroups on each.
const MAX_MAP_BYTES: usize = 8 << 20;
/// Cgroups on one processor that are surely enough: no walk holds more than twice as many.
const MAX_SETS: u32 = 512;

/// What the program needs to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct RunQueuePlan {
    pub(super) offsets: RunQueueOffsets,
    pub(super) cpus: u32,
}

impl RunQueuePlan {
    /// For this kernel and so many possible processors. An error where the kernel keeps no waits of tasks.
    pub fn new(types: &KernelTypes, cpus: u32) -> Result<Self, TypesError> {
        let offsets = RunQueueOffsets {
            task_pid: types.offset("task_struct", "pid")?,
            task_run_delay: types.offset("task_struct", "sched_info.run_delay")?,
            task_cgroups: types.pointer("task_struct", "cgroups")?,
            css_set_cgroup: types.pointer("css_set", "dfl_cgrp")?,
            cgroup_kn: types.pointer("cgroup", "kn")?,
            kernfs_id: types.offset("kernfs_node", "id")?,
            sets: sets(cpus),
        };
        Ok(Self { offsets, cpus })
    }

    /// Entries of the maps of processors, sets and tasks.
    pub(super) fn map_entries(self) -> [u32; 3] {
        [self.cpus, self.cpus * self.offsets.sets, abi::RUN_QUEUE_TASKS]
    }
}

/// Sets for each processor: a power of two, as many as there is memory for.
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
    /// The latest run; the program is paused where it is not in its map.
    latest_run: u64,
    /// Detaches the program when dropped.
    _link: BtfTracePointLink,
}

/// What the maps hold at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQueueReading {
    /// All processors added up; `run`, `pid` and `run_delay_ns` mean nothing.
    pub all: RunQueueCpu,
    /// Waits by cgroup id.
    pub cgroups: HashMap<u64, RunQueue>,
}

impl RunQueueProbe {
    /// Loads the program, attaches it and lets it run.
    pub(super) fn attach(probes: &mut Ebpf, btf: &Btf, plan: RunQueuePlan) -> Result<Self, ProbeError> {
        let name = abi::RUN_QUEUE_PROGRAM;
        let in_program = |source| ProbeError::Program { name, source };
        let at_tracepoint = |source| ProbeError::AttachProgram { name, source };
        let program: Option<&mut BtfTracePoint> = probes.program_mut(name).and_then(|program| program.try_into().ok());
        let program = program.ok_or(ProbeError::Missing { kind: "tracepoint program", name })?;
        program.load("sched_switch", btf).map_err(in_program)?;
        let link = program.attach().map_err(at_tracepoint)?;
        let link = program.take_link(link).map_err(at_tracepoint)?;
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

    /// Reads all maps. Figures of one cgroup that is running right now may be a wait apart.
    pub fn read(&self) -> RunQueueReading {
        let mut reading = RunQueueReading::default();
        for index in 0..self.cpus.len() {
            add_processor(&mut reading.all, &self.cpus.get(index));
        }
        for index in 0..self.sets.len() {
            let set = self.sets.get(index);
            for (id, waits) in set.ids.into_iter().zip(set.waits).filter(|(id, _)| *id != 0) {
                let total = reading.cgroups.entry(id).or_default();
                total.wait_ns += waits.wait_ns;
                total.waits += waits.waits;
            }
        }
        reading
    }

    /// Gives the places of ended cgroups to others.
    pub fn free(&mut self, ended: &HashSet<u64>) {
        if ended.is_empty() {
            return;
        }
        for index in 0..self.sets.len() {
            let ids = self.sets.get(index).ids;
            for way in (0..RUN_QUEUE_WAYS).filter(|way| ended.contains(&ids[*way])) {
                // SAFETY: in range of a writable mapping; the kernel reads this word whole. Nothing of an ended cgroup runs, so the
                // program does not add to this place, and who takes it begins it anew.
                unsafe { (&raw mut (*self.sets.pointer(index)).ids[way]).write_volatile(0) };
            }
        }
    }

    /// Processors that this machine may have.
    pub fn processors(&self) -> u32 {
        self.cpus.len() as u32
    }

    /// From now on the program only returns.
    pub fn pause(&mut self) {
        self.set_run(0);
    }

    /// The program adds up again. What happened meanwhile is not made up for.
    pub fn resume(&mut self) {
        self.latest_run += 1;
        self.set_run(self.latest_run);
    }

    fn set_run(&mut self, run: u64) {
        // SAFETY: the one entry of a writable mapping; the kernel reads this word whole.
        unsafe { self.run.pointer(0).write_volatile(run) };
        fence(Ordering::Release);
    }
}

fn add_processor(all: &mut RunQueueCpu, cpu: &RunQueueCpu) {
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
