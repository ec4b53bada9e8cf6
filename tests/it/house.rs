//! The rules of the house, held against its sources: the floors, the lengths, and who alone may do what.
//!
//! A lexer of two states is enough to tell code from comments and texts; what it cannot tell, the compiler does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a file, up to its tests: about 300.
const LONGEST_FILE: usize = 320;

/// Lines of a function, from its name to its closing brace: about 50.
const LONGEST_FUNCTION: usize = 60;

/// What stands before whatever only tests see.
const ONLY_IN_TESTS: &str = "#[cfg(test)]";

/// Which module stands on which floor; a module uses lower ones only.
const FLOORS: [(&str, u8); 13] = [
    ("telemetry", 0),
    ("cage", 0),
    ("config", 0),
    ("store", 0),
    ("net", 1),
    ("protocol", 2),
    ("supervisor", 3),
    ("grpc", 4),
    ("http", 4),
    ("settings", 5),
    ("configuration", 6),
    ("app", 7),
    ("cli", 8),
];

/// The whole top level, but for names with a dot in front.
const TOP_LEVEL: [&str; 8] = [
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "build.rs",
    "deploy",
    "proto",
    "src",
    "tests",
];

/// Names that say nothing.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "helpers", "common", "manager", "misc"];

/// A file of `src/`.
struct Source {
    /// Below `src/`.
    path: String,
    /// As it stands, tests included.
    whole: String,
    /// With blanks for comments and tests.
    text: String,
    /// With blanks for the insides of texts too.
    code: String,
}

impl Source {
    /// `net` for `net/door.rs`, `app` for `app.rs`.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// How many `super` lead from the top of the file to the crate's root.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") {
            parts - 1
        } else {
            parts
        }
    }

    fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    /// `path:line` of every place in the code where `word` stands by itself.
    fn places(&self, word: &str) -> Vec<String> {
        let found = positions(&self.code, word);
        found
            .map(|at| format!("{}:{}: {word}", self.path, self.line(at)))
            .collect()
    }
}

/// Where `word` stands in `code`, not as the end of a longer name.
fn positions<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !word.starts_with(is_name) || !code[..at].ends_with(is_name))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every `.rs` below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The sources, without those that are tests from end to end.
fn sources() -> Vec<Source> {
    let top = root().join("src");
    let mut paths = Vec::new();
    files(&top, &mut paths);
    paths.sort();
    let sources = paths.into_iter().filter_map(|path| {
        let below = path
            .strip_prefix(&top)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let is_test = below.contains("/tests/") || below.ends_with("/tests.rs");
        (!is_test).then(|| {
            let whole = fs::read_to_string(&path).unwrap();
            let (mut text, mut code) = (blanked(&whole, false), blanked(&whole, true));
            while let Some(at) = code.find(ONLY_IN_TESTS) {
                let length = item(&code[at..]);
                for source in [&mut text, &mut code] {
                    let blank = blank(&source[at..at + length]);
                    source.replace_range(at..at + length, &blank);
                }
            }
            Source {
                path: below,
                whole,
                text,
                code,
            }
        })
    });
    sources.collect()
}

/// The length of an item and its attributes: up to the semicolon or the closing brace.
fn item(code: &str) -> usize {
    match code.find(['{', ';']) {
        Some(at) if code[at..].starts_with('{') => at + braced(&code[at..]),
        Some(at) => at + 1,
        None => code.len(),
    }
}

/// As many blanks, line by line.
fn blank(text: &str) -> String {
    let blanks = |line: &str| " ".repeat(line.len());
    text.split('\n').map(blanks).collect::<Vec<_>>().join("\n")
}

/// The same length, with comments turned into blanks, and the insides of texts too if asked. Lines stay lines.
fn blanked(whole: &str, texts: bool) -> String {
    let bytes = whole.as_bytes();
    let mut out = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (length, is_blank) = match rest {
            [b'/', b'/', ..] => (end(rest, b"\n"), true),
            [b'/', b'*', ..] => (comment(rest), true),
            [b'"', ..] => (quoted(rest), texts),
            [b'r', b'"' | b'#', ..] if !ends_a_name(&bytes[..at]) => match raw(rest) {
                Some(length) => (length, texts),
                None => (1, false),
            },
            [b'\'', ..] => (character(rest), texts),
            _ => (whole[at..].chars().next().map_or(1, char::len_utf8), false),
        };
        if is_blank {
            out.push_str(&blank(&whole[at..at + length]));
        } else {
            out.push_str(&whole[at..at + length]);
        }
        at += length;
    }
    out
}

fn ends_a_name(before: &[u8]) -> bool {
    // `br"…"` is a text too.
    before
        .last()
        .is_some_and(|b| (b.is_ascii_alphanumeric() && *b != b'b') || *b == b'_')
}

/// Up to and without what ends it.
fn end(rest: &[u8], mark: &[u8]) -> usize {
    let found = rest.windows(mark.len()).position(|window| window == mark);
    found.unwrap_or(rest.len())
}

fn comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
    let begins = 2 + hashes;
    if rest.get(begins - 1) != Some(&b'"') {
        return None;
    }
    let mark = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    Some(begins + end(&rest[begins..], &mark) + mark.len())
}

/// A character, or one byte of a lifetime.
fn character(rest: &[u8]) -> usize {
    match rest {
        [_, b'\\', _, ..] => 3 + end(&rest[3..], b"'") + 1,
        _ => {
            let text = String::from_utf8_lossy(&rest[1..rest.len().min(6)]);
            let first = text.chars().next().map_or(0, char::len_utf8);
            if rest.get(1 + first) == Some(&b'\'') {
                first + 2
            } else {
                1
            }
        }
    }
}

/// The number of bytes from the first brace to the one that closes it.
fn braced(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// The crate's modules that are named from `at`, which stands behind `crate::`.
fn named(code: &str, at: usize) -> Vec<String> {
    let rest = &code[at..];
    let name = |text: &str| -> String {
        let text = text.trim_start();
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    if !rest.starts_with('{') {
        return vec![name(rest)];
    }
    let inside = &rest[1..braced(rest) - 1];
    let (mut names, mut depth, mut begins) = (Vec::new(), 0, 0);
    for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(&inside[begins..at]));
                begins = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

#[test]
fn the_lexer_tells_code_from_the_rest() {
    let whole = "a // {\n/* { /* { */ } */ b('{', '\\'', 'x) r#\"{\"{\"# \"\\\"{\" 'é' br\"{\" c";
    let code = blanked(whole, true);
    assert_eq!(code.len(), whole.len());
    let words: Vec<_> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "b(", ",", ",", "x)", "b", "c"]);
    assert!(blanked(whole, false).contains("\\\"{"));
    assert_eq!(named("crate::{net, grpc::{a, b}}", 7), ["net", "grpc"]);
    assert_eq!(named("crate::net::Door;", 7), ["net"]);
}

#[test]
fn a_module_uses_only_lower_floors() {
    let floor = |module: &str| FLOORS.iter().find(|(name, _)| *name == module).map(|f| f.1);
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        if matches!(module, "main" | "lib") {
            continue;
        }
        let Some(own) = floor(module) else {
            wrong.push(format!("{}: has no floor", source.path));
            continue;
        };
        for at in positions(&source.code, "crate::") {
            for used in named(&source.code, at + "crate::".len()) {
                let allowed = used == module || floor(&used).is_some_and(|floor| floor < own);
                if !allowed {
                    wrong.push(format!(
                        "{}:{}: crate::{used}",
                        source.path,
                        source.line(at)
                    ));
                }
            }
        }
        // The way to another module that does not say `crate`.
        let escape = "super::".repeat(source.depth());
        wrong.extend(source.places(&escape));
    }
    none("only lower floors, or the same folder", &wrong);
}

#[test]
fn every_module_says_what_it_owns() {
    let silent = sources()
        .into_iter()
        .filter(|s| !s.whole.starts_with("//! "));
    let silent: Vec<_> = silent.map(|s| s.path).collect();
    none("these do not begin with `//!`", &silent);
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        let lines = source.code.trim_end().lines().count();
        if lines > LONGEST_FILE {
            long.push(format!("{}: {lines} lines", source.path));
        }
    }
    none(&format!("more than {LONGEST_FILE} lines"), &long);
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        for at in positions(&source.code, "fn ") {
            let rest = &source.code[at..];
            let name: String = rest[3..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            // Neither a type, `fn (…)`, nor a promise without a body.
            let body = rest
                .find(['{', ';'])
                .filter(|&at| rest[at..].starts_with('{'));
            let (false, Some(body)) = (name.is_empty(), body) else {
                continue;
            };
            let lines = rest[..body + braced(&rest[body..])].lines().count();
            if lines > LONGEST_FUNCTION {
                let line = source.line(at);
                long.push(format!("{}:{line}: {name}: {lines} lines", source.path));
            }
        }
    }
    none(&format!("more than {LONGEST_FUNCTION} lines"), &long);
}

#[test]
fn only_what_speaks_to_the_kernel_is_unsafe() {
    // For the sockets, and for the processes of the cage.
    let speaks = |s: &Source| {
        ["net/kernel/", "cage/kernel/"]
            .iter()
            .any(|f| s.path.starts_with(f))
    };
    let others = sources().into_iter().filter(|s| !speaks(s));
    let wrong: Vec<_> = others.flat_map(|s| s.places("unsafe ")).collect();
    none("`unsafe` outside net/kernel/ and cage/kernel/", &wrong);
}

#[test]
fn generated_types_stay_at_the_mouth() {
    let others = sources()
        .into_iter()
        .filter(|s| !matches!(s.module(), "grpc" | "cli"));
    let wrong: Vec<_> = others.flat_map(|s| s.places("api::")).collect();
    none("generated types outside grpc/ and cli/", &wrong);
}

#[test]
fn nothing_is_unwrapped() {
    let words = [
        ".unwrap()",
        ".expect(",
        "panic!(",
        "todo!(",
        "unimplemented!(",
    ];
    let wrong: Vec<_> = sources()
        .iter()
        .flat_map(|source| words.iter().flat_map(|word| source.places(word)))
        .collect();
    none("a refusal is a value", &wrong);
}

#[test]
fn only_the_command_line_prints() {
    let words = ["println!(", "print!(", "eprintln!(", "eprint!(", "dbg!("];
    let others = sources().into_iter().filter(|s| s.module() != "cli");
    let wrong: Vec<_> = others
        .flat_map(|source| words.map(|word| source.places(word)).concat())
        .collect();
    none("printed outside cli/", &wrong);
}

/// A task is spawned through the tracker that waits for it; the composition waits for its own by their handles.
#[test]
fn no_task_is_spawned_that_nobody_waits_for() {
    let words = [
        "tokio::spawn",
        "task::spawn(",
        "Handle::current()",
        "thread::spawn(",
    ];
    let others = sources().into_iter().filter(|s| s.module() != "app");
    let wrong: Vec<_> = others
        .flat_map(|source| words.map(|word| source.places(word)).concat())
        .collect();
    none("spawned outside app/", &wrong);
}

#[test]
fn metrics_are_named_in_one_place() {
    let mut wrong = Vec::new();
    for source in sources().into_iter().filter(|s| s.module() != "telemetry") {
        for (at, quoted) in source.text.match_indices("\"switchboard.") {
            let rest = &source.text[at + quoted.len()..];
            // The package of the protos, and names of files, are no metrics.
            if !rest.starts_with("v1") && !rest.starts_with("toml\"") {
                wrong.push(format!("{}:{}", source.path, source.line(at)));
            }
        }
    }
    none("a metric's name outside telemetry/", &wrong);
}

#[test]
fn every_protocol_has_its_promises() {
    let mut without = Vec::new();
    for entry in fs::read_dir(root().join("src/protocol")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let test = root().join(format!("tests/it/{name}.rs"));
        let run = include_str!("main.rs").contains(&format!("mod {name};"));
        if name != "mod" && !(test.exists() && run) {
            without.push(format!(
                "{name}: no tests/it/{name}.rs, or no `mod {name};` in tests/it/main.rs"
            ));
        }
    }
    none("protocols without a test file", &without);
}

/// A file that no `mod` names is not even compiled.
#[test]
fn every_benchmark_is_run() {
    let mut paths = Vec::new();
    files(&root().join("tests/bench"), &mut paths);
    let main = fs::read_to_string(root().join("tests/bench/main.rs")).unwrap();
    let mut wrong = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        if name != "main" && !main.contains(&format!("mod {name};")) {
            wrong.push(format!("{name}: no `mod {name};` in tests/bench/main.rs"));
        }
        if !whole.starts_with("//! ") {
            wrong.push(format!("{name}: does not begin with `//!`"));
        }
    }
    none("benchmarks that nobody sees", &wrong);
}

#[test]
fn names_say_something() {
    let mut wrong = Vec::new();
    for source in sources() {
        let empty = |part: &str| EMPTY_NAMES.contains(&part.trim_end_matches(".rs"));
        if source.path.split('/').any(empty) {
            wrong.push(source.path.clone());
        }
        for kind in ["struct ", "enum ", "trait ", "mod "] {
            for at in positions(&source.code, kind) {
                let rest = source.code[at + kind.len()..].chars();
                let name: String = rest
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if name.ends_with("Manager") || empty(&name) {
                    wrong.push(format!("{}:{}: {name}", source.path, source.line(at)));
                }
            }
        }
    }
    none("names that say nothing", &wrong);
}

#[test]
fn the_top_level_holds_nothing_else() {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let listed = match listed {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
        // A copy without its history has nothing to be held against.
        _ => return,
    };
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let found: BTreeSet<String> = listed.lines().map(first).collect();
    let allowed = |name: &&String| name.starts_with('.') || TOP_LEVEL.contains(&name.as_str());
    let wrong: Vec<_> = found
        .iter()
        .filter(|name| !allowed(name))
        .cloned()
        .collect();
    none("not for the top level", &wrong);
}
