//! A stand-in for `libnvidia-ml.so.1` at its C ABI, for machines without a GPU.
//!
//! A scenario file says which devices there are and how they behave; the library reads it anew whenever it changes, so a
//! running program sees a GPU break, hang and mend. It is for tests and for trying out, says `fake` in its driver
//! version, and is never part of an image. The program under test sees no difference: it loads this library by path and
//! calls NVML's functions.
//!
//! Used as a Rust crate it offers the scenario's types, for tests that write such a file. What NVML can *set*
//! (clocks, power, modes) is not here: a caller finds no such symbol.

pub mod installation;
pub mod model;
pub mod scenario;

mod abi;
mod crash;
mod library;

pub use installation::Installation;
pub use scenario::Scenario;
