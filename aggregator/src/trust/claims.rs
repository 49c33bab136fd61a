//! The claims of a ServiceAccount token. Pure. Nothing is verified here: the claims only explain why the API server refused a
//! token, and until when an accepted token is valid.
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;

/// The longest token: kubelet's tokens have about 1 KiB.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The claims that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// The audiences that it was issued for.
    #[serde(default)]
    aud: Audience,
    /// Until when it is valid, in s since the Unix epoch.
    #[serde(default)]
    pub exp: Option<u64>,
    /// Its subject.
    #[serde(default)]
    pub sub: Option<String>,
}

/// One or several audiences, see RFC 7519.
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
    /// Parses the claims. `None` if no API server issues such tokens, so that no review is needed.
    pub fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (Some(_), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        if token.len() > MAX_TOKEN_BYTES || signature.is_empty() {
            return None;
        }
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    /// Whether it was issued for this audience.
    pub fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }

    #[test]
    fn a_token_is_as_long_as_it_may_be() {
        let token = |length| Claims::read(&format!("e30.e30.{}", "x".repeat(length - "e30.e30.".len())));
        assert!(token(MAX_TOKEN_BYTES).is_some());
        assert_eq!(token(MAX_TOKEN_BYTES + 1), None);
    }
}
