//! An image as one file: an OCI image layout in a tar file, with Docker's own list in it. `ctr images import`, `docker
//! load`, `podman load` and `skopeo` read it. Bytes in, bytes out.

use std::collections::{BTreeMap, HashMap};
use std::io;

use anyhow::{Context as _, Result};
use oci_spec::image::{Arch, Os};
use oci_spec::image::{
    ConfigBuilder, DescriptorBuilder, Digest, HistoryBuilder, ImageConfiguration, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder, PlatformBuilder, RootFsBuilder,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tar::EntryType;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::recipe::{Program, Sources};
use super::tree::{Entry, Rights, Tree, append, gzip};

/// An image, ready to be written.
pub(crate) struct Archive {
    /// The digest of its manifest, which identifies the image in registries and on nodes.
    pub(crate) digest: Digest,
    /// The whole file.
    pub(crate) bytes: Vec<u8>,
}

/// One layer: a title for display, and its files.
pub(crate) struct Layer {
    pub(crate) title: &'static str,
    pub(crate) tree: Tree,
}

/// The parts of an image, by their digests.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    fn add(&mut self, kind: MediaType, bytes: Vec<u8>) -> Result<oci_spec::image::Descriptor> {
        let digest = digest(&bytes)?;
        let size = bytes.len() as u64;
        self.0.insert(digest.digest().to_owned(), bytes);
        Ok(DescriptorBuilder::default().media_type(kind).digest(digest).size(size).build()?)
    }
}

/// Docker's list of the archive's contents, for engines without support for OCI layouts.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Combines the layers, the lowest first.
pub(crate) fn archive(program: Program, sources: &Sources, layers: &[Layer]) -> Result<Archive> {
    let mut blobs = Blobs::default();
    let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
    for layer in layers {
        let tar = layer.tree.tar(sources.written_s).context("cannot write a layer")?;
        diff_ids.push(digest(&tar)?.to_string());
        descriptors.push(blobs.add(MediaType::ImageLayerGzip, gzip(&tar).context("cannot compress a layer")?)?);
    }
    let titles = layers.iter().map(|layer| layer.title);
    let configuration = json(&configuration(program, sources, titles, diff_ids)?)?;
    let configuration = blobs.add(MediaType::ImageConfig, configuration)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(configuration.clone())
        .layers(descriptors.clone())
        .build()?;
    let mut manifest = blobs.add(MediaType::ImageManifest, json(&manifest)?)?;
    let digest = manifest.digest().clone();

    let name = format!("{}:{}", program.repository(), sources.version);
    manifest.set_platform(Some(PlatformBuilder::default().architecture(architecture()).os(Os::Linux).build()?));
    // The full name for containerd; only the tag for the others, as `docker save` writes it.
    manifest.set_annotations(Some(HashMap::from([
        ("io.containerd.image.name".to_owned(), name.clone()),
        ("org.opencontainers.image.ref.name".to_owned(), sources.version.clone()),
    ])));
    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests([manifest])
        .build()?;
    let docker = DockerImage {
        config: blob_path(configuration.digest()),
        repo_tags: vec![name.trim_start_matches("docker.io/").to_owned()],
        layers: descriptors.iter().map(|layer| blob_path(layer.digest())).collect(),
    };
    let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;
    let files = [("index.json", json(&index)?), ("manifest.json", json(&[docker])?), ("oci-layout", json(&layout)?)];
    let bytes = write(&blobs, files, sources.written_s).context("cannot write the archive")?;
    Ok(Archive { digest, bytes })
}

/// The configuration that a container of this image starts with.
fn configuration<'a>(
    program: Program,
    sources: &Sources,
    layers: impl Iterator<Item = &'a str>,
    diff_ids: Vec<String>,
) -> Result<ImageConfiguration> {
    let written = OffsetDateTime::from_unix_timestamp(i64::try_from(sources.written_s)?)?.format(&Rfc3339)?;
    let mut config = ConfigBuilder::default()
        .user(program.user())
        .env(program.environment().iter().map(|&variable| variable.to_owned()).collect::<Vec<_>>())
        .entrypoint([program.entrypoint()])
        .working_dir("/")
        .labels(program.labels(sources).into_iter().collect::<HashMap<_, _>>());
    if !program.ports().is_empty() {
        config = config.exposed_ports(program.ports().iter().map(|port| format!("{port}/tcp")).collect::<Vec<_>>());
    }
    let step = |title: &str| {
        HistoryBuilder::default().created(written.clone()).created_by(format!("cargo xtask image: {title}")).build()
    };
    let history = layers.map(step).collect::<Result<Vec<_>, _>>()?;
    Ok(ImageConfigurationBuilder::default()
        .created(written.clone())
        .architecture(architecture())
        .os(Os::Linux)
        .config(config.build()?)
        .rootfs(RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build()?)
        .history(history)
        .build()?)
}

/// This machine's architecture in Go's spelling: images are built for the architecture they are built on.
fn architecture() -> Arch {
    match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        other => Arch::Other(other.to_owned()),
    }
}

fn digest(bytes: &[u8]) -> Result<Digest> {
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16));
    let hex: String = Sha256::digest(bytes).iter().flat_map(digits).flatten().collect();
    format!("sha256:{hex}").parse().context("the digest is not valid")
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

/// JSON with sorted keys, because some maps of the crate have no order.
fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut value = serde_json::to_value(value).context("cannot be written as JSON")?;
    // Maps are sorted by default only if no other crate enables serde_json's `preserve_order`.
    value.sort_all_objects();
    serde_json::to_vec(&value).context("cannot be written as JSON")
}

fn write(blobs: &Blobs, files: [(&str, Vec<u8>); 3], written_s: u64) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let folder = Entry { kind: EntryType::Directory, mode: Rights::Execute.mode(), written_s };
    let file = Entry { kind: EntryType::Regular, mode: Rights::Read.mode(), written_s };
    for path in ["blobs/", "blobs/sha256/"] {
        append(&mut archive, path, &[], folder)?;
    }
    for (digest, bytes) in &blobs.0 {
        append(&mut archive, &format!("blobs/sha256/{digest}"), bytes, file)?;
    }
    for (name, bytes) in files {
        append(&mut archive, name, &bytes, file)?;
    }
    archive.into_inner()
}
