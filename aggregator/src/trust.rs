//! Authentication of agents and replicas, and TLS certificates. Owns certificates and identity, not the content of reports or the
//! connections.
//!
//! Decisions are pure functions (`rotation`, `claims`, `verdict`); the other modules access files, the API server and sockets.

pub mod authority;
pub mod certificate;
pub mod files;
pub mod rotation;
pub mod tls;

pub mod claims;
pub mod identity;
mod strangers;
pub mod verdict;

pub mod peers;
