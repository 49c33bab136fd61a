//! The structs' declarations, as they stand in the code.
use std::collections::BTreeSet;

/// The format's files: a message is in one of them.
pub(crate) const CODE: [&str; 2] = [include_str!("../../src/report.rs"), include_str!("../../src/report/gpus.rs")];

/// Each field as `Message 1 field_name type`.
fn declared() -> BTreeSet<String> {
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
            let (tag, kind) = tag_and_type(prost, rust);
            fields.insert(format!("{message} {tag} {name} {kind}"));
            prost = "";
        }
    }
    fields
}

/// `uint64, optional, tag = "5"` and `Option<u64>` are `5` and `optional uint64`.
fn tag_and_type<'a>(prost: &'a str, rust: &str) -> (&'a str, String) {
    let attributes: Vec<&str> = prost.split(", ").collect();
    let tag = attributes.iter().find_map(|attribute| attribute.strip_prefix("tag = ")).unwrap().trim_matches('"');
    let (kind, optional) = match attributes[0] {
        "message" => (rust.split(['<', '>', ',']).rfind(|part| !part.is_empty()).unwrap(), ""),
        scalar if attributes.contains(&"optional") => (scalar, "optional "),
        scalar => (scalar, ""),
    };
    let repeated = if attributes.contains(&"repeated") { "repeated " } else { "" };
    (tag, format!("{repeated}{optional}{kind}"))
}

#[test]
fn the_structs_have_the_fields_of_the_schema_and_no_others() {
    let (schema, code) = (super::fields(), declared());
    let only_schema: Vec<_> = schema.difference(&code).collect();
    let only_code: Vec<_> = code.difference(&schema).collect();
    let equal = only_schema.is_empty() && only_code.is_empty();
    assert!(equal, "only in report.proto: {only_schema:#?}, only in the structs: {only_code:#?}");
}
