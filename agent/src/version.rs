//! Identifies this build, for users and for tools that compare nodes: the version, the commit, and whether it contains
//! probes. Determined at compile time.

use std::sync::LazyLock;

use crate::probe;

/// The first twelve digits of the commit that this was built from, with `-dirty` if files were changed. Builds of
/// images set it with `MCAD_REVISION`. Otherwise it is `unknown`, so that a commit does not trigger a rebuild for
/// developers, and sources without their history can be built.
pub const REVISION: &str = match option_env!("MCAD_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
};

/// What `--version` prints after the name.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| line(REVISION, probe::built_in()));
    &TEXT
}

/// `cargo xtask image` reads this line of an agent, and rejects an agent without probes.
fn line(revision: &str, probes: bool) -> String {
    let probes = if probes { "probes embedded" } else { "no probes" };
    format!("{} ({revision}, {probes})", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_says_its_version_its_commit_and_whether_it_carries_probes() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(line("0123456789ab", true), format!("{version} (0123456789ab, probes embedded)"));
        assert_eq!(line("unknown", false), format!("{version} (unknown, no probes)"));
        assert!(text().contains(if probe::built_in() { "probes embedded" } else { "no probes" }));
        assert!(!REVISION.is_empty());
    }
}
