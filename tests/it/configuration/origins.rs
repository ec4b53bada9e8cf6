//! Every value in force, with where it stands and what it hides: the running service and the command that asks none say
//! the same, and neither tells a secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{Ended, Service, no_grpcurl};

const BASE: &str = "[grpc]\naddress = \"127.0.0.1:0\"\n[http]\naddress = \"127.0.0.1:0\"\n[store]\npath = \":memory:\"\n";

const OWN: &str = r#"[telemetry]
otlp_endpoint = "http://me:hush-url@127.0.0.1:1/x"
[listeners.a]
protocol = "ack"
bind = "127.0.0.1:0"
[listeners.a.limits]
max_sessions = 5
[listeners.s]
protocol = "shell"
bind = "127.0.0.1:0"
[listeners.s.sandbox.environment]
TOKEN = "hush-file"
"#;

const MORE_JSON: &str = r#"{
  "node": { "name": "json" },
  "listeners": {
    "a": {
      "limits": { "max_sessions": 6, "accept_backlog": 7 },
      "reply": "json"
    }
  }
}"#;

const MORE_YAML: &str = "listeners:\n  a:\n    limits:\n      max_sessions: 7\n      idle_timeout: 90s\n    labels: {team: yaml}\n";

const VARIABLES: [(&str, &str); 4] = [
    ("SWITCHBOARD__LISTENERS__A__LIMITS__MAX_SESSIONS", "8"),
    ("SWITCHBOARD__LISTENERS__A__DISPLAY_NAME", "a variable's"),
    (
        "SWITCHBOARD__LISTENERS__S__SANDBOX__ENVIRONMENT__OTHER",
        "hush-variable",
    ),
    // Hidden whole by the flag that says the same of it.
    (
        "SWITCHBOARD__LISTENERS__W",
        "{protocol = \"shell\", bind = \"127.0.0.1:0\", sandbox = {environment = {TOKEN = \"hush-whole\"}}}",
    ),
];

const FLAGS: [&str; 3] = [
    "listeners.a.limits.max_sessions=9",
    "node.name=flag",
    "listeners.w={protocol = \"shell\", bind = \"127.0.0.1:0\", sandbox = {environment = {TOKEN = \"hush-flag\"}}}",
];

/// A service with every kind of layer, and what it was told besides its first two files.
struct Layered {
    service: Service,
    more: Vec<&'static str>,
}

impl Layered {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("base.toml", BASE),
            ("switchboard.toml", OWN),
            ("more.json", MORE_JSON),
            ("more.yaml", MORE_YAML),
        ] {
            std::fs::write(home.path().join(name), text).unwrap();
        }
        let mut more = vec!["--config", "more.json", "--config", "more.yaml"];
        more.extend(FLAGS.iter().flat_map(|set| ["--set", set]));
        let service = Service::start_in(Arc::new(home), &more, &VARIABLES);
        Self { service, more }
    }

    /// A command of `config` that asks no service, with the same layers.
    fn local(&self, args: &[&str]) -> String {
        let file = |name| self.service.home().join(name).to_str().unwrap().to_owned();
        let (base, own) = (file("base.toml"), file("switchboard.toml"));
        let layers = ["--config", &*base, "--config", &*own];
        let args = [&["config", "show"], args, &layers, &self.more].concat();
        says(self.service.cli(&args, &VARIABLES))
    }

    /// The same of the running service.
    fn running(&self, args: &[&str]) -> String {
        let args = [&["config", "show", "--running"], args].concat();
        says(self.service.cli(&args, &[]))
    }

    /// The row of a key, from the running service.
    fn row(&self, key: &str) -> Value {
        let shown = self.running(&[key, "-o", "json"]);
        let answer: Value = serde_json::from_str(&shown).unwrap();
        answer["settings"][0].clone()
    }
}

/// What a command that must succeed says.
pub(super) fn says(ended: Ended) -> String {
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.stdout
}

/// A place as `FILE:LINE`, without the folder; or the variable, or the flag.
fn place(origin: &Value) -> String {
    let source = origin["source"].as_str().unwrap_or_default();
    let source = source.rsplit('/').next().unwrap();
    match &origin["line"] {
        Value::Null => source.to_owned(),
        line => format!("{source}:{line}"),
    }
}

/// Every value by its key.
pub(super) fn values(answer: &str) -> BTreeMap<String, String> {
    let answer: Value = serde_json::from_str(answer).unwrap();
    let rows = answer["settings"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rows.map(|row| (text(&row["key"]), text(&row["valueJson"])))
        .collect()
}

#[test]
fn with_and_without_the_service_the_same_is_shown() {
    let layered = Layered::start();
    for more in [
        &[][..],
        &["--origin"],
        &["-o", "wide"],
        &["-o", "json"],
        &["-o", "yaml"],
        &["-o", "name"],
        &["listeners.a", "--origin"],
        &["listeners.a.limits.max_sessions", "-o", "json"],
    ] {
        let shown = layered.local(more);
        assert_eq!(shown, layered.running(more), "{more:?}");
        assert!(shown.contains("listeners.a.limits.max_sessions"), "{shown}");
    }
}

#[test]
fn every_value_tells_its_place_and_what_it_hides() {
    let layered = Layered::start();
    for (key, value, layer, expected) in [
        ("grpc.allow_shell", "false", "DEFAULT", ""),
        ("store.path", "\":memory:\"", "FILE", "base.toml:6"),
        (
            "listeners.a.bind",
            "\"127.0.0.1:0\"",
            "FILE",
            "switchboard.toml:5",
        ),
        ("listeners.a.reply", "\"json\"", "FILE", "more.json:6"),
        (
            "listeners.a.limits.accept_backlog",
            "7",
            "FILE",
            "more.json:5",
        ),
        (
            "listeners.a.limits.idle_timeout",
            "\"90s\"",
            "FILE",
            "more.yaml:5",
        ),
        ("listeners.a.labels.team", "\"yaml\"", "FILE", "more.yaml:6"),
        (
            "listeners.a.display_name",
            "\"a variable's\"",
            "ENVIRONMENT",
            "SWITCHBOARD__LISTENERS__A__DISPLAY_NAME",
        ),
        ("node.name", "\"flag\"", "COMMAND_LINE", "--set"),
        ("listeners.w.protocol", "\"shell\"", "COMMAND_LINE", "--set"),
        ("listeners.w.linger", "\"100ms\"", "DEFAULT", ""),
    ] {
        let row = layered.row(key);
        assert_eq!(
            (&row["key"], &row["valueJson"]),
            (&json!(key), &json!(value))
        );
        assert_eq!(row["origin"]["layer"], format!("LAYER_{layer}"), "{row}");
        assert_eq!(place(&row["origin"]), expected, "{row}");
    }
    let row = layered.row("listeners.a.limits.max_sessions");
    assert_eq!(row["reloadScope"], "SCOPE_NEW_SESSIONS", "{row}");
    let shadows = row["shadows"].as_array().unwrap().iter();
    let shadows: Vec<_> = shadows
        .map(|shadow| {
            (
                shadow["valueJson"].as_str().unwrap(),
                place(&shadow["origin"]),
            )
        })
        .collect();
    let hidden = [
        ("\"8\"", VARIABLES[0].0),
        ("7", "more.yaml:4"),
        ("6", "more.json:5"),
        ("5", "switchboard.toml:7"),
    ];
    assert_eq!(
        shadows,
        hidden.map(|(value, place)| (value, place.to_owned()))
    );
    // The same for people: nearest first, in one line.
    let table = layered.running(&["listeners.a.limits.max_sessions", "--origin"]);
    let home = layered.service.home().to_str().unwrap();
    let line = format!(
        "listeners.a.limits.max_sessions  9      --set   8 ({}), 7 (more.yaml:4), 6 (more.json:5), 5 ({home}/switchboard.toml:7)",
        VARIABLES[0].0
    );
    assert_eq!(table.lines().nth(1), Some(&*line), "{table}");
    // Of a table that was given whole each key hides what the other said of it.
    let row = layered.row("listeners.w.bind");
    assert_eq!(row["shadows"][0]["valueJson"], "\"127.0.0.1:0\"", "{row}");
    assert_eq!(place(&row["shadows"][0]["origin"]), VARIABLES[3].0);
}

#[test]
fn no_answer_holds_a_secret() {
    if no_grpcurl() {
        return;
    }
    let layered = Layered::start();
    let service = &layered.service;
    let mut told = Vec::new();
    for more in [&["--origin"][..], &["-o", "json"], &["-o", "yaml"]] {
        told.extend([layered.local(more), layered.running(more)]);
    }
    let mut ask = |method: &str, request: Value| {
        let answer = service.grpcurl(method, &request);
        let answer = answer.unwrap_or_else(|error| panic!("{method}: {error:?}"));
        told.push(answer.to_string());
        answer
    };
    let shown = ask("ConfigService/GetEffectiveConfig", json!({}));
    let rows = shown["settings"].as_array().unwrap();
    let value = |key: &str| {
        let row = rows.iter().find(|row| row["key"] == key);
        row.unwrap_or_else(|| panic!("{key} in {shown}"))["valueJson"].clone()
    };
    assert_eq!(
        value("listeners.s.sandbox.environment.TOKEN"),
        "\"(redacted)\""
    );
    assert_eq!(
        value("listeners.s.sandbox.environment.other"),
        "\"(redacted)\""
    );
    assert_eq!(
        value("listeners.w.sandbox.environment.TOKEN"),
        "\"(redacted)\""
    );
    assert_eq!(
        value("telemetry.otlp_endpoint"),
        "\"http://(redacted)@127.0.0.1:1/x\""
    );
    for format in ["toml", "json", "yaml"] {
        for state in [false, true] {
            let request = json!({ "format": format, "include_runtime_state": state });
            let answer = ask("ConfigService/ExportConfig", request);
            let document = answer["document"].as_str().unwrap();
            assert!(document.contains("(redacted)"), "{document}");
        }
    }
    ask(
        "ListenerService/GetListener",
        json!({ "name": "listeners/s" }),
    );
    ask("ListenerService/ListListeners", json!({}));
    // Another secret differs, and that is all that is told of it.
    let secret = json!({ "from": "SIDE_FILES", "to": "SIDE_RUNNING" });
    let answer = ask("ConfigService/DiffConfig", secret);
    let changes = answer["changes"].as_array().unwrap();
    let other = "listeners.s.sandbox.environment.other";
    let change = changes.iter().find(|change| change["key"] == other);
    assert_eq!(change.unwrap()["toJson"], "\"(redacted)\"");
    let own = service.home().join("switchboard.toml");
    std::fs::write(&own, OWN.replace("hush-file", "hush-new")).unwrap();
    let answer = ask(
        "ConfigService/ReloadConfig",
        json!({ "validate_only": true }),
    );
    // The directory is watched, so that this reload may have come too late for the change.
    let changes = answer["changes"].as_array().cloned().unwrap_or_default();
    for change in changes {
        assert_eq!(
            (&change["fromJson"], &change["toJson"]),
            (&json!("\"(redacted)\""), &json!("\"(redacted)\""))
        );
    }
    let mut refusals = Vec::new();
    // Of the wrong type, and in an address that is none of the right kind.
    for wrong in [
        OWN.replace("\"hush-file\"", "4711"),
        OWN.replace("http://me", "https://me"),
    ] {
        let answer = ask("ConfigService/ValidateConfig", json!({ "document": wrong }));
        assert_eq!(answer["problems"].as_array().unwrap().len(), 1, "{answer}");
        std::fs::write(&own, wrong).unwrap();
        let refused = service.grpcurl("ConfigService/ReloadConfig", &json!({}));
        refusals.push(format!("{:?}", refused.unwrap_err()));
    }
    told.extend(refusals);
    let log = service.stderr();
    assert!(log.contains("configuration not reloaded"), "{log}");
    told.push(log);
    for text in told {
        assert!(!text.contains("hush") && !text.contains("4711"), "{text}");
    }
}

#[test]
fn a_prefix_is_whole_segments_and_drift_is_what_a_restart_changes() {
    let service = Service::start(
        "[node]\nname = \"before\"\n\
         [listeners.a]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n[listeners.a.labels]\n\"b.c\" = \"dotted\"\n\
         [listeners.ab]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n",
    );
    let shown = |args: &[&str]| {
        let args = [&["config", "show", "--running", "-o", "json"], args].concat();
        values(&says(service.cli(&args, &[])))
    };
    let all = shown(&[]);
    let within = |prefix: &str| {
        let dot = format!("{prefix}.");
        let keys = all
            .keys()
            .filter(|key| *key == prefix || key.starts_with(&dot));
        keys.cloned().collect::<Vec<_>>()
    };
    for prefix in [
        "listeners.a",
        "listeners.a.limits",
        "node.name",
        "grpc",
        "listeners.a.labels.\"b.c\"",
    ] {
        let keys: Vec<_> = shown(&[prefix]).into_keys().collect();
        assert!(!keys.is_empty(), "{prefix}");
        assert_eq!(keys, within(prefix), "{prefix}");
    }
    for prefix in ["listener", "listeners.", "listeners.a.limit", "nothing"] {
        let none = service.cli(&["config", "show", "--running", prefix], &[]);
        assert_eq!((none.code, &*none.stdout), (3, ""), "{prefix}");
    }

    assert_eq!(shown(&["--drifted"]).len(), 0);
    let update = [
        "listener",
        "update",
        "a",
        "--max-sessions",
        "5",
        "--ephemeral",
    ];
    says(service.cli(&update, &[]));
    let own = service.home().join("switchboard.toml");
    let edited = std::fs::read_to_string(&own)
        .unwrap()
        .replace("before", "after");
    std::fs::write(&own, edited).unwrap();
    let drifted: Vec<_> = shown(&["--drifted"]).into_iter().collect();
    let expected = [
        ("listeners.a.limits.max_sessions", "5"),
        ("node.name", "\"before\""),
    ];
    assert_eq!(
        drifted,
        expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    assert_eq!(shown(&["--drifted", "node"]).len(), 1);
    // With the mark of it, and who made it so.
    let table = says(service.cli(
        &[
            "config",
            "show",
            "--running",
            "--origin",
            "listeners.a.limits.max_sessions",
        ],
        &[],
    ));
    let line = table.lines().nth(1).unwrap();
    let start =
        "listeners.a.limits.max_sessions  5      drifted  ephemeral: UpdateListener by 127.0.0.1:";
    assert!(line.starts_with(start) && line.contains(" ago"), "{table}");
}
