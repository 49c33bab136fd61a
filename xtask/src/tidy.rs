//! `cargo xtask tidy`: the promises of the repository that a machine can check without running it. They are tests of this crate.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::workspace;

#[cfg(test)]
mod tests;

/// Check what the repository promises of itself: imports, pure files, links between documents.
///
/// `cargo xtask test` checks the same. It takes seconds.
#[derive(Args)]
pub(crate) struct Tidy {}

impl Tidy {
    #[expect(clippy::unused_self, reason = "every verb is run the same way")]
    pub(crate) fn run(self) -> Result<()> {
        workspace::run(&mut workspace::cargo(&["test", "--locked", "--package", "xtask", "--lib", "tidy::"]))
            .context("a promise is broken; it is named above")
    }
}
