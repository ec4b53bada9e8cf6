//! The path to a value, and how people read it.
//!
//! Segments and not one string, since a key may hold dots: the string is made only to be shown.

use std::fmt::Write as _;

/// No setting lies deeper. Trees are recursed over, and a variable's name or a line of YAML can be as deep as it is long;
/// the parsers of TOML and JSON have such bounds themselves.
pub(super) const MAX_DEPTH: usize = 32;

/// One step down the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// Into a table.
    Key(String),
    /// Into a list, from 0.
    Index(usize),
}

/// `listeners.ack.bind`, `programs[2]`, `labels."a.b"`. Quoting escapes control characters, so that a hostile key
/// cannot play tricks with the terminal that shows it.
pub(super) fn render(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Index(index) => {
                // Writing to a String cannot fail.
                let _ = write!(text, "[{index}]");
            }
            Segment::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
                if !key.is_empty() && key.chars().all(plain) {
                    text.push_str(key);
                } else {
                    let _ = write!(text, "{key:?}");
                }
            }
        }
    }
    text
}
