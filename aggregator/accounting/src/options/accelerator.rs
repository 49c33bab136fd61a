//! Accelerators: extended resources for which slots and the largest free block are exported (docs/accounting.md §5), and which the first
//! sentence of the page and of `explain` counts. Owns which resources these are.
use std::borrow::Borrow;
use std::str::FromStr;
use std::sync::Arc;

use crate::resource::Resource;

/// Everything that NVIDIA's device plugin declares: GPUs, shared GPUs, MIG profiles.
const NVIDIA: &str = "nvidia.com/";
/// What Intel's device plugin declares: `gpu.intel.com/i915`, `gpu.intel.com/xe`, and shares of them.
const INTEL: &str = "gpu.intel.com/";
/// Accelerators of AMD, Habana and Google.
const OTHERS: [&str; 3] = ["amd.com/gpu", "habana.ai/gaudi", "google.com/tpu"];

/// A resource that `--accelerator NAME` declares to be an accelerator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Accelerator(Arc<str>);

/// Why a name cannot be declared an accelerator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of an extended resource; write it as nodes declare it, for example example.com/npu")]
pub struct ParseError(String);

/// Whether an extended resource is an accelerator without being declared one.
pub fn is_well_known(name: &str) -> bool {
    name.starts_with(NVIDIA) || name.starts_with(INTEL) || OTHERS.contains(&name)
}

impl FromStr for Accelerator {
    type Err = ParseError;

    fn from_str(name: &str) -> Result<Self, ParseError> {
        match Resource::named(name) {
            Some(resource) if resource.is_extended() => Ok(Self(name.into())),
            _ => Err(ParseError(name.to_owned())),
        }
    }
}

impl Borrow<str> for Accelerator {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn the_well_known_ones_and_those_that_are_declared_are_accelerators() {
        let npu = "example.com/npu".parse().unwrap();
        let options = Options { accelerators: [npu].into(), ..Options::default() };
        for (name, expected) in [
            ("nvidia.com/gpu", true),
            ("nvidia.com/gpu.shared", true),
            ("nvidia.com/mig-1g.10gb", true),
            ("amd.com/gpu", true),
            ("habana.ai/gaudi", true),
            ("google.com/tpu", true),
            ("gpu.intel.com/i915", true),
            ("example.com/npu", true),
            ("amd.com/cpu", false),
            ("habana.ai/gaudi2", false),
            ("rdma/hca", false),
            ("example.com/npu2", false),
        ] {
            assert_eq!(options.is_accelerator(name), expected, "{name}");
        }
    }

    #[test]
    fn only_an_extended_resource_can_be_declared_an_accelerator() {
        for name in ["", "cpu", "pods", "npu", "hugepages-1Gi", "kubernetes.io/batch"] {
            let refused = name.parse::<Accelerator>().unwrap_err().to_string();
            assert!(refused.contains("write it as nodes declare it"), "{refused}");
        }
    }
}
