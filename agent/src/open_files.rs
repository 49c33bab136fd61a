//! Raises the limit of open files of this process, which maps, cgroup files and connections count towards.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to the allowed maximum and returns the new limit. A shell's limit is usually 1,024, and the maximum
/// is hundreds of times that.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        // `None` means that there is no limit.
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}
