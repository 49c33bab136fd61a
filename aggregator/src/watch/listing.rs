//! The place of a list in the API: group, version and plural.
use kube::core::ApiResource;
use mcad_accounting::cluster::Source;
use mcad_accounting::object::{Kind, Served};

/// A list, and the version in which it is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listing {
    /// The list.
    pub(crate) source: Source,
    group: &'static str,
    version: &'static str,
}

impl Listing {
    /// All nodes.
    pub(crate) const NODES: Self = Self { source: Source::Nodes, group: "", version: "v1" };
    /// All pods.
    pub(crate) const PODS: Self = Self { source: Source::Pods, group: "", version: "v1" };

    /// AppWrappers of a group and version.
    pub(crate) fn appwrappers(served: Served) -> Self {
        let (group, version) = served.api_version().split_once('/').unwrap_or_default();
        Self { source: Source::AppWrappers(served), group, version }
    }

    /// A kind of Dynamic Resource Allocation or of Kueue. `None` if the kind is neither.
    pub(crate) fn of_group(kind: Kind, version: &'static str) -> Option<Self> {
        let source = Source::of_devices(kind).or_else(|| Source::of_queues(kind))?;
        Some(Self { source, group: kind.group()?, version })
    }

    /// The same for kube.
    pub(crate) fn resource(self) -> ApiResource {
        let Self { source, group, version } = self;
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let kind = source.kind();
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: kind.name().to_owned(),
            // As in the paths of the API.
            plural: kind.plural().to_lowercase(),
        }
    }

    /// The number of objects per request: a whole answer is in memory. `None` for the same number as kubectl.
    pub(crate) fn page(self) -> Option<u32> {
        match self.source {
            // Each may be 1.5 MiB long.
            Source::AppWrappers(_) | Source::Workloads => Some(64),
            // Of a node with cut GPUs it is 230 KB.
            Source::ResourceSlices => Some(32),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_has_its_address() {
        let check = |listing: Listing, url: &str| {
            let resource = listing.resource();
            let base = if resource.group.is_empty() { "/api" } else { "/apis" };
            assert_eq!(format!("{base}/{}/{}", resource.api_version, resource.plural), url);
        };
        check(Listing::NODES, "/api/v1/nodes");
        check(Listing::PODS, "/api/v1/pods");
        check(Listing::appwrappers(Served::WorkloadV1Beta2), "/apis/workload.codeflare.dev/v1beta2/appwrappers");
        check(Listing::appwrappers(Served::McadV1Beta1), "/apis/mcad.ibm.com/v1beta1/appwrappers");
        for (kind, version, plural) in [
            (Kind::ResourceSlice, "v1", "resourceslices"),
            (Kind::ResourceClaim, "v1beta2", "resourceclaims"),
            (Kind::ResourceClaimTemplate, "v1beta1", "resourceclaimtemplates"),
            (Kind::DeviceClass, "v1", "deviceclasses"),
            (Kind::DeviceTaintRule, "v1alpha3", "devicetaintrules"),
        ] {
            let listing = Listing::of_group(kind, version).unwrap();
            check(listing, &format!("/apis/resource.k8s.io/{version}/{plural}"));
            assert_eq!(listing.source.to_string(), plural);
        }
        for (kind, plural) in [
            (Kind::ClusterQueue, "clusterqueues"),
            (Kind::LocalQueue, "localqueues"),
            (Kind::Cohort, "cohorts"),
            (Kind::ResourceFlavor, "resourceflavors"),
            (Kind::Workload, "workloads"),
        ] {
            let listing = Listing::of_group(kind, "v1beta2").unwrap();
            check(listing, &format!("/apis/kueue.x-k8s.io/v1beta2/{plural}"));
            assert_eq!(listing.source.to_string(), plural);
        }
        assert_eq!(Listing::of_group(Kind::Pod, "v1"), None);
    }
}
