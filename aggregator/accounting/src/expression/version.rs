//! A semantic version, as Kubernetes parses it.
//!
//! Source: blang/semver v4 `Parse`, which follows version 2.0 of the specification strictly, but limits numbers to 64
//! bits, also in pre-releases.
use semver::Version;

/// `None` if Kubernetes raises an error.
pub(super) fn read(text: &str) -> Option<Version> {
    let version = Version::parse(text).ok()?;
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_too_large = |part: &str| is_number(part) && part.parse::<u64>().is_err();
    let is_known = !version.pre.split('.').any(is_too_large);
    is_known.then_some(version)
}
