//! Durations as people write them: `"30s"`, `"100ms"`, `"1m 30s"`. For `#[serde(with = "duration")]`.
//!
//! A bare number is refused: nobody can see in a file whether 30 means seconds or milliseconds. None is written in months
//! or years, whose lengths nobody knows either.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

/// The units of whole seconds, and those of what is left, in nanoseconds; largest first.
const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
const FRACTIONS: [(u64, &str); 3] = [(1_000_000, "ms"), (1_000, "us"), (1, "ns")];

/// Writes a duration in the largest unit that divides it: `"90d"`, `"36h"`, `"90s"`; a part of a second stands behind
/// the whole ones, as in `"1s 500ms"`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let whole = in_largest(value.as_secs(), &UNITS);
    let part = in_largest(value.subsec_nanos().into(), &FRACTIONS);
    match (whole, part) {
        (Some(whole), Some(part)) => serializer.collect_str(&format_args!("{whole} {part}")),
        (None, None) => serializer.serialize_str("0s"),
        (whole, part) => serializer.serialize_str(&whole.or(part).unwrap_or_default()),
    }
}

/// A number of the smallest unit in the largest that divides it; `None` of nothing.
fn in_largest(number: u64, units: &[(u64, &str)]) -> Option<String> {
    let fits = |(unit, _): &&(u64, &str)| number != 0 && number.is_multiple_of(*unit);
    let (unit, name) = units.iter().find(fits)?;
    Some(format!("{}{name}", number / unit))
}

/// Reads a duration.
///
/// # Errors
/// When the value is no text, has no unit or an unknown one, or is too large.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(Written)
}

struct Written;

impl Visitor<'_> for Written {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"30s\" or \"1m 30s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        match humantime::parse_duration(text) {
            Ok(duration) => Ok(duration),
            Err(_) if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
                Err(unitless(text))
            }
            Err(error) => Err(E::custom(format_args!(
                "{text:?} is no duration such as \"30s\" or \"1m 30s\": {error}"
            ))),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
        Err(unitless(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Duration, E> {
        Err(unitless(number))
    }
}

fn unitless<E: Error>(number: impl fmt::Display) -> E {
    E::custom(format_args!("a duration needs a unit, as in \"{number}s\""))
}

/// The same for a duration that may be absent.
pub mod option {
    use std::time::Duration;

    use serde::de::{Deserialize, Deserializer};
    use serde::ser::Serializer;

    /// Writes a duration, or nothing.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a duration; pair it with `#[serde(default)]`.
    ///
    /// # Errors
    /// Those of [`super::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        struct Present(Duration);
        impl<'de> Deserialize<'de> for Present {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                super::deserialize(deserializer).map(Self)
            }
        }
        let present = Option::<Present>::deserialize(deserializer)?;
        Ok(present.map(|Present(duration)| duration))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Waits {
        #[serde(with = "super")]
        one: Duration,
        #[serde(with = "super::option", default)]
        other: Option<Duration>,
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (text, millis) in [
            ("0s", 0),
            ("100ms", 100),
            ("1s 500ms", 1_500),
            ("30s", 30_000),
            ("90s", 90_000),
            ("5m", 300_000),
            ("36h", 129_600_000),
            ("90d", 7_776_000_000),
            ("730d", 63_072_000_000),
        ] {
            let json = format!(r#"{{"one":"{text}","other":"{text}"}}"#);
            let waits: Waits = serde_json::from_str(&json).unwrap();
            assert_eq!(waits.one, Duration::from_millis(millis));
            assert_eq!(waits.other, Some(waits.one));
            assert_eq!(serde_json::to_string(&waits).unwrap(), json);
        }
    }

    #[test]
    fn several_units_are_read_as_their_sum() {
        let read = |text| serde_json::from_str::<Waits>(&format!(r#"{{"one":"{text}"}}"#));
        for (text, seconds) in [("1m 30s", 90), ("1d12h", 129_600), ("1h 0m 1s", 3_601)] {
            assert_eq!(read(text).unwrap().one, Duration::from_secs(seconds));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_duration_is_read_back_as_it_was(
            (number, unit) in (0..=u32::MAX, prop::sample::select(vec![1, 60, 3_600, 86_400])),
            nanos in prop_oneof![Just(0), 0..1_000_000_000_u32],
            any_second in any::<u64>(),
        ) {
            for seconds in [u64::from(number) * unit, any_second] {
                let (one, other) = (Duration::new(seconds, nanos), Some(Duration::new(0, nanos)));
                let waits = Waits { one, other };
                let json = serde_json::to_string(&waits).unwrap();
                prop_assert!(!json.contains("month") && !json.contains("year"), "{}", json);
                prop_assert_eq!(serde_json::from_str::<Waits>(&json).unwrap(), waits, "{}", json);
            }
        }
    }

    #[test]
    fn absence_is_none() {
        let waits: Waits = serde_json::from_str(r#"{"one":"0s"}"#).unwrap();
        assert_eq!(waits, Waits::default());
    }

    #[test]
    fn a_number_needs_its_unit() {
        for number in ["30", "\"30\"", "-1"] {
            let json = format!(r#"{{"one":{number}}}"#);
            let error = serde_json::from_str::<Waits>(&json).unwrap_err();
            assert!(error.to_string().contains("needs a unit"), "{error}");
        }
        for text in ["", "soon", "5 parsecs", "99999999999999999999s"] {
            let json = format!(r#"{{"one":"{text}"}}"#);
            let error = serde_json::from_str::<Waits>(&json).unwrap_err();
            assert!(error.to_string().contains("is no duration"), "{error}");
        }
    }
}
