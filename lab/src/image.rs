//! `cargo xtask image`: builds container images of both programs without a container engine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use xtask::workspace::REMAPPED;
use xtask::{build_ebpf, workspace};

mod recipe;

mod binary;
mod elf;
mod history;
mod libraries;

mod archive;
mod tree;

#[cfg(test)]
mod dockerfile_tests;
#[cfg(test)]
mod tests;

use archive::{Archive, Layer};
use binary::Binary;
use recipe::{Program, Sources};
use tree::{Rights, Tree};

/// Build container images of both programs, without a container engine.
///
/// Writes DIR/mcad-agent.tar and DIR/mcad-aggregator.tar. Each is an OCI image layout for `ctr --namespace k8s.io
/// images import`, `docker load` and `podman load`, named docker.io/mcad-metrics/agent:VERSION and
/// docker.io/mcad-metrics/aggregator:VERSION. Prints the path, the digest and the sizes of each. DIR/digests is a
/// kustomize component that refers to the built images by digest.
///
/// First builds the eBPF programs (and installs what that needs), then the programs, in target/image. Equal sources
/// built by equal toolchains give equal digests. The commit is git's, or MCAD_REVISION; the time of all files is the
/// commit's, or SOURCE_DATE_EPOCH.
///
/// Refuses an agent without probes, and any program that contains fake-nvml.
#[derive(Args)]
pub(crate) struct Image {
    /// Which images to build; both by default
    #[arg(value_name = "PROGRAM")]
    programs: Vec<Program>,
    /// Folder for the archives
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Cargo profile for the programs; dev builds faster, for trials
    #[arg(long, default_value = "release")]
    profile: String,
    /// Also write the files of each image to DIR/mcad-PROGRAM, from where deploy/Dockerfile copies them
    #[arg(long, value_name = "DIR")]
    unpacked: Option<PathBuf>,
}

/// An image before it is written.
struct Made {
    program: Program,
    layers: [Layer; 2],
    archive: Archive,
}

impl Image {
    pub(crate) fn run(self) -> Result<()> {
        let out = self.out.unwrap_or_else(|| workspace::target().join("images"));
        std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
        let mut programs = self.programs;
        if programs.is_empty() {
            programs = vec![Program::Agent, Program::Aggregator];
        }
        let sources = history::sources()?;
        let template = workspace::root().join(DIGESTS).join("kustomization.yaml");
        let mut component =
            std::fs::read_to_string(&template).with_context(|| format!("cannot read {}", template.display()))?;
        for program in programs {
            let made = make(program, &self.profile, &sources)?;
            let path = out.join(format!("{}.tar", program.name()));
            made.write(&path)?;
            print!("{}", made.lines(&path, &sources));
            component = with_digest(&component, program.repository(), made.archive.digest.as_ref())?;
            if let Some(folder) = &self.unpacked {
                made.unpack(&folder.join(program.name()))?;
            }
        }
        let folder = out.join("digests");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let path = folder.join("kustomization.yaml");
        std::fs::write(&path, component).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The kustomize component that refers to images by digest.
const DIGESTS: &str = "deploy/components/digests";

/// The component with the digest of one image inserted.
fn with_digest(component: &str, repository: &str, digest: &str) -> Result<String> {
    let name = format!("- name: {repository}\n  digest: ");
    let (before, after) =
        component.split_once(&name).with_context(|| format!("{DIGESTS} does not name {repository}"))?;
    let (_, rest) = after.split_once('\n').unwrap_or((after, ""));
    Ok(format!("{before}{name}{digest}\n{rest}"))
}

/// Builds one image.
fn make(program: Program, profile: &str, sources: &Sources) -> Result<Made> {
    if program == Program::Agent {
        for folder in REMAPPED.iter().filter(|folder| Path::new(folder).exists()) {
            println!("image: {folder} exists and may change the eBPF programs: other machines build a different image");
        }
        build_ebpf::ensure().context("the agent of an image needs the eBPF programs")?;
    }
    println!("image: building {} with profile {profile} (minutes the first time)", program.name());
    let binary = binary::build(program, profile, sources)?;
    compose(program, sources, binary)
}

/// Collects the files of one image.
fn compose(program: Program, sources: &Sources, binary: Binary) -> Result<Made> {
    let mut base = Tree::default();
    for (path, text) in program.users() {
        base.add(path, text, Rights::Read);
    }
    // Names are looked up in the files that kubelet writes, then in DNS: glibc's default, made explicit.
    base.add("etc/nsswitch.conf", "hosts: files dns\n", Rights::Read);
    if program == Program::Agent {
        for (path, bytes) in libraries::of(&binary.elf)? {
            let rights = if path.contains("/doc/") { Rights::Read } else { Rights::Execute };
            base.add(&path, bytes, rights);
        }
    }
    let mut own = Tree::default();
    let license = std::fs::read(workspace::root().join("LICENSE")).context("cannot read LICENSE")?;
    own.add(&format!("usr/share/doc/{}/LICENSE", program.name()), license, Rights::Read);
    own.add(&program.path(), binary.bytes, Rights::Execute);
    // The layer that changes least is the lowest, so that nodes often have it already.
    let layers =
        [Layer { title: "libraries and system files", tree: base }, Layer { title: program.name(), tree: own }];
    let archive = archive::archive(program, sources, &layers)?;
    Ok(Made { program, layers, archive })
}

impl Made {
    /// Written by renaming, so that a program that imports it at the same time reads a complete file.
    fn write(&self, path: &Path) -> Result<()> {
        let half = path.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&half, &self.archive.bytes).with_context(|| format!("cannot write {}", half.display()))?;
        std::fs::rename(&half, path).with_context(|| format!("cannot rename {} to {}", half.display(), path.display()))
    }

    /// Writes its files, as a container sees them.
    fn unpack(&self, folder: &Path) -> Result<()> {
        let written = std::fs::create_dir_all(folder)
            .and_then(|()| self.layers.iter().try_for_each(|layer| layer.tree.write(folder)));
        written.with_context(|| format!("cannot write to {}", folder.display()))
    }

    fn lines(&self, path: &Path, sources: &Sources) -> String {
        let megabytes = |bytes: usize| bytes as f64 / 1e6;
        let [base, own] = self.layers.each_ref().map(|layer| megabytes(layer.tree.bytes()));
        format!(
            "{}\n  name    {}:{}\n  commit  {}\n  digest  {}\n  size    {:.1} MB, unpacked {:.1} MB ({} {own:.1}, below it {base:.1})\n",
            path.display(),
            self.program.repository(),
            sources.version,
            sources.revision,
            self.archive.digest,
            megabytes(self.archive.bytes.len()),
            base + own,
            self.program.name(),
        )
    }
}
