//! What a replica knows of the time before it started, and why it could not learn more. Who is asked is [`crate::seed`]'s.
use mcad_accounting::totals::Differ;

use crate::peer::FetchError;

/// What a replica knows of the time before it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Another is being asked: reports have to wait.
    Asked,
    /// Nobody answered yet.
    Unknown,
    /// As much as can be known.
    Known,
}

/// Why nothing was learnt.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// It does not say where it is in a way that is understood.
    #[error("{0:?} is no address")]
    Address(String),
    /// It could not be asked.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Its answer is no seed.
    #[error("the answer is no seed")]
    Decode(#[from] prost::DecodeError),
    /// It was this replica itself: a pod's address outlives its container.
    #[error("this replica asked itself")]
    Itself,
    /// A moment later both will know the same.
    #[error(transparent)]
    Differ(#[from] Differ),
    /// There is no cluster that it could be the past of.
    #[error("no cluster is watched")]
    NoCluster,
}
