//! Durations as people write them: `"30s"`, `"100ms"`, `"1m 30s"`. For `#[serde(with = "duration")]`.
//!
//! A bare number is refused: nobody can see in a file whether 30 means seconds or milliseconds.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

/// Writes a duration in its shortest form.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*value))
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
        for (text, millis) in [("30s", 30_000), ("100ms", 100), ("1m 30s", 90_000)] {
            let json = format!(r#"{{"one":"{text}","other":"{text}"}}"#);
            let waits: Waits = serde_json::from_str(&json).unwrap();
            assert_eq!(waits.one, Duration::from_millis(millis));
            assert_eq!(waits.other, Some(waits.one));
            assert_eq!(serde_json::to_string(&waits).unwrap(), json);
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
