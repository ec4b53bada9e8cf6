//! YAML's places, and what must not reach its reader.

use std::str::Chars;

use yaml_rust2::Yaml;
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::TScalarStyle;

use super::origin::Origin;
use super::path::MAX_DEPTH;
use super::place::{Place, Position, Within};
use super::problem::{Problem, Reason};

/// Finds the places of a text's values.
///
/// # Errors
/// The first syntax error, or what would end the process when it is read: aliases, since they are copied, so that a few
/// lines of aliases to aliases would fill the memory; and depth, since it is recursed over.
pub(super) fn scan(text: &str, file: &Origin) -> Result<Place, Vec<Problem>> {
    let mut scan = Scan {
        parser: Parser::new_from_str(text),
        file,
    };
    let mut first = None;
    loop {
        match scan.next()? {
            (Event::StreamEnd, _) => break,
            (Event::DocumentStart, _) => {
                let (event, at) = scan.next()?;
                let place = scan.value(event, at, 0)?;
                // That there are more is for the reader to tell.
                first.get_or_insert(place);
            }
            _ => {}
        }
    }
    Ok(first.unwrap_or_else(|| Place::new((1, 1), Within::Nothing)))
}

struct Scan<'t> {
    parser: Parser<Chars<'t>>,
    file: &'t Origin,
}

impl Scan<'_> {
    fn next(&mut self) -> Result<(Event, Position), Vec<Problem>> {
        match self.parser.next_token() {
            Ok((event, mark)) => Ok((event, (mark.line(), mark.col() + 1))),
            Err(error) => {
                let mark = error.marker();
                Err(self.refused((mark.line(), mark.col() + 1), error.info()))
            }
        }
    }

    fn refused(&self, at: Position, message: &str) -> Vec<Problem> {
        vec![Problem::of_source(
            Reason::Syntax,
            self.file.at(at),
            message,
        )]
    }

    /// The value that begins with an event.
    fn value(&mut self, event: Event, at: Position, depth: usize) -> Result<Place, Vec<Problem>> {
        let within = match event {
            Event::Alias(_) => return Err(self.refused(at, "YAML aliases are not read here")),
            Event::SequenceStart(..) | Event::MappingStart(..) if depth == MAX_DEPTH => {
                return Err(self.refused(at, "the value is too deep"));
            }
            Event::SequenceStart(..) => self.list(depth + 1)?,
            Event::MappingStart(..) => self.table(depth + 1)?,
            _ => Within::Nothing,
        };
        Ok(Place::new(at, within))
    }

    fn list(&mut self, depth: usize) -> Result<Within, Vec<Problem>> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Within::List(items)),
                (event, at) => items.push(self.value(event, at, depth)?),
            }
        }
    }

    fn table(&mut self, depth: usize) -> Result<Within, Vec<Problem>> {
        let mut entries = Vec::new();
        loop {
            let (key, at) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Within::Table(entries)),
                (Event::Scalar(text, style, ..), at) => (name(text, style), at),
                (Event::Alias(_), at) => {
                    return Err(self.refused(at, "YAML aliases are not read here"));
                }
                (_, at) => (None, at),
            };
            let Some(key) = key else {
                return Err(self.refused(at, "a key is plain text"));
            };
            let (event, begin) = self.next()?;
            let mut place = self.value(event, begin, depth)?;
            place.key = at;
            entries.push((key, place));
        }
    }
}

/// What the reader makes of a scalar that is a key; nothing of null.
fn name(text: String, style: TScalarStyle) -> Option<String> {
    if style != TScalarStyle::Plain {
        return Some(text);
    }
    match Yaml::from_str(&text) {
        Yaml::Null => None,
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(word) => Some(word.to_string()),
        _ => Some(text),
    }
}
