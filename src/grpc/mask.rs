//! Field masks: which fields of a listener a caller means, in proto's casing or JSON's, and what they are called in files.

use std::sync::LazyLock;

use prost::Message as _;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _,
    Value as Reflected,
};
use serde_json::Value;
use tonic::Status;

use super::filter::descriptor;
use super::status::invalid;
use super::{api, show, spec};
use crate::config::{nearest, to_value};
use crate::protocol::Protocol;
use crate::supervisor::{Error, Spec, Violation};

/// Fields that only we set, or that no mask changes.
const OUTPUT_ONLY: u32 = 20;

static LISTENER: LazyLock<Option<MessageDescriptor>> =
    LazyLock::new(|| descriptor::<api::Listener>().ok());

/// The fields that a mask names, each by its path in files, with what `wanted` says of it; null for what it leaves unset.
/// Without a mask, the fields that are set; `*` stands for all.
///
/// # Errors
/// Every path that names no field, or one that cannot be changed; every value that cannot be read.
pub(super) fn fields(
    wanted: api::Listener,
    mask: Option<Vec<String>>,
    current: &Spec,
) -> Result<Vec<(Vec<String>, Value)>, Status> {
    let word = current.protocol.word();
    let kind = wanted.protocol.as_ref().map(kind);
    if let Some(kind) = kind.filter(|kind| *kind != word) {
        let rule = format!("the listener speaks {word}, and what is spoken");
        return Err(immutable(kind, &rule));
    }
    let paths = match mask.filter(|paths| !paths.is_empty()) {
        Some(paths) => paths,
        None => populated(&wanted),
    };
    let transport = other_transport(&wanted, current);
    let said = said(wanted, current)?;
    let mut violations = Vec::new();
    let mut fields = Vec::new();
    for path in paths {
        match keys(&path, word) {
            Ok(keys) => fields.extend(keys),
            Err(description) => violations.push(Violation {
                field: "update_mask".to_owned(),
                description,
            }),
        }
    }
    if !violations.is_empty() {
        return Err(invalid("UPDATE_MASK_INVALID", violations));
    }
    if let Some(rule) = transport.filter(|_| fields.contains(&path("transport"))) {
        return Err(immutable("chat.transport", &rule));
    }
    // Unset is no wish to change it, and what cannot change need not be said.
    let without_desire = said.get("desired_state").is_none();
    fields.retain(|field| *field != path("desired_state") || !without_desire);
    fields.retain(|field| *field != path("transport"));
    let value = |field: &Vec<String>| {
        let step = |value: Option<&Value>, key: &String| value?.get(key).cloned();
        let mut at = Some(said.clone());
        for key in field {
            at = step(at.as_ref(), key);
        }
        at.unwrap_or(Value::Null)
    };
    Ok(fields
        .into_iter()
        .map(|field| (field.clone(), value(&field)))
        .collect())
}

/// What the caller's listener says, as a file would; what it need not say is taken from the current one.
fn said(mut wanted: api::Listener, current: &Spec) -> Result<Value, Status> {
    let without_bind = wanted.bind.is_empty();
    if without_bind {
        wanted.bind = current.bind.to_string();
    }
    let without_desire = wanted.desired_state == 0;
    if wanted.protocol.is_none() {
        wanted.protocol = Some(super::show::protocol(&current.protocol.plain()));
    }
    let read = spec::read_part(wanted);
    let spec = read.map_err(|violations| invalid("LISTENER_CONFIG_INVALID", violations))?;
    let mut said = spec.said();
    if let Value::Object(entries) = &mut said {
        entries.remove("protocol");
        if without_bind {
            entries.remove("bind");
        }
        entries.remove("desired_state");
        if !without_desire {
            entries.insert("desired_state".into(), to_value(&spec.desired_state));
        }
    }
    Ok(said)
}

/// Without a mask: the paths of what is set and may be changed, also of what is set to its default.
fn populated(wanted: &api::Listener) -> Vec<String> {
    let message = LISTENER.clone().and_then(|listener| {
        DynamicMessage::decode(listener, wanted.encode_to_vec().as_slice()).ok()
    });
    let mut paths = Vec::new();
    for (field, value) in message.iter().flat_map(|message| message.fields()) {
        if is_changeable(&field) {
            leaves(field.name(), value, &mut paths);
        }
    }
    paths
}

fn leaves(path: &str, value: &Reflected, paths: &mut Vec<String>) {
    match value {
        Reflected::Message(message) if !is_value(&message.descriptor()) => {
            for (field, value) in message.fields() {
                leaves(&format!("{path}.{}", field.name()), value, paths);
            }
        }
        _ => paths.push(path.to_owned()),
    }
}

/// That the caller wants another kind of socket, if so.
fn other_transport(wanted: &api::Listener, current: &Spec) -> Option<String> {
    let transport = current.protocol.transport();
    match &wanted.protocol {
        Some(api::listener::Protocol::Chat(chat))
            if ![0, show::transport(transport)].contains(&chat.transport) =>
        {
            let word = transport.word();
            Some(format!(
                "the listener speaks over {word}, and its kind of socket"
            ))
        }
        _ => None,
    }
}

fn immutable(field: &str, what: &str) -> Status {
    let violation = Violation {
        field: format!("listener.{field}"),
        description: format!("{what} cannot change; delete it and create another"),
    };
    invalid("FIELD_IMMUTABLE", vec![violation])
}

fn path(key: &str) -> Vec<String> {
    vec![key.to_owned()]
}

/// Whether callers may change a field of a listener at all.
fn is_changeable(field: &FieldDescriptor) -> bool {
    field.number() < OUTPUT_ONLY && !["name", "uid"].contains(&field.name())
}

fn kind(protocol: &api::listener::Protocol) -> &'static str {
    use api::listener::Protocol as P;
    match protocol {
        P::Shell(_) => "shell",
        P::Uppercase(_) => "uppercase",
        P::Chat(_) => "chat",
        P::Ack(_) => "ack",
    }
}

/// The keys of files that a path of a mask means.
fn keys(path: &str, word: &str) -> Result<Vec<Vec<String>>, String> {
    let shown = crate::supervisor::shown(path);
    let Some(listener) = &*LISTENER else {
        return Err(format!("`{shown}` cannot be looked up"));
    };
    if path == "*" {
        let changeable = listener.fields().filter(is_changeable);
        let names = changeable.map(|field| field.name().to_owned());
        let own = names.filter(|name| !is_protocol(name) || name == word);
        let mut all = Vec::new();
        for name in own {
            all.extend(keys(&name, word)?);
        }
        return Ok(all);
    }
    let (mut message, mut names) = (listener.clone(), Vec::new());
    let mut segments = path.split('.').peekable();
    while let Some(segment) = segments.next() {
        let field = find(&message, segment).ok_or_else(|| unknown(&shown, segment, &message))?;
        names.push(field.name().to_owned());
        let inner = match field.kind() {
            Kind::Message(inner) if !field.is_map() && !is_value(&inner) => Some(inner),
            _ => None,
        };
        match (inner, segments.peek()) {
            (Some(inner), _) => message = inner,
            (None, None) => {}
            (None, Some(_)) => {
                return Err(format!(
                    "`{shown}`: `{}` has no fields of its own; name it as a whole",
                    field.name()
                ));
            }
        }
    }
    of_files(names, word, &shown)
}

fn of_files(mut names: Vec<String>, word: &str, shown: &str) -> Result<Vec<Vec<String>>, String> {
    let first = names[0].as_str();
    let found = LISTENER.as_ref().and_then(|l| l.get_field_by_name(first));
    if found.is_some_and(|field| !is_changeable(&field)) {
        return Err(format!("`{shown}` is not for callers to change"));
    }
    if !is_protocol(first) {
        return Ok(vec![names]);
    }
    if first != word {
        return Err(format!("`{shown}`: the listener speaks {word}"));
    }
    names.remove(0);
    if names.is_empty() {
        // The protocol as a whole is all its keys, since they stand beside the others in files.
        let own = LISTENER.as_ref().and_then(|l| l.get_field_by_name(word));
        let Some(Kind::Message(message)) = own.map(|field| field.kind()) else {
            return Ok(Vec::new());
        };
        return Ok(message
            .fields()
            .map(|f| vec![f.name().to_owned()])
            .collect());
    }
    Ok(vec![names])
}

fn is_protocol(name: &str) -> bool {
    Protocol::WORDS.contains(&name)
}

/// Durations and the like are values, not tables.
fn is_value(message: &MessageDescriptor) -> bool {
    message.full_name().starts_with("google.protobuf.")
}

fn find(message: &MessageDescriptor, segment: &str) -> Option<FieldDescriptor> {
    let by_name = message.get_field_by_name(segment);
    by_name.or_else(|| message.get_field_by_json_name(segment))
}

fn unknown(shown: &str, segment: &str, message: &MessageDescriptor) -> String {
    let names: Vec<_> = message
        .fields()
        .map(|field| field.name().to_owned())
        .collect();
    let near = nearest(segment, names.iter().map(String::as_str));
    match near {
        Some(near) => format!("`{shown}` is no field of a listener; did you mean `{near}`?"),
        None => format!("`{shown}` is no field of a listener"),
    }
}

/// A key of files as a path of proto: a protocol's own keys stand within its message.
pub(super) fn field(key: &str, word: &str) -> String {
    let first = key.split(['.', '[']).next().unwrap_or(key);
    let common = ["bind", "desired_state", "display_name", "labels", "limits"];
    if common.contains(&first) {
        key.to_owned()
    } else {
        format!("{word}.{key}")
    }
}

/// A refusal whose fields are named as in proto.
pub(super) fn in_proto(error: Error, word: &str) -> Error {
    let name = |violation: Violation| Violation {
        field: field(&violation.field, word),
        ..violation
    };
    match error {
        Error::Invalid(violations) => Error::Invalid(violations.into_iter().map(name).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn current() -> Spec {
        spec::read(api::Listener {
            bind: "127.0.0.1:0".into(),
            protocol: Some(api::listener::Protocol::Ack(api::AckProtocol::default())),
            ..Default::default()
        })
        .unwrap()
    }

    fn wanted() -> api::Listener {
        api::Listener {
            limits: Some(api::ListenerLimits {
                max_sessions: 5,
                ..Default::default()
            }),
            protocol: Some(api::listener::Protocol::Ack(api::AckProtocol {
                once: true,
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    fn read(mask: &[&str]) -> Vec<(String, Value)> {
        let mask = mask.iter().map(|path| (*path).to_owned()).collect();
        let fields = fields(wanted(), Some(mask), &current()).unwrap();
        fields
            .into_iter()
            .map(|(path, value)| (path.join("."), value))
            .collect()
    }

    #[test]
    fn a_mask_names_fields_in_either_casing_and_unset_means_the_default() {
        assert_eq!(
            read(&[
                "limits.maxSessions",
                "limits.idle_timeout",
                "ack.once",
                "labels"
            ]),
            [
                ("limits.max_sessions".to_owned(), json!(5)),
                ("limits.idle_timeout".to_owned(), Value::Null),
                ("once".to_owned(), json!(true)),
                ("labels".to_owned(), Value::Null),
            ]
        );
    }

    #[test]
    fn without_a_mask_what_is_set_is_meant() {
        let keys: Vec<_> = read(&[]).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["once", "limits.max_sessions"]);
        // Also what is set to its default, which a file need not say.
        let default = api::AckProtocol {
            framing: api::Framing::Raw.into(),
            ..Default::default()
        };
        let default = api::Listener {
            protocol: Some(api::listener::Protocol::Ack(default)),
            ..Default::default()
        };
        let fields = fields(default, None, &current()).unwrap();
        assert_eq!(fields, [(path("framing"), Value::Null)]);
    }

    #[test]
    fn a_whole_message_and_a_star_mean_all_their_fields() {
        let keys =
            |mask: &[&str]| -> Vec<_> { read(mask).into_iter().map(|(key, _)| key).collect() };
        assert_eq!(keys(&["ack"]), ["reply", "once", "framing"]);
        let all = keys(&["*"]);
        for key in ["display_name", "labels", "bind", "reply", "limits"] {
            assert!(all.iter().any(|k| k == key), "{key} in {all:?}");
        }
        assert!(
            !all.iter().any(|k| k == "name" || k == "programs"),
            "{all:?}"
        );
    }

    #[test]
    fn what_cannot_be_meant_is_all_named() {
        let mask = [
            "limits.max_session",
            "state",
            "chat.pace",
            "bind.port",
            "name",
        ];
        let mask = mask.iter().map(|path| (*path).to_owned()).collect();
        let refused = fields(wanted(), Some(mask), &current()).unwrap_err();
        for part in [
            "did you mean `max_sessions`",
            "`state` is not for callers",
            "the listener speaks ack",
            "`bind` has no fields",
            "`name` is not for callers",
        ] {
            assert!(
                refused.message().contains(part),
                "{part}: {}",
                refused.message()
            );
        }
    }

    #[test]
    fn keys_are_told_in_the_words_of_proto() {
        assert_eq!(field("limits.max_sessions", "ack"), "limits.max_sessions");
        assert_eq!(field("reply", "ack"), "ack.reply");
        assert_eq!(field("labels.a", "ack"), "labels.a");
    }
}
