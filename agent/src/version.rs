//! Which build this is, for people and for who compares nodes: the version, the commit that it was made of, and whether it carries
//! probes. Decided when it was compiled; nothing is asked at run time.

use std::sync::LazyLock;

use crate::probe;

/// The commit that this was built from, its first twelve digits, with `-dirty` behind where files were changed. What builds images
/// says it by `MCAD_REVISION`; elsewhere it is `unknown`, so that no commit makes a developer's build anew, and sources without
/// their history can be built.
pub const REVISION: &str = match option_env!("MCAD_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
};

/// What `--version` says behind the name.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| line(REVISION, probe::built_in()));
    &TEXT
}

/// `cargo xtask image` reads this of an agent, and refuses one without probes.
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
