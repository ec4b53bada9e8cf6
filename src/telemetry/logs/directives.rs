//! What is logged: filter directives, checked before they are obeyed.

use tracing_subscriber::EnvFilter;

/// Bytes of directives: each event that is new is held against all of them.
const MAX_DIRECTIVES: usize = 4 << 10;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A word alone that is no level, or a target without one, would be taken for a target all of which is logged, and
/// nothing else at all.
fn misspelt(directives: &str) -> Option<&str> {
    let is_word = |part: &&str| {
        part.chars()
            .all(|c| c.is_alphanumeric() || "_-:".contains(c))
    };
    let is_level = |part: &&str| {
        let level = LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level));
        level || matches!(*part, "" | "0" | "1" | "2" | "3" | "4" | "5")
    };
    let mut parts = directives.split(',').map(str::trim);
    let is_bare = |part: &&str| part.ends_with('=') || (is_word(part) && !is_level(part));
    let bare = parts.find(is_bare);
    bare.map(|part| part.trim_end_matches('='))
}

/// The directives, with the OpenTelemetry crates silenced: they log two lines for every failed export, for as long as
/// the collector is away. The loss counter and one line for each outage say the same. Whoever names them gets them.
/// Values of fields are what they are and no patterns: a short one of those could take minutes and gigabytes to read.
pub(in crate::telemetry) fn filter(directives: &str) -> Result<EnvFilter, String> {
    if directives.len() > MAX_DIRECTIVES {
        return Err(format!("it is longer than {MAX_DIRECTIVES} bytes"));
    }
    if let Some(word) = misspelt(directives) {
        let levels = LEVELS.join(", ");
        return Err(format!(
            "`{word}` is no level ({levels}); of a target say how much, such as `{word}=debug`"
        ));
    }
    EnvFilter::builder()
        .with_regex(false)
        .parse(format!("opentelemetry=off,{directives}"))
        .map_err(|error| format!("{directives:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_word_that_is_no_level_is_not_taken_for_a_target() {
        for good in [
            "info",
            "OFF",
            "warn,switchboard::net=debug",
            "error,2",
            "info,[call{method=a}]=debug",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for (bad, word) in [
            ("debugg", "debugg"),
            ("info,switchboard::net", "switchboard::net"),
            ("switchboard::net=,info", "switchboard::net"),
        ] {
            let told = filter(bad).unwrap_err();
            assert!(told.contains(&format!("`{word}` is no level")), "{told}");
        }
        assert!(filter("info,switchboard=loud").is_err());
    }

    #[test]
    fn directives_are_read_at_once_whatever_they_say() {
        let pattern = "(0|1)".repeat(40);
        let before = Instant::now();
        filter(&format!("info,t[s{{f=(0|1)*1{pattern}}}]=debug")).unwrap();
        filter(&"t=debug,".repeat(512)).unwrap();
        let told = filter(&"t=debug,".repeat(513)).unwrap_err();
        assert!(told.contains("4096"), "{told}");
        assert!(before.elapsed() < Duration::from_secs(5));
    }
}
