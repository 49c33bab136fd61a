//! Where nodes keep the NVML library.

use std::path::{Path, PathBuf};

use crate::vendor::{HOSTS_FOLDERS, NVIDIA};

/// With this name the loader finds the library where the container runtime mounted it.
const NAME: &str = "libnvidia-ml.so.1";

/// The paths to try, in this order. If a path is given, only that one.
pub(super) fn candidates(given: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = given {
        return vec![path.to_owned()];
    }
    let folders = NVIDIA.library_folders.iter().chain(&HOSTS_FOLDERS);
    let kept = folders.map(|folder| Path::new(folder).join(NAME)).filter(|path| path.exists());
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
