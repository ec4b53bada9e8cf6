//! The layers, with what was changed at run time, as one checked configuration.
//!
//! A change was checked when it was made, but the files beneath it may have changed since: then it may fit no more. What
//! does not fit is set aside, told, and kept for the day it fits again; it neither keeps the process from starting nor a
//! reload from being made.

use crate::config::{
    Assignment, Layer, Layers, Loaded, Origins, Problem, Problems, Reason, is_within, key, to_value,
};
use crate::grpc::Warning;
use crate::protocol::Protocol;

use super::cross::{clashes, doubts};
use super::scope::{discreet, listener_of};
use super::{Settings, default_listeners};

/// A configuration that can be obeyed.
#[derive(Debug, Clone)]
pub struct Configured {
    /// The settings.
    pub settings: Settings,
    /// Where each is set.
    pub origins: Origins,
    /// Changes of run time that are not in force, and why.
    pub aside: Vec<Aside>,
    /// What does not have the effect that one may expect.
    pub warnings: Vec<Warning>,
    /// Whether the built-in listeners are beneath.
    pub built_in: bool,
}

/// A change of run time that is not in force.
#[derive(Debug, Clone)]
pub struct Aside {
    /// The change.
    pub assignment: Assignment,
    /// Why.
    pub problem: Problem,
}

/// Lays `runtime` and `ephemeral` over `layers` and checks the whole.
///
/// # Errors
/// Every problem that is not of a change made at run time.
pub fn configure(
    layers: &Layers,
    runtime: &[Assignment],
    ephemeral: &[Assignment],
) -> Result<Configured, Problems> {
    let (base, built_in) = with_built_in(layers);
    let mut changes: Vec<_> = runtime.iter().chain(ephemeral).cloned().collect();
    let mut aside = Vec::new();
    loop {
        let mut all = base.clone();
        let (kept, passing) = split(&changes);
        all.set_runtime(kept);
        all.set_ephemeral(passing);
        let orphans = all.take_orphans(2);
        let refused = match checked(&all) {
            Ok((settings, origins)) => {
                aside.extend(orphans.into_iter().map(orphan));
                let unallowed = unallowed_shells(&settings, &changes);
                if unallowed.is_empty() {
                    let mut configured = Configured {
                        settings,
                        origins,
                        aside,
                        warnings: Vec::new(),
                        built_in,
                    };
                    configured.warn(&base);
                    return Ok(configured);
                }
                unallowed
            }
            Err(problems) => blamed(&problems, &changes).ok_or_else(|| discreet(problems))?,
        };
        changes.retain(|change| !refused.iter().any(|aside| aside.assignment == *change));
        aside.extend(refused);
    }
}

/// With the built-in listeners at the bottom when no file, variable or flag names any.
fn with_built_in(layers: &Layers) -> (Layers, bool) {
    if layers.configured(&["listeners"]).is_some() {
        return (layers.clone(), false);
    }
    let listeners = to_value(&default_listeners());
    let built_in = serde_json::json!({ "listeners": listeners });
    (layers.clone().with_defaults(&built_in), true)
}

fn split(changes: &[Assignment]) -> (Vec<Assignment>, Vec<Assignment>) {
    changes
        .iter()
        .cloned()
        .partition(|change| change.origin.layer == Layer::Runtime)
}

/// The settings of these layers, if all of them can be obeyed.
fn checked(layers: &Layers) -> Result<(Settings, Origins), Problems> {
    let Loaded {
        value: settings,
        origins,
    } = layers.load::<Settings>()?;
    let mut faults = settings.faults();
    let changed = |key: &str| {
        let listener = key.strip_suffix(".bind");
        let serves = listener.map(|listener| format!("{listener}.desired_state"));
        is_changed(&origins, key) || serves.is_some_and(|key| is_changed(&origins, &key))
    };
    let clashes = clashes(&settings).into_iter();
    // What was changed at run time fails to bind and is tried again; only files can be wrong about it.
    let of_files = clashes.filter(|clash| !changed(&clash.key) && !changed(&clash.other));
    faults.extend(of_files.map(|clash| (clash.key.clone(), clash.message())));
    let problem = |(key, message): (String, String)| {
        // A key that is not set has the place of the table that lacks it, if any.
        let origin = origins.get(&key).map(|setting| (*setting.origin).clone());
        Problem::new(Reason::Invalid, key, message, origin)
    };
    let problems: Vec<_> = faults.into_iter().map(problem).collect();
    if problems.is_empty() {
        Ok((settings, origins))
    } else {
        Err(layers.explained(problems))
    }
}

fn is_changed(origins: &Origins, key: &str) -> bool {
    let layer = origins.get(key).map(|setting| setting.origin.layer);
    matches!(layer, Some(Layer::Runtime | Layer::Ephemeral))
}

fn orphan(assignment: Assignment) -> Aside {
    let name = key(&assignment.path);
    let message = "what it changes is defined nowhere any more".to_owned();
    let origin = Some(assignment.origin.clone());
    let problem = Problem::new(Reason::Missing, name, message, origin);
    Aside {
        assignment,
        problem,
    }
}

/// The changes that these problems come from; `None` when nothing was changed, so that the files are wrong.
fn blamed(problems: &Problems, changes: &[Assignment]) -> Option<Vec<Aside>> {
    let pairs = |problem| {
        suspects(problem, changes)
            .into_iter()
            .map(move |c| (c, problem))
    };
    let mut blamed: Vec<_> = problems.iter().flat_map(pairs).collect();
    if blamed.is_empty() {
        // Whether the files are wrong by themselves is seen once nothing is changed.
        let first = problems.iter().next()?;
        blamed.extend(changes.iter().map(|change| (change, first)));
    }
    let mut asides: Vec<Aside> = Vec::new();
    for (change, problem) in blamed {
        if !asides.iter().any(|aside| aside.assignment == *change) {
            asides.push(Aside {
                assignment: change.clone(),
                problem: problem.clone(),
            });
        }
    }
    (!asides.is_empty()).then_some(asides)
}

/// The changes of the listener whose key is refused that may be the reason: what was changed at the key itself, the part
/// before the whole; then, since one field may be refused for what another says, what was changed of it at all. How it was
/// made comes last: it was in order by itself.
fn suspects<'c>(problem: &Problem, changes: &'c [Assignment]) -> Vec<&'c Assignment> {
    let wrong = &problem.key;
    let of_listener = |change: &&Assignment| same_listener(&key(&change.path), wrong);
    let (parts, made): (Vec<_>, Vec<_>) = changes
        .iter()
        .filter(of_listener)
        .partition(|change| change.path.len() > 2);
    let at_key = parts
        .iter()
        .filter(|c| meets(&key(&c.path), wrong))
        .copied();
    let at_key: Vec<_> = at_key.collect();
    let depth = at_key.iter().map(|change| change.path.len()).max();
    let deepest = at_key.into_iter().filter(|c| Some(c.path.len()) == depth);
    let ranked = [deepest.collect(), parts, made];
    ranked
        .into_iter()
        .find(|found: &Vec<_>| !found.is_empty())
        .unwrap_or_default()
}

/// Whether one key is the other, or stands within it.
fn meets(one: &str, other: &str) -> bool {
    is_within(one, other) || is_within(other, one)
}

fn same_listener(one: &str, other: &str) -> bool {
    listener_of(one).is_some() && listener_of(one) == listener_of(other)
}

/// What a change of a shell listener may not touch unless a file allows it: it is the right to run commands.
pub fn widens_shell(field: &[String]) -> bool {
    let first = field.first().map(String::as_str);
    let narrow = [
        "desired_state",
        "display_name",
        "labels",
        "pause_mode",
        "resume_time",
    ];
    let limits = first == Some("limits") && field.get(1).is_some_and(|f| f != "allow_cidrs");
    !limits && first.is_none_or(|first| !narrow.contains(&first))
}

/// Shells that calls made or widened while that was allowed, and it no longer is.
fn unallowed_shells(settings: &Settings, changes: &[Assignment]) -> Vec<Aside> {
    if settings.grpc.allow_shell {
        return Vec::new();
    }
    let is_shell = |name: &str| {
        let found = settings.listeners.iter().find(|(n, _)| n.as_str() == name);
        found.is_some_and(|(_, spec)| matches!(spec.protocol, Protocol::Shell(_)))
    };
    let unallowed = changes.iter().filter(|change| match &change.path[..] {
        [listeners, name, field @ ..] => {
            listeners == "listeners" && is_shell(name) && widens_shell(field)
        }
        _ => false,
    });
    unallowed
        .map(|change| {
            let message = "it made or widened a shell, and grpc.allow_shell is not true";
            let (key, origin) = (key(&change.path), Some(change.origin.clone()));
            Aside {
                assignment: change.clone(),
                problem: Problem::new(Reason::Invalid, key, message.to_owned(), origin),
            }
        })
        .collect()
}

impl Configured {
    /// What one may not expect of it.
    fn warn(&mut self, base: &Layers) {
        let set_aside = self.aside.iter().map(|aside| Warning {
            key: key(&aside.assignment.path),
            reason: "CHANGE_SET_ASIDE",
            message: format!(
                "the change made by {} is not in force: {}",
                aside.assignment.origin, aside.problem.message
            ),
            pinned_by: None,
        });
        self.warnings = set_aside.collect();
        let (settings, origins) = (&self.settings, &self.origins);
        for clash in clashes(settings) {
            self.warnings.push(Warning {
                message: clash.message(),
                key: clash.key,
                reason: "ADDRESS_OVERLAP",
                pinned_by: None,
            });
        }
        for (key, setting) in origins.iter() {
            let Some(name) = listener_of(key).filter(|name| is_gone(name, settings)) else {
                continue;
            };
            let by_call = matches!(setting.origin.layer, Layer::Runtime | Layer::Ephemeral);
            let hidden = base.configured(&["listeners", name]);
            if let Some(hidden) = hidden.filter(|_| by_call && !setting.shadows.is_empty()) {
                self.warnings.push(Warning {
                    key: format!("listeners.{name}"),
                    reason: "DELETED_AT_RUN_TIME",
                    message: format!(
                        "{hidden} defines it, and {} deleted it; it stays away until it is created again",
                        setting.origin
                    ),
                    pinned_by: Some(setting.origin.clone()),
                });
            }
        }
    }

    /// The warnings that depend on the host, of which the descriptor limit carries so many sessions.
    pub fn doubts(&self, most_sessions: usize) -> Vec<Warning> {
        doubts(&self.settings, most_sessions)
    }
}

/// Whether nothing of this name is left, though something says it.
fn is_gone(name: &str, settings: &Settings) -> bool {
    settings
        .listeners
        .keys()
        .all(|there| there.as_str() != name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, Origin, Sources};
    use serde_json::{Value, json};

    fn layers(toml: &str) -> Layers {
        Layers::read(&Sources {
            document: Some((toml.to_owned(), Format::Toml)),
            ..Sources::default()
        })
    }

    fn change(path: &str, value: Value) -> Assignment {
        Assignment {
            path: path.split('.').map(str::to_owned).collect(),
            value,
            origin: Origin::whole(Layer::Runtime, "UpdateListener"),
        }
    }

    const WEB: &str = "[listeners.web]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n";

    fn names(configured: &Configured) -> Vec<&str> {
        let listeners = configured.settings.listeners.keys();
        listeners.map(|name| name.as_str()).collect()
    }

    #[test]
    fn changes_of_run_time_alone_leave_the_built_in_listeners_as_they_are() {
        let changes = [
            change("listeners.ack.desired_state", json!("stopped")),
            change("listeners.chat", Value::Null),
            change(
                "listeners.more",
                json!({ "protocol": "ack", "bind": "127.0.0.1:0" }),
            ),
        ];
        let configured = configure(&layers(""), &changes, &[]).unwrap();
        assert_eq!(
            names(&configured),
            ["ack", "more", "qq", "shell", "uppercase"]
        );
        assert!(configured.aside.is_empty(), "{:?}", configured.aside);
        let named = configure(&layers(WEB), &changes[2..], &[]).unwrap();
        assert_eq!(names(&named), ["more", "web"]);
    }

    #[test]
    fn a_change_of_what_is_no_longer_defined_waits() {
        let changes = [change("listeners.gone.desired_state", json!("stopped"))];
        let configured = configure(&layers(WEB), &changes, &[]).unwrap();
        assert_eq!(names(&configured), ["web"]);
        assert_eq!(configured.aside[0].assignment, changes[0]);
        assert_eq!(configured.warnings[0].reason, "CHANGE_SET_ASIDE");
    }

    #[test]
    fn a_change_that_fits_no_more_is_set_aside_and_no_other() {
        // The files made another protocol of it meanwhile.
        let chat = WEB.replace("ack", "chat");
        let changes = [
            change("listeners.web.reply", json!("hello")),
            change("listeners.web.display_name", json!("kept")),
            change(
                "listeners.other",
                json!({ "protocol": "ack", "bind": "127.0.0.1:0" }),
            ),
        ];
        let configured = configure(&layers(&chat), &changes, &[]).unwrap();
        let aside: Vec<_> = configured.aside.iter().map(|a| &a.assignment).collect();
        assert_eq!(aside, [&changes[0]]);
        assert_eq!(names(&configured), ["other", "web"]);
        let web = configured.settings.listeners.values().next_back().unwrap();
        assert_eq!(web.display_name, "kept");
    }

    #[test]
    fn what_one_field_does_to_another_is_the_changes_fault_and_not_the_files() {
        let chat = WEB.replace("ack", "chat");
        let changes = [change("listeners.web.mode", json!("room"))];
        let configured = configure(&layers(&chat), &changes, &[]).unwrap();
        assert_eq!(configured.aside.len(), 1, "{:?}", configured.aside);
        // The same in the file is the file's.
        assert!(configure(&layers(&format!("{chat}mode = \"room\"\n")), &changes, &[]).is_err());
    }

    #[test]
    fn wrong_files_are_wrong_whatever_was_changed() {
        let changes = [change("listeners.web.display_name", json!("x"))];
        let broken = format!("{WEB}bnd = 1\n[listeners.two]\nprotocol = \"ack\"\n");
        let problems = configure(&layers(&broken), &changes, &[]).unwrap_err();
        let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(keys, ["listeners.web.bnd", "listeners.two.bind"]);
    }

    #[test]
    fn a_shell_that_calls_made_is_gone_once_they_may_not() {
        let shell = json!({ "protocol": "shell", "bind": "127.0.0.1:0", "programs": ["date"] });
        let changes = [change("listeners.s", shell)];
        let allowed = format!("{WEB}[grpc]\nallow_shell = true\n");
        let configured = configure(&layers(&allowed), &changes, &[]).unwrap();
        assert_eq!(names(&configured), ["s", "web"]);
        let configured = configure(&layers(WEB), &changes, &[]).unwrap();
        assert_eq!(names(&configured), ["web"]);
        assert_eq!(configured.aside.len(), 1);
    }

    #[test]
    fn a_deletion_of_what_the_files_define_is_told() {
        let changes = [change("listeners.web", Value::Null)];
        let two = format!("{WEB}{}", WEB.replace("web", "two"));
        let configured = configure(&layers(&two), &changes, &[]).unwrap();
        assert_eq!(names(&configured), ["two"]);
        let reasons: Vec<_> = configured.warnings.iter().map(|w| w.reason).collect();
        assert_eq!(
            reasons,
            ["DELETED_AT_RUN_TIME"],
            "{:?}",
            configured.warnings
        );
    }

    #[test]
    fn addresses_that_overlap_are_the_files_fault_or_a_warning() {
        let fixed = WEB.replace(":0", ":7");
        let two = format!(
            "{fixed}{}",
            fixed.replace("web", "two").replace("127.0.0.1", "0.0.0.0")
        );
        let problems = configure(&layers(&two), &[], &[]).unwrap_err();
        assert!(
            problems
                .to_string()
                .contains("overlaps with listeners.two.bind"),
            "{problems}"
        );
        let made = json!({ "protocol": "ack", "bind": "127.0.0.1:7" });
        let configured = configure(&layers(&fixed), &[change("listeners.two", made)], &[]).unwrap();
        assert_eq!(configured.warnings[0].reason, "ADDRESS_OVERLAP");
    }
}
