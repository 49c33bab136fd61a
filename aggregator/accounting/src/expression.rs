//! Selectors of Dynamic Resource Allocation: CEL expressions about one device, as DeviceClasses and ResourceClaims
//! contain them.
//!
//! Implements a subset of CEL, with three results: yes, no, undecided. A result is undecided if the scheduler itself
//! raises an error, or if the expression depends on an unsupported feature; nothing is guessed. Errors propagate as in
//! CEL: `false` decides an `&&` and `true` decides an `||`, whatever the other side is; every other expression with an
//! undecided part is undecided.
//!
//! Supported: literals of strings, integers and booleans, and list literals to the right of `in`; `device.driver`,
//! `device.allowMultipleAllocations`; attributes and capacities with literal domain and name; `&& || !`, comparisons,
//! `has()`, `in` with a list or a map of attributes; `startsWith`, `endsWith`, `contains`, `lowerAscii`, `upperAscii`,
//! and `matches` with a literal; `compareTo`, `isLessThan`, `isGreaterThan`; `quantity()` and `semver()` of a literal.
//! The rest of CEL's grammar is parsed, so that other parts of the expression can still decide it.
//!
//! Anyone who can write to a cluster can write an expression, so everything is limited: length, depth, patterns. An
//! expression that exceeds a limit is undecided. This is why the crate `cel` (0.15) is not used: 200 nested parentheses
//! overflow its parser's stack; it also adds an ANTLR runtime.
//!
//! Sources of the rules: kubernetes/dynamic-resource-allocation 3d03671 `cel/compile.go`, kubernetes/apiserver 24a394e
//! `pkg/cel`, google/cel-go 14f6746 (`parser/gen/CEL.g4`, `common/types`).
mod device;
mod evaluation;
mod grammar;
mod pattern;
mod term;
#[cfg(test)]
mod tests;
mod tokens;
mod tree;
mod version;

use std::sync::Arc;

pub use self::device::{Attribute, Capacity, Described};
use self::tree::Expression;

/// The maximum length of an expression in bytes. The API server accepts no longer ones
/// (`CELSelectorExpressionMaxLength`).
const LONGEST: usize = 10 * 1024;

/// A compiled expression. Clones share it.
#[derive(Clone, Debug)]
pub struct Selector(Option<Arc<Expression>>);

/// The result of an expression for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It selects the device.
    Yes,
    /// It does not select the device.
    No,
    /// The scheduler raises an error here, or the expression depends on an unsupported feature.
    Undecided,
}

impl Selector {
    /// Compiles an expression. An expression that cannot be parsed, has a type error or exceeds a limit is undecided
    /// for every device.
    pub fn compile(text: &str) -> Self {
        if text.len() > LONGEST {
            return Self(None);
        }
        Self(grammar::read(text).ok().map(Arc::new))
    }

    /// Evaluates the expression for a device. The time it takes depends only on the length of the expression.
    pub fn decide(&self, device: &dyn Described) -> Verdict {
        match self.0.as_ref().and_then(|tree| evaluation::decide(tree, device)) {
            Some(true) => Verdict::Yes,
            Some(false) => Verdict::No,
            None => Verdict::Undecided,
        }
    }
}
