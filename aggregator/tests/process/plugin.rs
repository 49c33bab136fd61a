//! `kubectl mcad` as a process: tables and reasons of dumps, against golden texts; of a real API server, by contexts of kubeconfigs.
#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::aggregator::{command, plugin};
use crate::support::apiserver::ApiServer;
use crate::support::objects::{
    MCAD, WORKLOAD, appwrapper, appwrappers_in, create, define, make_namespace, make_ready_node, mcad_appwrapper, node,
    nodes,
};
use mcad_testkit::golden::check_file;
use serde_json::{Value, json};
use tempfile::TempDir;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// What a command ends with, prints, and says on standard error.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn ran(mut command: Command) -> Ran {
    // Files are named as they are from here, so that no text has a folder of this machine.
    let output = command.current_dir(tests()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The plugin, with these words.
fn run(words: &[&str]) -> Ran {
    ran(plugin(words))
}

/// The same in a terminal of so many columns.
fn run_in(columns: usize, words: &[&str]) -> Ran {
    let mut command = plugin(words);
    command.env("COLUMNS", columns.to_string());
    ran(command)
}

/// The cluster of the README's picture.
const SCENE: [&str; 4] = ["--cluster", "file:scene/cluster.yaml", "--reports", "scene/reports.json"];

fn of_scene(words: &[&str]) -> Vec<&'static str> {
    words.iter().map(|word| &*word.to_string().leak()).chain(SCENE).collect()
}

#[track_caller]
fn check(ran: &Ran, code: i32, golden: &str) {
    assert_eq!(ran.code, Some(code), "{}{}", ran.out, ran.err);
    check_file(&tests().join("plugin").join(golden), &ran.out);
}

/// A dump of these objects in a file of its own.
fn dumped(objects: &[Value]) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("dump.json");
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).unwrap();
    let cluster = format!("file:{}", file.display());
    (folder, cluster)
}

fn ready_node(name: &str, capacity: &Value) -> Value {
    let mut ready = node(name);
    ready["status"] = json!({"capacity": capacity, "conditions": [{"type": "Ready", "status": "True"}]});
    ready
}

fn no_pods() -> Value {
    json!({"apiVersion": "v1", "kind": "PodList", "items": []})
}

#[test]
fn nodes_and_gpus_of_the_picture_are_tables_that_fit_a_terminal() {
    for (words, golden) in [(["nodes"], "nodes"), (["gpus"], "gpus")] {
        let whole = run(&of_scene(&words));
        assert_eq!(whole.err, "");
        check(&whole, 0, &format!("{golden}.txt"));
        for width in [80, 100] {
            let fitted = run_in(width, &of_scene(&words));
            assert!(fitted.out.lines().all(|line| line.chars().count() <= width), "{}", fitted.out);
        }
        check(&run_in(80, &of_scene(&words)), 0, &format!("{golden}-80.txt"));
    }
    let one = run(&of_scene(&["gpus", "--node", "gpu-13"]));
    assert!(one.out.contains("\ngpu-13 ") && !one.out.contains("gpu-14"), "{}", one.out);
}

#[test]
fn without_a_verb_it_says_what_explain_says() {
    for words in [&[][..], &["--node", "gpu-13"]] {
        let (ours, theirs) = (run(&of_scene(words)), ran(command(&[&["explain"], words, &SCENE].concat())));
        assert_eq!((ours.code, ours.out, ours.err), (theirs.code, theirs.out, theirs.err));
    }
    let (ours, theirs) =
        (run(&of_scene(&["-o", "json"])), ran(command(&[&["explain", "--json"], &SCENE[..]].concat())));
    let answer = |ran: &Ran| {
        let mut answer: Value = serde_json::from_str(&ran.out).unwrap();
        answer["snapshot_age_seconds"].take();
        answer
    };
    assert_eq!(answer(&ours), answer(&theirs));
}

#[test]
fn why_says_what_explain_says_of_this_one() {
    check(&run(&of_scene(&["why", "-n", "team-vision", "vit-huge"])), 0, "why-waits.txt");
    check(&run(&of_scene(&["why", "team-vision/vit-large"])), 0, "why-runs.txt");
    let in_part = ["why", "train", "--cluster", "file:field/admitted-not-placed/input.yaml"];
    check(&run(&in_part), 0, "why-in-part.txt");
    let explained: Value = serde_json::from_str(&run(&of_scene(&["-o", "json"])).out).unwrap();
    for of_explain in explained["appwrappers"].as_array().unwrap() {
        let name = format!("{}/{}", of_explain["namespace"].as_str().unwrap(), of_explain["name"].as_str().unwrap());
        let answer: Value = serde_json::from_str(&run(&of_scene(&["why", "-o", "json", &name])).out).unwrap();
        assert_eq!(answer["appwrapper"], *of_explain);
        let text = run(&of_scene(&["why", &name])).out;
        match of_explain["waiting"]["why"].as_str() {
            Some(why) => assert!(text.contains(&format!("\nWhy       {why}\n")), "{text}"),
            None => assert!(text.contains(&format!("{name} does not wait: its state is ")), "{text}"),
        }
    }
}

#[test]
fn a_name_that_is_not_there_is_an_error_that_says_what_to_do() {
    let refusal = |words: &[&str]| {
        let ran = run(&of_scene(&[&["why"], words].concat()));
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
        ran.err
    };
    let check = |words: &[&str], expected: &str| assert_eq!(refusal(words), format!("Error: {expected}\n"));
    check(&["nope"], "no AppWrapper named nope in any namespace. `kubectl mcad` lists those that wait");
    check(
        &["-n", "team-nlp", "fold"],
        "no AppWrapper named fold in namespace team-nlp. There is one in team-bio: add -n team-bio",
    );
    check(&["team-bio/nope"], "no AppWrapper named nope in namespace team-bio. There are fold");
    let elsewhere = refusal(&["-n", "nowhere", "nope"]);
    assert!(
        elsewhere.starts_with("Error: namespace nowhere has no AppWrappers. Choose another with -n: "),
        "{elsewhere}"
    );
    assert_eq!(
        refusal(&["a\u{9b}b"]),
        "Error: no AppWrapper named a\\u{9b}b in any namespace. `kubectl mcad` lists those that wait\n"
    );
    let ran = run(&["nodes", "--node", "nope", "--cluster", "file:scene/cluster.yaml"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(1), "", "Error: no node named nope\n"));
    let local = run(&["why", "w", "--cluster", "local", "--reports", "scene/reports.json"]);
    assert_eq!(
        (local.code, local.err.as_str()),
        (Some(1), "Error: there are no AppWrappers without Kubernetes (--cluster local)\n")
    );
}

#[test]
fn of_several_with_one_name_a_namespace_chooses() {
    let of = |namespace: &str| {
        let mut object = appwrapper("same");
        object["metadata"]["namespace"] = namespace.into();
        object
    };
    let (_folder, cluster) = dumped(&[ready_node("n", &json!({"cpu": 4})), no_pods(), of("a"), of("b")]);
    let ran = run(&["why", "same", "--cluster", &cluster]);
    let error = "Error: AppWrappers are called same in the namespaces a and b. Choose one with -n\n";
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), error));
    let ran = run(&["why", "same", "-n", "b", "--cluster", &cluster]);
    assert!(
        ran.code == Some(0) && ran.out.starts_with("AppWrapper b/same waits. Since when is unknown.\n"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("\nState     none: no controller has set one\n"), "{}", ran.out);
}

#[test]
fn json_is_that_of_the_api() {
    let explained: Value = serde_json::from_str(&run(&of_scene(&["-o", "json"])).out).unwrap();
    let nodes: Value = serde_json::from_str(&run(&of_scene(&["nodes", "-o", "json"])).out).unwrap();
    assert_eq!(nodes["nodes"], explained["nodes"]);
    assert_eq!(nodes.get("continue"), None);
    let gpus: Value = serde_json::from_str(&run(&of_scene(&["gpus", "-o", "json"])).out).unwrap();
    let with_gpus = |node: &&Value| node["ladder"].get("devices").is_some();
    let expected: Vec<_> = explained["nodes"].as_array().unwrap().iter().filter(with_gpus).collect();
    assert_eq!(gpus["nodes"].as_array().unwrap().iter().collect::<Vec<_>>(), expected);
    assert!(expected.len() < explained["nodes"].as_array().unwrap().len());
}

#[test]
fn what_is_missing_is_unknown_and_said_and_fails() {
    let dump = "file:field/nodes-without-rights-on-pods/input.yaml";
    let ran = run(&["nodes", "--cluster", dump]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("Missing: no Pods in the dump"), "{}", ran.err);
    let of_node: Vec<_> = ran.out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(of_node, ["n1", "admissible", "8", "8", "8", "unknown", "unknown", "unknown", "unknown", "unknown"]);
    let ran = run(&["gpus", "--cluster", dump]);
    let of_node: Vec<_> = ran.out.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!(of_node, [&["n1", "8", "8"][..], &["unknown"; 6]].concat());
    let ran = run(&["nodes", "--cluster", "file:field/pods-only/input.yaml"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(
        ran.err.ends_with("Error: Nodes are not known: not listed yet, the API server cannot be reached, or they are not in the dump\n"),
        "{}",
        ran.err
    );
    let ran = run(&["why", "w", "--cluster", "file:field/pods-only/input.yaml"]);
    assert!(
        ran.err.ends_with("Error: AppWrappers are not known: they could not be listed, or are not in the dump\n"),
        "{}",
        ran.err
    );
}

#[test]
fn a_cluster_without_gpus_has_no_columns_for_them() {
    let (_folder, cluster) = dumped(&[ready_node("n", &json!({"cpu": 4, "memory": "16Gi"})), no_pods()]);
    let nodes = run(&["nodes", "--cluster", &cluster]).out;
    let expected = "NODE  STATE       CPU-FREE  MEM-FREE  AGENT\nn     admissible         4        16  unknown\n\n\
                    CPU is in cores, memory in GiB.\n";
    assert!(nodes.starts_with(expected), "{nodes}");
    let gpus = run(&["gpus", "--cluster", &cluster]).out;
    assert!(gpus.starts_with("No node has a GPU or another accelerator. "), "{gpus}");
    let (_folder, cluster) = dumped(&[ready_node("n", &json!({"example.com/npu": 2})), no_pods()]);
    let with_flag = run(&["gpus", "--accelerator", "example.com/npu", "--cluster", &cluster]).out;
    assert!(with_flag.starts_with("example.com/npu\nNODE ") && with_flag.contains("\nn             2 "), "{with_flag}");
}

#[test]
fn gpus_of_slices_and_claims_are_in_the_tables() {
    let ran = run(&["gpus", "--cluster", "file:cases/dra-3.yaml"]);
    // Contradictions in the objects are reported on standard error.
    assert!(ran.err.contains("device pool"), "{}", ran.err);
    check(&ran, 0, "gpus-dra.txt");
    check(&run(&["nodes", "--cluster", "file:cases/dra-6.yaml", "--reports", "cases/dra-6.jsonl"]), 0, "nodes-dra.txt");
}

#[test]
fn gpus_that_are_simulated_are_called_so() {
    let reports = std::fs::read_to_string(tests().join("scene/reports.json")).unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("reports.json");
    std::fs::write(&file, reports.replace("\"gpus\":{", "\"gpus\":{\"fake\":true,")).unwrap();
    for verb in ["nodes", "gpus"] {
        let ran = run(&[verb, "--node", "gpu-13", "--cluster", SCENE[1], "--reports", file.to_str().unwrap()]);
        assert!(ran.out.ends_with("\nFAKE: the GPUs of gpu-13 are simulated.\n"), "{}{}", ran.out, ran.err);
        assert!(!run(&of_scene(&[verb])).out.contains("FAKE"));
    }
    let of_file = ["--cluster", SCENE[1], "--reports", file.to_str().unwrap()];
    for words in [&["--node", "gpu-13"][..], &["why", "team-vision/vit-huge"]] {
        let ran = run(&[words, &of_file].concat());
        assert!(ran.out.contains("\nFAKE: the GPUs of gpu-1"), "{}{}", ran.out, ran.err);
    }
    let ran = run(&of_file);
    assert!(ran.out.contains("FAKE: the GPUs of "), "{}{}", ran.out, ran.err);
}

#[test]
fn without_kubernetes_there_is_what_agents_measured_and_no_ladder() {
    let nodes = run(&["nodes", "--cluster", "local", "--reports", "scene/reports.json"]);
    assert_eq!(nodes.code, Some(0), "{}", nodes.err);
    assert!(nodes.out.starts_with("NODE    GPUS  HEALTHY  ALLOCATABLE"), "{}", nodes.out);
    let line = nodes.out.lines().find(|line| line.starts_with("gpu-13")).unwrap();
    let expected = ["gpu-13", "8", "7", "-", "-", "-", "-", "-", "up"];
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), expected);
}

#[test]
fn a_report_that_does_not_count_is_named_and_fails() {
    let reports = std::fs::read_to_string(tests().join("scene/reports.json")).unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("reports.json");
    let of = |text: &str| {
        std::fs::write(&file, text).unwrap();
        run(&["nodes", "--cluster", SCENE[1], "--reports", file.to_str().unwrap()])
    };
    let one = reports.lines().find(|line| line.contains("\"gpu-13\"")).unwrap();
    let whole = of(one);
    assert_eq!((whole.code, whole.err.as_str()), (Some(0), ""));
    let twice = of(&format!("{one}\n{one}\n"));
    assert!(twice.code == Some(1) && twice.err.contains("the report of node gpu-13 is ignored: "), "{}", twice.err);
    let elsewhere = of(&one.replace("\"gpu-13\"", "\"gpu-99\""));
    let why = "the report of node gpu-99 is ignored: the dump has no such node";
    assert!(elsewhere.code == Some(1) && elsewhere.err.contains(why), "{}", elsewhere.err);
}

#[test]
fn names_play_no_tricks_and_long_ones_are_whole() {
    let long = format!("gpu-17.{}.example", "rack".repeat(14));
    let hostile = "n\u{1b}[31m\u{202e}m";
    let mut waits = appwrapper("w\u{9b}2J");
    waits["metadata"]["namespace"] = "default".into();
    let capacity = json!({"cpu": 8, "memory": "64Gi", "nvidia.com/gpu": 8});
    let objects = [ready_node(&long, &capacity), ready_node(hostile, &capacity), no_pods(), waits];
    let (_folder, cluster) = dumped(&objects);
    for words in [["nodes", "-otable"], ["gpus", "-otable"], ["why", "w\u{9b}2J"], ["nodes", "-ojson"]] {
        let ran = run_in(80, &[&words[..], &["--cluster", &cluster]].concat());
        let shown = format!("{}{}", ran.out, ran.err);
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n') && !shown.contains('\u{202e}'), "{shown:?}");
        assert!(words[0] == "why" || shown.contains(&long), "{shown}");
        let fits = ran.out.lines().all(|line| line.chars().count() <= 80);
        assert!(words[1] == "-ojson" || fits, "{}", ran.out);
    }
    let nodes = run_in(80, &["nodes", "--cluster", &cluster]).out;
    assert!(nodes.contains(&format!("\n{long}\n      ")), "{nodes}");
    assert!(nodes.contains("n\\u{1b}[31m\\u{202e}m"), "{nodes}");
    // A program that reads gets a line for each node.
    let nodes = run(&["nodes", "--cluster", &cluster]).out;
    assert!(nodes.contains(&format!("\n{long}  admissible ")), "{nodes}");
}

/// A kubeconfig of this server with the contexts `one`, of namespace `a`, which is current, and `two`, of namespace `b`.
fn two_contexts(server: &ApiServer, folder: &TempDir) -> PathBuf {
    let text = std::fs::read_to_string(server.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let context = |name: &str, namespace: &str| json!({"name": name, "context": {"cluster": "test", "user": "test", "namespace": namespace}});
    config["contexts"] = json!([context("one", "a"), context("two", "b")]);
    config["current-context"] = "one".into();
    let path = folder.path().join("two");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_cluster_is_that_of_the_context_and_so_is_the_namespace() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    define(&client).await;
    make_ready_node(&client, "n").await;
    for namespace in ["a", "b"] {
        make_namespace(&client, namespace).await;
        let (of_workload, of_mcad) = (format!("new-{namespace}"), format!("old-{namespace}"));
        create(&appwrappers_in(&client, namespace, WORKLOAD, "v1beta2"), appwrapper(&of_workload)).await;
        create(&appwrappers_in(&client, namespace, MCAD, "v1beta1"), mcad_appwrapper(MCAD, &of_mcad)).await;
    }
    let folder = TempDir::new().unwrap();
    let two = two_contexts(&server, &folder);
    // By $KUBECONFIG, of several files of which the first has no context.
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "apiVersion: v1\nkind: Config\n").unwrap();
    let by_env = |words: &[&str]| {
        let mut command = plugin(words);
        command.env("KUBECONFIG", std::env::join_paths([&empty, &two]).unwrap());
        ran(command)
    };
    let file = two.to_str().unwrap();
    let waits = |ran: &Ran, name: &str| {
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.starts_with(&format!("AppWrapper {name} has been waiting for ")), "{}", ran.out);
        assert!(ran.out.contains("needs "), "{}", ran.out);
    };
    waits(&by_env(&["why", "new-a"]), "a/new-a");
    waits(&by_env(&["why", "old-b", "--context", "two"]), "b/old-b");
    waits(&by_env(&["--context=two", "-n", "a", "why", "old-a"]), "a/old-a");
    waits(&run(&["why", "b/new-b", "--kubeconfig", file]), "b/new-b");
    let not_there = by_env(&["why", "new-b"]);
    let error = "Error: no AppWrapper named new-b in namespace a. There is one in b: add -n b\n";
    // Before it stands a warning that this server's certificate is not verified.
    assert!(not_there.code == Some(1) && not_there.err.ends_with(error), "{}", not_there.err);
    let no_context = run(&["nodes", "--kubeconfig", file, "--context", "three"]);
    let error = "Error: the kubeconfig has no context three. It has one and two\n";
    assert_eq!((no_context.code, no_context.err.as_str()), (Some(1), error));

    let nodes = by_env(&["nodes"]);
    assert!(nodes.code == Some(0) && nodes.out.contains("\nn     admissible "), "{}{}", nodes.out, nodes.err);
    let explained = by_env(&[]);
    let title = "\n4 AppWrappers, 4 waiting; Kueue is not installed\n";
    assert!(explained.out.contains(title) && explained.out.contains("\n  b/old-b "), "{}", explained.out);
    // The same flags with the other program.
    let theirs = ran(command(&["explain", "--kubeconfig", file, "--context", "two"]));
    assert_eq!(theirs.code, Some(0), "{}", theirs.err);
    assert!(theirs.out.contains(title), "{}", theirs.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_starts_it() {
    if Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        eprintln!("SKIPPED: no kubectl on the path");
        return;
    }
    let Some(server) = ApiServer::start().await else { return };
    create(&nodes(&server.client()), node("n")).await;
    let folder = Path::new(env!("CARGO_BIN_EXE_kubectl-mcad")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(folder.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["mcad", "nodes", "--kubeconfig", server.kubeconfig().to_str().unwrap()]).env("PATH", path.unwrap());
    kubectl.env_remove("COLUMNS").env_remove("MCAD_CLUSTER");
    let nodes = ran(kubectl);
    assert!(nodes.code == Some(0) && nodes.out.contains("\nn     not ready "), "{}{}", nodes.out, nodes.err);
    // Without AppWrappers in the API server.
    let why = ran(plugin(&["why", "w", "--kubeconfig", server.kubeconfig().to_str().unwrap()]));
    let error =
        "Error: the API server serves no AppWrappers: neither mcad.ibm.com nor workload.codeflare.dev is installed\n";
    assert!(why.code == Some(1) && why.err.ends_with(error), "{}", why.err);
}

#[test]
fn the_krew_manifest_is_of_this_version_and_names_the_binary() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/krew/mcad.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let manifest: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!((&manifest["kind"], &manifest["metadata"]["name"]), (&json!("Plugin"), &json!("mcad")));
    let (spec, version) = (&manifest["spec"], format!("v{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(spec["version"], version.as_str());
    // krew-index takes no longer ones.
    assert!(spec["shortDescription"].as_str().unwrap().len() <= 50, "{spec}");
    let [platform] = &spec["platforms"].as_array().unwrap()[..] else { panic!("{spec}") };
    assert_eq!(platform["selector"], json!({"matchLabels": {"os": "linux", "arch": "amd64"}}));
    let binary = Path::new(env!("CARGO_BIN_EXE_kubectl-mcad")).file_name().unwrap().to_str().unwrap();
    assert_eq!(platform["bin"], binary);
    assert!(platform["files"].as_array().unwrap().contains(&json!({"from": binary, "to": "."})), "{platform}");
    let uri = platform["uri"].as_str().unwrap();
    assert!(uri.starts_with("https://") && uri.contains(&format!("/{version}/")) && uri.ends_with(".tar.gz"), "{uri}");
    let sum = platform["sha256"].as_str().unwrap();
    let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(sum.len() == 64 && sum.chars().all(is_digit), "{sum}");
    // Either there is a release, or the manifest says that there is none.
    let is_none = sum.chars().all(|c| c == '0');
    assert_eq!(is_none, text.contains("no release has been published"), "{text}");
}
