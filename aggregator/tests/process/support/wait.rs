//! Waiting for a state, never for a time.

use std::time::{Duration, Instant};

/// No state that a test waits for takes this long, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Between two looks: far shorter than anything waited for, and cheap beside what is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until there is something, and gives it.
pub(crate) async fn until_some<T>(what: &str, found: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{PATIENCE:?} without: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits for a state.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    until_some(what, || holds().then_some(())).await;
}
