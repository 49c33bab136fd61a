//! Whether a replica has received the history from before it started, and why a state transfer failed.
//! [`crate::state_transfer`] makes the requests.
use mcad_accounting::totals::Differ;

use crate::peer::FetchError;

/// Whether a replica has the history from before it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferState {
    /// The state transfer is being requested: reports must wait.
    Asking,
    /// No replica has answered yet.
    Unknown,
    /// The history is as complete as it can be.
    Known,
}

/// Why a state transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum StateTransferError {
    /// The address of the other replica cannot be parsed.
    #[error("{0:?} is not an address")]
    Address(String),
    /// The request failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The answer cannot be decoded.
    #[error("the answer is not a state transfer")]
    Decode(#[from] prost::DecodeError),
    /// The other replica was this replica itself: a pod's address outlives its container.
    #[error("this replica queried itself")]
    Itself,
    /// The two replicas have seen different states of a node or a cgroup; they will agree shortly.
    #[error(transparent)]
    Differ(#[from] Differ),
    /// Without Kubernetes there is no history.
    #[error("no cluster is watched")]
    NoCluster,
}
