//! The properties of each image apart from its files: its name, its user, its labels. Values only; the Dockerfile in
//! `deploy/` has the same, and a test compares them.

use std::collections::BTreeMap;

use clap::ValueEnum;

/// A program that has an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Program {
    /// The program that runs on each node
    Agent,
    /// The program that runs once per cluster, with two replicas
    Aggregator,
}

/// The version of the sources of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    /// The workspace's version.
    pub(crate) version: String,
    /// Their commit, or "unknown".
    pub(crate) revision: String,
    /// The time of the sources, which is the time of everything in the image, in seconds since the Unix epoch.
    pub(crate) written_s: u64,
}

/// The program's folder in its image.
const FOLDER: &str = "usr/bin";

impl Program {
    /// The name of its package and its binary.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Agent => "mcad-agent",
            Self::Aggregator => "mcad-aggregator",
        }
    }

    /// The image's name in engines and manifests, without the version.
    ///
    /// There is no registry behind it: docker.io is the default of engines.
    pub(crate) fn repository(self) -> &'static str {
        match self {
            Self::Agent => "docker.io/mcad-metrics/agent",
            Self::Aggregator => "docker.io/mcad-metrics/aggregator",
        }
    }

    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Agent => "Measures what a node really has and uses: cgroups through eBPF, GPUs through NVML",
            Self::Aggregator => {
                "Accounts for a cluster's resources by reason, from agents' reports and the API server, as metrics"
            }
        }
    }

    /// The licences of its files.
    pub(crate) fn licenses(self) -> &'static str {
        match self {
            // glibc's loader and libraries, and libgcc_s, beside it.
            Self::Agent => "Apache-2.0 AND LGPL-2.1-or-later AND GPL-3.0-or-later WITH GCC-exception-3.1",
            // glibc within it.
            Self::Aggregator => "Apache-2.0 AND LGPL-2.1-or-later",
        }
    }

    /// The user it runs as.
    ///
    /// The agent is root: only root gets the two capabilities of decision 0005 from a container engine without further
    /// settings, and kubelet's socket and the state directory belong to root. It drops every capability once its probes
    /// are attached. The aggregator needs nothing of the machine that it runs on.
    pub(crate) fn user(self) -> &'static str {
        match self {
            Self::Agent => "0:0",
            Self::Aggregator => "65532:65532",
        }
    }

    pub(crate) fn environment(self) -> &'static [&'static str] {
        match self {
            // With these variables the NVIDIA container runtime mounts the library and the devices of all GPUs, for
            // monitoring and not for computing. No GPU is requested.
            Self::Agent => &["NVIDIA_DRIVER_CAPABILITIES=utility", "NVIDIA_VISIBLE_DEVICES=all", "PATH=/usr/bin"],
            Self::Aggregator => &["PATH=/usr/bin"],
        }
    }

    /// The ports that it opens by default, all TCP. The agent opens none.
    pub(crate) fn ports(self) -> &'static [u16] {
        match self {
            Self::Agent => &[],
            Self::Aggregator => &[10910, 10911],
        }
    }

    /// The path of its binary from the image's root.
    pub(crate) fn path(self) -> String {
        format!("{FOLDER}/{}", self.name())
    }

    pub(crate) fn entrypoint(self) -> String {
        format!("/{}", self.path())
    }

    /// Its users, as in `etc/passwd` and `etc/group`. There is no shell, so nobody can log in.
    pub(crate) fn users(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Agent => [("etc/group", "root:x:0:\n"), ("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\n")],
            Self::Aggregator => [
                ("etc/group", "root:x:0:\nnonroot:x:65532:\n"),
                ("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"),
            ],
        }
    }

    /// The labels of the image, with OCI's keys.
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
