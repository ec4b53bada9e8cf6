//! serde over the tree: a value of a file is what it is, text of a variable is what its key wants.
//!
//! No coercion, since a configuration that means something else than it says is worse than one that is refused: `"81"`
//! is not 81, 2.7 is not 3, 1 is not true.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::access::Fields;
use super::error::Error;
use super::node::{Kind, Node};
use super::path::Segment;
use super::text;

/// A value to be read.
pub(super) struct Reader<'a>(pub(super) &'a Node);

impl Reader<'_> {
    /// Reads a number of any width; the visitor knows which it wants and refuses the rest.
    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Kind::Text(text) = &self.0.kind else {
            return self.deserialize_any(visitor);
        };
        match (text.trim().parse(), text.trim().parse()) {
            (Ok(whole), _) => integer(whole, visitor),
            (_, Ok(fraction)) => float(fraction, visitor),
            _ => Err(Error::invalid_type(Unexpected::Str(text), &visitor)),
        }
    }

    /// Reads a list of any length.
    fn list<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.kind {
            Kind::Text(text) => {
                let list = text::list(text, &self.0.origin)?;
                Reader(&list).deserialize_any(visitor)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    /// Hands the table to `read`, whether it is one or is text that holds one.
    fn table<'de, V, R>(self, visitor: V, read: R) -> Result<V::Value, Error>
    where
        V: Visitor<'de>,
        R: FnOnce(Fields<'_>, V) -> Result<V::Value, Error>,
    {
        match &self.0.kind {
            Kind::Table(table) => read(Fields::of(table), visitor),
            Kind::Text(text) => Reader(&text::table(text, &self.0.origin)?).table(visitor, read),
            // Not left to the visitor: a derived one would take a list for a table without its keys.
            _ => Err(Error::invalid_type(self.0.unexpected(), &visitor)),
        }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.number(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.kind {
            Kind::Null | Kind::Struck => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Integer(value) => integer(*value, visitor),
            Kind::Float(value) => float(*value, visitor),
            Kind::String(text) | Kind::Text(text) => visitor.visit_str(text),
            Kind::Date(_) => Err(Error::invalid_type(self.0.unexpected(), &visitor)),
            Kind::List(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Kind::Table(table) => Fields::of(table).deserialize_map(visitor),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.kind {
            Kind::Text(text) => match text.trim().parse() {
                Ok(value) => visitor.visit_bool(value),
                Err(_) => Err(Error::invalid_type(Unexpected::Str(text), &visitor)),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.kind {
            Kind::Null | Kind::Struck => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.table(visitor, |fields, visitor| fields.deserialize_map(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.table(visitor, |fields, visitor| {
            fields.deserialize_struct(name, known, visitor)
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.0.kind {
            Kind::String(word) | Kind::Text(word) => {
                visitor.visit_enum(StrDeserializer::<Error>::new(word))
            }
            _ => Err(Error::invalid_type(self.0.unexpected(), &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct identifier
    }
}

fn integer<'de, V: Visitor<'de>>(value: i128, visitor: V) -> Result<V::Value, Error> {
    match (i64::try_from(value), u64::try_from(value)) {
        (Ok(value), _) => visitor.visit_i64(value),
        (_, Ok(value)) => visitor.visit_u64(value),
        _ => visitor.visit_i128(value),
    }
}

/// No setting has a use for infinity, and comparisons with NaN are silently false.
fn float<'de, V: Visitor<'de>>(value: f64, visitor: V) -> Result<V::Value, Error> {
    if value.is_finite() {
        return visitor.visit_f64(value);
    }
    let found = Unexpected::Float(value);
    Err(Error::invalid_value(found, &"a finite number"))
}

/// A list's items; those that were struck keep their index and are passed over.
struct Items<'a>(std::iter::Enumerate<std::slice::Iter<'a, Node>>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some((index, item)) = self.0.find(|(_, item)| !item.is_struck()) else {
            return Ok(None);
        };
        let value = seed.deserialize(Reader(item));
        value
            .map(Some)
            .map_err(|error| error.within(Segment::Index(index)))
    }
}
