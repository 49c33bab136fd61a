//! `cargo xtask tidy`: rules of the repository that can be checked without running the programs. The checks are tests
//! of this crate.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::workspace;

#[cfg(test)]
mod tests;

/// Check the rules of the repository: imports, files that only compute, links between documents.
///
/// `cargo xtask test` checks the same. It takes seconds.
#[derive(Args)]
pub(crate) struct Tidy {}

impl Tidy {
    #[expect(clippy::unused_self, reason = "every verb has the same method")]
    pub(crate) fn run(self) -> Result<()> {
        workspace::run(&mut workspace::cargo(&["test", "--locked", "--package", "xtask", "--lib", "tidy::"]))
            .context("a rule is broken; see above")
    }
}
