//! Sizes in bytes as people write them: `"64KiB"`, `"1.5MB"`, or the plain number of bytes. For
//! `#[serde(with = "size")]` on `u64` and the narrower unsigned integers.

use std::fmt;
use std::marker::PhantomData;

use bytesize::ByteSize;
use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

/// The units that a size is written in, largest first.
const UNITS: [(u64, &str); 4] = [
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
];

/// Writes a size in the largest unit that divides it, else as the plain number.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<T: Copy + Into<u64>, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let bytes: u64 = (*value).into();
    let whole = |(unit, _): &&(u64, &str)| bytes != 0 && bytes.is_multiple_of(*unit);
    match UNITS.iter().find(whole) {
        Some((unit, name)) => serializer.collect_str(&format_args!("{}{name}", bytes / unit)),
        None => serializer.serialize_u64(bytes),
    }
}

/// Reads a size.
///
/// # Errors
/// When the value is neither text nor a whole number, is negative, has an unknown unit, or does not fit `T`.
pub fn deserialize<'de, T: TryFrom<u64>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(Written(PhantomData))
}

struct Written<T>(PhantomData<T>);

impl<T: TryFrom<u64>> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"64KiB\" or a number of bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        match text.parse::<ByteSize>() {
            // The parser saturates: its greatest value stands for everything beyond.
            Ok(ByteSize(u64::MAX)) => Err(E::custom(format_args!("{text:?} is too large"))),
            Ok(ByteSize(bytes)) => self.visit_u64(bytes),
            Err(_) => Err(E::custom(format_args!(
                "{text:?} is no size such as \"64KiB\" or a number of bytes"
            ))),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(bytes) => self.visit_u64(bytes),
            Err(_) => Err(E::custom("a size is not negative")),
        }
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<T, E> {
        T::try_from(bytes).map_err(|_| E::custom(format_args!("{bytes} bytes are too many")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sizes {
        #[serde(with = "super")]
        wide: u64,
        #[serde(with = "super")]
        narrow: u32,
    }

    fn read(size: &str) -> Result<Sizes, serde_json::Error> {
        serde_json::from_str(&format!(r#"{{"wide":{size},"narrow":{size}}}"#))
    }

    #[test]
    fn units_and_plain_numbers() {
        for (size, bytes, written) in [
            ("\"64KiB\"", 65_536, "\"64KiB\""),
            ("\"1 MiB\"", 1 << 20, "\"1MiB\""),
            ("\"1.5KiB\"", 1_536, "1536"),
            ("\"1kB\"", 1_000, "1000"),
            ("\"2048\"", 2_048, "\"2KiB\""),
            ("65507", 65_507, "65507"),
            ("0", 0, "0"),
        ] {
            let sizes = read(size).unwrap();
            assert_eq!((sizes.wide, sizes.narrow), (u64::from(bytes), bytes));
            let json = format!(r#"{{"wide":{written},"narrow":{written}}}"#);
            assert_eq!(serde_json::to_string(&sizes).unwrap(), json);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for size in [
            "-1",
            "2.5",
            "true",
            "\"\"",
            "\"64 parsecs\"",
            "\"4GiB\"",
            "\"99999999999GiB\"",
        ] {
            assert!(read(size).is_err(), "{size}");
        }
    }
}
