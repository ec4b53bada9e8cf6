//! JSON's places. Its parser tells none for values, so the text is walked once the parser has taken it.

use serde_json::Value;

use super::origin::Origin;
use super::place::{Lines, Place, Within};
use super::problem::{Problem, Reason};

/// Finds the places of a text's values.
///
/// # Errors
/// The first syntax error.
pub(super) fn scan(text: &str, file: &Origin) -> Result<Place, Vec<Problem>> {
    match serde_json::from_str::<Value>(text) {
        Ok(_) => Ok(Walk::new(text).value()),
        Err(error) => {
            // The end of a text after its last line feed is in column 0.
            let place = file.at((error.line(), error.column().max(1)));
            // The place is said by the origin.
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or(&message);
            Err(vec![Problem::of_source(Reason::Syntax, place, message)])
        }
    }
}

/// A walk over a text that is known to be JSON, and no deeper than its parser allows.
struct Walk<'t> {
    text: &'t str,
    at: usize,
    lines: Lines<'t>,
}

impl<'t> Walk<'t> {
    fn new(text: &'t str) -> Self {
        let lines = Lines::new(text);
        Self { text, at: 0, lines }
    }

    /// The next byte that is no blank; `None` at the end.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace());
        self.at += blank.count();
        self.text.as_bytes().get(self.at).copied()
    }

    fn value(&mut self) -> Place {
        let first = self.peek();
        let position = self.lines.at(self.at);
        let within = match first {
            Some(b'{') => self.table(),
            Some(b'[') => self.list(),
            Some(b'"') => {
                self.string();
                Within::Nothing
            }
            _ => {
                let rest = &self.text[self.at..];
                let end = |c: char| c.is_ascii_whitespace() || ",]}".contains(c);
                // A step at least, so that the walk ends whatever it meets.
                self.at += rest.find(end).unwrap_or(rest.len()).max(1).min(rest.len());
                Within::Nothing
            }
        };
        Place::new(position, within)
    }

    fn list(&mut self) -> Within {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            match self.peek() {
                None => return Within::List(items),
                Some(b']') => {
                    self.at += 1;
                    return Within::List(items);
                }
                Some(b',') => self.at += 1,
                Some(_) => items.push(self.value()),
            }
        }
    }

    fn table(&mut self) -> Within {
        let mut entries = Vec::new();
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let start = self.at;
                    let key = self.string();
                    self.peek();
                    // Past the colon.
                    self.at += 1;
                    let mut place = self.value();
                    place.key = self.lines.at(start);
                    entries.push((key, place));
                }
                Some(b',') => self.at += 1,
                _ => {
                    self.at += 1;
                    return Within::Table(entries);
                }
            }
        }
    }

    /// The text at whose opening quote the walk stands.
    fn string(&mut self) -> String {
        let start = self.at;
        let mut escaped = false;
        let inside = self.text.bytes().skip(start + 1).take_while(|byte| {
            let closes = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            !closes
        });
        self.at += inside.count() + 2;
        let quoted = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_str(quoted).unwrap_or_default()
    }
}
