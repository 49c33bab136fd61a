//! docs/report.md says of every field what the code says: name, tag and type, and has no field that the code lacks.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::collections::BTreeSet;

use mcad_wire::report::REPORT_VERSION;

/// The format's files: a message is in one of them.
const CODE: [&str; 2] = [include_str!("../src/report.rs"), include_str!("../src/report/gpus.rs")];
const DOC: &str = include_str!("../../docs/report.md");

/// Each field as `Message 1 fieldName type`.
fn fields_of_code() -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    let (mut message, mut prost) = ("", "");
    for line in CODE.iter().flat_map(|file| file.lines().take_while(|line| *line != "#[cfg(test)]")) {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("pub struct ") {
            message = rest.trim_end_matches(" {");
        } else if let Some(rest) = line.strip_prefix("#[prost(") {
            prost = rest.trim_end_matches(")]");
        } else if let Some((name, rust)) = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": "))
            && !prost.is_empty()
        {
            fields.insert(format!("{message} {} {}", camel_case(name), type_of(prost, rust)));
            prost = "";
        }
    }
    fields
}

/// `uint64, optional, tag = "5"` and `Option<u64>` are `5 optional uint64`.
fn type_of(prost: &str, rust: &str) -> String {
    let attributes: Vec<&str> = prost.split(", ").collect();
    let tag = attributes.iter().find_map(|attribute| attribute.strip_prefix("tag = ")).unwrap().trim_matches('"');
    let (kind, optional) = match attributes[0] {
        "message" => (rust.split(['<', '>', ',']).rfind(|part| !part.is_empty()).unwrap(), ""),
        scalar if attributes.contains(&"optional") => (scalar, "optional "),
        scalar => (scalar, ""),
    };
    let repeated = if attributes.contains(&"repeated") { "repeated " } else { "" };
    format!("{tag} {repeated}{optional}{kind}")
}

fn camel_case(snake_case: &str) -> String {
    let mut words = snake_case.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| format!("{name}{}{}", word[..1].to_uppercase(), &word[1..]))
}

fn fields_of_doc() -> BTreeSet<String> {
    let messages = DOC.split("\n## Messages\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let mut fields = BTreeSet::new();
    let mut message = "";
    for line in messages.lines() {
        if let Some(rest) = line.strip_prefix("### ") {
            message = rest;
        } else if let Some(row) = line.strip_prefix("| ")
            && !row.starts_with("tag ")
        {
            let cells: Vec<&str> = row.split(" | ").collect();
            let field = format!("{message} {} {} {}", cells[1].trim_matches('`'), cells[0], cells[2]);
            assert!(fields.insert(field), "{line} stands twice");
            assert!(cells[3].trim_end_matches(" |").len() > 3, "{line} has no meaning");
        }
    }
    fields
}

#[test]
fn the_document_has_the_fields_of_the_code_and_no_others() {
    let (code, doc) = (fields_of_code(), fields_of_doc());
    assert!(code.contains("Cgroup cpuNs 5 optional uint64"), "the code is read otherwise than it is written");
    let only_code: Vec<_> = code.difference(&doc).collect();
    let only_doc: Vec<_> = doc.difference(&code).collect();
    assert!(only_code.is_empty() && only_doc.is_empty(), "only in code: {only_code:#?}, only in doc: {only_doc:#?}");
}

#[test]
fn the_json_names_are_those_that_serde_writes() {
    // One field of several words in a message of each depth; the rest is the same derive.
    let report = mcad_wire::report::Report { started_at_ms: 1, ..Default::default() };
    assert_eq!(serde_json::to_string(&report).unwrap(), r#"{"startedAtMs":"1"}"#);
    assert_eq!(
        CODE.concat().matches("#[serde(rename").count(),
        0,
        "a renamed field needs its own line in the document"
    );
}

#[test]
fn the_document_names_the_version() {
    assert!(DOC.contains(&format!("`version` is {REPORT_VERSION}.")));
}
