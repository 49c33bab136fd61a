//! Maps DeviceClasses to resources: the resource that devices of a class are added up as, and the class that a resource
//! name refers to.
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::object::{DeviceClass, IMPLICIT_CLASS};
use crate::resource::Resource;

/// Classes of NVIDIA's driver that allocate whole GPUs.
const WHOLE: [&str; 2] = ["gpu.nvidia.com", "vfio.gpu.nvidia.com"];

/// See the module's documentation.
pub struct Classes<'a> {
    /// The class of each extended resource that a class names explicitly.
    explicit: HashMap<&'a str, &'a Arc<DeviceClass>>,
    cluster: &'a Cluster,
}

impl<'a> Classes<'a> {
    /// The classes of a cluster.
    pub fn of(cluster: &'a Cluster) -> Self {
        let mut explicit: HashMap<&str, &Arc<DeviceClass>> = HashMap::new();
        for class in cluster.device_classes() {
            let Some(name) = class.extended.as_deref() else { continue };
            let order = |class: &DeviceClass| (Reverse(class.created_ms), class.name.clone());
            match explicit.get(name) {
                // The newest class applies; of several equally new ones, the first by name.
                Some(known) if order(known) <= order(class) => {}
                _ => drop(explicit.insert(name, class)),
            }
        }
        Self { explicit, cluster }
    }

    /// The class with that name.
    pub fn named(&self, name: &str) -> Option<&'a Arc<DeviceClass>> {
        self.cluster.device_class(name)
    }

    /// The resource that devices of a class are added up as, whether or not the class exists.
    pub fn resource_of(&self, class: &str) -> Resource {
        let explicit = self.named(class).and_then(|class| class.extended.as_deref());
        match explicit {
            Some(name) => Resource::extended(name),
            None if WHOLE.contains(&class) => Resource::Gpu,
            None => Resource::extended(&format!("{IMPLICIT_CLASS}{class}")),
        }
    }

    /// The extended resources that classes name explicitly, and their classes.
    pub(crate) fn explicit(&self) -> impl Iterator<Item = (&'a str, &'a Arc<DeviceClass>)> + '_ {
        self.explicit.iter().map(|(name, class)| (*name, *class))
    }

    /// The class that an extended resource is mapped to.
    pub fn of_resource(&self, name: &str) -> Option<&'a Arc<DeviceClass>> {
        match name.strip_prefix(IMPLICIT_CLASS) {
            Some(class) => self.named(class),
            None => self.explicit.get(name).copied(),
        }
    }

    /// The resource that a request for an extended resource is added up as. A request by the implicit resource of a
    /// class counts as the class's resource.
    pub fn counted_as(&self, resource: &Resource) -> Resource {
        match resource.name().strip_prefix(IMPLICIT_CLASS) {
            Some(class) => self.resource_of(class),
            None => resource.clone(),
        }
    }
}
