//! The command line drives the service: every noun and verb, the forms of output, the exit codes.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use prost_reflect::DescriptorPool;
use serde_json::Value;
use switchboard::grpc::api::FILE_DESCRIPTOR_SET;

use super::support::{Service, eventually, grpcurl_program, no_grpcurl, program};

const LISTENERS: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
     [listeners.chat]\nprotocol = \"chat\"\nbind = \"127.0.0.1:0\"\n";

fn command(service: &Service, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
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

/// A line for every method that has a verb, with the flags of each verb.
pub(crate) const VERBS: [&str; 42] = [
    "listener create door --protocol ack --bind 127.0.0.1:0 --stopped --ephemeral --dry-run --request-id r",
    "listener get ack",
    "listener get ack --watch",
    "listener ls --filter name:ack --order-by name --limit 3",
    "listener ls --watch --interval 1s",
    "listener update ack --once --unset labels.team --etag e --dry-run --request-id r",
    "listener delete ack --force --dry-run --etag e --request-id r",
    "listener start ack --etag e --request-id r",
    "listener stop ack --grace 1s --reason x --etag e --request-id r",
    "listener pause ack --mode refuse --for 1m --reason x --request-id r",
    "listener resume ack --request-id r",
    "listener drain ack --deadline 1m --pace 30s --idle-first --mode reject --then paused --reason x",
    "listener wait ack state=STATE_STOPPED --timeout 1s",
    "listener watch --filter name:ack",
    "session get ack/sessions/n-1",
    "session get ack/sessions/n-1 --watch",
    "session ls ack --closed --filter peer:10. --order-by open_time --limit 1",
    "session ls --watch",
    "session close ack/sessions/n-1 --grace 0s --reason x",
    "session close --filter * --listener ack --dry-run",
    "session close --filter * --force --max 5 --pace 5s",
    "session watch ack",
    "session tap ack/sessions/n-1 --max-bytes 1KiB --for 1s --payload",
    "session ban 192.0.2.0/24 --listener ack --for 1h --close --reason x",
    "session unban 192.0.2.0/24",
    "session bans ack --limit 1",
    "chat inbox chat --filter state=STATE_WAITING",
    "chat inbox --watch",
    "chat watch chat",
    "chat reply chat/conversations/n-1 hello --to 1 --operator me",
    "chat history chat/conversations/n-1 --limit 5",
    "config show --running listeners.ack --drifted",
    "config validate /dev/null --format toml",
    "config diff --from files --to running",
    "config reload --dry-run --keep-sessions --request-id r",
    "config export --format yaml --with-runtime-state",
    "metrics --filter metric:session",
    "metrics --watch --interval 2s",
    "server info",
    "server log info,switchboard::net=debug --for 1m",
    "server shutdown --grace 1s --reason x",
    "audit --filter resource:ack --limit 3",
];

/// What the desk and the shell have still to come for.
const WITHOUT_VERBS: [&str; 6] = [
    "AttachDesk",
    "Broadcast",
    "ClaimConversation",
    "ListCommands",
    "MuteConversation",
    "ReleaseConversation",
];

#[test]
fn every_method_has_its_verb() {
    let service = Service::start(LISTENERS);
    let mut printed = BTreeSet::new();
    for line in VERBS {
        let arguments: Vec<_> = line.split(' ').chain(["--print-grpcurl"]).collect();
        let call = says(&service, &arguments);
        let words = shell_words::split(&call).unwrap();
        assert_eq!(words[..2], ["grpcurl", "-plaintext"], "{line}");
        printed.insert(words[words.len() - 1].clone());
    }
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let services = pool.services();
    let ours = services.filter(|service| service.package_name() == "switchboard.v1");
    let methods = ours.flat_map(|service| service.methods().collect::<Vec<_>>());
    for method in methods {
        let path = format!("{}/{}", method.parent_service().full_name(), method.name());
        let without = WITHOUT_VERBS.contains(&method.name());
        assert_eq!(printed.remove(&path), !without, "{path}");
    }
    assert!(printed.is_empty(), "{printed:?}");
    // And nothing of it was done.
    let untouched = says(&service, &["listener", "ls", "-o", "name"]);
    assert_eq!(untouched, "listeners/ack\nlisteners/chat\n");
}

/// What a shell makes of the call that a command prints.
fn printed(service: &Service, arguments: &[&str]) -> Value {
    let line = says(service, &[arguments, &["--print-grpcurl"]].concat());
    let script = format!("grpcurl() {{ \"$GRPCURL\" \"$@\"; }}; {line}");
    let output = Command::new("sh")
        .args(["-c", &script])
        .env("GRPCURL", grpcurl_program().unwrap())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_printed_call_is_the_same_call() {
    if no_grpcurl() {
        return;
    }
    let service = Service::start(LISTENERS);
    let door = ["listener", "create", "door", "--protocol", "ack"];
    let reply = ["--bind", "127.0.0.1:0", "--reply", "it's \"quoted\" $HOME"];
    let made = printed(&service, &[&door[..], &reply].concat());
    assert_eq!(
        made["listener"]["ack"]["reply"],
        "aXQncyAicXVvdGVkIiAkSE9NRQ=="
    );
    assert_eq!(
        json(&service, &["listener", "get", "door"])["uid"],
        made["listener"]["uid"]
    );
    let change = [
        "listener",
        "update",
        "door",
        "--max-sessions",
        "7",
        "--set",
        "labels.a=b",
    ];
    let changed = printed(
        &service,
        &[&change[..], &["--idle-timeout", "90s"]].concat(),
    );
    let effects = changed["effects"].as_array().unwrap().iter();
    let fields: Vec<_> = effects.map(|effect| effect["field"].clone()).collect();
    assert_eq!(
        fields,
        ["labels.a", "limits.idle_timeout", "limits.max_sessions"]
    );
    assert_eq!(changed["listener"]["limits"]["maxSessions"], 7);

    let get = ["listener", "get", "door"];
    assert_eq!(printed(&service, &get)["listener"], json(&service, &get));
    let ls = ["listener", "ls"];
    assert_eq!(
        printed(&service, &ls)["listeners"],
        json(&service, &ls)["listeners"]
    );
    for whole in [
        &["config", "diff"][..],
        &["config", "show", "--running", "node"],
    ] {
        assert_eq!(printed(&service, whole), json(&service, whole));
    }
}

#[test]
fn a_call_through_a_unix_socket_is_printed_as_such() {
    if no_grpcurl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let path = path.to_str().unwrap();
    let service = Service::start(&format!("{LISTENERS}[grpc]\nsocket = {path:?}\n"));
    let endpoint = format!("unix:{path}");
    let get = ["listener", "get", "ack", "--endpoint", &endpoint];
    assert_eq!(printed(&service, &get)["listener"], json(&service, &get));
}

#[test]
fn a_command_that_calls_nothing_has_no_call_to_print() {
    let service = Service::start(LISTENERS);
    for arguments in [&["config", "default"][..], &["config", "show"]] {
        let arguments = [arguments, &["--print-grpcurl"]].concat();
        let (code, stdout, _) = run(&service, &arguments);
        assert_eq!((code, &*stdout), (2, ""), "{arguments:?}");
    }
}

#[test]
fn a_script_knows_what_a_shell_refused() {
    let shell =
        "[listeners.shell]\nprotocol = \"shell\"\nbind = \"127.0.0.1:0\"\nprograms = [\"echo\"]\n";
    let service = Service::start(shell);
    let address = service.address("shell").to_string();
    let connect = ["connect", "shell", &address, "-c"];
    assert_eq!(
        says(&service, &[&connect[..], &["echo hi"]].concat()),
        "hi\n"
    );
    let lines = ["rm x", "-c", "echo hi"];
    let (code, stdout, stderr) = run(&service, &[&connect[..], &lines].concat());
    assert_eq!(code, 1, "{stderr}");
    assert!(stdout.ends_with("\nhi\n"), "{stdout}");
    assert!(stderr.contains("error: not_allowed"), "{stderr}");
}
