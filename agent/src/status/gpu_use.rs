//! Who uses each GPU, and why it idles: the parts of the time between two reports.

use mcad_terminal::table::Row;
use mcad_terminal::words::{list, printable};
use mcad_wire::report::{GpuUse, Gpus};

use super::row;
use crate::sample::gpu::Part;

/// So many characters of a container's id are shown, as `crictl` shows them.
const CONTAINER: usize = 13;

/// A line for each container that had a process on a GPU or MIG instance; busy time is the amount.
pub(super) fn rows(before: &Gpus, now: &Gpus) -> Vec<Row> {
    let known: Vec<(&str, &[GpuUse])> = devices(before).collect();
    let of_device = |(uuid, uses): (&str, &[GpuUse])| {
        // Of a device that the earlier report lacks, it is not known what is new. On a device that it has, a new container begins at 0.
        let before = known.iter().find(|(known, _)| *known == uuid).map(|(_, uses)| *uses);
        let uuid = printable(uuid);
        before
            .into_iter()
            .flat_map(|before| uses.iter().filter_map(|used| of_use(&uuid, before, used)))
            .collect::<Vec<_>>()
    };
    devices(now).flat_map(of_device).collect()
}

/// GPUs and MIG instances, and who uses them.
fn devices(gpus: &Gpus) -> impl Iterator<Item = (&str, &[GpuUse])> {
    let instances = gpus.devices.iter().flat_map(|gpu| &gpu.mig_instances).map(|one| (&*one.uuid, &*one.uses));
    gpus.devices.iter().map(|gpu| (&*gpu.uuid, &*gpu.uses)).chain(instances)
}

fn of_use(uuid: &str, before: &[GpuUse], now: &GpuUse) -> Option<Row> {
    let is_same = |known: &&GpuUse| known.pod_uid == now.pod_uid && known.container_id == now.container_id;
    let before = before.iter().find(is_same).map_or(&[][..], |known| &known.parts);
    let gains: Vec<u64> =
        (0..now.parts.len()).map(|at| now.parts[at].saturating_sub(before.get(at).copied().unwrap_or(0))).collect();
    let sum = gains.iter().sum::<u64>();
    if sum == 0 {
        return None;
    }
    let percent = |ns: u64| format!("{:.0} %", ns as f64 / sum as f64 * 100.0);
    let mut idle: Vec<(u64, &str)> = gains.iter().enumerate().skip(1).map(|(at, ns)| (*ns, why(at))).collect();
    idle.retain(|(ns, _)| *ns > 0);
    idle.sort_by_key(|(ns, _)| std::cmp::Reverse(*ns));
    let idle: Vec<_> = idle.into_iter().map(|(ns, why)| format!("{} {why}", percent(ns))).collect();
    let idle = if idle.is_empty() { "never idle".to_owned() } else { format!("idle: {}", list(&idle)) };
    let container: String = now.container_id.chars().take(CONTAINER).collect();
    let container = if container.is_empty() { String::new() } else { format!(", container {}", printable(&container)) };
    let pod = format!("pod {}{container}", printable(&now.pod_uid));
    Some(Row { note: format!("busy; {pod}; {idle}"), ..row(uuid, percent(gains.first().copied().unwrap_or(0))) })
}

/// The reason for idle time of the part at this position. A position of a later version is not known.
fn why(at: usize) -> &'static str {
    match Part::ALL.get(at).copied().unwrap_or(Part::Unknown) {
        Part::Busy => "busy",
        Part::Shared => "while others keep it busy",
        Part::Uneven => "while another GPU of the pod is busier",
        Part::Memory => "waiting for memory",
        Part::Io => "waiting for I/O",
        Part::CpuThrottled => "stopped by its CPU limit",
        Part::CpuWait => "waiting for a CPU",
        Part::Host => "while its code runs on a CPU",
        Part::Asleep => "asleep: waiting for the network, other processes or a timer",
        Part::NoProcess => "without a process on it",
        Part::Broken => "because the GPU does not work",
        Part::Unknown => "for an unknown reason",
    }
}

#[cfg(test)]
mod tests {
    use mcad_wire::report::Gpu;

    use super::*;

    fn gpus(parts: &[u64]) -> Gpus {
        let (pod_uid, container_id) = ("uid\u{1b}".into(), "c".repeat(64));
        let used = GpuUse { pod_uid, container_id, parts: parts.to_vec(), ..GpuUse::default() };
        let gpu = Gpu { uuid: "GPU-1".into(), uses: vec![used, GpuUse::default()], ..Gpu::default() };
        Gpus { devices: vec![gpu], ..Gpus::default() }
    }

    fn check(before: &[u64], now: &[u64], expected: &str) {
        let lines: Vec<_> =
            rows(&gpus(before), &gpus(now)).iter().map(|row| format!("{} {}", row.amount, row.note)).collect();
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn the_time_between_two_reports_is_told_by_cause_the_largest_first() {
        check(
            &[5, 1],
            &[25, 1, 0, 0, 60, 0, 0, 20],
            "20 % busy; pod uid\\u{1b}, container ccccccccccccc; idle: 60 % waiting for I/O and 20 % while its code runs on a CPU",
        );
        check(&[], &[10], "100 % busy; pod uid\\u{1b}, container ccccccccccccc; never idle");
        // The earlier report lacks the GPU: nothing can be said of it.
        assert_eq!(rows(&Gpus::default(), &gpus(&[10])), []);
        // Nothing was split since then.
        check(&[10], &[10], "");
        // A part of a later version.
        let mut later = vec![0; 12];
        later.push(8);
        check(&[], &later, "0 % busy; pod uid\\u{1b}, container ccccccccccccc; idle: 100 % for an unknown reason");
    }
}
