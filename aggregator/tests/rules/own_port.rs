//! An agent without an aggregator exports its own node. What it writes of a report is, to the byte, what the aggregator writes of
//! the same report.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use mcad_accounting::now::Now;
use mcad_accounting::options::Options;
use mcad_agent::node_metrics::{self, Sampled};
use mcad_present::exposition::Exposition;
use mcad_present::metrics;
use mcad_testkit::build::{self, node_of};
use mcad_testkit::print_with;
use mcad_wire::report::{Cgroup, Cgroups, Gpu, Gpus, Machine, MigInstance, NvlinkErrors, Report, XidErrors};
use proptest::prelude::*;
use serde_json::json;

const SECOND_NS: u64 = 1_000_000_000;

/// What an aggregator alone knows or has an option for: the clock of another machine, which pods are bound and unfinished, and how much
/// unclaimed memory is tolerated.
const AGGREGATORS: [&str; 4] =
    ["mcad_node_clock_skew_seconds", "mcad_gpu_assigned", "mcad_gpu_strays", "mcad_gpu_unclaimed_memory_bytes"];

/// What `mcad-agent --listen` writes at that age of its last sample.
fn of_agent(reports: &[Report], age: Duration) -> String {
    let (last, before) = reports.split_last().unwrap();
    node_metrics::text(Sampled { before: before.last(), last, age })
}

/// What `mcad-aggregator --cluster local` writes of its nodes and their cgroups; and of their GPUs what it writes beside a
/// Kubernetes that has the node, as without one it writes them not one by one.
fn of_aggregator(reports: &[Report], age: Duration) -> String {
    let received = Now { since_start: Duration::from_hours(1), unix_ms: 1_767_607_200_000 };
    let now = Now { since_start: received.since_start + age, unix_ms: received.unix_ms + age.as_millis() as u64 };
    let received = reports.iter().map(|report| (report.clone(), received));
    let snapshot = mcad_testkit::reports::snapshot(received.collect(), now);
    let mut local = Vec::new();
    let mut out = Exposition::new(&mut local);
    metrics::write(&snapshot, now, &mut out);
    out.finish().unwrap();
    let mut text = only(&String::from_utf8(local).unwrap(), &["mcad_node_", "mcad_cgroup_"]);
    let amounts = json!({"cpu": "2", "memory": "1Gi", "pods": "110"});
    let node = build::object(&node_of(&reports[0].node, amounts.clone(), amounts));
    let beside_kubernetes = print_with(vec![node], reports.to_vec(), &Options::default());
    if age <= Duration::from_secs(30) {
        text += &only(&beside_kubernetes, &["mcad_gpu_"]);
    }
    text
}

/// The lines of these families, headers included, without those that are the aggregator's alone.
fn only(text: &str, prefixes: &[&str]) -> String {
    let of = |line: &&str| {
        let name = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
        let name = name.split([' ', '{']).next().unwrap();
        // These two prefixes have no family of the shape of what is free, which is nobody's GPU.
        let shape = ["mcad_gpu_slots", "mcad_gpu_largest_free_block"];
        prefixes.iter().any(|prefix| name.starts_with(prefix)) && !AGGREGATORS.contains(&name) && !shape.contains(&name)
    };
    text.lines().filter(of).flat_map(|line| [line, "\n"]).collect()
}

#[track_caller]
fn check(reports: &[Report], age: Duration) -> BTreeSet<String> {
    // Which family stands before which is nobody's business.
    let families = |text: &str| {
        let mut families: Vec<String> = Vec::new();
        for line in text.lines() {
            match families.last_mut() {
                Some(family) if !line.starts_with("# HELP ") => family.extend(["\n", line]),
                _ => families.push(line.to_owned()),
            }
        }
        families.sort();
        families
    };
    let (agent, aggregator) = (of_agent(reports, age), of_aggregator(reports, age));
    assert_eq!(families(&agent).join("\n"), families(&aggregator).join("\n"));
    agent.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())).collect()
}

/// The recorded one, and one of the same node an interval later.
fn recorded(name: &str) -> [Report; 2] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/tests/golden").join(name);
    let first: Report = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut second = first.clone();
    second.sequence += 1;
    second.uptime_ns += 10 * SECOND_NS;
    if let Some(cpu_busy_ns) = second.machine.as_mut().and_then(|machine| machine.cpu_busy_ns.as_mut()) {
        *cpu_busy_ns += 12_345_678_901;
    }
    [first, second]
}

#[test]
fn what_an_agent_exports_of_a_recorded_report_is_what_the_aggregator_does() {
    let mut seen = BTreeSet::new();
    for name in [
        "report-all.json",
        "report-pods.json",
        "report-gpu-broke-in-use.json",
        "report-gpu-claims.json",
        "report-gpu-mig.json",
        "report-gpu-sick-in-tray.json",
    ] {
        let reports = recorded(name);
        seen.extend(check(&reports[..1], Duration::ZERO));
        seen.extend(check(&reports, Duration::from_secs(30)));
        // Silent: what was measured is gone with both.
        let silent = check(&reports, Duration::from_millis(30_001));
        assert_eq!(silent.iter().collect::<Vec<_>>(), ["mcad_node_agent_up", "mcad_node_report_age_seconds"]);
    }
    // No family was compared by its absence alone.
    assert_eq!(seen, node_metrics::names().map(str::to_owned).collect());
}

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "b\\", "c\"d", "e\nf", "g+me.h"]).prop_map(str::to_owned)
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::sample::subsequence(vec!["ecc".to_owned(), "lost".to_owned(), "x\"y".to_owned()], 0..=3).prop_shuffle()
}

fn ratio() -> impl Strategy<Value = Option<f64>> {
    prop::option::of(prop_oneof![0.0..=1.0, Just(0.0), Just(1e-7)])
}

fn bytes() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(0..1_u64 << 44)
}

fn instance() -> impl Strategy<Value = MigInstance> {
    (text(), texts(), ratio(), bytes()).prop_map(|(profile, unhealthy_reasons, utilization_ratio, memory)| {
        MigInstance {
            profile,
            unhealthy_reasons,
            utilization_ratio,
            memory_used_bytes: memory,
            ..MigInstance::default()
        }
    })
}

fn gpu() -> impl Strategy<Value = Gpu> {
    let nvlinks = prop::option::of((bytes(), bytes())).prop_map(|counts| {
        counts.map(|(replay, ecc_data)| Box::new(NvlinkErrors { replay, ecc_data, ..NvlinkErrors::default() }))
    });
    let xids = prop::collection::btree_map(0..3_u64, any::<u64>(), 0..3);
    let instances = prop::collection::vec(instance(), 0..3);
    let own = (text(), [texts(), texts()], ratio(), [bytes(), bytes()]);
    (own, any::<Option<bool>>(), instances, xids, nvlinks).prop_map(
        |(own, mig_mode, instances, xids, nvlink_errors)| {
            let (model, [unhealthy_reasons, warnings], utilization_ratio, [memory_used_bytes, memory_total_bytes]) =
                own;
            Gpu {
                model,
                mig_mode,
                mig_instances: instances,
                unhealthy_reasons,
                utilization_ratio,
                memory_used_bytes,
                memory_total_bytes,
                xid_errors: xids.into_iter().map(|(xid, count)| XidErrors { xid, count }).collect(),
                warnings,
                nvlink_errors,
                ..Gpu::default()
            }
        },
    )
}

fn gpus() -> impl Strategy<Value = Gpus> {
    let names =
        prop::sample::select(vec![("", ""), ("amd.com/gpu", ""), ("amd.com/gpu", "amd.com/part-"), ("cpu", "memory")]);
    let of = (text(), prop::collection::vec(gpu(), 0..4), texts(), prop::option::of(0..6_u32), any::<bool>(), names);
    of.prop_map(|(driver_version, mut devices, lost_bus_ids, remembered, fake, names)| {
        // Each its own, and in no order.
        for (at, gpu) in devices.iter_mut().enumerate() {
            gpu.uuid = format!("GPU-{}", 9 - at);
            for (slot, instance) in gpu.mig_instances.iter_mut().enumerate() {
                instance.uuid = format!("MIG-{}{slot}", at * 7 % 5);
            }
        }
        let (resource, part_prefix) = (names.0.to_owned(), names.1.to_owned());
        Gpus { driver_version, devices, lost_bus_ids, remembered, fake, resource, part_prefix }
    })
}

fn cgroups() -> impl Strategy<Value = Cgroups> {
    let cgroup = (text(), prop::option::of(any::<u64>()));
    let of = (prop::sample::select(vec!["bpf", "cgroupfs"]), prop::collection::vec(cgroup, 0..6), any::<Option<u32>>());
    of.prop_map(|(source, cgroups, seen)| {
        // The same path may come again, of another cgroup.
        let cgroups = cgroups.into_iter().enumerate();
        let cgroups =
            cgroups.map(|(id, (path, cpu_ns))| Cgroup { id: id as u64 * 5 % 7, path, cpu_ns, ..Cgroup::default() });
        Cgroups { source: source.into(), cgroups: cgroups.collect(), seen, dropped: seen, ..Cgroups::default() }
    })
}

fn machine() -> impl Strategy<Value = Machine> {
    let memory = prop::option::of((1..1_u64 << 40, 0.0..1.0, 0.0..1.0));
    (prop::option::of(1..64_u32), prop::option::of(0..200 * SECOND_NS), memory).prop_map(
        |(cpus_online, busy_ns, memory)| {
            let part = |share: f64| memory.map(|(total, _, _)| (total as f64 * share) as u64);
            Machine {
                cpus_online,
                cpu_busy_ns: busy_ns,
                memory_total_bytes: memory.map(|(total, _, _)| total),
                memory_free_bytes: memory.and_then(|(_, free, _)| part(free)),
                memory_inactive_file_bytes: memory.and_then(|(_, _, inactive)| part(inactive)),
            }
        },
    )
}

fn report(sequence: u64) -> impl Strategy<Value = Report> {
    let parts = (prop::option::of(machine()), prop::option::of(cgroups()), prop::option::of(gpus()));
    (parts, 1..20_u64).prop_map(move |((machine, cgroups, gpus), seconds)| Report {
        version: 1,
        node: "n-1".into(),
        boot_id: "b".into(),
        started_at_ms: 1,
        sequence,
        uptime_ns: (100 * sequence + seconds) * SECOND_NS,
        interval_ms: 10_000,
        machine,
        cgroups,
        gpus,
        ..Report::default()
    })
}

proptest! {
    #[test]
    fn what_an_agent_exports_of_any_report_is_what_the_aggregator_does(first in report(1), second in report(2)) {
        check(std::slice::from_ref(&first), Duration::from_millis(1234));
        check(&[first, second], Duration::from_millis(29_999));
    }
}
