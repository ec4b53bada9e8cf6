//! The error that serde's visitors build, in a form that can be located and mended.
//!
//! A visitor knows what it wanted, not where it stands; the deserializer adds the way as the error passes up, and the
//! tree then knows the place. Messages speak of tables and whole numbers, not of Rust's types.

use std::fmt;

use serde::de::{Expected, Unexpected};

use super::path::Segment;
use super::problem::Reason;
use super::suggest::nearest;

/// At most so many words are listed where one of them was wanted.
const LISTED: usize = 12;

/// What was refused, and the way to it.
#[derive(Debug)]
pub(super) struct Error {
    pub(super) reason: Reason,
    pub(super) message: String,
    pub(super) suggestion: Option<String>,
    /// The way to what was refused, innermost step first. For a missing key it ends in that key.
    pub(super) path: Vec<Segment>,
}

impl Error {
    pub(super) fn new(reason: Reason, message: String) -> Self {
        Self {
            reason,
            message,
            suggestion: None,
            path: Vec::new(),
        }
    }

    /// The same, one step further up.
    pub(super) fn within(mut self, segment: Segment) -> Self {
        self.path.push(segment);
        self
    }

    /// The same, for what stands at a key.
    pub(super) fn at(self, key: &str) -> Self {
        self.within(Segment::Key(key.to_owned()))
    }

    /// A key that nothing has, where these are known.
    pub(super) fn unknown_key(key: &str, known: &[&'static str]) -> Self {
        let error = Self::new(Reason::UnknownKey, "unknown key".to_owned());
        error.instead_of(key, known).at(key)
    }

    /// A required key that is absent.
    pub(super) fn missing(key: &str) -> Self {
        Self::new(Reason::Missing, "is required".to_owned()).at(key)
    }

    /// A required word that is absent, where these are known.
    pub(super) fn missing_word(key: &str, words: &[&'static str]) -> Self {
        let message = format!("is required, one of {}", words.join(", "));
        Self::new(Reason::Missing, message).at(key)
    }

    /// Adds the nearest known word, or all of them when they are few.
    fn instead_of(mut self, word: &str, known: &[&'static str]) -> Self {
        self.suggestion = nearest(word, known.iter().copied()).map(str::to_owned);
        if self.suggestion.is_none() && (1..=LISTED).contains(&known.len()) {
            self.message = format!("{}; known are {}", self.message, known.join(", "));
        }
        self
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Reason::Invalid, message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Reason::WrongType, mismatch(found, expected))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Reason::Invalid, mismatch(found, expected))
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        let message = format!("unknown word {}; one of {}", quoted(word), known.join(", "));
        Self {
            suggestion: nearest(word, known.iter().copied()).map(str::to_owned),
            ..Self::new(Reason::UnknownWord, message)
        }
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::unknown_key(key, known)
    }

    fn missing_field(key: &'static str) -> Self {
        Self::missing(key)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

fn mismatch(found: Unexpected<'_>, expected: &dyn Expected) -> String {
    let found = match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => format!("{value:?}"),
        Unexpected::Str(text) => format!("the text {}", quoted(text)),
        Unexpected::Unit => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    };
    format!("expected {}, found {found}", plain(&expected.to_string()))
}

/// A value in quotes, control characters escaped, cut where it gets long.
fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// What the operator calls what serde calls by a Rust type.
fn plain(expected: &str) -> String {
    let up_to = |max: u64| format!("a whole number from 0 to {max}");
    let between = |min: i64, max: i64| format!("a whole number from {min} to {max}");
    match expected {
        "u8" => up_to(u8::MAX.into()),
        "u16" => up_to(u16::MAX.into()),
        "u32" => up_to(u32::MAX.into()),
        "i8" => between(i8::MIN.into(), i8::MAX.into()),
        "i16" => between(i16::MIN.into(), i16::MAX.into()),
        "i32" => between(i32::MIN.into(), i32::MAX.into()),
        "u64" | "usize" => "a whole number, not negative".to_owned(),
        "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        _ if expected.starts_with("struct ") => "a table".to_owned(),
        _ if expected.starts_with("enum ") => "a word".to_owned(),
        _ => expected.to_owned(),
    }
}
