//! How many files this process may have open: maps, cgroups' files and connections are some. Owns the limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as that is allowed, and returns what it is then. A shell's is 1,024 as a rule, and what is allowed is
/// hundreds of times that.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        // None is no limit at all.
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}
