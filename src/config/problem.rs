//! What can be wrong with a configuration, as the operator reads it.
//!
//! A problem is a value with a place, not a sentence: the same one becomes a line on stderr, a field violation in a
//! call's answer and a row in `check`.

use std::fmt;

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
}

impl Problem {
    /// A problem of a whole source.
    pub(super) fn of_source(reason: Reason, origin: Origin, message: impl fmt::Display) -> Self {
        Self {
            key: String::new(),
            reason,
            message: message.to_string(),
            origin: Some(origin),
            suggestion: None,
        }
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
