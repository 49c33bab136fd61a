//! Reads the two clocks of a node.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::ClockId;

use crate::sample::Moment;

/// The current time on both clocks of this machine.
pub fn now() -> Moment {
    let uptime = rustix::time::clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(uptime.tv_sec).unwrap_or(0);
    let uptime_ns = seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(uptime.tv_nsec).unwrap_or(0));
    // A wall clock before 1970 was never set.
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Moment { unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX), uptime_ns }
}
