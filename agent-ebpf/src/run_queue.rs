//! Run-queue wait per cgroup, summed up at each task switch.
//!
//! The kernel keeps the waits of each task (`sched_info.run_delay`), but not those of cgroups. It increases a task's
//! total when the task gets a CPU, just after this program saw that switch, and when a waiting task is moved to another
//! CPU. So when a task leaves a CPU, the increase since it last left one belongs to its cgroup: no clock is read, and
//! no wakeup is hooked. The previous total is kept in an array, indexed by the low bits of the task's pid. For tasks
//! that have no entry in that array yet, the total when the task got the CPU is kept per CPU.

use aya_ebpf::{
    cty::c_void,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
};
use mcad_wire::abi::{
    RUN_QUEUE_BUCKETS, RUN_QUEUE_FIRST_BUCKET_NS, RUN_QUEUE_TASKS, RUN_QUEUE_TIMED, RUN_QUEUE_TIMED_AT_MOST_NS,
    RunQueueCpu, RunQueueWaits,
};

use crate::{
    kernel::Kernel,
    maps::{self, Offsets},
};

/// The arguments of the tracepoint: `preempt`, `prev`, `next`, and later ones on some kernels.
const CONTEXT_PREV: u32 = 8;
const CONTEXT_NEXT: u32 = 16;

#[unsafe(no_mangle)]
#[unsafe(link_section = "tp_btf/sched_switch")]
extern "C" fn add_up_waits(context: *mut c_void) -> i32 {
    let Some(run) = maps::RUN_QUEUE_RUN.get_ptr(0) else { return 0 };
    // SAFETY: the map's only entry. Volatile, because the agent can write it at any time.
    let run = unsafe { core::ptr::read_volatile(run) };
    if run == 0 {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let processor = unsafe { bpf_get_smp_processor_id() };
    let Some(cpu) = maps::RUN_QUEUE_CPUS.get_ptr_mut(processor) else { return 0 };
    // SAFETY: this CPU's entry. The tracepoint fires with interrupts off, so nothing else writes it; the agent only
    // reads.
    let cpu = unsafe { &mut *cpu };
    cpu.switches += 1;
    let is_timed = cpu.switches % RUN_QUEUE_TIMED == 0;
    // SAFETY: a helper without arguments.
    let started_ns = if is_timed { unsafe { bpf_ktime_get_ns() } } else { 0 };
    switch(context, processor, cpu, run);
    if is_timed {
        cpu.timed += 1;
        // SAFETY: as above.
        let took_ns = unsafe { bpf_ktime_get_ns() } - started_ns;
        cpu.timed_ns += if took_ns < RUN_QUEUE_TIMED_AT_MOST_NS { took_ns } else { RUN_QUEUE_TIMED_AT_MOST_NS };
    }
    0
}

/// An empty program, which shows the minimum cost of a program here. Only benchmarks load it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "tp_btf/sched_switch")]
extern "C" fn do_nothing(_context: *mut c_void) -> i32 {
    0
}

#[inline(always)]
fn switch(context: *mut c_void, processor: u32, cpu: &mut RunQueueCpu, run: u64) {
    let offsets = maps::run_queue_offsets();
    let Some(context) = Kernel::new(context.cast_const().cast()) else { return };
    // SAFETY: these arguments are the tracepoint's ABI.
    let (prev, next) = unsafe { (context.follow(CONTEXT_PREV), context.follow(CONTEXT_NEXT)) };
    let (Some(prev), Some(next)) = (prev, next) else { return };
    // SAFETY: the agent found these offsets in this kernel's BTF.
    let (prev_pid, next_pid): (u32, u32) =
        unsafe { (prev.member(offsets.task_pid()), next.member(offsets.task_pid())) };
    let is_same = cpu.run == run && cpu.pid == u64::from(prev_pid);
    // The idle task never waits.
    if prev_pid != 0 {
        // SAFETY: as above.
        let run_delay_ns: u64 = unsafe { prev.member(offsets.task_run_delay()) };
        let since = if is_same { Some(cpu.run_delay_ns) } else { None };
        match exchange(prev_pid, run_delay_ns).or(since) {
            Some(before_ns) if before_ns != run_delay_ns => {
                waited(prev, processor, cpu, run_delay_ns.wrapping_sub(before_ns), offsets);
            }
            Some(_) => {}
            None => cpu.unknown += 1,
        }
    }
    if cpu.run == run && !is_same {
        cpu.mismatches += 1;
    }
    cpu.run = run;
    cpu.pid = u64::from(next_pid);
    // SAFETY: as above.
    cpu.run_delay_ns = unsafe { next.member(offsets.task_run_delay()) };
}

/// Stores what a task has waited until now and returns what was stored when it last left a CPU.
///
/// It is one word, because tasks that share an entry may leave two CPUs at once. A task with the pid of an ended one
/// may find that task's waits: then its own first waits are not counted, and never more than it has.
#[inline(always)]
fn exchange(pid: u32, run_delay_ns: u64) -> Option<u64> {
    let word = maps::RUN_QUEUE_TASKS.get_ptr_mut(pid % RUN_QUEUE_TASKS)?;
    let name = KEPT | (u64::from(pid / RUN_QUEUE_TASKS) << RUN_DELAY_BITS);
    // SAFETY: the map's entry; a word is read and written as a whole.
    let before = unsafe { word.read_volatile() };
    // SAFETY: as above.
    unsafe { word.write_volatile(name | (run_delay_ns & RUN_DELAY)) };
    let before_ns = before & RUN_DELAY;
    if before & !RUN_DELAY == name && before_ns <= run_delay_ns { Some(before_ns) } else { None }
}

/// A stored word: a bit that distinguishes it from 0, the high bits of the pid (22 in all), the waits (4 years).
const KEPT: u64 = 1 << 63;
const RUN_DELAY_BITS: u32 = 57;
const RUN_DELAY: u64 = (1 << RUN_DELAY_BITS) - 1;

#[inline(always)]
fn waited(task: Kernel, processor: u32, cpu: &mut RunQueueCpu, wait_ns: u64, offsets: Offsets) {
    add(&mut cpu.all, wait_ns);
    let bucket = bucket(wait_ns);
    if bucket < RUN_QUEUE_BUCKETS {
        cpu.histogram[bucket] += 1;
    }
    if count(task, processor, wait_ns, offsets).is_none() {
        add(&mut cpu.dropped, wait_ns);
    }
}

/// Adds the wait to the task's cgroup. `None` if there is no place for the cgroup.
#[inline(always)]
fn count(task: Kernel, processor: u32, wait_ns: u64, offsets: Offsets) -> Option<()> {
    // SAFETY: the agent found these offsets in this kernel's BTF.
    let cgroup = unsafe { task.follow(offsets.task_cgroups())?.follow(offsets.css_set_cgroup())? };
    // One more than the kernel's: the root has 0, which means a free place here. SAFETY: as above.
    let serial = unsafe { cgroup.member::<u64>(offsets.cgroup_serial()) } + 1;
    // Fibonacci hashing: serials increase by as many as a cgroup has controllers, so their low bits alone would
    // collide.
    let hash = ((serial as u32).wrapping_mul(0x9E37_79B9) >> 16) & (offsets.sets() - 1);
    let set = maps::RUN_QUEUE_SETS.get_ptr_mut(processor * offsets.sets() + hash)?;
    // SAFETY: this CPU's entry. Besides this program, only the agent writes it, when it frees the places of ended
    // cgroups.
    let set = unsafe { &mut *set };
    for place in set.iter_mut() {
        if place.serial == serial {
            add(&mut place.waits, wait_ns);
            return Some(());
        }
    }
    // SAFETY: as above.
    let id: u64 = unsafe { cgroup.follow(offsets.cgroup_kn())?.member(offsets.kernfs_id()) };
    for place in set.iter_mut() {
        if place.serial == 0 {
            place.id = id;
            place.waits = RunQueueWaits { wait_ns, waits: 1 };
            // The number is written last: the agent reads a place only if it has one. SAFETY: a field of the place.
            // Volatile keeps the order.
            unsafe { core::ptr::write_volatile(&raw mut place.serial, serial) };
            return Some(());
        }
    }
    None
}

#[inline(always)]
fn add(waits: &mut RunQueueWaits, wait_ns: u64) {
    waits.wait_ns += wait_ns;
    waits.waits += 1;
}

/// 0 below the first bound, then one more for each doubling.
#[inline(always)]
fn bucket(wait_ns: u64) -> usize {
    let mut rest = wait_ns / RUN_QUEUE_FIRST_BUCKET_NS;
    if rest == 0 {
        return 0;
    }
    // eBPF has no instruction for the highest bit.
    let mut bucket = 1;
    for step in [16, 8, 4, 2, 1] {
        if rest >> step != 0 {
            rest >>= step;
            bucket += step;
        }
    }
    if bucket < RUN_QUEUE_BUCKETS { bucket } else { RUN_QUEUE_BUCKETS - 1 }
}
