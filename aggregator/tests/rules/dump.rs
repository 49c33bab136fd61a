//! Dumps of every shape, and what is said of those that are broken.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]
#![allow(clippy::needless_pass_by_value, reason = "so that json!() can stand in the call")]

use std::error::Error as _;
use std::path::{Path, PathBuf};

use mcad_accounting::options::Options;
use mcad_aggregator::dump::input::said_of;
use mcad_aggregator::dump::{Dump, DumpError};
use mcad_testkit::print;

const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: n}\nstatus: {capacity: {cpu: 4}}\n";
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: a}\nspec: {nodeName: n, containers: [{resources: {requests: {cpu: 0.5}}}]}\n";

fn read(text: &str) -> Dump {
    let mut dump = Dump::default();
    dump.add(Path::new("dump.yaml"), text).unwrap();
    dump
}

fn check(text: &str) {
    let dump = read(text);
    assert!(dump.skipped.is_empty(), "{:?}", dump.skipped);
    let shown = print(dump.objects, &Options::default());
    assert!(shown.contains("mcad_allocatable_capacity_cpu 3500\n"), "{text}\n{shown}");
}

/// What is said of objects that are left out.
fn complaints(text: &str) -> Vec<String> {
    let dump = read(text);
    said_of(&dump, None).left_out
}

/// Why a text cannot be read at all.
fn failure(text: &str) -> String {
    let error = Dump::default().add(Path::new("dump.yaml"), text).unwrap_err();
    format!("{error}: {}", error.source().unwrap())
}

fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n").replacen("  ", "- ", 1)
}

#[test]
fn a_list_documents_and_json_are_the_same() {
    check(&format!("{NODE}---\n{POD}"));
    check(&format!("---\n{NODE}---\n---\n{POD}...\n"));
    check(&format!(
        "apiVersion: v1\nitems:\n{}\n{}\nkind: List\nmetadata: {{resourceVersion: ''}}\n",
        indented(NODE),
        indented(POD)
    ));
    let node = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"},"status":{"capacity":{"cpu":"4"}}}"#;
    let pod = r#"{"metadata":{"name":"p","namespace":"a"},"spec":{"nodeName":"n","containers":[{"resources":{"requests":{"cpu":"0.5"}}}]}}"#;
    check(&format!("{node}\n{{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":[{pod}]}}"));
    check(&format!("{node}\n---\n{POD}"));
    check(&format!(
        r#" {{"apiVersion":"v1","kind":"List","items":[{node},{}]}}"#,
        pod.replacen('{', r#"{"kind":"Pod","apiVersion":"v1","#, 1)
    ));
}

#[test]
fn a_list_in_a_list_is_its_items() {
    let node = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"},"status":{"capacity":{"cpu":"4"}}}"#;
    let pods = r#"{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"p","namespace":"a"},"spec":{"nodeName":"n","containers":[{"resources":{"requests":{"cpu":"0.5"}}}]}}]}"#;
    let list = |items: &str| format!(r#"{{"apiVersion":"v1","kind":"List","items":[{items}]}}"#);
    check(&list(&format!("{},{pods}", list(node))));
    check(&list(&list(&format!("{pods},{node}"))));
    let broken = r#"{"apiVersion":"v1","kind":"Node","metadata":{}}"#;
    let dump = read(&list(&format!("{node},{}", list(broken))));
    assert_eq!((dump.objects.len(), dump.skipped[0].item), (1, Some(1)));
}

#[test]
fn an_empty_list_is_read_and_an_empty_file_is_said() {
    for text in ["apiVersion: v1\nkind: List\nitems: []\n", "apiVersion: v1\nkind: List\nitems: null\n"] {
        let dump = read(text);
        assert!(dump.objects.is_empty() && dump.skipped.is_empty() && dump.known.is_empty(), "{text}");
    }
    for text in ["", "\n", "---\n", "# nothing\n", "---\n---\n...\n"] {
        assert_eq!(complaints(text).len(), 1, "{text:?}");
        assert!(complaints(text)[0].starts_with("dump.yaml: the file is empty"), "{:?}", complaints(text));
    }
}

#[test]
fn what_does_not_count_is_passed_over_in_silence() {
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n---\napiVersion: apps/v1\nkind: Pod\n---\napiVersion: x/v1\nkind: NodeList\nitems: []\n";
    assert_eq!(complaints(other), [""; 0]);
    assert!(read(other).objects.is_empty() && read(other).known.is_empty());
}

#[test]
fn an_object_that_cannot_be_decoded_is_left_out_and_named_by_file_document_line_and_field() {
    let broken =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: a}\nspec: {containers: [{}, {resources: 5}]}\n";
    let text =
        format!("{NODE}---\n{broken}---\nkind: List\nitems:\n{}\n- spec: 5\n{}\n", indented(POD), indented(broken));
    assert_eq!(read(&text).objects.len(), 2);
    let wrong =
        "Pod a/p: field `spec.containers[1].resources`: invalid type: integer `5`, expected struct Requirements";
    assert_eq!(
        complaints(&text),
        [
            format!("dump.yaml: document 2, line 6: {wrong}"),
            format!("dump.yaml: document 3, items[2], line 18: {wrong}"),
            "dump.yaml: document 3, items[1], line 17: field `kind` is absent".to_owned(),
        ]
    );
}

#[test]
fn a_text_that_is_no_yaml_is_named_by_file_document_and_line() {
    assert_eq!(failure(&format!("{NODE}---\na: [1\nb: }}\n"))[..44], *"dump.yaml: document 2 cannot be parsed: line");
    assert_eq!(
        failure("{\"kind\": "),
        "dump.yaml: document 1 cannot be parsed: line 1: EOF while parsing a value. The file ends in the middle of an object: it is \
         truncated, so make the file again"
    );
    assert_eq!(
        failure("\n\njust text"),
        "dump.yaml: document 1 cannot be parsed: line 3: the text `just text` is not an object or a list of objects"
    );
}

#[test]
fn several_files_are_one_cluster_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = ["a.yaml", "b.yaml"].iter().map(|name| folder.path().join(name)).collect();
    std::fs::write(&paths[0], NODE).unwrap();
    std::fs::write(&paths[1], POD).unwrap();
    assert_eq!(Dump::read(&paths).unwrap().objects.len(), 2);
    let error = Dump::read(&["nowhere.yaml".into()]).unwrap_err();
    assert!(matches!(error, DumpError::Read { .. }));
    assert_eq!(error.to_string(), "cannot read nowhere.yaml");
}

#[test]
fn one_object_of_ten_megabytes_and_many_small_ones_are_read() {
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"q","namespace":"a","annotations":{"x":"LONG"}}}"#;
    assert_eq!(read(&pod.replace("LONG", &"x".repeat(10 << 20))).objects.len(), 1);
    let document = |at| format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: q{at}, namespace: a}}\n");
    let many = (0..1500).map(document).collect::<Vec<_>>().concat();
    assert_eq!(read(&many).objects.len(), 1500);
}
