//! What the service reads before it runs: the layers and their order, and every problem at once.

mod commands;
mod cross;
mod documents;
mod origins;

use std::net::TcpListener;

use crate::support::{Ended, Service, no_grpcurl, run};

const GOOD: &str = "[listeners.a]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

/// Runs `check` on one file.
fn check(toml: &str) -> Ended {
    run(
        &[("test.toml", toml)],
        &["check", "--config", "test.toml"],
        &[],
    )
}

/// Runs `serve` on one file that must keep it from starting.
fn serve(toml: &str) -> Ended {
    run(
        &[("test.toml", toml)],
        &["serve", "--config", "test.toml"],
        &[],
    )
}

#[test]
fn a_good_configuration_is_said_to_be_one() {
    let ended = check(GOOD);
    assert_eq!((ended.code, &*ended.stderr), (0, ""));
    assert!(ended.stdout.contains("1 listener"), "{}", ended.stdout);
}

#[test]
fn five_listeners_are_there_until_one_is_named() {
    let ended = run(&[], &["check"], &[]);
    assert_eq!((ended.code, &*ended.stderr), (0, ""));
    assert!(ended.stdout.contains("5 listeners"), "{}", ended.stdout);
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    let ended = check(concat!(
        "[grpc]\n",
        "adress = \"127.0.0.1:1\"\n",
        "[listeners.one]\n",
        "protocol = \"ack\"\n",
        "bind = \"nowhere\"\n",
        "[listeners.two]\n",
        "protocol = \"akc\"\n",
        "bind = \"127.0.0.1:0\"\n",
        "[listeners.three]\n",
        "protocol = \"chat\"\n",
        "bind = \"127.0.0.1:0\"\n",
        "  paec = \"free\"\n",
        "[listeners.three.limits]\n",
        "max_sessions = \"many\"\n",
        "[listeners.four]\n",
        "protocol = \"ack\"\n",
    ));
    assert_eq!((ended.code, &*ended.stdout), (78, ""));
    let lines: Vec<&str> = ended.stderr.lines().collect();
    for (place, key, more) in [
        ("test.toml:2:1:", "grpc.adress", "did you mean `address`?"),
        ("test.toml:5:8:", "listeners.one.bind", "nowhere"),
        (
            "test.toml:7:12:",
            "listeners.two.protocol",
            "did you mean `ack`?",
        ),
        (
            "test.toml:12:3:",
            "listeners.three.paec",
            "did you mean `pace`?",
        ),
        (
            "test.toml:14:16:",
            "listeners.three.limits.max_sessions",
            "",
        ),
        ("test.toml:15:", "listeners.four", "bind"),
    ] {
        let told = lines
            .iter()
            .any(|line| line.starts_with(place) && line.contains(key) && line.contains(more));
        assert!(told, "{place} {key} {more} in:\n{}", ended.stderr);
    }
    // Each with the line that it stands in, and a caret.
    let problems = lines.iter().filter(|line| line.starts_with("test.toml:"));
    assert_eq!(problems.count(), 6, "{}", ended.stderr);
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_of_its_own() {
    let missing = run(&[], &["check", "--config", "absent.toml"], &[]);
    assert_eq!(missing.code, 78);
    assert!(
        missing.stderr.starts_with("absent.toml: "),
        "{}",
        missing.stderr
    );
    let broken = check("[listeners\n");
    assert_eq!(broken.code, 78);
    assert!(
        broken.stderr.starts_with("test.toml:1:"),
        "{}",
        broken.stderr
    );
    let bad_set = run(&[], &["check", "--set", "nonsense"], &[]);
    assert_eq!(bad_set.code, 78);
    assert!(bad_set.stderr.contains("--set"), "{}", bad_set.stderr);
}

#[test]
fn problems_of_variables_and_flags_name_them() {
    let ended = run(
        &[("test.toml", GOOD)],
        &[
            "check",
            "--config",
            "test.toml",
            "--set",
            "listeners.a.bindd=127.0.0.1:1",
        ],
        &[("SWITCHBOARD__LISTENERS__A__BIND", "nowhere")],
    );
    assert_eq!(ended.code, 78);
    for expected in [
        "SWITCHBOARD__LISTENERS__A__BIND: listeners.a.bind: ",
        "--set: listeners.a.bindd: ",
        "did you mean `bind`?",
    ] {
        assert!(
            ended.stderr.contains(expected),
            "{expected} in:\n{}",
            ended.stderr
        );
    }
}

#[test]
fn later_layers_win() {
    if no_grpcurl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let later = folder.path().join("later.yaml");
    std::fs::write(
        &later,
        "listeners:\n  a:\n    labels: {two: later, three: later, four: later}\n",
    )
    .unwrap();
    let service = Service::start_with(
        &format!(
            "{GOOD}[listeners.a.labels]\none = \"file\"\ntwo = \"file\"\nthree = \"file\"\nfour = \"file\"\n"
        ),
        &[
            "--config",
            later.to_str().unwrap(),
            "--set",
            "listeners.a.labels.four=flag",
            "--set",
            "node.name=told",
        ],
        &[
            ("SWITCHBOARD__LISTENERS__A__LABELS__THREE", "variable"),
            ("SWITCHBOARD__LISTENERS__A__LABELS__FOUR", "variable"),
            ("SWITCHBOARD__LISTENERS__A__LIMITS__MAX_SESSIONS", "7"),
        ],
    );
    let shown = service.listener("a");
    for (label, from) in [
        ("one", "file"),
        ("two", "later"),
        ("three", "variable"),
        ("four", "flag"),
    ] {
        assert_eq!(shown["labels"][label], from, "{label}");
    }
    assert_eq!(shown["limits"]["maxSessions"], 7);
    assert_eq!(shown["origin"]["layer"], "LAYER_FILE");
    let source = shown["origin"]["source"].as_str().unwrap();
    assert!(source.ends_with("switchboard.toml"), "{source}");
}

#[test]
fn what_is_open_to_the_network_is_refused() {
    let open = [
        ("[grpc]\naddress = \"0.0.0.0:0\"\n", "grpc.address"),
        ("[http]\naddress = \"[::]:0\"\n", "http.address"),
        (
            "[listeners.s]\nprotocol = \"shell\"\nbind = \"0.0.0.0:0\"\n",
            "listeners.s.bind",
        ),
        (
            "[listeners.s]\nprotocol = \"shell\"\nbind = \"0.0.0.0:0\"\nallow_cleartext = true\n",
            "listeners.s.limits.allow_cidrs",
        ),
        (
            "[listeners.s]\nprotocol = \"shell\"\nbind = \"0.0.0.0:0\"\n[listeners.s.limits]\nallow_cidrs = [\"10.0.0.0/8\"]\n",
            "listeners.s.bind",
        ),
    ];
    for (toml, key) in open {
        for ended in [check(toml), serve(toml)] {
            assert_eq!((ended.code, &*ended.stdout), (78, ""), "{toml}");
            assert!(ended.stderr.contains(key), "{key} in:\n{}", ended.stderr);
        }
    }
    let scraped = check("[http]\naddress = \"[::]:9464\"\nallow_network = true\n");
    assert_eq!(scraped.code, 0, "{}", scraped.stderr);
    let both = "[listeners.s]\nprotocol = \"shell\"\nbind = \"0.0.0.0:0\"\nallow_cleartext = true\n\
                [listeners.s.limits]\nallow_cidrs = [\"10.0.0.0/8\"]\n";
    assert_eq!(check(both).code, 0);
}

#[test]
fn a_taken_control_port_ends_the_process() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    for (whose, grpc, http) in [("grpc", at, free), ("http", free, at)] {
        let ended = serve(&format!(
            "[grpc]\naddress = \"{grpc}\"\n[http]\naddress = \"{http}\"\n[store]\npath = \":memory:\"\n{GOOD}"
        ));
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        let told = ended.stderr.lines().any(|line| {
            line.contains(whose) && line.contains(&at.to_string()) && line.contains("in use")
        });
        assert!(told, "{}", ended.stderr);
    }
}
