//! The bar of one quota of a ClusterQueue: what is held, reserved, left and borrowed, and above it how much of the quota has no hardware.
//!
//! The same amounts are in the text alternative of the bar, which the page also shows as text.
use maud::{Markup, html};
use mcad_accounting::cluster::owner::ByOwner;
use mcad_accounting::queue::account::{QueueState, QuotaAccount};
use mcad_accounting::queue::hardware::FlavorResources;
use mcad_accounting::queue::usage::Usage;
use mcad_accounting::resource::Resource;
use mcad_accounting::resource::amount::Amount;

use super::amount::shown;
use super::bars::{Part, strip};
use crate::explain::amount::{agreeing, list};

/// See the module's documentation. Amounts are in millicores, bytes or devices.
pub(super) struct QuotaBar {
    nominal: Amount,
    reserved: ByOwner<i128>,
    /// Reserved, and held by no pod. `None` if Pods are not known.
    unheld: Option<ByOwner<i128>>,
    /// Held by pods beyond what is reserved for them. 0 if that is not known.
    excess: i128,
    left: Left,
    /// What it could borrow now. 0 if the queue is not active.
    borrowable: Amount,
    /// Quota of the flavor in all queues and cohorts.
    of_flavor: Amount,
    /// What of that has no hardware. `None` if not known, or if the resource is no hardware.
    unbacked: Option<Amount>,
}

/// What is said of quota that is not reserved.
enum Left {
    /// It is free, except what other queues use of it.
    Lent(i128),
    /// The queue is not active: it cannot use the rest, and how much other queues use of it is not known.
    Closed,
}

impl QuotaBar {
    pub(super) fn new(
        quota: &QuotaAccount,
        state: QueueState,
        of_flavor: Option<&FlavorResources>,
        knows_pods: bool,
    ) -> Self {
        let each = |value: fn(&Usage) -> i128| ByOwner {
            appwrapper: value(&quota.usage.appwrapper),
            other: value(&quota.usage.other),
        };
        let nominal = quota.quota.map(|quota| quota.nominal).unwrap_or_default();
        let reserved = each(|usage| usage.reserved);
        let unused = nominal.minus(quota.usage.reserved()).or_zero();
        let (left, borrowable) = match state {
            QueueState::Active => {
                let lent = unused.minus(quota.available).or_zero();
                (Left::Lent(lent.units().unwrap_or(0)), quota.available.minus(unused).or_zero())
            }
            _ => (Left::Closed, Amount::ZERO),
        };
        Self {
            nominal,
            reserved,
            unheld: knows_pods.then(|| each(|usage| usage.unheld)),
            excess: if knows_pods { each(|usage| usage.excess).in_all() } else { 0 },
            left,
            borrowable,
            of_flavor: of_flavor.map(|of| of.nominal).unwrap_or_default(),
            unbacked: of_flavor.and_then(FlavorResources::unbacked),
        }
    }

    /// What is reserved in all.
    pub(super) fn reserved(&self) -> i128 {
        self.reserved.in_all()
    }

    /// Of the quota what is not reserved. `None` if the quota is unlimited.
    fn unused(&self) -> Option<i128> {
        Some((self.nominal.units()? - self.reserved()).max(0))
    }

    fn borrowed(&self) -> i128 {
        self.nominal.units().map_or(0, |nominal| (self.reserved() - nominal).max(0))
    }

    /// At most so much of this quota has no hardware. `None` if not known, or if no number can be given.
    fn unbacked(&self) -> Option<i128> {
        Some(self.unbacked?.units()?.min(self.nominal.units()?))
    }

    /// What is reserved, by whom and whether pods hold it; and what is not reserved.
    fn use_of_it(&self) -> Vec<Part> {
        let Self { reserved, unheld, .. } = self;
        let mut parts = match unheld {
            None => vec![
                Part::new("appwrapper", "reserved by AppWrappers", reserved.appwrapper),
                Part::new("other", "reserved by others", reserved.other),
            ],
            Some(unheld) => vec![
                Part::new("appwrapper", "held by pods of AppWrappers", reserved.appwrapper - unheld.appwrapper),
                Part::new("other", "held by other pods", reserved.other - unheld.other),
                Part::new("stuck", "reserved and held by no pod", unheld.in_all()),
            ],
        };
        if let Some(unused) = self.unused() {
            match self.left {
                Left::Lent(lent) => {
                    let lent = lent.min(unused);
                    parts.push(Part::new("free", "free", unused - lent));
                    parts.push(Part::new("kept", "not reserved, but in use by other queues of the cohort", lent));
                }
                Left::Closed => parts.push(Part::new("kept", "not reserved", unused)),
            }
        }
        parts
    }

    /// The quota itself: with and without hardware, and what is borrowed beyond it.
    fn quota(&self) -> Vec<Part> {
        let unbacked = self.unbacked().unwrap_or(0);
        let nominal = self.nominal.units().unwrap_or(0);
        vec![
            Part::new("declared", "quota", nominal - unbacked),
            Part::new("broken", "quota without hardware", unbacked),
            Part::new("borrowed", "borrowed", self.borrowed()),
        ]
    }

    /// The bar. Empty if there is nothing to draw to scale.
    pub(super) fn drawn(&self, resource: &Resource) -> Markup {
        let borrowable = self.borrowable.units().unwrap_or(0);
        let quota = self.nominal.units().unwrap_or(0);
        let whole = (quota.max(self.reserved()) + borrowable) as f64;
        html! {
            svg.bar.quota viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label=(self.in_words(resource)) {
                rect.ground x="0" y="0" width="1000" height="10" {}
                (strip(&self.quota(), whole, 0, 3))
                (strip(&self.use_of_it(), whole, 3, 7))
            }
        }
    }

    /// All of it in words.
    pub(super) fn in_words(&self, resource: &Resource) -> String {
        let amount = |amount: i128| shown(resource, amount as f64);
        let parts = self.use_of_it();
        let parts = parts.iter().filter(|part| part.amount > 0.0);
        let parts: Vec<_> = parts.map(|part| format!("{} {}", shown(resource, part.amount), part.label)).collect();
        let mut sentences = vec![if parts.is_empty() { "nothing reserved".to_owned() } else { list(&parts) }];
        if self.unheld.is_none() && self.reserved() > 0 {
            sentences.push("how much of it pods hold is unknown".to_owned());
        }
        if self.excess > 0 {
            sentences.push(format!("pods hold {} more than is reserved for them", amount(self.excess)));
        }
        if self.nominal.is_unlimited() {
            sentences.push("the quota is unlimited".to_owned());
        }
        let borrowed = self.borrowed();
        if borrowed > 0 {
            let borrowed = amount(borrowed);
            let are = agreeing(&borrowed, "is", "are");
            sentences.push(format!("{borrowed} of these {are} borrowed"));
        }
        match self.borrowable.units() {
            None if !self.nominal.is_unlimited() => sentences.push("more can be borrowed without limit".to_owned()),
            Some(borrowable) if borrowable > 0 => {
                sentences.push(format!("{} more can be borrowed", amount(borrowable)));
            }
            _ => {}
        }
        if let (Some(unbacked), Some(promised)) = (self.unbacked.and_then(Amount::units), self.of_flavor.units())
            && unbacked > 0
            && self.nominal > Amount::ZERO
        {
            let whose = if self.of_flavor == self.nominal {
                "this quota promises"
            } else {
                "all quotas of this flavor promise"
            };
            let (unbacked, promised) = (amount(unbacked), amount(promised));
            let have = agreeing(&unbacked, "has", "have");
            sentences.push(format!("{unbacked} of the {promised} that {whose} {have} no hardware"));
        }
        sentences.join("; ") + "."
    }
}

/// The meaning of the colours.
pub(super) fn legend(knows_pods: bool) -> Markup {
    let reserved = if knows_pods {
        &[
            ("appwrapper", "held by pods of AppWrappers"),
            ("other", "held by other pods"),
            ("stuck", "reserved and held by no pod"),
        ][..]
    } else {
        &[("appwrapper", "reserved by AppWrappers"), ("other", "reserved by others")]
    };
    let rest = [
        ("free", "free: nominal quota of an active queue that is not reserved"),
        ("kept", "not reserved, but not free: other queues of the cohort use it, or its queue is not active"),
        ("declared", "nominal quota, in the upper strip"),
        ("broken", "quota without hardware: at most so much if queues share a flavor"),
        ("borrowed", "borrowed from the cohort"),
        ("track", "could be borrowed"),
    ];
    html! {
        ul.legend aria-label="Meaning of the colours of queues" {
            @for (class, label) in reserved.iter().chain(&rest) { li { span class={"key " (class)} aria-hidden="true" {} (label) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use mcad_accounting::object::quotas::Quota;

    use super::*;

    fn check(nominal: Amount, reserved: i128, available: Amount, state: QueueState, expected: &str) {
        check_of(&Resource::Gpu, [nominal, available], reserved, state, expected);
    }

    fn check_of(
        resource: &Resource,
        [nominal, available]: [Amount; 2],
        reserved: i128,
        state: QueueState,
        expected: &str,
    ) {
        let usage = ByOwner { appwrapper: Usage { reserved, ..Usage::default() }, other: Usage::default() };
        let quota =
            QuotaAccount { quota: Some(Quota { nominal, ..Quota::default() }), available, most: available, usage };
        let bar = QuotaBar::new(&quota, state, None, true);
        assert_eq!(bar.in_words(resource), expected);
        let drawn = bar.drawn(resource).into_string();
        let widths = drawn.split("width=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        assert!(widths.into_iter().all(|width| (0.0..=1000.0).contains(&width)), "{drawn}");
    }

    #[test]
    fn what_is_left_is_free_lent_or_borrowable() {
        let (of, active) = (Amount::of, QueueState::Active);
        check(of(8), 0, of(8), active, "8 free.");
        check(of(8), 3, of(5), active, "3 held by pods of AppWrappers and 5 free.");
        check(of(8), 0, of(5), active, "5 free and 3 not reserved, but in use by other queues of the cohort.");
        check(of(8), 0, of(0), active, "8 not reserved, but in use by other queues of the cohort.");
        check(of(8), 3, of(9), active, "3 held by pods of AppWrappers and 5 free; 4 more can be borrowed.");
        check(of(2), 3, of(0), active, "3 held by pods of AppWrappers; 1 of these is borrowed.");
        check(of(0), 0, of(6), active, "nothing reserved; 6 more can be borrowed.");
        // A queue that admits nothing cannot use its quota, and that does not mean that others use it.
        for state in [QueueState::Stopped, QueueState::FlavorMissing, QueueState::CheckMissing, QueueState::Inactive] {
            check(of(8), 3, of(0), state, "3 held by pods of AppWrappers and 5 not reserved.");
        }
    }

    #[test]
    fn a_verb_agrees_with_the_number_as_it_is_shown() {
        let cores = |cores: i128| Amount::of(cores * 1000);
        let check = |nominal, reserved: i128, expected: &str| {
            let amounts = [nominal, Amount::ZERO];
            check_of(&Resource::Cpu, amounts, reserved, QueueState::Active, expected);
        };
        check(cores(2), 3000, "3 held by pods of AppWrappers; 1 of these is borrowed.");
        check(cores(2), 2001, "2.001 held by pods of AppWrappers; 0.001 of these are borrowed.");
        // Bytes that are rounded to 1 GiB.
        let amounts = [Amount::of(2 << 30), Amount::ZERO];
        let expected = "3 held by pods of AppWrappers; 1 of these is borrowed.";
        check_of(&Resource::Memory, amounts, (3 << 30) + 1000, QueueState::Active, expected);
    }

    #[test]
    fn what_is_unlimited_has_no_number() {
        let (of, all, active) = (Amount::of, Amount::UNLIMITED, QueueState::Active);
        check(all, 3, all, active, "3 held by pods of AppWrappers; the quota is unlimited.");
        check(of(8), 3, all, active, "3 held by pods of AppWrappers and 5 free; more can be borrowed without limit.");
        check(all, 0, of(0), QueueState::Stopped, "nothing reserved; the quota is unlimited.");
    }

    #[test]
    fn the_quota_that_may_have_no_hardware_is_at_most_that_of_the_queue() {
        let quota = QuotaAccount {
            quota: Some(Quota { nominal: Amount::of(8), ..Quota::default() }),
            available: Amount::of(8),
            most: Amount::of(8),
            usage: ByOwner::default(),
        };
        let words = |nominal: i128, backing: i128| {
            let pods = Some(mcad_accounting::queue::hardware::Backing { backing, free: 0 });
            let hardware = mcad_accounting::queue::hardware::FlavorHardware { pods, ..Default::default() };
            let flavor = FlavorResources { nominal: Amount::of(nominal), hardware: Some(hardware) };
            let bar = QuotaBar::new(&quota, QueueState::Active, Some(&flavor), true);
            (bar.unbacked(), bar.in_words(&Resource::Gpu))
        };
        let shared = "8 free; 14 of the 24 that all quotas of this flavor promise have no hardware.";
        assert_eq!(words(24, 10), (Some(8), shared.to_owned()));
        let alone = "8 free; 1 of the 8 that this quota promises has no hardware.";
        assert_eq!(words(8, 7), (Some(1), alone.to_owned()));
        assert_eq!(words(8, 8), (Some(0), "8 free.".to_owned()));
    }
}
