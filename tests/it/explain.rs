//! The configuration explains itself: the same to whoever asks, offline or of the running service, and no secret to any.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Service, no_grpcurl, run};

const TOML: &str = "[listeners.web]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\nreply = \"toml\"\n[listeners.web.limits]\nmax_sessions = 1\n\
    [listeners.s]\nprotocol = \"shell\"\nbind = \"127.0.0.1:0\"\nprograms = [\"date\"]\n[listeners.s.sandbox.environment]\nTOKEN = \"hush-hush\"\n";
const JSON: &str = "{\n \"listeners\": {\n  \"web\": {\n   \"display_name\": \"json\",\n   \"limits\": { \"max_sessions\": 2 }\n  }\n }\n}\n";
const YAML: &str = "listeners:\n  web:\n    once: true\n    limits:\n      max_sessions: 3\n";
const VARIABLE: (&str, &str) = ("SWITCHBOARD__LISTENERS__WEB__LIMITS__MAX_SESSIONS", "4");

/// A service with a layer of each kind.
fn layered() -> Service {
    let home = Service::home_for(TOML);
    fs::write(home.path().join("b.json"), JSON).unwrap();
    fs::write(home.path().join("c.yaml"), YAML).unwrap();
    let args = [
        "--config",
        "b.json",
        "--config",
        "c.yaml",
        "--set",
        "listeners.web.framing=line",
    ];
    Service::start_in(home, &args, &[VARIABLE])
}

/// `switchboard` against the service.
fn cli(service: &Service, args: &[&str]) -> crate::support::Ended {
    let endpoint = format!("http://{}", service.grpc());
    run(&[], args, &[("SWITCHBOARD_ENDPOINT", &endpoint)])
}

fn settings(service: &Service, request: &Value) -> Vec<Value> {
    let answer = service
        .grpcurl("ConfigService/GetEffectiveConfig", request)
        .unwrap();
    answer["settings"].as_array().cloned().unwrap_or_default()
}

fn row(rows: &[Value], key: &str) -> Value {
    let found = rows.iter().find(|row| row["key"] == key);
    found.unwrap_or_else(|| panic!("no {key}")).clone()
}

#[test]
fn every_value_says_where_it_stands_and_what_it_hides() {
    if no_grpcurl() {
        return;
    }
    let service = layered();
    let rows = settings(&service, &json!({ "key_prefix": "listeners.web" }));
    assert!(
        rows.iter()
            .all(|row| row["key"].as_str().unwrap().starts_with("listeners.web."))
    );
    let place = |key: &str| {
        let origin = &row(&rows, key)["origin"];
        let source = origin["source"].as_str().unwrap_or_default();
        let name = source.rsplit('/').next().unwrap().to_owned();
        (
            origin["layer"].as_str().unwrap().to_owned(),
            name,
            origin["line"].as_u64().unwrap_or(0),
        )
    };
    let file = |name: &str, line| ("LAYER_FILE".to_owned(), name.to_owned(), line);
    assert_eq!(place("listeners.web.reply"), file("switchboard.toml", 4));
    assert_eq!(place("listeners.web.display_name"), file("b.json", 4));
    assert_eq!(place("listeners.web.once"), file("c.yaml", 3));
    assert_eq!(
        place("listeners.web.framing"),
        ("LAYER_COMMAND_LINE".into(), "--set".into(), 0)
    );
    assert_eq!(place("listeners.web.labels").0, "LAYER_DEFAULT");
    let limit = row(&rows, "listeners.web.limits.max_sessions");
    assert_eq!(
        (&limit["valueJson"], &limit["origin"]["source"]),
        (&json!("4"), &json!(VARIABLE.0))
    );
    let hidden: Vec<_> = limit["shadows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["valueJson"].clone())
        .collect();
    assert_eq!(hidden, [json!("3"), json!("2"), json!("1")]);
    assert_eq!(limit["reloadScope"], "SCOPE_NEW_SESSIONS");
    assert_eq!(
        settings(&service, &json!({ "key_prefix": "listeners.we" })),
        Vec::<Value>::new()
    );

    // The same offline, from the same layers.
    let base = fs::read_to_string(service.home().join("base.toml")).unwrap();
    let files = [
        ("base.toml", &*base),
        ("switchboard.toml", TOML),
        ("b.json", JSON),
        ("c.yaml", YAML),
    ];
    let mut args = vec![
        "config",
        "show",
        "-o",
        "json",
        "--set",
        "listeners.web.framing=line",
        "listeners",
    ];
    for (name, _) in &files {
        args.extend(["--config", name]);
    }
    let offline = run(&files, &args, &[VARIABLE]);
    assert_eq!(offline.code, 0, "{}", offline.stderr);
    let offline: Value = serde_json::from_str(&offline.stdout).unwrap();
    let online = settings(&service, &json!({ "key_prefix": "listeners" }));
    let simple = |row: &Value| {
        let source = row["origin"]["source"].as_str().unwrap_or_default();
        let source = source.rsplit('/').next().unwrap().to_owned();
        (
            row["key"].clone(),
            row["valueJson"].clone(),
            source,
            row["origin"]["line"].clone(),
        )
    };
    let offline: Vec<_> = offline["settings"]
        .as_array()
        .unwrap()
        .iter()
        .map(simple)
        .collect();
    assert_eq!(offline, online.iter().map(simple).collect::<Vec<_>>());
    let table = cli(
        &service,
        &[
            "config",
            "show",
            "--running",
            "--origin",
            "listeners.web.limits.max_sessions",
        ],
    );
    for part in [
        VARIABLE.0,
        "3 (c.yaml:5)",
        "2 (b.json:5)",
        "switchboard.toml:6",
    ] {
        assert!(table.stdout.contains(part), "{part} in:\n{}", table.stdout);
    }
}

#[test]
fn a_secret_is_shown_to_nobody() {
    if no_grpcurl() {
        return;
    }
    let service = layered();
    // Hidden by another, too.
    let update = json!({
        "listener": { "name": "listeners/s", "display_name": "x" },
        "update_mask": { "paths": ["display_name"] },
        "persistence": "PERSISTENCE_EPHEMERAL",
    });
    service.call("ListenerService/UpdateListener", &update, "listener");
    fs::write(
        service.home().join("switchboard.toml"),
        TOML.replace("hush-hush", "hush-again"),
    )
    .unwrap();
    let mut shown = format!("{:?}", settings(&service, &json!({})));
    shown += &service
        .call("ConfigService/DiffConfig", &json!({}), "changes")
        .to_string();
    for format in ["toml", "json", "yaml"] {
        let request = json!({ "format": format, "include_runtime_state": true });
        let document = service.call("ConfigService/ExportConfig", &request, "document");
        assert!(document.to_string().contains("(redacted)"), "{document}");
        shown += &document.to_string();
    }
    shown += &service.listener("s").to_string();
    shown += &cli(&service, &["config", "show", "--running", "--origin"]).stdout;
    shown += &service.stderr();
    assert!(shown.contains("listeners.s.sandbox.environment.TOKEN"));
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn what_is_exported_says_the_same_when_it_is_read_again() {
    if no_grpcurl() {
        return;
    }
    let plain = "[listeners.web]\nprotocol = \"chat\"\nbind = \"127.0.0.1:0\"\npace = \"free\"\ngreeting = \"hello: \\\"you\\\"\"\nlabels = { a = \"1_000\", \"b.c\" = \"yes\" }\n\
        [listeners.web.limits]\nidle_timeout = \"90s\"\nmax_message_rate = 2.5\n";
    let service = Service::start(plain);
    let made = json!({ "bind": "127.0.0.1:0", "ack": { "reply": "gAH/" } });
    service.call(
        "ListenerService/CreateListener",
        &json!({ "listener_id": "made", "listener": made }),
        "listener",
    );
    let values = |rows: &[Value]| -> Vec<(Value, Value)> {
        rows.iter()
            .map(|row| (row["key"].clone(), row["valueJson"].clone()))
            .collect()
    };
    let running = values(&settings(&service, &json!({ "key_prefix": "listeners" })));
    for format in ["toml", "json", "yaml"] {
        let request = json!({ "format": format, "include_runtime_state": true });
        let document = service.call("ConfigService/ExportConfig", &request, "document");
        let name = format!("exported.{format}");
        let files = [(name.as_str(), document.as_str().unwrap())];
        let shown = run(
            &files,
            &[
                "config",
                "show",
                "-o",
                "json",
                "--config",
                &name,
                "listeners",
            ],
            &[],
        );
        assert_eq!(shown.code, 0, "{document}\n{}", shown.stderr);
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
        assert_eq!(
            values(shown["settings"].as_array().unwrap()),
            running,
            "{document}"
        );
    }
    let without = service.call("ConfigService/ExportConfig", &json!({}), "document");
    assert!(!without.as_str().unwrap().contains("made"), "{without}");
    let wrong = service
        .grpcurl("ConfigService/ExportConfig", &json!({ "format": "xml" }))
        .unwrap_err();
    assert_eq!(
        (wrong.code, wrong.reason()),
        ("INVALID_ARGUMENT", "FORMAT_INVALID")
    );
}

#[test]
fn a_candidate_is_checked_without_being_taken() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start("[listeners.web]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n");
    for (format, document, line) in [
        (
            "toml",
            "[listeners.web]\nprotocol = \"ack\"\nbnd = \"127.0.0.1:0\"\n",
            3,
        ),
        (
            "json",
            "{ \"listeners\": { \"web\": {\n \"protocol\": \"ack\",\n \"bnd\": \"127.0.0.1:0\" } } }",
            3,
        ),
        (
            "yaml",
            "listeners:\n  web:\n    protocol: ack\n    bnd: \"127.0.0.1:0\"\n",
            4,
        ),
    ] {
        let request = json!({ "document": document, "format": format });
        let problems = service.call("ConfigService/ValidateConfig", &request, "problems");
        let problem = &problems[0];
        assert_eq!(problem["key"], "listeners.web.bnd", "{format}: {problems}");
        assert_eq!(
            (&problem["reason"], &problem["suggestion"]),
            (&json!("UNKNOWN_KEY"), &json!("bind"))
        );
        assert_eq!(
            (&problem["line"], &problem["source"]),
            (&json!(line), &Value::Null),
            "{format}"
        );
    }
    let fine = service
        .grpcurl("ConfigService/ValidateConfig", &json!({}))
        .unwrap();
    assert_eq!(fine["problems"], Value::Null);
    assert_eq!(service.listener("web")["state"], "STATE_ACTIVE");
}

#[test]
fn addresses_that_overlap_are_seen_before_anything_is_bound() {
    let two = |first: &str, second: &str, more: &str| {
        let text = format!(
            "[listeners.a]\nprotocol = \"ack\"\nbind = \"{first}\"\n[listeners.b]\nprotocol = \"ack\"\nbind = \"{second}\"\n{more}"
        );
        run(&[("t.toml", &text)], &["check", "--config", "t.toml"], &[])
    };
    for (first, second) in [
        ("127.0.0.1:7001", "127.0.0.1:7001"),
        ("0.0.0.0:7001", "127.0.0.1:7001"),
        ("127.0.0.1:50051", "127.0.0.1:9"),
    ] {
        let ended = two(first, second, "");
        assert_eq!(ended.code, 78, "{first} {second}");
        assert!(ended.stderr.contains("overlaps with"), "{}", ended.stderr);
    }
    let ended = two("0.0.0.0:7001", "127.0.0.1:7001", "");
    for part in [
        "t.toml:6:",
        "listeners.b.bind",
        "listeners.a.bind",
        "6 | bind = \"127.0.0.1:7001\"",
    ] {
        assert!(ended.stderr.contains(part), "{part} in:\n{}", ended.stderr);
    }
    for (first, second, more) in [
        ("127.0.0.1:0", "127.0.0.1:0", ""),
        ("127.0.0.2:7001", "127.0.0.1:7001", ""),
        ("[::]:7001", "0.0.0.0:7001", ""),
        (
            "127.0.0.1:7001",
            "127.0.0.1:7001",
            "desired_state = \"stopped\"\n",
        ),
        (
            "127.0.0.1:7001",
            "127.0.0.1:7002",
            "[listeners.u]\nprotocol = \"uppercase\"\nbind = \"127.0.0.1:7001\"\n",
        ),
    ] {
        assert_eq!(two(first, second, more).code, 0, "{first} {second} {more}");
    }
}

#[test]
fn a_check_is_told_to_scripts_too() {
    let text = "[listeners.a]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n[listeners.a.limits]\nallow_cidrs = [\"10.1.0.0/8\"]\n";
    let ended = run(
        &[("t.toml", text)],
        &["check", "-o", "json", "--config", "t.toml"],
        &[],
    );
    assert_eq!(ended.code, 78);
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(told["valid"], false);
    let problem = &told["problems"][0];
    assert_eq!(
        (&problem["key"], &problem["reason"]),
        (&json!("listeners.a.limits.allow_cidrs"), &json!("INVALID"))
    );
    assert_eq!(
        (&problem["line"], &problem["source"]),
        (&json!(5), &json!("t.toml"))
    );
    let wide = "[listeners.a]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n[listeners.a.limits]\nmax_sessions = 4000000000\n";
    let ended = run(
        &[("t.toml", wide)],
        &["check", "-o", "json", "--config", "t.toml"],
        &[],
    );
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((ended.code, &told["valid"]), (0, &json!(true)));
    assert_eq!(told["warnings"][0]["reason"], "LIMIT_LOWERED");
    let shipped = run(&[], &["config", "default"], &[]);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/switchboard.toml");
    assert_eq!(shipped.stdout, fs::read_to_string(file).unwrap());
}
