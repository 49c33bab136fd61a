//! Tests of the rotation: single steps with values, then years of rotation with replicas that start and end.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;

fn id(number: u8) -> Fingerprint {
    [number; 32]
}

fn authority(number: u8, days_left: u64, days_published: Option<u64>) -> CertificateAuthority {
    let published_s = days_published.map(|days| NOW - days * DAY_S);
    CertificateAuthority { id: id(number), not_before_s: 0, not_after_s: NOW + days_left * DAY_S, published_s }
}

fn held(signing: CertificateAuthority, next: Option<CertificateAuthority>) -> SecretContents {
    SecretContents { signing, next, retired: BTreeMap::new() }
}

#[track_caller]
fn check(held: &SecretContents, bundle: &[u8], expected: Option<&Step>) {
    let bundle: Vec<_> = bundle.iter().map(|number| id(*number)).collect();
    assert_eq!(step(Some(held), &bundle, NOW).as_ref(), expected);
}

#[test]
fn without_a_secret_one_is_founded_whatever_the_bundle_says() {
    assert_eq!(step(None, &[], NOW), Some(Step::Found));
    assert_eq!(step(None, &[id(1)], NOW), Some(Step::Found));
}

#[test]
fn a_secret_that_was_lost_leaves_in_the_bundle_what_agents_still_need() {
    let bundle = BTreeMap::from([(id(1), NOW + DAY_S), (id(2), NOW), (id(3), NOW + 2 * DAY_S)]);
    let founded = stepped(None, &Step::Found, &bundle, authority(9, 365, None), NOW);
    assert_eq!(founded.retired, BTreeMap::from([(id(1), NOW + DAY_S), (id(3), NOW + 2 * DAY_S)]));
    let many = (10..40).map(|number| (id(number), NOW + u64::from(number))).collect();
    let founded = stepped(None, &Step::Found, &many, authority(9, 365, None), NOW);
    assert_eq!(founded.bundle().len(), MAX_BUNDLE - 1);
    assert!(founded.retired.contains_key(&id(39)) && !founded.retired.contains_key(&id(10)));
}

#[test]
fn an_authority_is_published_then_noted_then_left_alone() {
    check(&held(authority(1, 365, None), None), &[], Some(&Step::Publish(vec![id(1)])));
    check(&held(authority(1, 365, None), None), &[1], Some(&Step::NotePublished));
    check(&held(authority(1, 364, Some(1)), None), &[1], None);
    check(&held(authority(1, 120, Some(9)), None), &[1], None);
}

#[test]
fn what_does_not_belong_into_the_bundle_is_taken_out() {
    check(&held(authority(1, 300, Some(9)), None), &[1, 66], Some(&Step::Publish(vec![id(1)])));
    check(&held(authority(1, 300, Some(9)), None), &[66], Some(&Step::Publish(vec![id(1)])));
}

#[test]
fn the_next_is_made_in_time_and_signs_when_it_has_been_in_the_bundle_for_long_enough() {
    check(&held(authority(1, 119, Some(99)), None), &[1], Some(&Step::MakeNext));
    let unpublished = held(authority(1, 119, Some(99)), Some(authority(2, 365, None)));
    check(&unpublished, &[1], Some(&Step::Publish(vec![id(1), id(2)])));
    check(&unpublished, &[1, 2], Some(&Step::NotePublished));
    check(&held(authority(1, 90, Some(99)), Some(authority(2, 340, Some(29)))), &[1, 2], None);
    check(&held(authority(1, 89, Some(99)), Some(authority(2, 335, Some(30)))), &[1, 2], Some(&Step::Promote));
}

#[test]
fn one_that_signed_stays_in_the_bundle_until_it_expires() {
    let mut after = held(authority(2, 300, Some(40)), None);
    after.retired.insert(id(1), NOW + 1);
    check(&after, &[2, 1], None);
    after.retired.insert(id(1), NOW);
    check(&after, &[2, 1], Some(&Step::Forget));
    assert!(stepped(Some(&after), &Step::Forget, &BTreeMap::new(), authority(9, 1, None), NOW).retired.is_empty());
}

#[test]
fn after_months_of_nobody_a_new_authority_signs_at_once() {
    let mut expired = held(authority(1, 0, Some(365)), None);
    check(&expired, &[1], Some(&Step::MakeNext));
    expired = stepped(Some(&expired), &Step::MakeNext, &BTreeMap::new(), authority(2, 365, None), NOW);
    check(&expired, &[1], Some(&Step::Promote));
    let promoted = stepped(Some(&expired), &Step::Promote, &BTreeMap::new(), authority(9, 1, None), NOW);
    check(&promoted, &[1], Some(&Step::Forget));
}

#[track_caller]
fn check_leaf(held: &SecretContents, leaf: Option<(u8, u64)>, expected: bool) {
    let leaf = leaf.map(|(authority, left_s)| Leaf { authority: id(authority), not_after_s: NOW + left_s });
    assert_eq!(is_leaf_due(held, leaf.as_ref(), NOW), expected, "{leaf:?}");
}

#[test]
fn a_certificate_is_renewed_when_half_of_it_is_over_and_when_another_authority_signs() {
    let one = held(authority(1, 300, Some(40)), None);
    check_leaf(&one, None, true);
    check_leaf(&one, Some((1, RENEW_LEAF_S)), false);
    check_leaf(&one, Some((1, RENEW_LEAF_S - 1)), true);
    check_leaf(&one, Some((7, LEAF_S)), true);
}

#[test]
fn after_a_secret_was_lost_the_certificate_of_the_old_authority_is_shown_for_a_day() {
    let retired = BTreeMap::from([(id(7), NOW + 300 * DAY_S)]);
    let lost = |published| SecretContents { retired: retired.clone(), ..held(authority(1, 365, published), None) };
    check_leaf(&lost(None), Some((7, RENEW_LEAF_S)), false);
    check_leaf(&lost(Some(0)), Some((7, RENEW_LEAF_S)), false);
    check_leaf(&lost(Some(1)), Some((7, RENEW_LEAF_S)), true);
    check_leaf(&lost(None), Some((7, DAY_S - 1)), true);
}

#[test]
fn a_certificate_whose_authority_agents_are_not_told_of_any_more_is_renewed_at_once() {
    // Secret and ConfigMap were emptied together: the CA before is unknown.
    check_leaf(&held(authority(1, 365, None), None), Some((7, LEAF_S)), true);
}

/// A certificate that was signed by a clock that was this far ahead.
const AHEAD_S: u64 = 400 * DAY_S;

fn of_the_future(number: u8) -> CertificateAuthority {
    let (not_before_s, not_after_s) = (NOW + AHEAD_S - DAY_S, NOW + AHEAD_S + AUTHORITY_S);
    CertificateAuthority { id: id(number), not_before_s, not_after_s, published_s: Some(NOW + AHEAD_S) }
}

#[test]
fn an_authority_that_is_not_valid_yet_makes_room_for_one_that_is_and_stays_in_the_bundle() {
    let made = authority(9, 365, None);
    let alone = held(of_the_future(1), None);
    check(&alone, &[1], Some(&Step::MakeNext));
    let with_next = stepped(Some(&alone), &Step::MakeNext, &BTreeMap::new(), made, NOW);
    check(&with_next, &[1], Some(&Step::Promote));
    let promoted = stepped(Some(&with_next), &Step::Promote, &BTreeMap::new(), made, NOW);
    assert_eq!(promoted.bundle(), [id(9), id(1)], "replicas may show what it signed");
    // A next CA that is not valid yet is as useless.
    check(&held(of_the_future(1), Some(of_the_future(2))), &[1, 2], Some(&Step::MakeNext));
    check(&held(authority(3, 100, Some(200)), Some(of_the_future(2))), &[3, 2], Some(&Step::NotePublished));
    let noted = CertificateAuthority { published_s: Some(NOW - SETTLE_S), ..of_the_future(2) };
    check(&held(authority(3, 100, Some(200)), Some(noted)), &[3, 2], None);
}

#[test]
fn what_a_clock_noted_that_was_ahead_is_noted_anew() {
    let ahead = CertificateAuthority { published_s: Some(NOW + AHEAD_S), ..authority(1, 300, None) };
    check(&held(ahead, None), &[1], Some(&Step::NotePublished));
    let noted = stepped(Some(&held(ahead, None)), &Step::NotePublished, &BTreeMap::new(), ahead, NOW);
    assert_eq!(noted.signing.published_s, Some(NOW));
    check_leaf(&noted, Some((1, AHEAD_S)), true);
    check_leaf(&noted, Some((1, LEAF_S + DAY_S)), false);
}

#[test]
fn no_certificate_outlives_its_authority_nor_is_it_signed_over_and_over_at_the_end() {
    let last_days = held(authority(1, 2, Some(300)), Some(authority(2, 365, None)));
    assert_eq!(leaf_not_after_s(&last_days, NOW), NOW + 2 * DAY_S);
    check_leaf(&last_days, Some((1, 2 * DAY_S)), false);
}

/// A cluster over years: Secret, ConfigMap, replicas, and agents with an old bundle.
struct World {
    now_s: u64,
    held: Option<SecretContents>,
    bundle: BTreeMap<Fingerprint, u64>,
    /// Every bundle, and since when it was published.
    bundles: Vec<(u64, Vec<Fingerprint>)>,
    leaves: [Option<Leaf>; 2],
    made: u64,
}

impl World {
    fn new() -> Self {
        let (held, bundle, bundles) = (None, BTreeMap::new(), Vec::new());
        Self { now_s: NOW, held, bundle, bundles, leaves: [None; 2], made: 0 }
    }

    fn make(&mut self) -> CertificateAuthority {
        self.made += 1;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.made.to_be_bytes());
        let (not_before_s, not_after_s) = (self.now_s - DAY_S, self.now_s + AUTHORITY_S);
        CertificateAuthority { id, not_before_s, not_after_s, published_s: None }
    }

    fn not_after_s(&self, id: &Fingerprint) -> u64 {
        let held = self.held.as_ref().unwrap();
        let keyed = [Some(held.signing), held.next].into_iter().flatten().map(|one| (one.id, one.not_after_s));
        keyed.chain(held.retired.clone()).find(|(known, _)| known == id).unwrap().1
    }

    /// A round of a replica in which the API server accepts a given number of writes.
    fn round(&mut self, replica: usize, writes: u32) {
        for _ in 0..writes {
            let seen: Vec<_> = self.bundle.keys().copied().collect();
            let Some(step) = step(self.held.as_ref(), &seen, self.now_s) else { break };
            if let Step::Publish(wanted) = &step {
                self.bundle = wanted.iter().map(|id| (*id, self.not_after_s(id))).collect();
                self.bundles.push((self.now_s, wanted.clone()));
            } else {
                let made = self.make();
                self.held = Some(stepped(self.held.as_ref(), &step, &self.bundle, made, self.now_s));
            }
        }
        if let Some(held) = &self.held
            && is_leaf_due(held, self.leaves[replica].as_ref(), self.now_s)
        {
            let not_after_s = leaf_not_after_s(held, self.now_s);
            self.leaves[replica] = Some(Leaf { authority: held.signing.id, not_after_s });
        }
    }

    /// Whether an agent with a bundle of this age trusts the certificate of a replica.
    fn is_accepted(&self, replica: usize, bundle_age_s: u64) -> bool {
        let seen = self.bundles.iter().rev().find(|(since, _)| *since + bundle_age_s <= self.now_s);
        // An agent without any bundle did not exist yet.
        let (Some((_, bundle)), Some(leaf)) = (seen, &self.leaves[replica]) else { return true };
        bundle.contains(&leaf.authority) && leaf.not_after_s > self.now_s
    }
}

#[test]
fn over_ten_years_no_agent_with_a_bundle_of_less_than_a_month_is_refused() {
    let mut world = World::new();
    for hour in 0..10 * 365 * 24 {
        world.round(hour % 2, 9);
        for (replica, days) in [(0, 0), (1, 0), (0, 29), (1, 29)] {
            assert!(world.is_accepted(replica, days * DAY_S), "hour {hour}, replica {replica}, {days} days");
        }
        assert!(world.bundle.len() <= 3);
        world.now_s += 3600;
    }
    // The next CA is created 245 days after the one before.
    let published: std::collections::BTreeSet<_> = world.bundles.iter().flat_map(|(_, bundle)| bundle).collect();
    assert_eq!(published.len(), 15);
}

#[test]
fn a_secret_that_is_deleted_refuses_no_agent_whose_kubelet_is_up() {
    let mut world = World::new();
    for hour in 0..2 * 365 * 24 {
        if hour % 2000 == 1999 {
            world.held = None;
        }
        world.round(0, 9);
        world.round(1, 9);
        for replica in [0, 1] {
            assert!(world.is_accepted(replica, DAY_S / 2), "hour {hour}");
        }
        assert!(world.bundle.len() <= MAX_BUNDLE);
        world.now_s += 3600;
    }
}

proptest! {
    #[test]
    fn whatever_writes_get_through_and_whoever_restarts_no_agent_is_refused(
        days in proptest::collection::vec((0_u32..3, any::<bool>(), 0_u8..30), 1000)
    ) {
        let mut world = World::new();
        world.round(0, 9);
        world.round(1, 9);
        for (writes, first, restart) in days {
            if restart < 2 {
                world.leaves[usize::from(restart)] = None;
            }
            let replica = usize::from(first);
            world.round(replica, writes);
            world.round(1 - replica, 0);
            for replica in [0, 1] {
                prop_assert!(world.is_accepted(replica, 29 * DAY_S));
            }
            world.now_s += DAY_S;
        }
    }
}
