//! GPU vendors, one row for each: how to detect their GPUs on a node, where their driver's files are, and how kubelet
//! names their resources. How to query a driver is in the vendor's reader, a folder or file of `source`.

use mcad_wire::report::Gpus;

/// A vendor.
#[derive(Debug)]
pub struct Vendor {
    /// Its id on the PCI bus, as sysfs spells it.
    pub pci_id: &'static str,
    /// The kernel driver that should have its GPUs, as sysfs names it.
    pub driver: &'static str,
    /// Whether a name in `/dev` is a device file of that driver.
    pub is_device: fn(&str) -> bool,
    /// Where its driver's libraries may be, in addition to the usual folders of libraries.
    pub library_folders: &'static [&'static str],
    /// What else its libraries read, including everything below.
    pub read: &'static [&'static str],
    /// The prefix of its resource names.
    pub resource_prefix: &'static str,
    /// The suffix of its driver names for Dynamic Resource Allocation.
    pub claim_driver_suffix: &'static str,
    /// The device plugin's resource for whole GPUs.
    pub gpu: &'static str,
    /// The prefix of the resource names for parts of a GPU; the rest is the part's profile.
    pub part_prefix: &'static str,
}

/// The resource name of whole GPUs of a report. The aggregator has the same rule: a name without a domain cannot be an extended
/// resource, and NVIDIA's is used in its place.
pub fn gpu_resource(gpus: &Gpus) -> &str {
    if gpus.resource.contains('/') { &gpus.resource } else { NVIDIA.gpu }
}

/// The resource name of parts with this profile: `1g.10gb+me` is `nvidia.com/mig-1g.10gb.me`.
pub fn part_resource(gpus: &Gpus, profile: &str) -> String {
    let prefix = if gpus.part_prefix.contains('/') { &gpus.part_prefix } else { NVIDIA.part_prefix };
    format!("{prefix}{}", profile.replace('+', "."))
}

/// All vendors whose GPUs are read.
pub const VENDORS: [&Vendor; 1] = [&NVIDIA];

/// Whether this resource belongs to a vendor. A node may have thousands of others (`smarter-devices/fuse`) that have
/// nothing to do with GPUs.
pub fn is_resource(name: &str) -> bool {
    VENDORS.iter().any(|vendor| name.starts_with(vendor.resource_prefix))
}

/// Whether this driver of a claim belongs to a vendor. Other drivers may give every pod network devices, for example.
pub fn is_claim_driver(name: &str) -> bool {
    VENDORS.iter().any(|vendor| name.ends_with(vendor.claim_driver_suffix))
}

/// Read by `source/gpu`, through NVML.
pub const NVIDIA: Vendor = Vendor {
    pci_id: "0x10de",
    driver: "nvidia",
    is_device: |name| name.starts_with("nvidia") || name == "dxg",
    // The GPU operator's driver container, Container-Optimized OS, WSL.
    library_folders: &[
        "/run/nvidia/driver/usr/lib64",
        "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
        "/run/nvidia/driver/usr/lib/aarch64-linux-gnu",
        "/usr/local/nvidia/lib64",
        "/home/kubernetes/bin/nvidia/lib64",
        "/usr/lib/x86_64-linux-gnu/nvidia/current",
        "/usr/lib/wsl/lib",
    ],
    read: &["/run/nvidia", "/home/kubernetes/bin/nvidia", "/etc/nvidia"],
    resource_prefix: "nvidia.com/",
    claim_driver_suffix: ".nvidia.com",
    gpu: "nvidia.com/gpu",
    part_prefix: "nvidia.com/mig-",
};

/// Where a container runtime mounts the host's libraries if it uses the host's folders, in an image whose loader
/// searches others.
pub const HOSTS_FOLDERS: [&str; 3] = ["/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
