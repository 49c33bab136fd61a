//! The output of `mcad-agent status`: this node, from two consecutive reports, in the layout of `mcad-aggregator explain`. Pure.
//! An unknown value is printed as unknown, never as 0.
mod gpu_use;

use std::collections::HashMap;
use std::time::Duration;

use mcad_terminal::bar;
use mcad_terminal::paint::{Paint, Tone};
use mcad_terminal::table::{self, Row};
use mcad_terminal::words::{GIB, count, list, printable, span};
use mcad_wire::report::{Assignment, Cgroup, Gpu, Gpus, Report};

use crate::node_metrics::memory_used_bytes;
use crate::vendor;

/// How many cgroups are listed.
const BUSIEST: usize = 8;
/// The maximum length of a path in characters. A longer path is cut at the left, because its end is more informative.
const PATH: usize = 60;
const UNKNOWN: &str = "unknown";

/// Who took the reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// This process, just now.
    Here,
    /// A running agent, this long ago.
    ByAgent {
        /// The age of the last report.
        age: Duration,
    },
}

/// The text for a node's last report, and for what it did since the report before, if there is one.
pub fn text(before: Option<&Report>, now: &Report, taken: Taken, paint: Paint) -> String {
    let between = before.map(|before| now.uptime_ns.saturating_sub(before.uptime_ns)).filter(|ns| *ns > 0);
    let since = before.zip(between).map(|(report, elapsed_ns)| Since { report, elapsed_ns });
    let mut out = String::new();
    line(&mut out, &paint.tone(Tone::Title, &format!("Node {}", printable(&now.node))));
    line(&mut out, &how(taken, since));
    line(&mut out, &cgroups(now));
    write_machine(&mut out, since, now, paint);
    write_gpus(&mut out, now, paint);
    write_gpu_use(&mut out, since, now, paint);
    write_claimed(&mut out, now, paint);
    write_busiest(&mut out, since, now, paint);
    if !now.absences.is_empty() {
        title(&mut out, "What could not be read", paint);
        let row = |label: &str, note: &str| Row {
            label: printable(label),
            amount: String::new(),
            note: printable(note),
            tone: Tone::Bad,
        };
        let rows: Vec<_> = now.absences.iter().map(|absence| row(&absence.source, &absence.reason)).collect();
        table::write(&mut out, &rows, paint);
    }
    out
}

/// An earlier report, and the time from then to the last one.
#[derive(Clone, Copy)]
struct Since<'a> {
    report: &'a Report,
    elapsed_ns: u64,
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn title(out: &mut String, text: &str, paint: Paint) {
    line(out, &format!("\n{}", paint.tone(Tone::Title, text)));
}

fn how(taken: Taken, since: Option<Since<'_>>) -> String {
    let over = |since: Since<'_>| format!("over {:.1} s", since.elapsed_ns as f64 / 1e9);
    match (taken, since.map(over)) {
        (Taken::Here, Some(over)) => format!("Sampled now, {over}."),
        (Taken::Here, None) => "Sampled now.".to_owned(),
        (Taken::ByAgent { age }, Some(over)) => {
            format!("The agent sampled {} ago, {over}.", span(age.as_secs_f64()))
        }
        (Taken::ByAgent { age }, None) => {
            format!("The agent sampled {} ago, for the first time; usage is not known yet.", span(age.as_secs_f64()))
        }
    }
}

fn cgroups(now: &Report) -> String {
    let Some(cgroups) = &now.cgroups else { return "Cgroups could not be read.".to_owned() };
    let how = match cgroups.source.as_str() {
        "bpf" => "read by eBPF, in one walk",
        "cgroupfs" => "read from files (no eBPF, or no rights for it)",
        _ => "read",
    };
    let seen = cgroups.seen.map_or_else(|| "Cgroups".to_owned(), |seen| count(seen.into(), "cgroup", "cgroups"));
    let dropped = cgroups.dropped.filter(|dropped| *dropped > 0).map(|dropped| format!("; {dropped} dropped"));
    let of_pods = |cgroup: &&Cgroup| !cgroup.pod_uid.is_empty() && cgroup.container_id.is_empty();
    let pods = count(cgroups.cgroups.iter().filter(of_pods).count() as u64, "pod", "pods");
    format!("{seen} {how}{}; {pods}.", dropped.unwrap_or_default())
}

fn write_machine(out: &mut String, since: Option<Since<'_>>, now: &Report, paint: Paint) {
    let machine = now.machine.clone().unwrap_or_default();
    let busy = since.and_then(|Since { report, elapsed_ns }| {
        let busy_ns = machine.cpu_busy_ns?.checked_sub(report.machine.as_ref()?.cpu_busy_ns?)?;
        Some(busy_ns as f64 / elapsed_ns as f64)
    });
    write_used(out, "cpu, in cores", machine.cpus_online.map(f64::from), busy, 3, paint);
    let gib = |bytes: u64| bytes as f64 / GIB;
    let used = memory_used_bytes(&machine);
    write_used(out, "memory, in GiB", machine.memory_total_bytes.map(gib), used.map(gib), 2, paint);
}

/// How much of a resource is installed and used.
fn write_used(out: &mut String, what: &str, installed: Option<f64>, used: Option<f64>, digits: u8, paint: Paint) {
    title(out, what, paint);
    if let Some((installed, used)) = installed.zip(used) {
        out.push_str(&bar::line(&[(Tone::Normal, used), (Tone::Good, installed - used)], paint));
    }
    let known = |amount: Option<f64>| amount.map_or_else(|| UNKNOWN.to_owned(), |amount| rounded(amount, digits));
    table::write(out, &[row("installed", known(installed)), row("used", known(used))], paint);
}

fn row(label: &str, amount: String) -> Row {
    Row { label: label.to_owned(), amount, note: String::new(), tone: Tone::Normal }
}

/// Rounds to at most this many digits. A small amount is not printed as 0.
fn rounded(amount: f64, digits: u8) -> String {
    let scale = 10_f64.powi(digits.into());
    let rounded = (amount * scale).round() / scale;
    if rounded == 0.0 && amount > 0.0 { format!("<{}", 1.0 / scale) } else { rounded.to_string() }
}

fn write_gpus(out: &mut String, now: &Report, paint: Paint) {
    let Some(gpus) = &now.gpus else {
        title(out, "GPUs", paint);
        return line(out, "  unknown: the driver could not be queried");
    };
    let lost = gpus.lost_bus_ids.len().max((gpus.remembered.unwrap_or(0) as usize).saturating_sub(gpus.devices.len()));
    let fake = if gpus.fake { ", FAKE" } else { "" };
    title(out, &format!("{}, in GPUs{fake}", printable(vendor::gpu_resource(gpus))), paint);
    if gpus.driver_version.is_empty() && gpus.devices.is_empty() && lost == 0 {
        return line(out, "  none");
    }
    write_gpu_counts(out, gpus, lost, paint);
    if !gpus.devices.is_empty() {
        title(out, "GPUs one by one", paint);
        let rows: Vec<_> = gpus.devices.iter().map(|device| gpu(device, now)).collect();
        table::write(out, &rows, paint);
    }
}

fn write_gpu_counts(out: &mut String, gpus: &Gpus, lost: usize, paint: Paint) {
    let healthy = gpus.devices.iter().filter(|gpu| gpu.unhealthy_reasons.is_empty()).count();
    let unhealthy = gpus.devices.len() - healthy;
    out.push_str(&bar::line(&[(Tone::Good, healthy as f64), (Tone::Bad, (unhealthy + lost) as f64)], paint));
    let mut rows = vec![row("installed", (gpus.devices.len() + lost).to_string())];
    rows.push(Row { tone: Tone::Good, ..row("healthy", healthy.to_string()) });
    for (label, amount, note) in [
        ("unhealthy", unhealthy, String::new()),
        ("lost", lost, list(&gpus.lost_bus_ids.iter().map(|bus_id| printable(bus_id)).collect::<Vec<_>>())),
    ] {
        if amount > 0 {
            rows.push(Row { note, tone: Tone::Bad, ..row(label, amount.to_string()) });
        }
    }
    table::write(out, &rows, paint);
}

fn gpu(gpu: &Gpu, now: &Report) -> Row {
    let is_healthy = gpu.unhealthy_reasons.is_empty();
    let reasons = || list(&gpu.unhealthy_reasons.iter().map(|reason| printable(reason)).collect::<Vec<_>>());
    let mut health = if is_healthy { "healthy".to_owned() } else { format!("unhealthy: {}", reasons()) };
    if !gpu.warnings.is_empty() {
        let warnings: Vec<_> = gpu.warnings.iter().map(|warning| printable(warning)).collect();
        health = format!("{health}, warning: {}", list(&warnings));
    }
    let held = match &now.assignments {
        None => "held by: unknown".to_owned(),
        Some(assignments) => {
            let ours = |id: &String| id.split("::").next() == Some(&gpu.uuid);
            let pods = assignments.assigned.iter().filter(|assigned| assigned.device_ids.iter().any(ours));
            let pods: Vec<_> = pods.map(|of| format!("{}/{}", printable(&of.namespace), printable(&of.pod))).collect();
            if !pods.is_empty() {
                format!("held by {}", list(&pods))
            } else if claimed(now).next().is_some() {
                // Claims use the driver's names of devices, which differ from NVML's.
                "held by no pod, or through a claim listed below".to_owned()
            } else {
                "held by no pod".to_owned()
            }
        }
    };
    let gib = |bytes: u64| rounded(bytes as f64 / GIB, 2);
    let memory = match (gpu.memory_used_bytes, gpu.memory_total_bytes) {
        (Some(used), Some(total)) => format!("memory {} of {} GiB", gib(used), gib(total)),
        _ => format!("memory {UNKNOWN}"),
    };
    let model = if gpu.model.is_empty() { String::new() } else { format!("{}; ", printable(&gpu.model)) };
    Row {
        label: printable(&gpu.uuid),
        amount: gpu.utilization_ratio.map_or_else(|| UNKNOWN.to_owned(), |ratio| format!("{:.0} %", ratio * 100.0)),
        note: format!("busy; {model}{memory}; {health}; {held}"),
        tone: if is_healthy { Tone::Normal } else { Tone::Bad },
    }
}

/// Who used each GPU since the last report, and why it was idle.
fn write_gpu_use(out: &mut String, since: Option<Since<'_>>, now: &Report, paint: Paint) {
    let before = since.and_then(|since| since.report.gpus.as_ref());
    let rows = before.zip(now.gpus.as_ref()).map(|(before, now)| gpu_use::rows(before, now)).unwrap_or_default();
    if !rows.is_empty() {
        title(out, "Use of each GPU by pods with processes on it", paint);
        table::write(out, &rows, paint);
    }
}

/// Devices that are held through claims.
fn claimed(now: &Report) -> impl Iterator<Item = &Assignment> {
    let assigned = now.assignments.iter().flat_map(|assignments| &assignments.assigned);
    assigned.filter(|one| one.resource.is_empty() && !one.device.is_empty())
}

fn write_claimed(out: &mut String, now: &Report, paint: Paint) {
    let held = |one: &Assignment| {
        let share = one.share_id.as_ref().map(|id| format!(", share {}", printable(id))).unwrap_or_default();
        let [namespace, pod, claim] = [&one.namespace, &one.pod, &one.claim].map(|name| printable(name));
        let claim_namespace = printable(&one.claim_namespace);
        Row {
            label: printable(&one.device),
            amount: String::new(),
            note: format!(
                "of {} in pool {}{share}; held by {namespace}/{pod} through {claim_namespace}/{claim}",
                printable(&one.driver),
                printable(&one.pool)
            ),
            tone: Tone::Normal,
        }
    };
    let rows: Vec<_> = claimed(now).map(held).collect();
    if !rows.is_empty() {
        title(out, "Devices held through claims, as their driver names them", paint);
        table::write(out, &rows, paint);
    }
}

fn write_busiest(out: &mut String, since: Option<Since<'_>>, now: &Report, paint: Paint) {
    let Some(Since { report, elapsed_ns }) = since else { return };
    let all = |report: &'_ Report| report.cgroups.iter().flat_map(|all| all.cgroups.clone()).collect::<Vec<_>>();
    let known: HashMap<u64, u64> = all(report).iter().filter_map(|cgroup| Some((cgroup.id, cgroup.cpu_ns?))).collect();
    let mut busy: Vec<(u64, String)> = all(now)
        .iter()
        .filter_map(|cgroup| Some((cgroup.cpu_ns?.saturating_sub(*known.get(&cgroup.id)?), name(cgroup))))
        .filter(|(ns, path)| *ns > 0 && path != "/")
        .collect();
    busy.sort_by(|(a_ns, a), (b_ns, b)| b_ns.cmp(a_ns).then_with(|| a.cmp(b)));
    if busy.is_empty() {
        return;
    }
    title(out, "Busiest cgroups, in cores, each including its descendants", paint);
    let rows = busy.iter().take(BUSIEST).map(|(ns, path)| {
        let characters = path.chars().count();
        let end: String = path.chars().skip(characters.saturating_sub(PATH)).collect();
        let cut = if characters > PATH { "…" } else { "" };
        row(&format!("{cut}{}", printable(&end)), rounded(*ns as f64 / elapsed_ns as f64, 3))
    });
    table::write(out, &rows.collect::<Vec<_>>(), paint);
}

/// The name of a cgroup. A pod's own cgroup may be listed without a path.
fn name(cgroup: &Cgroup) -> String {
    if cgroup.path.is_empty() { format!("pod {}", cgroup.pod_uid) } else { cgroup.path.clone() }
}

#[cfg(test)]
mod tests {
    use mcad_wire::report::{Absence, Assignments, Cgroups, Gpus, Machine};

    use super::*;

    fn report(seconds: u64) -> Report {
        let cgroup =
            |id, path: &str, cpu_ns| Cgroup { id, path: path.into(), cpu_ns: Some(cpu_ns), ..Cgroup::default() };
        Report {
            node: "n-1".into(),
            uptime_ns: seconds * 1_000_000_000,
            machine: Some(Machine {
                cpus_online: Some(2),
                cpu_busy_ns: Some(seconds * 500_000_000),
                memory_total_bytes: Some(8 << 30),
                memory_free_bytes: Some(2 << 30),
                memory_inactive_file_bytes: Some(1 << 30),
            }),
            cgroups: Some(Cgroups {
                source: "bpf".into(),
                cgroups: vec![
                    cgroup(1, "/", seconds * 9),
                    cgroup(2, "/a\u{1b}[2J", seconds * 250_000_000),
                    Cgroup { pod_uid: "u".into(), ..cgroup(3, "", seconds * 1_000_000) },
                ],
                seen: Some(2),
                dropped: Some(0),
                ..Cgroups::default()
            }),
            ..Report::default()
        }
    }

    #[test]
    fn a_node_is_told_as_explain_tells_one() {
        let mut now = report(11);
        let gpu = |uuid: &str, reasons: &[&str]| Gpu {
            uuid: uuid.into(),
            model: "H100".into(),
            unhealthy_reasons: reasons.iter().map(ToString::to_string).collect(),
            utilization_ratio: reasons.is_empty().then_some(0.5),
            ..Gpu::default()
        };
        let mut devices = vec![gpu("GPU-1", &[]), gpu("GPU-2", &["xid_79"])];
        devices[0].warnings = vec!["fabric_degraded_bandwidth".into()];
        now.gpus = Some(Gpus { driver_version: "550".into(), devices, remembered: Some(3), ..Gpus::default() });
        let held = Assignment {
            namespace: "a".into(),
            pod: "p".into(),
            device_ids: vec!["GPU-1::2".into()],
            ..Assignment::default()
        };
        now.assignments = Some(Assignments { assigned: vec![held], allocatable: Vec::new() });
        now.absences = vec![Absence { source: "x".into(), reason: "y".into() }];
        let expected = "\
Node n-1
Sampled now, over 1.0 s.
2 cgroups read by eBPF, in one walk; 1 pod.

cpu, in cores
  installed    2
  used       0.5

memory, in GiB
  installed  8
  used       5

nvidia.com/gpu, in GPUs
  installed  3
  healthy    1
  unhealthy  1
  lost       1

GPUs one by one
  GPU-1     50 %  busy; H100; memory unknown; healthy, warning: fabric_degraded_bandwidth; held by a/p
  GPU-2  unknown  busy; H100; memory unknown; unhealthy: xid_79; held by no pod

Busiest cgroups, in cores, each including its descendants
  /a\\u{1b}[2J   0.25
  pod u        0.001

What could not be read
  x  y
";
        assert_eq!(text(Some(&report(10)), &now, Taken::Here, Paint::Plain), expected);
        // A person sees the same words, bars above them, and what is broken in red.
        let coloured = text(Some(&report(10)), &now, Taken::Here, Paint::Colours);
        assert!(coloured.contains("\x1b[31m  unhealthy  1") || coloured.contains("\x1b[31munhealthy  1"), "{coloured}");
        let mut plain = coloured;
        for code in ["0", "1", "2", "31", "32", "33"] {
            plain = plain.replace(&format!("\x1b[{code}m"), "");
        }
        let (bars, words): (Vec<_>, Vec<_>) = plain.lines().partition(|line| line.contains(['█', '×', '░']));
        assert_eq!((bars.len(), words.join("\n") + "\n"), (3, expected.to_owned()), "{bars:#?}");
    }

    #[test]
    fn a_device_that_is_held_through_a_claim_is_told_by_its_drivers_name_and_no_gpu_is_called_free() {
        let mut now = report(11);
        let gpu = Gpu { uuid: "GPU-1".into(), ..Gpu::default() };
        now.gpus = Some(Gpus { driver_version: "550".into(), devices: vec![gpu], ..Gpus::default() });
        let held = |device: &str, share_id: Option<&str>| Assignment {
            namespace: "a".into(),
            pod: "p".into(),
            claim_namespace: "a".into(),
            claim: "p-gpu".into(),
            driver: "gpu.nvidia.com".into(),
            pool: "n-1".into(),
            device: device.into(),
            share_id: share_id.map(str::to_owned),
            ..Assignment::default()
        };
        let assigned = vec![held("gpu-0", None), held("gpu-1", Some("5a"))];
        now.assignments = Some(Assignments { assigned, allocatable: Vec::new() });
        let said = text(None, &now, Taken::Here, Paint::Plain);
        let expected = "
GPUs one by one
  GPU-1  unknown  busy; memory unknown; healthy; held by no pod, or through a claim listed below

Devices held through claims, as their driver names them
  gpu-0  of gpu.nvidia.com in pool n-1; held by a/p through a/p-gpu
  gpu-1  of gpu.nvidia.com in pool n-1, share 5a; held by a/p through a/p-gpu
";
        assert!(said.ends_with(expected), "{said}");
    }

    #[test]
    fn an_agents_reports_say_how_old_they_are_and_one_alone_no_rate() {
        let age = Duration::from_secs(75);
        let said = |before| text(before, &report(11), Taken::ByAgent { age }, Paint::Plain);
        let before = report(1);
        let both = said(Some(&before));
        assert!(
            both.contains("The agent sampled 1 min ago, over 10.0 s.\n") && both.contains("  used       0.5\n"),
            "{both}"
        );
        let one = said(None);
        assert!(one.contains("1 min ago, for the first time; usage is not known yet.\n"), "{one}");
        assert!(one.contains("  used       unknown\n") && !one.contains("Busiest"), "{one}");
        // The same report twice does not count as two reports.
        let same = report(11);
        assert!(said(Some(&same)).contains("for the first time"));
    }

    #[test]
    fn what_is_unknown_is_called_so() {
        let nothing = Report { node: "n-1".into(), ..Report::default() };
        let expected = "\
Node n-1
Sampled now.
Cgroups could not be read.

cpu, in cores
  installed  unknown
  used       unknown

memory, in GiB
  installed  unknown
  used       unknown

GPUs
  unknown: the driver could not be queried
";
        assert_eq!(text(Some(&nothing), &nothing, Taken::Here, Paint::Plain), expected);
    }
}
