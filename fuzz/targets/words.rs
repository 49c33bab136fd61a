//! Small grammars: quantities, label selectors, the paths of pods' cgroups, tokens.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mcad_accounting::options::selector::Selector;
use mcad_accounting::resource::quantity::Quantity;
use mcad_agent::pod_cgroup;
use mcad_aggregator::trust::certificate::read_bundle;
use mcad_aggregator::trust::claims::Claims;

fuzz_target!(|text: &str| {
    if let Ok(quantity) = text.parse::<Quantity>() {
        // Rounded up, each to its own unit.
        let (nanos, millis, units) = (quantity.nanos(), quantity.millis(), quantity.units());
        assert!(nanos <= millis.saturating_mul(1_000_000) && millis <= units.saturating_mul(1_000), "{text}");
        assert!(quantity.is_zero() == (nanos == 0), "{text}");
    }
    if let Ok(selector) = text.parse::<Selector>() {
        let _ = selector.selects(|_| None);
        let _ = selector.selects(|_| Some("a"));
    }
    let _ = pod_cgroup::parse(text);
    let _ = Claims::read(text);
    let _ = read_bundle(text);
});
