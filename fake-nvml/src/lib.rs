//! A replacement of `libnvidia-ml.so.1` with its C ABI, for machines without a GPU.
//!
//! A scenario file defines the devices and their behaviour. The library reads it again whenever it changes, so a
//! running program can see a GPU break, hang and recover. It is for tests and for trying out, has `fake` in its driver
//! version, and is never part of an image. The program under test works as usual: it loads this library by path and
//! calls NVML's functions.
//!
//! As a Rust crate it offers the scenario's types, for tests that write such a file. It has no functions that *set*
//! something in NVML (clocks, power, modes): these symbols are missing.

pub mod installation;
pub mod model;
pub mod scenario;

mod abi;
mod crash;
mod library;

pub use installation::Installation;
pub use scenario::Scenario;
