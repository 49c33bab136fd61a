//! What each image is to be, apart from its files: its name, who runs in it, what it says of itself. Values only; the Dockerfile in
//! `deploy/` says the same, and a test compares them.

use std::collections::BTreeMap;

use clap::ValueEnum;

/// A program that has an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Program {
    /// What runs on each node
    Agent,
    /// What runs once a cluster, twice
    Aggregator,
}

/// From which sources an image is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    /// The workspace's version.
    pub(crate) version: String,
    /// Their commit, or that it is unknown.
    pub(crate) revision: String,
    /// When they were written: the time of everything in the image, in seconds since the Unix epoch.
    pub(crate) written_s: u64,
}

/// Where the program lies in its image.
const FOLDER: &str = "usr/bin";

impl Program {
    /// As its package and its binary are called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Agent => "mcad-agent",
            Self::Aggregator => "mcad-aggregator",
        }
    }

    /// The name that engines and manifests know the image by, without the version.
    ///
    /// No registry of ours stands behind it: docker.io is what engines read where a name says none.
    pub(crate) fn repository(self) -> &'static str {
        match self {
            Self::Agent => "docker.io/mcad-metrics/agent",
            Self::Aggregator => "docker.io/mcad-metrics/aggregator",
        }
    }

    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Agent => "What one node really has and does: cgroups by eBPF, GPUs by NVML, one report",
            Self::Aggregator => "The cluster accounted for by reason: reports and API server in, metrics out",
        }
    }

    /// Under which licences its files may be handed on.
    pub(crate) fn licenses(self) -> &'static str {
        match self {
            // glibc's loader and libraries, and libgcc_s, beside it.
            Self::Agent => "Apache-2.0 AND LGPL-2.1-or-later AND GPL-3.0-or-later WITH GCC-exception-3.1",
            // glibc within it.
            Self::Aggregator => "Apache-2.0 AND LGPL-2.1-or-later",
        }
    }

    /// Who it runs as.
    ///
    /// The agent is root: only root gets the two capabilities of decision 0005 from a container engine without more ado, and kubelet's
    /// socket and the state directory are root's. It gives up every capability once its probes are attached. The aggregator needs
    /// nothing of the machine that it runs on.
    pub(crate) fn user(self) -> &'static str {
        match self {
            Self::Agent => "0:0",
            Self::Aggregator => "65532:65532",
        }
    }

    pub(crate) fn environment(self) -> &'static [&'static str] {
        match self {
            // The NVIDIA container runtime takes these for: the library and the devices of all GPUs, to look at and not to compute
            // with. No GPU is requested.
            Self::Agent => &["NVIDIA_DRIVER_CAPABILITIES=utility", "NVIDIA_VISIBLE_DEVICES=all", "PATH=/usr/bin"],
            Self::Aggregator => &["PATH=/usr/bin"],
        }
    }

    /// The ports that it opens unless told otherwise, all TCP. The agent opens none.
    pub(crate) fn ports(self) -> &'static [u16] {
        match self {
            Self::Agent => &[],
            Self::Aggregator => &[10910, 10911],
        }
    }

    /// Where its binary lies, from the image's root.
    pub(crate) fn path(self) -> String {
        format!("{FOLDER}/{}", self.name())
    }

    pub(crate) fn entrypoint(self) -> String {
        format!("/{}", self.path())
    }

    /// Its users, as `etc/passwd` and `etc/group` have them. Nobody logs in: there is no shell.
    pub(crate) fn users(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Agent => [("etc/group", "root:x:0:\n"), ("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\n")],
            Self::Aggregator => [
                ("etc/group", "root:x:0:\nnonroot:x:65532:\n"),
                ("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"),
            ],
        }
    }

    /// What the image says of itself, by OCI's keys.
    pub(crate) fn labels(self, sources: &Sources) -> BTreeMap<String, String> {
        let labels = [
            ("title", self.name()),
            ("description", self.description()),
            ("version", &sources.version),
            ("revision", &sources.revision),
            ("licenses", self.licenses()),
        ];
        labels.map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.to_owned())).into()
    }
}
