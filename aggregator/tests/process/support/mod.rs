//! Real parts that tests stand on: processes, started and ended with the test, and the wires between them.

#![allow(dead_code, reason = "every test file takes what it needs")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what a test can't go on without ends it")]

pub(crate) mod accounts;
pub(crate) mod agents;
pub(crate) mod aggregator;
pub(crate) mod apiserver;
pub(crate) mod devices;
pub(crate) mod objects;
pub(crate) mod prometheus;
pub(crate) mod proxy;
pub(crate) mod wait;
pub(crate) mod witness;
