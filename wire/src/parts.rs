//! The parts that an agent splits the time of a device into, by position as in `parts` and `vacant` of the report.

/// What a holder does with a device, or why the device idles. docs/report.md describes each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// A kernel of its own runs.
    Busy,
    /// Others keep the device busy.
    Shared,
    /// Another device of the pod is busier.
    Uneven,
    /// All its tasks wait for memory.
    Memory,
    /// All its tasks wait for I/O.
    Io,
    /// Its CPU limit stops it.
    CpuThrottled,
    /// All its tasks wait for a CPU.
    CpuWait,
    /// Its own code runs on a CPU.
    Host,
    /// It waits for something else: the network, peers, a lock, a timer.
    Asleep,
    /// It has no process on the device.
    NoProcess,
    /// The device does not work.
    Broken,
    /// There is no evidence.
    Unknown,
}

impl Part {
    /// Every part, in the order of the report.
    pub const ALL: [Self; 12] = [
        Self::Busy,
        Self::Shared,
        Self::Uneven,
        Self::Memory,
        Self::Io,
        Self::CpuThrottled,
        Self::CpuWait,
        Self::Host,
        Self::Asleep,
        Self::NoProcess,
        Self::Broken,
        Self::Unknown,
    ];

    /// The name in snake case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Shared => "shared",
            Self::Uneven => "uneven",
            Self::Memory => "memory",
            Self::Io => "io",
            Self::CpuThrottled => "cpu_throttled",
            Self::CpuWait => "cpu_wait",
            Self::Host => "host",
            Self::Asleep => "asleep",
            Self::NoProcess => "no_process",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
        }
    }
}
