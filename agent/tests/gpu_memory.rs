//! The memory that the agent needs for a node with eight GPUs, and that it does not grow: in the process that samples,
//! and in the one that calls NVML. This test runs alone in its process, because it measures the whole process.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::time::Duration;

use fake_nvml::Installation;
use fake_nvml::scenario::{Level, Process, Scenario};
use mcad_agent::sample::Moment;
use mcad_agent::sandbox::Sandbox;
use mcad_agent::source::ReadGpus as _;
use mcad_agent::source::gpu::{IGNORED_XIDS, NvmlGpus, Settings};

/// More samples than in one day.
const SAMPLES: u64 = 10_000;

/// After this many samples, everything that is kept has its final size.
const SETTLED: u64 = 1_000;

/// Growth that is attributed to the allocator. A leak of one hundred bytes per sample would be four times as much.
const SLACK_KIB: u64 = 256;

#[test]
fn eight_gpus_take_less_than_20_mib_and_ten_thousand_samples_of_them_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut scenario = Scenario::of(8, "H100 80GB HBM3");
    for (index, device) in scenario.devices.iter_mut().enumerate() {
        device.utilization = Level::Wave { low: 0.1, high: 0.9, period_s: 1.0, phase_s: 0.0 };
        let utilization = Some(Level::Steady(0.1));
        let process =
            |pid| Process { pid, memory_bytes: Some(1 << 30), utilization: utilization.clone(), ..Process::default() };
        device.processes = (0..4).map(|process_of| process(1 + index as u32 * 4 + process_of)).collect();
    }
    let library = Installation::built_for_this_test().unwrap();
    let installation = Installation::new(&library, directory.path(), &scenario).unwrap();
    let mut gpus = NvmlGpus::new(&Settings {
        program: Some(env!("CARGO_BIN_EXE_mcad-agent").into()),
        sandbox: Sandbox::On,
        library: Some(installation.library().to_owned()),
        proc_root: directory.path().join("proc"),
        sys_root: directory.path().join("sys"),
        state_dir: Some(directory.path().to_owned()),
        ignored_xids: IGNORED_XIDS.to_vec(),
        daemons: Vec::new(),
        deadline: Duration::from_mins(2),
        patience: Duration::from_mins(2),
        listen: Duration::ZERO,
    });
    let mut settled_kib = 0;
    for sample in 1..=SAMPLES {
        gpus.ask(Moment { unix_ms: 0, uptime_ns: sample * 10_000_000_000 });
        assert_eq!(gpus.answer().unwrap().devices.len(), 8);
        if sample == SETTLED {
            settled_kib = resident_kib();
        }
    }
    let at_the_end_kib = resident_kib();
    println!("resident after {SETTLED} samples: {settled_kib} KiB, after {SAMPLES}: {at_the_end_kib} KiB");
    assert!(at_the_end_kib < 20 * 1024, "{at_the_end_kib} KiB resident");
    assert!(at_the_end_kib <= settled_kib + SLACK_KIB, "{settled_kib} KiB grew to {at_the_end_kib} KiB");
}

/// Resident memory of this process and of the one that it started; shared memory is counted once.
fn resident_kib() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
    let children: String = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap()).collect();
    let children: Vec<&str> = children.split_whitespace().collect();
    assert_eq!(children.len(), 1, "one process calls NVML");
    std::iter::once("self").chain(children).map(share_kib).sum()
}

fn share_kib(process: &str) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}
