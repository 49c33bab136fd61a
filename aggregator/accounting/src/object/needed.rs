//! Reads only the needed parts of an object from its text, in one pass.
//!
//! Owns how the rest is skipped: `managedFields`, environment variables, volumes and images are most of an object's text, and converting
//! them to values takes longer than everything else that is done with a pod. The fields that a kind needs are listed beside its type.
//! Nothing is validated here: a field of another shape is passed on unchanged.
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Which parts of a value are needed.
#[derive(Clone, Copy, Debug)]
pub enum Needed {
    /// All of it.
    Whole,
    /// These fields of an object; for a list, these fields of each element.
    Fields(&'static [(&'static str, Needed)]),
    /// The parts that either of two lists needs. A field that either list needs whole is read whole.
    Either(&'static [(&'static str, Needed)], &'static [(&'static str, Needed)]),
}

impl Needed {
    /// Which parts of a field are needed; `None` if the field is not needed.
    pub fn of(self, name: &str) -> Option<Self> {
        self.named(name).map(|(_, needed)| needed)
    }

    /// The same, with the name as a static text.
    fn named(self, name: &str) -> Option<(&'static str, Self)> {
        let find = |fields: &'static [(&'static str, Self)]| fields.iter().find(|(known, _)| *known == name).copied();
        match self {
            Self::Whole => None,
            Self::Fields(fields) => find(fields),
            Self::Either(a, b) => match (find(a), find(b)) {
                (Some((name, Self::Fields(a))), Some((_, Self::Fields(b)))) => Some((name, Self::Either(a, b))),
                (found, None) | (None, found) => found,
                // One of them is whole; or one is `Either`, which no kind has at this depth.
                (Some((name, _)), Some(_)) => Some((name, Self::Whole)),
            },
        }
    }
}

/// Reads the value without the parts that are not needed.
impl<'de> DeserializeSeed<'de> for Needed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        match self {
            Self::Whole => serde::Deserialize::deserialize(from),
            Self::Fields(_) | Self::Either(..) => from.deserialize_any(FieldsVisitor(self)),
        }
    }
}

struct FieldsVisitor(Needed);
impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(known) = map.next_key_seed(Key(self.0))? {
            match known {
                Some((name, needed)) => {
                    fields.insert(name.to_owned(), map.next_value_seed(needed)?);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element_seed(self.0)? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// A field's name, looked up among the needed names without being copied.
struct Key(Needed);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<(&'static str, Needed)>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<(&'static str, Needed)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.named(name))
    }
}
