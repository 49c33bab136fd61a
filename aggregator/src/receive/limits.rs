//! Tests of every limit on the content of a report: at the limit, and one beyond it.

#![expect(clippy::unnecessary_wraps, reason = "fields of a report are optional")]

use mcad_testkit::reports::report;
use mcad_wire::report::{
    Absence, Assignment, Assignments, Cgroup, Cgroups, DeviceIds, EndedPod, Gpu, Gpus, Machine, MigInstance, Report,
};
use prost::Message as _;

use super::*;

/// Makes an element with this name.
type Named<T> = fn(String) -> T;

/// Sets a value.
type Set<T, N> = fn(&mut T, N);

/// Makes GPUs with this value.
type Measured<N> = fn(N) -> Option<Gpus>;

/// Checks that a report is accepted if and only if `amount` is within the limit, both as a body and from a file.
#[track_caller]
fn check(what: &str, reason: &str, make: impl Fn(&mut Report, u64), within: &[u64], beyond: &[u64]) {
    let filled = |amount| {
        let mut report = report("n", 1);
        make(&mut report, amount);
        report
    };
    // An invalid part is left out for a reason of that part.
    let outcome = |read: Result<Received<'_>, Refusal>| {
        let received = read.map_err(|refusal| refusal.reason())?;
        let Some(LeftOut { part, why }) = received.left_out.first() else { return Ok(()) };
        assert!(part.reasons().contains(&why.reason()), "{part:?}: {}", why.reason());
        let kept = receive(&received.encoded).unwrap();
        assert_eq!((&kept.report, kept.left_out.len()), (&received.report, 0), "what is kept is not what is taken");
        match part {
            Part::Gpus => assert_eq!(received.report.gpus, None),
            Part::Assignments => assert_eq!(received.report.assignments, None),
        }
        Err(why.reason())
    };
    let wire = |amount| outcome(receive(&filled(amount).encode_to_vec()));
    let file = |amount| outcome(super::check(&filled(amount).encode_to_vec()));
    for amount in within {
        assert_eq!((wire(*amount), file(*amount)), (Ok(()), Ok(())), "{what}: {amount}");
    }
    for amount in beyond {
        assert_eq!((wire(*amount), file(*amount)), (Err(reason), Err(reason)), "{what}: {amount}");
    }
}

/// Checks a limit on a number of elements.
#[track_caller]
fn check_count(what: &str, reason: &str, most: usize, make: impl Fn(&mut Report, usize)) {
    check(what, reason, |report, amount| make(report, amount as usize), &[0, most as u64], &[most as u64 + 1]);
}

/// Checks a limit on the length of a name, which may be empty.
#[track_caller]
fn check_name(what: &str, most: usize, make: impl Fn(&mut Report, String)) {
    let named = |report: &mut Report, length: usize| make(report, "x".repeat(length));
    check_count(what, "name_too_long", most, named);
}

fn gpus(devices: Vec<Gpu>) -> Option<Gpus> {
    Some(Gpus { devices, ..Gpus::default() })
}

fn cgroups(cgroups: Vec<Cgroup>) -> Option<Cgroups> {
    Some(Cgroups { cgroups, ..Cgroups::default() })
}

fn assigned(assigned: Vec<Assignment>) -> Option<Assignments> {
    Some(Assignments { assigned, ..Assignments::default() })
}

fn allocatable(allocatable: Vec<DeviceIds>) -> Option<Assignments> {
    Some(Assignments { allocatable, ..Assignments::default() })
}

fn with_instance(mig: MigInstance) -> Option<Gpus> {
    gpus(vec![Gpu { uuid: "GPU-1".into(), mig_instances: vec![mig], ..Gpu::default() }])
}

/// A GPU.
fn a_gpu() -> Gpu {
    Gpu { uuid: "GPU-1".into(), ..Gpu::default() }
}

/// As many devices, each with a UUID of its own.
fn numbered(count: usize) -> Vec<Gpu> {
    (0..count).map(|number| Gpu { uuid: number.to_string(), ..Gpu::default() }).collect()
}

#[test]
fn lists_are_as_long_as_they_may_be() {
    let cgroup = |id: usize| Cgroup { id: id as u64, ..Cgroup::default() };
    check_count("cgroups", "too_many_cgroups", MAX_CGROUPS, |report, count| {
        report.cgroups = cgroups((0..count).map(cgroup).collect());
    });
    check_count("ended pods", "too_many_cgroups", MAX_ENDED_PODS, |report, count| {
        report.cgroups = Some(Cgroups { ended_pods: vec![EndedPod::default(); count], ..Cgroups::default() });
    });
    check_count("GPUs", "too_many_devices", MAX_DEVICES, |report, count| report.gpus = gpus(numbered(count)));
    check_count("GPUs that are lost", "too_many_devices", MAX_DEVICES, |report, count| {
        report.gpus = Some(Gpus { lost_bus_ids: vec![String::new(); count], ..Gpus::default() });
    });
    check_count("GPUs that are remembered", "too_many_devices", MAX_DEVICES, |report, count| {
        report.gpus = Some(Gpus { remembered: Some(count as u32), ..Gpus::default() });
    });
    // Of all three kinds together.
    check_count("GPUs, instances and lost ones", "too_many_devices", MAX_DEVICES, |report, count| {
        let mut devices = numbered(count.div_ceil(3));
        let instances = (0..count / 3).map(|id| MigInstance { uuid: format!("MIG-{id}"), ..MigInstance::default() });
        devices.iter_mut().take(1).for_each(|first| first.mig_instances = instances.clone().collect());
        let lost = count - devices.len() - devices.first().map_or(0, |first| first.mig_instances.len());
        report.gpus = Some(Gpus { devices, lost_bus_ids: vec![String::new(); lost], ..Gpus::default() });
    });
    check_count("containers with devices", "too_many_assignments", MAX_ASSIGNMENTS, |report, count| {
        report.assignments = assigned(vec![Assignment::default(); count]);
    });
    check_count("resources with devices", "too_many_assignments", MAX_ASSIGNMENTS, |report, count| {
        report.assignments = allocatable(vec![DeviceIds::default(); count]);
    });
    check_count("containers and resources", "too_many_assignments", MAX_ASSIGNMENTS, |report, count| {
        let of = vec![Assignment::default(); count / 2];
        let rest = vec![DeviceIds::default(); count - of.len()];
        report.assignments = Some(Assignments { assigned: of, allocatable: rest });
    });
    check_count("absences", "too_many_absences", MAX_ABSENCES, |report, count| {
        report.absences = vec![Absence::default(); count];
    });
}

#[test]
fn names_are_as_long_as_they_may_be() {
    let most = MAX_STRING_BYTES;
    check_name("boot id", most, |report, name| report.boot_id = name);
    check_name("agent's version", most, |report, name| report.agent_version = name);
    check_name("absence's source", most, |report, name| {
        report.absences = vec![Absence { source: name, ..Absence::default() }];
    });
    check_name("absence's reason", most, |report, name| {
        report.absences = vec![Absence { reason: name, ..Absence::default() }];
    });
    check_name("source of cgroups", most, |report, name| {
        report.cgroups = Some(Cgroups { source: name, ..Cgroups::default() });
    });
    check_name("ended pod's UID", most, |report, name| {
        report.cgroups =
            Some(Cgroups { ended_pods: vec![EndedPod { uid: name, ..EndedPod::default() }], ..Cgroups::default() });
    });
    check_name("cgroup's path", MAX_PATH_BYTES, |report, name| {
        report.cgroups = cgroups(vec![Cgroup { path: name, ..Cgroup::default() }]);
    });
    check_name("pod's UID", most, |report, name| {
        report.cgroups = cgroups(vec![Cgroup { pod_uid: name, ..Cgroup::default() }]);
    });
    check_name("container's id", most, |report, name| {
        report.cgroups = cgroups(vec![Cgroup { container_id: name, ..Cgroup::default() }]);
    });
}

#[test]
fn names_of_devices_are_as_long_as_they_may_be() {
    let most = MAX_STRING_BYTES;
    check_name("driver's version", most, |report, name| {
        report.gpus = Some(Gpus { driver_version: name, ..Gpus::default() });
    });
    check_name("PCI address of a lost one", most, |report, name| {
        report.gpus = Some(Gpus { lost_bus_ids: vec![name], ..Gpus::default() });
    });
    let uuid = |report: &mut Report, length: u64| {
        report.gpus = gpus(vec![Gpu { uuid: "x".repeat(length as usize), ..Gpu::default() }]);
    };
    check("UUID", "name_too_long", uuid, &[1, most as u64], &[most as u64 + 1]);
    check("UUID", "impossible_figure", uuid, &[1], &[0]);
    let of_gpu: [(&str, Named<Gpu>); 4] = [
        ("model", |model| Gpu { model, ..a_gpu() }),
        ("PCI address", |bus_id| Gpu { bus_id, ..a_gpu() }),
        ("reason", |reason| Gpu { unhealthy_reasons: vec![reason], ..a_gpu() }),
        ("warning", |warning| Gpu { warnings: vec![warning], ..a_gpu() }),
    ];
    for (what, gpu) in of_gpu {
        check_name(what, most, |report, name| report.gpus = gpus(vec![gpu(name)]));
    }
    let of_mig: [(&str, Named<MigInstance>); 3] = [
        ("instance's UUID", |uuid| MigInstance { uuid, ..MigInstance::default() }),
        ("profile", |profile| MigInstance { profile, ..MigInstance::default() }),
        ("instance's reason", |reason| MigInstance { unhealthy_reasons: vec![reason], ..MigInstance::default() }),
    ];
    for (what, mig) in of_mig {
        check_name(what, most, |report, name| report.gpus = with_instance(mig(name)));
    }
    let of_assignment: [(&str, Named<Assignment>); 11] = [
        ("namespace", |namespace| Assignment { namespace, ..Assignment::default() }),
        ("pod", |pod| Assignment { pod, ..Assignment::default() }),
        ("container", |container| Assignment { container, ..Assignment::default() }),
        ("resource", |resource| Assignment { resource, ..Assignment::default() }),
        ("device's id", |id| Assignment { device_ids: vec![id], ..Assignment::default() }),
        ("claim's namespace", |claim_namespace| Assignment { claim_namespace, ..Assignment::default() }),
        ("claim", |claim| Assignment { claim, ..Assignment::default() }),
        ("driver", |driver| Assignment { driver, ..Assignment::default() }),
        ("pool", |pool| Assignment { pool, ..Assignment::default() }),
        ("claimed device", |device| Assignment { device, ..Assignment::default() }),
        ("share", |id| Assignment { share_id: Some(id), ..Assignment::default() }),
    ];
    for (what, assignment) in of_assignment {
        check_name(what, most, |report, name| report.assignments = assigned(vec![assignment(name)]));
    }
    let of_resource: [(&str, Named<DeviceIds>); 2] = [
        ("resource", |resource| DeviceIds { resource, ..DeviceIds::default() }),
        ("its device's id", |id| DeviceIds { device_ids: vec![id], ..DeviceIds::default() }),
    ];
    for (what, ids) in of_resource {
        check_name(what, most, |report, name| report.assignments = allocatable(vec![ids(name)]));
    }
}

#[test]
fn figures_are_as_large_as_they_may_be() {
    let impossible = "impossible_figure";
    let machine = |machine: Machine| Some(machine);
    let cpus = |report: &mut Report, cpus: u64| {
        report.machine = machine(Machine { cpus_online: Some(cpus as u32), ..Machine::default() });
    };
    check("processors", impossible, cpus, &[1, u64::from(MAX_CPUS)], &[0, u64::from(MAX_CPUS) + 1]);
    let total = |report: &mut Report, bytes| {
        report.machine = machine(Machine { memory_total_bytes: Some(bytes), ..Machine::default() });
    };
    check("memory", impossible, total, &[0, MAX_MEMORY_BYTES], &[MAX_MEMORY_BYTES + 1, u64::MAX]);
    let parts: [(&str, Set<Machine, u64>); 2] = [
        ("free memory", |machine, bytes| machine.memory_free_bytes = Some(bytes)),
        ("file pages", |machine, bytes| machine.memory_inactive_file_bytes = Some(bytes)),
    ];
    for (what, set) in parts {
        let of_total = |total: Option<u64>| {
            move |report: &mut Report, bytes| {
                let mut part = Machine { memory_total_bytes: total, ..Machine::default() };
                set(&mut part, bytes);
                report.machine = Some(part);
            }
        };
        check(what, impossible, of_total(Some(4096)), &[0, 4096], &[4097]);
        check(what, impossible, of_total(None), &[0, MAX_MEMORY_BYTES], &[MAX_MEMORY_BYTES + 1]);
    }
    let of_gpu: [(&str, Measured<u64>); 4] = [
        ("GPU's memory", |bytes| gpus(vec![Gpu { memory_total_bytes: Some(bytes), ..a_gpu() }])),
        ("GPU's memory in use", |bytes| gpus(vec![Gpu { memory_used_bytes: Some(bytes), ..a_gpu() }])),
        ("instance's memory", |bytes| {
            with_instance(MigInstance { memory_total_bytes: Some(bytes), ..MigInstance::default() })
        }),
        ("instance's memory in use", |bytes| {
            with_instance(MigInstance { memory_used_bytes: Some(bytes), ..MigInstance::default() })
        }),
    ];
    for (what, of) in of_gpu {
        let set = |report: &mut Report, bytes| report.gpus = of(bytes);
        check(what, impossible, set, &[0, MAX_MEMORY_BYTES], &[MAX_MEMORY_BYTES + 1]);
    }
    let uptime = |report: &mut Report, uptime_ns| report.uptime_ns = uptime_ns;
    check("time since boot", impossible, uptime, &[0, MAX_UPTIME_NS], &[MAX_UPTIME_NS + 1, u64::MAX]);
    let (shortest, longest) = (*INTERVALS_MS.start(), *INTERVALS_MS.end());
    let interval = |report: &mut Report, interval_ms| report.interval_ms = interval_ms;
    check("interval", impossible, interval, &[shortest, longest], &[0, shortest - 1, longest + 1]);
}

#[test]
fn ratios_are_from_0_to_1() {
    // As bits: the next number above 1 differs in the last bit.
    let (zero, one) = (0.0_f64.to_bits(), 1.0_f64.to_bits());
    let beyond = [(-f64::MIN_POSITIVE).to_bits(), one + 1, f64::NAN.to_bits(), f64::INFINITY.to_bits()];
    let of: [(&str, Measured<f64>); 2] = [
        ("GPU", |ratio| gpus(vec![Gpu { utilization_ratio: Some(ratio), ..a_gpu() }])),
        ("instance", |ratio| with_instance(MigInstance { utilization_ratio: Some(ratio), ..MigInstance::default() })),
    ];
    for (what, gpus) in of {
        let set = |report: &mut Report, bits| report.gpus = gpus(f64::from_bits(bits));
        check(what, "impossible_figure", set, &[zero, one], &beyond);
    }
}

#[test]
fn a_nodes_name_is_as_long_as_it_may_be() {
    let named = |report: &mut Report, length: u64| report.node = "x".repeat(length as usize);
    let most = mcad_accounting::node_name::MAX_BYTES as u64;
    check("node's name", "node_name", named, &[1, most], &[0, most + 1]);
}

/// Groups digits: 1048576 as 1,048,576.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let groups = digits.as_bytes()[first..].chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let all: Vec<_> =
        std::iter::once(digits[..first].to_owned()).filter(|group| !group.is_empty()).chain(groups).collect();
    all.join(",")
}

#[test]
fn the_schema_tells_people_who_write_an_agent_every_limit() {
    let schema = include_str!("../../../wire/report.proto");
    let comments = schema.split("\nsyntax = ").next().unwrap().replace("\n//", "").replace("   ", " ");
    let number = |number: usize| grouped(number as u64);
    for limit in [
        format!("{} bytes of body", number(MAX_BODY_BYTES)),
        format!("{} bytes of memory once it is decoded", number(MAX_DECODED_BYTES)),
        format!("{} cgroups", number(MAX_CGROUPS)),
        format!("{} ended pods", number(MAX_ENDED_PODS)),
        format!("{} absences", number(MAX_ABSENCES)),
        format!("{} GPUs", number(MAX_DEVICES)),
        format!("{} assignments", number(MAX_ASSIGNMENTS)),
        format!("{} bytes of `node`", number(mcad_accounting::node_name::MAX_BYTES)),
        format!("{} bytes of a cgroup's `path`", number(MAX_PATH_BYTES)),
        format!("{} bytes of any other string", number(MAX_STRING_BYTES)),
        format!("`interval_ms` from {} to {}", grouped(*INTERVALS_MS.start()), grouped(*INTERVALS_MS.end())),
        format!("1 to {} CPUs", grouped(MAX_CPUS.into())),
        format!("{} bytes (512 TiB) of memory", grouped(MAX_MEMORY_BYTES)),
    ] {
        assert!(comments.contains(&limit), "wire/report.proto does not say: {limit}");
    }
}
