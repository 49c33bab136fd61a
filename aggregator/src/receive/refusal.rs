//! Why a report is refused. Owns the reasons, which are counted, and the sentences, which senders read.
use std::fmt;
use std::time::Duration;

use mcad_accounting::node_name::{MAX_BYTES, NoNodeName};
use mcad_accounting::nodes::Full;
use mcad_wire::report::REPORT_VERSION;

use super::{MAX_BODY_BYTES, MAX_DECODED_BYTES};
use crate::trust::verdict::{Distrust, reasons};

/// Why a report is refused. [`reason`](Refusal::reason) is counted; the sender reads the Display text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More bytes than a report may have.
    #[error("the body has more than {MAX_BODY_BYTES} bytes; send fewer cgroups (mcad-agent --report-cgroups)")]
    Oversized,
    /// The decoded report needs more memory than allowed.
    #[error(
        "the decoded report needs more than {MAX_DECODED_BYTES} bytes; send fewer cgroups (mcad-agent --report-cgroups)"
    )]
    DecodedOversized,
    /// A compressed body.
    #[error("the content encoding is {0:?}; send the report uncompressed")]
    ContentEncoding(String),
    /// The connection or the message ended early.
    #[error("the body ends in the middle of a report")]
    Truncated,
    /// The body did not arrive in time.
    #[error("the body did not arrive within {} s", .0.as_secs_f64())]
    TooSlow(Duration),
    /// Not the content type of protobuf.
    #[error("the content type is {0:?}; send application/x-protobuf")]
    ContentType(String),
    /// Not protobuf, or not a report.
    #[error("the body is not a protobuf report: {0}")]
    NotProtobuf(String),
    /// Another version of the format, or none.
    #[error(
        "the report's version is {0}; this aggregator supports version {REPORT_VERSION}: upgrade the aggregator first"
    )]
    UnsupportedVersion(u64),
    /// A node name that is empty, too long or has invalid characters.
    #[error("the node's name {0:?} is not 1 to {MAX_BYTES} visible ASCII characters; see mcad-agent --node-name")]
    NodeName(String),
    /// More elements than a node can have.
    #[error("the report lists more than {limit} {of}")]
    TooMany {
        /// The elements.
        of: Listed,
        /// The limit.
        limit: usize,
    },
    /// A name that is longer than allowed.
    #[error("the report's {0} is too long")]
    NameTooLong(&'static str),
    /// An id that occurs twice.
    #[error("the report lists {of} {id:?} twice")]
    DuplicateId {
        /// The elements.
        of: Listed,
        /// The id.
        id: String,
    },
    /// An impossible value.
    #[error("the report's {0} is impossible")]
    Impossible(&'static str),
    /// The limit on the number of nodes is reached.
    #[error("this aggregator keeps reports of at most {0} nodes, and this is one more node")]
    TooManyNodes(usize),
    /// A node that the cluster does not have.
    #[error("the cluster has no node {0:?}; see mcad-agent --node-name")]
    UnknownNode(String),
    /// The sender is not trusted.
    #[error(transparent)]
    Untrusted(#[from] Distrust),
    /// The node sends more reports than an agent does.
    #[error("node {0} reports more often than an agent does")]
    TooOften(String),
    /// Too many bodies are being read, or another body of the same node.
    #[error("too many reports, or another report of this node, are being received at the moment")]
    Busy,
    /// The memory limit of reports is reached.
    #[error("the kept reports use {0} bytes, the limit of --report-memory")]
    NoRoom(u64),
    /// The cluster's nodes are not known yet, or no longer.
    #[error("the cluster's nodes are not known at the moment; send the next report as usual")]
    NotReady,
}

/// The elements of a list in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Cgroups.
    Cgroups,
    /// GPUs and MIG instances.
    Devices,
    /// Containers with devices and resources with devices.
    Assignments,
    /// Absences.
    Absences,
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Self {
        match full {
            Full::Nodes(most) => Self::TooManyNodes(most),
            Full::Bytes(most) => Self::NoRoom(most),
        }
    }
}

impl From<NoNodeName> for Refusal {
    fn from(NoNodeName(name): NoNodeName) -> Self {
        Self::NodeName(name)
    }
}

impl Refusal {
    /// All reasons to refuse a report. Parts of a report are left out for other reasons ([`Part`](super::Part)).
    pub fn reasons() -> impl Iterator<Item = &'static str> {
        Self::OWN_REASONS.iter().chain(Distrust::REASONS).copied()
    }

    reasons! { OWN_REASONS: {
        Self::Oversized => "oversized",
        Self::DecodedOversized => "decoded_oversized",
        Self::ContentEncoding(_) => "content_encoding",
        Self::Truncated => "truncated",
        Self::TooSlow(_) => "too_slow",
        Self::ContentType(_) => "content_type",
        Self::NotProtobuf(_) => "not_protobuf",
        Self::UnsupportedVersion(_) => "unsupported_version",
        Self::NodeName(_) => "node_name",
        Self::TooMany { of: Listed::Cgroups, .. } => "too_many_cgroups",
        Self::TooMany { of: Listed::Absences, .. } => "too_many_absences",
        Self::NameTooLong(_) => "name_too_long",
        Self::DuplicateId { .. } => "duplicate_id",
        Self::Impossible(_) => "impossible_figure",
        Self::TooManyNodes(_) => "too_many_nodes",
        Self::UnknownNode(_) => "unknown_node",
        Self::TooOften(_) => "too_often",
        Self::Busy => "busy",
        Self::NoRoom(_) => "no_room",
        Self::NotReady => "not_ready",
    }
    else Self::Untrusted(distrust) => distrust.reason()
    // Never for a whole report: these are reasons of a part.
    else Self::TooMany { of: Listed::Devices, .. } => "too_many_devices"
    else Self::TooMany { of: Listed::Assignments, .. } => "too_many_assignments" }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Listed::Cgroups => "cgroups",
            Listed::Devices => "devices",
            Listed::Assignments => "assignments",
            Listed::Absences => "absences",
        })
    }
}
