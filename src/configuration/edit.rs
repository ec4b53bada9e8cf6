//! One edit of what was changed at run time: checked with the whole, put on disk, made so.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::change::{path_of, prefix};
use super::plan::changes;
use super::state::{State, kept};
use crate::config::{Assignment, Layer, Reason, key};
use crate::grpc::{Caller, Changed, Warning};
use crate::settings::{Aside, Configured, configure};
use crate::store::{Event, Identity, Write};
use crate::supervisor::{
    Asked, Becomes, Change, Error, ListenerName, Prepared, Spec, View, Violation, etag,
};

/// What is to be changed of the changes made at run time.
pub(super) struct Edit {
    pub(super) name: ListenerName,
    /// Paths that are forgotten, with all that is below them.
    pub(super) forget: Vec<Vec<String>>,
    pub(super) assign: Vec<Assignment>,
    pub(super) layer: Layer,
    /// Who the listener is from now on, if a call makes it to stay.
    pub(super) identity: Option<(String, SystemTime)>,
    pub(super) how: How,
    pub(super) caller: Caller,
    pub(super) validate_only: bool,
}

/// What the supervisor has to know besides.
#[derive(Default)]
pub(super) struct How {
    /// What its caller waits for.
    pub(super) asked: Option<Asked>,
    pub(super) force: bool,
    pub(super) grace: Option<Duration>,
}

impl Edit {
    /// What the drains that it begins are told to be for.
    fn reason(&self) -> &str {
        match &*self.caller.reason {
            "" => self.caller.method,
            reason => reason,
        }
    }
}

/// An edit that was checked, with its sockets.
struct Checked {
    runtime: Vec<Assignment>,
    ephemeral: Vec<Assignment>,
    configured: Configured,
    prepared: Prepared,
}

impl State {
    /// Checks an edit, puts it on disk, and makes it so.
    pub(super) async fn make(&mut self, edit: Edit) -> Result<Changed, Error> {
        let before = self.supervisor.get(edit.name.as_str()).ok();
        let Checked {
            runtime,
            ephemeral,
            configured,
            prepared,
        } = self.check(&edit)?;
        let after = configured.settings.listeners.get(&edit.name).cloned();
        let effects = effects(before.as_ref().map(|view| &view.spec), after.as_ref());
        let warnings = self.about(&edit, &configured);
        if edit.validate_only {
            let target = super::plan::target(&configured, &edit.name, &self.identities);
            let view = match target {
                Some(target) => self.supervisor.preview(&edit.name, target),
                None => self.supervisor.get(edit.name.as_str())?,
            };
            return Ok(Changed {
                view,
                effects,
                warnings,
            });
        }
        if edit.layer == Layer::Runtime {
            let write = self.write(&edit, before.as_ref(), after.as_ref());
            self.store.write(write).await.map_err(Error::NotKept)?;
        } else {
            let event = Self::event(&edit, before.as_ref(), after.as_ref());
            self.store.record(event).await;
        }
        self.identify(&edit, after.is_some());
        self.supervisor.commit(prepared).await;
        (self.runtime, self.ephemeral, self.running) = (runtime, ephemeral, configured);
        self.publish();
        // What a restart would find has changed with what runs.
        if edit.layer != Layer::Runtime || !self.store.keeps() || self.measures.has_drifted() {
            self.measure_drift();
        }
        let view = match (self.supervisor.get(edit.name.as_str()), before) {
            (Ok(view), _) | (Err(_), Some(view)) => view,
            (Err(error), None) => return Err(error),
        };
        Ok(Changed {
            view,
            effects,
            warnings,
        })
    }

    fn check(&mut self, edit: &Edit) -> Result<Checked, Error> {
        let (mut runtime, mut ephemeral) = (self.runtime.clone(), self.ephemeral.clone());
        // The last word counts: what is kept is not hidden by what is not.
        forget(&mut ephemeral, edit);
        let edited = match edit.layer {
            Layer::Ephemeral => &mut ephemeral,
            _ => {
                forget(&mut runtime, edit);
                edit.assign
                    .iter()
                    .for_each(|kept| agree(&mut ephemeral, kept));
                &mut runtime
            }
        };
        edited.extend(edit.assign.iter().cloned());
        let mut configured =
            configure(&self.layers, &runtime, &ephemeral).map_err(Error::Configuration)?;
        let running = &self.running.settings;
        configured.settings.keep_what_a_restart_changes(running);
        let mut violations = Vec::new();
        for aside in &configured.aside {
            let is_aside = |other: &Aside| other.assignment == aside.assignment;
            // Nor may it void what another call has changed, unless that changes what is no longer there.
            let voids =
                aside.problem.reason != Reason::Missing && !self.running.aside.iter().any(is_aside);
            if voids || edit.assign.contains(&aside.assignment) {
                let field = aside.problem.key.strip_prefix(&prefix(&edit.name));
                violations.push(Violation {
                    field: field.unwrap_or(&aside.problem.key).to_owned(),
                    description: aside.problem.message.clone(),
                });
            }
        }
        if !violations.is_empty() {
            violations.dedup();
            return Err(Error::Invalid(violations));
        }
        let mut identities = self.identities.clone();
        if let Some(identity) = &edit.identity {
            identities.insert(edit.name.clone(), identity.clone());
        }
        let mut wanted = changes(&self.running, &configured, &identities, edit.reason());
        self.adjust(&mut wanted, edit, &configured, &identities);
        let refused = |refused: Vec<(ListenerName, Error)>| {
            let first = refused.into_iter().next();
            first.map_or(Error::Stopping, |(_, error)| error)
        };
        let prepared = self.supervisor.prepare(wanted).map_err(refused)?;
        Ok(Checked {
            runtime,
            ephemeral,
            prepared,
            configured,
        })
    }

    /// The listener that is asked about is told what the caller wants, even if nothing of its definition changes.
    fn adjust(
        &self,
        wanted: &mut Vec<Change>,
        edit: &Edit,
        configured: &Configured,
        identities: &BTreeMap<ListenerName, (String, SystemTime)>,
    ) {
        let found = wanted.iter().position(|change| change.name == edit.name);
        let mut change = match (
            found,
            super::plan::target(configured, &edit.name, identities),
        ) {
            (Some(index), _) => wanted.remove(index),
            (None, Some(target)) => Change {
                name: edit.name.clone(),
                to: Becomes::Defined {
                    target: Box::new(target),
                    asked: None,
                },
                grace: None,
                reason: edit.reason().to_owned(),
            },
            (None, None) => return,
        };
        change.grace = edit.how.grace;
        match &mut change.to {
            Becomes::Defined { asked, .. } => *asked = edit.how.asked,
            Becomes::Gone { force } => *force = edit.how.force,
        }
        wanted.push(change);
    }

    /// What is put on disk: the change, who the listener is, and who made it.
    fn write(&self, edit: &Edit, before: Option<&View>, after: Option<&Spec>) -> Write {
        let listener = edit.name.to_string();
        let identity = edit.identity.as_ref().map(|(uid, created)| Identity {
            listener: listener.clone(),
            uid: uid.clone(),
            created: *created,
        });
        let event = Self::event(edit, before, after);
        Write {
            forget: edit.forget.clone(),
            assign: edit.assign.iter().map(kept).collect(),
            identities: vec![(listener.clone(), identity.filter(|_| after.is_some()))],
            event: Some(event),
            answer: edit.caller.done.clone(),
            answers_from: None,
        }
    }

    /// What the audit trail says of it.
    fn event(edit: &Edit, before: Option<&View>, after: Option<&Spec>) -> Event {
        let uid = edit.identity.as_ref().map_or("", |(uid, _)| uid);
        Event {
            before_etag: before.map(|view| view.etag.clone()).unwrap_or_default(),
            after_etag: after.map(|spec| etag(uid, spec)).unwrap_or_default(),
            ..edit.caller.event(&format!("listeners/{}", edit.name), "OK")
        }
    }

    fn identify(&mut self, edit: &Edit, is_there: bool) {
        match &edit.identity {
            Some(identity) if is_there => {
                self.identities.insert(edit.name.clone(), identity.clone());
            }
            _ => {
                self.identities.remove(&edit.name);
            }
        }
    }

    /// What the caller should know of a change that was taken.
    fn about(&self, edit: &Edit, configured: &Configured) -> Vec<Warning> {
        let mut warnings: Vec<_> = configured
            .doubts(self.supervisor.most_sessions())
            .into_iter()
            .filter(|warning| warning.key.starts_with(&prefix(&edit.name)))
            .collect();
        if edit.layer == Layer::Runtime && !self.store.keeps() && !edit.assign.is_empty() {
            warnings.push(Warning {
                key: key(&path_of(&edit.name, &[])),
                reason: "NOT_KEPT",
                message: "the store is in memory (store.path): the change ends with the process"
                    .into(),
                pinned_by: None,
            });
        }
        warnings
    }

    /// What a listener should be once an edit has forgotten what it forgets.
    pub(super) fn spec_without(&self, edit: &Edit) -> Option<Spec> {
        let (mut runtime, mut ephemeral) = (self.runtime.clone(), self.ephemeral.clone());
        forget(&mut ephemeral, edit);
        if edit.layer == Layer::Runtime {
            forget(&mut runtime, edit);
        }
        let configured = configure(&self.layers, &runtime, &ephemeral).ok()?;
        configured.settings.listeners.get(&edit.name).cloned()
    }
}

/// Takes out what an edit forgets, and what it assigns anew.
fn forget(changes: &mut Vec<Assignment>, edit: &Edit) {
    let assigned = edit.assign.iter().map(|change| &change.path);
    let paths: Vec<_> = edit.forget.iter().chain(assigned).collect();
    changes.retain(|change| !paths.iter().any(|path| change.path.starts_with(path)));
}

/// Has a whole that is not kept say of its parts what is kept of them.
fn agree(passing: &mut [Assignment], kept: &Assignment) {
    let wholes = passing
        .iter_mut()
        .filter(|whole| kept.path.starts_with(&whole.path));
    for whole in wholes {
        say(
            &mut whole.value,
            &kept.path[whole.path.len()..],
            &kept.value,
        );
    }
}

/// Puts a value into a table of tables; what is no table has no parts.
fn say(within: &mut Value, path: &[String], value: &Value) {
    match (path.split_first(), within) {
        (None, within) => *within = value.clone(),
        (Some((part, rest)), Value::Object(table)) => {
            let inner = table.entry(part);
            say(
                inner.or_insert_with(|| Value::Object(Map::new())),
                rest,
                value,
            );
        }
        (Some(_), _) => {}
    }
}

/// What changed of a listener and when it takes effect; of a new one nothing did.
fn effects(before: Option<&Spec>, after: Option<&Spec>) -> Vec<(String, crate::config::Scope)> {
    let (Some(before), Some(after)) = (before, after) else {
        return Vec::new();
    };
    let changes = before.changes(after).into_iter();
    let effect = |change: crate::config::Change| {
        let scope = after.scope(&change.key)?;
        Some((change.key, scope))
    };
    changes.filter_map(effect).collect()
}
