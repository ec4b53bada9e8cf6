//! Where values stand: the layer, the place in it, and what each winning value hides.
//!
//! Kept beside the settings and not inside them, so that no `Settings` type has to know that it was layered.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use super::node::{Kind, Node};
use super::path::key;
use super::place::Position;

/// The kinds of places that set values, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Built in.
    Default,
    /// A file, the system's or one named by `--config`.
    File,
    /// Changes made while the process ran, kept across restarts.
    Runtime,
    /// An environment variable.
    Environment,
    /// `--set` on the command line.
    CommandLine,
    /// Changes made while the process runs, gone when it ends.
    Ephemeral,
}

impl Layer {
    /// The word for people: `file`, `runtime state`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Runtime => "runtime state",
            Self::Environment => "environment",
            Self::CommandLine => "command line",
            Self::Ephemeral => "ephemeral",
        }
    }
}

/// One place that sets something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The kind of place.
    pub layer: Layer,
    /// The file's path as it was named, the variable's name, `--set`, or the method that made a change: `StopListener`.
    pub source: Arc<str>,
    /// Line in a file; from 1.
    pub line: Option<u32>,
    /// Column in that line, in characters; from 1.
    pub column: Option<u32>,
    /// When a change was made.
    pub set: Option<SystemTime>,
    /// Who made it, as the control plane knows its callers.
    pub by: Option<Arc<str>>,
    /// Why, in the words of who made it.
    pub reason: Option<Arc<str>>,
}

impl Origin {
    /// A whole source, no place in it.
    pub fn whole(layer: Layer, source: &str) -> Self {
        Self {
            layer,
            source: source.into(),
            line: None,
            column: None,
            set: None,
            by: None,
            reason: None,
        }
    }

    /// The same source at a line and column.
    pub(super) fn at(&self, (line, column): Position) -> Self {
        Self {
            line: u32::try_from(line).ok(),
            column: u32::try_from(column).ok(),
            ..self.clone()
        }
    }
}

/// `FILE:LINE:COLUMN`, the variable's name, `--set`, or `StopListener by 127.0.0.1:4242`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A file's name may hold anything but a slash.
        for c in self.source.chars() {
            match c {
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => f.write_char(c)?,
            }
        }
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        match &self.by {
            Some(by) => write!(f, " by {by}"),
            None => Ok(()),
        }
    }
}

/// Where one key is set.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The place of the value in force.
    pub origin: Arc<Origin>,
    /// What that value hides in lower layers, nearest first.
    pub shadows: Vec<Shadow>,
}

/// A value that a higher layer hides.
#[derive(Debug, Clone, PartialEq)]
pub struct Shadow {
    /// Where it stands.
    pub origin: Arc<Origin>,
    /// The value as it is written there; text, for variables and `--set`.
    pub value: serde_json::Value,
}

/// Every key that some layer sets, by its path: `listeners.ack.bind`. A list is one key; segments that are not plain
/// words are quoted: `labels."a.b"`. A key that a runtime change took away stands here too, for what it hides; so do an empty
/// table, and text that holds a table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Origins(BTreeMap<String, Setting>);

impl Origins {
    /// The places of a tree's leaves.
    pub(super) fn of(tree: &Node) -> Self {
        let mut origins = Self::default();
        origins.collect(tree, "");
        origins
    }

    fn collect(&mut self, node: &Node, at: &str) {
        let dot = if at.is_empty() { "" } else { "." };
        match &node.kind {
            Kind::Table(table) if at.is_empty() || !table.is_empty() => {
                for (name, child) in table {
                    self.collect(child, &format!("{at}{dot}{}", key(&[name])));
                }
                return;
            }
            Kind::Null if node.shadows.is_empty() => return,
            _ => {}
        }
        let setting = Setting {
            origin: node.origin.clone(),
            shadows: node.shadows.clone(),
        };
        self.0.insert(at.to_owned(), setting);
        // Whether such text is a table is for its key to say: if it is, its keys stand here too.
        if let Kind::Text(_) = node.kind {
            let mut opened = node.clone();
            opened.open_table();
            if let Kind::Table(_) = opened.kind {
                self.collect(&opened, at);
            }
        }
    }

    /// Where exactly this key is set, or `None` for a built-in default.
    pub fn at(&self, key: &str) -> Option<&Setting> {
        self.0.get(key)
    }

    /// Where a key is set, or what it would stand in; `None` when no layer says anything about either.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        let parents = key.rmatch_indices(['.', '[']).map(|(end, _)| &key[..end]);
        std::iter::once(key)
            .chain(parents)
            .find_map(|key| self.0.get(key))
    }

    /// The same of the keys below one: of `listeners.ack`, `listeners.ack.bind`.
    pub fn below<'o>(
        &'o self,
        key: &str,
    ) -> impl Iterator<Item = (&'o str, &'o Setting)> + use<'o> {
        let prefix = format!("{key}.");
        let from = self.0.range(prefix.clone()..);
        let below = from.take_while(move |(key, _)| key.starts_with(&prefix));
        below.map(|(key, setting)| (key.as_str(), setting))
    }

    /// Every key that is set, with its place, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.0.iter().map(|(key, setting)| (key.as_str(), setting))
    }
}
