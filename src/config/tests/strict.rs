//! What is refused because it is of another type than its key wants.

use super::{Place, complaints, outside};

#[test]
fn files_are_taken_by_their_word() {
    for (toml, found) in [
        ("node.name = 81", "81"),
        ("node.name = true", "true"),
        ("node.name = 2026-01-01", "a date or time"),
        ("node.weight = \"2.7\"", "the text \"2.7\""),
        ("node.weight = nan", "NaN"),
        ("node.weight = inf", "inf"),
        ("grpc.allow_shell = 1", "1"),
        ("grpc.allow_shell = \"true\"", "the text \"true\""),
        ("grpc.ports = \"1,2\"", "the text \"1,2\""),
        ("grpc.ports = [2.7]", "2.7"),
        ("grpc.ports = [-1]", "-1"),
        ("grpc.ports = 1", "1"),
        ("grpc = [\"127.0.0.1:1\", true, []]", "a list"),
        ("grpc = 1", "1"),
        ("listeners = []", "a list"),
        ("listeners.x = {protocol = 1, bind = \"a\"}", "1"),
    ] {
        let complaints = complaints(toml);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(
            complaints[0].ends_with(&format!(", found {found}")),
            "{complaints:?}"
        );
    }
}

#[test]
fn text_from_outside_that_fits_nothing_is_refused() {
    let place = Place::new(&[]);
    let deep = format!("{}=1", ["a"; 99].join("."));
    let sources = outside(
        &[
            ("SWITCHBOARD__", "1"),
            ("SWITCHBOARD__GRPC__ALLOW_SHELL", "yes"),
            ("SWITCHBOARD__GRPC__PORTS", "[1]\nother = 2"),
            ("SWITCHBOARD__NODE__WEIGHT", "nan"),
            ("SWITCHBOARD__NODE____NAME", "1"),
        ],
        &[
            "grpc",
            "=1",
            "grace=now",
            "listeners.x={protocol=\"ack\",prt=1}",
            &deep,
        ],
    );
    let complaints = place.complaints(&sources);
    let expected = [
        "SWITCHBOARD__: \"\" is no key such as a.b",
        "SWITCHBOARD__GRPC__ALLOW_SHELL: grpc.allow_shell: expected true or false, found the text \"yes\"",
        "SWITCHBOARD__GRPC__PORTS: grpc.ports: not a TOML value: \"[1]\\nother = 2\"",
        "SWITCHBOARD__NODE__WEIGHT: node.weight: expected a finite number, found NaN",
        "SWITCHBOARD__NODE____NAME: \"node..name\" is no key such as a.b",
        "--set: expected KEY=VALUE, found \"grpc\"",
        "--set: \"\" is no key such as a.b",
        "--set: the key is too deep",
        "--set: grace: expected a table such as { key = \"value\" }, found \"now\"",
        "--set: listeners.x.prt: unknown key; known are bind, limits, labels, protocol",
    ];
    assert_eq!(complaints, expected);
}
