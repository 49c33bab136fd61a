//! `fit` and `whatif` as processes: what they print of the picture's cluster, against golden texts, and what they end with.
#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mcad_testkit::golden::check_file;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::aggregator::{command, plugin};

const SCENE: [&str; 2] = ["--cluster", "file:scene/cluster.yaml"];
const MANIFEST: &str = "plugin/submissions.yaml";

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// What a command ends with, prints, and says on standard error.
fn ran(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.current_dir(tests()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn of_plugin(words: &[&str]) -> (Option<i32>, String, String) {
    ran(plugin(&[words, &SCENE].concat()))
}

fn pod(gpus: u32) -> Value {
    let container = json!({"name": "main", "resources": {"requests": {"nvidia.com/gpu": gpus.to_string()}}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}})
}

/// A manifest in a file of its own.
fn manifest(text: &str) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("manifest");
    std::fs::write(&file, text).unwrap();
    let name = file.to_str().unwrap().to_owned();
    (folder, name)
}

#[test]
fn objects_of_a_manifest_are_judged_one_after_the_other() {
    let (code, out, err) = of_plugin(&["fit", "-f", MANIFEST]);
    assert_eq!((code, err.as_str()), (Some(1), ""), "{out}");
    check_file(&tests().join("plugin/fit.txt"), &out);
    let (code, same, _) = ran(command(&[&["fit", "-f", MANIFEST][..], &SCENE].concat()));
    assert_eq!((code, same), (Some(1), out));
    let (_, copies, _) = of_plugin(&["fit", "-f", MANIFEST, "--count", "3"]);
    check_file(&tests().join("plugin/fit-3.txt"), &copies);
    let mut narrow = plugin(&[&["fit", "-f", MANIFEST][..], &SCENE].concat());
    narrow.env("COLUMNS", "60");
    let (_, narrow, _) = ran(narrow);
    assert!(
        narrow.lines().filter(|line| !line.starts_with("AppWrapper")).all(|line| line.chars().count() <= 60),
        "{narrow}"
    );
}

#[test]
fn the_exit_status_says_whether_it_fits() {
    let code = |object: &Value, words: &[&str]| {
        let (_folder, file) = manifest(&object.to_string());
        let (code, out, err) = of_plugin(&[&["fit", "-f", &file], words].concat());
        (code, format!("{out}{err}"))
    };
    assert_eq!(code(&pod(1), &[]).0, Some(0));
    let (no, said) = code(&pod(9), &[]);
    assert!(no == Some(1) && said.starts_with("Pod default/p does not fit now.\n\nNodes     needs 9 GPUs; "), "{said}");
    let (named, said) = code(&pod(1), &["-n", "team-nlp"]);
    assert!(
        named == Some(0) && said.starts_with("Pod team-nlp/p fits now.\n\nNodes     places for its pod: 1 on "),
        "{said}"
    );
    // A queue of which nothing is known.
    let (unknown, said) = code(&pod(1), &["--queue", "q"]);
    assert_eq!(unknown, Some(2), "{said}");
    assert!(
        said.starts_with("Whether Pod default/p fits now cannot be told.")
            && said.contains("\nQueues of Kueue are not known"),
        "{said}"
    );
    let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}});
    let (unknown, said) = code(&json!({"kind": "List", "items": [pod(1), cron]}), &[]);
    assert_eq!(unknown, Some(2));
    assert!(
        said.contains("document 1, items[1]: CronJob of batch/v1: its pods are not known. Known are AppWrapper"),
        "{said}"
    );
    // A node may be named twice, and be both.
    let twice = ["--without", "gpu-13", "--uncordon", "gpu-13", "--without", "gpu-13", "--uncordon", "gpu-13"];
    let (yes, said) = code(&pod(1), &twice);
    assert!(yes == Some(0) && !said.contains("gpu-13"), "{said}");
    let (unknown, said) = code(&pod(1), &["--queue", "q", "--queue-metrics", "off"]);
    assert!(
        unknown == Some(2) && said.contains("\nQueues of Kueue are not known, because --queue-metrics is off"),
        "{said}"
    );
    for (words, why) in [
        (&["--without", "nope"][..], "no node named nope"),
        (&["--count", "0"], "--count"),
        (&["--node", "gpu-11"], "--node cannot be combined with fit"),
    ] {
        let (unknown, said) = code(&pod(1), words);
        assert!(unknown == Some(2) && said.contains(why), "{said}");
    }
    let (code, _, err) = of_plugin(&["fit", "-f", "nope.yaml"]);
    assert!(code == Some(2) && err.starts_with("Error: cannot read nope.yaml: "), "{err}");
    let (_folder, file) = manifest("kind: A\n---\nkind: [\n");
    let (code, _, err) = of_plugin(&["fit", "-f", &file]);
    assert!(code == Some(2) && err.contains("document 2, line "), "{err}");
    let (code, _, err) =
        ran(command(&["fit", "-f", MANIFEST, "--cluster", "local", "--reports", "scene/reports.json"]));
    assert!(code == Some(2) && err.contains("fit needs Kubernetes"), "{err}");
}

#[test]
fn a_dump_of_which_a_part_cannot_be_read_proves_nothing() {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "status": {"capacity": {"nvidia.com/gpu": "8", "pods": "9"}, "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let pods = json!({"apiVersion": "v1", "kind": "PodList", "items": []});
    let wrong = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "w"}, "spec": {"containers": "none"}});
    let (_folder, file) = manifest(&pod(1).to_string());
    let (_many, nine) = manifest(&pod(9).to_string());
    let (_folder_too, dump) = manifest(&json!({"kind": "List", "apiVersion": "v1", "items": [node, pods]}).to_string());
    let (code, out, _) = ran(plugin(&["fit", "-f", &nine, "--cluster", &format!("file:{dump}")]));
    // That AppWrappers are not in the dump does not matter.
    assert!(code == Some(1) && out.contains("\nNodes     needs 9 GPUs; 8 free\n"), "{out}");
    for (objects, expected) in [(vec![&node, &pods], 0), (vec![&node, &pods, &wrong], 2), (vec![&node], 2)] {
        let (_folder, dump) = manifest(&json!({"kind": "List", "apiVersion": "v1", "items": objects}).to_string());
        let cluster = format!("file:{dump}");
        let (code, out, err) = ran(plugin(&["fit", "-f", &file, "--cluster", &cluster]));
        assert_eq!(code, Some(expected), "{out}{err}");
        let (_, json, _) = ran(plugin(&["fit", "-f", &file, "--cluster", &cluster, "-o", "json"]));
        let answer: Value = serde_json::from_str(&json).unwrap();
        let fits = (expected == 0).then_some(&json!(true));
        assert_eq!((answer.get("fits"), answer["submissions"][0].get("fits")), (fits, fits), "{answer}");
        if objects.len() == 3 {
            let reason = "A part of the dump could not be read, so it cannot be told what fits.";
            assert!(out.starts_with("Whether Pod default/p fits now cannot be told.") && out.contains(reason), "{out}");
            assert_eq!(answer["notes"][0], reason);
        }
    }
}

#[test]
fn a_manifest_comes_from_standard_input_too() {
    let mut command = plugin(&[&["fit", "-f", "-"][..], &SCENE].concat());
    command.current_dir(tests()).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(pod(1).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (code, _, err) = ran(plugin(&["fit", "-f", "-", "--cluster", "file:-"]));
    assert!(code == Some(2) && err.contains("standard input"), "{err}");
}

#[test]
fn json_has_the_same_answer_for_scripts() {
    let (code, out, _) = of_plugin(&["fit", "-f", MANIFEST, "-o", "json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["fits"]), (Some(1), &json!(false)));
    let fits: Vec<_> = answer["submissions"].as_array().unwrap().iter().map(|one| &one["fits"]).collect();
    assert_eq!(fits, [&json!(true), &json!(false), &json!(true)]);
    let [first, large, old] = &answer["submissions"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert_eq!((&first["document"], &first["name"], &first["pods"]), (&json!(1), &json!("train-…"), &json!(2)));
    assert_eq!((&large["document"], &large["nodes"]["fits"]), (&json!(3), &json!(false)));
    assert!(old["mcad_sum"]["copies_fit"] == 1 && first.get("mcad_sum").is_none(), "{answer}");
    let (_, out, _) = of_plugin(&["whatif", "--drain", "gpu-13", "-o", "json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["appwrappers"][0]["name"], "llama-sft");
}

#[test]
fn a_drained_node_takes_pods_from_appwrappers() {
    let (_, out, err) = of_plugin(&["whatif", "--drain", "gpu-13"]);
    assert_eq!(err, "");
    check_file(&tests().join("plugin/whatif.txt"), &out);
    let (_, again, _) = of_plugin(&["whatif", "--drain", "gpu-13", "--drain", "gpu-13"]);
    assert_eq!(again, out);
    let (code, out, _) = of_plugin(&["whatif", "--drain", "gpu-15"]);
    assert_eq!((code, out.as_str()), (Some(0), "If gpu-15 were drained, no AppWrapper would lose a pod.\n"));
    let (code, out, err) = ran(command(&[&["whatif", "--drain", "nope"][..], &SCENE].concat()));
    assert_eq!((code, out.as_str(), err.as_str()), (Some(2), "", "Error: no node named nope\n"));
}
