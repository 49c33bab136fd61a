//! Determines from a cgroup's path which pod and container it belongs to. Pure; it does not check whether such a pod
//! exists.
//!
//! kubelet names the cgroup of a pod, the container runtime names that of a container in it:
//!
//! | driver | pod | container |
//! |---|---|---|
//! | systemd | `kubepods[-burstable\|-besteffort]-pod<uid>.slice`, `-` in the UID written `_` | `<runtime>-<id>.scope` |
//! | cgroupfs | `kubepods[/burstable\|/besteffort]/pod<uid>` | `<id>`, with CRI-O `crio-<id>` |
//!
//! Both are below any cgroup root (`--cgroup-root` of kubelet), which under systemd is also a prefix of the slice's
//! name. Sources: `pkg/kubelet/cm/cgroup_manager_linux.go` and `qos_container_manager_linux.go` of Kubernetes,
//! `internal/config/cgmgr` of CRI-O, `internal/cri/server/helpers_linux.go` of containerd.

use std::fmt;

/// What a cgroup is in its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodCgroup<'a> {
    /// The pod's own cgroup. Its totals include all descendants, including ended containers.
    Pod {
        /// The pod.
        uid: PodUid,
    },
    /// A container's own cgroup. The pod's sandbox has one, too; its path looks the same.
    Container {
        /// The pod.
        uid: PodUid,
        /// The runtime's id of the container.
        id: &'a str,
    },
    /// A cgroup below a container's own, made by the container or by its runtime (CRI-O's `container`).
    InContainer {
        /// The pod.
        uid: PodUid,
        /// The runtime's id of the container.
        id: &'a str,
    },
    /// In the pod, but in no container: CRI-O's `crio-conmon-<id>.scope`.
    Beside {
        /// The pod.
        uid: PodUid,
    },
}

/// UID of a pod as in the path of its cgroup, with `-`.
///
/// The UID of a static pod is the hash of its manifest, 32 hex digits: the API server's mirror pod has another UID and
/// carries this one as annotation `kubernetes.io/config.hash`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodUid(String);

impl PodUid {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Restores a UID from a text that [`Self::as_str`] returned.
    pub fn known(text: &str) -> Option<Self> {
        Self::parse(text).filter(|uid| uid.as_str() == text)
    }

    /// Parses `0b0a3c6e-…` (or with `_` for `-`) and a static pod's 32 hex digits; nothing else is a UID.
    fn parse(text: &str) -> Option<Self> {
        let uid = text.replace('_', "-");
        let dashes_fit = match uid.len() {
            32 => !uid.contains('-'),
            36 => uid.bytes().enumerate().all(|(at, byte)| (byte == b'-') == matches!(at, 8 | 13 | 18 | 23)),
            _ => false,
        };
        (dashes_fit && uid.bytes().all(|byte| byte == b'-' || is_lower_hex(byte))).then_some(Self(uid))
    }
}

impl PodCgroup<'_> {
    /// The pod.
    pub fn uid(&self) -> &PodUid {
        match self {
            Self::Pod { uid } | Self::Container { uid, .. } | Self::InContainer { uid, .. } | Self::Beside { uid } => {
                uid
            }
        }
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The pod that contains `path` (from the hierarchy's root), and the role of the cgroup in it. `None` for cgroups
/// outside pods.
///
/// For pods within pods (a cluster inside a container) the outermost is returned: it is the one that this node's
/// kubelet knows.
pub fn parse(path: &str) -> Option<PodCgroup<'_>> {
    let mut components = path.split('/').filter(|component| !component.is_empty());
    let mut seen = [""; 2];
    let (uid, named) = loop {
        let component = components.next()?;
        if let Some(uid) = pod_slice(component).or_else(|| pod_directory(seen, component)) {
            break (uid, None);
        }
        if let Some((uid, id)) = colon_triple(component) {
            break (uid, Some(id));
        }
        seen = [seen[1], component];
    };
    let id = match named {
        Some(id) => id,
        None => match components.next() {
            None => return Some(PodCgroup::Pod { uid }),
            Some(component) => match container_id(component) {
                Some(id) => id,
                None => return Some(PodCgroup::Beside { uid }),
            },
        },
    };
    Some(match components.next() {
        None => PodCgroup::Container { uid, id },
        Some(_) => PodCgroup::InContainer { uid, id },
    })
}

/// systemd driver: `[ROOT-]kubepods[-burstable|-besteffort]-pod<uid>.slice`.
fn pod_slice(component: &str) -> Option<PodUid> {
    let (parents, pod) = component.strip_suffix(".slice")?.rsplit_once('-')?;
    let uid = PodUid::parse(pod.strip_prefix("pod")?)?;
    let mut parents = parents.rsplit('-');
    let nearest = parents.next()?;
    let root = if is_qos(nearest) { parents.next()? } else { nearest };
    (root == "kubepods").then_some(uid)
}

/// cgroupfs driver: `kubepods[/burstable|/besteffort]/pod<uid>`, given the two components before it.
fn pod_directory(before: [&str; 2], component: &str) -> Option<PodUid> {
    let uid = PodUid::parse(component.strip_prefix("pod")?)?;
    let [grandparent, parent] = before;
    let root = if is_qos(parent) { grandparent } else { parent };
    (root == "kubepods").then_some(uid)
}

/// `<pod slice>:cri-containerd:<id>`: the path if kubelet's driver is systemd and the runtime's is cgroupfs. That
/// combination works, so some clusters have it.
fn colon_triple(component: &str) -> Option<(PodUid, &str)> {
    let mut parts = component.split(':');
    let (slice, runtime, id) = (parts.next()?, parts.next()?, parts.next()?);
    (parts.next().is_none() && RUNTIMES.contains(&runtime) && is_container_id(id)).then_some((pod_slice(slice)?, id))
}

/// The prefixes of a container's cgroup: containerd, CRI-O, Docker through cri-dockerd.
const RUNTIMES: [&str; 3] = ["cri-containerd", "crio", "docker"];

fn container_id(component: &str) -> Option<&str> {
    let stem = component.strip_suffix(".scope").unwrap_or(component);
    let id = match stem.rsplit_once('-') {
        Some((runtime, id)) if RUNTIMES.contains(&runtime) => id,
        Some(_) => return None,
        None => stem,
    };
    is_container_id(id).then_some(id)
}

/// All three runtimes use 32 random bytes in hex.
fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_lower_hex)
}

/// Guaranteed pods have no level of their own.
fn is_qos(component: &str) -> bool {
    matches!(component, "burstable" | "besteffort")
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b0a3c6e-5d8e-4a3f-9c1d-7e6f5a4b3c2d";
    const STATIC: &str = "9f86d081884c7d659a2feaa0c55ad015";
    const ID: &str = "4f5d1c0b9a8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4";
    const OUTER: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";

    /// Replaces placeholders in braces: `U` is the UID with `_`, `u` with `-`, `s` a static pod's UID, `i` a container
    /// id, `o` another container id.
    fn expand(path: &str) -> String {
        path.replace("{U}", &UID.replace('-', "_"))
            .replace("{u}", UID)
            .replace("{s}", STATIC)
            .replace("{i}", ID)
            .replace("{o}", OUTER)
    }

    #[track_caller]
    fn check(path: &str, expected: &str) {
        let path = expand(path);
        let short = |uid: &PodUid| match uid.as_str() {
            UID => "u",
            STATIC => "s",
            other => panic!("{other} is neither UID"),
        };
        let container = |id: &str| if id == ID { "i" } else { "o" };
        let got = match parse(&path) {
            None => "none".to_owned(),
            Some(PodCgroup::Pod { uid }) => format!("pod {}", short(&uid)),
            Some(PodCgroup::Container { uid, id }) => format!("container {} {}", short(&uid), container(id)),
            Some(PodCgroup::InContainer { uid, id }) => format!("in container {} {}", short(&uid), container(id)),
            Some(PodCgroup::Beside { uid }) => format!("beside {}", short(&uid)),
        };
        assert_eq!(got, expected, "{path}");
    }

    #[test]
    fn containerd_under_the_systemd_driver() {
        let burstable = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U}.slice";
        check(burstable, "pod u");
        check(&format!("{burstable}/cri-containerd-{{i}}.scope"), "container u i");
        check(&format!("{burstable}/cri-containerd-{{i}}.scope/init.scope"), "in container u i");
        check(
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{U}.slice/cri-containerd-{i}.scope",
            "container u i",
        );
    }

    #[test]
    fn a_guaranteed_pod_has_no_level_of_its_own() {
        check("/kubepods.slice/kubepods-pod{U}.slice/cri-containerd-{i}.scope", "container u i");
        check("/kubepods.slice/kubepods-pod{U}.slice", "pod u");
        check("/kubepods/pod{u}/{i}", "container u i");
        check("/kubepods/pod{u}", "pod u");
    }

    #[test]
    fn containerd_and_docker_under_the_cgroupfs_driver() {
        check("/kubepods/burstable/pod{u}", "pod u");
        check("/kubepods/burstable/pod{u}/{i}", "container u i");
        check("/kubepods/besteffort/pod{u}/{i}/a/b", "in container u i");
    }

    #[test]
    fn cri_o_under_both_drivers() {
        let pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U}.slice";
        check(&format!("{pod}/crio-{{i}}.scope"), "container u i");
        check(&format!("{pod}/crio-{{i}}.scope/container"), "in container u i");
        check(&format!("{pod}/crio-conmon-{{i}}.scope"), "beside u");
        check("/kubepods/burstable/pod{u}/crio-{i}", "container u i");
        check("/kubepods/burstable/pod{u}/crio-conmon-{i}", "beside u");
    }

    #[test]
    fn docker_through_cri_dockerd_under_the_systemd_driver() {
        check(
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{U}.slice/docker-{i}.scope",
            "container u i",
        );
    }

    #[test]
    fn a_static_pods_uid_is_the_hash_of_its_manifest() {
        check("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{s}.slice", "pod s");
        check("/kubepods/burstable/pod{s}/{i}", "container s i");
    }

    #[test]
    fn kind_nests_the_nodes_tree_in_a_containers() {
        let slice = "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
                     kubelet-kubepods-burstable-pod{U}.slice/cri-containerd-{i}.scope";
        check(&format!("/{slice}"), "container u i");
        check(&format!("/docker/{{o}}/{slice}"), "container u i");
        check(&format!("/system.slice/docker-{{o}}.scope/{slice}"), "container u i");
        check("/docker/{o}/kubelet/kubepods/besteffort/pod{u}/{i}", "container u i");
        check("/docker/{o}/kubelet/kubepods/pod{u}", "pod u");
        check("/docker/{o}", "none");
    }

    #[test]
    fn kubelets_cgroup_root_may_be_any() {
        check("/kubenode/kubepods/burstable/pod{u}/{i}", "container u i");
        check("/a/b/kubepods/pod{u}", "pod u");
        check("/kubenode.slice/kubenode-kubepods.slice/kubenode-kubepods-pod{U}.slice/crio-{i}.scope", "container u i");
        check("/a.slice/a-b.slice/a-b-kubepods.slice/a-b-kubepods-besteffort-pod{U}.slice", "pod u");
    }

    #[test]
    fn of_pods_within_pods_the_outermost_counts() {
        check("/kubepods/burstable/pod{u}/{o}/kubelet/kubepods/burstable/pod{s}/{i}", "in container u o");
        check("/kubepods/pod{u}/{o}/kubelet.slice/kubelet-kubepods-pod{s}.slice", "in container u o");
    }

    #[test]
    fn drivers_that_disagree_leave_a_name_with_colons() {
        check("/system.slice/containerd.service/kubepods-burstable-pod{U}.slice:cri-containerd:{i}", "container u i");
        check("/kubepods-pod{U}.slice:cri-containerd:{i}/x", "in container u i");
        check("/kubepods-pod{U}.slice:cri-containerd:short", "none");
        check("/kubepods-pod{U}.slice:cri-containerd:{i}:x", "none");
    }

    #[test]
    fn levels_above_the_pods_are_no_pods() {
        for path in [
            "/",
            "",
            "/kubepods",
            "/kubepods.slice",
            "/kubepods/burstable",
            "/kubepods.slice/kubepods-burstable.slice",
            "/kubelet.slice/kubelet-kubepods.slice",
            "/system.slice/kubelet.service",
            "/user.slice/user-1000.slice/session-1.scope",
            "/init.scope",
        ] {
            check(path, "none");
        }
    }

    #[test]
    fn look_alikes_are_no_pods() {
        for path in [
            // A directory named like a pod outside kubelet's tree.
            "/pod{u}",
            "/machine.slice/pod{u}/{i}",
            "/burstable/pod{u}",
            "/kubepods/other/pod{u}",
            "/kubepods/burstable/more/pod{u}",
            // Podman's pods.
            "/machine.slice/machine-libpod_pod_{i}.slice/libpod-{i}.scope",
            // Slices whose names only end in the same way.
            "/notkubepods-pod{U}.slice",
            "/kubepods-guaranteed-pod{U}.slice",
            "/kubepods-burstable-pod{U}.scope",
            "/burstable-pod{U}.slice",
            "/kubepods-burstable-pod.slice",
            // Not a UID.
            "/kubepods/burstable/podinfo",
            "/kubepods/burstable/pod0b0a3c6e-5d8e-4a3f-9c1d-7e6f5a4b3c2",
            "/kubepods/burstable/pod0B0A3C6E-5D8E-4A3F-9C1D-7E6F5A4B3C2D",
            "/kubepods/burstable/pod0b0a3c6e5-d8e-4a3f-9c1d-7e6f5a4b3c2d",
            "/kubepods/burstable/pod9f86d081-884c7d659a2feaa0c55ad015",
            "/kubepods/burstable/pod{u}.slice",
        ] {
            check(path, "none");
        }
    }

    #[test]
    fn what_is_no_container_stays_beside_them() {
        check("/kubepods/burstable/pod{u}/init", "beside u");
        check("/kubepods/burstable/pod{u}/unknown-{i}.scope", "beside u");
        check("/kubepods/burstable/pod{u}/crio-short", "beside u");
    }
}
