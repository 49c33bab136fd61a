//! What is said of the dump that a snapshot comes from, before anything that is made of it: its instant, what is missing, what was left
//! out. The sentences are the dump's reader's; where they stand is explain's and the page's.
use serde::Serialize;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Input {
    /// Whether everything was read, and nothing is missing.
    pub complete: bool,
    /// What is not in it, and what is unknown therefore.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// What could not be read: where, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// How many more were left out than are named.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_left_out: usize,
    /// What was read and may surprise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// When it was made. Absent: there is no time in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instant: Option<String>,
    /// Who says so: `recorded` (`mcad-aggregator dump`), `given` (`--at`), or `newest` (the newest time in it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instant_by: Option<&'static str>,
    /// The API server's version, where it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// The files; `-` is standard input.
    pub files: Vec<String>,
    /// How many Nodes were read.
    pub nodes: usize,
    /// How many Pods were read.
    pub pods: usize,
    /// How many AppWrappers were read.
    pub appwrappers: usize,
    /// When it was made, as people read it.
    #[serde(skip)]
    pub as_of: String,
}

/// A kind of objects that a dump does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// `Nodes`, `Pods` or `AppWrappers`.
    pub kind: &'static str,
    /// The sentence: what is absent, what is unknown therefore, and what to do.
    pub sentence: String,
}

impl Input {
    /// All that is wrong, a sentence each.
    pub fn complaints(&self) -> impl Iterator<Item = String> {
        let missing = self.missing.iter().map(|missing| format!("Missing: {}", missing.sentence));
        let left_out = self.left_out.iter().map(|left_out| format!("Left out: {left_out}"));
        let more = (self.more_left_out > 0).then(|| format!("Left out: {} more", self.more_left_out));
        missing.chain(left_out).chain(more)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
