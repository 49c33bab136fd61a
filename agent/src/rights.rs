//! Giving up what only the start needs: capabilities, and every way to get them back. What each step of the agent needs is
//! docs/decisions/0005; what the kernel makes of missing ones is [`crate::kernel`]'s.

use rustix::{
    io::Errno,
    thread::{self, CapabilitySet, CapabilitySets},
};

/// What could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// The ambient set, which a program of another user keeps over its start.
    #[error("clear the ambient capabilities")]
    Ambient(#[source] Errno),
    /// The sets that the kernel asks.
    #[error("clear the effective, permitted and inheritable capabilities")]
    Sets(#[source] Errno),
    /// No program started from here on gets rights by its owner or its file.
    #[error("set no_new_privs")]
    NoNewPrivileges(#[source] Errno),
}

/// Leaves the calling thread, and all that it starts from now on, without any capability. Answers those that it had.
///
/// Call it while there is no other thread: each has rights of its own.
pub fn give_up() -> Result<CapabilitySet, RightsError> {
    let had = thread::capabilities(None).map_err(RightsError::Sets)?.permitted;
    thread::set_no_new_privs(true).map_err(RightsError::NoNewPrivileges)?;
    bound();
    thread::clear_ambient_capability_set().map_err(RightsError::Ambient)?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    thread::set_capabilities(None, sets).map_err(RightsError::Sets)?;
    Ok(had)
}

/// Empties the bounding set, as far as allowed: that takes CAP_SETPCAP, which a pod does not have. Without, `no_new_privs` alone
/// keeps what is started from here from the rights in it.
fn bound() {
    for number in 0..u64::BITS {
        if thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)).is_err() {
            // The kernel has no more of them, or does not let us.
            break;
        }
    }
}
