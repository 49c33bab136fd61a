//! `cargo xtask screenshot`: the pictures of the README, of the page as the program serves it.

use anyhow::Result;
use clap::Args;
use xtask::{browser, workspace};

/// Take the pictures of the page that README.md shows.
///
/// Serves a made-up cluster with every kind of trouble (aggregator/tests/scene) with the aggregator's own server, lets its agents
/// report for an hour of a clock that is turned by hand, and photographs the page in headless Chromium, in both themes:
/// docs/page-light.png and docs/page-dark.png. Installs Debian's chromium and chromium-driver where they are missing.
#[derive(Args)]

pub(crate) struct Screenshot {}

impl Screenshot {
    #[expect(clippy::unused_self, reason = "every verb runs alike")]
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
