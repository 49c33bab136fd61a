//! How what people read in a terminal is set, so that `explain`, `status` and `cargo xtask run` speak one language: tables and
//! bars, colours where they are wanted, names that play no tricks. Knows nothing of what is shown.
pub mod paint;

pub mod bar;
pub mod table;
pub mod words;
