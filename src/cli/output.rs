//! What goes to stdout: one set of formats for every noun, so that `-o` means the same everywhere.
//!
//! JSON and YAML are the control plane's own messages in canonical protobuf JSON, made from the descriptors: a field
//! that is added to a message appears without a line here. A list is always `{"plural": […]}`, an empty one too.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::SystemTime;

use clap::ValueEnum;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde::Serialize;
use serde_json::Value;
use yaml_rust2::{YamlEmitter, YamlLoader};

use super::exit::Failure;
use super::table::{Screen, Table};
use crate::grpc::api;
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
}

/// What a table depends on besides its rows.
pub(super) struct View {
    /// Whether the rarer columns are wanted.
    pub(super) wide: bool,
    /// What ages are counted from.
    pub(super) now: SystemTime,
}

/// A message that every format can show.
pub(super) trait Resource: prost::Message + Sized {
    /// The message's name in `switchboard.v1`.
    const MESSAGE: &'static str;
    /// The resource name, `listeners/ack`.
    fn name(&self) -> String;
    /// A row each.
    fn table(items: &[Self], view: &View) -> Table;
}

/// Shows the resource that an answer is about.
pub(super) fn answered<R: Resource>(format: Format, resource: Option<R>) -> Result<(), Failure> {
    let none = || Failure::error(format_args!("the answer holds no {}", R::MESSAGE));
    one(format, &resource.ok_or_else(none)?)
}

/// Prints one resource.
pub(super) fn one<T: Resource>(format: Format, item: &T) -> Result<(), Failure> {
    let items = std::slice::from_ref(item);
    print(&render(format, items, || {
        serialized(format, &reflected(T::MESSAGE, item)?)
    })?)
}

/// Prints a list of resources under its plural name.
pub(super) fn many<T: Resource>(format: Format, plural: &str, items: &[T]) -> Result<(), Failure> {
    let whole = || {
        let items = items.iter().map(|item| reflected(T::MESSAGE, item));
        let items = items.collect::<Result<Vec<_>, _>>()?;
        serialized(format, &BTreeMap::from([(plural, items)]))
    };
    print(&render(format, items, whole)?)
}

/// Says that something is gone; `name` is what it was called.
pub(super) fn gone(format: Format, name: &str) -> Result<(), Failure> {
    match format {
        Format::Table | Format::Wide => {
            eprintln!("deleted {name}");
            Ok(())
        }
        Format::Json | Format::Yaml => print("{}\n"),
        Format::Name => print(&format!("{name}\n")),
    }
}

fn render<T: Resource>(
    format: Format,
    items: &[T],
    document: impl FnOnce() -> Result<String, Failure>,
) -> Result<String, Failure> {
    match format {
        Format::Json | Format::Yaml => document(),
        Format::Name => {
            let shown = |item: &T| legible(item.name().as_bytes(), b"") + "\n";
            Ok(items.iter().map(shown).collect())
        }
        Format::Table | Format::Wide => {
            let view = View {
                wide: format == Format::Wide,
                now: SystemTime::now(),
            };
            Ok(T::table(items, &view).render(&Screen::stdout()))
        }
    }
}

/// Fields that are maps, and whose keys therefore come in any order, by their JSON names.
const MAPS: [&str; 6] = [
    "annotations",
    "attributes",
    "cannedReplies",
    "environment",
    "labels",
    "rejectedByReason",
];

/// Puts the keys of maps in order, so that the same resource is the same text every time; fields
/// stay in the order of their message.
fn sort_maps(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(sort_maps),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Object(map) if MAPS.contains(&name.as_str()) => map.sort_keys(),
                    field => sort_maps(field),
                }
            }
        }
        _ => {}
    }
}

/// YAML is read back from the JSON, which is a part of it: that keeps the order of the fields.
fn serialized(format: Format, whole: &impl Serialize) -> Result<String, Failure> {
    let mut whole = serde_json::to_value(whole).map_err(Failure::error)?;
    sort_maps(&mut whole);
    let mut out = serde_json::to_string_pretty(&whole).map_err(Failure::error)?;
    if format == Format::Yaml {
        let documents = YamlLoader::load_from_str(&out).map_err(Failure::error)?;
        out.clear();
        for document in &documents {
            YamlEmitter::new(&mut out)
                .dump(document)
                .map_err(Failure::error)?;
        }
        out = out.trim_start_matches("---\n").to_owned();
    }
    out.push('\n');
    Ok(out)
}

/// A message of `switchboard.v1` together with its description.
fn reflected(message: &str, value: &impl prost::Message) -> Result<DynamicMessage, Failure> {
    let bytes = value.encode_to_vec();
    DynamicMessage::decode(descriptor(message)?, bytes.as_slice()).map_err(Failure::error)
}

/// The description of a message of `switchboard.v1`.
pub(super) fn descriptor(message: &str) -> Result<MessageDescriptor, Failure> {
    static POOL: LazyLock<Result<DescriptorPool, String>> = LazyLock::new(|| {
        DescriptorPool::decode(api::FILE_DESCRIPTOR_SET).map_err(|error| error.to_string())
    });
    let pool = POOL.as_ref().map_err(Failure::error)?;
    let found = pool.get_message_by_name(&format!("switchboard.v1.{message}"));
    found.ok_or_else(|| Failure::error(format_args!("no message is called {message}")))
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

    fn listener() -> api::Listener {
        api::Listener {
            name: "listeners/ack".into(),
            bind: "127.0.0.1:0".into(),
            state: api::listener::State::Active.into(),
            status: Some(api::ListenerStatus {
                received_bytes: 7,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn every_map_is_known_by_name() {
        let pool = descriptor("Listener").unwrap().parent_pool().clone();
        let ours = pool
            .all_messages()
            .filter(|m| m.package_name() == "switchboard.v1");
        for field in ours.flat_map(|m| m.fields().collect::<Vec<_>>()) {
            let listed = MAPS.contains(&field.json_name());
            assert_eq!(field.is_map(), listed, "{}", field.full_name());
        }
    }

    #[test]
    fn json_is_canonical_and_in_the_order_of_the_fields() {
        let whole = reflected("Listener", &listener()).unwrap();
        let text = serialized(Format::Json, &whole).unwrap();
        let expected = "{\n  \"name\": \"listeners/ack\",\n  \"bind\": \"127.0.0.1:0\",\n  \
                        \"state\": \"STATE_ACTIVE\",\n  \"status\": {\n    \"receivedBytes\": \"7\"\n  }\n}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn yaml_says_the_same() {
        let whole = reflected("Listener", &listener()).unwrap();
        let text = serialized(Format::Yaml, &whole).unwrap();
        assert_eq!(
            text,
            "name: listeners/ack\nbind: \"127.0.0.1:0\"\nstate: STATE_ACTIVE\nstatus:\n  receivedBytes: \"7\"\n"
        );
    }

    #[test]
    fn an_empty_list_is_a_list() {
        let none = BTreeMap::from([("listeners", Vec::<DynamicMessage>::new())]);
        let text = serialized(Format::Json, &none).unwrap();
        assert_eq!(text, "{\n  \"listeners\": []\n}\n");
        let yaml = serialized(Format::Yaml, &none).unwrap();
        assert_eq!(yaml.trim(), "listeners: []");
    }

    #[test]
    fn names_stand_a_line_each() {
        let items = [listener(), listener()];
        let text = render(Format::Name, &items, || Ok(String::new())).unwrap();
        assert_eq!(text, "listeners/ack\nlisteners/ack\n");
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
