//! What a listener should be, as typed: `key=value` settings become the message that defines it.
//!
//! The keys are the fields of the listener's messages, found by reflection, and values are written as in the
//! configuration files; a flag is no more than another way to write its key. So a new field needs no line here.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage, Value,
};

use super::exit::Failure;
use super::output::descriptor;
use crate::config::nearest;
use crate::grpc::api;

/// Fields of the listener itself that may be set; the others are the protocol's, or the service's to say.
const COMMON: [&str; 3] = ["limits", "labels", "display_name"];

/// The settings that are used most, as flags.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Settings")]
pub(super) struct Fields {
    /// Any setting, such as framing=line, limits.outbox_bytes=64KiB or labels.team=edge
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// tcp or udp (chat)
    #[arg(long)]
    transport: Option<String>,
    /// raw, line or length (ack, shell, chat)
    #[arg(long)]
    framing: Option<String>,
    /// What every message is answered with (ack)
    #[arg(long, value_name = "TEXT")]
    reply: Option<String>,
    /// Close after the first answer (ack)
    #[arg(long)]
    once: bool,
    /// programs or any (shell)
    #[arg(long)]
    policy: Option<String>,
    /// A program that may be run (shell); may be repeated
    #[arg(long, value_name = "PROGRAM")]
    program: Vec<String>,
    /// How long a command may run (shell)
    #[arg(long, value_name = "DURATION")]
    command_timeout: Option<String>,
    /// desk or room (chat)
    #[arg(long)]
    mode: Option<String>,
    /// lockstep or free (chat)
    #[arg(long)]
    pace: Option<String>,
    /// When a message nobody answered is answered by the listener (chat)
    #[arg(long, value_name = "DURATION")]
    unattended_after: Option<String>,
    /// What it is answered with then (chat)
    #[arg(long, value_name = "TEXT")]
    unattended_reply: Option<String>,
    /// utf-8, gbk, gb18030, auto or bytes (chat)
    #[arg(long)]
    encoding: Option<String>,
    /// What a peer is told first (chat, pace free)
    #[arg(long, value_name = "TEXT")]
    greeting: Option<String>,
    /// How many peers at once
    #[arg(long, value_name = "N")]
    max_sessions: Option<String>,
    /// How many of one source address
    #[arg(long, value_name = "N")]
    max_sessions_per_source: Option<String>,
    /// How long a session may be silent
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<String>,
    /// The longest message, such as 64KiB
    #[arg(long, value_name = "SIZE")]
    max_message_bytes: Option<String>,
    /// A network whose peers may come in; may be repeated
    #[arg(long, value_name = "CIDR")]
    allow_cidr: Vec<String>,
}

impl Fields {
    /// All of them as keys and values.
    pub(super) fn settings(&self) -> Result<Vec<(String, String)>, Failure> {
        let once = self.once.then(|| "true".to_owned());
        let flags = [
            ("transport", &self.transport),
            ("framing", &self.framing),
            ("reply", &self.reply),
            ("once", &once),
            ("policy", &self.policy),
            ("command_timeout", &self.command_timeout),
            ("mode", &self.mode),
            ("pace", &self.pace),
            ("unattended_after", &self.unattended_after),
            ("unattended_reply", &self.unattended_reply),
            ("encoding", &self.encoding),
            ("greeting", &self.greeting),
            ("limits.max_sessions", &self.max_sessions),
            (
                "limits.max_sessions_per_source",
                &self.max_sessions_per_source,
            ),
            ("limits.idle_timeout", &self.idle_timeout),
            ("limits.max_message_bytes", &self.max_message_bytes),
        ];
        let once_each = flags
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let programs = self.program.iter().map(|value| ("programs", value));
        let networks = self
            .allow_cidr
            .iter()
            .map(|value| ("limits.allow_cidrs", value));
        let flags = once_each.chain(programs).chain(networks);
        let mut settings: Vec<_> = flags
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect();
        for set in &self.set {
            let (key, value) = set.split_once('=').ok_or_else(|| {
                Failure::usage(format_args!(
                    "--set wants KEY=VALUE, and {set:?} has no `=`"
                ))
            })?;
            settings.push((key.trim().to_owned(), value.to_owned()));
        }
        Ok(settings)
    }
}

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
    let kind = protocol_field(&listener.descriptor(), protocol).map_err(Failure::usage)?;
    listener.set_field_by_name("bind", Value::String(bind.to_owned()));
    // Even when nothing of it is set, it says which protocol it is.
    let own = listener.get_field_mut(&kind);
    let Value::Message(own) = own else {
        return Err(Failure::error("a protocol is no message"));
    };
    let own_fields = own.descriptor();
    *own = DynamicMessage::new(own_fields.clone());
    for (key, value) in settings {
        let head = key.split('.').next().unwrap_or(key);
        let target = match listener.get_field_mut(&kind) {
            _ if COMMON.contains(&head) => &mut listener,
            Value::Message(own) if own_fields.get_field_by_name(head).is_some() => own,
            _ => return Err(Failure::usage(unknown(head, protocol, &own_fields))),
        };
        assign(target, key, value)
            .map_err(|wrong| Failure::usage(format_args!("{key}: {wrong}")))?;
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

fn protocol_field(listener: &MessageDescriptor, protocol: &str) -> Result<FieldDescriptor, String> {
    let known: Vec<_> = listener
        .oneofs()
        .filter(|oneof| oneof.name() == "protocol")
        .flat_map(|oneof| oneof.fields().collect::<Vec<_>>())
        .collect();
    let found = known.iter().find(|field| field.name() == protocol);
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = known.iter().map(FieldDescriptor::name).collect();
        format!(
            "no protocol is called {protocol:?}; there are {}",
            names.join(", ")
        )
    })
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

fn assign(message: &mut DynamicMessage, path: &str, text: &str) -> Result<(), String> {
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
        Kind::Message(of) if of.full_name() == "google.protobuf.Duration" => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use api::listener::Protocol;

    fn made(protocol: &str, settings: &[&str]) -> Result<api::Listener, String> {
        let fields = Fields {
            set: settings.iter().map(|&set| set.to_owned()).collect(),
            ..Default::default()
        };
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
        let fields = Fields {
            program: vec!["ls".into(), "date".into()],
            policy: Some("programs".into()),
            allow_cidr: vec!["10.0.0.0/8".into()],
            set: vec!["programs=id,uname".into(), "sandbox.max_processes=3".into()],
            ..Default::default()
        };
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
        ] {
            let message = made(protocol, &[set]).unwrap_err();
            assert!(message.contains(hint), "{set}: {message}");
        }
    }
}
