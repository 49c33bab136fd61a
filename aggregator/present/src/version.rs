//! Which build this is, for users and for comparing replicas: the version and the commit. Fixed at compile time; nothing is
//! looked up at run time.

use std::sync::LazyLock;

/// The version of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The first twelve digits of the commit that this was built from, followed by `-dirty` if files were changed. Image builds set it
/// with `MCAD_REVISION`; otherwise it is `unknown`, so that a commit does not cause a developer's build to run again, and sources
/// without git history can be built.
pub const REVISION: &str = match option_env!("MCAD_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
};

/// The text of `--version` after the name.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{VERSION} ({REVISION})"));
    &TEXT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_says_its_version_and_its_commit() {
        assert_eq!(text(), format!("{VERSION} ({REVISION})"));
        assert!(!REVISION.is_empty());
    }
}
