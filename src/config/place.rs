//! The line and column of every value in a file, whatever its format.
//!
//! The `config` crate reads the values and forgets where they stood, so that each text is walked once more for its
//! places, and the two trees are then laid side by side.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::node::{Kind, Node};
use super::origin::Origin;
use super::path::Segment;

/// Line and column, both from 1, the column in characters.
pub(super) type Position = (usize, usize);

/// Where a value stands, and those in it.
pub(super) struct Place {
    /// Where its key stands; where it does itself, if it has none.
    pub(super) key: Position,
    value: Position,
    within: Within,
}

/// What a value holds.
pub(super) enum Within {
    Nothing,
    /// A TOML date or time, as it is written.
    Date(String),
    List(Vec<Place>),
    Table(Vec<(String, Place)>),
}

impl Place {
    /// A value without a key.
    pub(super) fn new(value: Position, within: Within) -> Self {
        let key = value;
        Self { key, value, within }
    }

    /// Gives its places to the tree that was read from the same text.
    pub(super) fn give(&self, node: &mut Node, file: &Origin) {
        node.origin = Arc::new(file.at(self.value));
        node.key = if self.key == self.value {
            node.origin.clone()
        } else {
            Arc::new(file.at(self.key))
        };
        match &self.within {
            Within::Nothing => {}
            // The `config` crate makes a string of it; a setting that takes strings should not take it unseen.
            Within::Date(date) => node.kind = Kind::Date(date.clone()),
            Within::List(items) => {
                for (index, place) in items.iter().enumerate() {
                    if let Some(item) = node.child(&Segment::Index(index)) {
                        place.give(item, file);
                    }
                }
            }
            Within::Table(entries) => {
                for (key, place) in entries {
                    if let Some(child) = node.child(&Segment::Key(key.clone())) {
                        place.give(child, file);
                    }
                }
            }
        }
    }

    /// The first key that stands twice in one table. Some parsers let the last of two win, so that a block, or a setting
    /// that keeps something safe, could be overruled unseen.
    pub(super) fn repeated(&self) -> Option<(&str, Position)> {
        match &self.within {
            Within::Nothing | Within::Date(_) => None,
            Within::List(items) => items.iter().find_map(Self::repeated),
            Within::Table(entries) => {
                let mut seen = BTreeSet::new();
                entries.iter().find_map(|(key, place)| {
                    if seen.insert(key) {
                        place.repeated()
                    } else {
                        Some((key.as_str(), place.key))
                    }
                })
            }
        }
    }
}

/// Turns offsets into positions, without a walk over the text for each.
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Where each line begins, in bytes.
    starts: Vec<usize>,
    /// Whether a character is a byte throughout.
    ascii: bool,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(breaks).collect(),
            ascii: text.is_ascii(),
        }
    }

    /// The position of a byte.
    pub(super) fn at(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|&start| start <= offset);
        let start = self.starts[line - 1];
        let column = if self.ascii {
            offset - start
        } else {
            let before = self.text.get(start..offset);
            before.map_or(0, |before| before.chars().count())
        };
        (line, column + 1)
    }
}
