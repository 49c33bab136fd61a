//! When a CA is created, published, promoted and retired, and when a replica signs a new certificate for itself. Pure:
//! (content of the Secret and the ConfigMap, time) to the next step. Does not handle keys.
//!
//! Two rules ensure that agents always trust the server: a CA signs only after it has been in the bundle for `SETTLE_S`, and it
//! stays in the bundle until the last certificate that it may have signed has expired. Every replica takes the same steps from the
//! same Secret; if two take a step at once, the second write conflicts and is retried from the new content.
use std::collections::BTreeMap;

const DAY_S: u64 = 86_400;

/// How long a CA is valid: long enough that no step below is urgent.
pub const AUTHORITY_S: u64 = 365 * DAY_S;
/// The next CA is created when less than this is left: a third of its life.
const MAKE_NEXT_S: u64 = 120 * DAY_S;
/// How long a CA is in the bundle before it signs. Kubelet updates mounted files within two minutes; the rest is for
/// nodes whose kubelet cannot reach the API server, and for people who copy the bundle elsewhere.
const SETTLE_S: u64 = 30 * DAY_S;
/// How long a replica keeps using a certificate of a CA that is no longer in the Secret, because the Secret was deleted. Shorter
/// than half of a certificate's life, since it cannot be renewed.
const ORPHAN_S: u64 = DAY_S;
/// How long a replica's own certificate is valid.
pub const LEAF_S: u64 = 7 * DAY_S;
/// The certificate is renewed when less than this is left: an API server may be down for half a week.
const RENEW_LEAF_S: u64 = LEAF_S / 2;
/// The most certificates in a bundle: three CAs exist at once, plus one for each time that the Secret was lost within a
/// year.
pub const MAX_BUNDLE: usize = 8;

/// The SHA-256 of a certificate, which identifies it.
pub type Fingerprint = [u8; 32];

/// A CA whose key is in the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateAuthority {
    /// Its certificate.
    pub id: Fingerprint,
    /// Since when it is valid, in s since the Unix epoch.
    pub not_before_s: u64,
    /// Until when it is valid, in s since the Unix epoch.
    pub not_after_s: u64,
    /// When it was first seen in the bundle. `None` if not yet.
    pub published_s: Option<u64>,
}

/// The content of the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretContents {
    /// The CA that signs.
    pub signing: CertificateAuthority,
    /// The CA that will sign next.
    pub next: Option<CertificateAuthority>,
    /// CAs that signed before, without their keys, and until when they are valid.
    pub retired: BTreeMap<Fingerprint, u64>,
}

/// The certificate that a replica uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The CA that signed it.
    pub authority: Fingerprint,
    /// Until when it is valid, in s since the Unix epoch.
    pub not_after_s: u64,
}

/// The next write to the Secret or the ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write a Secret with a new CA; the valid certificates of the bundle become retired CAs, so that they stay in it.
    Found,
    /// Write the ConfigMap with exactly these certificates.
    Publish(Vec<Fingerprint>),
    /// Record in the Secret that its CAs are in the bundle from now on.
    NotePublished,
    /// Write a new CA into the Secret, as the next one.
    MakeNext,
    /// The next CA signs from now on, and the current one is retired.
    Promote,
    /// Remove expired CAs from the retired CAs of the Secret.
    Forget,
}

impl CertificateAuthority {
    fn is_valid(&self, now_s: u64) -> bool {
        self.not_before_s <= now_s && now_s < self.not_after_s
    }

    /// A time in the future, recorded by a clock that was ahead, does not count.
    fn is_published(&self, now_s: u64) -> bool {
        self.published_s.is_some_and(|since| since <= now_s)
    }
}

impl SecretContents {
    /// The certificates that the bundle must contain.
    pub fn bundle(&self) -> Vec<Fingerprint> {
        let keyed = [Some(self.signing.id), self.next.map(|next| next.id)];
        keyed.into_iter().flatten().chain(self.retired.keys().copied()).collect()
    }
}

/// The next step, given the content of the Secret and the certificates of the bundle. `None` if nothing is due.
pub fn step(held: Option<&SecretContents>, bundle: &[Fingerprint], now_s: u64) -> Option<Step> {
    let Some(held) = held else { return Some(Step::Found) };
    // No replica ran for months, or the CA was created by a wrong clock. No agent trusts what it signs, so there is nothing to wait for.
    if !held.signing.is_valid(now_s) {
        return Some(if held.next.is_some_and(|next| next.is_valid(now_s)) { Step::Promote } else { Step::MakeNext });
    }
    if held.retired.values().any(|not_after_s| *not_after_s <= now_s) {
        return Some(Step::Forget);
    }
    let wanted = held.bundle();
    let is_same = wanted.len() == bundle.len() && wanted.iter().all(|id| bundle.contains(id));
    if !is_same {
        return Some(Step::Publish(wanted));
    }
    if [Some(held.signing), held.next].into_iter().flatten().any(|authority| !authority.is_published(now_s)) {
        return Some(Step::NotePublished);
    }
    match held.next {
        None => (held.signing.not_after_s - now_s < MAKE_NEXT_S).then_some(Step::MakeNext),
        Some(next) => {
            let settled = next.published_s.is_some_and(|since| since + SETTLE_S <= now_s);
            (settled && next.is_valid(now_s)).then_some(Step::Promote)
        }
    }
}

/// Whether a replica must sign a new certificate for itself now.
pub fn is_leaf_due(held: &SecretContents, leaf: Option<&Leaf>, now_s: u64) -> bool {
    let Some(leaf) = leaf else { return true };
    // It was signed by a clock that was ahead, so agents may not trust it yet; or its CA is not in the bundle any more.
    if leaf.not_after_s > now_s + LEAF_S + DAY_S || !held.bundle().contains(&leaf.authority) {
        return true;
    }
    if leaf.authority == held.signing.id {
        // The last certificates of a CA expire with it, so signing them again would gain nothing.
        return leaf.not_after_s < (now_s + RENEW_LEAF_S).min(held.signing.not_after_s);
    }
    let settled = held.signing.published_s.is_some_and(|since| since + ORPHAN_S <= now_s);
    settled || leaf.not_after_s < now_s + DAY_S
}

/// The expiry of a certificate that is signed now.
pub fn leaf_not_after_s(held: &SecretContents, now_s: u64) -> u64 {
    (now_s + LEAF_S).min(held.signing.not_after_s)
}

/// The content of the Secret after a step. `made` is the certificate of a new CA, for steps that create one.
///
/// Used by the tests of this file and by the writer of the Secret, so that both behave the same.
pub fn stepped(
    held: Option<&SecretContents>,
    step: &Step,
    bundle: &BTreeMap<Fingerprint, u64>,
    made: CertificateAuthority,
    now_s: u64,
) -> SecretContents {
    let Some(held) = held else {
        let valid = bundle.iter().filter(|(_, not_after_s)| **not_after_s > now_s);
        // Keep those that are valid longest, which agents need most.
        let mut valid: Vec<_> = valid.map(|(id, not_after_s)| (*not_after_s, *id)).collect();
        valid.sort_unstable_by(|a, b| b.cmp(a));
        let retired = valid.into_iter().take(MAX_BUNDLE - 2).map(|(not_after_s, id)| (id, not_after_s)).collect();
        return SecretContents { signing: made, next: None, retired };
    };
    let mut after = held.clone();
    match step {
        Step::Found | Step::Publish(_) => {}
        Step::NotePublished => {
            for authority in [Some(&mut after.signing), after.next.as_mut()].into_iter().flatten() {
                if !authority.is_published(now_s) {
                    authority.published_s = Some(now_s);
                }
            }
        }
        Step::MakeNext => after.next = Some(made),
        Step::Promote => {
            if let Some(next) = after.next.take() {
                let before = std::mem::replace(&mut after.signing, next);
                after.retired.insert(before.id, before.not_after_s);
            }
        }
        Step::Forget => after.retired.retain(|_, not_after_s| *not_after_s > now_s),
    }
    after
}

#[cfg(test)]
mod tests;
