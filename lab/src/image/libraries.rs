//! Finds which libraries of this machine a program needs in an image without libraries, and where its loader looks for
//! them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::elf::Elf;

/// What the driver's `libnvidia-ml.so.1` and the libraries it loads need. The agent opens it at run time, so no file
/// lists them.
///
/// Besides libc it needs libm, libdl and libpthread; some versions librt. glibc opens libgcc_s to unwind a thread's
/// stack.
const FOR_NVML: [&str; 6] = ["libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1"];

/// Notices that belong to the files of these packages, at Debian's paths.
const NOTICES: [&str; 2] = ["/usr/share/doc/libc6/copyright", "/usr/share/doc/libgcc-s1/copyright"];

/// The default folders of a loader, in this order: Debian's, then those of others.
fn folders() -> Vec<PathBuf> {
    let of_debian = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders = [format!("/lib/{of_debian}"), format!("/usr/lib/{of_debian}")].map(PathBuf::from).into_iter();
    folders.chain(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from)).collect()
}

/// Files by their paths from the root.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The loader of `program`, and the libraries that it and the driver's library need.
pub(crate) fn of(program: &Elf) -> Result<Files> {
    let Some(loader) = &program.interpreter else {
        bail!("it is linked statically, so it can't open the driver's libnvidia-ml.so.1")
    };
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut files = Files::from([(from_root(loader), read(Path::new(loader))?)]);
    let loader_name = loader.rsplit('/').next().unwrap_or_default();
    let mut names: Vec<String> = program.needed.iter().cloned().chain(FOR_NVML.map(str::to_owned)).collect();
    let mut seen: Vec<String> = vec![loader_name.to_owned()];
    while let Some(name) = names.pop() {
        if seen.contains(&name) {
            continue;
        }
        ensure!(!name.starts_with("libnvidia"), "{name} must come from the node's driver, not from an image");
        let path = find(&name, &folders(), program.machine)?;
        let bytes = read(&path)?;
        let library = Elf::read(&bytes).with_context(|| path.display().to_string())?;
        names.extend(library.needed);
        seen.push(name);
        files.insert(from_root(&path.to_string_lossy()), bytes);
    }
    for notice in NOTICES.map(Path::new).into_iter().filter(|notice| notice.is_file()) {
        files.insert(from_root(&notice.to_string_lossy()), read(notice)?);
    }
    Ok(files)
}

fn from_root(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// The library with that name for that architecture. Its path is kept, so that the loader finds it where it is on this
/// machine.
fn find(name: &str, folders: &[PathBuf], machine: u16) -> Result<PathBuf> {
    let is_ours = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        Elf::read(&bytes).is_ok_and(|library| library.machine == machine)
    };
    folders.iter().map(|folder| folder.join(name)).find(is_ours).with_context(|| {
        let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        format!("{name} is needed, but is in none of these folders: {}", folders.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_test() -> Elf {
        Elf::read(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn a_program_gets_its_loader_once_and_every_library_that_any_of_them_needs() {
        let files = of(&this_test()).unwrap();
        let names: Vec<_> = files.keys().map(|path| path.rsplit('/').next().unwrap()).collect();
        for needed in FOR_NVML {
            assert_eq!(names.iter().filter(|name| **name == needed).count(), 1, "{needed} in {names:?}");
        }
        let loaders: Vec<_> = names.iter().filter(|name| name.starts_with("ld-linux")).collect();
        assert_eq!(loaders.len(), 1, "{names:?}");
        for bytes in files.iter().filter(|(path, _)| !path.contains("/doc/")).map(|(_, bytes)| bytes) {
            for needed in Elf::read(bytes).unwrap().needed {
                assert!(names.contains(&needed.as_str()), "{needed} is missing in {names:?}");
            }
        }
    }

    #[test]
    fn a_static_program_can_not_have_the_drivers_library() {
        let error = of(&Elf { interpreter: None, ..this_test() }).unwrap_err().to_string();
        assert!(error.contains("statically"), "{error}");
    }

    #[test]
    fn the_drivers_own_library_never_comes_along() {
        let error = of(&Elf { needed: vec!["libnvidia-ml.so.1".to_owned()], ..this_test() }).unwrap_err();
        assert!(error.to_string().contains("the node's driver"), "{error}");
    }

    #[test]
    fn a_library_for_another_processor_is_none() {
        let error = find("libc.so.6", &folders(), u16::MAX).unwrap_err().to_string();
        assert!(error.contains("libc.so.6 is needed") && error.contains("/usr/lib64"), "{error}");
    }
}
