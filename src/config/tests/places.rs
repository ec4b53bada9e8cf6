//! Lines, columns and excerpts in every format.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Place, Settings};
use crate::config::{Format, Layers, Sources, export, load};

fn document(text: &str, format: Format) -> Sources {
    Sources {
        document: Some((text.to_owned(), format)),
        ..Sources::default()
    }
}

/// Keys with their places.
fn places(text: &str, format: Format) -> Vec<(String, u32, u32)> {
    let loaded = load::<Settings>(&document(text, format)).unwrap();
    let settings = loaded.origins.iter();
    let place = |(key, setting): (&str, &crate::config::Setting)| {
        let origin = &setting.origin;
        (key.to_owned(), origin.line.unwrap(), origin.column.unwrap())
    };
    settings.map(place).collect()
}

#[test]
fn every_value_has_its_place_in_every_format() {
    let yaml = "# é\nnode:\n  name: a\ngrpc: {ports: [1,\n  2], allow_shell: true}\nlisteners:\n  1:\n    bind: 'x'\n    protocol: ack\n    labels: {0x10: \"é\", \"0x10\": b}\n";
    let json = "{\"node\": {\r\n\t\"name\" : \"é\\\"}\" , \"weight\": 1.5},\n \"grpc\": {\"ports\": [ 1, [] ]\n}}";
    assert_eq!(
        places(yaml, Format::Yaml),
        [
            ("grpc.allow_shell".to_owned(), 5, 20),
            ("grpc.ports".to_owned(), 4, 15),
            ("listeners.1.bind".to_owned(), 8, 11),
            ("listeners.1.labels.0x10".to_owned(), 10, 33),
            ("listeners.1.labels.16".to_owned(), 10, 20),
            ("listeners.1.protocol".to_owned(), 9, 15),
            ("node.name".to_owned(), 3, 9),
        ]
    );
    let json = json.replace("[ 1, [] ]", "[ 1, 2 ]");
    assert_eq!(
        places(&json, Format::Json),
        [
            ("grpc.ports".to_owned(), 3, 20),
            ("node.name".to_owned(), 2, 11),
            ("node.weight".to_owned(), 2, 30),
        ]
    );
}

#[test]
fn problems_have_their_places_in_every_format() {
    for (format, text, expected) in [
        (
            Format::Toml,
            "grpc.ports = [1,\n \"é\", 2]",
            "document:2:2: grpc.ports[1]",
        ),
        (
            Format::Json,
            "{\"grpc\": {\"ports\": [1,\n \"é\", 2]}}",
            "document:2:2: grpc.ports[1]",
        ),
        (
            Format::Yaml,
            "grpc:\n  ports:\n  - 1\n  - é\n",
            "document:4:5: grpc.ports[1]",
        ),
        (
            Format::Json,
            "{\"node\": {\"name\": 1,\n  \"name\": 2}}",
            "document:2:3: the key \"name\" stands twice",
        ),
        (
            Format::Yaml,
            "node:\n  name: 1\n  name: 2",
            "document:3:3: the key \"name\" stands twice",
        ),
        (
            Format::Yaml,
            "node:\n  [a]: 2",
            "document:2:3: a key is plain text",
        ),
        (
            Format::Yaml,
            "node:\n  ~: 2",
            "document:2:3: a key is plain text",
        ),
        (Format::Json, "{\n", "document:2:1: EOF"),
        (
            Format::Json,
            "{\"grpc\": 1}\n{",
            "document:2:1: trailing characters",
        ),
        (
            Format::Yaml,
            "a: 1\n---\nb: 2",
            "document: Got 2 YAML documents",
        ),
    ] {
        let problems = load::<Settings>(&document(text, format)).unwrap_err();
        assert!(problems.to_string().starts_with(expected), "{problems}");
    }
}

#[test]
fn a_problem_shows_the_line_it_stands_in() {
    let place = Place::new(&[("a.toml", "[node]\r\n\tna\u{301}me = 1 # \u{1b}[31m\r\n")]);
    let wide = format!("\"{}\" = 1, nam = 2", "名".repeat(3));
    let long = format!(
        "{{\"node\": {{\"name\": \"{}\", \"nam\": 1}}}}",
        "x".repeat(400)
    );
    let explained = |sources: &Sources| {
        let problems = load::<Settings>(sources).unwrap_err();
        let explained: Vec<_> = problems
            .iter()
            .map(crate::config::Problem::explain)
            .collect();
        explained.join("\n")
    };
    let shown = explained(&place.sources(&["a.toml"]));
    assert!(!shown.contains('\u{1b}'), "{shown}");

    let shown = explained(&document("[node]\n\tname = 1 # hi\n", Format::Toml));
    assert_eq!(
        shown,
        "document:2:9: node.name: expected text, found 1\n  2 |  name = 1 # hi\n    |         ^"
    );
    let shown = explained(&document(&format!("node = {{{wide}}}"), Format::Toml));
    assert!(
        shown.contains(&format!("\n    | {0:9}{1}{0:7}^", "", "\u{3000}".repeat(3))),
        "{shown}"
    );
    let shown = explained(&document(&long, Format::Json));
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[1].starts_with("  1 | …xxx"), "{shown}");
    let caret = lines[2].chars().position(|c| c == '^').unwrap();
    let under: String = lines[1].chars().skip(caret).take(5).collect();
    assert_eq!(under, "\"nam\"");
    assert!(
        explained(&Sources {
            sets: vec!["nod=1".into()],
            ..Sources::default()
        })
        .lines()
        .count()
            == 1
    );
}

#[test]
fn a_problem_is_told_to_scripts() {
    let problems = load::<Settings>(&document("nod.a = 1", Format::Toml)).unwrap_err();
    let told: Vec<_> = problems
        .iter()
        .map(crate::config::Problem::to_json)
        .collect();
    assert_eq!(
        told,
        [json!({
            "key": "nod", "reason": "UNKNOWN_KEY", "message": "unknown key", "source": "document",
            "line": 1, "column": 1, "suggestion": "node",
        })]
    );
}

/// Values that all three formats can say.
fn tree() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        ".*",
        "[ -~]{0,8}",
        proptest::sample::select(WORDS.to_vec()).prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // The parser of JSON is exact for short ones only.
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 64.0)),
        proptest::sample::select(vec![1e100, -1e-7, 1.5e300]).prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 24, 4, {
        let text = text.clone();
        move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        }
    });
    proptest::collection::btree_map(text, value, 0..5)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

const WORDS: [&str; 26] = [
    "1_000",
    "yes",
    "No",
    "0x1",
    "0o17",
    "1e3",
    "null",
    "~",
    "2026-01-01",
    " a",
    "a ",
    "a: b",
    "a #b",
    "- a",
    "",
    ".inf",
    "inf",
    "nan",
    "true",
    "Off",
    "=",
    "<<",
    "é",
    "a\nb",
    "---",
    "!!int",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_exported_is_read_back(tree in tree()) {
        for format in [Format::Toml, Format::Json, Format::Yaml] {
            let text = export(&tree, format).unwrap();
            let loaded = Layers::read(&document(&text, format)).load::<Value>();
            let loaded = loaded.map_err(|problems| TestCaseError::fail(format!("{problems} in\n{text}")))?;
            prop_assert_eq!(&loaded.value, &tree, "{}", text);
            for (key, setting) in loaded.origins.iter() {
                prop_assert!(setting.origin.column.is_some(), "{} in\n{}", key, text);
            }
        }
    }
}
