//! Where the libraries of NVIDIA's driver may be, beside those that the loader knows.

/// Where drivers are kept that are not in the loader's path: the GPU operator's driver container, Container-Optimized OS.
pub const DRIVER_FOLDERS: [&str; 10] = [
    "/run/nvidia/driver/usr/lib64",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
    "/run/nvidia/driver/usr/lib/aarch64-linux-gnu",
    "/usr/local/nvidia/lib64",
    "/home/kubernetes/bin/nvidia/lib64",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/wsl/lib",
    // Where a container runtime that goes by the host's habits puts it, in an image whose loader has others.
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];
