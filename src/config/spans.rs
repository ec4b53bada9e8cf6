//! The line and column of every value in a TOML file.
//!
//! The `config` crate reads the values and forgets where they stood, so the text is parsed once more for its spans and
//! the two trees are walked side by side.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::node::{Kind, Node};
use super::origin::Origin;
use super::path::Segment;
use super::problem::{Problem, Reason};

/// A TOML text's spans, and the file that it is.
pub(super) struct Spans<'t> {
    table: DeTable<'t>,
    lines: Lines<'t>,
}

impl<'t> Spans<'t> {
    /// Parses a text for its spans.
    ///
    /// # Errors
    /// Every syntax error that the parser finds, and every number that 64 bits do not hold.
    pub(super) fn parse(text: &'t str, origin: &'t Origin) -> Result<Self, Vec<Problem>> {
        let lines = Lines::new(text, origin);
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut problems: Vec<_> = errors
            .iter()
            .map(|error| {
                let place = error
                    .span()
                    .map_or_else(|| origin.clone(), |span| lines.at(&span));
                Problem::of_source(Reason::Syntax, place, error.message())
            })
            .collect();
        // What a broken text gives for its values is a guess.
        if problems.is_empty() {
            out_of_range(table.get_ref().values(), &mut |span| {
                let message = "the number is out of range";
                problems.push(Problem::of_source(Reason::Syntax, lines.at(&span), message));
            });
        }
        if problems.is_empty() {
            let table = table.into_inner();
            Ok(Self { table, lines })
        } else {
            Err(problems)
        }
    }

    /// Gives the places to the tree that was read from the same text.
    pub(super) fn place(&self, tree: &mut Node) {
        self.place_table(tree, &self.table);
    }

    fn place_table(&self, node: &mut Node, table: &DeTable<'_>) {
        for (key, value) in table {
            if let Some(child) = node.child(&Segment::Key(key.get_ref().to_string())) {
                self.place_value(child, value);
                child.key = Arc::new(self.lines.at(&key.span()));
            }
        }
    }

    fn place_value(&self, node: &mut Node, value: &Spanned<DeValue<'_>>) {
        node.origin = Arc::new(self.lines.at(&value.span()));
        node.key = node.origin.clone();
        match value.get_ref() {
            DeValue::Table(table) => self.place_table(node, table),
            DeValue::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    if let Some(item) = node.child(&Segment::Index(index)) {
                        self.place_value(item, value);
                    }
                }
            }
            // The `config` crate makes a string of it; a setting that takes strings should not take it unseen.
            DeValue::Datetime(date) => node.kind = Kind::Date(date.to_string()),
            _ => {}
        }
    }
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

/// Turns offsets into lines and columns, without a walk over the text for each.
struct Lines<'t> {
    text: &'t str,
    origin: &'t Origin,
    /// Where each line begins, in bytes.
    starts: Vec<usize>,
    /// Whether a character is a byte throughout.
    ascii: bool,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str, origin: &'t Origin) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            origin,
            starts: std::iter::once(0).chain(breaks).collect(),
            ascii: text.is_ascii(),
        }
    }

    /// The place where a span begins.
    fn at(&self, span: &Range<usize>) -> Origin {
        let line = self.starts.partition_point(|&start| start <= span.start);
        let start = self.starts[line - 1];
        let column = if self.ascii {
            span.start - start
        } else {
            let before = self.text.get(start..span.start);
            before.map_or(0, |before| before.chars().count())
        };
        self.origin.at(line, column + 1)
    }
}
