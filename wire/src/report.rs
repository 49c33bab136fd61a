//! The messages that an agent sends to the aggregator: one [`Report`] is one sample of one node.
//!
//! The schema is `wire/report.proto`, which documents each message and field. These structs are generated from the
//! table in `wire/src/schema.rs`; tests compare both with the schema. Reports are sent as protobuf; `mcad-agent --once`
//! and `--reports FILE` use the proto3 JSON mapping. docs/report.md describes both. Changes are additive: a tag is
//! never used again, and a field never changes its type or unit.
//!
//! Three rules hold everywhere:
//! - **absent is not zero**: a value that was not measured is `None`; a part that could not be read is a missing
//!   message;
//! - counters are totals since a start that the report names, never differences;
//! - the unit is the last word of a name; nanoseconds and bytes.
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, PickFirst, Same, serde_as};

use crate::schema::schema;

/// The version of the format that this build writes.
pub const REPORT_VERSION: u32 = 1;

/// proto3 JSON writes 64-bit integers as strings, and reads both strings and numbers.
type Int64 = PickFirst<(DisplayFromStr, Same)>;

/// proto3 JSON leaves out a field that equals its type's default.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

macro_rules! structs {
    ($($name:ident $(<$life:lifetime>)? { $($fields:tt)* })*) => {
        $(message! { $name {} $($fields)* })*
    };
}

/// A message: moves one field after the other from the table into the struct, with its attributes for prost and serde.
macro_rules! message {
    ($name:ident { $($made:tt)* }) => {
        #[doc = concat!("The message `", stringify!($name), "` of `wire/report.proto`.")]
        #[serde_as]
        #[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name { $($made)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: implicit uint64, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (u64)
            (#[prost(uint64, tag = $tag)] #[serde_as(as = "Int64")] #[serde(skip_serializing_if = "is_default")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: implicit uint32, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (u32)
            (#[prost(uint32, tag = $tag)] #[serde(skip_serializing_if = "is_default")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: implicit bool, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (bool)
            (#[prost(bool, tag = $tag)] #[serde(skip_serializing_if = "is_default")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: implicit string, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (String)
            (#[prost(string, tag = $tag)] #[serde(skip_serializing_if = "is_default")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: optional uint64, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (Option<u64>)
            (#[prost(uint64, optional, tag = $tag)] #[serde_as(as = "Option<Int64>")]
             #[serde(skip_serializing_if = "Option::is_none")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: optional uint32, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (Option<u32>)
            (#[prost(uint32, optional, tag = $tag)] #[serde(skip_serializing_if = "Option::is_none")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: optional bool, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (Option<bool>)
            (#[prost(bool, optional, tag = $tag)] #[serde(skip_serializing_if = "Option::is_none")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: optional double, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (Option<f64>)
            (#[prost(double, optional, tag = $tag)] #[serde(skip_serializing_if = "Option::is_none")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: optional string, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (Option<String>)
            (#[prost(string, optional, tag = $tag)] #[serde(skip_serializing_if = "Option::is_none")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: optional $of:ident $(<$life:lifetime>)?, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (Option<$of>)
            (#[prost(message, optional, tag = $tag)] #[serde(skip_serializing_if = "Option::is_none")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: boxed $of:ident $(<$life:lifetime>)?, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (Option<Box<$of>>)
            (#[prost(message, optional, boxed, tag = $tag)] #[serde(skip_serializing_if = "Option::is_none")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: repeated string, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (Vec<String>)
            (#[prost(string, repeated, tag = $tag)] #[serde(skip_serializing_if = "Vec::is_empty")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: repeated uint64, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (Vec<u64>)
            (#[prost(uint64, repeated, tag = $tag)] #[serde_as(as = "Vec<Int64>")]
             #[serde(skip_serializing_if = "Vec::is_empty")]) $($rest)* }
    };
    ($name:ident $made:tt $tag:tt $field:ident: repeated $of:ident $(<$life:lifetime>)?, $($rest:tt)*) => {
        message! { @ $name $made $tag $field (Vec<$of>)
            (#[prost(message, repeated, tag = $tag)] #[serde(skip_serializing_if = "Vec::is_empty")]) $($rest)* }
    };
    (@ $name:ident { $($made:tt)* } $tag:tt $field:ident ($type:ty) ($($attributes:tt)*) $($rest:tt)*) => {
        message! { $name {
            $($made)*
            #[doc = concat!("Tag ", $tag, ": see `wire/report.proto`.")]
            $($attributes)*
            pub $field: $type,
        } $($rest)* }
    };
}

schema!(structs);

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Report {
        Report {
            version: REPORT_VERSION,
            node: "gpu-17".into(),
            sequence: 3,
            uptime_ns: u64::MAX,
            cgroups: Some(Cgroups {
                source: "bpf".into(),
                cgroups: vec![Cgroup { id: 7, path: "/x".into(), cpu_ns: Some(0), ..Cgroup::default() }],
                ..Cgroups::default()
            }),
            gpus: Some(Gpus::default()),
            ..Report::default()
        }
    }

    #[test]
    fn protobuf_and_json_both_give_back_what_went_in() {
        let report = example();
        assert_eq!(Report::decode(&report.encode_to_vec()[..]).unwrap(), report);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn json_follows_the_proto3_mapping() {
        let json = serde_json::to_string(&example()).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"version":1,"node":"gpu-17","sequence":"3","uptimeNs":"18446744073709551615","#,
                r#""cgroups":{"source":"bpf","cgroups":[{"id":"7","path":"/x","cpuNs":"0"}]},"gpus":{}}"#
            )
        );
    }

    #[test]
    fn json_reads_numbers_where_it_writes_strings_and_ignores_unknown_fields() {
        let report: Report = serde_json::from_str(r#"{"sequence": 3, "later": [1]}"#).unwrap();
        assert_eq!(report, Report { sequence: 3, ..Report::default() });
    }

    #[test]
    fn a_measured_zero_is_not_an_absent_figure() {
        let zero = Cgroup { cpu_ns: Some(0), ..Cgroup::default() };
        assert_eq!(Cgroup::decode(&zero.encode_to_vec()[..]).unwrap().cpu_ns, Some(0));
        assert_eq!(Cgroup::decode(&[][..]).unwrap().cpu_ns, None);
    }
}
