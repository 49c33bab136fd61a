//! What tests and benchmarks of the aggregator's crates share: reports, objects and random clusters in few words, and a snapshot's text.
//!
//! Nothing of it is shipped. What needs the aggregator itself stands behind the feature `whole`, so that the pure crates are tested
//! without compiling it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::missing_panics_doc, reason = "a panic is how a test fails")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

pub mod build;
pub mod golden;
pub mod random;
pub mod reports;

#[cfg(feature = "whole")]
pub mod explained;
#[cfg(feature = "whole")]
pub mod text;
#[cfg(feature = "whole")]
pub use text::*;

/// The time of all tests: 2026-01-05T10:00:00Z.
pub const NOW_MS: i64 = 1_767_607_200_000;
