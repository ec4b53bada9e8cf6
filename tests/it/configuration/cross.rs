//! What can only be seen across settings, and what this host does not carry.

use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{Ended, Service, Talk, eventually, no_grpcurl, program, run};

/// Listeners by name, protocol, address and more keys; each takes four lines.
fn listeners(list: &[(&str, &str, &str, &str)]) -> String {
    let table = |(name, protocol, bind, more): &(&str, &str, &str, &str)| {
        format!("[listeners.{name}]\nprotocol = \"{protocol}\"\nbind = \"{bind}\"\n{more}\n")
    };
    list.iter().map(table).collect()
}

fn check(toml: &str) -> Ended {
    run(
        &[("test.toml", toml)],
        &["check", "--config", "test.toml"],
        &[],
    )
}

/// It is refused, for this key in this line, and the message holds all of these.
fn refused(toml: &str, line: u32, key: &str, parts: &[&str]) {
    let ended = check(toml);
    assert_eq!((ended.code, &*ended.stdout), (78, ""), "{toml}");
    let place = format!("test.toml:{line}:");
    let told = ended.stderr.lines().any(|told| {
        let rest = told
            .strip_prefix(&place)
            .and_then(|rest| rest.split_once(": "));
        let Some((_, problem)) = rest else {
            return false;
        };
        problem.starts_with(&format!("{key}: ")) && parts.iter().all(|part| problem.contains(part))
    });
    assert!(told, "{place} {key} {parts:?} in:\n{}", ended.stderr);
}

#[test]
fn addresses_that_exclude_each_other_are_refused_with_both_names() {
    for (first, second) in [
        ("127.0.0.1:7001", "127.0.0.1:7001"),
        ("0.0.0.0:7001", "127.0.0.1:7001"),
        ("127.0.0.1:7001", "0.0.0.0:7001"),
        ("[::]:7001", "[::1]:7001"),
        ("[::ffff:127.0.0.1]:7001", "127.0.0.1:7001"),
        ("localhost:7001", "127.0.0.1:7001"),
    ] {
        let other = ["overlaps with listeners.one.bind"];
        let toml = listeners(&[("one", "ack", first, ""), ("two", "chat", second, "")]);
        refused(&toml, 7, "listeners.two.bind", &other);
        let udp = "transport = \"udp\"";
        let toml = listeners(&[
            ("one", "uppercase", first, ""),
            ("two", "chat", second, udp),
        ]);
        refused(&toml, 7, "listeners.two.bind", &other);
    }
    for (mine, theirs) in [
        ("127.0.0.1:50051", "grpc.address"),
        ("0.0.0.0:9464", "http.address"),
    ] {
        let toml = listeners(&[("mine", "ack", mine, "")]);
        refused(&toml, 3, "listeners.mine.bind", &["overlaps with", theirs]);
    }
    let both = "[http]\naddress = \"127.0.0.1:50051\"\n";
    refused(both, 2, "http.address", &["overlaps with grpc.address"]);
    // In the order of the names, whatever the order of the files.
    let files = [
        (
            "a.toml",
            &*listeners(&[("two", "ack", "127.0.0.1:7001", "")]),
        ),
        (
            "b.yaml",
            "listeners:\n  one:\n    protocol: ack\n    bind: 127.0.0.1:7001\n",
        ),
    ];
    let ended = run(
        &files,
        &["check", "--config", "a.toml", "--config", "b.yaml"],
        &[],
    );
    let told = "a.toml:3:8: listeners.two.bind: 127.0.0.1:7001 overlaps with listeners.one.bind";
    assert!(ended.stderr.starts_with(told), "{}", ended.stderr);
}

#[test]
fn addresses_that_do_not_exclude_each_other_are_taken() {
    let at = "127.0.0.1:7001";
    let stopped = "desired_state = \"stopped\"";
    for list in [
        // Another transport, another address, another port, one of the kernel's choice, another family.
        [("one", "ack", at, ""), ("two", "uppercase", at, "")],
        [
            ("one", "ack", at, ""),
            ("two", "chat", at, "transport = \"udp\""),
        ],
        [("one", "ack", at, ""), ("two", "ack", "127.0.0.2:7001", "")],
        [("one", "ack", at, ""), ("two", "ack", "127.0.0.1:7002", "")],
        [
            ("one", "ack", "127.0.0.1:0", ""),
            ("two", "ack", "127.0.0.1:0", ""),
        ],
        [
            ("one", "ack", "0.0.0.0:7001", ""),
            ("two", "ack", "[::]:7001", ""),
        ],
        // Not served.
        [("one", "ack", at, stopped), ("two", "ack", at, "")],
        [("one", "ack", at, ""), ("two", "ack", at, stopped)],
    ] {
        let ended = check(&listeners(&list));
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "{list:?}");
    }
}

#[test]
fn an_address_of_ipv4_may_be_written_as_one_of_ipv6() {
    let service = Service::start(&listeners(&[("a", "ack", "[::ffff:127.0.0.1]:0", "")]));
    let mut talk = service.talk("a");
    talk.send("hello");
    talk.expect("received data!!");
}

#[test]
fn what_the_sockets_cannot_do_is_refused() {
    let limit = |protocol, key: &str, limit: &str| {
        let more = format!("{key}\n[listeners.x.limits]\n{limit}");
        listeners(&[("x", protocol, "127.0.0.1:0", &more)])
    };
    let too_long = ["more than a datagram carries (65507)"];
    let key = "listeners.x.limits.max_message_bytes";
    let over = limit("uppercase", "", "max_message_bytes = 65508");
    refused(&over, 6, key, &too_long);
    let over = limit(
        "chat",
        "transport = \"udp\"",
        "max_message_bytes = \"64KiB\"",
    );
    refused(&over, 6, key, &too_long);
    for protocol in ["uppercase", "ack"] {
        let fits = limit(protocol, "", "max_message_bytes = 65507");
        assert_eq!(check(&fits).code, 0);
    }
    assert_eq!(
        check(&limit("ack", "", "max_message_bytes = 65508")).code,
        0
    );
    let key = "listeners.x.limits.allow_cidrs";
    for (network, meant) in [("10.1.0.0/8", "10.0.0.0/8"), ("fd00::1/8", "fd00::/8")] {
        let toml = limit("ack", "", &format!("allow_cidrs = [\"{network}\"]"));
        refused(
            &toml,
            6,
            key,
            &[network, "host bits", &format!("{meant} is meant")],
        );
        assert_eq!(check(&toml.replace(network, meant)).code, 0);
    }
}

/// The program as a shell starts it that lets it have so many descriptors.
fn with_descriptors(most: u32) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {most} && exec \"$0\" \"$@\"");
    command.args(["-c", &script, &program()]);
    command
}

/// Half of 256 descriptors; the other half is not for sessions.
const CARRIED: usize = 128;

const LOWERED: &str = "limits.max_sessions is 5000, and the descriptor limit of the process carries 128: so many are let in";

/// What asks for more, what asks for nothing, and what needs no descriptors for its sessions.
const WIDE: &str = "[listeners.plain]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
    [listeners.udp]\nprotocol = \"uppercase\"\nbind = \"127.0.0.1:0\"\nlimits = { max_sessions = 5000 }\n\
    [listeners.wide]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\nlimits = { max_sessions = 5000 }\n";

/// A service with that on a host that carries little.
fn narrow() -> Service {
    let service = Service::spawn(Service::home_for(WIDE), with_descriptors(256), &[], &[]);
    service.announced("http");
    service
}

#[test]
fn a_session_limit_that_the_host_does_not_carry_is_lowered_with_a_warning() {
    let home: Arc<tempfile::TempDir> = Service::home_for(WIDE);
    let checked = |more: &[&str]| {
        let mut command = with_descriptors(256);
        command
            .args(["check", "--config", "switchboard.toml"])
            .args(more);
        let output = command.current_dir(home.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, stdout, stderr) = checked(&[]);
    assert_eq!(
        (code, &*stdout),
        (Some(0), "the configuration is valid: 3 listeners\n")
    );
    assert_eq!(
        stderr,
        format!("warning: listeners.wide.limits.max_sessions: {LOWERED}\n")
    );
    let (code, stdout, stderr) = checked(&["-o", "json"]);
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &*stderr, &told["valid"]),
        (Some(0), "", &json!(true))
    );
    let warning = json!({ "key": "listeners.wide.limits.max_sessions", "reason": "LIMIT_LOWERED", "message": LOWERED });
    assert_eq!(told["warnings"], json!([warning]));

    let service = narrow();
    eventually("the one warning in the log", || {
        let log = service.stderr();
        let warned = log
            .lines()
            .filter(|line| line.contains("WARN") && line.contains(LOWERED));
        warned.count() == 1
    });
    // What is not asked for is lowered too.
    for name in ["wide", "plain"] {
        let talks: Vec<_> = (0..CARRIED)
            .map(|_| {
                let mut talk = service.talk(name);
                talk.send("hello");
                talk.expect("received data!!");
                talk
            })
            .collect();
        Talk::to(service.address(name)).expect_closed();
        // The next listener has the same descriptors.
        for mut talk in talks {
            talk.half_close();
            talk.expect_closed();
        }
    }
}

#[test]
fn a_change_past_what_the_host_carries_answers_with_the_warning() {
    if no_grpcurl() {
        return;
    }
    let service = narrow();
    let limits = json!({ "max_sessions": 5000 });
    let create = |id: &str, protocol: &str| {
        let listener = json!({ "bind": "127.0.0.1:0", protocol: {}, "limits": limits });
        json!({ "listener_id": id, "listener": listener, "persistence": "PERSISTENCE_EPHEMERAL" })
    };
    let update = json!({
        "listener": { "name": "listeners/plain", "limits": limits },
        "update_mask": { "paths": ["limits.max_sessions"] }, "persistence": "PERSISTENCE_EPHEMERAL",
    });
    for (method, request, name) in [
        ("Create", create("made", "ack"), "made"),
        ("Update", update, "plain"),
    ] {
        let method = format!("ListenerService/{method}Listener");
        let warnings = service.call(&method, &request, "warnings");
        let [warning] = &warnings.as_array().unwrap()[..] else {
            panic!("{warnings}");
        };
        assert_eq!(warning["reason"], "LIMIT_LOWERED");
        assert_eq!(
            warning["key"],
            format!("listeners.{name}.limits.max_sessions")
        );
        assert_eq!(warning["message"], LOWERED);
        // As it is obeyed.
        assert_eq!(service.listener(name)["limits"]["maxSessions"], CARRIED);
    }
    let over_udp = create("more", "uppercase");
    let warnings = service.call("ListenerService/CreateListener", &over_udp, "warnings");
    assert_eq!(warnings, Value::Null);
    let warnings = service.call("ConfigService/ValidateConfig", &json!({}), "warnings");
    let warnings = warnings.as_array().unwrap().iter();
    let keys: Vec<_> = warnings.map(|warning| warning["key"].clone()).collect();
    let lowered = ["made", "plain", "wide"];
    assert_eq!(
        keys,
        lowered.map(|name| format!("listeners.{name}.limits.max_sessions"))
    );
}
