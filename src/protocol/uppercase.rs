//! Answers each datagram with its text in upper case.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Fault;
use crate::config::Scope;
use crate::net::{Batch, DatagramHandler, Door, Handler, MAX_DATAGRAM};
use crate::telemetry::Trace;

/// What an uppercase listener is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What happens to a datagram that is not UTF-8.
    pub invalid: Invalid,
    /// Longest answer as a multiple of the question; 0 means 3, the most that the mapping makes.
    pub max_amplification: f64,
}

/// What happens to a datagram that is not UTF-8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Invalid {
    /// It is counted and not answered.
    #[default]
    Drop,
    /// What cannot be read becomes U+FFFD.
    Replace,
}

/// The mapping makes no text longer than this: U+0390 and U+03B0 grow from 2 to 6 bytes, and a
/// byte that is replaced from 1 to 3.
const MAPPING_AMPLIFICATION: f64 = 3.0;

impl Settings {
    /// When a change of each key takes effect. There are no sessions.
    pub const SCOPES: &[(&str, Scope)] =
        &[("invalid", Scope::Live), ("max_amplification", Scope::Live)];

    /// The same with every default written out.
    pub(super) fn resolved(&self) -> Self {
        let mut resolved = self.clone();
        if resolved.max_amplification == 0.0 {
            resolved.max_amplification = MAPPING_AMPLIFICATION;
        }
        resolved
    }

    /// What cannot be obeyed.
    pub(super) fn check(&self) -> Vec<Fault> {
        if self.max_amplification.is_finite() && self.max_amplification >= 0.0 {
            return Vec::new();
        }
        vec![(
            "max_amplification",
            format!(
                "{} is not a factor; 0 (for 3) or more is",
                self.max_amplification
            ),
        )]
    }
}

/// Makes it ready to run.
pub(super) fn handler(settings: &Settings) -> Handler {
    Handler::Datagram(Arc::new(Uppercase::new(settings)))
}

/// Answers questions in upper case.
#[derive(Debug)]
pub struct Uppercase {
    invalid: Invalid,
    amplification: f64,
}

impl DatagramHandler for Uppercase {
    fn batch(&self, door: &Arc<Door>, batch: &mut Batch<'_>) {
        for datagram in batch.datagrams() {
            if !door.passes(batch, &datagram) {
                continue;
            }
            let span = door.telemetry.message(&door.labels, &Trace::default());
            batch
                .answers
                .push(&datagram, |out| match self.answer(datagram.data, out) {
                    Ok(()) => true,
                    Err(reason) => {
                        door.counters.refuse(reason);
                        if let Some(span) = span {
                            span.refused(reason);
                        }
                        false
                    }
                });
        }
    }
}

impl Uppercase {
    /// As the settings say.
    pub fn new(settings: &Settings) -> Self {
        Self {
            invalid: settings.invalid,
            amplification: settings.resolved().max_amplification,
        }
    }

    /// Appends the answer to `out`.
    ///
    /// # Errors
    /// There is none, and why, as drops are counted; what was appended is then void.
    pub fn answer(&self, question: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        let start = out.len();
        if !upper_ascii(question, out) {
            match (std::str::from_utf8(question), self.invalid) {
                (Ok(text), _) => upper(text, out),
                (Err(_), Invalid::Drop) => return Err("invalid_utf8"),
                (Err(_), Invalid::Replace) => upper(&String::from_utf8_lossy(question), out),
            }
        }
        let length = out.len() - start;
        if length > MAX_DATAGRAM {
            return Err("answer_too_large");
        }
        if length as f64 > question.len() as f64 * self.amplification {
            return Err("amplification");
        }
        Ok(())
    }
}

/// Appends `text` in upper case if all of it is ASCII, and nothing otherwise. One pass that looks and maps at once, a
/// vector at a time.
fn upper_ascii(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.extend_from_slice(text);
    let mut all = 0;
    for byte in &mut out[start..] {
        all |= *byte;
        *byte = byte.to_ascii_uppercase();
    }
    if !all.is_ascii() {
        out.truncate(start);
    }
    all.is_ascii()
}

/// Appends `text` in upper case, by the full mapping of Unicode.
fn upper(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c.to_ascii_uppercase() as u8);
        } else {
            for upper in c.to_uppercase() {
                out.extend_from_slice(upper.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(settings: &Uppercase, question: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut out = b"before".to_vec();
        settings.answer(question, &mut out)?;
        Ok(out.split_off(6))
    }

    fn uppercase(invalid: Invalid, amplification: f64) -> Uppercase {
        Uppercase {
            invalid,
            amplification,
        }
    }

    #[test]
    fn the_full_mapping_is_used() {
        let u = uppercase(Invalid::Drop, 3.0);
        for (from, to) in [
            ("abc 1", "ABC 1"),
            ("straße", "STRASSE"),
            ("ǆ", "Ǆ"),
            ("ŉ", "ʼN"),
            ("", ""),
        ] {
            assert_eq!(answer(&u, from.as_bytes()).unwrap(), to.as_bytes());
        }
    }

    #[test]
    fn every_code_point_answers_as_the_standard_library_has_it() {
        let u = uppercase(Invalid::Drop, 3.0);
        for c in '\0'..=char::MAX {
            let text = format!("a{c}");
            assert_eq!(
                answer(&u, text.as_bytes()).unwrap(),
                text.to_uppercase().as_bytes()
            );
        }
    }

    #[test]
    fn each_drop_has_its_reason() {
        let u = uppercase(Invalid::Drop, 1.0);
        assert_eq!(answer(&u, b"\xff"), Err("invalid_utf8"));
        assert_eq!(answer(&u, "ΐ".as_bytes()), Err("amplification"));
        let long = "ΐ".repeat(MAX_DATAGRAM / 2);
        assert_eq!(
            answer(&uppercase(Invalid::Drop, 3.0), long.as_bytes()),
            Err("answer_too_large")
        );
        assert_eq!(
            answer(&uppercase(Invalid::Replace, 3.0), b"a\xff").unwrap(),
            "A\u{fffd}".as_bytes()
        );
    }
}
