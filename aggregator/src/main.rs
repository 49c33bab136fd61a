//! mcad-aggregator.
fn main() {}
