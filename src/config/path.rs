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

/// `listeners.ack.bind`, `programs[2]`, `labels."a.b"`.
pub(super) fn render(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            // Writing to a String cannot fail.
            Segment::Index(index) => _ = write!(text, "[{index}]"),
            Segment::Key(key) => push(&mut text, key),
        }
    }
    text
}

/// A path as people read it: `listeners.ack.bind`. Segments that are not plain words are quoted, `labels."a.b"`, which
/// escapes control characters, so that a hostile key cannot play tricks with the terminal that shows it.
pub fn key(path: &[impl AsRef<str>]) -> String {
    let mut text = String::new();
    for segment in path {
        push(&mut text, segment.as_ref());
    }
    text
}

fn push(text: &mut String, segment: &str) {
    if !text.is_empty() {
        text.push('.');
    }
    if !segment.is_empty() && segment.chars().all(plain) {
        text.push_str(segment);
    } else {
        let _ = write!(text, "{segment:?}");
    }
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_".contains(c)
}

/// Whether a key is another, or stands within it: `listeners.ack.bind` in `listeners.ack`, `programs[2]` in `programs`.
pub fn is_within(key: &str, other: &str) -> bool {
    let rest = key.strip_prefix(other);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The path that [`key`] shows as this text; `None` when it shows none so, as with `a..b` or an item of a list.
pub fn parse_key(text: &str) -> Option<Vec<String>> {
    let mut path = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if !path.is_empty() {
            rest = rest.strip_prefix('.')?;
        }
        let (segment, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (word, after) = rest.split_at(rest.find(|c| !plain(c)).unwrap_or(rest.len()));
                (!word.is_empty()).then(|| (word.to_owned(), after))?
            }
        };
        path.push(segment);
        rest = after;
    }
    Some(path)
}

/// A segment up to its closing quote, its escapes undone, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut segment = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((segment, chars.as_str())),
            '\\' => segment.push(match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                'u' => {
                    let (number, after) = chars.as_str().strip_prefix('{')?.split_once('}')?;
                    chars = after.chars();
                    char::from_u32(u32::from_str_radix(number, 16).ok()?)?
                }
                other => other,
            }),
            other => segment.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_key_is_none() {
        for text in [
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a[0]",
            "\"a",
            "\"a\"b",
            "\"\\u{d800}\"",
        ] {
            assert_eq!(parse_key(text), None, "{text}");
        }
        assert_eq!(parse_key(""), Some(Vec::new()));
        let dotted = parse_key("labels.\"a.b\"").unwrap();
        assert_eq!(dotted, ["labels", "a.b"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_key_is_read_back_as_its_path(path in proptest::collection::vec(".*|[a-z]{1,3}|[\\s\"\\\\.]*", 0..4)) {
            prop_assert_eq!(parse_key(&key(&path)), Some(path));
        }
    }
}
