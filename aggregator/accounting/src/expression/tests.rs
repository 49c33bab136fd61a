//! Expressions about one device and their results.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;

mod random;

/// A device of the driver `gpu.example.com`.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) is_shared: bool,
    pub(super) attributes: BTreeMap<(&'static str, &'static str), Attribute>,
    pub(super) capacities: BTreeMap<(&'static str, &'static str), Capacity>,
}

impl Described for Device {
    fn driver(&self) -> &'static str {
        "gpu.example.com"
    }

    fn allows_multiple_allocations(&self) -> bool {
        self.is_shared
    }

    fn attribute(&self, domain: &str, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|((of, called), _)| (*of, *called) == (domain, name)).map(|(_, value)| value)
    }

    fn has_attributes_of(&self, domain: &str) -> bool {
        self.attributes.keys().any(|(of, _)| *of == domain)
    }

    fn capacity(&self, domain: &str, name: &str) -> Option<Capacity> {
        self.capacities.iter().find(|((of, called), _)| (*of, *called) == (domain, name)).map(|(_, value)| *value)
    }
}

fn gpu() -> Device {
    let attributes = [
        (("d.io", "model"), Attribute::String("NVIDIA A100-SXM4-80GB".into())),
        (("d.io", "index"), Attribute::Int(3)),
        (("d.io", "mig"), Attribute::Bool(true)),
        (("d.io", "vfio"), Attribute::Bool(false)),
        (("d.io", "version"), Attribute::Version("1.2.3".into())),
        (("d.io", "early"), Attribute::Version("2.0.0-rc.9+b1".into())),
        (("d.io", "broken"), Attribute::Version("1.2".into())),
        (("d.io", "list"), Attribute::Other),
        (("d.io", "accent"), Attribute::String("\u{c9}t\u{e9}".into())),
        (("other.io", "model"), Attribute::String("x".into())),
    ];
    let quantity = |text: &str| Capacity::Amount(text.parse().unwrap());
    let capacities = [
        (("d.io", "memory"), quantity("80Gi")),
        (("d.io", "half"), quantity("500m")),
        (("d.io", "huge"), quantity("1e300")),
        (("d.io", "unread"), Capacity::Other),
        (("bare.io", "memory"), quantity("1")),
    ];
    Device { is_shared: true, attributes: attributes.into(), capacities: capacities.into() }
}

/// Expands abbreviations: `A.` stands for the attributes of `d.io`, `C.` for its capacities.
fn written_out(short: &str) -> String {
    short.replace("A.", "device.attributes['d.io'].").replace("C.", "device.capacity['d.io'].")
}

fn answer(text: &str) -> Verdict {
    Selector::compile(text).decide(&gpu())
}

#[track_caller]
fn check(expected: Verdict, expressions: &[&str]) {
    for short in expressions {
        assert_eq!(answer(&written_out(short)), expected, "{short}");
    }
}

/// Checks that each expression is yes, and its negation no.
#[track_caller]
fn holds(expressions: &[&str]) {
    check(Verdict::Yes, expressions);
    for short in expressions {
        assert_eq!(answer(&format!("!({})", written_out(short))), Verdict::No, "!({short})");
    }
}

/// Checks that each expression is undecided, and that another part can decide: the API server would store it.
#[track_caller]
fn undecided(expressions: &[&str]) {
    check(Verdict::Undecided, expressions);
    for short in expressions.iter().map(|short| written_out(short)) {
        for (around, expected) in [
            (format!("({short}) && false"), Verdict::No),
            (format!("false && ({short})"), Verdict::No),
            (format!("({short}) || true"), Verdict::Yes),
            (format!("true || ({short})"), Verdict::Yes),
            (format!("({short}) && true"), Verdict::Undecided),
            (format!("false || ({short})"), Verdict::Undecided),
            (format!("!({short})"), Verdict::Undecided),
        ] {
            assert_eq!(answer(&around), expected, "{around}");
        }
    }
}

/// Checks that each expression is undecided, and that no other part can decide: the API server would not store it, or
/// it exceeds a limit.
#[track_caller]
fn unreadable(expressions: &[&str]) {
    for short in expressions.iter().map(|short| written_out(short)) {
        for around in [short.clone(), format!("false && ({short})"), format!("({short}) || true")] {
            assert_eq!(answer(&around), Verdict::Undecided, "{around}");
        }
    }
}

#[test]
fn literals_and_fields_of_a_device_are_themselves() {
    holds(&[
        "true",
        "!false",
        "!!true",
        "(((true)))",
        "device.driver == 'gpu.example.com'",
        r#"device.driver != "other""#,
        "device.allowMultipleAllocations",
        "device.allowMultipleAllocations == true",
        "-9223372036854775808 < 9223372036854775807",
        "0x10 == 16",
        "- 3 == -3",
        "'\\x41' == r'A'",
        "true // why not\n",
    ]);
    check(Verdict::Yes, &["true // why not"]);
    check(Verdict::No, &["false", "!true", "device.driver == ''"]);
}

#[test]
fn attributes_are_found_by_domain_and_name() {
    holds(&[
        "A.mig",
        "!A.vfio",
        "A.index == 3",
        "device.attributes[\"d.io\"][\"index\"] == 3",
        "A.model == 'NVIDIA A100-SXM4-80GB'",
        "device.attributes['other.io'].model == 'x'",
        "A.mig && !A.vfio && A.index > 2",
    ]);
}

#[test]
fn comparisons_are_of_one_type_and_values_of_two_are_not_equal() {
    holds(&[
        "A.index < 4 && A.index <= 3 && A.index > 2 && A.index >= 3 && A.index != 4",
        "A.model > 'NVIDIA A100-PCI' && A.model < 'NVIDIA B'",
        "'a' < '\u{e9}' && '\u{ffff}' < '\u{10000}'",
        "A.vfio < A.mig && false < true",
        "A.index != '3'",
        "A.model != 3",
        "A.mig != 'true'",
        "!(A.mig == 1)",
        "A.index == A.index",
        "A.index != A.model",
        "A.index == 3 == A.mig",
    ]);
}

#[test]
fn conjunctions_and_disjunctions_are_decided_by_one_side() {
    holds(&[
        "true && true && true",
        "false || false || true",
        "A.missing || A.missing || A.mig",
        "!(A.missing && A.vfio)",
        "A.mig || A.missing && A.missing",
        "!((A.vfio || false) && A.missing)",
        "!(A.index && false)",
        "A.model || true",
    ]);
}

#[test]
fn what_is_there_is_asked_by_in_and_has() {
    holds(&[
        "'d.io' in device.attributes",
        "!('bare.io' in device.attributes)",
        "'model' in device.attributes['d.io']",
        "'list' in device.attributes['d.io']",
        "!('missing' in device.attributes['d.io'])",
        "!('model' in device.attributes['unknown.io'])",
        "has(A.model)",
        "has(A.list)",
        "has(A.broken)",
        "!has(A.missing)",
        "!has(device.attributes['unknown.io'].model)",
        "has(C.memory)",
        "has(C.unread)",
        "!has(C.missing)",
        "has((A.model)) && (!has(A.missing) || A.missing)",
    ]);
}

#[test]
fn in_a_list_means_equal_to_one_of_its_elements() {
    holds(&[
        "device.driver in ['a', 'gpu.example.com',]",
        "!(device.driver in [])",
        "A.index in [1, 2, 3]",
        "!(A.index in [1, 2])",
        "!(A.index in ['3'])",
        "A.index in [A.index]",
        "A.mig in [true]",
        "(A.index in [3]) == true",
    ]);
}

#[test]
fn texts_are_searched_and_cased() {
    holds(&[
        "A.model.startsWith('NVIDIA') && !A.model.startsWith('A100')",
        "A.model.endsWith('80GB') && !A.model.endsWith('80')",
        "A.model.contains('A100') && !A.model.contains('a100') && A.model.contains('')",
        "A.model.lowerAscii().contains('a100')",
        "A.model.lowerAscii() == 'nvidia a100-sxm4-80gb'",
        "device.driver.upperAscii() == 'GPU.EXAMPLE.COM'",
        "A.accent.lowerAscii() == '\u{c9}t\u{e9}' && A.accent.upperAscii() == '\u{c9}T\u{e9}'",
        "A.model.matches('A100|H100') && !A.model.matches('^A100')",
        r"A.model.matches(r'-\d{2}GB$')",
        r"A.model.matches('-\\d{2}GB$')",
        "device.driver.matches('^gpu[.]')",
        "'abc'.contains('b')",
    ]);
}

#[test]
fn quantities_are_compared_by_value_exactly() {
    holds(&[
        "C.memory.compareTo(quantity('80Gi')) == 0",
        "C.memory.compareTo(quantity('85899345920')) == 0",
        "C.memory.compareTo(quantity('85899345920.0')) == 0",
        "C.memory.compareTo(quantity('85899345921')) == -1",
        "C.memory.compareTo(quantity('85899345919999999999n')) == 1",
        "C.memory.compareTo(quantity('40Gi')) >= 0",
        "device.capacity['d.io']['memory'].isGreaterThan(quantity('80G'))",
        "!C.memory.isGreaterThan(quantity('80Gi')) && !C.memory.isLessThan(quantity('80Gi'))",
        "C.half.isLessThan(quantity('0.6'))",
        "C.half.compareTo(quantity('0.5')) == 0",
        "quantity('1').isLessThan(C.memory)",
    ]);
}

#[test]
fn versions_are_compared_by_the_rules_of_semantic_versions() {
    holds(&[
        "A.version.compareTo(semver('1.2.3')) == 0",
        "A.version.compareTo(semver('1.2.3+build.7')) == 0",
        "A.version.isGreaterThan(semver('1.2.3-rc.1'))",
        "A.version.isLessThan(semver('1.10.0'))",
        "A.early.isLessThan(semver('2.0.0'))",
        "A.early.isLessThan(semver('2.0.0-rc.10'))",
        "A.early.isGreaterThan(semver('2.0.0-rc'))",
        "A.early.isGreaterThan(semver('2.0.0-beta.11'))",
        "A.early.isLessThan(semver('2.0.0-rc.x'))",
        "A.early.isGreaterThan(A.version)",
        "semver('1.0.0-18446744073709551615').isLessThan(semver('1.0.0-a'))",
    ]);
}

#[test]
fn what_the_scheduler_raises_an_error_for_is_undecided() {
    undecided(&[
        "A.missing",
        "A.missing == 1",
        "device.attributes['unknown.io'].model == 'x'",
        "device.attributes['d.io']['missing'] != 'x'",
        "A.index > 'a'",
        "A.model < 3",
        "A.mig >= A.index",
        "A.index && true",
        "!A.model",
        "A.model.startsWith(A.index)",
        "A.index.startsWith('a')",
        "A.index.lowerAscii() == 'a'",
        "A.index.matches('a')",
        "A.missing in ['a']",
        "'NVIDIA' in [A.missing]",
        "A.index in [A.index, A.missing]",
        "C.missing.isLessThan(quantity('1'))",
        "C.memory.isLessThan(quantity('1 Gi'))",
        "C.memory.isLessThan(quantity(''))",
        "A.version.isLessThan(semver('1.2'))",
        "A.version.isLessThan(semver('v1.2.3'))",
        "A.version.isLessThan(semver('01.2.3'))",
        "A.version.isLessThan(semver('1.2.3-'))",
        "A.version.isLessThan(semver('1.2.3-18446744073709551616'))",
        "A.broken.isLessThan(semver('2.0.0'))",
        "A.model.isLessThan(semver('2.0.0'))",
        "A.version.isLessThan(quantity('1'))",
        "A.version == '1.2.3'",
    ]);
    check(Verdict::Undecided, &["A.model", "A.index", "A.list", "A.version"]);
}

#[test]
fn what_is_not_decided_here_is_undecided() {
    undecided(&[
        "A.version == A.version",
        "A.version != A.early",
        "A.version in ['1.2.3']",
        "'1.2.3' in [A.version]",
        "semver('1.2.3') == semver('1.2.3')",
        "C.memory == quantity('80Gi')",
        "C.memory in [quantity('80Gi')]",
        "C.unread.isLessThan(quantity('1'))",
        "C.memory.isGreaterThan(quantity('-1'))",
        "C.huge.compareTo(quantity('1e200')) == 1",
        "'memory' in device.capacity['d.io']",
        "'d.io' in device.capacity",
        "A.list == 1",
        "A.list.exists(x, x == 1)",
        "A.list.includes('fish')",
        "A.list == ['a']",
        "A.model == ['a']",
        "[1] == [1]",
        "1 in A.list",
        "A.model in device.attributes['d.io']",
        "device.driver in ['a', A.model]",
        "device.attributes[device.driver].model == 'x'",
        "device.attributes.model == 'x'",
        "device.newField == 1",
        "device['driver'] == 'x'",
        "has(device.driver)",
        "has(device.attributes)",
        "has(A.model.x)",
        "A.index + 1 == 4",
        "A.index * 2 - 1 % 5 / 1 == 4",
        "-A.index == -3",
        "--A.index == 3",
        "A.mig ? true : false",
        "A.mig == (true ? true : false)",
        "A.index == 3.0",
        "A.index == 3u",
        "A.model == null",
        "A.model == b'x'",
        "A.model.size() == 3",
        "size(A.model) == 3",
        "A.model.matches(A.model)",
        "A.model.matches('(?s)A')",
        "A.accent.matches('t')",
        "matches(A.model, 'A')",
        "A.model.split('-')[0] == 'x'",
        "A.model[0] == 'N'",
        "[true][0]",
        "A.?model.orValue('') == ''",
        "device.attributes[?'d.io'].hasValue()",
        "[?A.model] == []",
        "{'a': 1, ?'b': A.index,}.a == 1",
        "Foo.Bar{a: 1, ?b: 2}.a == 1",
        ".device.driver == 'x'",
        "cel.bind(dra, device.attributes['d.io'], dra.mig)",
        "[1, 2].all(device, device.x == 1)",
        "sets.contains(['a'], [A.model])",
        "isQuantity('1')",
        "C.memory.asInteger() == 1",
        "C.memory.sign() == 1",
        "C.memory.add(quantity('1')).isLessThan(C.memory)",
        "C.memory.isLessThan(quantity(A.model))",
        "A.version.isLessThan(semver('v1.2', true))",
        "semver('1.2.3').major() == 1",
        "device.name == 'x'",
        "nodeName == 'x'",
    ]);
}

#[test]
fn what_kubernetes_would_not_store_is_undecided_whatever_stands_beside_it() {
    unreadable(&[
        "",
        "?!",
        "true true",
        "true &&",
        "(true",
        "true)",
        "'a",
        "a b",
        "1 ==",
        "= 1",
        "a & b",
        "device.",
        "device.in",
        "device.`driver`",
        "device.driver == 'a' and true",
        "!-5 == 1",
        "if",
        "package == 1",
        "[1, 2",
        "[,]",
        "{1}",
        "f(1,)",
        "9223372036854775808 > 1",
        "-9223372036854775809 < 1",
        "device.driver == 1",
        "device.driver < 1",
        "1 == 'a'",
        "1 && true",
        "!1",
        "'a' || false",
        "device.driver in [1]",
        "A.model in ['a', 1]",
        "1 in device.attributes",
        "'a' in 'abc'",
        "device.driver.startsWith(1)",
        "1.0.startsWith('a', ",
        "C.memory < quantity('1')",
        "C.memory == 1",
        "C.memory.isLessThan(1)",
        "C.memory.isLessThan(semver('1.2.3'))",
        "device.driver.isLessThan(semver('1.2.3'))",
        "quantity(1) == A.model",
        "device.attributes && true",
        "has(device.attributes['d.io']['model'])",
        "A.model.lowerAscii() == 1",
        "A.version.compareTo(semver('1.0.0'))  == 'a'",
    ]);
}

#[test]
fn an_answer_that_is_no_boolean_is_undecided() {
    check(Verdict::Undecided, &["1", "'true'", "device", "[true]", "device.driver", "A.index", "quantity('1')"]);
}

#[test]
fn expressions_of_drivers_and_of_documents_are_decided() {
    let a100 = "device.driver == 'gpu.example.com' && A.model.lowerAscii().matches('^.*a100.*$') && A.mig";
    holds(&[
        a100,
        "device.driver == \"gpu.example.com\" &&\n  A.model.contains(\"A100\") &&\n  C.memory.compareTo(quantity(\"40Gi\")) >= 0\n",
        "A.model in ['NVIDIA A100-SXM4-80GB'] || A.version.compareTo(semver('1.12.0')) >= 0",
        "'index' in device.attributes['d.io'] && A.index == 3 || !('mig' in device.attributes['d.io'])",
    ]);
}

/// Runs the test in a thread with a small stack, so that an unlimited recursion fails the test.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(768 * 1024).spawn(test).unwrap().join().unwrap();
}

#[test]
fn hostile_expressions_are_read_within_bounds() {
    on_a_small_stack(|| {
        let fill = |piece: &str| piece.repeat(LONGEST / piece.len());
        for piece in [
            "(",
            ")",
            "[",
            "{",
            "!",
            "-",
            "a&&",
            "a||",
            "!(",
            "-(",
            "f(",
            "a.f(",
            "has(",
            "a[",
            "[[",
            "{a:",
            "a?",
            "a?a:",
            "a.",
            "a==",
            "a in ",
            "'",
            "\"\"\"",
            "'\\",
            "//",
            ".",
            "1",
            "0x",
            "1e",
            "\u{1f600}",
            "device.",
            "quantity(",
            "[1,",
            "r'",
        ] {
            let text = fill(piece);
            assert_eq!(answer(&text), Verdict::Undecided, "{piece}");
            assert_eq!(answer(&format!("{}a", &text[..text.len() - 4 - piece.len()])), Verdict::Undecided, "{piece}a");
        }
        for (open, middle, close) in [
            ("(", "true", ")"),
            ("!(", "true", ")"),
            ("[", "", "]"),
            ("true ? true : (", "true", ")"),
            ("true == (", "true", ")"),
            ("", "'a'", ".lowerAscii()"),
            ("", "true", "==true"),
            ("", "a", ".b"),
            ("", "a", "[0]"),
        ] {
            let times = (LONGEST - middle.len()) / (open.len() + close.len());
            let text = format!("{}{middle}{}", open.repeat(times), close.repeat(times));
            assert_eq!(answer(&text), Verdict::Undecided, "{open}{middle}{close}");
        }
    });
}

#[test]
fn what_repeats_without_nesting_has_no_bound_but_the_length() {
    on_a_small_stack(|| {
        let all = "true&&".repeat(1700) + "true";
        assert_eq!(answer(&all), Verdict::Yes);
        assert_eq!(answer(&(all + &" ".repeat(LONGEST))), Verdict::Undecided, "too long");
        assert_eq!(answer(&("!".repeat(10_000) + "true")), Verdict::Yes);
        assert_eq!(answer(&format!("5 in [{}5]", "4,".repeat(5000))), Verdict::Yes);
        assert_eq!(answer(&format!("A || {}true", "1 + 1 == 2 || ".repeat(600))), Verdict::Yes);
    });
}

#[test]
fn the_deepest_expressions_that_are_read_fit_on_a_small_stack() {
    on_a_small_stack(|| {
        let nested = |depth: usize| format!("{}true{}", "!(".repeat(depth), ")".repeat(depth));
        assert_eq!(answer(&nested(62)), Verdict::Yes);
        assert_eq!(answer(&nested(63)), Verdict::No);
        assert_eq!(answer(&nested(64)), Verdict::Undecided);
        let lists = |depth: usize| format!("1 in {}{} || true", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(answer(&lists(63)), Verdict::Undecided, "wrong by its types");
        let calls = |depth: usize| format!("{}1{} || true", "f(".repeat(depth), ")".repeat(depth));
        assert_eq!(answer(&calls(63)), Verdict::Yes);
        assert_eq!(answer(&calls(64)), Verdict::Undecided);
        let chain = |depth: usize| format!("device.driver{} != ''", ".lowerAscii()".repeat(depth));
        assert_eq!(answer(&chain(62)), Verdict::Yes);
        assert_eq!(answer(&chain(63)), Verdict::Undecided);
    });
}

#[test]
fn an_expression_has_few_patterns_and_they_are_small() {
    let patterns = |count: usize| vec!["A.model.matches('A100')"; count].join(" && ");
    holds(&[&patterns(8)]);
    unreadable(&[&patterns(9)]);
    undecided(&["A.model.matches('(a|b)*a[ab]{14}')", "A.model.matches('((a{9}){9}){9}')", "A.model.matches('(')"]);
}

#[test]
fn a_selector_is_a_pointer_and_clones_share_what_it_points_to() {
    let selector = Selector::compile("device.driver == 'gpu.example.com'");
    let clone = selector.clone();
    assert_eq!(size_of::<Selector>(), size_of::<usize>());
    assert!(Arc::ptr_eq(selector.0.as_ref().unwrap(), clone.0.as_ref().unwrap()));
    assert!(size_of::<Expression>() <= 40, "{}", size_of::<Expression>());
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in ".{0,60}") {
        answer(&text);
    }

    #[test]
    fn no_words_panic(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..30)) {
        answer(&words.concat());
    }
}

const WORDS: &[&str] = &[
    "device",
    ".attributes",
    ".capacity",
    "['d.io']",
    ".model",
    ".index",
    ".memory",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "?",
    "!",
    "-",
    "+",
    "&&",
    "||",
    "==",
    "<",
    " in ",
    "true",
    "false",
    "null",
    "1",
    "2.5",
    "'a'",
    "\"",
    "'",
    "\\",
    "has(",
    "quantity(",
    ".matches(",
    "'[a-'",
    "semver('1.0.0')",
    ".compareTo(",
    ".lowerAscii()",
    "x",
    ".x",
    " ",
    "//",
    "\n",
];
