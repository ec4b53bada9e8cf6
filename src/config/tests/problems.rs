//! Everything at once, each with its place, and nothing that ends the process.

use super::{Place, Settings, complaints};
use crate::config::{Reason, load};

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let place = Place::new(&[
        (
            "a.toml",
            "[grpc]\naddress = \"here\"\nalow_shell = true\nports = [1, \"2\", 70000, 4]\n\n[grace]\nstop = 30\n",
        ),
        ("b.json", r#"{"node": {"name": 7, "colour": "red"}}"#),
    ]);
    let mut sources = place.sources(&["a.toml", "b.json"]);
    sources.environment = vec![("SWITCHBOARD__GRACE__CUT".into(), "soon".into())];
    sources.sets = vec!["listeners.y.limits.max_sesions=1".into()];
    assert_eq!(
        place.complaints(&sources),
        [
            "a.toml:2:11: grpc.address: invalid socket address syntax",
            "a.toml:3:1: grpc.alow_shell: unknown key; did you mean `allow_shell`?",
            "a.toml:4:13: grpc.ports[1]: expected a whole number from 0 to 65535, found the text \"2\"",
            "a.toml:4:18: grpc.ports[2]: expected a whole number from 0 to 65535, found 70000",
            "a.toml:7:8: grace.stop: a duration needs a unit, as in \"30s\"",
            "b.json:1:19: node.name: expected text, found 7",
            "b.json:1:22: node.colour: unknown key; known are name, weight",
            "SWITCHBOARD__GRACE__CUT: grace.cut: \"soon\" is no duration such as \"30s\" or \"1m 30s\": expected number at 0",
            "--set: listeners.y.limits.max_sesions: unknown key; did you mean `max_sessions`?",
            "--set: listeners.y.protocol: is required, one of ack, uppercase, shell",
        ]
    );
}

#[test]
fn an_unreadable_source_hides_nothing_but_what_it_may_hold() {
    let place = Place::new(&[(
        "a.toml",
        "[listeners.x]\nprotocol = \"ack\"\nbnd = 1\n[listeners.y]\nprotocol = \"ack\"",
    )]);
    place.write("long.toml", &vec![b'#'; (1 << 20) + 1]);
    place.write("binary.toml", b"a = \"\xff\"");
    let names = ["a.toml", "absent.toml", "long.toml", "binary.toml", "a.ini"];
    assert_eq!(
        place.complaints(&place.sources(&names)),
        [
            "a.ini: the name of a configuration ends in .toml, .json, .yaml or .yml",
            "a.toml:3:1: listeners.x.bnd: unknown key; did you mean `bind`?",
            "absent.toml: cannot be read: No such file or directory (os error 2)",
            "binary.toml: is not UTF-8 text: byte 6 is the first wrong one",
            "long.toml: is longer than 1 MiB",
        ]
    );
    let only = place.complaints(&place.sources(&["a.toml"]));
    assert_eq!(only[1], "a.toml:4:12: listeners.y.bind: is required");
}

#[test]
fn syntax_errors_have_places_in_every_format() {
    let place = Place::new(&[
        ("a.toml", "a = \nb = 1\nc = [1,,2]\n"),
        ("b.json", "{\n  \"a\": 1,,\n}"),
        ("c.yaml", "a: 1\nb: [1, 2\nc: }"),
        ("d.toml", "weight = 1e999\ni = 99999999999999999999"),
        ("e.yaml", "a: &x [1]\nb: *x"),
        ("f.json", "[1]"),
    ]);
    let names = ["a.toml", "b.json", "c.yaml", "d.toml", "e.yaml", "f.json"];
    let found = load::<Settings>(&place.sources(&names)).unwrap_err();
    let places: Vec<_> = found
        .iter()
        .map(|problem| {
            assert_eq!(problem.reason, Reason::Syntax);
            let origin = problem.origin.as_ref().unwrap();
            let file = origin.source.rsplit('/').next().unwrap().to_owned();
            (file, origin.line, origin.column.is_some())
        })
        .collect();
    let at = |file: &str, line: Option<u32>| (file.to_owned(), line, line.is_some());
    assert_eq!(
        places,
        [
            at("a.toml", Some(1)),
            at("a.toml", Some(3)),
            at("b.json", Some(2)),
            at("c.yaml", Some(3)),
            at("d.toml", Some(1)),
            at("d.toml", Some(2)),
            at("e.yaml", Some(2)),
            at("f.json", None),
        ]
    );
}

#[test]
fn a_files_name_plays_no_tricks() {
    let origin = crate::config::Origin::whole(crate::config::Layer::File, "a\u{1b}[2J\nb.toml");
    assert_eq!(origin.to_string(), "a\\u{1b}[2J\\nb.toml");
}

#[test]
fn a_flood_of_problems_ends() {
    let toml: String = (0..5_000).map(|i| format!("x{i} = {i}\n")).collect();
    assert_eq!(complaints(&toml).len(), 200);
}

#[test]
fn depth_does_not_end_the_process() {
    let dotted = format!("{}a = 1", "a.".repeat(200_000));
    let brackets = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let place = Place::new(&[
        ("a.toml", &dotted),
        ("b.toml", &format!("a = {brackets}")),
        ("c.yaml", &brackets),
        ("d.json", &brackets),
        ("e.yaml", &"- ".repeat(200_000)),
    ]);
    let names = ["a.toml", "b.toml", "c.yaml", "d.json", "e.yaml"];
    let problems = load::<Settings>(&place.sources(&names)).unwrap_err();
    let refused = |name| {
        problems
            .iter()
            .any(|p| p.origin.as_ref().is_some_and(|o| o.source.ends_with(name)))
    };
    assert!(names.into_iter().all(refused), "{problems}");
}
