//! Tables as serde sees them: plain, by fields, and tagged.
//!
//! Strictness lives here and not in `deny_unknown_fields`, so that no `Settings` type can forget it, and so that a tagged
//! table's unknown key is compared with the common keys as well as with its kind's own.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::de::Reader;
use super::error::Error;
use super::node::{Kind, Node, Table};
use super::problem::Reason;
use super::suggest::nearest;

/// What marks a struct's field as tagged by the key of the same name without it.
pub(super) const TAGGED: char = '$';

/// A table, without the keys that somebody else has taken.
pub(super) struct Fields<'a> {
    table: &'a Table,
    taken: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The whole table.
    pub(super) fn of(table: &'a Table) -> Self {
        let taken = Vec::new();
        Self { table, taken }
    }

    /// The entries that are left: not taken, not struck.
    fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let entries = self.table.iter().map(|(key, node)| (key.as_str(), node));
        entries.filter(|(key, node)| !self.taken.contains(key) && !node.is_struck())
    }

    fn unknown_key(&self, key: &str, known: &[&'static str]) -> Error {
        let names = known.iter().chain(&self.taken).copied();
        let names: Vec<_> = names.filter(|name| !name.starts_with(TAGGED)).collect();
        Error::unknown_key(key, &names)
    }
}

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let said = self.entries().filter(|(_, node)| !node.is_nothing());
        let pending = said.map(|(key, node)| (key, Content::Value(node)));
        visitor.visit_map(Entries::new(pending.collect()))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let tagged = known.iter().find(|field| field.starts_with(TAGGED));
        let mut pending = Vec::new();
        for (key, node) in self.entries() {
            if known.contains(&key) && !key.starts_with(TAGGED) {
                if !node.is_nothing() {
                    pending.push((key, Content::Value(node)));
                }
            } else if tagged.is_none() {
                return Err(self.unknown_key(key, known));
            }
        }
        if let Some(field) = tagged {
            let tag = field.trim_start_matches(TAGGED);
            let names = known.iter().filter(|name| !name.starts_with(TAGGED));
            self.taken.extend(names.chain([&tag]));
            pending.push((field, Content::Tagged(Tagged { tag, rest: self })));
        }
        visitor.visit_map(Entries::new(pending))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A variant's content is what its table has left.
impl<'de> VariantAccess<'de> for Fields<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.entries().next() {
            Some((key, _)) => Err(self.unknown_key(key, &[])),
            None => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _length: usize,
        _visitor: V,
    ) -> Result<V::Value, Error> {
        Err(Error::custom("a table has keys, not positions"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_struct("", known, visitor)
    }
}

/// What one entry of a table gives to the visitor.
enum Content<'a> {
    Value(&'a Node),
    Tagged(Tagged<'a>),
}

struct Entries<'a> {
    pending: std::vec::IntoIter<(&'a str, Content<'a>)>,
    current: Option<(&'a str, Content<'a>)>,
}

impl<'a> Entries<'a> {
    fn new(pending: Vec<(&'a str, Content<'a>)>) -> Self {
        Self {
            pending: pending.into_iter(),
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.current = self.pending.next();
        let Some((key, _)) = &self.current else {
            return Ok(None);
        };
        let read = seed.deserialize(StrDeserializer::<Error>::new(key));
        read.map(Some).map_err(|error| match error.reason {
            // It was built with its key.
            Reason::UnknownKey => error,
            _ => error.at(key),
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.current.take() {
            Some((key, Content::Value(node))) => {
                let value = seed.deserialize(Reader(node));
                value.map_err(|error| error.at(key))
            }
            // Its keys stand beside the tag, not beneath the field.
            Some((_, Content::Tagged(tagged))) => seed.deserialize(tagged),
            None => Err(Error::custom("a value was asked for before its key")),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.pending.len())
    }
}

/// The enum that a table's tag chooses, and the keys that are left for it.
struct Tagged<'a> {
    tag: &'static str,
    rest: Fields<'a>,
}

impl<'de> Deserializer<'de> for Tagged<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("a tagged field holds an enum"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.rest.table.get(self.tag) {
            Some(node) if !node.is_nothing() && !node.is_struck() => match &node.kind {
                Kind::String(word) | Kind::Text(word) => {
                    visitor.visit_enum(Word { word, tagged: self })
                }
                _ => Err(Error::invalid_type(node.unexpected(), &"a word").at(self.tag)),
            },
            _ => Err(self.absent(variants)),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl Tagged<'_> {
    /// Who wrote `protocl = "ack"` is told of that slip, not that the protocol is missing.
    fn absent(&self, variants: &'static [&'static str]) -> Error {
        let slip = self.rest.entries().find(|(key, _)| {
            let names = self.rest.taken.iter().copied();
            nearest(key, names) == Some(self.tag)
        });
        match slip {
            Some((key, _)) => self.rest.unknown_key(key, &[]),
            None => Error::missing_word(self.tag, variants),
        }
    }
}

struct Word<'a> {
    word: &'a str,
    tagged: Tagged<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Word<'a> {
    type Error = Error;
    type Variant = Fields<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Fields<'a>), Error> {
        let variant = seed.deserialize(StrDeserializer::<Error>::new(self.word));
        match variant {
            Ok(variant) => Ok((variant, self.tagged.rest)),
            Err(error) => Err(error.at(self.tagged.tag)),
        }
    }
}
