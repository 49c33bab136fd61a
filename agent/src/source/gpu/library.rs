//! Where a node keeps NVML's library.

use std::path::{Path, PathBuf};

/// By this name the loader finds it where the container runtime put it.
const NAME: &str = "libnvidia-ml.so.1";

/// Where drivers are kept that are not in the loader's path: the GPU operator's driver container, Container-Optimized OS.
const DIRECTORIES: [&str; 10] = [
    "/run/nvidia/driver/usr/lib64",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
    "/run/nvidia/driver/usr/lib/aarch64-linux-gnu",
    "/usr/local/nvidia/lib64",
    "/home/kubernetes/bin/nvidia/lib64",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/wsl/lib",
    // Where a container runtime that goes by the host's habits puts it, in an image whose loader has others.
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

/// What to try, in this order. A path that was given is the only one.
pub(super) fn candidates(given: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = given {
        return vec![path.to_owned()];
    }
    let kept = DIRECTORIES.iter().map(|directory| Path::new(directory).join(NAME)).filter(|path| path.exists());
    std::iter::once(PathBuf::from(NAME)).chain(kept).collect()
}

/// Folders where it may be, whether or not they are there.
pub fn library_folders() -> impl Iterator<Item = PathBuf> {
    DIRECTORIES.iter().map(PathBuf::from)
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
