//! Iterates over the fields of a protobuf message in its bytes. Checks the encoding only; does not know what the fields
//! mean.
use std::error::Error;
use std::fmt;

/// Why bytes are not a valid message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes end in the middle of a field.
    Cut,
    /// The bytes are not a report, for this reason.
    Wrong(&'static str),
}

/// The fields of one message that have not been read yet.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// The value of a field, by wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer or a boolean.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// A string or a message.
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// The fields of this message.
    pub fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Reads the next field: its number and its value. `None` at the end of the message.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed::Wrong("a field number of more than 29 bits"))?;
        if key >> 3 == 0 {
            return Err(Malformed::Wrong("field 0"));
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.bytes(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            // 3 and 4 are groups, which no report ever had; 6 and 7 are not defined.
            _ => return Err(Malformed::Wrong("a wire type that reports do not use")),
        };
        Ok(Some((key >> 3, value)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        // The common case: keys, lengths and small numbers take one byte.
        if let [byte @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for at in 0..10 {
            let Some((byte, rest)) = self.rest.split_first() else { return Err(Malformed::Cut) };
            self.rest = rest;
            if at == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Wrong("a number of more than 64 bits"))
    }

    fn bytes(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = split.ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// Appends the numbers of a packed list.
pub(super) fn packed(list: &[u8], numbers: &mut Vec<u64>) -> Result<(), Malformed> {
    // The last byte of each number has its highest bit clear.
    numbers.reserve(list.iter().filter(|byte| **byte < 0x80).count());
    let mut fields = Fields::of(list);
    while !fields.rest.is_empty() {
        numbers.push(fields.varint()?);
    }
    Ok(())
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "a field that is longer than its message",
            Self::Wrong(what) => what,
        })
    }
}

impl Error for Malformed {}
