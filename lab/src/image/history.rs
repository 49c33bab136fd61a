//! From which sources an image is made, asked of git, or of whoever builds without it.

use std::process::Command;

use anyhow::{Context as _, Result};
use xtask::workspace;

use super::recipe::Sources;

/// Names the commit where there is no history: a source archive, a build in a container.
const REVISION: &str = "MCAD_REVISION";
/// The custom of reproducible builds for when the sources were written, in seconds since the Unix epoch.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The present sources.
pub(crate) fn sources() -> Result<Sources> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let written = variable(EPOCH).or_else(|| git(&["log", "--max-count=1", "--format=%ct"]));
    Ok(Sources {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: variable(REVISION).or_else(revision).unwrap_or_else(|| "unknown".to_owned()),
        written_s: match written {
            Some(seconds) => seconds.parse().with_context(|| format!("{EPOCH}={seconds} is no number of seconds"))?,
            // Without a history: the same wherever it is built.
            None => 0,
        },
    })
}

/// The commit's first twelve digits, `-dirty` behind if a file that git knows was changed: then it is not that commit.
fn revision() -> Option<String> {
    git(&["describe", "--always", "--abbrev=12", "--exclude=*", "--dirty"])
}

/// What git answers, if these sources are its own: a source archive may lie within somebody else's checkout.
fn git(words: &[&str]) -> Option<String> {
    let run = |words: &[&str]| workspace::output(Command::new("git").args(words).current_dir(workspace::root()));
    let top = run(&["rev-parse", "--show-toplevel"])?;
    let same = std::fs::canonicalize(top.trim()).ok()? == std::fs::canonicalize(workspace::root()).ok()?;
    run(words).filter(|_| same).map(|answer| answer.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_of_this_version_and_of_some_commit_or_an_unknown_one() {
        let sources = sources().unwrap();
        assert_eq!(sources.version, env!("CARGO_PKG_VERSION"));
        let commit = sources.revision.trim_end_matches("-dirty");
        let named = commit.len() == 12 && commit.chars().all(|digit| digit.is_ascii_hexdigit());
        assert!(named || std::env::var_os(REVISION).is_some() || sources.revision == "unknown", "{sources:?}");
    }
}
