//! Changes that calls make: each is an edit of what was changed at run time, and the whole is checked with it.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::edit::{Edit, How};
use super::state::State;
use crate::config::{Assignment, Layer, Origin, to_value};
use crate::grpc::{Caller, Changed, Creation, Deletion, Persistence, Update, Verb, Wish};
use crate::protocol::Protocol;
use crate::settings::widens_shell;
use crate::supervisor::{Error, ListenerName, View};

/// Each change looks at the whole configuration, and a caller in a loop must not fill it.
const MOST_LISTENERS: usize = 4_096;

impl State {
    /// Defines a listener.
    pub(super) async fn create(
        &mut self,
        asked: Creation,
        caller: Caller,
    ) -> Result<Changed, Error> {
        let Creation {
            name,
            spec,
            persistence,
            validate_only,
        } = asked;
        if matches!(spec.protocol, Protocol::Shell(_)) && !self.allows_shell() {
            return Err(Error::ShellForbidden);
        }
        let violations = spec.check();
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        if self.supervisor.get(name.as_str()).is_ok() {
            return Err(Error::Exists(name.to_string()));
        }
        if self.running.settings.listeners.len() >= MOST_LISTENERS {
            return Err(Error::TooMany(MOST_LISTENERS));
        }
        let layer = self.layer(persistence, Layer::Runtime)?;
        let path = path_of(&name, &[]);
        self.refuse_pinned(&path, layer)?;
        let identity = Some((crate::supervisor::fresh_uid(), SystemTime::now()));
        let edit = Edit {
            forget: Vec::new(),
            assign: vec![assignment(path, spec.said(), layer, &caller)],
            name,
            layer,
            identity,
            how: How::default(),
            caller,
            validate_only,
        };
        self.make(edit).await
    }

    /// Changes fields of a listener.
    pub(super) async fn update(&mut self, asked: Update, caller: Caller) -> Result<Changed, Error> {
        let view = self.supervisor.current(&asked.name, &asked.etag)?;
        let shell = matches!(view.spec.protocol, Protocol::Shell(_));
        if shell && !self.allows_shell() && asked.fields.iter().any(|(f, _)| widens_shell(f)) {
            return Err(Error::ShellForbidden);
        }
        let layer = self.layer_of_change(&view.name, asked.persistence)?;
        let (mut forget, mut assign) = (Vec::new(), Vec::new());
        for (field, value) in asked.fields {
            let path = path_of(&view.name, &field);
            self.refuse_pinned(&path, layer)?;
            if field == ["desired_state"] {
                // What was said of an earlier pause is not meant for this one.
                forget.extend(Verb::OF_A_PAUSE.map(|key| path_of(&view.name, &[key.to_owned()])));
            }
            forget.push(path.clone());
            assign.push(assignment(path, value, layer, &caller));
        }
        let edit = Edit {
            name: view.name.clone(),
            forget,
            assign,
            layer,
            identity: self.identities.get(&view.name).cloned(),
            how: How::default(),
            caller,
            validate_only: asked.validate_only,
        };
        self.make(edit).await
    }

    /// Has a listener serve, or not. What lower layers want already needs no change of its own.
    pub(super) async fn set_desired(&mut self, wish: Wish, caller: Caller) -> Result<View, Error> {
        let view = self.supervisor.current(&wish.name, &wish.etag)?;
        let layer = self.layer_of_change(&view.name, Persistence::Unspecified)?;
        let grace = match wish.verb {
            Verb::Stop { grace } => grace,
            _ => None,
        };
        let mut edit = Edit {
            name: view.name.clone(),
            forget: Vec::new(),
            assign: Vec::new(),
            layer,
            identity: self.identities.get(&view.name).cloned(),
            how: How {
                asked: Some(wish.verb.asked(self.supervisor.grace())),
                force: false,
                grace: Some(grace.unwrap_or_else(|| self.supervisor.grace())),
            },
            caller,
            validate_only: false,
        };
        let current = self.running.settings.listeners.get(&view.name);
        let current = current.map(to_value).unwrap_or_default();
        let mut wanted = wish.verb.keys();
        wanted.retain(|(key, value)| current.get(key).unwrap_or(&Value::Null) != value);
        let path = |key: &str| path_of(&view.name, &[key.to_owned()]);
        edit.forget = wanted.iter().map(|(key, _)| path(key)).collect();
        if !wanted.is_empty() {
            let without = self.spec_without(&edit).as_ref().map(to_value);
            let without = without.unwrap_or_default();
            wanted.retain(|(key, value)| without.get(key).unwrap_or(&Value::Null) != value);
        }
        for (key, value) in wanted {
            self.refuse_pinned(&path(key), layer)?;
            edit.assign
                .push(assignment(path(key), value, layer, &edit.caller));
        }
        let start = wish.verb == Verb::Start;
        match self.make(edit).await {
            Ok(changed) => Ok(changed.view),
            Err(error) => {
                if let (true, Error::Bind(error)) = (start, &error) {
                    self.supervisor.note_failure(&view.name, error);
                }
                Err(error)
            }
        }
    }

    /// Forgets a listener; one that lower layers define is hidden.
    pub(super) async fn delete(&mut self, asked: Deletion, caller: Caller) -> Result<View, Error> {
        let view = self.supervisor.current(&asked.name, &asked.etag)?;
        let path = path_of(&view.name, &[]);
        let layer = self.layer_of_change(&view.name, Persistence::Unspecified)?;
        self.refuse_pinned(&path, layer)?;
        let beneath = self.defined_beneath(&view.name);
        let hide = beneath.then(|| assignment(path.clone(), Value::Null, layer, &caller));
        let edit = Edit {
            name: view.name.clone(),
            forget: vec![path],
            assign: hide.into_iter().collect(),
            layer,
            identity: None,
            how: How {
                asked: None,
                force: asked.force,
                grace: Some(Duration::ZERO),
            },
            caller,
            validate_only: asked.validate_only,
        };
        self.make(edit).await.map(|_| view)
    }

    fn allows_shell(&self) -> bool {
        self.running.settings.grpc.allow_shell
    }

    /// The layer that a change goes to.
    fn layer(&self, persistence: Persistence, usual: Layer) -> Result<Layer, Error> {
        match persistence {
            Persistence::Durable if !self.store.keeps() => Err(Error::StoreInMemory),
            Persistence::Durable => Ok(Layer::Runtime),
            Persistence::Ephemeral => Ok(Layer::Ephemeral),
            Persistence::Unspecified => Ok(usual),
        }
    }

    /// The same for a listener that there is: nothing of one that ends with the process can be kept.
    fn layer_of_change(
        &self,
        name: &ListenerName,
        persistence: Persistence,
    ) -> Result<Layer, Error> {
        let path = path_of(name, &[]);
        let passing = self.ephemeral.iter().any(|change| change.path == path);
        let usual = if passing {
            Layer::Ephemeral
        } else {
            Layer::Runtime
        };
        match self.layer(persistence, usual)? {
            Layer::Runtime if passing => Err(Error::Ephemeral(name.to_string())),
            layer => Ok(layer),
        }
    }

    /// A change that a higher layer hides would be no change, now or after a restart.
    fn refuse_pinned(&self, path: &[String], layer: Layer) -> Result<(), Error> {
        match self.layers.pinned(path, Layer::Runtime) {
            Some((key, origin)) if layer == Layer::Runtime => Err(Error::Pinned { key, origin }),
            _ => Ok(()),
        }
    }

    /// Whether files, or what is built in, define a listener.
    fn defined_beneath(&self, name: &ListenerName) -> bool {
        let built_in =
            self.running.built_in && crate::settings::default_listeners().contains_key(name);
        built_in || self.layers.beneath_runtime(&path_of(name, &[])).is_some()
    }
}

pub(super) fn path_of(name: &ListenerName, field: &[String]) -> Vec<String> {
    let listener = ["listeners".to_owned(), name.to_string()];
    listener.into_iter().chain(field.iter().cloned()).collect()
}

pub(super) fn prefix(name: &ListenerName) -> String {
    format!("listeners.{name}.")
}

fn assignment(path: Vec<String>, value: Value, layer: Layer, caller: &Caller) -> Assignment {
    let text = |text: &str| (!text.is_empty()).then(|| text.into());
    Assignment {
        path,
        value,
        origin: Origin {
            set: Some(SystemTime::now()),
            by: text(&caller.actor),
            reason: text(&caller.reason),
            ..Origin::whole(layer, caller.method)
        },
    }
}
