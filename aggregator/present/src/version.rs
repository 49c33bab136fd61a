//! Which build this is, for people and for who compares replicas: the version, and the commit that it was made of. Decided when it
//! was compiled; nothing is asked at run time.

use std::sync::LazyLock;

/// The version of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that this was built from, its first twelve digits, with `-dirty` behind where files were changed. What builds images
/// says it by `MCAD_REVISION`; elsewhere it is `unknown`, so that no commit makes a developer's build anew, and sources without
/// their history can be built.
pub const REVISION: &str = match option_env!("MCAD_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
};

/// What `--version` says behind the name.
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
