//! Why a report was not taken. Owns the reasons, which are counted, and the sentences, which senders read.
use std::fmt;
use std::time::Duration;

use mcad_accounting::node_name::{MAX_BYTES, NoNodeName};
use mcad_wire::report::REPORT_VERSION;

use super::{MAX_BODY_BYTES, MAX_DECODED_BYTES};
use crate::trust::verdict::{Distrust, reasons};

/// Why a report was not taken. [`reason`](Refusal::reason) is what is counted, Display what the sender reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More bytes than a report may have.
    #[error("the body has more than {MAX_BODY_BYTES} bytes; send fewer cgroups (mcad-agent --report-cgroups)")]
    Oversized,
    /// More memory than a report may take once it is decoded.
    #[error(
        "the report takes more than {MAX_DECODED_BYTES} bytes when decoded; send fewer cgroups (mcad-agent --report-cgroups)"
    )]
    DecodedOversized,
    /// A body that would have to be unpacked first.
    #[error("the content encoding is {0:?}; send the report as it is")]
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
    /// Bytes that are no protobuf, or no report.
    #[error("the body is not a report in protobuf: {0}")]
    NotProtobuf(String),
    /// A later format, or none at all.
    #[error("the report's version is {0}; this aggregator knows version {REPORT_VERSION}, so upgrade it first")]
    UnsupportedVersion(u64),
    /// Empty, too long or with odd characters.
    #[error("the node's name {0:?} is not 1 to {MAX_BYTES} visible ASCII characters; see mcad-agent --node-name")]
    NodeName(String),
    /// More of something than a node can have.
    #[error("the report lists more than {limit} {of}")]
    TooMany {
        /// Of what.
        of: Listed,
        /// How many there may be.
        limit: usize,
    },
    /// A name that is longer than such a name can be.
    #[error("the report's {0} is too long")]
    NameTooLong(&'static str),
    /// One id, listed twice.
    #[error("the report lists {of} {id:?} twice")]
    DuplicateId {
        /// Of what.
        of: Listed,
        /// Which.
        id: String,
    },
    /// A figure that cannot be.
    #[error("the report's {0} cannot be")]
    Impossible(&'static str),
    /// The store is full.
    #[error("{0} nodes have reported, as many as this aggregator keeps, and this is another one")]
    TooManyNodes(usize),
    /// A node that the cluster does not have.
    #[error("the cluster has no node {0:?}; see mcad-agent --node-name")]
    UnknownNode(String),
    /// The sender is not believed.
    #[error(transparent)]
    Untrusted(#[from] Distrust),
    /// The node reports more often than an agent does.
    #[error("node {0} reports more often than an agent does")]
    TooOften(String),
    /// Too many bodies are being read, or one of the same node.
    #[error("too many reports are being received at the moment, or another one of this node")]
    Busy,
    /// All that is kept takes as much memory as it may.
    #[error("the reports that are kept take {0} bytes, as many as they may (--report-memory)")]
    NoRoom(u64),
    /// The cluster's nodes are not known yet, or no longer.
    #[error("the cluster's nodes are not known at the moment; the next report will do")]
    NotReady,
}

/// What a report lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Cgroups.
    Cgroups,
    /// GPUs and MIG instances.
    Devices,
    /// Containers with devices, resources with devices.
    Assignments,
    /// Absences.
    Absences,
}

impl From<NoNodeName> for Refusal {
    fn from(NoNodeName(name): NoNodeName) -> Self {
        Self::NodeName(name)
    }
}

impl Refusal {
    /// Every reason for which a report is refused. A part of it can be left out for others ([`Part`](super::Part)).
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
    // Never of a whole report: these are reasons of a part.
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
