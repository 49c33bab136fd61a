//! A pod template in an AppWrapper: found by path, decoded to what its pods request and where they may run.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::constraints::{Constraints, RawConstraints};
use super::spec::Work;
use crate::steps;

/// A pod's spec, from a template.
#[derive(Clone, Debug, Default)]
pub(crate) struct Template {
    pub(crate) work: Work,
    pub(crate) constraints: Arc<Constraints>,
}

impl Template {
    /// The template with this pod spec; `None` if it is not a pod spec.
    pub(crate) fn from_spec(spec: &Value) -> Option<Self> {
        steps::took_by(|| size(spec));
        let work = Work::deserialize(spec).ok()?;
        let constraints = RawConstraints::deserialize(spec).ok()?;
        Some(Self { work, constraints: Arc::new(constraints.into()) })
    }
}

/// The number of values in a value, which is the work of reading it.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(size).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// The value at a path such as `template.spec.groups[0].template`. The path starts at `root`, which it calls `template`.
///
/// Source: project-codeflare/appwrapper `pkg/utils/utils.go`, `getValueAtPath`.
pub(crate) fn at_path<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    let mut rest = path.strip_prefix("template")?;
    let mut cursor = root;
    while !rest.is_empty() {
        if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']')?;
            cursor = cursor.as_array()?.get(index.parse::<usize>().ok()?)?;
            rest = after;
        } else {
            let field = rest.strip_prefix('.')?;
            let (key, after) = field.split_at(field.find(['.', '[']).unwrap_or(field.len()));
            cursor = cursor.as_object()?.get(key)?;
            rest = after;
        }
    }
    Some(cursor)
}
