//! Code that the tests and benchmarks of the aggregator's crates share: builders for reports and objects, random clusters, and the text of
//! a snapshot.
//!
//! Nothing of it is shipped. Code that needs the aggregator itself is behind the feature `whole`, so that the pure crates can be tested
//! without compiling the aggregator.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::missing_panics_doc, reason = "a panic is how a test fails")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

pub mod build;
pub mod golden;
pub mod queues;
pub mod random;
pub mod random_devices;
pub mod reports;

#[cfg(feature = "whole")]
pub mod explained;
#[cfg(feature = "whole")]
pub mod text;
#[cfg(feature = "whole")]
pub use text::*;

/// The time in all tests: 2026-01-05T10:00:00Z.
pub const NOW_MS: i64 = 1_767_607_200_000;
