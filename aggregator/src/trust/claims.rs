//! What a ServiceAccount token says of itself. Pure. Nothing here is verified: it says why the API server refused a token,
//! and until when one holds that it did not refuse.
use serde::Deserialize;

/// Longer tokens are none: kubelet's have about 1 KiB.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The claims that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// For whom it was made out.
    #[serde(default)]
    aud: Audience,
    /// Until when it is valid, in s since the Unix epoch.
    #[serde(default)]
    pub exp: Option<u64>,
}

/// One or several, as RFC 7519 has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Claims {
    /// Reads them. Absent: it is no token that an API server makes, and none need be asked.
    pub fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (Some(_), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        if token.len() > MAX_TOKEN_BYTES || signature.is_empty() {
            return None;
        }
        serde_json::from_slice(&decode(claims)?).ok()
    }

    /// Whether it was made out for this audience.
    pub fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

/// base64url without padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for char in text.bytes() {
        let value = match char {
            b'A'..=b'Z' => char - b'A',
            b'a'..=b'z' => char - b'a' + 26,
            b'0'..=b'9' => char - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    // One character alone is no byte.
    (text.len() % 4 != 1).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_decoded_as_rfc_4648_has_it() {
        for (text, expected) in [("", ""), ("Zg", "f"), ("Zm8", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(decode(text).as_deref(), Some(expected.as_bytes()), "{text}");
        }
        assert_eq!(decode("-_8"), Some(vec![0xfb, 0xff]));
        for text in ["Z", "Zg==", "+/8", "Zm9vY", "ü"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn claims_are_those_of_the_middle_part() {
        // {"aud":["mcad-metrics"],"exp":1800000000,"sub":"x"}
        let token = "e30.eyJhdWQiOlsibWNhZC1tZXRyaWNzIl0sImV4cCI6MTgwMDAwMDAwMCwic3ViIjoieCJ9.c2ln";
        let claims = Claims::read(token).unwrap();
        assert_eq!(claims.exp, Some(1_800_000_000));
        assert!(claims.is_for("mcad-metrics") && !claims.is_for("mcad"));
        // {"aud":"one"}
        assert!(Claims::read("e30.eyJhdWQiOiJvbmUifQ.c2ln").unwrap().is_for("one"));
        assert!(!Claims::read("e30.e30.c2ln").unwrap().is_for(""));
    }

    #[test]
    fn what_no_api_server_made_is_no_token() {
        for token in ["", "x", "a.b", "e30.e30", "e30.e30.", "e30.e30.c2ln.x", "e30.!!.c2ln", "e30.Zm9v.c2ln"] {
            assert_eq!(Claims::read(token), None, "{token}");
        }
        assert_eq!(Claims::read(&format!("e30.e30.{}", "x".repeat(MAX_TOKEN_BYTES))), None);
    }
}
