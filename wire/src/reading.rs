//! A report that is read in place, without copying strings: for a receiver that reads thousands of reports per second
//! and keeps none of them.
//!
//! The types are the messages of [`crate::report`], made from the same table, but strings borrow from the report's
//! bytes. Only lists are allocated, which halves the cost of decoding. The result equals that of [`prost`]; tests
//! compare the two.
mod fields;

pub use fields::{Fields, Malformed, Value};

use crate::report as owned;
use crate::schema::schema;

/// A message that is read field by field.
trait Message<'a>: Default {
    fn field(&mut self, number: u32, value: Value<'a>) -> Result<(), Malformed>;

    fn merge(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        let mut fields = Fields::of(message);
        while let Some((number, value)) = fields.next_field()? {
            self.field(number, value)?;
        }
        Ok(())
    }
}

/// A type that a field can be read into. As protobuf defines it, a repeated scalar field replaces the earlier value, a
/// repeated message is merged into the earlier one, and list elements are appended.
trait Field<'a> {
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed>;
}

/// A borrowed message that can be copied into an owned one.
trait ToOwned {
    type Owned;

    fn to_owned(&self) -> Self::Owned;
}

/// The Rust type that a reader uses for a type of the schema.
macro_rules! kind {
    (uint32) => { u32 };
    (uint64) => { u64 };
    (double) => { f64 };
    (bool) => { bool };
    (string) => { &'a str };
    ($message:ident $(<$life:lifetime>)?) => { $message $(<$life>)? };
}

/// The Rust type of a field: the type above, with its label (optional, boxed, list).
macro_rules! labelled {
    (implicit $($kind:tt)+) => { kind!($($kind)+) };
    (optional $($kind:tt)+) => { Option<kind!($($kind)+)> };
    (boxed $($kind:tt)+) => { Option<Box<kind!($($kind)+)>> };
    (repeated uint64) => { Numbers };
    (repeated $($kind:tt)+) => { Vec<kind!($($kind)+)> };
}

macro_rules! readers {
    ($($name:ident $(<$life:lifetime>)? {
        $($number:literal $field:ident: $label:ident $kind:ident $(<$of:lifetime>)?,)*
    })*) => { $(
        #[doc = concat!("[`owned::", stringify!($name), "`]")]
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name $(<$life>)? {
            $(
                #[doc = concat!("[`", stringify!($field), "`](owned::", stringify!($name), "::", stringify!($field), ")")]
                pub $field: labelled!($label $kind $(<$of>)?),
            )*
        }

        impl<'a> Message<'a> for $name $(<$life>)? {
            #[inline]
            fn field(&mut self, number: u32, value: Value<'a>) -> Result<(), Malformed> {
                match number {
                    $($number => Field::fill(&mut self.$field, value),)*
                    // A field of a later version.
                    _ => Ok(()),
                }
            }
        }

        impl<'a> ToOwned for $name $(<$life>)? {
            type Owned = owned::$name;

            fn to_owned(&self) -> Self::Owned {
                owned::$name { $($field: ToOwned::to_owned(&self.$field),)* }
            }
        }
    )* };
}

schema!(readers);

impl<'a> Report<'a> {
    /// Reads a report from its bytes.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read_with_room(bytes, 0)
    }

    /// Reads a report as [`read`](Self::read) does, with space for this many cgroups reserved at the start. Cgroups
    /// make up most of a report, and a list that grows is copied several times.
    pub fn read_with_room(bytes: &'a [u8], cgroups: usize) -> Result<Self, Malformed> {
        let mut report = Self::default();
        if cgroups > 0 {
            report.cgroups = Some(Cgroups { cgroups: Vec::with_capacity(cgroups), ..Cgroups::default() });
        }
        report.merge(bytes)?;
        Ok(report)
    }

    /// Copies the report into an owned one.
    pub fn to_owned(&self) -> owned::Report {
        ToOwned::to_owned(self)
    }
}

macro_rules! numbers {
    ($($type:ty: $value:ident => $number:expr, $variant:ident;)*) => { $(
        impl Field<'_> for $type {
            #[inline]
            fn fill(&mut self, value: Value<'_>) -> Result<(), Malformed> {
                let Value::$variant($value) = value else { return Err(OTHER_TYPE) };
                *self = $number;
                Ok(())
            }
        }

        impl ToOwned for $type {
            type Owned = $type;

            fn to_owned(&self) -> $type {
                *self
            }
        }
    )* };
}

const OTHER_TYPE: Malformed = Malformed::Wrong("a field of another type");

numbers! {
    u64: value => value, Varint;
    // As protobuf defines it: a number that is too large is truncated.
    u32: value => value as u32, Varint;
    bool: value => value != 0, Varint;
    f64: value => f64::from_bits(value), Fixed64;
}

impl<'a> Field<'a> for &'a str {
    #[inline]
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        let Value::Bytes(bytes) = value else { return Err(OTHER_TYPE) };
        *self = str::from_utf8(bytes).map_err(|_| Malformed::Wrong("a string that is not UTF-8"))?;
        Ok(())
    }
}

impl ToOwned for &str {
    type Owned = String;

    fn to_owned(&self) -> String {
        String::from(*self)
    }
}

impl<'a, M: Message<'a>> Field<'a> for M {
    #[inline]
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        let Value::Bytes(message) = value else { return Err(OTHER_TYPE) };
        self.merge(message)
    }
}

impl<'a, T: Field<'a> + Default> Field<'a> for Option<T> {
    #[inline]
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        self.get_or_insert_default().fill(value)
    }
}

impl<'a, T: Field<'a> + Default> Field<'a> for Vec<T> {
    #[inline]
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        // The element is filled in place, because it may be large.
        self.push(T::default());
        self.last_mut().map_or(Ok(()), |element| element.fill(value))
    }
}

/// A list of numbers. Its elements stand one after the other in one field (packed), or each in a field of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(pub Vec<u64>);

impl Field<'_> for Numbers {
    fn fill(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        match value {
            Value::Varint(number) => self.0.push(number),
            Value::Bytes(packed) => fields::packed(packed, &mut self.0)?,
            Value::Fixed64(_) | Value::Fixed32(_) => return Err(OTHER_TYPE),
        }
        Ok(())
    }
}

impl ToOwned for Numbers {
    type Owned = Vec<u64>;

    fn to_owned(&self) -> Vec<u64> {
        self.0.clone()
    }
}

impl<'a> Field<'a> for Box<CgroupDetail> {
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        (**self).fill(value)
    }
}

impl<'a> Field<'a> for Box<NvlinkErrors> {
    fn fill(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        (**self).fill(value)
    }
}

impl<T: ToOwned> ToOwned for Option<T> {
    type Owned = Option<T::Owned>;

    fn to_owned(&self) -> Self::Owned {
        self.as_ref().map(T::to_owned)
    }
}

impl<T: ToOwned> ToOwned for Vec<T> {
    type Owned = Vec<T::Owned>;

    fn to_owned(&self) -> Self::Owned {
        self.iter().map(T::to_owned).collect()
    }
}

impl<T: ToOwned> ToOwned for Box<T> {
    type Owned = Box<T::Owned>;

    fn to_owned(&self) -> Self::Owned {
        Box::new((**self).to_owned())
    }
}

#[cfg(test)]
mod tests;
