//! Which layer wins, and what a variable's text becomes.

use std::time::Duration;

use super::{Place, Policy, Protocol, Settings, outside};
use crate::config::{Layer, Loaded, Sources, load};

#[test]
fn nothing_at_all_is_the_defaults() {
    let missing = Sources {
        system: Some("/nowhere/at/all".into()),
        ..Sources::default()
    };
    for sources in [Sources::default(), missing] {
        let loaded: Loaded<Settings> = load(&sources).unwrap();
        assert_eq!(loaded.value, Settings::default());
        assert_eq!(loaded.origins.iter().count(), 0);
    }
}

#[test]
fn each_layer_wins_over_those_below_it() {
    let name = |text: &str| format!("[node]\nname = \"{text}\"");
    let place = Place::new(&[
        ("etc/switchboard.toml", &name("system")),
        ("etc/conf.d/20-b.yaml", "node: {name: second}"),
        ("etc/conf.d/10-a.json", r#"{"node": {"name": "first"}}"#),
        ("etc/conf.d/.30.toml", "an editor's own"),
        ("etc/conf.d/README", "not ours"),
        ("one.toml", &name("one")),
        ("two.toml", &name("two")),
    ]);
    let environment = outside(&[("SWITCHBOARD__NODE__NAME", "variable")], &[]).environment;
    let sets = vec!["node.name=set".to_owned(), "node.name=set again".to_owned()];
    let mut sources = Sources {
        system: Some(place.path("etc")),
        ..place.sources(&["one.toml", "two.toml"])
    };
    let winner = |sources: &Sources| load::<Settings>(sources).unwrap().value.node.name;
    assert_eq!(winner(&sources), "two");
    sources.environment = environment;
    assert_eq!(winner(&sources), "variable");
    sources.sets = sets;
    assert_eq!(winner(&sources), "set again");

    let loaded: Loaded<Settings> = load(&sources).unwrap();
    let setting = loaded.origins.get("node.name").unwrap();
    assert_eq!(setting.origin.layer, Layer::CommandLine);
    let hidden: Vec<_> = setting
        .shadows
        .iter()
        .map(|shadow| shadow.value.as_str().unwrap())
        .collect();
    let below = ["set", "variable", "two", "one", "second", "first", "system"];
    assert_eq!(hidden, below);
    assert_eq!(setting.shadows[2].origin.line, Some(2));
    assert_eq!(setting.shadows[2].origin.column, Some(8));
    assert_eq!(
        &*setting.shadows[1].origin.source,
        "SWITCHBOARD__NODE__NAME"
    );
}

#[test]
fn tables_merge_and_lists_are_replaced() {
    let place = Place::new(&[
        (
            "a.toml",
            "grpc.ports = [1, 2]\n[listeners.x]\nprotocol = \"ack\"\nbind = \"a:1\"\nlimits.rate = 1",
        ),
        (
            "b.json",
            r#"{"grpc": {"ports": [3]}, "listeners": {"x": {"limits": {"max_sessions": 5}}}}"#,
        ),
        ("c.yaml", "listeners:\n  x:\n    bind: b:2\ngrpc:\n"),
    ]);
    let loaded: Loaded<Settings> = load(&place.sources(&["a.toml", "b.json", "c.yaml"])).unwrap();
    assert_eq!(loaded.value.grpc.ports, [3]);
    let listener = &loaded.value.listeners["x"];
    assert_eq!(listener.bind, "b:2");
    assert_eq!(listener.limits.max_sessions, 5);
    assert!((listener.limits.rate - 1.0).abs() < f64::EPSILON);
    assert_eq!(listener.protocol, Protocol::Ack);

    let source = |key: &str| {
        let origin = loaded.origins.get(key).unwrap().origin.clone();
        origin.source.rsplit('/').next().unwrap().to_owned()
    };
    assert_eq!(source("grpc.ports"), "b.json");
    assert_eq!(source("grpc.ports[0]"), "b.json");
    assert_eq!(source("listeners.x.bind"), "c.yaml");
    assert_eq!(source("listeners.x.limits.rate"), "a.toml");
    assert!(loaded.origins.get("node.name").is_none());
}

#[test]
fn a_table_given_whole_is_told_key_by_key() {
    let environment = [(
        "SWITCHBOARD__LISTENERS__X",
        "{protocol = \"ack\", bind = \"a:1\", limits = {rate = 1}}",
    )];
    let sets = [
        "listeners.x={protocol = \"ack\", bind = \"b:2\"}",
        "listeners.x={protocol = \"ack\", bind = \"c:3\", limits = {}}",
    ];
    let loaded: Loaded<Settings> = load(&outside(&environment, &sets)).unwrap();
    let place = |key: &str| {
        let setting = loaded.origins.at(&format!("listeners.x.{key}"))?;
        let shadows = setting.shadows.iter();
        let shadows = shadows.map(|s| format!("{} {}", s.origin.source, s.value));
        Some((&*setting.origin.source, shadows.collect::<Vec<_>>()))
    };
    let hidden = ["--set \"b:2\"", "SWITCHBOARD__LISTENERS__X \"a:1\""];
    assert_eq!(
        place("bind"),
        Some(("--set", hidden.map(String::from).into()))
    );
    assert_eq!(place("limits"), Some(("--set", Vec::new())));
    // What it does not name is as by default, though the whole stands in a place.
    assert_eq!(place("limits.rate"), None);
    assert!(loaded.origins.get("listeners.x.limits.rate").is_some());
}

#[test]
fn text_from_outside_takes_the_type_that_is_wanted() {
    let environment = [
        ("SWITCHBOARD__NODE__NAME", "0123"),
        ("SWITCHBOARD__NODE__WEIGHT", "2"),
        ("SWITCHBOARD__GRPC__ALLOW_SHELL", "true"),
        ("SWITCHBOARD__GRPC__PORTS", "1, 2,3"),
        ("SWITCHBOARD__LISTENERS__X__PROTOCOL", "shell"),
        ("SWITCHBOARD__LISTENERS__X__POLICY", "programs"),
        ("SWITCHBOARD__LISTENERS__X__PROGRAMS", "[\"a,b\", 'c']"),
        ("SWITCHBOARD_ENDPOINT", "somebody else's"),
        ("SWITCHBOARD", "nobody's"),
        ("switchboard__node__name", "not ours either"),
    ];
    let sets = [
        "listeners.x.bind=a=b",
        "listeners.x.limits={max_message_bytes = \"64KiB\"}",
        "listeners.x.limits.max_sessions=7",
        "grace.stop=1m 30s",
        "grpc.comment=",
    ];
    let loaded: Loaded<Settings> = load(&outside(&environment, &sets)).unwrap();
    let Settings {
        node,
        grpc,
        grace,
        listeners,
    } = loaded.value;
    assert_eq!(node.name, "0123");
    assert!((node.weight - 2.0).abs() < f64::EPSILON);
    assert!(grpc.allow_shell);
    assert_eq!(grpc.ports, [1, 2, 3]);
    assert_eq!(grpc.comment.as_deref(), Some(""));
    assert_eq!(grace.stop, Duration::from_secs(90));
    let listener = &listeners["x"];
    assert_eq!(listener.bind, "a=b");
    assert_eq!(listener.limits.max_message_bytes, 65_536);
    assert_eq!(listener.limits.max_sessions, 7);
    let shell = Protocol::Shell {
        policy: Policy::Programs,
        programs: vec!["a,b".into(), "c".into()],
    };
    assert_eq!(listener.protocol, shell);
}

#[test]
fn null_says_nothing_but_must_be_known() {
    let place = Place::new(&[
        ("a.toml", "node.name = \"a\""),
        (
            "b.json",
            "\u{feff}{\"node\": {\"name\": null}, \"listeners\": {\"x\": null}}",
        ),
        ("c.yaml", "grcp:\n"),
    ]);
    let loaded: Loaded<Settings> = load(&place.sources(&["a.toml", "b.json"])).unwrap();
    assert_eq!(loaded.value.node.name, "a");
    assert!(loaded.value.listeners.is_empty());
    assert_eq!(loaded.origins.iter().count(), 1);
    let complaints = place.complaints(&place.sources(&["c.yaml"]));
    assert_eq!(
        complaints,
        ["c.yaml:1:1: grcp: unknown key; did you mean `grpc`?"]
    );
}

#[test]
fn of_two_variables_for_one_key_the_later_name_wins() {
    let one = ("SWITCHBOARD__NODE__NAME", "upper");
    let other = ("SWITCHBOARD__node__name", "lower");
    for environment in [[one, other], [other, one]] {
        let loaded: Loaded<Settings> = load(&outside(&environment, &[])).unwrap();
        assert_eq!(loaded.value.node.name, "lower");
        let setting = loaded.origins.get("node.name").unwrap();
        assert_eq!(&*setting.origin.source, other.0);
        assert_eq!(&*setting.shadows[0].origin.source, one.0);
    }
}
