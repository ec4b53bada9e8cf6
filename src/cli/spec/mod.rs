//! What a listener should be, as typed: `key=value` settings become the message that defines it, or that changes it.
//!
//! The keys are the fields of the listener's messages, found by reflection, and values are written as in the
//! configuration files; a flag is no more than another way to write its key. So a new field needs no line here.

mod flags;
mod patch;
mod value;

use std::time::Duration;

use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage, Value};

use super::document::descriptor;
use super::exit::Failure;
use crate::config::nearest;
use crate::grpc::api;

pub(super) use flags::Fields;
pub(super) use patch::patch;
use value::assign;

/// Fields of the listener itself that may be set; the others are the protocol's, or the service's to say.
const COMMON: [&str; 4] = ["bind", "limits", "labels", "display_name"];

/// The definition of a listener.
///
/// # Errors
/// A usage error that names the key, when a key or a value is not known.
pub(super) fn listener(
    protocol: &str,
    bind: &str,
    settings: &[(String, String)],
) -> Result<api::Listener, Failure> {
    let mut listener = DynamicMessage::new(descriptor("Listener")?);
    let kind = named(&listener.descriptor(), protocol).map_err(Failure::usage)?;
    listener.set_field_by_name("bind", Value::String(bind.to_owned()));
    // Even when nothing of it is set, it says which protocol it is.
    listener.set_field(&kind, Value::default_value_for_field(&kind));
    for (key, text) in settings {
        let path = path(&kind, key).map_err(Failure::usage)?;
        assign(&mut listener, &path, text).map_err(|wrong| misplaced(key, &wrong))?;
    }
    listener.transcode_to().map_err(Failure::error)
}

/// A duration as the messages carry it.
pub(super) fn duration(value: Option<Duration>) -> Result<Option<prost_types::Duration>, Failure> {
    value
        .map(prost_types::Duration::try_from)
        .transpose()
        .map_err(Failure::usage)
}

fn misplaced(key: &str, wrong: &str) -> Failure {
    Failure::usage(format_args!("{key}: {wrong}"))
}

/// The words for what can be spoken.
pub(super) fn words() -> Result<Vec<String>, Failure> {
    let known = protocols(&descriptor("Listener")?);
    Ok(known.iter().map(|field| field.name().to_owned()).collect())
}

/// The fields that say what is spoken.
fn protocols(listener: &MessageDescriptor) -> Vec<FieldDescriptor> {
    let mut oneofs = listener.oneofs();
    let found = oneofs.find(|oneof| oneof.name() == "protocol");
    found.map_or_else(Vec::new, |oneof| oneof.fields().collect())
}

fn named(listener: &MessageDescriptor, protocol: &str) -> Result<FieldDescriptor, String> {
    let known = protocols(listener);
    let found = known.iter().find(|field| field.name() == protocol);
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = known.iter().map(FieldDescriptor::name).collect();
        format!(
            "no protocol is called {protocol:?}; there are {}",
            names.join(", ")
        )
    })
}

/// Where a key leads from the listener on: a key of the protocol may be written without its word.
fn path(protocol: &FieldDescriptor, key: &str) -> Result<String, String> {
    let head = key.split('.').next().unwrap_or(key);
    if COMMON.contains(&head) || head == protocol.name() {
        return Ok(key.to_owned());
    }
    let kind = protocol.kind();
    let own = kind.as_message().ok_or("a protocol is no message")?;
    match own.get_field_by_name(head) {
        Some(_) => Ok(format!("{}.{key}", protocol.name())),
        None => Err(unknown(head, protocol.name(), own)),
    }
}

fn unknown(key: &str, whose: &str, known: &MessageDescriptor) -> String {
    let names: Vec<String> = known
        .fields()
        .map(|field| field.name().to_owned())
        .collect();
    let names = names.iter().map(String::as_str).chain(COMMON);
    let hint = nearest(key, names).map(|near| format!("; did you mean `{near}`?"));
    format!("{whose} has no setting `{key}`{}", hint.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::listener::Protocol;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        fields: Fields,
    }

    fn typed<'a>(words: impl IntoIterator<Item = &'a str>) -> Fields {
        let line = std::iter::once("create").chain(words);
        Line::try_parse_from(line).unwrap().fields
    }

    fn made(protocol: &str, settings: &[&str]) -> Result<api::Listener, String> {
        let fields = typed(settings.iter().flat_map(|&set| ["--set", set]));
        let made = fields
            .settings()
            .and_then(|all| listener(protocol, "127.0.0.1:0", &all));
        made.map_err(|failure| match failure {
            Failure::Here(super::super::exit::USAGE, message) => message,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_bare_protocol_is_set_all_the_same() {
        let ack = made("ack", &[]).unwrap();
        assert_eq!(ack.bind, "127.0.0.1:0");
        assert_eq!(
            ack.protocol,
            Some(Protocol::Ack(api::AckProtocol::default()))
        );
    }

    #[test]
    fn values_are_written_as_in_the_files() {
        let chat = made(
            "chat",
            &[
                "transport=udp",
                "unattended_after=1m 30s",
                "greeting=a=b",
                "canned_replies.hi=hello",
                "limits.outbox_bytes=64KiB",
                "limits.max_message_rate=2.5",
                "labels.team=edge",
            ],
        );
        let chat = chat.unwrap();
        let limits = chat.limits.clone().unwrap();
        assert_eq!(
            (limits.outbox_bytes, limits.max_message_rate),
            (65_536, 2.5)
        );
        assert_eq!(chat.labels["team"], "edge");
        let Some(Protocol::Chat(chat)) = chat.protocol else {
            panic!("no chat")
        };
        assert_eq!(chat.transport(), api::Transport::Udp);
        assert_eq!(chat.unattended_after.map(|d| d.seconds), Some(90));
        assert_eq!(
            (&*chat.greeting, &*chat.canned_replies["hi"]),
            ("a=b", "hello")
        );
    }

    #[test]
    fn lists_grow_and_flags_are_keys() {
        let fields = typed(
            "--program ls --program date --policy programs --allow-cidr 10.0.0.0/8 \
             --set programs=id,uname --set sandbox.max_processes=3"
                .split(' '),
        );
        let shell = listener("shell", "127.0.0.1:0", &fields.settings().unwrap()).unwrap();
        assert_eq!(shell.limits.unwrap().allow_cidrs, ["10.0.0.0/8"]);
        let Some(Protocol::Shell(shell)) = shell.protocol else {
            panic!("no shell")
        };
        assert_eq!(shell.programs, ["ls", "date", "id", "uname"]);
        assert_eq!(shell.policy(), api::shell_protocol::Policy::Programs);
        assert_eq!(shell.sandbox.unwrap().max_processes, 3);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (protocol, set, hint) in [
            ("ack", "repyl=x", "did you mean `reply`?"),
            ("ack", "state=active", "ack has no setting `state`"),
            ("finger", "x=1", "ack"),
            ("chat", "mode=party", "none of desk, room"),
            ("chat", "unattended_after=soon", "no duration"),
            ("ack", "limits.max_sessions=-1", "no whole number"),
            (
                "ack",
                "limits.max_session=1",
                "did you mean `max_sessions`?",
            ),
            ("ack", "limits=1", "name a key below it"),
            ("ack", "labels=1", "labels.NAME=VALUE"),
            ("ack", "once.more=1", "holds one value"),
            ("ack", "once", "has no `=`"),
            ("ack", "shell.policy=any", "ack has no setting `shell`"),
        ] {
            let message = made(protocol, &[set]).unwrap_err();
            assert!(message.contains(hint), "{set}: {message}");
        }
    }
}
