//! A change of some settings, as typed: the fields that it names, and what they should be.
//!
//! A field mask names whole fields, and people name entries of maps. So a map is sent as it is known to be with the
//! entry changed, and the etag goes with it: a change that somebody else made in between is not undone.

use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};

use super::super::document::reflected;
use super::super::exit::Failure;
use super::value::{DURATION, assign};
use super::{misplaced, path, protocols, unknown};
use crate::grpc::api;

/// A partial listener.
#[derive(Debug)]
pub(in crate::cli) struct Patch {
    /// What the named fields should be; its etag is set when it was made from the listener as it was.
    pub(in crate::cli) listener: api::Listener,
    /// The fields that are named, such as `limits.max_sessions`; those that are not set in the
    /// listener go back to their defaults.
    pub(in crate::cli) mask: Vec<String>,
}

/// Where a path leads, as a mask can say it.
struct Target {
    /// Without what is below a map.
    field: String,
    /// The key in the map.
    entry: Option<String>,
}

/// The change of `current` that first sets keys back to their defaults, then gives others a value.
///
/// # Errors
/// A usage error that names the key, when a key or a value is not known.
pub(in crate::cli) fn patch(
    current: &api::Listener,
    unset: &[String],
    settings: &[(String, String)],
) -> Result<Patch, Failure> {
    let current = reflected(current)?;
    let shape = current.descriptor();
    let spoken = protocols(&shape)
        .into_iter()
        .find(|field| current.has_field(field))
        .ok_or_else(|| Failure::error("the listener does not say its protocol"))?;
    let mut change = Change::of(current);
    let mut paths = Vec::new();
    for key in unset {
        let path = path(&spoken, key).map_err(Failure::usage)?;
        paths.push(target(&shape, &path).map_err(|wrong| misplaced(key, &wrong))?);
    }
    // A table before what it holds: what it covers needs no name of its own.
    paths.sort_by(|a, b| (&a.field, &a.entry).cmp(&(&b.field, &b.entry)));
    for target in &paths {
        change.unset(target);
    }
    for (key, text) in settings {
        let path = path(&spoken, key).map_err(Failure::usage)?;
        let set = target(&shape, &path).and_then(|target| {
            change.touch(&target);
            assign(&mut change.wanted, &path, text)
        });
        set.map_err(|wrong| misplaced(key, &wrong))?;
    }
    Ok(Patch {
        listener: change.wanted.transcode_to().map_err(Failure::error)?,
        mask: change.mask,
    })
}

/// A patch that is being made.
struct Change {
    current: DynamicMessage,
    wanted: DynamicMessage,
    mask: Vec<String>,
}

impl Change {
    fn of(current: DynamicMessage) -> Self {
        Self {
            wanted: DynamicMessage::new(current.descriptor()),
            current,
            mask: Vec::new(),
        }
    }

    /// Names a field; a map begins with the entries that it has.
    fn touch(&mut self, target: &Target) {
        let covers = |named: &String| {
            let below = target.field.strip_prefix(&**named);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if self.mask.iter().any(covers) {
            return;
        }
        self.mask.push(target.field.clone());
        if target.entry.is_some() {
            let known = slot(&mut self.current, &target.field).cloned();
            if let (Some(known), Some(wanted)) = (known, slot(&mut self.wanted, &target.field)) {
                *wanted = known;
            }
            if let Some(etag) = self.current.get_field_by_name("etag") {
                self.wanted.set_field_by_name("etag", etag.into_owned());
            }
        }
    }

    fn unset(&mut self, target: &Target) {
        self.touch(target);
        let Some(entry) = &target.entry else { return };
        if let Some(Value::Map(entries)) = slot(&mut self.wanted, &target.field) {
            entries.remove(&MapKey::String(entry.clone()));
        }
    }
}

/// The value at a path of fields.
fn slot<'a>(message: &'a mut DynamicMessage, path: &str) -> Option<&'a mut Value> {
    match path.split_once('.') {
        None => message.get_field_by_name_mut(path),
        Some((head, rest)) => match message.get_field_by_name_mut(head)? {
            Value::Message(inner) => slot(inner, rest),
            _ => None,
        },
    }
}

fn target(message: &MessageDescriptor, path: &str) -> Result<Target, String> {
    let (head, rest) = path
        .split_once('.')
        .map_or((path, None), |(head, rest)| (head, Some(rest)));
    let field = message
        .get_field_by_name(head)
        .ok_or_else(|| unknown(head, message.name(), message))?;
    let (field, entry) = match (rest, field.kind()) {
        (rest, _) if field.is_map() => (head.to_owned(), rest.map(str::to_owned)),
        (None, _) => (head.to_owned(), None),
        (Some(rest), Kind::Message(inner)) if inner.full_name() != DURATION => {
            let below = target(&inner, rest)?;
            (format!("{head}.{}", below.field), below.entry)
        }
        (Some(_), _) => return Err(format!("`{head}` holds one value, and no others below it")),
    };
    Ok(Target { field, entry })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::listener::Protocol;

    fn chat() -> api::Listener {
        api::Listener {
            name: "listeners/desk".into(),
            etag: "e1".into(),
            labels: [("team", "edge"), ("tier", "1")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            protocol: Some(Protocol::Chat(api::ChatProtocol {
                greeting: "hello".into(),
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    fn made(unset: &[&str], settings: &[&str]) -> Result<Patch, String> {
        let unset: Vec<_> = unset.iter().map(|&key| key.to_owned()).collect();
        let settings: Vec<_> = settings
            .iter()
            .filter_map(|set| set.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        patch(&chat(), &unset, &settings).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn the_mask_is_what_was_named() {
        let patch = made(
            &["limits.idle_timeout", "unattended_after"],
            &[
                "limits.max_sessions=5",
                "chat.pace=free",
                "bind=[::1]:1",
                "pace=lockstep",
            ],
        );
        let patch = patch.unwrap();
        let expected = [
            "chat.unattended_after",
            "limits.idle_timeout",
            "limits.max_sessions",
            "chat.pace",
            "bind",
        ];
        assert_eq!(patch.mask, expected);
        let limits = patch.listener.limits.unwrap();
        assert_eq!((limits.max_sessions, limits.idle_timeout), (5, None));
        let Some(Protocol::Chat(chat)) = patch.listener.protocol else {
            panic!("no chat")
        };
        assert_eq!((chat.pace(), &*chat.greeting), (api::Pace::Lockstep, ""));
        assert_eq!(
            (&*patch.listener.bind, &*patch.listener.etag),
            ("[::1]:1", "")
        );
    }

    #[test]
    fn an_entry_is_changed_in_the_map_as_it_was() {
        let patch = made(&["labels.tier"], &["labels.a.b/c=d"]).unwrap();
        assert_eq!(
            (patch.mask, &*patch.listener.etag),
            (vec!["labels".into()], "e1")
        );
        let mut labels: Vec<_> = patch.listener.labels.into_iter().collect();
        labels.sort();
        let expected = [("a.b/c", "d"), ("team", "edge")];
        assert_eq!(labels, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_is_unset_as_a_whole_covers_what_is_below() {
        let patch = made(
            &["labels.team", "labels", "limits"],
            &["labels.x=y", "limits.max_sessions=1"],
        );
        let patch = patch.unwrap();
        assert_eq!(patch.mask, ["labels", "limits"]);
        assert_eq!(
            (patch.listener.labels.len(), &*patch.listener.etag),
            (1, "")
        );
        assert_eq!(patch.listener.limits.unwrap().max_sessions, 1);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (unset, set, hint) in [
            ("greating", "", "did you mean `greeting`?"),
            ("limits.max_session", "", "did you mean `max_sessions`?"),
            ("ack.reply", "", "chat has no setting `ack`"),
            ("bind.host", "", "`bind` holds one value"),
            ("limits.idle_timeout.seconds", "", "holds one value"),
            ("", "labels=x", "labels.NAME=VALUE"),
            ("", "chat=x", "name a key below it"),
        ] {
            let unset: Vec<_> = Some(unset)
                .filter(|key| !key.is_empty())
                .into_iter()
                .collect();
            let set: Vec<_> = Some(set)
                .filter(|set| !set.is_empty())
                .into_iter()
                .collect();
            let message = made(&unset, &set).unwrap_err();
            assert!(message.contains(hint), "{unset:?} {set:?}: {message}");
        }
    }
}
