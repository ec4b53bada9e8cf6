//! The configuration as a document, out of the service and into it, and what is told of one that is wrong.

use serde_json::{Value, json};

use super::origins::{says, values};
use crate::support::{Service, no_grpcurl, run};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/switchboard.toml");

/// Values that a careless writer would let be read as something else.
const ODD: &str = r#"[node]
name = "odd"
[listeners.a]
protocol = "ack"
bind = "127.0.0.1:0"
reply = [255, 0, 10]
[listeners.a.labels]
yes = "yes"
number = "1_000"
float = "1e3"
date = "2024-01-01"
hex = "0x10"
null = "null"
empty = ""
"dotted.key" = "a = \"b\" # c"
lines = "one\ntwo\n"
spaces = " both "
word = "ключ 🔑 \u0007"
[listeners.b]
protocol = "chat"
bind = "127.0.0.1:0"
desired_state = "stopped"
transport = "udp"
unattended_after = "36h"
[listeners.b.limits]
max_accepts_per_second = 0.1
max_message_rate = 3.0
max_message_bytes = 1500
allow_cidrs = ["10.0.0.0/8", "fd00::/8"]
[listeners.s]
protocol = "shell"
bind = "127.0.0.1:0"
linger = "0s"
programs = ["true"]
sandbox = { working_directory = "/tmp" }
"#;

#[test]
fn what_is_exported_is_valid_and_says_the_same() {
    let service = Service::start(ODD);
    says(service.cli(
        &[
            "listener",
            "update",
            "a",
            "--set",
            "labels.late=1",
            "--set",
            "framing=length",
        ],
        &[],
    ));
    let create = [
        "listener",
        "create",
        "c",
        "--protocol",
        "uppercase",
        "--bind",
        "127.0.0.1:0",
    ];
    says(service.cli(&create, &[]));
    let running = ["config", "show", "--running", "-o", "json"];
    let with_state = values(&says(service.cli(&running, &[])));
    for format in ["toml", "json", "yaml"] {
        let name = format!("export.{format}");
        let show = ["config", "show", "--config", &name, "-o", "json"];
        let export = |state: &[&str]| {
            let export = [&["config", "export", "--format", format], state].concat();
            says(service.cli(&export, &[]))
        };
        let document = export(&["--with-runtime-state"]);
        let checked = run(&[(&name, &document)], &["check", "--config", &name], &[]);
        assert_eq!((checked.code, &*checked.stderr), (0, ""), "{document}");
        let shown = run(&[(&name, &document)], &show, &[]);
        assert_eq!(values(&says(shown)), with_state, "{document}");
        // Without what was changed at run time it says what files and flags say.
        let plain = export(&[]);
        let shown = run(&[(&name, &plain)], &show, &[]);
        let own = [("own.toml", ODD)];
        let args = ["config", "show", "--config", "own.toml", "-o", "json"];
        let places = [
            "grpc.address=127.0.0.1:0",
            "http.address=127.0.0.1:0",
            "store.path=:memory:",
        ];
        let args = [&args[..], &places.map(|set| ["--set", set]).concat()].concat();
        assert_eq!(
            values(&says(shown)),
            values(&says(run(&own, &args, &[]))),
            "{plain}"
        );
        // It is whole without layers below it, and the service takes it for what it is.
        std::fs::write(service.home().join(&name), &document).unwrap();
        assert!(says(service.cli(&["config", "validate", &name], &[])).contains("valid"));
    }
}

#[test]
fn the_default_file_is_printed_as_it_is_shipped() {
    let printed = run(&[], &["config", "default"], &[]);
    let shipped = std::fs::read_to_string(SHIPPED).unwrap();
    assert_eq!(
        (printed.code, printed.stdout, &*printed.stderr),
        (0, shipped, "")
    );
}

#[test]
fn a_document_is_checked_in_each_format_with_every_problem() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start("[listeners.a]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n");
    let validate = |document: &str, format: &str| {
        let request = json!({ "document": document, "format": format });
        service.grpcurl("ConfigService/ValidateConfig", &request)
    };
    let toml = "[node]\nname = \"x\"\n[listeners.a]\nprotocol = \"ack\"\n  bnd = \"127.0.0.1:0\"\n\
                [listeners.a.limits]\nmax_sessions = \"many\"\n[listeners.c]\nprotocol = \"caht\"\nbind = \"127.0.0.1:0\"\n";
    let json = "{\n  \"node\": {\"name\": \"x\"},\n  \"listeners\": {\n    \"a\": {\"protocol\": \"ack\",\n     \"bnd\": \"127.0.0.1:0\",\n\
                \"limits\": {\n\"max_sessions\": \"many\"}},\n\"c\": {\n\"protocol\": \"caht\", \"bind\": \"127.0.0.1:0\"}}}";
    let yaml = "node: {name: x}\nlisteners:\n  a:\n    protocol: ack\n    bnd: 127.0.0.1:0\n    limits:\n      max_sessions: many\n\
                \x20 c:\n    protocol: caht\n    bind: 127.0.0.1:0\n";
    for (format, document, columns) in [
        ("toml", toml, [3, 16, 12]),
        ("json", json, [6, 17, 13]),
        ("yaml", yaml, [5, 21, 15]),
    ] {
        let answer = validate(document, format).unwrap();
        let problems = answer["problems"].as_array().unwrap();
        let expected = [
            ("listeners.a.bnd", "UNKNOWN_KEY", 5, "bind"),
            ("listeners.a.limits.max_sessions", "WRONG_TYPE", 7, ""),
            ("listeners.c.protocol", "UNKNOWN_WORD", 9, "chat"),
        ];
        assert_eq!(problems.len(), 3, "{format}: {answer}");
        for ((problem, (key, reason, line, suggestion)), column) in
            problems.iter().zip(expected).zip(columns)
        {
            assert_eq!(problem["key"], key, "{format}: {problem}");
            assert_eq!(problem["reason"], reason, "{format}: {problem}");
            assert_eq!(
                (&problem["line"], &problem["column"]),
                (&json!(line), &json!(column)),
                "{format}: {problem}"
            );
            assert_eq!(
                problem["suggestion"].as_str().unwrap_or_default(),
                suggestion,
                "{format}: {problem}"
            );
            assert!(!problem["message"].as_str().unwrap().is_empty());
            assert!(
                problem["source"].is_null(),
                "a document has no name: {problem}"
            );
        }
    }
    assert_eq!(validate(toml, "").unwrap(), validate(toml, "toml").unwrap());
    // What is no document of its format, what is only wrong as a whole, and what is right.
    for (format, document) in [
        ("toml", "[node"),
        ("json", "{\"node\": "),
        ("yaml", "node: ["),
    ] {
        let answer = validate(document, format).unwrap();
        assert_eq!(
            answer["problems"][0]["reason"], "SYNTAX",
            "{format}: {answer}"
        );
        assert!(
            answer["problems"][0]["line"].is_number(),
            "{format}: {answer}"
        );
    }
    let open = validate("[grpc]\naddress = \"0.0.0.0:1\"\n", "").unwrap();
    assert_eq!(
        (
            &open["problems"][0]["key"],
            &open["problems"][0]["reason"],
            &open["problems"][0]["line"]
        ),
        (&json!("grpc.address"), &json!("INVALID"), &json!(2))
    );
    assert_eq!(validate("[node]\nname = \"x\"\n", "").unwrap(), json!({}));
    let unknown = validate(toml, "ini").unwrap_err();
    assert_eq!(
        (unknown.code, unknown.reason()),
        ("INVALID_ARGUMENT", "FORMAT_INVALID")
    );
    assert!(unknown.fields().contains("format"), "{unknown:?}");
    let unknown = service.grpcurl("ConfigService/ExportConfig", &json!({ "format": "ini" }));
    assert_eq!(unknown.unwrap_err().reason(), "FORMAT_INVALID");

    // Nothing was changed by any of it; without a document the files are checked, as they are now.
    assert_eq!(service.listener("a")["state"], "STATE_ACTIVE");
    assert_eq!(validate("", "").unwrap(), json!({}));
    let own = service.home().join("switchboard.toml");
    std::fs::write(&own, toml).unwrap();
    let answer = validate("", "").unwrap();
    let sources: Vec<_> = answer["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["source"].clone())
        .collect();
    assert_eq!(sources, vec![json!(own.to_str().unwrap()); 3]);
}

#[test]
fn a_check_can_be_read_by_scripts() {
    let check = |toml: &str| {
        let ended = run(
            &[("test.toml", toml)],
            &["check", "--config", "test.toml", "-o", "json"],
            &[],
        );
        assert_eq!(ended.stderr, "");
        (
            ended.code,
            serde_json::from_str::<Value>(&ended.stdout).unwrap(),
        )
    };
    let good = json!({ "valid": true, "problems": [], "warnings": [] });
    assert_eq!(check("[node]\nname = \"x\"\n"), (0, good));
    let (code, told) = check("[node]\nnaem = \"x\"\n[http]\naddress = \"[::]:9464\"\n");
    assert_eq!(code, 78);
    let expected = json!({ "valid": false, "warnings": [], "problems": [{
        "key": "node.naem", "reason": "UNKNOWN_KEY", "message": "unknown key", "source": "test.toml",
        "line": 2, "column": 1, "suggestion": "name",
    }]});
    assert_eq!(told, expected);
    let (_, told) = check("[http]\naddress = \"[::]:9464\"\n");
    let problem = &told["problems"][0];
    assert_eq!(
        (&problem["key"], &problem["reason"]),
        (&json!("http.address"), &json!("INVALID"))
    );
    assert!(problem.get("suggestion").is_none(), "{problem}");
    let flag = run(&[], &["check", "-o", "json", "--set", "node.naem=x"], &[]);
    let told: Value = serde_json::from_str(&flag.stdout).unwrap();
    assert_eq!(told["problems"][0]["source"], "--set");
    assert!(told["problems"][0].get("line").is_none(), "{told}");
}

#[test]
fn a_problem_is_shown_in_its_line_with_a_caret() {
    let text = "[listeners.a]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n    framign = \"line\"\n[listeners.a.limits]\nidle_timeout = 30\n";
    let file = [("test.toml", text)];
    for command in [
        &["check", "--config", "test.toml"][..],
        &["serve", "--config", "test.toml"],
    ] {
        let ended = run(&file, command, &[]);
        let expected = "test.toml:4:5: listeners.a.framign: unknown key; did you mean `framing`?\n\
                        \x20 4 |     framign = \"line\"\n\
                        \x20   |     ^\n\
                        test.toml:6:16: listeners.a.limits.idle_timeout: a duration needs a unit, as in \"30s\"\n\
                        \x20 6 | idle_timeout = 30\n\
                        \x20   |                ^\n";
        assert_eq!(
            (ended.code, &*ended.stdout, &*ended.stderr),
            (78, "", expected)
        );
    }
}
