//! From what runs to what should run: which listeners change, which keys, and what that costs. Pure but for the look at
//! how many sessions are open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::{Layer, Origin, Scope, Values, diff, to_value};
use crate::grpc::Changing;
use crate::settings::{Configured, Settings, listener_of, redacted};
use crate::supervisor::{Becomes, Change, ListenerName, Supervisor, Target};

/// Every key of some settings with the value that is obeyed.
pub(super) fn values(settings: &Settings) -> Values {
    Values::of(&to_value(&settings.resolved()))
}

/// What a listener should be.
pub(super) fn target(
    configured: &Configured,
    name: &ListenerName,
    identities: &BTreeMap<ListenerName, (String, SystemTime)>,
) -> Option<Target> {
    let spec = configured.settings.listeners.get(name)?.clone();
    let place = |key: &str| configured.origins.get(&format!("listeners.{name}.{key}"));
    let built_in = || Arc::new(Origin::whole(Layer::Default, "built in"));
    let origin = place("protocol").map_or_else(built_in, |setting| setting.origin.clone());
    let said = place("desired_state").map(|setting| &setting.origin);
    let by_call = said.filter(|o| matches!(o.layer, Layer::Runtime | Layer::Ephemeral));
    Some(Target {
        spec,
        updated: last_change(configured, name),
        why: by_call.map(|origin| told(origin)).unwrap_or_default(),
        identity: identities.get(name).cloned(),
        origin,
    })
}

/// When a call last changed a listener.
fn last_change(configured: &Configured, name: &ListenerName) -> Option<SystemTime> {
    let own = configured.origins.below(&format!("listeners.{name}"));
    own.filter_map(|(_, setting)| setting.origin.set).max()
}

/// Who made a change, when and why, in one line.
fn told(origin: &Origin) -> String {
    let mut line = origin.to_string();
    if let Some(set) = origin.set {
        line += &format!(" at {}", humantime::format_rfc3339_seconds(set));
    }
    if let Some(reason) = &origin.reason {
        line += &format!(": {reason}");
    }
    line
}

/// The listeners that become something else from one configuration to another.
pub(super) fn changes(
    from: &Configured,
    to: &Configured,
    identities: &BTreeMap<ListenerName, (String, SystemTime)>,
    reason: &str,
) -> Vec<Change> {
    let names = from.settings.listeners.keys();
    let names: BTreeSet<_> = names.chain(to.settings.listeners.keys()).collect();
    let change = |name: &ListenerName| {
        let (before, after) = (target(from, name, identities), target(to, name, identities));
        let same = match (&before, &after) {
            (Some(a), Some(b)) => a.spec == b.spec && a.origin == b.origin && a.why == b.why,
            (a, b) => a.is_none() && b.is_none(),
        };
        let to = match after {
            Some(target) => Becomes::Defined {
                target: Box::new(target),
                asked: None,
            },
            None => Becomes::Gone { force: true },
        };
        (!same).then(|| Change {
            name: name.clone(),
            to,
            grace: None,
            reason: reason.to_owned(),
        })
    };
    names.into_iter().filter_map(change).collect()
}

/// What differs, key by key, with when it takes effect and what it costs.
pub(super) fn changing(from: &Settings, to: &Settings, supervisor: &Supervisor) -> Vec<Changing> {
    let mut ends = BTreeMap::new();
    for name in from.listeners.keys() {
        ends.insert(
            name.as_str(),
            supervisor.would_end(name, to.listeners.get(name)),
        );
    }
    let change = |change: crate::config::Change| {
        let known = if change.to.is_some() { to } else { from };
        let scope = known.scope(&change.key);
        let listener = listener_of(&change.key);
        let gone = listener.is_some_and(|name| to.listeners.keys().all(|n| n.as_str() != name));
        let stops = change.key.ends_with(".desired_state");
        let sessions = listener.and_then(|name| ends.get(name)).copied();
        let show = |value: &Option<_>| value.as_ref().map(|value| redacted(&change.key, value));
        Changing {
            from: show(&change.from),
            to: show(&change.to),
            sessions: sessions
                .filter(|_| gone || stops || scope == Scope::Rebind)
                .unwrap_or(0),
            scope,
            key: change.key,
        }
    };
    diff(&values(from), &values(to))
        .into_iter()
        .map(change)
        .collect()
}

/// The listeners whose sessions end from one to the other, and how many do in all.
pub(super) fn ending(
    from: &Settings,
    to: &Settings,
    supervisor: &Supervisor,
) -> (Vec<ListenerName>, usize) {
    let ends = |name: &ListenerName| supervisor.would_end(name, to.listeners.get(name));
    let mut sum = 0;
    let mut names = Vec::new();
    for name in from.listeners.keys() {
        let sessions = ends(name);
        if sessions > 0 {
            sum += sessions;
            names.push(name.clone());
        }
    }
    (names, sum)
}
