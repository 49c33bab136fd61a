//! Files that what is written is held against.
use std::path::Path;

/// Fails unless the file has that text; with `MCAD_BLESS` set, writes it.
pub fn check_file(path: &Path, actual: &str) {
    if std::env::var_os("MCAD_BLESS").is_some() {
        std::fs::write(path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    let hint = "MCAD_BLESS=1 cargo test writes it anew; review the difference";
    assert!(actual == expected, "{} differs; {hint}\n{actual}", path.display());
}
