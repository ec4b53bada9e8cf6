//! The `OTEL_*` variables, read one by one as their specification has it: an empty one is unset, and one that cannot be
//! obeyed is told of and otherwise taken for unset, since no variable of a shared environment may keep a service from
//! starting.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>

use std::fmt::Display;
use std::time::Duration;

/// The variables, and what of them cannot be obeyed. No value is told that may be a secret.
pub(super) struct Environment<'a> {
    read: &'a dyn Fn(&str) -> Option<String>,
    doubts: Vec<String>,
}

impl<'a> Environment<'a> {
    pub(super) fn new(read: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            read,
            doubts: Vec::new(),
        }
    }

    /// What could not be obeyed, each with its variable's name.
    pub(super) fn doubts(self) -> Vec<String> {
        self.doubts
    }

    pub(super) fn doubt(&mut self, name: &str, problem: impl Display) {
        let doubt = format!("{name}: {problem}");
        // What both signals read is told once.
        if !self.doubts.contains(&doubt) {
            self.doubts.push(doubt);
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text = (self.read)(name)?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// The first of these that is set, and its name.
    pub(super) fn first(&self, names: &[String]) -> Option<(String, String)> {
        names
            .iter()
            .find_map(|name| Some((name.clone(), self.text(name)?)))
    }

    /// Only `true` is true, in any case.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        match self.text(name).map(|text| text.to_ascii_lowercase()) {
            None => false,
            Some(text) if text == "true" => true,
            Some(text) => {
                if text != "false" {
                    self.doubt(
                        name,
                        format!("{text:?} is neither true nor false; it counts as false"),
                    );
                }
                false
            }
        }
    }

    /// A whole number of at least 1.
    pub(super) fn number(&mut self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| *number > 0);
        if number.is_none() {
            self.doubt(
                name,
                format!("{text:?} is not a whole number of at least 1; it is ignored"),
            );
        }
        number
    }

    /// So many milliseconds.
    pub(super) fn millis(&mut self, name: &str) -> Option<Duration> {
        self.number(name).map(Duration::from_millis)
    }

    /// The value of the first of these that is set, when it is one of `known`.
    pub(super) fn word<T: Copy>(&mut self, names: &[String], known: &[(&str, T)]) -> Option<T> {
        let (name, text) = self.first(names)?;
        let found = known.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<_> = known.iter().map(|(word, _)| *word).collect();
            let words = words.join(", ");
            self.doubt(
                &name,
                format!("{text:?} is ignored; what is known is {words}"),
            );
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// `key=value,key=value`, percent-encoded. One that is not well formed voids them all.
    pub(super) fn pairs(&mut self, names: &[String]) -> Vec<(String, String)> {
        let Some((name, text)) = self.first(names) else {
            return Vec::new();
        };
        let items = text.split(',').filter(|item| !item.trim().is_empty());
        let pairs: Option<Vec<_>> = items.map(pair).collect();
        if pairs.is_none() {
            self.doubt(&name, "it is not of the form key=value,key=value with all else percent-encoded; it is ignored");
        }
        pairs.unwrap_or_default()
    }
}

fn pair(item: &str) -> Option<(String, String)> {
    let (key, value) = item.split_once('=')?;
    let (key, value) = (decoded(key.trim())?, decoded(value.trim())?);
    (!key.is_empty()).then_some((key, value))
}

/// `a b` of `a%20b`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let digits = part.get(..2)?;
        // The parser would take a sign.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(value: &str, ask: impl FnOnce(&mut Environment<'_>) -> T) -> (T, Vec<String>) {
        let read = |name: &str| (name == "V").then(|| value.to_owned());
        let mut environment = Environment::new(&read);
        let answer = ask(&mut environment);
        (answer, environment.doubts())
    }

    #[test]
    fn pairs_are_decoded() {
        let names = ["UNSET".to_owned(), "V".to_owned()];
        let (pairs, doubts) = with(" a=b, c.d = e%20f%2C ,k=a=b,", |e| e.pairs(&names));
        let expected = [("a", "b"), ("c.d", "e f,"), ("k", "a=b")];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(doubts.is_empty());
        for bad in [
            "hush", "=hush", "a=b,hush", "a=%2", "a=%+1", "a=%ff", "a=%é",
        ] {
            let (pairs, doubts) = with(bad, |e| e.pairs(&names));
            assert!(pairs.is_empty());
            assert!(
                doubts[0].starts_with("V: ") && !doubts[0].contains("hush"),
                "{doubts:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_obeyed_is_told_and_unset() {
        for bad in ["0", "-1", "soon", "1.5"] {
            let (number, doubts) = with(bad, |e| e.number("V"));
            assert_eq!((number, doubts.len()), (None, 1), "{bad}");
        }
        assert_eq!(
            with(" 7 ", |e| e.millis("V")),
            (Some(Duration::from_millis(7)), vec![])
        );
        assert_eq!(with("", |e| e.number("V")), (None, vec![]));
        assert_eq!(with("TRUE", |e| e.flag("V")), (true, vec![]));
        let (flag, doubts) = with("yes", |e| e.flag("V"));
        assert!(!flag && doubts.len() == 1);
        let names = ["V".to_owned()];
        let (word, doubts) = with("b3", |e| e.word(&names, &[("none", 1), ("otlp", 2)]));
        assert_eq!(word, None);
        assert_eq!(
            doubts,
            ["V: \"b3\" is ignored; what is known is none, otlp"]
        );
    }
}
