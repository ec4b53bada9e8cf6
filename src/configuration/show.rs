//! What is in force, and what differs, as it may be shown.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

use super::plan::{changing, values};
use super::state::{State, read_again};
use crate::config::{
    Format, Layer, Origin, Origins, Problem, Problems, Reason, Scope, Setting, Shadow, Sources,
    diff, export, to_value,
};
use crate::grpc::{Changing, Effective, SettingRow, Side, Warning};
use crate::settings::{Configured, Settings, configure, redacted};
use crate::supervisor::Error;

/// Every value that is obeyed, with where it stands and what it hides; secrets are redacted. A key is drifted when
/// `next`, what a restart would give, has another value.
pub fn rows(
    running: &Settings,
    places: impl Fn(&str) -> Option<Setting>,
    next: Option<&Settings>,
) -> Vec<SettingRow> {
    let values_now = values(running);
    let drifted: Vec<_> = next.map_or_else(Vec::new, |next| {
        let changes = diff(&values_now, &values(next));
        changes.into_iter().map(|change| change.key).collect()
    });
    let nowhere = Arc::new(Origin::whole(Layer::Default, ""));
    let row = |(key, value): (&str, &Value)| {
        let place = places(key);
        let hide = |shadow: Shadow| Shadow {
            value: redacted(key, &shadow.value),
            ..shadow
        };
        let (origin, shadows) = place.map_or_else(
            || (nowhere.clone(), Vec::new()),
            |setting| (setting.origin, setting.shadows),
        );
        SettingRow {
            key: key.to_owned(),
            value: redacted(key, value),
            origin,
            shadows: shadows.into_iter().map(hide).collect(),
            scope: running.scope(key),
            drifted: drifted.iter().any(|drifted| drifted == key),
        }
    };
    values_now.iter().map(row).collect()
}

impl State {
    /// What is in force, key by key.
    pub(super) async fn effective(&mut self) -> Effective {
        // What it last saw is as much as it can tell.
        let _ = self.look().await;
        self.measure_drift();
        let next = self.after_restart().ok().map(|next| next.settings);
        let settings = &self.running.settings;
        // What only a restart changes stands where it stood at the start.
        let places = |key: &str| {
            let origins: &Origins = match settings.scope(key) {
                Scope::Restart => &self.started,
                _ => &self.running.origins,
            };
            origins.at(key).cloned()
        };
        Effective {
            settings: rows(settings, places, next.as_ref()),
            revision: self.revision(),
        }
    }

    /// The same for the same settings in force, in any process.
    pub(super) fn revision(&self) -> String {
        revision(&self.running.settings)
    }

    /// What is wrong with the files on disk, or with a document in their place, and what is only odd.
    pub(super) async fn validate(
        &mut self,
        document: Option<(String, Format)>,
    ) -> (Option<Problems>, Vec<Warning>) {
        let sources = Sources {
            document,
            ..self.sources.clone()
        };
        let layers = match read_again(sources).await {
            Ok(layers) => layers,
            Err(problems) => return (Some(problems), Vec::new()),
        };
        match configure(&layers, &self.runtime, &self.ephemeral) {
            Ok(configured) => {
                let doubts = configured.doubts(self.supervisor.most_sessions());
                (
                    None,
                    configured.warnings.into_iter().chain(doubts).collect(),
                )
            }
            Err(problems) => (Some(problems), Vec::new()),
        }
    }

    /// What differs between two sides.
    pub(super) async fn diff(&mut self, from: Side, to: Side) -> Result<Vec<Changing>, Error> {
        self.look().await.map_err(Error::Configuration)?;
        self.measure_drift();
        let (from, to) = (self.side(from)?, self.side(to)?);
        Ok(changing(&from, &to, &self.supervisor))
    }

    fn side(&self, side: Side) -> Result<Settings, Error> {
        let configured = match side {
            Side::Running => return Ok(self.running.settings.clone()),
            Side::Files => configure(&self.on_disk.files_only(), &[], &[]),
            Side::AfterRestart => self.after_restart(),
        };
        configured.map(|c| c.settings).map_err(Error::Configuration)
    }

    /// One document, with or without the changes that are kept; those that are not are left out.
    pub(super) async fn export(
        &mut self,
        format: Format,
        include_runtime_state: bool,
    ) -> Result<String, Error> {
        let changes = if include_runtime_state {
            &self.runtime[..]
        } else {
            &[]
        };
        let configured: Configured =
            configure(&self.layers, changes, &[]).map_err(Error::Configuration)?;
        let mut document = to_value(&configured.settings);
        if let Some(listeners) = document.get_mut("listeners").and_then(Value::as_object_mut) {
            for (name, spec) in &configured.settings.listeners {
                listeners.insert(name.to_string(), spec.said());
            }
        }
        export(&redacted("", &document), format).map_err(|error| {
            let problem = Problem::new(Reason::Invalid, error.key, error.message, None);
            Error::Configuration(problem.into())
        })
    }
}

/// Tells settings apart.
pub fn revision(settings: &Settings) -> String {
    let mut hasher = DefaultHasher::new();
    for (key, value) in values(settings).iter() {
        (key, value.to_string()).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}
