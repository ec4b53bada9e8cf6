//! JSON in which every key stands once: its parsers let the last of two win, so that a block, or a
//! setting that keeps something safe, could be overruled unseen.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The first key that stands twice in one object, with its line and column; any other mistake is
/// left to the parser that reads the values.
pub(super) fn repeated(text: &str) -> Option<(String, usize, usize)> {
    let error = serde_json::from_str::<Unique>(text).err()?;
    let told = error.to_string();
    let key = told.strip_prefix(MARK)?.rsplit_once(" at line ")?.0;
    Some((key.to_owned(), error.line(), error.column()))
}

/// Tells our own error from the parser's.
const MARK: &str = "the key stands twice: ";

/// Any value, read and dropped.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(Error::custom(format_args!("{MARK}{key}")));
            }
            seen.insert(key);
            map.next_value::<Self>()?;
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_found_at_any_depth() {
        let text = "{\"a\": [1, {\"b\": null}],\n \"grpc\": {\"x\": 1.5, \"x\": true}}";
        let (key, line, _) = repeated(text).unwrap();
        assert_eq!((&*key, line), ("x", 2));
        assert_eq!(repeated("{\"a\": {\"x\": \"\"}, \"b\": {\"x\": -1}}"), None);
        assert_eq!(repeated("{\"a\": }"), None);
    }
}
