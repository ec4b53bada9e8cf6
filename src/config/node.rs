//! The tree that a layer becomes, and how one layer is laid over another.
//!
//! A tree of our own and not `config::Value`, for each value must keep the place where it stands, and text that came
//! from a variable must stay apart from a string in a file: only the first may be read as a number.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::{Map, Value, ValueKind};
use serde::de::Unexpected;

use super::origin::{Origin, Shadow};
use super::path::Segment;
use super::text;

/// A table's entries, by key.
pub(super) type Table = BTreeMap<String, Node>;

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where its key stands.
    pub(super) key: Arc<Origin>,
    /// Where the value stands.
    pub(super) origin: Arc<Origin>,
    /// What lower layers said, nearest first.
    pub(super) shadows: Vec<Shadow>,
    /// Whether it takes the place of all that lower layers say, as the value of a runtime change does.
    pub(super) whole: bool,
    /// The value.
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// JSON's or YAML's null: the key is named and nothing is said.
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    String(String),
    /// A TOML date or time, which no setting is.
    Date(String),
    /// From a variable or `--set`: takes the type that its key wants.
    Text(String),
    List(Vec<Node>),
    Table(Table),
    /// A problem was told about it; it is passed over from then on.
    Struck,
}

impl Node {
    /// A value whose key stands where it does.
    pub(super) fn new(origin: &Arc<Origin>, kind: Kind) -> Self {
        Self {
            key: origin.clone(),
            origin: origin.clone(),
            shadows: Vec::new(),
            whole: false,
            kind,
        }
    }

    /// The same value at the end of a path of tables, all of it standing at one place.
    pub(super) fn beneath(self, path: &[impl AsRef<str>]) -> Self {
        let origin = self.origin.clone();
        path.iter().rev().fold(self, |inner, segment| {
            let table = Table::from([(segment.as_ref().to_owned(), inner)]);
            Self::new(&origin, Kind::Table(table))
        })
    }

    /// What the `config` crate read, all of it standing at one place.
    pub(super) fn from_map(map: Map<String, Value>, origin: &Arc<Origin>) -> Self {
        let entries = map.into_iter();
        let table = entries.map(|(key, value)| (key, Self::from_value(value, origin)));
        Self::new(origin, Kind::Table(table.collect()))
    }

    /// The same for one value.
    pub(super) fn from_value(value: Value, origin: &Arc<Origin>) -> Self {
        let kind = match value.kind {
            ValueKind::Nil => Kind::Null,
            ValueKind::Boolean(value) => Kind::Bool(value),
            ValueKind::I64(value) => Kind::Integer(value.into()),
            ValueKind::I128(value) => Kind::Integer(value),
            ValueKind::U64(value) => Kind::Integer(value.into()),
            // No format yields it; past i128 it would fit no setting either.
            ValueKind::U128(value) => Kind::Integer(i128::try_from(value).unwrap_or(i128::MAX)),
            ValueKind::Float(value) => Kind::Float(value),
            ValueKind::String(value) => Kind::String(value),
            ValueKind::Table(map) => return Self::from_map(map, origin),
            ValueKind::Array(items) => {
                let items = items.into_iter();
                Kind::List(items.map(|item| Self::from_value(item, origin)).collect())
            }
        };
        Self::new(origin, kind)
    }

    /// The same for a value as JSON; what it is, it is as strictly as in a file.
    pub(super) fn from_json(value: &serde_json::Value, origin: &Arc<Origin>) -> Self {
        use serde_json::Value;
        let kind = match value {
            Value::Null => Kind::Null,
            Value::Bool(value) => Kind::Bool(*value),
            Value::Number(number) => match (number.as_i128(), number.as_f64()) {
                (Some(value), _) => Kind::Integer(value),
                (None, value) => Kind::Float(value.unwrap_or(f64::NAN)),
            },
            Value::String(text) => Kind::String(text.clone()),
            Value::Array(items) => {
                let items = items.iter();
                Kind::List(items.map(|item| Self::from_json(item, origin)).collect())
            }
            Value::Object(entries) => {
                let entries = entries.iter();
                let table =
                    entries.map(|(key, value)| (key.clone(), Self::from_json(value, origin)));
                Kind::Table(table.collect())
            }
        };
        Self::new(origin, kind)
    }

    /// Lays a higher layer over this one: tables merge key by key, everything else is replaced whole, and null says
    /// nothing. What is [`whole`](Self::whole) is neither merged nor passed over.
    pub(super) fn merge(&mut self, mut over: Self) {
        if !over.whole {
            match (&self.kind, &over.kind) {
                (_, Kind::Null) => return,
                (Kind::Table(_), Kind::Text(_)) => over.open_table(),
                (Kind::Text(_), Kind::Table(_)) => self.open_table(),
                _ => {}
            }
            if let (Kind::Table(table), Kind::Table(entries)) = (&mut self.kind, &mut over.kind) {
                for (key, value) in std::mem::take(entries) {
                    match table.get_mut(&key) {
                        Some(node) => node.merge(value),
                        None => _ = table.insert(key, value),
                    }
                }
                return;
            }
        }
        let hidden = std::mem::replace(self, over);
        self.hide(hidden);
    }

    /// Takes the place of a lower value: what both have becomes a shadow of the leaf that hides it, what only the lower
    /// one has is gone.
    fn hide(&mut self, mut lower: Self) {
        if let (Kind::Table(_), Kind::Text(_)) = (&self.kind, &lower.kind) {
            lower.open_table();
        }
        if let (Kind::Table(table), Kind::Table(hidden)) = (&mut self.kind, &mut lower.kind) {
            for (key, node) in table {
                if let Some(lower) = hidden.remove(key) {
                    node.hide(lower);
                }
            }
            return;
        }
        // Null that hides something was said: it is a change that took a value away.
        let said = !lower.is_nothing() || !lower.shadows.is_empty();
        let shadow = said.then(|| Shadow {
            origin: lower.origin.clone(),
            value: lower.json(),
        });
        self.shadows = shadow.into_iter().chain(lower.shadows).collect();
    }

    /// Turns text that holds an inline table into that table, so that it can be merged. What it hides, the table hides
    /// key by key.
    pub(super) fn open_table(&mut self) {
        let Kind::Text(text) = &self.kind else { return };
        let Ok(mut table) = text::table(text, &self.origin) else {
            return;
        };
        let mut hidden = std::mem::take(&mut self.shadows).into_iter();
        if let Some(Shadow { origin, value }) = hidden.next()
            && let serde_json::Value::String(text) = value
        {
            let mut lower = Self::new(&origin, Kind::Text(text));
            lower.shadows = hidden.collect();
            table.hide(lower);
        }
        *self = table;
    }

    /// Whether it names a key and says nothing.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// Whether a problem was already told about it.
    pub(super) fn is_struck(&self) -> bool {
        matches!(self.kind, Kind::Struck)
    }

    /// Whether a problem was already told about something within it.
    pub(super) fn holds_struck(&self) -> bool {
        let holds = |node: &Self| node.is_struck() || node.holds_struck();
        match &self.kind {
            Kind::Table(table) => table.values().any(holds),
            Kind::List(items) => items.iter().any(holds),
            _ => false,
        }
    }

    /// The value one step down, if there is one.
    pub(super) fn child(&mut self, segment: &Segment) -> Option<&mut Self> {
        match (&mut self.kind, segment) {
            (Kind::Table(table), Segment::Key(key)) => table.get_mut(key),
            (Kind::List(items), Segment::Index(index)) => items.get_mut(*index),
            _ => None,
        }
    }

    /// What serde calls it when it wanted something else.
    pub(super) fn unexpected(&self) -> Unexpected<'_> {
        match &self.kind {
            Kind::Null | Kind::Struck => Unexpected::Unit,
            Kind::Bool(value) => Unexpected::Bool(*value),
            Kind::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => Unexpected::Signed(value),
                (_, Ok(value)) => Unexpected::Unsigned(value),
                _ => Unexpected::Other("an integer past 64 bits"),
            },
            Kind::Float(value) => Unexpected::Float(*value),
            Kind::String(text) | Kind::Text(text) => Unexpected::Str(text),
            Kind::Date(_) => Unexpected::Other("a date or time"),
            Kind::List(_) => Unexpected::Seq,
            Kind::Table(_) => Unexpected::Map,
        }
    }

    /// The value as JSON, to be shown.
    fn json(&self) -> serde_json::Value {
        match &self.kind {
            Kind::Null | Kind::Struck => serde_json::Value::Null,
            Kind::Bool(value) => (*value).into(),
            Kind::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (_, Ok(value)) => value.into(),
                _ => value.to_string().into(),
            },
            Kind::Float(value) => (*value).into(),
            Kind::String(text) | Kind::Text(text) | Kind::Date(text) => text.as_str().into(),
            Kind::List(items) => items.iter().map(Self::json).collect(),
            Kind::Table(table) => {
                let entries = table.iter().map(|(key, node)| (key.clone(), node.json()));
                serde_json::Value::Object(entries.collect())
            }
        }
    }
}
