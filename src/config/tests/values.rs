//! Settings as values, and what differs between them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::{Grace, Limits, Listener, Policy, Protocol, Settings, Uppercase};
use crate::config::{Format, Layers, Scope, Sources, Values, diff, export, to_value};

fn settings() -> Settings {
    let listener = |protocol| Listener {
        bind: "a:1".into(),
        limits: Limits {
            max_message_bytes: 65_536,
            ..Limits::default()
        },
        labels: [("$dollar", "$x"), ("a.b", "c")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        protocol,
    };
    let shell = Protocol::Shell {
        policy: Policy::Programs,
        programs: vec!["ls".into()],
    };
    let encoding = "gbk".to_owned();
    let listeners = [
        ("ack", Protocol::Ack),
        ("shell", shell),
        ("upper", Protocol::Uppercase(Uppercase { encoding })),
    ];
    Settings {
        grace: Grace {
            stop: Duration::from_secs(90),
            cut: None,
        },
        listeners: listeners
            .map(|(name, protocol)| (name.to_owned(), listener(protocol)))
            .into(),
        ..Settings::default()
    }
}

#[test]
fn settings_are_said_as_a_file_says_them() {
    let value = to_value(&settings());
    assert_eq!(value["grace"], json!({"stop": "90s"}));
    assert_eq!(value["listeners"]["ack"]["protocol"], "ack");
    assert_eq!(value["listeners"]["shell"]["policy"], "programs");
    assert_eq!(value["listeners"]["shell"]["programs"], json!(["ls"]));
    assert_eq!(
        value["listeners"]["upper"],
        json!({
            "bind": "a:1", "protocol": "uppercase", "encoding": "gbk",
            "limits": {"max_sessions": 0, "max_message_bytes": "64KiB", "rate": 0.0},
            "labels": {"$dollar": "$x", "a.b": "c"},
        })
    );
}

#[test]
fn settings_that_are_written_are_read_back() {
    let value = to_value(&settings());
    for format in [Format::Toml, Format::Json, Format::Yaml] {
        let text = export(&value, format).unwrap();
        let sources = Sources {
            document: Some((text, format)),
            ..Sources::default()
        };
        let loaded = Layers::read(&sources).load::<Settings>().unwrap();
        assert_eq!(loaded.value, settings());
        // Every leaf is known by the same key on both sides, but for tables without entries.
        for (key, value) in Values::of(&value).iter() {
            assert!(
                value == &json!({}) || loaded.origins.get(key).is_some(),
                "{key}"
            );
        }
    }
}

#[test]
fn what_no_file_can_say_is_left_out() {
    #[derive(Serialize)]
    struct Odd {
        path: PathBuf,
        nothing: Option<u8>,
        number: u64,
        map: BTreeMap<u8, ()>,
    }
    let odd = Odd {
        path: OsStr::from_bytes(b"\xff").into(),
        nothing: None,
        number: u64::MAX,
        map: [(1, ())].into(),
    };
    let value = to_value(&odd);
    assert_eq!(value, json!({"number": u64::MAX, "map": {}}));
    for format in [Format::Toml, Format::Yaml] {
        let refused = export(&value, format).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("number: 18446744073709551615 is more than")
        );
    }
    assert_eq!(
        export(&json!({"a": null, "b": [null, {"c": null}]}), Format::Toml).unwrap(),
        "[[b]]\n"
    );
}

#[test]
fn what_differs_is_told_in_order_of_key() {
    let from =
        json!({"b": {"x": 1, "y": [1, 2]}, "labels": {}, "gone": {"a": 1}, "same": {}, "n": null});
    let to = json!({"b": {"x": 2, "y": [1, 2]}, "labels": {"a.b": "c"}, "gone": {}, "same": {}, "new": {}});
    let (from, to) = (Values::of(&from), Values::of(&to));
    let told: Vec<_> = diff(&from, &to)
        .into_iter()
        .map(|change| (change.key, change.from, change.to))
        .collect();
    assert_eq!(
        told,
        [
            ("b.x".to_owned(), Some(json!(1)), Some(json!(2))),
            ("gone.a".to_owned(), Some(json!(1)), None),
            ("labels.\"a.b\"".to_owned(), None, Some(json!("c"))),
            ("new".to_owned(), None, Some(json!({}))),
        ]
    );
    assert!(diff(&from, &from).is_empty());
    assert_eq!(from.get("b.y"), Some(&json!([1, 2])));
    assert_eq!(Values::of(&json!({})).iter().count(), 0);
}

#[test]
fn yaml_is_legible() {
    let value = json!({"a": {"bind": "127.0.0.1:1", "on": "off"}, "list": ["ls", "1_000", "two words"], "none": {}, "path": "/x/y.db"});
    assert_eq!(
        export(&value, Format::Yaml).unwrap(),
        "a:\n  bind: \"127.0.0.1:1\"\n  \"on\": \"off\"\nlist:\n  - ls\n  - \"1_000\"\n  - two words\nnone: {}\npath: /x/y.db\n"
    );
    assert_eq!(
        "ini".parse::<Format>().unwrap_err().to_string(),
        "\"ini\" is no format; one of toml, json, yaml"
    );
}

#[test]
fn scopes_are_in_order_of_mildness() {
    let scopes = [
        Scope::Live,
        Scope::NewSessions,
        Scope::Rebind,
        Scope::Restart,
    ];
    assert!(scopes.is_sorted());
    assert_eq!(
        scopes.map(Scope::word),
        ["live", "new_sessions", "rebind", "restart"]
    );
}
