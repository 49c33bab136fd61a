//! Facts about the dump that a snapshot is made from: its time, what is missing, what was left out. The dump's reader writes the sentences;
//! `explain` and the page show them before everything else.
use serde::Serialize;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Input {
    /// Whether everything was read and nothing is missing.
    pub complete: bool,
    /// Kinds that the dump does not have, and what is therefore unknown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// What could not be read: where, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// How many more were left out, beyond those that are named.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_left_out: usize,
    /// What was read but may surprise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The time of the dump. `None` if it contains no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instant: Option<String>,
    /// Where the time comes from: `recorded` (by `mcad-aggregator dump`), `given` (with `--at`), or `newest` (the newest time in the dump).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instant_by: Option<&'static str>,
    /// The API server's version, if it was recorded.
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
    /// The time of the dump, formatted for people.
    #[serde(skip)]
    pub as_of: String,
}

/// A kind of object that the dump does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// `Nodes`, `Pods` or `AppWrappers`.
    pub kind: &'static str,
    /// One sentence: what is absent, what is therefore unknown, and what to do.
    pub sentence: String,
}

impl Input {
    /// Everything that is wrong, one sentence each.
    pub fn complaints(&self) -> impl Iterator<Item = String> {
        let missing = self.missing.iter().map(|missing| format!("Missing: {}", missing.sentence));
        let left_out = self.left_out.iter().map(|left_out| format!("Left out: {left_out}"));
        let more = (self.more_left_out > 0).then(|| format!("Left out: {} more", self.more_left_out));
        missing.chain(left_out).chain(more)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
