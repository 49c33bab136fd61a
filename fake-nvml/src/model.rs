//! Existing GPU models, as far as a monitor can distinguish them. The values are those of NVIDIA's data sheets and of
//! `nvidia-smi`; this project read none of them from such a device.

/// The common properties of all GPUs of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// NVML's name of it.
    pub name: &'static str,
    /// Device and vendor id on the PCI bus, in NVML's format.
    pub pci_device_id: u32,
    /// Total memory.
    pub memory_total_bytes: u64,
    /// The part of it that the driver reserves.
    pub memory_reserved_bytes: u64,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// How many MIG instances fit; 0 if the model does not support MIG.
    pub mig_slices: u32,
    /// Major and minor compute capability.
    pub compute_capability: (i32, i32),
    /// Whether it is connected by NVSwitch, so that it has a fabric state.
    pub fabric: bool,
    /// How many NVLinks it has.
    pub nvlinks: usize,
}

const MIB: u64 = 1 << 20;

/// The models that a scenario can name.
pub const MODELS: [Model; 8] = [
    model("NVIDIA H100 80GB HBM3", 0x2330_10de, 81_559, 132, 7, (9, 0), true, 18),
    model("NVIDIA H200", 0x2335_10de, 143_771, 132, 7, (9, 0), true, 18),
    model("NVIDIA A100-SXM4-80GB", 0x20b2_10de, 81_920, 108, 7, (8, 0), false, 12),
    model("NVIDIA A100-SXM4-40GB", 0x20b0_10de, 40_960, 108, 7, (8, 0), false, 12),
    model("NVIDIA A30", 0x20b7_10de, 24_576, 56, 4, (8, 0), false, 4),
    model("NVIDIA L40S", 0x26b9_10de, 46_068, 142, 0, (8, 9), false, 0),
    model("NVIDIA L4", 0x27b8_10de, 23_034, 58, 0, (8, 9), false, 0),
    model("Tesla T4", 0x1eb8_10de, 15_360, 40, 0, (7, 5), false, 0),
];

#[expect(clippy::too_many_arguments, reason = "a row of the table above")]
const fn model(
    name: &'static str,
    pci_device_id: u32,
    memory_mib: u64,
    multiprocessors: u32,
    mig_slices: u32,
    compute_capability: (i32, i32),
    fabric: bool,
    nvlinks: usize,
) -> Model {
    let memory_total_bytes = memory_mib * MIB;
    // About what a driver of the 550 series reserves on an idle 80 GB device.
    let memory_reserved_bytes = 551 * MIB;
    Model {
        name,
        pci_device_id,
        memory_total_bytes,
        memory_reserved_bytes,
        multiprocessors,
        mig_slices,
        compute_capability,
        fabric,
        nvlinks,
    }
}

/// The model with this name, with or without the vendor's name.
pub fn by_name(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name || model.name.strip_prefix("NVIDIA ") == Some(name))
}
