//! When an authority is made, published, promoted and retired, and when a replica signs itself a new certificate. Pure:
//! (what the Secret and the ConfigMap hold, the time) to the next step. Keys are not known here.
//!
//! Two rules make sure that no agent is ever refused: an authority signs only after it has been in the bundle for
//! `SETTLE_S`, and it stays in the bundle until the last certificate that it may have signed has expired. Every replica
//! takes the same steps from the same Secret; where two take one at once, the second write conflicts, and is begun anew.
use std::collections::BTreeMap;

const DAY_S: u64 = 86_400;

/// How long an authority is valid: long enough that no step below ever hurries.
pub const AUTHORITY_S: u64 = 365 * DAY_S;
/// With less than this left the next one is made: a third of its life, most of a year's holidays.
const MAKE_NEXT_S: u64 = 120 * DAY_S;
/// How long an authority is in the bundle before it signs. Kubelet renews what it mounts within two minutes; the rest is for
/// nodes whose kubelet can't reach the API server, and for people who copy the bundle elsewhere.
const SETTLE_S: u64 = 30 * DAY_S;
/// How long a replica goes on with a certificate of an authority that the Secret no longer has: it was deleted. Shorter
/// than half of a certificate's life, as nobody can renew that one.
const ORPHAN_S: u64 = DAY_S;
/// How long a replica's own certificate is valid.
pub const LEAF_S: u64 = 7 * DAY_S;
/// With less than this left it is renewed: an API server that is away for half a week is survived.
const RENEW_LEAF_S: u64 = LEAF_S / 2;
/// More certificates than this are not kept in a bundle: three authorities live at once, and one more for each time that the
/// Secret was lost within a year.
pub const MAX_BUNDLE: usize = 8;

/// Which certificate: SHA-256 of it.
pub type Fingerprint = [u8; 32];

/// An authority whose key the Secret holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Its certificate.
    pub id: Fingerprint,
    /// Since when it is valid, in s since the Unix epoch.
    pub not_before_s: u64,
    /// Until when it is valid, in s since the Unix epoch.
    pub not_after_s: u64,
    /// When it was first seen in the bundle. Absent: not yet.
    pub published_s: Option<u64>,
}

/// What the Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The authority that signs.
    pub signing: Authority,
    /// The one that will.
    pub next: Option<Authority>,
    /// Those that did, without their keys, and until when they are valid.
    pub retired: BTreeMap<Fingerprint, u64>,
}

/// The certificate that a replica shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Who signed it.
    pub authority: Fingerprint,
    /// Until when it is valid, in s since the Unix epoch.
    pub not_after_s: u64,
}

/// What is to be done next to Secret or ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write a Secret with a new authority; those of the bundle that are valid are retired, so that they stay in it.
    Found,
    /// Write the ConfigMap: these certificates and no others.
    Publish(Vec<Fingerprint>),
    /// Note in the Secret that its authorities are in the bundle from now on.
    NotePublished,
    /// Write a new authority into the Secret, as the next one.
    MakeNext,
    /// The next one signs from now on, and the one that did is retired.
    Promote,
    /// Strike those that expired from the Secret's retired.
    Forget,
}

impl Authority {
    fn is_valid(&self, now_s: u64) -> bool {
        self.not_before_s <= now_s && now_s < self.not_after_s
    }

    /// What was noted by a clock that was ahead does not count.
    fn is_published(&self, now_s: u64) -> bool {
        self.published_s.is_some_and(|since| since <= now_s)
    }
}

impl Held {
    /// The certificates that the bundle has to have.
    pub fn bundle(&self) -> Vec<Fingerprint> {
        let keyed = [Some(self.signing.id), self.next.map(|next| next.id)];
        keyed.into_iter().flatten().chain(self.retired.keys().copied()).collect()
    }
}

/// The next step, given what the Secret holds and which certificates the bundle has. Absent: all is done for now.
pub fn step(held: Option<&Held>, bundle: &[Fingerprint], now_s: u64) -> Option<Step> {
    let Some(held) = held else { return Some(Step::Found) };
    // Nobody ran for months, or a clock was wrong that made it. No agent takes what it signs, so nothing is lost by haste.
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

/// Whether a replica signs itself a new certificate now.
pub fn is_leaf_due(held: &Held, leaf: Option<&Leaf>, now_s: u64) -> bool {
    let Some(leaf) = leaf else { return true };
    // It was signed by a clock that was ahead, and agents may not take it yet; or agents are not told of its authority any more.
    if leaf.not_after_s > now_s + LEAF_S + DAY_S || !held.bundle().contains(&leaf.authority) {
        return true;
    }
    if leaf.authority == held.signing.id {
        // An authority's last certificates live as long as it does: there is nothing to win by signing them anew.
        return leaf.not_after_s < (now_s + RENEW_LEAF_S).min(held.signing.not_after_s);
    }
    let settled = held.signing.published_s.is_some_and(|since| since + ORPHAN_S <= now_s);
    settled || leaf.not_after_s < now_s + DAY_S
}

/// Until when a certificate is valid that is signed now.
pub fn leaf_not_after_s(held: &Held, now_s: u64) -> u64 {
    (now_s + LEAF_S).min(held.signing.not_after_s)
}

/// What is done for a step to what the Secret holds. `made` is the certificate of a new authority, where the step makes one.
///
/// It serves the tests of this file and the writer of the Secret: both move the same way.
pub fn stepped(
    held: Option<&Held>,
    step: &Step,
    bundle: &BTreeMap<Fingerprint, u64>,
    made: Authority,
    now_s: u64,
) -> Held {
    let Some(held) = held else {
        let valid = bundle.iter().filter(|(_, not_after_s)| **not_after_s > now_s);
        // The longest valid are those that agents need most.
        let mut valid: Vec<_> = valid.map(|(id, not_after_s)| (*not_after_s, *id)).collect();
        valid.sort_unstable_by(|a, b| b.cmp(a));
        let retired = valid.into_iter().take(MAX_BUNDLE - 2).map(|(not_after_s, id)| (id, not_after_s)).collect();
        return Held { signing: made, next: None, retired };
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
