//! Drops what only the start needs: capabilities, and every way to get them back. docs/decisions/0005 lists the rights
//! that each step of the agent needs; [`crate::kernel`] checks whether they are missing.

use rustix::{
    io::Errno,
    thread::{self, CapabilitySet, CapabilitySets},
};

/// What could not be dropped.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// The ambient set, which a program inherits when it is started as another user.
    #[error("cannot clear the ambient capabilities")]
    Ambient(#[source] Errno),
    /// The sets that the kernel checks.
    #[error("cannot clear the effective, permitted and inheritable capabilities")]
    Sets(#[source] Errno),
    /// Without it, a program started from here could gain rights from its owner or its file.
    #[error("cannot set no_new_privs")]
    NoNewPrivileges(#[source] Errno),
}

/// Removes all capabilities from the calling thread and all threads that it starts later. Returns those that it had.
///
/// Call it while there is no other thread, because each thread has its own capabilities.
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

/// Empties the bounding set as far as allowed: this needs CAP_SETPCAP, which a pod does not have. Without it, only
/// `no_new_privs` keeps programs started from here from gaining the capabilities in it.
fn bound() {
    for number in 0..u64::BITS {
        if thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)).is_err() {
            // The kernel has no more capabilities, or does not allow dropping them.
            break;
        }
    }
}
