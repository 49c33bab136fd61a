//! Filters the output of `cargo test -- --show-output`, counts the tests, and collects what they skipped. Pure: lines
//! in, lines out.
//!
//! A test that can't run on this machine prints `SKIPPED: ` and the reason, and returns. libtest counts it as passed
//! and hides its output. `--show-output` prints that output, together with the output of all other passing tests, which
//! this module removes again.

/// The prefix of the line that a test prints if it can't run here.
const SKIPPED: &str = "SKIPPED: ";
/// What CI machines do not have. Every other reason to skip is an error there.
const NO_GPU: &str = "no NVIDIA GPU";

/// A test that was skipped, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) test: String,
    pub(crate) reasons: Vec<String>,
}

impl Skip {
    /// Whether a missing GPU is the only reason.
    pub(crate) fn is_for_want_of_a_gpu(&self) -> bool {
        self.reasons.iter().all(|reason| reason.starts_with(NO_GPU))
    }
}

/// What was read so far.
#[derive(Debug, Default)]
pub(crate) struct TestOutput {
    section: Section,
    skips: Vec<Skip>,
    passed: usize,
    failed: usize,
}

/// The current part of a test binary's output.
#[derive(Debug, Default)]
enum Section {
    /// Printed unchanged.
    #[default]
    Shown,
    /// Output of passing tests: not printed. `at` is the index in `skips` of the test that printed it.
    Successes { test: String, at: Option<usize> },
}

impl TestOutput {
    /// Processes the next line. Returns true if the line is to be printed.
    pub(crate) fn take(&mut self, line: &str) -> bool {
        if let Some((passed, failed)) = result(line) {
            self.passed += passed;
            self.failed += failed;
        }
        if matches!(self.section, Section::Successes { .. }) && ends_successes(line) {
            self.section = Section::Shown;
        }
        if line == "successes:" {
            self.section = Section::Successes { test: String::new(), at: None };
            return false;
        }
        let Section::Successes { test, at } = &mut self.section else { return true };
        if let Some(name) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----")) {
            name.clone_into(test);
            *at = None;
        } else if let Some(reason) = line.strip_prefix(SKIPPED) {
            let at = *at.get_or_insert_with(|| {
                self.skips.push(Skip { test: test.clone(), reasons: Vec::new() });
                self.skips.len() - 1
            });
            self.skips[at].reasons.push(reason.trim().to_owned());
        }
        false
    }

    /// The tests that skipped something, in the order they ran.
    pub(crate) fn skips(&self) -> &[Skip] {
        &self.skips
    }

    /// `12 passed, 0 failed, 1 skipped`. A skipped test does not count as passed, although libtest counts it so.
    pub(crate) fn summary(&self) -> String {
        let skipped = self.skips.len();
        format!("{} passed, {} failed, {skipped} skipped", self.passed.saturating_sub(skipped), self.failed)
    }

    /// Whether any test ran at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed + self.failed == 0
    }
}

/// Whether a line can follow the output of passing tests: failures, the result, or, after a crash, the next binary.
fn ends_successes(line: &str) -> bool {
    let next_binary = line.strip_prefix("running ").is_some_and(|rest| rest.ends_with(" tests") || rest == "1 test");
    line == "failures:" || result(line).is_some() || next_binary
}

/// Passed and failed of `test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in
/// 0.01s`.
fn result(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name| counts.split("; ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok());
    Some((count("passed")?, count("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 3 tests
test reads ... ok
test uses_a_gpu ... ok
test walks ... ok

successes:

---- reads stdout ----
debug noise

---- uses_a_gpu stdout ----
SKIPPED: no NVIDIA GPU on this machine

---- walks stdout ----
SKIPPED: not root, so nothing can be loaded
SKIPPED: no promtool

successes:
    reads
    uses_a_gpu
    walks

test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

";

    fn check(output: &str) -> (TestOutput, String) {
        let mut read = TestOutput::default();
        let shown: Vec<_> = output.lines().filter(|line| read.take(line)).chain([""]).collect();
        let shown = shown.join("\n");
        (read, shown)
    }

    #[test]
    fn what_passing_tests_print_is_left_out_and_the_result_is_kept_as_it_is() {
        let (_, shown) = check(OUTPUT);
        assert_eq!(
            shown,
            "\nrunning 3 tests\ntest reads ... ok\ntest uses_a_gpu ... ok\ntest walks ... ok\n\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\n"
        );
    }

    #[test]
    fn a_skipped_test_is_counted_once_with_all_its_reasons_and_not_as_passed() {
        let (read, _) = check(OUTPUT);
        assert_eq!(read.summary(), "1 passed, 0 failed, 2 skipped");
        assert_eq!(read.skips()[1].test, "walks");
        assert_eq!(read.skips()[1].reasons, ["not root, so nothing can be loaded", "no promtool"]);
    }

    #[test]
    fn only_a_missing_gpu_is_forgiven() {
        let (read, _) = check(OUTPUT);
        assert_eq!(read.skips().iter().map(Skip::is_for_want_of_a_gpu).collect::<Vec<_>>(), [true, false]);
        let partly = Skip { test: String::new(), reasons: vec![NO_GPU.to_owned(), "no promtool".to_owned()] };
        assert!(!partly.is_for_want_of_a_gpu());
    }

    #[test]
    fn failures_are_shown_whole() {
        let failing = "successes:\n\n---- a stdout ----\nnoise\n\nsuccesses:\n    a\n\nfailures:\n\n\
                       ---- b stdout ----\nleft: 1\n\nfailures:\n    b\n\n\
                       test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        let (read, shown) = check(failing);
        assert!(shown.starts_with("failures:\n\n---- b stdout ----\nleft: 1\n") && !shown.contains("noise"), "{shown}");
        assert_eq!(read.summary(), "1 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn several_binaries_add_up() {
        let twice = OUTPUT.repeat(2);
        let (read, _) = check(&twice);
        assert_eq!(read.summary(), "2 passed, 0 failed, 4 skipped");
    }

    #[test]
    fn a_run_without_tests_is_known_as_such() {
        assert!(check("running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored\n").0.is_empty());
        assert!(!check(OUTPUT).0.is_empty());
    }
}
