//! What pods do with the GPUs that they hold: busy, or idle by cause (docs/accounting.md §13).
use mcad_accounting::gpu_use::{Use, Uses};
use mcad_accounting::resource::Resource;
use mcad_wire::parts::Part;
use serde::Serialize;

use super::amount::{Rounding, list, number};

/// Billionths of a device.
const NANO: f64 = 1e9;
/// Less than this is not worth a word, in devices.
const LITTLE: f64 = 0.05;

/// GPUs that pods hold, by what the pods did with them in the last interval of each agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeldGpus {
    /// All of them. A time slice or a MIG instance counts as one.
    pub devices: f64,
    /// The part that was busy.
    pub busy: f64,
    /// The rest, largest first.
    pub idle: Vec<IdleGpus>,
}

/// GPUs that idled for one cause.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IdleGpus {
    /// A value of the label `cause`.
    pub cause: &'static str,
    /// How many.
    pub devices: f64,
    /// The cause for people.
    #[serde(skip)]
    pub words: &'static str,
}

impl From<&Uses> for HeldGpus {
    fn from(uses: &Uses) -> Self {
        let devices = |nano: u64| nano as f64 / NANO;
        let idle = uses.idle().filter(|(_, nano)| *nano > 0);
        let idle = idle.map(|(of, nano)| IdleGpus { cause: of.label(), devices: devices(nano), words: words(of) });
        let mut idle: Vec<IdleGpus> = idle.collect();
        idle.sort_by(|a, b| b.devices.total_cmp(&a.devices));
        Self { devices: devices(uses.sum()), busy: devices(uses.of(Use::BUSY)), idle }
    }
}

impl HeldGpus {
    /// `16 GPUs, 9.3 busy; idle: 4.1 waiting for I/O and 2 without a process`.
    pub fn in_words(&self) -> String {
        let gpus = if shown(self.devices) == "1" { "GPU" } else { "GPUs" };
        let all = format!("{} {gpus}, {} busy", shown(self.devices), shown(self.busy));
        let idle = self.idle.iter().filter(|idle| idle.devices >= LITTLE);
        let idle: Vec<_> = idle.map(|idle| format!("{} {}", shown(idle.devices), idle.words)).collect();
        if idle.is_empty() { all } else { format!("{all}; idle: {}", list(&idle)) }
    }
}

/// With one decimal.
pub fn shown(devices: f64) -> String {
    number(&Resource::Gpu, (devices * 10.0).round() / 10.0, Rounding::Nearest)
}

/// The cause in words, behind a number of GPUs.
pub fn words(cause: Use) -> &'static str {
    match cause {
        Use::Part(part) => match part {
            Part::Busy => "busy",
            Part::Shared => "busy for other pods",
            Part::Uneven => "while another GPU of the pod is busier",
            Part::Memory => "waiting for memory",
            Part::Io => "waiting for I/O",
            Part::CpuThrottled => "throttled by a CPU limit",
            Part::CpuWait => "waiting for a CPU",
            Part::Host => "while the pod's code runs on CPUs",
            Part::Asleep => "while the pod sleeps",
            Part::NoProcess => "without a process",
            Part::Broken => "broken",
            Part::Unknown => "for an unknown cause",
        },
        Use::Starting => "before the container starts",
        Use::Gang => "until all pods of the AppWrapper have a node",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_what_counts_and_little_is_left_out() {
        let mut uses = Uses::default();
        uses.add(Use::BUSY, 9_300_000_000);
        uses.add(Use::Part(Part::NoProcess), 2_000_000_000);
        uses.add(Use::Part(Part::Io), 4_660_000_000);
        uses.add(Use::Part(Part::Asleep), 40_000_000);
        let held = HeldGpus::from(&uses);
        assert_eq!(held.in_words(), "16 GPUs, 9.3 busy; idle: 4.7 waiting for I/O and 2 without a process");
        let mut busy = Uses::default();
        busy.add(Use::BUSY, 1_000_000_000);
        assert_eq!(HeldGpus::from(&busy).in_words(), "1 GPU, 1 busy");
    }
}
