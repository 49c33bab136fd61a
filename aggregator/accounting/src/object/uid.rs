//! The UID of an object of which there are tens of thousands. It is nearly always a UUID, and is kept as a number in a quarter of the
//! memory.

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Uid {
    /// The object comes from a dump without UIDs.
    #[default]
    Unknown,
    /// A UUID in its usual spelling.
    Number([u8; 16]),
    /// Anything else.
    Text(Box<str>),
}

impl Uid {
    /// Whether both can be the UID of one object; true if one is unknown.
    pub(crate) fn may_be(&self, other: &Self) -> bool {
        *self == Self::Unknown || *other == Self::Unknown || self == other
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        match number(text.as_bytes()) {
            _ if text.is_empty() => Self::Unknown,
            Some(number) => Self::Number(number),
            None => Self::Text(text.into()),
        }
    }
}

impl From<String> for Uid {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

/// Reads a UUID with lower-case letters and with hyphens in the usual places, so that no two texts become one number.
fn number(text: &[u8]) -> Option<[u8; 16]> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    if text.len() != 36 || HYPHENS.iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let mut number = [0; 16];
    let digits = text.iter().enumerate().filter(|(at, _)| !HYPHENS.contains(at)).map(|(_, digit)| digit);
    for (at, digit) in digits.enumerate() {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number[at / 2] = number[at / 2] << 4 | digit;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        text.to_owned().into()
    }

    #[test]
    fn a_uuid_is_a_number_and_no_two_texts_are_one() {
        let usual = "01234567-89ab-cdef-0123-456789abcdef";
        let number = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
        assert_eq!(uid(usual), Uid::Number(number));
        for other in [
            &usual.to_uppercase(),
            "uid-p",
            &usual.replace('-', "0"),
            &usual[1..],
            "g1234567-89ab-cdef-0123-456789abcdef",
        ] {
            assert_eq!(uid(other), Uid::Text(other.into()));
        }
    }

    #[test]
    fn an_unknown_one_may_be_any() {
        assert!(uid("").may_be(&uid("a")) && uid("a").may_be(&uid("")) && uid("a").may_be(&uid("a")));
        assert!(!uid("a").may_be(&uid("b")));
    }
}
