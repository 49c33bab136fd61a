//! mcad-aggregator, as a library for its own binary, tests and benchmarks.
