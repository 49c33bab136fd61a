//! What time it is, as a value. Owns the only place that asks the system; everything else is handed a [`Now`].
pub mod api;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcad_accounting::now::Now;
use rustix::time::ClockId;

/// Where [`Now`] comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Now + Send + Sync>);

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self::from_fn(|| Now {
            since_start: since_boot(),
            // A machine before 1970 has other troubles than our time stamps.
            unix_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        })
    }

    /// A clock that says what `now` says: tests turn it by hand.
    pub fn from_fn(now: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Asks.
    pub fn now(&self) -> Now {
        (self.0)()
    }
}

/// Of the clocks that never jump, the one that also runs while the machine is suspended: what was said before is old then.
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
