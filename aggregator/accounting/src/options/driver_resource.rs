//! Which resource the devices of Dynamic Resource Allocation count as, by driver.
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::resource::Resource;

/// The resource that one driver's devices count as. On the command line: `DRIVER=RESOURCE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverResource {
    driver: Arc<str>,
    resource: Resource,
}

/// Why a text is not `DRIVER=RESOURCE`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DriverResourceError {
    /// It has no `=`, or nothing before it.
    #[error("expected DRIVER=RESOURCE, for example gpu.nvidia.com=nvidia.com/gpu")]
    Shape,
    /// The text after `=` does not name an extended resource.
    #[error("{0:?} is not an extended resource; its name needs a domain, for example nvidia.com/gpu")]
    Resource(String),
}

impl FromStr for DriverResource {
    type Err = DriverResourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (driver, name) = text.split_once('=').ok_or(DriverResourceError::Shape)?;
        if driver.is_empty() {
            return Err(DriverResourceError::Shape);
        }
        let resource = Resource::named(name).filter(Resource::is_extended);
        let resource = resource.ok_or_else(|| DriverResourceError::Resource(name.to_owned()))?;
        Ok(Self { driver: driver.into(), resource })
    }
}

/// The resource that each driver's devices count as. Devices of other drivers are not in any ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceResources(BTreeMap<Arc<str>, Resource>);

impl DeviceResources {
    /// The resource that a driver's devices count as.
    pub fn resource_of(&self, driver: &str) -> Option<&Resource> {
        self.0.get(driver)
    }
}

impl FromIterator<DriverResource> for DeviceResources {
    fn from_iter<I: IntoIterator<Item = DriverResource>>(mapped: I) -> Self {
        Self(mapped.into_iter().map(|of| (of.driver, of.resource)).collect())
    }
}

/// NVIDIA's driver, whose devices count as `nvidia.com/gpu`.
impl Default for DeviceResources {
    fn default() -> Self {
        [DriverResource { driver: "gpu.nvidia.com".into(), resource: Resource::Gpu }].into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_counts_as_an_extended_resource() {
        let mapped: DeviceResources = ["gpu.amd.com=amd.com/gpu".parse().unwrap()].into_iter().collect();
        assert_eq!(mapped.resource_of("gpu.amd.com").map(Resource::name), Some("amd.com/gpu"));
        assert_eq!(mapped.resource_of("gpu.nvidia.com"), None, "what is given takes the place of the default");
        assert_eq!(DeviceResources::default().resource_of("gpu.nvidia.com"), Some(&Resource::Gpu));
    }

    #[test]
    fn what_is_none_is_refused_with_what_would_be_one() {
        let wrong = |text: &str| text.parse::<DriverResource>().unwrap_err().to_string();
        for text in ["", "nvidia.com/gpu", "=nvidia.com/gpu"] {
            assert!(wrong(text).contains("DRIVER=RESOURCE"), "{text}");
        }
        for text in ["gpu.nvidia.com=", "gpu.nvidia.com=gpu", "gpu.nvidia.com=cpu"] {
            assert!(wrong(text).contains("not an extended resource"), "{text}");
        }
    }
}
