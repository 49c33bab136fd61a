//! Every example of README.md, docs, deploy/README.md and of both programs' `--help` runs here as it is written: in a shell, in a
//! folder and a network of its own, against a real API server. What serves is asked to end once the paragraph's other lines are
//! through, and must end in good order.
//!
//! Of `cargo run … --bin X -- …` the debug build of X runs. What can't run in a test is in [`NOT_RUN`], and printed.
#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::apiserver::ApiServer;
use crate::support::objects::{
    WORKLOAD, appwrapper, appwrappers, appwrappers_in, create, define, make_namespace, make_ready_node, node, nodes,
    pod, pods,
};
use crate::support::wait::PATIENCE;
use clap::{CommandFactory as _, Parser as _};
use kube::api::{Patch, PatchParams};
use mcad_aggregator::args::plugin::PluginArgs;
use rustix::thread::UnshareFlags;
use tempfile::TempDir;

/// How a command begins that can't run in a test, and why not.
const NOT_RUN: [(&str, &str); 5] = [
    (
        "cargo xtask ",
        "takes minutes; CI runs run, test, image and e2e themselves, and that each is a verb is a test of xtask's",
    ),
    ("kubectl apply -k ", "needs nodes and images; `cargo xtask e2e` applies the base to a real node"),
    ("kubectl delete -k ", "needs nodes and images; `cargo xtask e2e` deletes it there again"),
    ("ctr ", "needs a container runtime; `cargo xtask e2e` imports both archives"),
    ("mcad-agent --aggregator https://", "its names and files are a pod's; `cargo xtask e2e` runs it in one"),
];

/// A document or a program's help.
struct Text {
    name: String,
    /// Its examples: lines that stand together, and are run together.
    paragraphs: Vec<Vec<String>>,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// What stands in fences of console after `$ `.
fn document(path: &Path) -> Text {
    let text = fs::read_to_string(path).unwrap().replace("\\\n", " ");
    let fences = text.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let commands = |fence: &str| fence.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect();
    Text {
        name: path.strip_prefix(repository()).unwrap().display().to_string(),
        paragraphs: fences.map(commands).collect(),
    }
}

/// What stands four columns in, after what it is for.
fn help(command: &clap::Command) -> Text {
    // The examples of `-h` are among those of `--help`, where there are both.
    let of = |command: &clap::Command| {
        command.get_after_long_help().or_else(|| command.get_after_help()).map(ToString::to_string)
    };
    let all: Vec<_> = of(command).into_iter().chain(command.get_subcommands().filter_map(of)).collect();
    let text = all.join("\n\n").replace("\\\n", " ");
    let commands =
        |lines: &str| lines.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned).collect();
    let paragraphs = text.split("\n\n").map(commands).filter(|commands: &Vec<_>| !commands.is_empty()).collect();
    Text { name: format!("{} --help", command.get_name()), paragraphs }
}

fn texts() -> Vec<Text> {
    let docs = fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    paths.extend(["README.md", "deploy/README.md"].map(|path| repository().join(path)));
    paths.sort();
    let documents = paths.iter().map(|path| document(path)).filter(|text| !text.paragraphs.is_empty());
    let commands = [mcad_agent::args::Args::command(), mcad_aggregator::args::Args::command(), PluginArgs::command()];
    documents.chain(commands.iter().map(help)).collect()
}

/// The command with our programs by their names alone.
fn as_run(command: &str) -> String {
    let mut command = command.to_owned();
    for program in ["mcad-agent", "mcad-aggregator", "kubectl-mcad"] {
        command = command.replace(&format!("cargo run --profile quick --bin {program} -- "), &format!("{program} "));
    }
    command
}

/// Whether it goes on until it is asked to end.
fn serves(command: &str) -> bool {
    let words = command.rsplit(" | ").next().unwrap().split_whitespace().take_while(|word| !["#", ">"].contains(word));
    let words: Vec<_> = words.collect();
    match words.first() {
        Some(&"mcad-agent") => {
            mcad_agent::args::Args::try_parse_from(&words).is_ok_and(|args| args.command.is_none() && !args.once)
        }
        Some(&"mcad-aggregator") => mcad_aggregator::args::Args::try_parse_from(&words)
            .is_ok_and(|args| args.command.is_none() && !args.metrics.print_metrics),
        _ => false,
    }
}

/// Where examples run: a folder with the programs, and what a user would have.
struct Place {
    folder: TempDir,
    kubeconfig: Option<PathBuf>,
}

impl Place {
    fn new(agent: &Path, server: Option<&ApiServer>) -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_mcad-aggregator"), at("bin/mcad-aggregator")).unwrap();
        symlink(env!("CARGO_BIN_EXE_kubectl-mcad"), at("bin/kubectl-mcad")).unwrap();
        symlink(agent, at("bin/mcad-agent")).unwrap();
        for name in ["aggregator", "deploy"] {
            symlink(repository().join(name), at(name)).unwrap();
        }
        let scene = repository().join("aggregator/tests/scene");
        let reports = fs::read_to_string(scene.join("reports.json")).unwrap();
        // A report of a node that the cluster does not have is an error of its own.
        let is_known = |line: &&str| server.is_none() || line.contains("\"node\":\"gpu-18\"");
        let reports: String = reports.lines().filter(is_known).flat_map(|line| [line, "\n"]).collect();
        assert!(!reports.is_empty());
        fs::write(at("reports.json"), reports).unwrap();
        let template =
            serde_json::json!({"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "1"}}}]}});
        let job = serde_json::json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "train"}, "spec": {"parallelism": 1, "template": template},
        });
        fs::write(at("job.yaml"), job.to_string()).unwrap();
        // `agg` stands for the reader's own aggregator: here it is this one.
        fs::write(at(".curlrc"), "connect-to = \"agg:10910:127.0.0.1:10910\"\n").unwrap();
        if server.is_none() || !is_there("kubectl") {
            // Its questions, answered with the cluster of the README's picture.
            let script = format!(
                "#!/bin/sh\ncase \"$*\" in\n\
                 'get nodes,pods -A -o json') exec cat {} ;;\n\
                 'mcad'*) shift; exec kubectl-mcad \"$@\" ;;\n\
                 'get appwrappers.'*' -A -o json') echo '{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": []}}' ;;\n\
                 *) exit 1 ;;\nesac\n",
                scene.join("cluster.yaml").display()
            );
            fs::write(at("bin/kubectl"), script).unwrap();
            fs::set_permissions(at("bin/kubectl"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        if server.is_none() {
            // What `mcad-aggregator dump` would have written.
            fs::copy(scene.join("cluster.yaml"), at("dump.json")).unwrap();
        }
        let kubeconfig = server.map(|server| with_another_context(&server.kubeconfig(), &at("kubeconfig")));
        Self { folder, kubeconfig }
    }

    fn shell(&self, line: &str) -> Command {
        let path = format!("{}/bin:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["-c", line]).current_dir(self.folder.path()).env("PATH", path).env("HOME", self.folder.path());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("MCAD_") || ["RUST_LOG", "NODE_NAME", "POD_IP", "KUBECONFIG"].contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        command.envs(self.kubeconfig.as_ref().map(|path| ("KUBECONFIG", path))).stdin(Stdio::null());
        command
    }

    /// Runs it to its end; what it said if that is not success.
    fn run(&self, line: &str) -> Result<(), String> {
        // A person's shell would not stop at a broken pipe's first command, and would show its error; here it has to fail.
        let line = format!("set -euo pipefail; {line}");
        let mut bounded = Command::new("timeout");
        let shell = self.shell(&line);
        bounded.arg(PATIENCE.as_secs().to_string()).arg(shell.get_program()).args(shell.get_args());
        for (name, value) in shell.get_envs() {
            match value {
                Some(value) => bounded.env(name, value),
                None => bounded.env_remove(name),
            };
        }
        let output = bounded.current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(2000).collect::<String>();
        let failed = || format!("{}: {}{}", output.status, said(&output.stdout), said(&output.stderr));
        if output.status.success() { Ok(()) } else { Err(failed()) }
    }

    /// Starts what serves, and waits until it says that it does.
    fn serve(&self, line: &str) -> Result<Serving, String> {
        let said = self.folder.path().join("said");
        let log = fs::File::create(&said).unwrap();
        let mut command = self.shell(&format!("exec {line}"));
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut serving = Serving(child);
        let began = Instant::now();
        loop {
            let text = fs::read_to_string(&said).unwrap();
            if ["listening metrics=", "reports arrive", "an exporter of this node, without an aggregator"]
                .iter()
                .any(|word| text.contains(word))
            {
                return Ok(serving);
            }
            if let Some(status) = serving.0.try_wait().unwrap() {
                return Err(format!("{status}: {text}"));
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("after {PATIENCE:?} it does not say that it serves: {text}"));
            }
            std::thread::yield_now();
        }
    }

    /// One after the other; what serves is asked to end when all are through.
    fn paragraph(&self, lines: &[&String]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut serving = Vec::new();
        // What these speak to is told elsewhere.
        if lines
            .iter()
            .any(|line| line.contains("//agg:10910/") || line.contains("--aggregator http://127.0.0.1:10911"))
        {
            serving.push((
                "beside: mcad-aggregator --cluster local".to_owned(),
                self.serve("mcad-aggregator --cluster local"),
            ));
        }
        for line in lines {
            let command = as_run(line);
            if serves(&command) {
                serving.push(((*line).clone(), self.serve(&command)));
            } else if let Err(error) = self.run(&command) {
                wrong.push(format!("{line}\n  {error}"));
            }
        }
        // The last first, as who reports does so to the end.
        for (line, served) in serving.into_iter().rev() {
            if let Err(error) = served.and_then(Serving::end) {
                wrong.push(format!("{line}\n  {error}"));
            }
        }
        wrong
    }
}

/// The kubeconfig with one more context, which examples name. Its namespace is that of an AppWrapper that they ask for.
fn with_another_context(kubeconfig: &Path, to: &Path) -> PathBuf {
    let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(kubeconfig).unwrap()).unwrap();
    let mut context = config["contexts"][0].clone();
    context["name"] = "gpu-cluster".into();
    context["context"]["namespace"] = "team-nlp".into();
    config["contexts"].as_array_mut().unwrap().push(context);
    fs::write(to, config.to_string()).unwrap();
    to.to_owned()
}

/// A process that serves; killed if it was not asked to end.
struct Serving(Child);

impl Serving {
    fn end(mut self) -> Result<(), String> {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
        let status = self.0.wait().unwrap();
        if status.success() { Ok(()) } else { Err(format!("asked to end, it did so with {status}")) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_there(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|folder| folder.join(program).is_file())
}

/// The agent of these sources; said aloud where there is none.
fn agent() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_mcad-aggregator")).with_file_name("mcad-agent");
    let examples = mcad_agent::args::Args::command().get_after_long_help().unwrap().to_string();
    let said = Command::new(&path).arg("--help").output().ok().map(|output| String::from_utf8(output.stdout).unwrap());
    // Its prose is broken anew where it is printed.
    let mut examples = examples.lines().filter(|line| line.starts_with("    "));
    if said.is_some_and(|said| examples.all(|line| said.contains(line))) {
        return Some(path);
    }
    eprintln!("SKIPPED: no mcad-agent of these sources beside mcad-aggregator: cargo build -p mcad-agent");
    None
}

/// This thread's and its children's network: loopback alone, all of whose ports are free.
fn own_network() -> bool {
    // SAFETY: only the network namespace of this thread changes; no file descriptor and no memory is unshared.
    let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
    let is_up = || Command::new("ip").args(["link", "set", "lo", "up"]).status().is_ok_and(|status| status.success());
    if unshared.is_ok() && is_up() {
        return true;
    }
    eprintln!("SKIPPED: no network namespace can be made here (root, and Debian's iproute2)");
    false
}

#[tokio::test]
async fn every_example_runs_as_it_is_written() {
    if let Some(missing) = ["jq", "curl", "ip", "timeout"].into_iter().find(|program| !is_there(program)) {
        eprintln!("SKIPPED: no {missing} on the path (cargo xtask test brings it)");
        return;
    }
    let Some(agent) = agent() else { return };
    if !own_network() {
        return;
    }
    // Without one it says that it is skipped; what needs none runs all the same.
    let server = ApiServer::start().await;
    if let Some(server) = &server {
        let client = server.client();
        define(&client).await;
        create(&nodes(&client), node("gpu-17")).await;
        // Five copies of the Job fit there.
        make_ready_node(&client, "gpu-18").await;
        let amounts = serde_json::json!({"cpu": "8", "pods": "110"});
        let sized = Patch::Merge(serde_json::json!({"status": {"capacity": amounts, "allocatable": amounts}}));
        nodes(&client).patch_status("gpu-18", &PatchParams::default(), &sized).await.unwrap();
        create(&pods(&client), pod("runs", "gpu-17", &serde_json::json!({}))).await;
        create(&appwrappers(&client, WORKLOAD, "v1beta2"), appwrapper("waits")).await;
        // Of the names that the cluster of the picture has.
        for (namespace, name) in [("team-vision", "vit-huge"), ("team-nlp", "tune")] {
            make_namespace(&client, namespace).await;
            create(&appwrappers_in(&client, namespace, WORKLOAD, "v1beta2"), appwrapper(name)).await;
        }
    }
    let place = Place::new(&agent, server.as_ref());
    let (mut ran, mut wrong) = (0, Vec::new());
    for text in texts() {
        for paragraph in &text.paragraphs {
            let why_not = |line: &&String| NOT_RUN.iter().find(|(start, _)| line.starts_with(start));
            for line in paragraph {
                if let Some((_, why)) = why_not(&line) {
                    println!("not run, of {}: {line}: {why}", text.name);
                }
            }
            let lines: Vec<_> = paragraph.iter().filter(|line| why_not(line).is_none()).collect();
            let lines: Vec<_> = lines.into_iter().filter(|line| server.is_some() || !needs_a_cluster(line)).collect();
            ran += lines.len();
            wrong.extend(place.paragraph(&lines).into_iter().map(|error| format!("{}: {error}", text.name)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let least = if server.is_some() { 36 } else { 20 };
    assert!(ran >= least, "only {ran} examples were found");
    println!("{ran} examples ran");
}

/// Whether an API server is asked: that is the default.
fn needs_a_cluster(line: &str) -> bool {
    let command = as_run(line);
    command.starts_with("mcad-aggregator dump")
        || ["mcad-aggregator", "kubectl mcad"].iter().any(|program| command.starts_with(program))
            && !command.contains("file:")
            && !command.contains("local")
            && !command.contains("--help")
}

#[test]
fn every_reason_not_to_run_has_its_example() {
    let all: Vec<_> = texts().into_iter().flat_map(|text| text.paragraphs).flatten().collect();
    for (start, _) in NOT_RUN {
        assert!(all.iter().any(|line| line.starts_with(start)), "no example begins with {start:?} any more");
    }
}
