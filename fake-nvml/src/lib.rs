//! A stand-in for `libnvidia-ml.so.1` at its C ABI, for machines without a GPU.
