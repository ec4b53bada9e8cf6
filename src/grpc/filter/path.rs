//! Fields of a message by their names, and what is found there.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use crate::config::nearest;

/// The way from a message to a value within.
#[derive(Debug)]
pub(in crate::grpc) struct Path {
    fields: Vec<FieldDescriptor>,
    /// Behind the last field, which is a map then.
    key: Option<MapKey>,
    /// What stands there.
    pub(in crate::grpc) end: Shape,
    /// A list is on the way, or at its end: there may be several.
    pub(in crate::grpc) listed: bool,
}

/// What stands at the end of a path.
#[derive(Debug)]
pub(in crate::grpc) enum Shape {
    /// One value, of a kind that can be read and compared.
    Value(Kind),
    /// A whole map of texts to something.
    Map,
    /// A message with fields of its own, or bytes.
    Opaque,
}

/// Longest name that another is suggested for: a long one is no slip, and looking for it takes long.
const LONGEST_SLIP: usize = 64;

/// Fields that are filled in once it is known what is shown. To a filter they would never be there, and what it does
/// not want would be all that there is.
const UNSEEN: [&str; 1] = ["switchboard.v1.Session.tcp_info"];

impl Path {
    /// The way along `names`, in proto or JSON casing; names behind a map are its key together.
    pub(in crate::grpc) fn find(of: &MessageDescriptor, names: &[String]) -> Result<Self, String> {
        let (mut fields, mut listed) = (Vec::new(), false);
        let mut message = of.clone();
        let mut rest = names;
        while let [name, behind @ ..] = rest {
            let found = message
                .get_field_by_name(name)
                .or_else(|| message.get_field_by_json_name(name));
            let field = found.ok_or_else(|| unknown(&message, name))?;
            if UNSEEN.contains(&field.full_name()) {
                let name = field.name();
                return Err(format!(
                    "`{name}` is asked only of what is shown, and cannot be looked for"
                ));
            }
            fields.push(field.clone());
            if let Some(entry) = field.kind().as_message().filter(|_| field.is_map()) {
                let value = entry.map_entry_value_field().kind();
                let key = (!behind.is_empty()).then(|| MapKey::String(behind.join(".")));
                let end = match key {
                    Some(_) => shape(value),
                    None => Shape::Map,
                };
                return Ok(Self {
                    fields,
                    key,
                    end,
                    listed,
                });
            }
            listed |= field.is_list();
            let end = shape(field.kind());
            match (field.kind(), &end) {
                (_, _) if behind.is_empty() => {
                    return Ok(Self {
                        fields,
                        key: None,
                        end,
                        listed,
                    });
                }
                (Kind::Message(inner), Shape::Opaque) => (message, rest) = (inner, behind),
                _ => return Err(format!("`{}` has no fields of its own", field.name())),
            }
        }
        Err("the name of a field is missing".to_owned())
    }

    /// Whether anything stands there: a set field, what is not the default, an entry of the key.
    pub(super) fn is_present(&self, message: &DynamicMessage) -> bool {
        match self.key {
            Some(_) => self.any(message, &mut |_| true),
            None => any(&self.fields, message, &mut |message, field| {
                message.has_field(field)
            }),
        }
    }

    /// Whether one of the values there, if there is any, is as `look` says.
    pub(in crate::grpc) fn any(
        &self,
        message: &DynamicMessage,
        look: &mut impl FnMut(&Value) -> bool,
    ) -> bool {
        any(&self.fields, message, &mut |message, field| {
            if field.supports_presence() && !message.has_field(field) {
                return false;
            }
            match (&*message.get_field(field), &self.key) {
                (Value::List(values), _) => values.iter().any(&mut *look),
                (Value::Map(entries), Some(key)) => entries.get(key).is_some_and(&mut *look),
                (value, _) => look(value),
            }
        })
    }
}

/// Whether the last of `fields`, in any message that the others lead to, is as `look` says.
fn any(
    fields: &[FieldDescriptor],
    message: &DynamicMessage,
    look: &mut impl FnMut(&DynamicMessage, &FieldDescriptor) -> bool,
) -> bool {
    let (field, rest) = match fields {
        [] => return false,
        [last] => return look(message, last),
        [field, rest @ ..] => (field, rest),
    };
    if !message.has_field(field) {
        return false;
    }
    match &*message.get_field(field) {
        Value::Message(inner) => any(rest, inner, look),
        Value::List(items) => items
            .iter()
            .filter_map(Value::as_message)
            .any(|inner| any(rest, inner, look)),
        _ => false,
    }
}

fn shape(kind: Kind) -> Shape {
    match &kind {
        Kind::Bytes => Shape::Opaque,
        Kind::Message(message) if !is_moment(message) => Shape::Opaque,
        _ => Shape::Value(kind),
    }
}

/// Whether it is a point in time or a length of it, which are values and not messages.
fn is_moment(message: &MessageDescriptor) -> bool {
    ["google.protobuf.Timestamp", "google.protobuf.Duration"].contains(&message.full_name())
}

fn unknown(message: &MessageDescriptor, name: &str) -> String {
    let fields: Vec<_> = message.fields().collect();
    let near = (name.len() <= LONGEST_SLIP)
        .then(|| nearest(name, fields.iter().map(FieldDescriptor::name)))
        .flatten();
    let suggested = near.map(|near| format!("; did you mean `{near}`?"));
    let name = crate::supervisor::shown(name);
    format!(
        "{} has no field `{name}`{}",
        message.name(),
        suggested.unwrap_or_default()
    )
}
