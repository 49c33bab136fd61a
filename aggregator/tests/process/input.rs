//! Dumps that lack something, or have something twice, foreign or broken: what is read, what is said, and the exit status, as whoever
//! runs the program sees them.
#![allow(clippy::unwrap_used, reason = "allow-unwrap-in-tests does not reach what tests call in a file of their own")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Output, Stdio};

use crate::support::aggregator::command;
use flate2::Compression;
use flate2::write::GzEncoder;

const NODE: &str = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n","creationTimestamp":"2026-01-01T00:00:00Z"},
  "status":{"capacity":{"cpu":"4","memory":"8Gi","pods":"10"},"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":"2026-01-05T10:00:00Z"}]}}"#;
const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"a"},
  "spec":{"nodeName":"n","containers":[{"name":"c","resources":{"requests":{"cpu":"500m"}}}]},"status":{"phase":"Running"}}"#;
const APPWRAPPER: &str = r#"{"apiVersion":"workload.codeflare.dev/v1beta2","kind":"AppWrapper",
  "metadata":{"name":"aw","namespace":"a","uid":"u","creationTimestamp":"2026-01-05T09:00:00Z","deletionTimestamp":"2027-01-01T00:00:00Z"},
  "spec":{"components":[{"template":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},
    "spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"1"}}}]}}}]},"status":{"phase":"Suspended"}}"#;

/// What the program prints of a dump.
struct Printed {
    code: Option<i32>,
    out: String,
    errors: String,
}

impl From<Output> for Printed {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), errors: text(output.stderr) }
    }
}

/// Runs it on files of these bytes, the first of which is `dump-0`.
fn run(before: &[&str], files: &[&[u8]], after: &[&str]) -> Printed {
    let folder = tempfile::tempdir().unwrap();
    let mut args: Vec<String> = before.iter().map(|arg| (*arg).to_owned()).collect();
    for (at, bytes) in files.iter().enumerate() {
        let path = folder.path().join(format!("dump-{at}"));
        std::fs::write(&path, bytes).unwrap();
        args.extend(["--cluster".to_owned(), format!("file:{}", path.display())]);
    }
    args.extend(after.iter().map(|arg| (*arg).to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    command(&args).output().unwrap().into()
}

fn explain(text: &str) -> Printed {
    run(&["explain"], &[text.as_bytes()], &[])
}

fn metrics(text: &str, args: &[&str]) -> Printed {
    run(&[], &[text.as_bytes()], &[&["--print-metrics"], args].concat())
}

fn list(items: &[&str]) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"List","metadata":{{}},"items":[{}]}}"#, items.join(","))
}

fn whole() -> String {
    list(&[NODE, POD, APPWRAPPER])
}

#[track_caller]
fn says(text: &str, phrase: &str) {
    assert!(text.contains(phrase), "{phrase:?} is not in\n{text}");
}

const FREE: &str = "mcad_node_free{node=\"n\",resource=\"cpu\",unit=\"core\"} 3.5\n";
const WAITING: &str = "mcad_appwrapper_waiting_seconds{";

#[test]
fn a_whole_dump_is_read_in_silence_and_its_instant_is_said_first() {
    let printed = explain(&whole());
    assert_eq!((printed.code, printed.errors.as_str()), (Some(0), ""));
    let first =
        "A dump of 1 Node, 1 Pod and 1 AppWrapper, as of 2026-01-05T10:00:00Z (the newest time in the dump).\n\n";
    assert!(printed.out.starts_with(first), "{}", printed.out);
    let printed = metrics(&whole(), &[]);
    assert_eq!((printed.code, printed.errors.as_str()), (Some(0), ""));
    says(&printed.out, FREE);
}

#[test]
fn a_dump_is_read_whatever_it_was_saved_as() {
    let text = whole();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    let wide = |order: fn(u16) -> [u8; 2], mark: &str| -> Vec<u8> {
        format!("{mark}{text}").encode_utf16().flat_map(order).collect()
    };
    let yaml = format!("{NODE}\n---\n{POD}\n---\n{}", APPWRAPPER.replace('\n', "\r\n"));
    for (how, bytes) in [
        ("UTF-8 with a mark", [b"\xef\xbb\xbf", text.as_bytes()].concat()),
        ("UTF-16LE with a mark", wide(u16::to_le_bytes, "\u{feff}")),
        ("UTF-16BE with a mark", wide(u16::to_be_bytes, "\u{feff}")),
        ("UTF-16LE", wide(u16::to_le_bytes, "")),
        ("UTF-16BE", wide(u16::to_be_bytes, "")),
        ("gzip", packed.finish().unwrap()),
        ("documents", yaml.into_bytes()),
        ("the items alone, as jq prints them", format!("[{NODE},{POD},{APPWRAPPER}]").into_bytes()),
    ] {
        let printed = run(&[], &[&bytes], &["--print-metrics"]);
        assert_eq!(printed.code, Some(0), "{how}: {}", printed.errors);
        says(&printed.out, FREE);
    }
    let printed = run(&["explain"], &[b"PK\x03\x04rest"], &[]);
    assert_eq!(printed.code, Some(1));
    says(&printed.errors, "the file is a zip archive: decompress it first");
}

#[test]
fn what_is_missing_is_named_with_what_is_unknown_therefore_and_fails() {
    for (items, sentence) in [
        (&[POD, APPWRAPPER][..], "Missing: no Nodes in the dump, so installed and free amounts and fit are unknown."),
        (&[NODE, APPWRAPPER], "Missing: no Pods in the dump, so requested and free amounts and fit are unknown."),
        (&[NODE, POD], "Missing: no AppWrappers in the dump, so it is unknown which of them wait and why."),
    ] {
        let printed = explain(&list(items));
        assert_eq!(printed.code, Some(1), "{sentence}");
        says(&printed.errors, sentence);
        // Before any figure.
        let at = printed.out.find(sentence).unwrap_or_else(|| panic!("{}", printed.out));
        assert!(!printed.out[..at].contains("cpu"), "{}", printed.out);
        let printed = metrics(&list(items), &[]);
        assert_eq!(printed.code, Some(1), "{sentence}");
        says(&printed.errors, sentence);
    }
}

#[test]
fn an_empty_list_of_a_kind_says_that_there_are_none() {
    let empty =
        |api_version: &str, kind: &str| format!(r#"{{"apiVersion":"{api_version}","kind":"{kind}","items":[]}}"#);
    let (pods, appwrappers) = (empty("v1", "PodList"), empty("mcad.ibm.com/v1beta1", "AppWrapperList"));
    let printed = metrics(&[&list(&[NODE]), &pods, &appwrappers].map(|text: &String| text.as_str()).concat(), &[]);
    assert_eq!((printed.code, printed.errors.as_str()), (Some(0), ""));
    says(&printed.out, "mcad_node_free{node=\"n\",resource=\"cpu\",unit=\"core\"} 4\n");
    // An untyped one says nothing.
    let printed =
        metrics(&[&list(&[NODE]), &empty("v1", "List"), &appwrappers].map(|text: &String| text.as_str()).concat(), &[]);
    assert_eq!(printed.code, Some(1));
    assert!(!printed.out.contains("mcad_node_free{"), "{}", printed.out);
}

#[test]
fn what_cannot_count_but_should_is_left_out_with_its_place() {
    let foreign = r#"{"apiVersion":"arbitrator.incubator.k8s.io/v1alpha1","kind":"AppWrapper","metadata":{"name":"old","namespace":"a"}}"#;
    let names = r#"{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadataList","items":[]}"#;
    let refused = r#"{"apiVersion":"v1","kind":"Status","status":"Failure","message":"pods is forbidden: User \"u\" cannot list"}"#;
    let other = r#"{"apiVersion":"longhorn.io/v1beta2","kind":"Node","metadata":{"name":"n"}}"#;
    for (item, sentence) in [
        (
            foreign,
            "items[3], line 6: AppWrapper a/old: field `apiVersion`: `arbitrator.incubator.k8s.io/v1alpha1` is not supported; supported: workload",
        ),
        (
            r#"{"apiVersion":"v1beta1","kind":"Pod","metadata":{"name":"p"}}"#,
            "Pod p: field `apiVersion`: `v1beta1` is not supported; supported: v1.",
        ),
        (r#"{"kind":"Node","metadata":{"name":"m"}}"#, "Node m: field `apiVersion`: `` is not supported"),
        (r#"{"apiVersion":"v1","kind":"Pod","metadata":{}}"#, "Pod : field `metadata.name` is empty"),
        (r#"{"apiVersion":"meta.k8s.io/v1","kind":"Table","rows":[]}"#, "kind `Table` is output for people"),
        (names, "kind `PartialObjectMetadata` has only names and labels"),
        (refused, "it is an error of the API server instead of an object: pods is forbidden"),
        (r#"{"metadata":{"name":"x"},"spec":{}}"#, "field `kind` is absent"),
        ("3", "it is not an object"),
        (
            r#"{"apiVersion":"mcad-metrics/v2","kind":"Dump"}"#,
            "Dump: field `apiVersion`: `mcad-metrics/v2` is not supported",
        ),
    ] {
        let printed = metrics(&list(&[NODE, POD, APPWRAPPER, item]), &[]);
        assert_eq!(printed.code, Some(1), "{sentence}");
        says(&printed.errors, "Left out: ");
        says(&printed.errors, "/dump-0: document 1, items[3], line 6: ");
        says(&printed.errors, sentence);
        // The rest counts all the same.
        says(&printed.out, FREE);
    }
    // Other groups have Nodes of their own.
    assert_eq!(metrics(&list(&[NODE, POD, APPWRAPPER, other]), &[]).code, Some(0));
}

#[test]
fn a_file_that_is_cut_off_is_said_to_be() {
    let text = whole();
    let printed = explain(&text[..text.len() - 20]);
    assert_eq!((printed.code, printed.out.as_str()), (Some(1), ""));
    says(&printed.errors, "document 1 cannot be parsed: line 6, column");
    says(&printed.errors, "The file ends in the middle of an object: it is truncated, so make the file again");
    // In YAML what is left may be well-formed: kubectl writes the list's kind last.
    let yaml = "apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n}\n";
    let printed = explain(yaml);
    assert_eq!(printed.code, Some(1));
    says(&printed.out, "field `kind` of the list is absent: the file may be truncated");
    assert!(!explain(&format!("{yaml}kind: List\n")).out.contains("truncated"));
}

#[test]
fn what_kubectl_says_beside_what_it_was_asked_for_is_no_part_of_a_dump() {
    let yaml = "apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n}\nkind: List\n";
    let printed = explain(&format!("error: the server doesn't have a resource type \"appwrappers\"\n{yaml}"));
    assert_eq!(printed.code, Some(1));
    says(&printed.out, "`error: the server doesn't have a resource type \"appwrappers\"` is not a field of an object");
    says(&printed.out, "\n1 node");
    for message in [
        "Error from server (Forbidden): pods is forbidden: no",
        "Warning: v1 is old: use v2",
        "E0105 10:00:00.0 1 memcache.go:265] x: y: z",
    ] {
        let printed = explain(&format!("{message}\n{yaml}"));
        assert_eq!((printed.code, printed.out.as_str()), (Some(1), ""), "{message}");
        says(&printed.errors, "dump-0: document 1 cannot be parsed: line ");
        says(&printed.errors, "The file begins with a message of kubectl: make the file again without `2>&1`");
    }
}

#[test]
fn an_object_that_is_there_twice_counts_once_as_it_is_last_and_is_said() {
    let smaller = POD.replace("500m", "250m");
    let printed = metrics(&list(&[NODE, POD, APPWRAPPER, &smaller, NODE]), &[]);
    assert_eq!(printed.code, Some(0));
    says(&printed.out, "mcad_node_free{node=\"n\",resource=\"cpu\",unit=\"core\"} 3.75\n");
    says(&printed.out, "mcad_nodes{state=\"admissible\"} 1\n");
    let printed = explain(&list(&[NODE, POD, APPWRAPPER, &smaller, NODE]));
    says(
        &printed.out,
        "Note: 2 objects are in the dump more than once, such as Pod a/p: the last copy of each counts.",
    );
    // In two versions of a group it is one.
    let twice = APPWRAPPER.replace("v1beta2", "v1beta1");
    assert!(!explain(&list(&[NODE, POD, APPWRAPPER, &twice])).out.contains("more than once"));
}

#[test]
fn of_ten_thousand_broken_objects_the_first_are_named_and_the_rest_are_counted() {
    let broken = vec![r#"{"apiVersion":"v1","kind":"Pod","metadata":{}}"#; 10_000];
    let printed = run(&["explain"], &[list(&[&[NODE, POD, APPWRAPPER], &broken[..]].concat()).as_bytes()], &["--json"]);
    assert_eq!(printed.code, Some(1));
    let answer: serde_json::Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(answer["objects_left_out"], 10_000);
    assert_eq!(answer["input"]["left_out"].as_array().unwrap().len(), 1000);
    assert_eq!((&answer["input"]["more_left_out"], &answer["input"]["complete"]), (&9000.into(), &false.into()));
    assert!(printed.out.starts_with("{\"input\":{\"complete\":false,"), "{}", &printed.out[..80]);
}

#[test]
fn a_quantity_that_cannot_be_read_is_named_with_its_object_and_field() {
    let node = NODE.replace(
        r#""capacity":{"cpu":"4","#,
        r#""allocatable":{"cpu":"-1","memory":"8Gi","pods":"10"},"capacity":{"cpu":"4","#,
    );
    let pod = POD.replace("500m", "5cores");
    let printed = explain(&list(&[&node, &pod, APPWRAPPER]));
    assert_eq!((printed.code, printed.errors.as_str()), (Some(0), ""));
    says(&printed.out, "Note: Node n: field `status.allocatable[cpu]`: `-1` is negative; it counts as absent.");
    let field = "Pod a/p: field `spec.containers[0].resources.requests[cpu]`: `5cores` has the unknown suffix `cores`";
    says(&printed.out, field);
    let printed = metrics(&list(&[&node, &pod, APPWRAPPER]), &[]);
    says(&printed.out, "mcad_node_free{node=\"n\",resource=\"cpu\",unit=\"core\"} 0\n");
    says(&printed.out, "mcad_node_allocatable{node=\"n\",resource=\"cpu\",unit=\"core\"} 0\n");
}

#[test]
fn ages_are_told_against_the_dumps_own_instant() {
    let record = r#"{"apiVersion":"mcad-metrics/v1","kind":"Dump","instant":"2026-01-05T12:00:00Z","clock":"server","serverVersion":"v1.33.1","lists":[]}"#;
    let line = |seconds: &str| format!("{WAITING}namespace=\"a\",appwrapper=\"aw\"}} {seconds}\n");
    let has = |items: &[&str], args: &[&str], seconds: &str| {
        let printed = metrics(&list(items), args);
        let lines: Vec<_> = printed.out.lines().filter(|line| line.starts_with(WAITING)).collect();
        assert!(
            lines.len() == 1 && lines[0].ends_with(&format!("}} {seconds}")),
            "{seconds}: {lines:?} {}",
            line(seconds)
        );
    };
    // The newest time, which is the node's heartbeat; a deletion lies ahead.
    has(&[NODE, POD, APPWRAPPER], &[], "3600");
    has(&[NODE, POD, APPWRAPPER], &["--at", "2026-01-05T09:00:30+00:00"], "30");
    has(&[NODE, POD, APPWRAPPER], &["--at", "2026-01-05T09:30:00+02:00"], "0");
    has(&[NODE, POD, APPWRAPPER, record], &["--at", "2026-01-05T09:00:30Z"], "10800");
    // An entry of managedFields is newer, and says so in another zone.
    let written = POD.replace(
        r#""namespace":"a""#,
        r#""namespace":"a","managedFields":[{"time":"2026-01-05T12:00:01+01:00","fieldsV1":{"f:x":{}}}]"#,
    );
    has(&[NODE, &written, APPWRAPPER], &[], "7201");
    // Without any time there is no age.
    let (node, appwrapper) = (NODE.replace("2026-01", "none"), APPWRAPPER.replace("creationTimestamp", "x"));
    let appwrapper = appwrapper
        .replace("v1beta2", "v1beta1")
        .replace("components", "x")
        .replace(r#"{"phase":"Suspended"}"#, r#"{"controllerfirsttimestamp":"2026-01-05T09:00:00.000000Z"}"#);
    let printed = metrics(&list(&[&node, POD, &appwrapper]), &[]);
    assert!(!printed.out.contains(WAITING), "{}", printed.out);
    has(&[&node, POD, &appwrapper], &["--at", "2026-01-05T09:00:01Z"], "1");

    let said = |items: &[&str], args: &[&str]| run(&["explain"], &[list(items).as_bytes()], args).out;
    says(
        &said(&[NODE, POD, APPWRAPPER, record], &[]),
        "as of 2026-01-05T12:00:00Z (recorded when the dump was made), of Kubernetes v1.33.1.",
    );
    says(
        &said(&[NODE, POD, APPWRAPPER], &["--at", "2026-01-05T09:00:30Z"]),
        "as of 2026-01-05T09:00:30Z (given with --at).",
    );
    says(
        &said(&[&node, POD, &appwrapper], &[]),
        "of an unknown time.\nNote: the dump contains no time, so ages are unknown: give a time with --at.\n",
    );
}

#[test]
fn a_record_says_what_could_not_be_listed_and_what_is_not_served() {
    let record = |pods: &str, appwrappers: &str| {
        format!(
            r#"{{"apiVersion":"mcad-metrics/v1","kind":"Dump","instant":"2026-01-05T12:00:00Z","clock":"local","lists":[
              {{"apiVersion":"v1","kind":"Node","objects":1,"state":"listed"}},{{"apiVersion":"v1","kind":"Pod",{pods}}},
              {{"apiVersion":"mcad.ibm.com/v1beta1","kind":"AppWrapper",{appwrappers}}},{{"apiVersion":"x/v1","kind":"Y","objects":0,"state":"listed"}}]}}"#
        )
    };
    let (all, none) = (r#""objects":0,"state":"listed""#, r#""objects":0,"state":"notServed""#);
    // All is known, though there is no pod and no AppWrapper.
    let printed = metrics(&list(&[NODE, &record(all, none)]), &[]);
    assert_eq!((printed.code, printed.errors.as_str()), (Some(0), ""));
    says(&printed.out, "mcad_node_free{node=\"n\",resource=\"cpu\",unit=\"core\"} 4\n");
    assert!(!printed.out.contains("mcad_appwrappers{"), "{}", printed.out);
    says(&explain(&list(&[NODE, &record(all, none)])).out, "The API server serves no AppWrappers.");
    // Some pods were listed, and then no more: what is there is not all.
    let some = r#""objects":1,"state":"failed","error":"pods: pods is forbidden""#;
    let printed = metrics(&list(&[NODE, POD, &record(some, none)]), &[]);
    assert_eq!(printed.code, Some(1));
    says(&printed.errors, "not all Pods are in the dump (only 1), so requested");
    says(&printed.errors, "They could not be listed: pods: pods is forbidden");
    assert!(!printed.out.contains("mcad_node_free{"), "{}", printed.out);
}

#[test]
fn several_files_are_one_cluster_and_each_is_named() {
    let printed = run(&["explain"], &[list(&[NODE, POD]).as_bytes(), APPWRAPPER.as_bytes(), b""], &[]);
    assert_eq!(printed.code, Some(1));
    says(&printed.out, "A dump of 1 Node, 1 Pod and 1 AppWrapper");
    says(&printed.out, "dump-2: the file is empty, which does not mean an empty cluster");
    assert!(!printed.out.contains("Missing"), "{}", printed.out);
}

#[test]
fn aliases_are_read_across_items_and_what_grows_without_end_is_refused() {
    let yaml = "apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n}\n  spec: {x: &all {cpu: '4', memory: 8Gi}}\n  \
                status: {capacity: *all, conditions: &c [{type: Ready, status: 'True'}]}\n- {apiVersion: v1, kind: Node, metadata: {name: m}, \
                status: {capacity: *all, conditions: *c}}\n- {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a}}\nkind: List\n";
    let printed = metrics(yaml, &[]);
    says(&printed.out, "mcad_node_free{node=\"m\",resource=\"cpu\",unit=\"core\"} 4\n");
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for at in 1..10 {
        let before = format!("*a{}", at - 1);
        writeln!(laughs, "a{at}: &a{at} [{}]", vec![before; 10].join(", ")).unwrap();
    }
    let printed = explain(&laughs);
    assert_eq!(printed.code, Some(1));
    says(&printed.errors, "the aliases of the document expand to too much data");
    let printed = explain("apiVersion: v1\nkind: Node\nmetadata: *nothing\n");
    says(&printed.errors, "line 3: the alias `*nothing` has no anchor");
    let deep = format!("apiVersion: v1\nkind: Node\nspec: {}", "[".repeat(100_000));
    assert_eq!(explain(&deep).code, Some(1));
    assert_eq!(explain(&format!("{{\"kind\": {}", "[".repeat(100_000))).code, Some(1));
}

#[test]
fn who_reads_no_further_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump.json");
    // More than a pipe holds.
    let nodes: Vec<String> = (0..5000).map(|at| NODE.replace("\"n\"", &format!("\"n-{at}\""))).collect();
    let items: Vec<&str> = nodes.iter().map(String::as_str).chain([POD, APPWRAPPER]).collect();
    std::fs::write(&file, list(&items)).unwrap();
    let cluster = format!("file:{}", file.display());
    for args in [
        &["--cluster", &cluster, "--print-metrics"][..],
        &["explain", "--json", "--cluster", &cluster],
        &["completions", "bash"],
    ] {
        let mut child = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()),
            (Some(0), ""),
            "{args:?}"
        );
    }
}
