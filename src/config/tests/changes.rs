//! Changes made at run time, as layers among the others.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Place, Protocol, Settings, outside};
use crate::config::{Assignment, Layer, Layers, Loaded, Origin, Sources, key};

const FILE: &str = "[listeners.web]\nprotocol = \"ack\"\nbind = \"a:1\"\nlimits.rate = 1.5\nlabels = {a = \"file\"}\n\
                    [listeners.other]\nprotocol = \"ack\"\nbind = \"a:2\"";

fn change(method: &str, path: &[&str], value: Value) -> Assignment {
    Assignment {
        path: path.iter().map(|&segment| segment.to_owned()).collect(),
        value,
        origin: Origin {
            set: Some(SystemTime::UNIX_EPOCH),
            by: Some("127.0.0.1:4242".into()),
            // Not its business: the set decides.
            ..Origin::whole(Layer::Default, method)
        },
    }
}

fn file() -> (Place, Sources) {
    let place = Place::new(&[("a.toml", FILE)]);
    let sources = place.sources(&["a.toml"]);
    (place, sources)
}

fn load(layers: &Layers) -> Loaded<Settings> {
    layers.load().unwrap()
}

#[test]
fn a_change_stands_between_files_and_environment_or_on_top() {
    let (_place, mut sources) = file();
    let name = |by: &str| change(by, &["node", "name"], json!(by));
    let mut layers = Layers::read(&sources);
    layers.set_runtime(vec![name("runtime")]);
    assert_eq!(load(&layers).value.node.name, "runtime");
    sources.environment = outside(&[("SWITCHBOARD__NODE__NAME", "variable")], &[]).environment;
    let mut layers = Layers::read(&sources);
    layers.set_runtime(vec![name("runtime")]);
    assert_eq!(load(&layers).value.node.name, "variable");
    layers.set_ephemeral(vec![name("ephemeral")]);
    let loaded = load(&layers);
    assert_eq!(loaded.value.node.name, "ephemeral");
    let setting = loaded.origins.get("node.name").unwrap();
    assert_eq!(setting.origin.layer, Layer::Ephemeral);
    assert_eq!(setting.origin.to_string(), "ephemeral by 127.0.0.1:4242");
    let hidden = setting.shadows.iter().map(|shadow| shadow.origin.layer);
    assert_eq!(
        hidden.collect::<Vec<_>>(),
        [Layer::Environment, Layer::Runtime]
    );
    assert_eq!(load(&layers.files_only()).value.node.name, "");
    layers.set_ephemeral(Vec::new());
    assert_eq!(load(&layers).value.node.name, "variable");
    layers.set_runtime(Vec::new());
    let without = load(&layers);
    assert!(without.origins.get("node.name").unwrap().shadows.is_empty());
}

#[test]
fn a_value_takes_the_place_of_all_beneath_it() {
    let (_place, sources) = file();
    let mut layers = Layers::read(&sources);
    layers.set_runtime(vec![
        change("Update", &["listeners", "web", "limits", "rate"], json!(3)),
        change(
            "Create",
            &["listeners", "web"],
            json!({"protocol": "uppercase", "bind": "b:1", "limits": {"max_sessions": 2}}),
        ),
        change("Delete", &["listeners", "other"], Value::Null),
    ]);
    let loaded = load(&layers);
    let web = &loaded.value.listeners["web"];
    assert_eq!(loaded.value.listeners.len(), 1);
    assert!(matches!(web.protocol, Protocol::Uppercase(_)));
    assert_eq!(web.limits.max_sessions, 2);
    assert!((web.limits.rate - 3.0).abs() < f64::EPSILON);
    assert!(web.labels.is_empty());

    let shown: Vec<_> = loaded
        .origins
        .iter()
        .map(|(key, setting)| {
            let shadows = setting.shadows.iter();
            let shadows: Vec<_> = shadows.map(|shadow| shadow.value.to_string()).collect();
            (key, &*setting.origin.source, shadows.join(" "))
        })
        .collect();
    let hidden = r#"{"bind":"a:2","protocol":"ack"}"#.to_owned();
    assert_eq!(
        shown,
        [
            ("listeners.other", "Delete", hidden),
            ("listeners.web.bind", "Create", "\"a:1\"".to_owned()),
            ("listeners.web.limits.max_sessions", "Create", String::new()),
            // The file's rate went with the table that held it.
            ("listeners.web.limits.rate", "Update", String::new()),
            ("listeners.web.protocol", "Create", "\"ack\"".to_owned()),
        ]
    );
}

#[test]
fn what_is_wrong_with_a_change_is_told_of_the_change() {
    let (_place, mut sources) = file();
    sources.sets = vec!["listeners.gone.bind=a:3".into()];
    let mut layers = Layers::read(&sources);
    layers.set_runtime(vec![
        change("Delete", &["listeners", "gone"], Value::Null),
        change("Create", &["listeners", "new"], json!({"bind": "a:4"})),
        change(
            "Update",
            &["listeners", "web", "limits", "max_sessions"],
            json!("3"),
        ),
        change("Update", &["listeners", "web", "nonsense"], json!(1)),
        change("Update", &["rubbish", "more"], json!(1)),
    ]);
    let problems = layers.load::<Settings>().unwrap_err();
    let all: Vec<_> = problems
        .iter()
        .map(|p| (p.key.as_str(), p.origin.as_ref().unwrap().layer))
        .collect();
    // Nothing of a file is beneath what --set amends, so that the deletion is not to blame.
    assert!(
        all.contains(&("listeners.gone.protocol", Layer::CommandLine)),
        "{problems}"
    );
    for key in [
        "listeners.new.protocol",
        "listeners.web.limits.max_sessions",
        "listeners.web.nonsense",
        "rubbish",
    ] {
        assert!(all.contains(&(key, Layer::Runtime)), "{key} in {problems}");
    }
    assert_eq!(all.len(), 5);

    sources.sets = vec!["listeners.web.bind=a:3".into()];
    let mut layers = Layers::read(&sources);
    layers.set_runtime(vec![change("Delete", &["listeners", "web"], Value::Null)]);
    let problems = layers.load::<Settings>().unwrap_err();
    assert_eq!(
        problems.to_string(),
        "Delete by 127.0.0.1:4242: listeners.web.protocol: is required, one of ack, uppercase, shell"
    );
}

#[test]
fn a_change_within_what_is_not_there_is_an_orphan() {
    let (_place, sources) = file();
    let created = json!({"protocol": "ack", "bind": "a:3"});
    let within = |name: &str| change("Update", &["listeners", name, "bind"], json!("z:1"));
    let mut layers = Layers::read(&sources);
    layers.set_runtime(vec![
        within("web"),
        within("made"),
        within("lost"),
        within("other"),
        change("Create", &["listeners", "made"], created),
        change("Delete", &["listeners", "other"], Value::Null),
        change("Update", &["node", "name"], json!("a")),
    ]);
    layers.set_ephemeral(vec![within("made"), within("brief")]);
    let orphans = layers.take_orphans(2);
    let mut keys: Vec<_> = orphans.iter().map(|orphan| key(&orphan.path)).collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "listeners.brief.bind",
            "listeners.lost.bind",
            "listeners.other.bind"
        ]
    );
    assert!(layers.take_orphans(2).is_empty());
    let loaded = load(&layers);
    assert_eq!(loaded.value.listeners.len(), 2);
    assert_eq!(loaded.value.listeners["web"].bind, "z:1");
}

#[test]
fn a_key_that_a_higher_layer_sets_is_pinned() {
    let (_place, mut sources) = file();
    sources.environment = outside(
        &[
            ("SWITCHBOARD__LISTENERS__WEB__LIMITS", "{max_sessions = 1}"),
            ("SWITCHBOARD__NODE", "nonsense"),
        ],
        &[],
    )
    .environment;
    let mut layers = Layers::read(&sources);
    layers.set_runtime(vec![change(
        "Update",
        &["grpc", "allow_shell"],
        json!(true),
    )]);
    layers.set_ephemeral(vec![change("Create", &["listeners", "temp"], json!({}))]);
    let pinned = |path: &[&str]| {
        let found = layers.pinned(path, Layer::Runtime);
        found.map(|(key, origin)| (key, origin.source.to_string()))
    };
    let limits = Some((
        "listeners.web.limits.max_sessions".to_owned(),
        "SWITCHBOARD__LISTENERS__WEB__LIMITS".to_owned(),
    ));
    assert_eq!(
        pinned(&["listeners", "web", "limits", "max_sessions"]),
        limits
    );
    assert_eq!(pinned(&["listeners", "web", "limits", "rate"]), None);
    assert_eq!(pinned(&["grpc", "allow_shell"]), None);
    assert_eq!(pinned(&["listeners", "web", "bind"]), None);
    for (path, key) in [
        (&["listeners", "web"][..], "listeners.web.limits"),
        (&["node", "name"], "node"),
        (&["listeners", "temp", "bind"], "listeners.temp"),
        (&["listeners"], "listeners.temp"),
    ] {
        assert_eq!(pinned(path).map(|(key, _)| key).as_deref(), Some(key));
    }
    assert!(
        layers
            .pinned(&["grpc", "allow_shell"], Layer::File)
            .is_some()
    );
}

#[test]
fn a_layer_can_be_asked_what_it_says() {
    let (_place, mut sources) = file();
    sources.sets = vec![
        "listeners.web.bind=a".into(),
        "grpc={allow_shell = true}".into(),
    ];
    let mut layers =
        Layers::read(&sources).with_defaults(&json!({"node": {"name": "n"}, "grpc": {}}));
    layers.set_runtime(vec![change(
        "Create",
        &["listeners", "x"],
        json!({"bind": "x"}),
    )]);
    let configured = |path: &[&str]| {
        layers
            .configured(path)
            .map(|origin| (origin.layer, origin.line))
    };
    assert_eq!(
        configured(&["listeners", "web"]),
        Some((Layer::File, Some(1)))
    );
    assert_eq!(
        configured(&["grpc", "allow_shell"]),
        Some((Layer::CommandLine, None))
    );
    for path in [
        &["listeners", "x"][..],
        &["node"],
        &["grpc", "ports"],
        &["listeners", "web", "bind", "a"],
    ] {
        assert_eq!(configured(path), None, "{path:?}");
    }
    let beneath = |path: &[&str]| layers.beneath_runtime(path).map(|origin| origin.layer);
    assert_eq!(beneath(&["node", "name"]), Some(Layer::Default));
    assert_eq!(beneath(&["listeners", "web"]), Some(Layer::File));
    assert_eq!(beneath(&["listeners", "x"]), None);
    assert_eq!(beneath(&["grpc"]), None);
    assert_eq!(load(&layers.files_only()).value.node.name, "n");
}

#[test]
fn files_are_told_apart_by_what_they_hold() {
    let (place, sources) = file();
    let now = || Layers::read(&sources).fingerprint();
    let before = now();
    assert_eq!(now(), before);
    place.write("a.toml", format!("{FILE}\n").as_bytes());
    let after = now();
    assert_ne!(after, before);
    std::fs::remove_file(place.path("a.toml")).unwrap();
    let absent = now();
    assert!(absent != before && absent != after);
    place.write("a.toml", FILE.as_bytes());
    assert_eq!(now(), before);
}
