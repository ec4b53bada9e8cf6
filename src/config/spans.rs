//! TOML's places, and what its reader would tell without one.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::origin::Origin;
use super::place::{Lines, Place, Within};
use super::problem::{Problem, Reason};

/// Finds the places of a text's values.
///
/// # Errors
/// Every syntax error that the parser finds, and every number that 64 bits do not hold.
pub(super) fn scan(text: &str, file: &Origin) -> Result<Place, Vec<Problem>> {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<_> = errors
        .iter()
        .map(|error| {
            let place = error.span().map(|span| file.at(lines.at(span.start)));
            let place = place.unwrap_or_else(|| file.clone());
            Problem::of_source(Reason::Syntax, place, error.message())
        })
        .collect();
    // What a broken text gives for its values is a guess.
    if problems.is_empty() {
        out_of_range(table.get_ref().values(), &mut |span| {
            let place = file.at(lines.at(span.start));
            let message = "the number is out of range";
            problems.push(Problem::of_source(Reason::Syntax, place, message));
        });
    }
    if problems.is_empty() {
        Ok(Place::new((1, 1), entries(table.get_ref(), &lines)))
    } else {
        Err(problems)
    }
}

fn entries(table: &DeTable<'_>, lines: &Lines<'_>) -> Within {
    let entries = table.iter().map(|(key, value)| {
        let mut place = place(value, lines);
        place.key = lines.at(key.span().start);
        (key.get_ref().to_string(), place)
    });
    Within::Table(entries.collect())
}

fn place(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Place {
    let within = match value.get_ref() {
        DeValue::Table(table) => entries(table, lines),
        DeValue::Array(values) => {
            Within::List(values.iter().map(|value| place(value, lines)).collect())
        }
        DeValue::Datetime(date) => Within::Date(date.to_string()),
        _ => Within::Nothing,
    };
    Place::new(lines.at(value.span().start), within)
}

/// Calls `found` with the span of each number that 64 bits do not hold: the grammar allows it, reading does not, and
/// then says only that there is one.
fn out_of_range<'v, 'i: 'v>(
    values: impl IntoIterator<Item = &'v Spanned<DeValue<'i>>>,
    found: &mut dyn FnMut(Range<usize>),
) {
    for value in values {
        match value.get_ref() {
            DeValue::Integer(number)
                if i64::from_str_radix(number.as_str(), number.radix()).is_err() =>
            {
                found(value.span());
            }
            DeValue::Float(number)
                if number.as_str().parse().is_ok_and(f64::is_infinite)
                    && !number.as_str().contains("inf") =>
            {
                found(value.span());
            }
            DeValue::Array(items) => out_of_range(items.iter(), found),
            DeValue::Table(table) => out_of_range(table.values(), found),
            _ => {}
        }
    }
}
