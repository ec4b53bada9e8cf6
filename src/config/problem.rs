//! What can be wrong with a configuration, as the operator reads it.
//!
//! A problem is a value with a place, not a sentence: the same one becomes a line on stderr, a field violation in a
//! call's answer and a row in `check`.

use std::fmt;

use serde_json::{Value, json};

use super::excerpt::Excerpt;
use super::origin::Origin;

/// The kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The source is absent, too large, not text, or may not be read.
    Unreadable,
    /// The source is not in its format.
    Syntax,
    /// Nothing has this key.
    UnknownKey,
    /// The value is none of the words that the key knows.
    UnknownWord,
    /// A required key is absent.
    Missing,
    /// The value is of another type than the key wants.
    WrongType,
    /// The type is right, the value is not.
    Invalid,
}

impl Reason {
    /// The word that a script can branch on: `UNKNOWN_KEY`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unreadable => "UNREADABLE",
            Self::Syntax => "SYNTAX",
            Self::UnknownKey => "UNKNOWN_KEY",
            Self::UnknownWord => "UNKNOWN_WORD",
            Self::Missing => "MISSING",
            Self::WrongType => "WRONG_TYPE",
            Self::Invalid => "INVALID",
        }
    }
}

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's path, such as `listeners.ack.bind`; empty when a whole source is meant.
    pub key: String,
    /// The kind of problem.
    pub reason: Reason,
    /// What is wrong, in lower case and without a full stop.
    pub message: String,
    /// Where it stands; `None` when no layer says anything about it.
    pub origin: Option<Origin>,
    /// The word that was probably meant.
    pub suggestion: Option<String>,
    /// The line of the file that it stands in.
    pub excerpt: Option<Excerpt>,
}

impl Problem {
    /// A problem of a key, with no suggestion and no excerpt.
    pub fn new(reason: Reason, key: String, message: String, origin: Option<Origin>) -> Self {
        Self {
            key,
            reason,
            message,
            origin,
            suggestion: None,
            excerpt: None,
        }
    }

    /// A problem of a whole source.
    pub(super) fn of_source(reason: Reason, origin: Origin, message: impl fmt::Display) -> Self {
        Self::new(reason, String::new(), message.to_string(), Some(origin))
    }

    /// For people: the one line, and under it the line of the file with a caret where the problem is.
    pub fn explain(&self) -> String {
        match &self.excerpt {
            Some(excerpt) => format!("{self}\n{excerpt}"),
            None => self.to_string(),
        }
    }

    /// For scripts: `key`, `reason`, `message`, `source`, `line`, `column` and `suggestion`, without those that are not
    /// known.
    pub fn to_json(&self) -> Value {
        let origin = self.origin.as_ref();
        let fields = [
            ("key", json!(self.key)),
            ("reason", json!(self.reason.word())),
            ("message", json!(self.message)),
            ("source", json!(origin.map(|origin| &*origin.source))),
            ("line", json!(origin.and_then(|origin| origin.line))),
            ("column", json!(origin.and_then(|origin| origin.column))),
            ("suggestion", json!(self.suggestion)),
        ];
        let known = fields.into_iter().filter(|(_, value)| !value.is_null());
        known
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

/// ``FILE:LINE:COLUMN: key: message; did you mean `word`?``, without the parts that are not known.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(word) => write!(f, "; did you mean `{word}`?"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Puts problems (one at least) in order: by layer, then source by name, then line.
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| {
            let place = |problem: &Problem| {
                let origin = problem.origin.as_ref();
                origin.map(|o| (o.layer, o.source.clone(), o.line, o.column))
            };
            place(a).cmp(&place(b))
        });
        Self(problems)
    }

    /// The problems, first to last.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One line each.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
