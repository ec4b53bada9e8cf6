//! What goes to stdout: one set of formats for every noun, so that `-o` means the same everywhere.
//!
//! JSON and YAML are the control plane's own messages in canonical protobuf JSON. A list is always `{"plural": […]}`,
//! an empty one too.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use clap::ValueEnum;
use prost::Name;
use serde::Serialize;

use super::document::{self, reflected};
use super::exit::{Failure, complain};
use super::table::{Screen, Table};
use crate::telemetry::escape_bytes;

/// How an answer is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns, ages and sizes for people.
    #[default]
    Table,
    /// The same with more columns.
    Wide,
    /// Protobuf's JSON, errors too.
    Json,
    /// The same as YAML.
    Yaml,
    /// One resource name a line.
    Name,
    /// One JSON object a line; only `chat history` writes it, and the two below.
    #[value(hide = true)]
    Ndjson,
    /// Comma-separated values.
    #[value(hide = true)]
    Csv,
    /// One line a message, without columns.
    #[value(hide = true)]
    Text,
}

impl Format {
    /// Whether it shows the whole message, and not what a person wants of it.
    pub(super) fn is_document(self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }

    /// Whether it is one of those in which a transcript is taken elsewhere.
    pub(super) fn is_export(self) -> bool {
        matches!(self, Self::Ndjson | Self::Csv | Self::Text)
    }

    /// Refuses what only a transcript can be written as.
    pub(super) fn not_export(self) -> Result<(), Failure> {
        match self.is_export() {
            true => Err(Failure::usage(
                "only `chat history` writes ndjson, csv and text; here are table, wide, json, yaml and name",
            )),
            false => Ok(()),
        }
    }
}

/// What a table depends on besides its rows.
pub(super) struct View {
    /// Whether the rarer columns are wanted.
    pub(super) wide: bool,
    /// Whether more rows will follow under the same columns, which then cannot depend on the rows.
    pub(super) watched: bool,
    /// What ages are counted from.
    pub(super) now: SystemTime,
}

impl View {
    fn of(format: Format) -> Self {
        Self {
            wide: format == Format::Wide,
            watched: false,
            now: SystemTime::now(),
        }
    }
}

/// A message that every format can show.
pub(super) trait Resource: Name + Sized {
    /// The resource name, `listeners/ack`.
    fn name(&self) -> String;
    /// A row each.
    fn table(items: &[Self], view: &View) -> Table;
}

/// Shows the resource that an answer is about.
pub(super) fn answered<R: Resource>(format: Format, resource: Option<R>) -> Result<(), Failure> {
    let none = || Failure::error(format_args!("the answer holds no {}", R::NAME));
    one(format, &resource.ok_or_else(none)?)
}

/// Prints one resource.
pub(super) fn one<T: Resource>(format: Format, item: &T) -> Result<(), Failure> {
    match format.is_document() {
        true => whole(format, item),
        false => resources(format, std::slice::from_ref(item)),
    }
}

/// Prints a list of resources under its plural name.
pub(super) fn many<T: Resource>(format: Format, plural: &str, items: &[T]) -> Result<(), Failure> {
    if !format.is_document() {
        return resources(format, items);
    }
    let items = items.iter().map(|item| reflected(item));
    let items = items.collect::<Result<Vec<_>, _>>()?;
    print(&serialized(format, &BTreeMap::from([(plural, items)]))?)
}

/// Prints all of an answer as JSON or YAML.
pub(super) fn whole(format: Format, answer: &impl Name) -> Result<(), Failure> {
    print(&serialized(format, &reflected(answer)?)?)
}

/// Prints what people want of an answer: its names a line each, or a table.
pub(super) fn rows(
    format: Format,
    names: impl IntoIterator<Item = String>,
    table: impl FnOnce(&View) -> Table,
) -> Result<(), Failure> {
    print(&match format {
        Format::Name => listed(names),
        _ => table(&View::of(format)).render(&Screen::stdout()),
    })
}

fn resources<T: Resource>(format: Format, items: &[T]) -> Result<(), Failure> {
    rows(format, items.iter().map(T::name), |view| {
        T::table(items, view)
    })
}

fn listed(names: impl IntoIterator<Item = String>) -> String {
    let shown = |name: String| legible(name.as_bytes(), b"") + "\n";
    names.into_iter().map(shown).collect()
}

fn serialized(format: Format, whole: &impl Serialize) -> Result<String, Failure> {
    match format {
        Format::Yaml => document::yaml(whole),
        _ => document::json(whole),
    }
}

/// Says that something is gone: what became of it, and what it was called.
pub(super) fn gone(format: Format, became: &str, name: &str) -> Result<(), Failure> {
    match format {
        Format::Json | Format::Yaml => print("{}\n"),
        Format::Name => print(&format!("{name}\n")),
        _ => {
            complain(&format!("{became} {name}"));
            Ok(())
        }
    }
}

/// Writes to stdout. A reader that has left is [`Failure::Unread`].
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::stdout(&error))
}

/// Whether stdout is a terminal, which would obey what a peer sent.
pub(super) fn on_a_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether a terminal may be written to in colour: `NO_COLOR` (no-color.org) forbids it when it is not empty.
pub(super) fn colour_wanted() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Bytes made safe to look at. The ASCII bytes of `kept` stay as they are: the backslash where ambiguity is better
/// than doubling (what the service sends is escaped already), the line feed and the tab where they are layout.
pub(super) fn legible(bytes: &[u8], kept: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for piece in bytes.split_inclusive(|byte| kept.contains(byte)) {
        match piece.split_last() {
            Some((last, text)) if kept.contains(last) => {
                out.push_str(&escape_bytes(text));
                out.push(char::from(*last));
            }
            _ => out.push_str(&escape_bytes(piece)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_a_line_each() {
        let names = ["listeners/ack", "a\nb"].map(str::to_owned);
        assert_eq!(listed(names), "listeners/ack\na\\nb\n");
    }

    #[test]
    fn hostile_bytes_are_shown_and_layout_is_kept() {
        assert_eq!(
            legible(b"a\tb\nC:\\x \x1b[2J", b"\\\n\t"),
            "a\tb\nC:\\x \\u{1b}[2J"
        );
        assert_eq!(
            legible("grüß\ndich\\u{1b}".as_bytes(), b"\\"),
            "grüß\\ndich\\u{1b}"
        );
        assert_eq!(legible(b"", b"\\"), "");
    }
}
