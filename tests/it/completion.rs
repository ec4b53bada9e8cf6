//! Help where it is looked for: completion that knows the names, and a manual page for every command.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::commands::VERBS;
use super::support::{Service, run};

const LISTENERS: &str = "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
     [listeners.door]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

/// What bash would offer for the last word of a line.
fn offered(line: &[&str], endpoint: &str) -> Vec<String> {
    let index = (line.len() - 1).to_string();
    let env = [
        ("COMPLETE", "bash"),
        ("_CLAP_COMPLETE_INDEX", &index),
        ("_CLAP_IFS", "\n"),
        ("SWITCHBOARD_ENDPOINT", endpoint),
    ];
    let ended = run(&[], &[&["--"], line].concat(), &env);
    assert_eq!((ended.code, &*ended.stderr), (0, ""));
    ended.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn names_of_listeners_and_sessions_are_offered() {
    let service = Service::start(LISTENERS);
    let endpoint = service.grpc().to_string();
    let get = ["switchboard", "listener", "get"];
    let all = offered(&[&get[..], &[""]].concat(), &endpoint);
    assert_eq!(all[..2], ["ack", "door"]);
    assert_eq!(offered(&[&get[..], &["d"]].concat(), &endpoint), ["door"]);
    let verbs = offered(&["switchboard", "listener", "d"], &endpoint);
    assert_eq!(verbs, ["delete", "drain"]);
    // The endpoint of the line comes first.
    let typed = [&get[..], &["--endpoint", &endpoint, "do"]].concat();
    assert_eq!(offered(&typed, "127.0.0.1:1"), ["door"]);

    let mut talk = service.talk("ack");
    talk.send("hello");
    talk.expect("received data!!");
    let ids = offered(&["switchboard", "session", "close", "local-"], &endpoint);
    assert_eq!(ids.len(), 1, "{ids:?}");
    let listed = service.cli(&["session", "ls", "-o", "name"], &[]).stdout;
    assert!(listed.trim_end().ends_with(&ids[0]), "{listed} {ids:?}");
    // Who acknowledges has no conversation.
    let talks = offered(&["switchboard", "chat", "reply", "local-"], &endpoint);
    assert_eq!(talks, [""; 0]);
}

#[test]
fn protocols_and_banned_networks_are_offered() {
    let service = Service::start(LISTENERS);
    let endpoint = service.grpc().to_string();
    let create = ["switchboard", "listener", "create", "x", "--protocol", ""];
    let protocols = offered(&create, &endpoint);
    assert_eq!(protocols, ["shell", "uppercase", "chat", "ack"]);
    let banned = service.cli(&["session", "ban", "192.0.2.0/24"], &[]);
    assert_eq!(banned.code, 0, "{}", banned.stderr);
    let networks = offered(&["switchboard", "session", "unban", "1"], &endpoint);
    assert_eq!(networks, ["192.0.2.0/24"]);
}

#[test]
fn a_control_plane_that_does_not_answer_is_not_waited_for() {
    // It takes the connection, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let gone = "127.0.0.1:1";
    for endpoint in [&*address, gone, "ftp://nonsense"] {
        let began = Instant::now();
        let all = offered(&["switchboard", "listener", "get", ""], endpoint);
        assert!(all.iter().all(|word| word.starts_with("--")), "{all:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "{endpoint}");
    }
}

#[test]
fn the_script_of_a_shell_is_one_that_it_reads() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&[], &["completions", shell], &[]);
        assert_eq!((script.code, &*script.stderr), (0, ""));
        assert!(script.stdout.contains("COMPLETE"), "{}", script.stdout);
        if shell != "bash" {
            continue;
        }
        let mut child = Command::new(shell)
            .arg("-n")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(script.stdout.as_bytes()).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(run(&[], &["completions", "tcsh"], &[]).code, 2);
}

#[test]
fn every_command_has_a_manual_page() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("man/man1");
    let written = run(&[], &["man", dir.to_str().unwrap()], &[]);
    assert_eq!((written.code, &*written.stderr), (0, ""));
    let local = [
        "serve",
        "check",
        "connect",
        "completions",
        "man",
        "config default",
    ];
    for line in VERBS.iter().chain(&local) {
        let mut words = line.split(' ');
        let noun = words.next().unwrap();
        let verb = words.next().filter(|word| !word.starts_with('-'));
        let verb = verb.map_or_else(String::new, |verb| format!("-{verb}"));
        let page = fs::read_to_string(dir.join(format!("switchboard-{noun}{verb}.1")));
        let page = page.unwrap_or_else(|error| panic!("{noun}{verb}: {error}"));
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    for page in fs::read_dir(&dir).unwrap() {
        let page = page.unwrap().path();
        leads_somewhere(&page, &dir);
    }
    let first = run(&[], &["man"], &[]).stdout;
    assert_eq!(
        first,
        fs::read_to_string(dir.join("switchboard.1")).unwrap()
    );
}

/// Every page that a page names is there.
fn leads_somewhere(page: &Path, dir: &Path) {
    let text = fs::read_to_string(page).unwrap();
    for line in text.lines().filter(|line| line.ends_with("(1)")) {
        let named = line.replace('\\', "").replace("(1)", ".1");
        assert!(dir.join(&named).exists(), "{}: {named}", page.display());
    }
}
