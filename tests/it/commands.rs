//! The command line drives the service: every noun and verb, the forms of output, the exit codes.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::support::{Service, eventually};

const LISTENERS: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
     [listeners.chat]\nprotocol = \"chat\"\nbind = \"127.0.0.1:0\"\n";

fn command(service: &Service, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    let endpoint = format!("http://{}", service.grpc());
    command
        .args(arguments)
        .env("SWITCHBOARD_ENDPOINT", endpoint)
        .stdin(Stdio::null());
    command
}

fn run(service: &Service, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(service, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// What a command that must succeed says on stdout.
fn says(service: &Service, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(service, arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

fn json(service: &Service, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["-o", "json"]].concat();
    serde_json::from_str(&says(service, &arguments)).unwrap()
}

#[test]
fn a_listener_lives_by_commands() {
    let service = Service::start(LISTENERS);
    let door = ["--protocol", "ack", "--bind", "127.0.0.1:0"];
    let dry = [&["listener", "create", "door"], &door[..], &["--dry-run"]].concat();
    assert_eq!(json(&service, &dry)["desiredState"], "DESIRED_STATE_ACTIVE");
    let missing = run(&service, &["listener", "get", "door"]);
    assert_eq!((missing.0, &*missing.1), (3, ""));
    assert!(missing.2.contains("LISTENER_NOT_FOUND"), "{}", missing.2);

    let create = [&["listener", "create", "door"], &door[..]].concat();
    assert!(says(&service, &create).contains("active"));
    assert_eq!(run(&service, &create).0, 4);
    assert_eq!(run(&service, &["listener", "delete", "door"]).0, 4);
    let stopped = json(&service, &["listener", "stop", "door", "--grace", "1s"]);
    assert_eq!(stopped["state"], "STATE_STOPPED");
    assert!(says(&service, &["listener", "start", "listeners/door"]).contains("active"));
    says(&service, &["listener", "delete", "door", "--force"]);
    let names = says(&service, &["listener", "ls", "-o", "name"]);
    assert_eq!(names, "listeners/ack\nlisteners/chat\n");
}

#[test]
fn every_form_of_output_says_the_same() {
    let service = Service::start(LISTENERS);
    let table = says(&service, &["listener", "ls"]);
    let (head, rows) = table.split_once('\n').unwrap();
    assert!(head.starts_with("NAME") && !head.contains("UID"), "{head}");
    assert_eq!(rows.lines().count(), 2);
    assert!(says(&service, &["listener", "ls", "-o", "wide"]).contains("UID"));
    let listed = json(&service, &["listener", "ls"]);
    assert_eq!(listed["listeners"][0]["name"], "listeners/ack");
    // The same text every time: maps have an order.
    let wide = ["listener", "get", "ack", "-o", "json"];
    assert_eq!(says(&service, &wide), says(&service, &wide));
    let yaml = says(&service, &["listener", "ls", "-o", "yaml"]);
    assert!(yaml.contains("name: listeners/ack"), "{yaml}");
    let none = json(&service, &["session", "ls", "chat"]);
    assert_eq!(none["sessions"], serde_json::json!([]));
}

#[test]
fn sessions_and_facts_are_shown() {
    let service = Service::start(LISTENERS);
    let mut talk = service.talk("ack");
    talk.send("hello");
    talk.expect("received data!!");
    let sessions = json(&service, &["session", "ls", "ack"]);
    let name = sessions["sessions"][0]["name"].as_str().unwrap().to_owned();
    let id = name.rsplit('/').next().unwrap();
    assert_eq!(json(&service, &["session", "get", id])["name"], name);
    says(&service, &["session", "close", id]);
    talk.expect_closed();
    eventually("it is remembered", || {
        let closed = json(&service, &["session", "ls", "ack", "--closed"]);
        closed["sessions"][0]["closeReason"] == "CLOSE_REASON_KICKED"
    });
    assert!(says(&service, &["metrics"]).contains("switchboard.session.active"));
    assert!(says(&service, &["server", "info"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn exit_codes_tell_what_happened() {
    let service = Service::start(LISTENERS);
    for (code, arguments) in [
        (2, &["listener", "frobnicate"][..]),
        (2, &["listener", "ls", "--endpoint", "https://127.0.0.1:1"]),
        (
            2,
            &[
                "listener",
                "create",
                "Bad",
                "--protocol",
                "ack",
                "--bind",
                "127.0.0.1:0",
            ],
        ),
        (3, &["session", "get", "local-01jd0000000000000000000000"]),
        (3, &["chat", "reply", "nobody", "hello"]),
        (4, &["chat", "inbox", "ack"]),
        (5, &["listener", "ls", "--endpoint", "127.0.0.1:1"]),
        (
            6,
            &[
                "listener",
                "create",
                "sh",
                "--protocol",
                "shell",
                "--bind",
                "127.0.0.1:0",
            ],
        ),
    ] {
        let (got, stdout, stderr) = run(&service, arguments);
        assert_eq!((got, &*stdout), (code, ""), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty(), "{arguments:?}");
    }
    // Something that speaks, but no gRPC.
    let other = service.http().to_string();
    let stranger = ["listener", "ls", "--endpoint", &other];
    assert_eq!(run(&service, &stranger).0, 5);
}

#[test]
fn nobody_reading_is_no_accident() {
    let service = Service::start(LISTENERS);
    for arguments in [&["listener", "ls"][..], &["metrics"], &["check"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let full = writer.try_clone().unwrap();
        let status = command(&service, arguments)
            .stdout(writer)
            .stderr(full)
            .status();
        assert_eq!(status.unwrap().code(), Some(0), "{arguments:?}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let missing = ["listener", "get", "nope"];
    let status = command(&service, &missing).stderr(writer).status();
    assert_eq!(status.unwrap().code(), Some(3));
}
