//! What the whole file promises.

#![allow(clippy::unwrap_used)]

mod shipped;

use super::*;

fn read(text: &str) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.toml");
    std::fs::write(&file, text).unwrap();
    let sources = Sources {
        files: vec![file],
        ..Sources::default()
    };
    let configured = Settings::load(&sources);
    configured
        .map(|configured| configured.settings)
        .map_err(|problems| problems.to_string())
}

#[test]
fn the_shipped_file_says_what_is_so_without_it() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/switchboard.toml");
    let from_file = read(&std::fs::read_to_string(shipped).unwrap()).unwrap();
    let built_in = read("").unwrap();
    assert_eq!(built_in.listeners.len(), 5);
    assert_eq!(from_file, built_in);
}

#[test]
fn one_named_listener_replaces_the_five() {
    let settings = read("[listeners.mine]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"").unwrap();
    assert_eq!(settings.listeners.len(), 1);
}

#[test]
fn every_value_that_cannot_be_obeyed_is_named_with_its_place() {
    let problems = read(
        "[node]\nname = \"Not Plain\"\n[grpc]\naddress = \"0.0.0.0:50051\"\n[http]\naddress = \"[::]:9464\"\n\
         [listeners.open]\nprotocol = \"shell\"\nbind = \"0.0.0.0:8090\"\n\
         [listeners.wide]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n[listeners.wide.limits]\nallow_cidrs = [\"10.1.0.0/8\"]\n",
    )
    .unwrap_err();
    for expected in [
        "test.toml:2:",
        "node.name",
        "test.toml:4:",
        "grpc.address",
        "http.address",
        "listeners.open.bind",
        "listeners.open.limits.allow_cidrs",
        "listeners.wide.limits.allow_cidrs",
        "10.0.0.0/8 is meant",
    ] {
        assert!(problems.contains(expected), "{expected} in:\n{problems}");
    }
    assert_eq!(problems.lines().count(), 6, "{problems}");
}

#[test]
fn a_shell_off_loopback_takes_both_its_words() {
    let shell = |more: &str| {
        read(&format!(
            "[listeners.s]\nprotocol = \"shell\"\nbind = \"0.0.0.0:0\"\n{more}"
        ))
    };
    let networks = "[listeners.s.limits]\nallow_cidrs = [\"10.0.0.0/8\"]";
    assert!(shell(networks).is_err());
    assert!(shell("allow_cleartext = true").is_err());
    assert!(shell(&format!("allow_cleartext = true\n{networks}")).is_ok());
}

#[test]
fn a_secret_of_the_wrong_type_is_not_told() {
    let shell = "[listeners.s]\nprotocol = \"shell\"\nbind = \"127.0.0.1:0\"\n";
    let problems = read(&format!(
        "{shell}[listeners.s.sandbox.environment]\nPIN = 4711"
    ))
    .unwrap_err();
    assert!(
        problems.contains("environment.PIN: expected text"),
        "{problems}"
    );
    assert!(!problems.contains("4711"), "{problems}");
}
