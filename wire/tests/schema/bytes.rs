//! Reports that are built from the schema alone, and how the structs and the reader read their bytes and JSON.
use mcad_wire::{reading, report};
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value};

use super::{SCHEMA, compiled, message};

fn schema() -> MessageDescriptor {
    message(&compiled(SCHEMA), "Report")
}

/// A value that no other field has and that no smaller type can hold.
fn distinct(kind: &Kind, number: &mut u32) -> Value {
    *number += 1;
    match kind {
        Kind::Uint32 => Value::U32(u32::MAX - *number),
        Kind::Uint64 => Value::U64(u64::MAX - u64::from(*number)),
        Kind::Fixed32 => Value::U32(*number),
        Kind::Fixed64 => Value::U64(u64::from(*number)),
        Kind::Double => Value::F64(1.0 / f64::from(*number)),
        Kind::Bool => Value::Bool(true),
        Kind::String => Value::String(number.to_string()),
        Kind::Message(message) => Value::Message(filled(message, number)),
        other => panic!("{other:?} is not in a report"),
    }
}

/// A message with every field set, and two elements in each list.
fn filled(descriptor: &MessageDescriptor, number: &mut u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        set(&mut message, &field, || distinct(&field.kind(), number));
    }
    message
}

fn set(message: &mut DynamicMessage, field: &FieldDescriptor, mut value: impl FnMut() -> Value) {
    let value = if field.is_list() { Value::List(vec![value(), value()]) } else { value() };
    message.set_field(field, value);
}

pub(crate) fn full() -> DynamicMessage {
    filled(&schema(), &mut 0)
}

/// Every field of every message, as the path of fields that leads to it.
fn paths(descriptor: &MessageDescriptor) -> Vec<Vec<FieldDescriptor>> {
    let below = |field: FieldDescriptor| {
        let below = match field.kind() {
            Kind::Message(message) => paths(&message),
            _ => Vec::new(),
        };
        let mut all = vec![vec![field.clone()]];
        all.extend(below.into_iter().map(|path| [vec![field.clone()], path].concat()));
        all
    };
    descriptor.fields().flat_map(below).collect()
}

/// A report that contains only one field, and the messages that lead to it.
fn alone(path: &[FieldDescriptor], value: &Value) -> DynamicMessage {
    let mut message = DynamicMessage::new(path[0].parent_message().clone());
    let value = if path.len() == 1 { value.clone() } else { Value::Message(alone(&path[1..], value)) };
    set(&mut message, &path[0], || value.clone());
    message
}

/// Checks that the structs and the reader read what the schema describes, from both encodings, and that the structs
/// write it back unchanged.
#[track_caller]
fn check(report: &DynamicMessage, what: &str) -> report::Report {
    let bytes = report.encode_to_vec();
    let read = report::Report::decode(&*bytes).unwrap();
    let json = serde_json::to_value(report).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), json, "{what}: the structs read something else");
    assert_eq!(serde_json::from_value::<report::Report>(json).unwrap(), read, "{what}: JSON reads something else");
    let written = DynamicMessage::decode(report.descriptor(), &*read.encode_to_vec()).unwrap();
    assert_eq!(&written, report, "{what}: the structs write something else");
    let in_place = reading::Report::read(&bytes).unwrap();
    assert_eq!(in_place.to_owned(), read, "{what}: the reader reads something else");
    read
}

/// The fields that have their type's default, as `{:#?}` prints them.
fn empty(shown: &str) -> Vec<&str> {
    let empty = [": None,", ": [],", ": 0,", ": 0.0,", ": \"\",", ": false,"];
    shown.lines().filter(|line| empty.iter().any(|end| line.ends_with(end))).collect()
}

#[test]
fn all_that_the_schema_has_is_read_and_written_and_there_is_no_more() {
    let report = full();
    let read = check(&report, "with every field");
    let bytes = report.encode_to_vec();
    for shown in [format!("{read:#?}"), format!("{:#?}", reading::Report::read(&bytes).unwrap())] {
        assert_eq!(empty(&shown), Vec::<&str>::new(), "fields that report.proto does not have");
    }
    assert!(!empty(&format!("{:#?}", report::Report::default())).is_empty(), "empty fields are printed differently");
}

#[test]
fn every_field_is_read_and_written_alone() {
    let paths = paths(&schema());
    assert!(paths.len() > 100, "{}", paths.len());
    for path in paths {
        let field = path.last().unwrap();
        let value = match field.kind() {
            // Present and empty.
            Kind::Message(message) => Value::Message(DynamicMessage::new(message)),
            scalar => distinct(&scalar, &mut 0),
        };
        check(&alone(&path, &value), field.full_name());
    }
}

#[test]
fn a_zero_that_was_measured_is_read_and_written_everywhere() {
    for path in paths(&schema()) {
        let field = path.last().unwrap();
        if field.field_descriptor_proto().proto3_optional() {
            let report = alone(&path, &Value::default_value(&field.kind()));
            let read = check(&report, field.full_name());
            let json = serde_json::to_string(&read).unwrap();
            assert!(json.contains(&format!("\"{}\":", field.json_name())), "{}: {json}", field.full_name());
        }
    }
}

/// The schema of a later version: every message has an additional field of each wire type.
fn newer() -> String {
    let fields = "uint64 later_number = 1001; fixed64 later_eight = 1002; fixed32 later_four = 1003; \
                  string later_text = 1004; repeated Absence later_parts = 1005;";
    SCHEMA.replace(" {\n", &format!(" {{ {fields}\n"))
}

/// Sets every field that only the later schema has.
fn add_later(message: &mut DynamicMessage) {
    for field in message.descriptor().fields() {
        if field.name().starts_with("later_") {
            let value = || match field.kind() {
                Kind::Message(message) => Value::Message(DynamicMessage::new(message)),
                scalar => distinct(&scalar, &mut 0),
            };
            set(message, &field, value);
        } else {
            match message.get_field_mut(&field) {
                Value::Message(message) => add_later(message),
                Value::List(list) => list.iter_mut().filter_map(Value::as_message_mut).for_each(add_later),
                _ => {}
            }
        }
    }
}

#[test]
fn what_a_newer_schema_adds_is_passed_over_in_every_message() {
    let old = check(&full(), "with every field");
    let newer = message(&compiled(&newer()), "Report");
    let mut report = DynamicMessage::decode(newer, &*full().encode_to_vec()).unwrap();
    add_later(&mut report);
    let bytes = report.encode_to_vec();
    assert!(bytes.len() > full().encode_to_vec().len() + 1_000, "nothing was added");
    assert_eq!(report::Report::decode(&*bytes).unwrap(), old);
    assert_eq!(reading::Report::read(&bytes).unwrap().to_owned(), old);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(serde_json::from_value::<report::Report>(json).unwrap(), old);
}
