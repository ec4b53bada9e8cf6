//! What the shipped file promises: it is whole, it is so, and no slip in any of its keys goes unseen.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::{Format, Layers, Values, diff, to_value};

const SHIPPED: &str = include_str!("../../../deploy/switchboard.toml");

/// A key's word as it stands in the file.
struct Word<'a> {
    text: &'a str,
    /// The table that it stands in, as a path with a dot behind it; empty at the top.
    table: String,
    /// Which line, from 0, and at which byte of it.
    line: usize,
    at: usize,
}

/// The setting that a line holds behind `# `, if it is not a sentence.
fn commented(line: &str) -> Option<&str> {
    let setting = line.strip_prefix("# ")?;
    let (key, _) = setting.split_once(" = ")?;
    key.bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        .then_some(setting)
}

/// The file with all that is commented out in force.
fn uncommented() -> String {
    let lines = SHIPPED.lines();
    lines
        .map(|line| commented(line).unwrap_or(line).to_owned() + "\n")
        .collect()
}

fn load(document: String) -> Result<Settings, Problems> {
    let sources = Sources {
        document: Some((document, Format::Toml)),
        ..Sources::default()
    };
    configure(&Layers::read(&sources), &[], &[]).map(|configured| configured.settings)
}

/// The keys whose values are not those that are obeyed without any file.
fn unlike_the_default(settings: &Settings) -> Vec<String> {
    let built_in = Settings {
        listeners: default_listeners(),
        ..Settings::default()
    };
    let values = |settings: &Settings| Values::of(&to_value(&settings.resolved()));
    let changes = diff(&values(&built_in), &values(settings)).into_iter();
    changes.map(|change| change.key).collect()
}

/// Every key's word, those of tables too; not the listeners' names, which are free.
fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut table = String::new();
    for (line, content) in text.lines().enumerate() {
        if let Some(header) = content.strip_prefix('[') {
            let (header, _) = header.split_once(']').unwrap();
            let (mut at, mut above) = (1, String::new());
            for text in header.split('.') {
                let table = above.clone();
                if above != "listeners." {
                    words.push(Word {
                        text,
                        table,
                        line,
                        at,
                    });
                }
                at += text.len() + 1;
                above += &format!("{text}.");
            }
            table = above;
        } else if let Some((key, _)) = content
            .split_once(" = ")
            .filter(|_| !content.starts_with('#'))
        {
            words.push(Word {
                text: key.trim(),
                table: table.clone(),
                line,
                at: 0,
            });
        }
    }
    words
}

/// Keys that are not there where nobody sets them.
const WITHOUT_DEFAULT: [&str; 4] = [
    "listeners.ack.resume_time",
    "listeners.shell.sandbox.isolation",
    "telemetry.otlp_endpoint",
    "telemetry.otlp_protocol",
];

#[test]
fn what_is_commented_out_is_the_default() {
    let all = load(uncommented()).unwrap();
    assert_eq!(unlike_the_default(&all), WITHOUT_DEFAULT);
}

#[test]
fn any_line_may_be_uncommented_by_itself() {
    let mut uncommented = 0;
    for (index, line) in SHIPPED.lines().enumerate() {
        let Some(setting) = commented(line) else {
            continue;
        };
        let mut lines: Vec<_> = SHIPPED.lines().collect();
        lines[index] = setting;
        let settings = load(lines.join("\n")).unwrap_or_else(|fault| panic!("{line}: {fault}"));
        let other = unlike_the_default(&settings);
        assert!(
            other.iter().all(|key| WITHOUT_DEFAULT.contains(&&**key)),
            "{line}: {other:?}"
        );
        uncommented += 1;
    }
    assert!(uncommented >= 40, "{uncommented}");
}

#[test]
fn every_key_that_there_is_stands_in_the_file() {
    let mut settings = Settings {
        listeners: default_listeners(),
        ..Settings::default()
    };
    settings.telemetry.otlp_endpoint = Some("http://127.0.0.1:4317".to_owned());
    settings.telemetry.otlp_protocol = Some(crate::telemetry::Protocol::Grpc);
    let protocol = |listener: &str| {
        let found = settings
            .listeners
            .iter()
            .find(|(name, _)| name.as_str() == listener);
        found.unwrap().1.protocol.word()
    };
    // What a listener has, its protocol has, whatever the listener is called.
    let kind = |key: &str| match key.split('.').collect::<Vec<_>>()[..] {
        ["listeners", name, ref field @ ..] => format!("{}: {}", protocol(name), field.join(".")),
        _ => key.to_owned(),
    };
    let text = uncommented();
    let keys = words(&text).into_iter().map(|word| word.table + word.text);
    let said: BTreeSet<_> = keys.map(|key| kind(&key)).collect();
    let common = |key: &str| {
        let field = key.split_once(": ").map_or(key, |(_, field)| field);
        said.contains(&format!("ack: {field}")) && !field.starts_with("framing")
    };
    let values = Values::of(&to_value(&settings.resolved()));
    let missing: Vec<_> = values
        .iter()
        .map(|(key, _)| kind(key))
        .filter(|key| !said.contains(key) && !common(key))
        .collect();
    assert_eq!(missing, [""; 0]);
    assert!(values.iter().count() > 100);
}

/// Every word that one slip makes of another: a character too few, another, one too many, or two in the wrong order.
fn slips(word: &str, letters: &[char]) -> BTreeSet<String> {
    let chars: Vec<char> = word.chars().collect();
    let mut slips = BTreeSet::new();
    for at in 0..=chars.len() {
        let (before, rest) = chars.split_at(at);
        let mut add = |after: &[char]| slips.insert(before.iter().chain(after).collect::<String>());
        for letter in letters {
            add(&[&[*letter], rest].concat());
            if let [_, rest @ ..] = rest {
                add(&[&[*letter], rest].concat());
            }
        }
        if let [first, rest @ ..] = rest {
            add(rest);
            if let [second, rest @ ..] = rest {
                add(&[&[*second, *first], rest].concat());
            }
        }
    }
    slips.remove(word);
    slips.remove("");
    slips
}

/// Whether the file with this word in the place of another is refused for it, there, and told what was meant.
fn is_told(lines: &[&str], word: &Word<'_>, slip: &str) -> Result<(), String> {
    let mut lines = lines.to_vec();
    let line = lines[word.line];
    let changed = format!(
        "{}{slip}{}",
        &line[..word.at],
        &line[word.at + word.text.len()..]
    );
    lines[word.line] = &changed;
    let problems = match load(lines.join("\n")) {
        Ok(_) => return Err(format!("`{changed}` is taken")),
        Err(problems) => problems,
    };
    let told = problems.iter().any(|problem| {
        let place = problem
            .origin
            .as_ref()
            .map(|origin| (&*origin.source, origin.line, origin.column));
        let line = u32::try_from(word.line + 1).ok();
        let column = u32::try_from(word.at + 1).ok();
        problem.reason == Reason::UnknownKey
            && problem.key == format!("{}{slip}", word.table)
            && place == Some(("document", line, column))
            && problem.suggestion.as_deref() == Some(word.text)
    });
    if told {
        return Ok(());
    }
    Err(format!("`{changed}`, line {}:\n{problems}", word.line + 1))
}

#[test]
fn one_slip_in_any_key_is_told_where_it_is_and_what_was_meant() {
    let text = uncommented();
    let lines: Vec<_> = text.lines().collect();
    let words = words(&text);
    let soak = std::env::var_os("SWITCHBOARD_SOAK").is_some();
    let letters: Vec<char> = if soak {
        ('a'..='z').collect()
    } else {
        vec!['e']
    };
    let all: Vec<_> = words
        .iter()
        .flat_map(|word| {
            slips(word.text, &letters)
                .into_iter()
                .map(move |slip| (word, slip))
        })
        .collect();
    let (next, keys) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some((word, slip)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            // Another key is none the less a key.
            let is_key = words
                .iter()
                .any(|w| w.text == *slip && w.table == word.table);
            if is_key {
                keys.fetch_add(1, Ordering::Relaxed);
            } else if let Err(fault) = is_told(&lines, word, slip) {
                panic!("{fault}");
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let count = all.len();
    println!(
        "{count} slips of {} keys; {keys:?} of them are keys",
        words.len()
    );
    assert!(count > 2_000, "{count}");
}
