//! The current time as a value. The only place that reads the system clocks; all other code receives a [`Now`].
pub mod api;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcad_accounting::now::Now;
use rustix::time::ClockId;

/// The source of [`Now`].
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Now + Send + Sync>);

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self::from_fn(|| Now {
            since_start: since_boot(),
            // A clock before 1970 counts as 1970.
            unix_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        })
    }

    /// A clock that returns the result of `now`, for tests.
    pub fn from_fn(now: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The current time.
    pub fn now(&self) -> Now {
        (self.0)()
    }
}

/// The monotonic clock that also runs while the machine is suspended, so that state from before the suspension is old.
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
