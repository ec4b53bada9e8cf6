//! A slip of one character in a key of the default file, as whoever made it is told of it. That none at all goes unseen
//! is held where the file is read; here are some, through the program.

use serde_json::Value;

use crate::support::run;

/// The default file, with the settings in it that are commented out in force.
fn default_file() -> String {
    let printed = run(&[], &["config", "default"], &[]);
    assert_eq!((printed.code, &*printed.stderr), (0, ""));
    let setting = |line: &str| {
        let setting = line.strip_prefix("# ")?;
        let (key, _) = setting.split_once(" = ")?;
        (!key.contains(' ')).then(|| setting.to_owned())
    };
    let lines = printed.stdout.lines();
    lines
        .map(|line| setting(line).unwrap_or_else(|| line.to_owned()) + "\n")
        .collect()
}

/// One character less, another, one more, or two in the wrong order; at a place of the word that goes by `turn`.
fn slip(word: &str, turn: usize) -> String {
    let mut chars: Vec<char> = word.chars().collect();
    let at = turn % (chars.len() - 1);
    match turn % 4 {
        0 => _ = chars.remove(at),
        1 => chars[at] = 'x',
        2 => chars.insert(at, 'x'),
        _ if chars[at] == chars[at + 1] => _ = chars.remove(at),
        _ => chars.swap(at, at + 1),
    }
    chars.into_iter().collect()
}

/// The program's answer to the file with one word of one line changed.
fn check(text: &str, line: usize, word: &str, slip: &str) -> Value {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[line] = lines[line].replacen(word, slip, 1);
    let file = [("slip.toml", &*lines.join("\n"))];
    let ended = run(
        &file,
        &["check", "--config", "slip.toml", "-o", "json"],
        &[],
    );
    assert_eq!((ended.code, &*ended.stderr), (78, ""), "{}", lines[line]);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn a_slip_in_a_key_is_told_with_file_line_and_what_was_meant() {
    let text = default_file();
    let whole = [("all.toml", &*text)];
    let valid = run(&whole, &["check", "--config", "all.toml"], &[]);
    assert_eq!(valid.code, 0, "{}", valid.stderr);
    // The first word of a line, and of a table's name the last but that of a listener, which is free.
    let words: Vec<_> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.starts_with(['#', ' ']) && !line.is_empty())
        .map(|(index, line)| match line.strip_prefix('[') {
            Some(header) => {
                let parts: Vec<_> = header.split(']').next().unwrap().split('.').collect();
                (index, parts[if parts.len() == 3 { 2 } else { 0 }])
            }
            None => (index, line.split(" = ").next().unwrap()),
        })
        .collect();
    assert!(words.len() > 70, "{}", words.len());
    for (turn, (line, word)) in words.into_iter().step_by(3).enumerate() {
        let slip = slip(word, turn);
        let told = check(&text, line, word, &slip);
        assert_eq!(told["valid"], false);
        let problems = told["problems"].as_array().unwrap();
        let found = problems.iter().any(|problem| {
            let key = problem["key"].as_str().unwrap_or_default();
            problem["reason"] == "UNKNOWN_KEY"
                && key.rsplit('.').next() == Some(&slip)
                && problem["source"] == "slip.toml"
                && problem["line"] == line + 1
                && problem["suggestion"] == word
        });
        assert!(found, "`{slip}` for `{word}`, line {}: {told:#}", line + 1);
    }
}
