//! mcad-agent.
fn main() {}
