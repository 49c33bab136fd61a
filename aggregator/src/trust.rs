//! Who may send reports, and how both sides know whom they talk to. Owns certificates and identity; what a report says is
//! known further in, how connections are kept is the server's.
//!
//! Decisions are functions of values (`rotation`, `claims`, `verdict`); files, the API server and sockets are at the ends.

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

pub mod pace;
