//! serde from settings to the values of a file.
//!
//! Not `serde_json::to_value`, which makes objects of structs and maps alike: `$TAG` is a convention of structs, and a
//! map's key may begin with a dollar.

use std::fmt::{self, Display};

use serde::ser::{
    Error as _, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct,
    SerializeStructVariant, SerializeTuple, SerializeTupleStruct, Serializer,
};
use serde_json::{Map, Value};

use super::access::TAGGED;

/// Makes a value of whatever is serialized into it; null stands for what a file leaves out.
#[derive(Clone, Copy)]
pub(super) struct Writer;

/// Why a value cannot be said in a file. It is left out, whatever it is.
#[derive(Debug)]
pub(super) struct Unsayable;

impl Display for Unsayable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no file can say it")
    }
}

impl std::error::Error for Unsayable {}

impl serde::ser::Error for Unsayable {
    fn custom<T: Display>(_message: T) -> Self {
        Self
    }
}

type Written = Result<Value, Unsayable>;

macro_rules! plainly {
    ($($method:ident($type:ty))*) => {$(
        fn $method(self, value: $type) -> Written {
            Ok(value.into())
        }
    )*};
}

impl Serializer for Writer {
    type Ok = Value;
    type Error = Unsayable;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Impossible<Value, Unsayable>;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Variant;

    plainly! {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64)
        serialize_f32(f32) serialize_f64(f64) serialize_str(&str) serialize_bytes(&[u8])
    }

    fn serialize_char(self, value: char) -> Written {
        Ok(value.to_string().into())
    }

    fn serialize_none(self) -> Written {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Written {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Written {
        Ok(Map::new().into())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        Ok(variant.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Written {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Written {
        Ok(beneath(variant, value.serialize(self)?))
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<Items, Unsayable> {
        Ok(Items(Vec::new()))
    }

    fn serialize_tuple(self, _length: usize) -> Result<Items, Unsayable> {
        Ok(Items(Vec::new()))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items, Unsayable> {
        Ok(Items(Vec::new()))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unsayable> {
        Err(Unsayable)
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Entries, Unsayable> {
        Ok(Entries::default())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Entries, Unsayable> {
        Ok(Entries::default())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Variant, Unsayable> {
        let fields = Entries::default();
        Ok(Variant { variant, fields })
    }
}

/// A table of one entry.
fn beneath(key: &str, value: Value) -> Value {
    Map::from_iter([(key.to_owned(), value)]).into()
}

/// A list that is being written.
pub(super) struct Items(Vec<Value>);

macro_rules! listed {
    ($($part:ident::$method:ident)*) => {$(
        impl $part for Items {
            type Ok = Value;
            type Error = Unsayable;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsayable> {
                self.0.push(value.serialize(Writer)?);
                Ok(())
            }

            fn end(self) -> Written {
                Ok(self.0.into())
            }
        }
    )*};
}

listed! { SerializeSeq::serialize_element SerializeTuple::serialize_element SerializeTupleStruct::serialize_field }

/// A table that is being written.
#[derive(Default)]
pub(super) struct Entries {
    table: Map<String, Value>,
    key: Option<String>,
}

impl Entries {
    fn add<T: Serialize + ?Sized>(&mut self, key: String, value: &T) {
        if let Ok(value) = value.serialize(Writer)
            && !value.is_null()
        {
            self.table.insert(key, value);
        }
    }

    /// Puts the keys of the kind beside the others, and the kind's word under the tag.
    fn add_tagged<T: Serialize + ?Sized>(&mut self, tag: &str, kind: &T) -> Result<(), Unsayable> {
        let (word, keys) = match kind.serialize(Writer)? {
            Value::Object(kind) => kind.into_iter().next().ok_or(Unsayable)?,
            word => (word.as_str().ok_or(Unsayable)?.to_owned(), Value::Null),
        };
        self.table.insert(tag.to_owned(), word.into());
        if let Value::Object(keys) = keys {
            self.table.extend(keys);
        }
        Ok(())
    }
}

impl SerializeMap for Entries {
    type Ok = Value;
    type Error = Unsayable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unsayable> {
        self.key = match key.serialize(Writer)? {
            Value::String(key) => Some(key),
            other => Some(other.to_string()),
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsayable> {
        let key = self.key.take();
        self.add(
            key.ok_or_else(|| Unsayable::custom("a value before its key"))?,
            value,
        );
        Ok(())
    }

    fn end(self) -> Written {
        Ok(self.table.into())
    }
}

impl SerializeStruct for Entries {
    type Ok = Value;
    type Error = Unsayable;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Unsayable> {
        match key.strip_prefix(TAGGED) {
            Some(tag) => self.add_tagged(tag, value),
            None => {
                self.add(key.to_owned(), value);
                Ok(())
            }
        }
    }

    fn end(self) -> Written {
        Ok(self.table.into())
    }
}

/// An enum's variant with fields that is being written.
pub(super) struct Variant {
    variant: &'static str,
    fields: Entries,
}

impl SerializeStructVariant for Variant {
    type Ok = Value;
    type Error = Unsayable;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Unsayable> {
        SerializeStruct::serialize_field(&mut self.fields, key, value)
    }

    fn end(self) -> Written {
        Ok(beneath(self.variant, SerializeStruct::end(self.fields)?))
    }
}
