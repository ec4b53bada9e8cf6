//! Settings as the values that a file would hold, to be shown and compared.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::path::key;
use super::write::Writer;

/// Settings as a file would say them: tables as objects, tagged tables with the keys of their kind beside their own. What
/// is absent, and what no file can say (a path that is no text), is left out; there is no null.
pub fn to_value<T: Serialize>(settings: &T) -> Value {
    settings.serialize(Writer).unwrap_or(Value::Null)
}

/// Every leaf of a tree of settings, by its key as [`Origins`](super::Origins) shows it. A list is one leaf, and so is a
/// table without entries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(BTreeMap<String, Value>);

impl Values {
    /// The leaves of a tree; null is nothing.
    pub fn of(tree: &Value) -> Self {
        let mut values = Self::default();
        values.collect(tree, &mut Vec::new());
        values
    }

    fn collect<'v>(&mut self, value: &'v Value, path: &mut Vec<&'v str>) {
        match value {
            Value::Null => {}
            Value::Object(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    path.push(key);
                    self.collect(value, path);
                    path.pop();
                }
            }
            Value::Object(_) if path.is_empty() => {}
            leaf => _ = self.0.insert(key(path), leaf.clone()),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Every key with its value, in order of key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Whether a leaf stands below the key.
    fn has_below(&self, key: &str) -> bool {
        let below = format!("{key}.");
        let mut after = self.0.range(below.clone()..);
        after.next().is_some_and(|(key, _)| key.starts_with(&below))
    }
}

/// A key whose value differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The key as it is shown.
    pub key: String,
    /// The value before, if there was one.
    pub from: Option<Value>,
    /// The value after, if there is one.
    pub to: Option<Value>,
}

/// What differs, in order of key. A table that got its first entry, or lost its last, is told by that entry alone.
pub fn diff(from: &Values, to: &Values) -> Vec<Change> {
    let keys: std::collections::BTreeSet<_> = from.0.keys().chain(to.0.keys()).collect();
    let changes = keys.into_iter().filter_map(|key| {
        let (before, after) = (from.get(key), to.get(key));
        let same_table = match (before, after) {
            (Some(Value::Object(_)), None) => to.has_below(key),
            (None, Some(Value::Object(_))) => from.has_below(key),
            _ => before == after,
        };
        (!same_table).then(|| Change {
            key: key.clone(),
            from: before.cloned(),
            to: after.cloned(),
        })
    });
    changes.collect()
}
