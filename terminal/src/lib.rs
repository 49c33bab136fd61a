//! Terminal output shared by `explain`, `status` and `cargo xtask run`, so that they look alike: tables, bars, colours
//! if wanted, and names that cannot manipulate a terminal. It does not know what is shown.
pub mod paint;
mod size;

pub mod bar;
pub mod grid;
pub mod table;
pub mod words;

pub use self::size::{Size, size};
