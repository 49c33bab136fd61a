//! What holds for resources however they are shown: in what order they come, and in what unit.
use mcad_accounting::resource::Resource;

/// GPUs are what people come for.
pub fn order(resource: &Resource) -> (u8, Resource) {
    let rank = match resource {
        Resource::Gpu => 0,
        Resource::Cpu => 1,
        Resource::Memory => 2,
        Resource::Extended(_) => 3,
    };
    (rank, resource.clone())
}

/// Nanocores as millicores, nanodevices as devices; bytes stay.
pub fn in_unit(resource: &Resource, used: u64) -> f64 {
    match resource {
        Resource::Cpu => used as f64 / 1e6,
        Resource::Memory => used as f64,
        Resource::Gpu | Resource::Extended(_) => used as f64 / 1e9,
    }
}
