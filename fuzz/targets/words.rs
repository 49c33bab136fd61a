//! Small grammars: quantities, label selectors, device selectors, cgroup paths of pods, tokens.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mcad_accounting::expression::{self, Attribute, Capacity, Described, Verdict};
use mcad_accounting::options::selector::Selector;
use mcad_accounting::resource::quantity::Quantity;
use mcad_agent::pod_cgroup;
use mcad_aggregator::trust::certificate::read_bundle;
use mcad_aggregator::trust::claims::Claims;

/// A device with only a driver.
struct Bare;

impl Described for Bare {
    fn driver(&self) -> &str {
        "gpu.nvidia.com"
    }

    fn allows_multiple_allocations(&self) -> bool {
        false
    }

    fn attribute(&self, _: &str, _: &str) -> Option<&Attribute> {
        None
    }

    fn has_attributes_of(&self, _: &str) -> bool {
        false
    }

    fn capacity(&self, _: &str, _: &str) -> Option<Capacity> {
        None
    }
}

fuzz_target!(|text: &str| {
    if let Ok(quantity) = text.parse::<Quantity>() {
        // Each is rounded up to its own unit.
        let (nanos, millis, units) = (quantity.nanos(), quantity.millis(), quantity.units());
        assert!(nanos <= millis.saturating_mul(1_000_000) && millis <= units.saturating_mul(1_000), "{text}");
        assert!(quantity.is_zero() == (nanos == 0), "{text}");
    }
    if let Ok(selector) = text.parse::<Selector>() {
        let _ = selector.selects(|_| None);
        let _ = selector.selects(|_| Some("a"));
    }
    // If an expression yields a result, its negation yields the opposite, unless a bound is exceeded.
    let verdict = |text: &str| expression::Selector::compile(text).decide(&Bare);
    let (plain, negated) = (verdict(text), verdict(&format!("!({text})")));
    assert!(plain == Verdict::Undecided || plain != negated, "{text}");
    let _ = pod_cgroup::parse(text);
    let _ = Claims::read(text);
    let _ = read_bundle(text);
});
