//! Tests of the built images: what is in the archive, and whether the programs run without anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use fake_nvml::Installation;
use fake_nvml::scenario::Scenario;
use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest, MediaType, OciLayout};
use sha2::{Digest as _, Sha256};

use super::elf::Elf;
use super::*;

fn sources() -> Sources {
    Sources { version: "1.2.3".to_owned(), revision: "0123456789ab".to_owned(), written_s: 1_767_225_600 }
}

/// An image that needs no build, with the libraries that this test would need.
fn stand_in(program: Program) -> Made {
    let elf = Elf::read(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).unwrap();
    compose(program, &sources(), Binary { bytes: b"a program".into(), elf }).unwrap()
}

const BOTH: [Program; 2] = [Program::Agent, Program::Aggregator];

/// The files of an uncompressed archive.
fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (path, bytes)
    });
    entries.filter(|(path, _)| !path.ends_with('/')).collect()
}

/// An archive as an engine reads it.
struct Read {
    files: BTreeMap<String, Vec<u8>>,
    index: ImageIndex,
    manifest: ImageManifest,
    configuration: ImageConfiguration,
    /// The layers, uncompressed.
    layers: Vec<Vec<u8>>,
}

impl Read {
    fn of(made: &Made) -> Self {
        let files = files(&made.archive.bytes);
        let index = ImageIndex::from_reader(files["index.json"].as_slice()).unwrap();
        let blob = |digest: &str| files[&format!("blobs/{}", digest.replace(':', "/"))].as_slice();
        let manifest = ImageManifest::from_reader(blob(index.manifests()[0].digest().as_ref())).unwrap();
        let configuration = ImageConfiguration::from_reader(blob(manifest.config().digest().as_ref())).unwrap();
        let layers = manifest.layers().iter().map(|layer| {
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(blob(layer.digest().as_ref())).read_to_end(&mut tar).unwrap();
            tar
        });
        let layers = layers.collect();
        Self { files, index, manifest, configuration, layers }
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

#[test]
fn every_digest_and_size_is_that_of_what_it_names() {
    for program in BOTH {
        let made = stand_in(program);
        let read = Read::of(&made);
        assert_eq!(
            OciLayout::from_reader(read.files["oci-layout"].as_slice()).unwrap().image_layout_version(),
            "1.0.0"
        );
        let blobs: BTreeMap<_, _> =
            read.files.iter().filter_map(|(path, bytes)| Some((path.strip_prefix("blobs/sha256/")?, bytes))).collect();
        assert!(blobs.iter().all(|(name, bytes)| **name == sha256(bytes)));
        let [entry] = read.index.manifests().as_slice() else { panic!("{:?}", read.index) };
        assert_eq!(entry.digest(), &made.archive.digest);
        let named: Vec<_> = [entry, read.manifest.config()].into_iter().chain(read.manifest.layers()).collect();
        for descriptor in &named {
            assert_eq!(blobs[descriptor.digest().digest()].len() as u64, descriptor.size());
        }
        // Nothing else is in it.
        let expected: BTreeSet<_> = named.iter().map(|descriptor| descriptor.digest().digest()).collect();
        assert_eq!(expected, blobs.keys().copied().collect());
        let diff_ids: Vec<_> = read.layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
        assert_eq!(read.configuration.rootfs().diff_ids(), &diff_ids);
        assert_eq!(read.configuration.history().as_ref().unwrap().len(), diff_ids.len());
        assert!(read.manifest.layers().iter().all(|layer| layer.media_type() == &MediaType::ImageLayerGzip));
    }
}

#[test]
fn containerd_and_docker_find_the_same_image_by_the_same_name() {
    let read = Read::of(&stand_in(Program::Agent));
    let annotations = read.index.manifests()[0].annotations().clone().unwrap();
    assert_eq!(annotations["io.containerd.image.name"], "docker.io/mcad-metrics/agent:1.2.3");
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "1.2.3");
    let docker: serde_json::Value = serde_json::from_slice(&read.files["manifest.json"]).unwrap();
    assert_eq!(docker[0]["RepoTags"], serde_json::json!(["mcad-metrics/agent:1.2.3"]));
    let path = |digest: &oci_spec::image::Digest| format!("blobs/sha256/{}", digest.digest());
    assert_eq!(docker[0]["Config"], path(read.manifest.config().digest()));
    let layers: Vec<_> = read.manifest.layers().iter().map(|layer| path(layer.digest())).collect();
    assert_eq!(docker[0]["Layers"], serde_json::json!(layers));
}

#[test]
fn a_container_starts_as_the_recipe_says() {
    for program in BOTH {
        let configuration = Read::of(&stand_in(program)).configuration;
        let config = configuration.config().clone().unwrap();
        assert_eq!(config.user().as_deref(), Some(program.user()));
        assert_eq!(config.env().as_deref().unwrap(), program.environment());
        assert_eq!(config.entrypoint().as_deref().unwrap(), [program.entrypoint()]);
        let ports: BTreeSet<_> = config.exposed_ports().clone().unwrap_or_default().into_iter().collect();
        assert_eq!(ports, program.ports().iter().map(|port| format!("{port}/tcp")).collect());
        let labels: BTreeMap<_, _> = config.labels().clone().unwrap().into_iter().collect();
        assert_eq!(labels, program.labels(&sources()));
        assert_eq!(labels["org.opencontainers.image.revision"], "0123456789ab");
        assert_eq!(configuration.created().as_deref(), Some("2026-01-01T00:00:00Z"));
    }
    assert_eq!(Program::Aggregator.user(), "65532:65532");
}

#[test]
fn equal_sources_give_equal_images_and_others_do_not() {
    for program in BOTH {
        let (one, other) = (stand_in(program), stand_in(program));
        assert_eq!(one.archive.digest, other.archive.digest);
        assert!(one.archive.bytes == other.archive.bytes, "the archives differ");
        let bytes = one.layers[1].tree.clone();
        let mut changed = bytes;
        changed.add(&program.path(), "another", Rights::Execute);
        let layers = one.layers.map(|layer| Layer { title: layer.title, tree: changed.clone() });
        let changed = archive::archive(program, &sources(), &layers).unwrap();
        assert_ne!(changed.digest, other.archive.digest);
    }
}

#[test]
fn files_are_roots_nobody_else_may_write_them_and_there_is_no_shell() {
    for program in BOTH {
        let mut paths = Vec::new();
        for layer in Read::of(&stand_in(program)).layers {
            let mut archive = tar::Archive::new(layer.as_slice());
            for entry in archive.entries().unwrap() {
                let entry = entry.unwrap();
                let (path, header) = (entry.path().unwrap().display().to_string(), entry.header());
                let mode = header.mode().unwrap();
                assert_eq!(mode & 0o7022, 0, "{path} is {mode:o}");
                assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0), "{path}");
                assert_eq!(header.mtime().unwrap(), sources().written_s, "{path}");
                paths.push(path);
            }
        }
        let programs: Vec<_> = paths.iter().filter(|path| path.contains("bin/")).collect();
        assert_eq!(programs, ["usr/bin/", &program.path()]);
        assert!(paths.iter().all(|path| !path.contains("nvidia")), "{paths:?}");
        let libraries = paths.iter().any(|path| path.contains(".so"));
        assert_eq!(libraries, program == Program::Agent);
    }
}

/// The image of a program that was built for it, and runs. With the profile of images if it was built before, as in CI;
/// else with one that builds faster. Built once for all tests.
fn built(program: Program) -> &'static Made {
    static AGENT: OnceLock<Made> = OnceLock::new();
    static AGGREGATOR: OnceLock<Made> = OnceLock::new();
    let made = match program {
        Program::Agent => &AGENT,
        Program::Aggregator => &AGGREGATOR,
    };
    let of_images = workspace::target().join("image").join(format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    let profile = if of_images.join("release").join(program.name()).is_file() { "release" } else { "dev" };
    made.get_or_init(|| make(program, profile, present_sources()).unwrap())
}

/// The sources that `built` uses. Read from git once, because a later commit is not what was built.
fn present_sources() -> &'static Sources {
    static SOURCES: OnceLock<Sources> = OnceLock::new();
    SOURCES.get_or_init(|| history::sources().unwrap())
}

/// The image's layers, unpacked over each other as an engine does. `None`, with a message, if the root directory cannot
/// be changed.
fn unpacked(program: Program) -> Option<tempfile::TempDir> {
    if !workspace::is_root() {
        eprintln!("SKIPPED: changing the root directory needs root");
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    for layer in Read::of(built(program)).layers {
        let mut archive = tar::Archive::new(layer.as_slice());
        archive.set_preserve_permissions(true);
        archive.unpack(root.path()).unwrap();
    }
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    Some(root)
}

/// Runs the image's program with only the image and the machine's /proc and /sys.
///
/// In a mount namespace of its own, which ends with the program.
fn run(root: &Path, program: Program, words: &[&str]) -> Output {
    const SCRIPT: &str = r#"set -e
        mkdir -p "$0/proc" "$0/sys"
        mount --rbind /proc "$0/proc"
        mount --rbind /sys "$0/sys"
        if [ -n "$DEVICES" ]; then mkdir -p "$0/dev"; touch "$0/dev/null"; mount --bind /dev/null "$0/dev/null"; fi
        exec chroot --userspec="$1" "$0" "${@:2}""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-c", SCRIPT]).arg(root).args([program.user(), &program.entrypoint()]);
    // Every container has it; the aggregator does not need it.
    let devices = if program == Program::Agent { "null" } else { "" };
    // Only what the image and Kubernetes would set.
    let path = std::env::var_os("PATH").unwrap_or_default();
    command
        .args(words)
        .env_clear()
        .env("PATH", path)
        .env("DEVICES", devices)
        .env("KUBECONFIG", "/kubeconfig")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_agent_runs_with_the_images_loader_alone_and_reads_this_kernel_by_its_probes() {
    let Some(root) = unpacked(Program::Agent) else { return };
    let version = stdout(&run(root.path(), Program::Agent, &["--version"]));
    assert!(version.trim().ends_with(", probes embedded)"), "{version}");
    let output = run(root.path(), Program::Agent, &["--once", "--node-name", "n1"]);
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["node"], "n1");
    assert!(report["machine"]["cpusOnline"].as_u64().unwrap() > 0, "{report}");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!log.contains("no probes"), "{log}");
    if report["cgroups"]["source"] != "bpf" {
        eprintln!("SKIPPED: this machine does not let probes be loaded: {log}");
    }
}

#[test]
fn the_agent_finds_the_drivers_library_where_the_container_runtime_puts_it() {
    let Some(root) = unpacked(Program::Agent) else { return };
    let libc = files(&Read::of(built(Program::Agent)).layers[0]).into_keys().find(|path| path.ends_with("/libc.so.6"));
    let library = Installation::built_for_this_test().unwrap();
    let scenario = Scenario::of(2, "H100 80GB HBM3");
    // The loader looks beside libc; the agent knows the other folders itself.
    for folder in [libc.unwrap().trim_end_matches("libc.so.6"), "usr/lib64", "usr/local/nvidia/lib64"] {
        let folder = root.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        Installation::new(&library, &folder, &scenario).unwrap();
        let output = run(root.path(), Program::Agent, &["--once", "--cgroup-source", "files"]);
        let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        let (gpus, log) = (&report["gpus"], String::from_utf8_lossy(&output.stderr));
        let found = (gpus["devices"].as_array().map(Vec::len), &gpus["fake"]);
        assert_eq!(found, (Some(2), &true.into()), "{folder:?}: {log}");
        std::fs::remove_file(folder.join("libnvidia-ml.so.1")).unwrap();
    }
}

/// A minimal complete cluster: a dump that lacks a kind is reported as partial, with another exit status. The
/// aggregator's tests check the metrics.
const DUMP: &str = r#"{"kind": "List", "apiVersion": "v1", "items": [
    {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1", "uid": "u1"},
        "status": {"capacity": {"cpu": "4"}, "allocatable": {"cpu": "3"}}},
    {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p1", "namespace": "default", "uid": "u2"},
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {"phase": "Running"}},
    {"kind": "AppWrapper", "apiVersion": "workload.codeflare.dev/v1beta2", "metadata": {"name": "a1", "namespace": "default", "uid": "u3"},
        "spec": {"components": []}, "status": {"phase": "Suspended"}}]}"#;

#[test]
fn the_aggregator_runs_with_nothing_but_itself_as_nobody() {
    let Some(root) = unpacked(Program::Aggregator) else { return };
    let version = stdout(&run(root.path(), Program::Aggregator, &["--version"]));
    let sources = present_sources();
    assert_eq!(version, format!("mcad-aggregator {} ({})\n", sources.version, sources.revision));
    std::fs::write(root.path().join("dump.json"), DUMP).unwrap();
    let words = ["--cluster", "file:/dump.json", "--print-metrics"];
    let metrics = stdout(&run(root.path(), Program::Aggregator, &words));
    assert!(metrics.contains("mcad_allocatable_capacity_cpu 2000\n"), "{metrics}");
    let build = format!("mcad_build_info{{revision=\"{}\",version=\"{}\"}} 1", sources.revision, sources.version);
    assert!(metrics.contains(&build), "{metrics}");
    let help = stdout(&run(root.path(), Program::Aggregator, &["--help"]));
    for port in Program::Aggregator.ports() {
        assert!(help.contains(&format!("[default: 127.0.0.1:{port}]")), "{port}");
    }
}

/// A CA certificate in base64: without one, the client requires the system's, which the image does not have. In a pod
/// the ServiceAccount provides it.
const AUTHORITY: &str = "\
    LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJrVENDQVRlZ0F3SUJBZ0lVS0ZGRWVUQ0tQbVduVU5mNFkzRDRCei9pOGJBd0NnWUlLb1\
    pJemowRUF3SXcKSFRFYk1Ca0dBMVVFQXd3U2JtOWliMlI1SjNNZ1lYVjBhRzl5YVhSNU1DQVhEVEkyTVRFeU1qSXpNakV3TUZvWQpEekl4TWpZ\
    eE1ESTVNak15TVRBd1dqQWRNUnN3R1FZRFZRUUREQkp1YjJKdlpIa25jeUJoZFhSb2IzSnBkSGt3CldUQVRCZ2NxaGtqT1BRSUJCZ2dxaGtqT1\
    BRTUJCd05DQUFSYU1BWnp3ak4yaTRISzdWMXVQbnltellqem1maUcKUmlaUXhJd0w1am9XUDc0TzE3MGZxQlZqQ3lmTEVJU2t6WXFEZ1lPdUt6\
    bmlkMk1oZFBNTnAvMTZvMU13VVRBZApCZ05WSFE0RUZnUVVkNU82QVBGcm5IdzVSK2QzUnpXMnR5dVNBdTh3SHdZRFZSMGpCQmd3Rm9BVWQ1Tz\
    ZBUEZyCm5IdzVSK2QzUnpXMnR5dVNBdTh3RHdZRFZSMFRBUUgvQkFVd0F3RUIvekFLQmdncWhrak9QUVFEQWdOSUFEQkYKQWlBM0NMZC9Dc2RI\
    NFJ5WHMyY29qbktiT2pSNTcvSFFyeGFIc1E5S29sTFRhZ0loQUliRTZTZ3BlelRQWXRCdwprVkdZU2N6bTRWR29iL1VVazcwV3NRNmY1N000Ci\
    0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K";

#[test]
fn names_are_looked_up_in_a_static_program_too() {
    let Some(root) = unpacked(Program::Aggregator) else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::fs::write(root.path().join("etc/hosts"), "127.0.0.1 apiserver.example\n").unwrap();
    let kubeconfig = format!(
        r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{{"name": "c", "cluster": {{"server": "http://apiserver.example:{port}",
                "certificate-authority-data": "{AUTHORITY}"}}}}],
            "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}],
            "users": [{{"name": "u", "user": {{}}}}]}}"#
    );
    std::fs::write(root.path().join("kubeconfig"), kubeconfig).unwrap();
    // Nothing responds, so it fails; but it has connected, and the connection can be accepted.
    let output = run(root.path(), Program::Aggregator, &["explain", "--wait", "1"]);
    assert!(!output.status.success());
    listener.set_nonblocking(true).unwrap();
    let called = listener.accept();
    assert!(called.is_ok(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn programs_name_no_folder_of_this_machine() {
    for program in BOTH {
        let path = program.path();
        let binary = &files(&Read::of(built(program)).layers[1])[&path];
        let root = workspace::root().to_string_lossy().into_owned();
        let found = binary.windows(root.len()).position(|bytes| bytes == root.as_bytes());
        assert_eq!(found, None, "{path} names {root}");
    }
}

#[test]
fn the_component_of_digests_gets_those_of_what_was_built_and_keeps_the_others() {
    let template = std::fs::read_to_string(workspace::root().join(DIGESTS).join("kustomization.yaml")).unwrap();
    let [agent, aggregator] = ["a", "b"].map(|digit| format!("sha256:{}", digit.repeat(64)));
    let one = with_digest(&template, Program::Agent.repository(), &agent).unwrap();
    let both = with_digest(&one, Program::Aggregator.repository(), &aggregator).unwrap();
    let digests = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.trim().strip_prefix("digest: ").map(str::to_owned)).collect()
    };
    let none = format!("sha256:{}", "0".repeat(64));
    assert_eq!(digests(&template), [none.clone(), none.clone()]);
    assert_eq!(digests(&one), [agent.clone(), none]);
    assert_eq!(digests(&both), [agent, aggregator]);
    assert_eq!(both.lines().count(), template.lines().count());
    assert!(with_digest(&template, "docker.io/another", "sha256:0").is_err());
}
