//! Golden files: expected output, kept in the repository.
use std::path::Path;

/// Fails unless the file has that text; if `MCAD_BLESS` is set, writes the file first.
pub fn check_file(path: &Path, actual: &str) {
    if std::env::var_os("MCAD_BLESS").is_some() {
        std::fs::write(path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    let hint = "MCAD_BLESS=1 cargo test rewrites it; review the difference";
    assert!(actual == expected, "{} differs; {hint}\n{actual}", path.display());
}
