//! The order and the unit in which resources are presented, whatever the output.
use mcad_accounting::resource::Resource;

/// The sort key of a resource: GPUs first, since they matter most to users.
pub fn order(resource: &Resource) -> (u8, Resource) {
    let rank = match resource {
        Resource::Gpu => 0,
        Resource::Cpu => 1,
        Resource::Memory => 2,
        Resource::Extended(_) => 3,
    };
    (rank, resource.clone())
}

/// Converts nanocores to millicores and nanodevices to devices; bytes are unchanged.
pub fn in_unit(resource: &Resource, used: u64) -> f64 {
    match resource {
        Resource::Cpu => used as f64 / 1e6,
        Resource::Memory => used as f64,
        Resource::Gpu | Resource::Extended(_) => used as f64 / 1e9,
    }
}
