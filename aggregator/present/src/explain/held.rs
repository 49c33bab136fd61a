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

impl IdleGpus {
    fn is_unknown(&self) -> bool {
        self.cause == Use::Part(Part::Unknown).label()
    }
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
    /// How many of them are in an unknown use, which may be busy.
    fn unknown(&self) -> f64 {
        self.idle.iter().find(|idle| idle.is_unknown()).map_or(0.0, |idle| idle.devices)
    }

    /// Whether nothing is known of their use.
    pub fn is_unknown(&self) -> bool {
        self.devices - self.unknown() < LITTLE
    }

    /// Those that idle for a known cause, largest first.
    pub fn known_idle(&self) -> impl Iterator<Item = &IdleGpus> {
        self.idle.iter().filter(|idle| !idle.is_unknown())
    }

    /// `16 GPUs, 9.3 busy; idle: 4.1 waiting for I/O and 2 without a process`. Of what is unknown, it is not said that it idles.
    pub fn in_words(&self) -> String {
        let gpus = if shown(self.devices) == "1" { "GPU" } else { "GPUs" };
        let all = format!("{} {gpus}", shown(self.devices));
        let of_unknown = self.unknown();
        if self.is_unknown() {
            return format!("{all}; what they do with them is unknown");
        }
        let idle = self.known_idle().filter(|idle| idle.devices >= LITTLE);
        let idle: Vec<_> = idle.map(|idle| format!("{} {}", shown(idle.devices), idle.words)).collect();
        let idle = if idle.is_empty() { String::new() } else { format!("; idle: {}", list(&idle)) };
        let unknown = if of_unknown < LITTLE { String::new() } else { format!("; {} unknown", shown(of_unknown)) };
        format!("{all}, {} busy{idle}{unknown}", shown(self.busy))
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
            Part::Unknown => "unknown",
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
        uses.add(Use::Part(Part::Unknown), 4_000_000_000);
        let expected = "20 GPUs, 9.3 busy; idle: 4.7 waiting for I/O and 2 without a process; 4 unknown";
        assert_eq!(HeldGpus::from(&uses).in_words(), expected);
        let mut unknown = Uses::default();
        unknown.add(Use::Part(Part::Unknown), 4_000_000_000);
        assert_eq!(HeldGpus::from(&unknown).in_words(), "4 GPUs; what they do with them is unknown");
        let mut busy = Uses::default();
        busy.add(Use::BUSY, 1_000_000_000);
        assert_eq!(HeldGpus::from(&busy).in_words(), "1 GPU, 1 busy");
    }
}
