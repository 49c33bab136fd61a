//! The conditions that a node can be in: its states and its problems, as an address and the page name them.

/// A condition of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the states and problems of a node, by their names")]
pub enum Condition {
    All,
    Trouble,
    Lost,
    Unhealthy,
    Stranded,
    Phantom,
    Overcommitted,
    Unadvertised,
    Strays,
    Unclaimed,
    Silent,
    NotReady,
    Cordoned,
    Tainted,
    Admissible,
}

impl Condition {
    /// All conditions, in the order in which the page offers them.
    pub const ALL: [Self; 15] = [
        Self::All,
        Self::Trouble,
        Self::Lost,
        Self::Unhealthy,
        Self::Stranded,
        Self::Phantom,
        Self::Overcommitted,
        Self::Unadvertised,
        Self::Strays,
        Self::Unclaimed,
        Self::Silent,
        Self::NotReady,
        Self::Cordoned,
        Self::Tainted,
        Self::Admissible,
    ];

    /// Its name in an address.
    pub fn label(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Trouble => "trouble",
            Self::Lost => "lost",
            Self::Unhealthy => "unhealthy",
            Self::Stranded => "stranded",
            Self::Phantom => "phantom",
            Self::Overcommitted => "overcommitted",
            Self::Unadvertised => "unadvertised",
            Self::Strays => "strays",
            Self::Unclaimed => "unclaimed",
            Self::Silent => "silent",
            Self::NotReady => "not_ready",
            Self::Cordoned => "cordoned",
            Self::Tainted => "tainted",
            Self::Admissible => "admissible",
        }
    }

    /// Its name on the page.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Trouble => "with problems",
            Self::Strays => "stray processes",
            Self::Unclaimed => "unclaimed GPU memory",
            Self::Silent => "agent silent",
            Self::NotReady => "not ready",
            other => other.label(),
        }
    }
}
