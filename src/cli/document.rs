//! JSON and YAML: the control plane's messages as text, and the same text for the same message every time.
//!
//! The messages are described by reflection, so that a new field needs no line here. No character that a terminal
//! would obey, or that looks like another one, leaves as it is: JSON and YAML both have a way to spell it.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::LazyLock;

use prost::Name;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde::Serialize;
use serde_json::Value;

use super::exit::Failure;
use crate::config::yaml_text;
use crate::grpc::api;
use crate::telemetry::escape;

/// Fields that are maps, and whose keys therefore come in any order, by their JSON names.
const MAPS: [&str; 6] = [
    "annotations",
    "attributes",
    "cannedReplies",
    "environment",
    "labels",
    "rejectedByReason",
];

/// The description of a message of `switchboard.v1`.
pub(super) fn descriptor(message: &str) -> Result<MessageDescriptor, Failure> {
    static POOL: LazyLock<Result<DescriptorPool, String>> = LazyLock::new(|| {
        DescriptorPool::decode(api::FILE_DESCRIPTOR_SET).map_err(|error| error.to_string())
    });
    let pool = POOL.as_ref().map_err(Failure::error)?;
    let found = pool.get_message_by_name(&format!("switchboard.v1.{message}"));
    found.ok_or_else(|| Failure::error(format_args!("no message is called {message}")))
}

/// A message of `switchboard.v1` together with its description.
pub(super) fn reflected<M: Name>(message: &M) -> Result<DynamicMessage, Failure> {
    let bytes = message.encode_to_vec();
    DynamicMessage::decode(descriptor(M::NAME)?, bytes.as_slice()).map_err(Failure::error)
}

/// As JSON, indented; it ends in a line feed.
pub(super) fn json(whole: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(&sorted(whole)?).map_err(Failure::error)?;
    Ok(ended(&text))
}

/// As JSON in one line, for one of many.
pub(super) fn json_line(whole: &impl Serialize) -> Result<String, Failure> {
    Ok(ended(&sorted(whole)?.to_string()))
}

fn ended(json: &str) -> String {
    spelled(json, |out, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }) + "\n"
}

/// As YAML, in block style; it ends in a line feed.
pub(super) fn yaml(whole: &impl Serialize) -> Result<String, Failure> {
    // What is not ASCII stands in double quotes there, which have YAML's own escapes.
    Ok(spelled(&yaml_text(&sorted(whole)?), |out, c| {
        let _ = match u32::from(c) {
            code @ ..=0xffff => write!(out, "\\u{code:04x}"),
            code => write!(out, "\\U{code:08x}"),
        };
    }))
}

fn sorted(whole: &impl Serialize) -> Result<Value, Failure> {
    let mut whole = serde_json::to_value(whole).map_err(Failure::error)?;
    sort_maps(&mut whole);
    Ok(whole)
}

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

/// JSON's serializer escapes the control characters of ASCII but DEL, and nothing else that is not to be obeyed.
fn spelled(json: &str, spell: impl Fn(&mut String, char)) -> String {
    let obeyed = |c: char| match c {
        '\x7f' => true,
        c => !c.is_ascii() && matches!(escape(c.encode_utf8(&mut [0; 4])), Cow::Owned(_)),
    };
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if obeyed(c) {
            spell(&mut out, c);
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use yaml_rust2::{Yaml, YamlLoader};

    fn listener() -> DynamicMessage {
        let listener = api::Listener {
            name: "listeners/ack".into(),
            bind: "127.0.0.1:0".into(),
            state: api::listener::State::Active.into(),
            status: Some(api::ListenerStatus {
                received_bytes: 7,
                ..Default::default()
            }),
            ..Default::default()
        };
        reflected(&listener).unwrap()
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
        let expected = "{\n  \"name\": \"listeners/ack\",\n  \"bind\": \"127.0.0.1:0\",\n  \
                        \"state\": \"STATE_ACTIVE\",\n  \"status\": {\n    \"receivedBytes\": \"7\"\n  }\n}\n";
        assert_eq!(super::json(&listener()).unwrap(), expected);
    }

    #[test]
    fn yaml_says_the_same() {
        assert_eq!(
            yaml(&listener()).unwrap(),
            "name: listeners/ack\nbind: \"127.0.0.1:0\"\nstate: STATE_ACTIVE\nstatus:\n  receivedBytes: \"7\"\n"
        );
    }

    #[test]
    fn lists_and_tables_stand_in_each_other() {
        let whole = json!({"a": [{"b": 1, "c": {"d": null}}, [true, []]], "e": {}, "f": "x y"});
        let expected = "a:\n  - b: 1\n    c:\n      d: null\n  - - true\n    - []\ne: {}\nf: x y\n";
        assert_eq!(yaml(&whole).unwrap(), expected);
        let none = json!({"listeners": []});
        assert_eq!(yaml(&none).unwrap(), "listeners: []\n");
        assert_eq!(super::json(&none).unwrap(), "{\n  \"listeners\": []\n}\n");
    }

    #[test]
    fn a_text_that_looks_like_something_else_is_quoted() {
        for text in [
            "1_000",
            "1e3",
            "0x10",
            "0o7",
            "yes",
            "No",
            "ON",
            "~",
            "",
            "2026-11-23",
            "12:30:45",
            ".inf",
            "NaN",
            "- a",
            "a: b",
            "a #b",
            "a ",
            " a",
            "null",
            "+1",
            "=",
            "<<",
            "*a",
            "'",
        ] {
            assert_eq!(
                yaml(&json!({"k": text})).unwrap(),
                format!("k: \"{text}\"\n")
            );
        }
        for text in ["edge", "listeners/ack", "STATE_ACTIVE", "a b-c.d"] {
            assert_eq!(yaml(&json!({"k": text})).unwrap(), format!("k: {text}\n"));
        }
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let whole = json!({"l": "\u{7f}\u{9b}\u{202e}\u{e0041}\u{1b}ü"});
        let expected = r#""\u007f\u009b\u202e\udb40\udc41\u001bü""#;
        assert!(super::json(&whole).unwrap().contains(expected));
        let expected = "l: \"\\u007f\\u009b\\u202e\\U000e0041\\u001bü\"\n";
        assert_eq!(yaml(&whole).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn both_are_read_back_as_they_were(key: String, text: String) {
            let whole = json!({ &*key: [&text] });
            let read: Value = serde_json::from_str(&super::json(&whole).unwrap()).unwrap();
            prop_assert_eq!(&read, &whole);
            let read = YamlLoader::load_from_str(&yaml(&whole).unwrap()).unwrap();
            let Yaml::Hash(fields) = &read[0] else { panic!("{read:?}") };
            let expected = (Yaml::String(key), Yaml::Array(vec![Yaml::String(text)]));
            prop_assert_eq!(fields.iter().next(), Some((&expected.0, &expected.1)));
        }
    }
}
