//! Where a node keeps NVML's library.

use std::path::{Path, PathBuf};

use crate::driver_folders::DRIVER_FOLDERS;

/// By this name the loader finds it where the container runtime put it.
const NAME: &str = "libnvidia-ml.so.1";

/// What to try, in this order. A path that was given is the only one.
pub(super) fn candidates(given: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = given {
        return vec![path.to_owned()];
    }
    let kept = DRIVER_FOLDERS.iter().map(|directory| Path::new(directory).join(NAME)).filter(|path| path.exists());
    std::iter::once(PathBuf::from(NAME)).chain(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_path_is_the_only_one_and_without_it_the_loader_is_asked_first() {
        assert_eq!(candidates(Some(Path::new("/x.so"))), [PathBuf::from("/x.so")]);
        assert_eq!(candidates(None)[0], PathBuf::from(NAME));
    }
}
