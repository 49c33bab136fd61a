//! Debian's kernel packages: finds the current one, and keeps its image in the cache. Nothing is installed: packages
//! are downloaded with separate package lists and unpacked.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use xtask::workspace;

/// A kernel, by the meta-package that always depends on the current version.
pub(crate) struct DebianKernel {
    /// The name used here.
    pub(crate) version: &'static str,
    /// Its suite.
    pub(crate) suite: &'static str,
    /// The meta-package.
    pub(crate) package: &'static str,
}

/// A kernel image in the cache.
pub(crate) struct Image {
    /// The bootable image.
    pub(crate) path: PathBuf,
    /// The package's name without `linux-image-` or a similar prefix: the output of `uname -r`.
    pub(crate) release: String,
    /// The driver of RAM disks, which is a module: a guest has no other block device.
    pub(crate) ram_disk: PathBuf,
}

/// `drivers/block/brd.c`, as a file in the cache.
const RAM_DISK: &str = "brd.ko";

/// A package source of this machine: its URI, and the key that signs it.
#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    uri: String,
    signed_by: String,
}

impl DebianKernel {
    /// The image. Downloaded if it isn't in the cache; with `update` also if there is a newer one.
    pub(crate) fn ensure(&self, update: bool) -> Result<Image> {
        let folder = workspace::cache()?.join("kernels").join(self.version);
        if !update && let Some(image) = cached(&folder) {
            return Ok(image);
        }
        let apt = Apt::new(self.suite)?;
        let name = apt.resolve(self.package)?;
        let release = release_of(&name).to_owned();
        if let Some(image) = cached(&folder).filter(|image| image.release == release) {
            return Ok(image);
        }
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let unpacked = apt.folder.join("unpacked");
        let outcome = apt.unpack(&name, &unpacked).and_then(|()| {
            if find(&unpacked, RAM_DISK).is_none() {
                apt.unpack(
                    &apt.dependency(&apt.dependency(self.package, "linux-image-")?, "linux-modules-")?,
                    &unpacked,
                )?;
            }
            let module = find(&unpacked, RAM_DISK).with_context(|| format!("{name} has no {RAM_DISK}"))?;
            std::fs::write(folder.join(RAM_DISK), decompressed(&module)?)?;
            let image = find(&unpacked, "vmlinuz").with_context(|| format!("{name} holds no kernel image"))?;
            // Copied last and renamed, so that an interrupted copy is never used as an image.
            let half = folder.join("half");
            std::fs::copy(&image, &half).with_context(|| format!("cannot copy {}", image.display()))?;
            Ok(std::fs::rename(&half, folder.join(format!("vmlinuz-{release}")))?)
        });
        let _ = std::fs::remove_dir_all(&unpacked);
        outcome?;
        cached(&folder).context("the kernel image is no longer in the cache")
    }
}

fn cached(folder: &Path) -> Option<Image> {
    let ram_disk = folder.join(RAM_DISK);
    std::fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let release = entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        ram_disk.is_file().then(|| Image { path: entry.path(), release, ram_disk: ram_disk.clone() })
    })
}

/// The contents of a module's file; newer packages compress it.
fn decompressed(module: &Path) -> Result<Vec<u8>> {
    let program = match module.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return Ok(std::fs::read(module)?),
    };
    let output = Command::new(program).args(["--decompress", "--stdout"]).arg(module).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program} cannot read {}", module.display());
    Ok(output.stdout)
}

/// The file whose name has this prefix, in any folder: newer packages have the image beside the modules and not in
/// `/boot`.
fn find(unpacked: &Path, name: &str) -> Option<PathBuf> {
    let mut folders = vec![unpacked.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if entry.file_name().to_string_lossy().starts_with(name) {
                return Some(entry.path());
            }
        }
    }
    None
}

/// apt with package lists of only one suite, separate from the machine's own.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(suite: &str) -> Result<Self> {
        let folder = workspace::cache()?.join("apt").join(suite);
        for needed in ["lists/partial", "archives/partial"] {
            std::fs::create_dir_all(folder.join(needed))?;
        }
        let mirrors = mirrors(&machine_sources());
        ensure!(!mirrors.is_empty(), "this machine has no Debian package source to take {suite} from");
        let lines: String = mirrors.iter().map(|mirror| source_line(mirror, suite)).collect();
        std::fs::write(folder.join("sources.list"), lines)?;
        let apt = Self { folder };
        // A mirror may lack the suite, or its security part; the next step shows whether the package can be found.
        let _ = apt.command("apt-get").args(["update", "--quiet=2"]).stderr(Stdio::null()).status();
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let option = |name: &str, path: &str| format!("{name}={}", self.folder.join(path).display());
        command.current_dir(&self.folder).args(["-o", &option("Dir::Etc::sourcelist", "sources.list")]);
        command.args(["-o", "Dir::Etc::sourceparts=-"]).args(["-o", &option("Dir::State::lists", "lists")]);
        command.args(["-o", &option("Dir::Cache", "")]).args(["-o", "Acquire::Languages=none"]);
        // apt's own user cannot write to our folder.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    }

    /// The package with the image that the meta-package depends on today.
    fn resolve(&self, meta: &str) -> Result<String> {
        let image = self.dependency(meta, "linux-image-")?;
        // Since 6.17 the image is in a package of its own.
        Ok(self.dependency(&image, "linux-binary-").unwrap_or(image))
    }

    fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let depends = workspace::output(self.command("apt-cache").args(["depends", package]).stderr(Stdio::null()))
            .with_context(|| format!("the package mirror has no {package}"))?;
        depends_on(&depends, prefix).with_context(|| format!("no dependency of {package} starts with {prefix}"))
    }

    fn unpack(&self, name: &str, folder: &Path) -> Result<()> {
        println!("test-kernels: downloading {name}");
        workspace::run(self.command("apt-get").args(["download", "--quiet=2", name]))?;
        let files = std::fs::read_dir(&self.folder)?.flatten().map(|entry| entry.path());
        let package = files
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)))
            .with_context(|| format!("apt-get downloaded no {name}"))?;
        std::fs::create_dir_all(folder)?;
        let outcome = workspace::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(folder));
        let _ = std::fs::remove_file(&package);
        outcome
    }
}

/// The first dependency with a prefix, in the output of `apt-cache depends`.
fn depends_on(depends: &str, prefix: &str) -> Option<String> {
    let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.map(str::trim).find(|name| name.starts_with(prefix)).map(str::to_owned)
}

/// The output of `uname -r` for the kernel in a package.
fn release_of(package: &str) -> &str {
    ["linux-image-", "linux-binary-"].iter().find_map(|prefix| package.strip_prefix(prefix)).unwrap_or(package)
}

/// The machine's own package sources, all files concatenated.
fn machine_sources() -> String {
    let folder = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = folder.collect();
    files.sort();
    files.insert(0, PathBuf::from("/etc/apt/sources.list"));
    files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect::<Vec<_>>().join("\n\n")
}

/// The keys that sign Debian's suites, of package debian-archive-keyring.
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The Debian mirrors among `sources`, which are lines (`deb URI SUITE …`) and paragraphs (`URIs: …`).
fn mirrors(sources: &str) -> Vec<Mirror> {
    let mut found: Vec<Mirror> = Vec::new();
    for line in sources.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let words = line.strip_prefix("URIs:").or_else(|| line.strip_prefix("deb ")).unwrap_or("");
        let uris = words.split_whitespace().filter(|word| {
            // `debian`, `debian-security`: the names of the archives, on every mirror.
            let last = word.trim_end_matches('/').rsplit('/').next();
            word.contains("://") && matches!(last, Some("debian" | "debian-security"))
        });
        for uri in uris {
            let mirror = Mirror { uri: uri.to_owned(), signed_by: DEBIAN_KEYRING.to_owned() };
            if !found.contains(&mirror) {
                found.push(mirror);
            }
        }
    }
    found
}

fn source_line(mirror: &Mirror, suite: &str) -> String {
    let Mirror { uri, signed_by } = mirror;
    let is_security = uri.trim_end_matches('/').ends_with("-security");
    let base = suite.strip_suffix("-backports");
    match (is_security, base) {
        // Backports have no security part.
        (true, Some(_)) => String::new(),
        (true, None) => format!("deb [signed-by={signed_by}] {uri} {suite}-security main\n"),
        (false, _) => format!("deb [signed-by={signed_by}] {uri} {suite} main\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_found_in_both_spellings_of_apt() {
        let sources = "# deb http://old.example/debian buster main\n\
            deb [arch=amd64] http://a.example/debian/ bookworm main\n\
            deb-src http://s.example/debian bookworm main\n\n\
            Types: deb\nURIs: http://a.example/debian-security\nSuites: bookworm-security\n\n\
            Types: deb\nURIs: https://b.example/node_20.x\n";
        let found: Vec<_> = mirrors(sources).into_iter().map(|mirror| mirror.uri).collect();
        assert_eq!(found, ["http://a.example/debian/", "http://a.example/debian-security"]);
    }

    #[test]
    fn a_suite_is_asked_of_each_mirror_in_its_own_name() {
        let check = |uri: &str, suite, expected: &str| {
            let mirror = Mirror { uri: uri.into(), signed_by: "/k".into() };
            assert_eq!(source_line(&mirror, suite), expected);
        };
        check("http://a/debian", "bullseye", "deb [signed-by=/k] http://a/debian bullseye main\n");
        let security = "deb [signed-by=/k] http://a/debian-security bullseye-security main\n";
        check("http://a/debian-security", "bullseye", security);
        check("http://a/debian", "trixie-backports", "deb [signed-by=/k] http://a/debian trixie-backports main\n");
        check("http://a/debian-security", "trixie-backports", "");
    }

    #[test]
    fn the_image_is_the_dependency_with_its_prefix() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-base\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        let image = depends_on(depends, "linux-image-").unwrap();
        assert_eq!(image, "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(release_of(&image), "6.1.0-56-cloud-amd64");
        assert_eq!(depends_on(depends, "linux-binary-"), None);
    }
}
