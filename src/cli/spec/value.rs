//! One setting of a message, from a path and a text: values are written as in the configuration files.

use bytesize::ByteSize;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, ReflectMessage, Value,
};

use super::unknown;

/// The one message that is written as a value.
pub(super) const DURATION: &str = "google.protobuf.Duration";

/// Sets what the path leads to; items are added to a list, entries to a map.
///
/// # Errors
/// What is wrong with the path or the text, in a phrase.
pub(super) fn assign(message: &mut DynamicMessage, path: &str, text: &str) -> Result<(), String> {
    let (head, rest) = path
        .split_once('.')
        .map_or((path, None), |(head, rest)| (head, Some(rest)));
    let whole = message.descriptor();
    let field = whole
        .get_field_by_name(head)
        .ok_or_else(|| unknown(head, whole.name(), &whole))?;
    let value = message.get_field_mut(&field);
    match (value, rest) {
        (Value::Map(entries), Some(key)) => {
            entries.insert(
                MapKey::String(key.to_owned()),
                Value::String(text.to_owned()),
            );
        }
        (Value::Map(_), None) => return Err(format!("name an entry, as in {head}.NAME=VALUE")),
        (Value::Message(inner), Some(rest)) => return assign(inner, rest, text),
        (_, Some(_)) => return Err(format!("`{head}` holds one value, and no others below it")),
        (Value::List(items), None) => {
            for item in text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
            {
                items.push(scalar(&field, item)?);
            }
        }
        (value, None) => *value = scalar(&field, text)?,
    }
    Ok(())
}

fn scalar(field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    let bad = |wanted: &str| format!("{text:?} is no {wanted}");
    let number = || match text.parse::<u64>() {
        Ok(number) => Ok(number),
        Err(_) if field.name().ends_with("_bytes") => text
            .parse::<ByteSize>()
            .map(|size| size.0)
            .map_err(|_| bad("size such as 64KiB")),
        Err(_) => Err(bad("whole number from 0 on")),
    };
    Ok(match field.kind() {
        Kind::String => Value::String(text.to_owned()),
        Kind::Bytes => Value::Bytes(text.as_bytes().to_vec().into()),
        Kind::Bool => Value::Bool(text.parse().map_err(|_| bad("`true` or `false`"))?),
        Kind::Double => Value::F64(text.parse().map_err(|_| bad("number"))?),
        Kind::Uint64 => Value::U64(number()?),
        Kind::Uint32 => Value::U32(number()?.try_into().map_err(|_| bad("number below 4Gi"))?),
        Kind::Enum(of) => Value::EnumNumber(enum_number(&of, text)?),
        Kind::Message(of) if of.full_name() == DURATION => {
            let long = humantime::parse_duration(text).map_err(|_| bad("duration such as 30s"))?;
            let long =
                prost_types::Duration::try_from(long).map_err(|_| bad("duration so long"))?;
            let mut message = DynamicMessage::new(of);
            message
                .transcode_from(&long)
                .map_err(|error| error.to_string())?;
            Value::Message(message)
        }
        Kind::Message(_) => return Err(format!("name a key below it, as in {}.KEY", field.name())),
        _ => return Err("a flag cannot set it".to_owned()),
    })
}

/// The number of an enum's lower-case word; its prefix is what stands before `UNSPECIFIED`.
fn enum_number(of: &EnumDescriptor, text: &str) -> Result<i32, String> {
    let zero = of.default_value();
    let prefix = zero.name().trim_end_matches("UNSPECIFIED");
    let mut words = Vec::new();
    for value in of.values().filter(|value| value.number() != 0) {
        let word = value.name().trim_start_matches(prefix).to_ascii_lowercase();
        if word == text {
            return Ok(value.number());
        }
        words.push(word);
    }
    Err(format!("{text:?} is none of {}", words.join(", ")))
}
