//! `cargo xtask screenshot`: takes the screenshots of the page for the README.

use anyhow::Result;
use clap::Args;
use xtask::{browser, workspace};

/// Take the screenshots of the page for README.md.
///
/// Serves a made-up cluster with every kind of problem (aggregator/tests/scene) with the aggregator's own server,
/// simulates an hour of reports, and takes a screenshot of the page in headless Chromium in both themes:
/// docs/page-light.png and docs/page-dark.png. Installs Debian's chromium and chromium-driver if they are missing.
#[derive(Args)]

pub(crate) struct Screenshot {}

impl Screenshot {
    #[expect(clippy::unused_self, reason = "every verb has the same method")]
    pub(crate) fn run(self) -> Result<()> {
        browser::chromium()?;
        let mut command =
            workspace::cargo(&["test", "--quiet", "--locked", "-p", "mcad-aggregator", "--test", "process"]);
        command.args(["--", "--exact", "browser::the_pictures_of_the_readme"]);
        workspace::run(command.env("MCAD_SCREENSHOTS", workspace::root().join("docs")))?;
        println!("screenshot: docs/page-light.png and docs/page-dark.png");
        Ok(())
    }
}
