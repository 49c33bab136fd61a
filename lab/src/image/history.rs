//! The version of the sources of an image, from git, or from variables if there is no git history.

use std::process::Command;

use anyhow::{Context as _, Result};
use xtask::workspace;

use super::recipe::Sources;

/// Sets the commit if there is no history: a source archive, a build in a container.
const REVISION: &str = "MCAD_REVISION";
/// The usual variable of reproducible builds for the time of the sources, in seconds since the Unix epoch.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The current sources.
pub(crate) fn sources() -> Result<Sources> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let written = variable(EPOCH).or_else(|| git(&["log", "--max-count=1", "--format=%ct"]));
    Ok(Sources {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: variable(REVISION).or_else(revision).unwrap_or_else(|| "unknown".to_owned()),
        written_s: match written {
            Some(seconds) => {
                seconds.parse().with_context(|| format!("{EPOCH}={seconds} is not a number of seconds"))?
            }
            // Without a history: the same value on every machine.
            None => 0,
        },
    })
}

/// The commit's first twelve digits, with `-dirty` appended if a tracked file was changed, because then it is not that
/// commit.
fn revision() -> Option<String> {
    git(&["describe", "--always", "--abbrev=12", "--exclude=*", "--dirty"])
}

/// The output of git, if these sources are its root: a source archive may be inside another checkout.
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
