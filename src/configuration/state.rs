//! What the owner of the configuration knows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tracing::{error, warn};

use super::measure::Measures;
use super::plan::{target, values};
use crate::config::{
    Assignment, Layer, Layers, Origin, Origins, Problem, Problems, Reason, Sources, diff,
};
use crate::grpc::Warning;
use crate::settings::{Configured, configure};
use crate::store::{self, Store};
use crate::supervisor::{ListenerName, Supervisor};
use crate::telemetry::Telemetry;

/// What the owner is started with.
pub struct Parts {
    /// The places that a reload reads again.
    pub sources: Sources,
    /// What they said at the start.
    pub layers: Layers,
    /// The same, checked.
    pub configured: Configured,
    /// Where changes are kept.
    pub store: Store,
    /// What was kept.
    pub kept: store::Kept,
    /// Who runs the listeners.
    pub supervisor: Supervisor,
    /// Whose log a reload may change.
    pub telemetry: Telemetry,
    /// What is counted.
    pub measures: Arc<Measures>,
}

/// Everything that decides what should be.
pub(super) struct State {
    pub(super) sources: Sources,
    /// What the files, variables and flags said when they were last taken over.
    pub(super) layers: Layers,
    /// What they say now, as far as it was looked at; it may be wrong.
    pub(super) on_disk: Layers,
    /// Tells the files that a reload last tried to take over.
    pub(super) tried: u64,
    /// Changes that are kept.
    pub(super) runtime: Vec<Assignment>,
    /// Changes that are not.
    pub(super) ephemeral: Vec<Assignment>,
    /// Who the listeners are that calls have made: uid, and when.
    pub(super) identities: BTreeMap<ListenerName, (String, SystemTime)>,
    /// What is in force.
    pub(super) running: Configured,
    /// Where the settings stood that only a restart changes.
    pub(super) started: Origins,
    pub(super) store: Store,
    pub(super) supervisor: Supervisor,
    telemetry: Telemetry,
    pub(super) measures: Arc<Measures>,
    /// Reloads that were taken over.
    pub(super) generation: u64,
    /// The revision of what is in force, for those who do not wait for their turn.
    pub(super) published: Arc<Mutex<String>>,
}

impl State {
    /// Adopts every listener. What was changed at run time and fits no more is set aside, and said.
    pub(super) fn adopt(parts: Parts) -> Self {
        let runtime: Vec<_> = parts.kept.assignments.into_iter().map(read).collect();
        let identities = parts.kept.identities.into_iter().filter_map(|identity| {
            let name = identity.listener.parse().ok()?;
            Some((name, (identity.uid, identity.created)))
        });
        let running = configure(&parts.layers, &runtime, &[]).unwrap_or_else(|problems| {
            // The layers were checked before; what was kept cannot make them wrong.
            error!(%problems, "what was changed at run time is left out");
            parts.configured
        });
        let state = Self {
            sources: parts.sources,
            on_disk: parts.layers.clone(),
            tried: parts.layers.fingerprint(),
            layers: parts.layers,
            runtime,
            ephemeral: Vec::new(),
            identities: identities.collect(),
            started: running.origins.clone(),
            running,
            store: parts.store,
            supervisor: parts.supervisor,
            telemetry: parts.telemetry,
            measures: parts.measures,
            generation: 0,
            published: Arc::default(),
        };
        state.publish();
        tell(&state.running.warnings);
        for name in state.running.settings.listeners.keys() {
            if let Some(target) = target(&state.running, name, &state.identities) {
                state.supervisor.adopt(name.clone(), target);
            }
        }
        state.measure_drift();
        state
    }

    /// Reads the files again. Those of a disk that does not answer stay as they were last seen.
    pub(super) async fn look(&mut self) -> Result<(), Problems> {
        self.on_disk = read_again(self.sources.clone()).await?;
        Ok(())
    }

    /// What a restart would find of the files as they were last looked at.
    pub(super) fn after_restart(&self) -> Result<Configured, Problems> {
        let kept = if self.store.keeps() {
            &self.runtime[..]
        } else {
            &[]
        };
        configure(&self.on_disk, kept, &[])
    }

    /// Counts how much of what runs a restart would change.
    pub(super) fn measure_drift(&self) {
        let drift = match self.after_restart() {
            Ok(next) => diff(&values(&self.running.settings), &values(&next.settings)).len(),
            // A restart would not even start.
            Err(problems) => problems.iter().count(),
        };
        self.measures.drifted(drift);
    }

    /// Says which revision is in force now.
    pub(super) fn publish(&self) {
        *crate::net::lock(&self.published) = self.revision();
    }

    /// Has what is not a listener obey the settings that are now in force.
    pub(super) fn obey(&self) {
        let settings = &self.running.settings;
        self.supervisor.set_grace(settings.shutdown.grace);
        if let Err(fault) = self.telemetry.set_log(&settings.telemetry.log) {
            warn!(%fault, "telemetry.log could not be obeyed");
        }
    }
}

/// How long a disk may take for files of at most 1 MiB.
const PATIENCE: Duration = Duration::from_secs(10);

/// What these places say now, read off the runtime's threads.
pub(super) async fn read_again(sources: Sources) -> Result<Layers, Problems> {
    let reading = tokio::task::spawn_blocking(move || Layers::read(&sources));
    let message = match tokio::time::timeout(PATIENCE, reading).await {
        Ok(Ok(layers)) => return Ok(layers),
        Ok(Err(fault)) => format!("the files could not be read: {fault}"),
        Err(_) => format!("the files could not be read within {PATIENCE:?}"),
    };
    Err(Problem::new(Reason::Unreadable, String::new(), message, None).into())
}

/// Says each warning in the log.
pub(super) fn tell(warnings: &[Warning]) {
    for Warning {
        key,
        reason,
        message,
        ..
    } in warnings
    {
        warn!(key, reason, "{message}");
    }
}

/// A kept change, as a layer has it.
fn read(kept: store::Assignment) -> Assignment {
    let text = |text: String| (!text.is_empty()).then(|| text.into());
    Assignment {
        path: kept.path,
        value: kept.value,
        origin: Origin {
            set: Some(kept.set_time),
            by: text(kept.set_by),
            reason: text(kept.reason),
            ..Origin::whole(Layer::Runtime, &kept.method)
        },
    }
}

/// The same as it is kept.
pub(super) fn kept(change: &Assignment) -> store::Assignment {
    let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
    store::Assignment {
        path: change.path.clone(),
        value: change.value.clone(),
        method: change.origin.source.to_string(),
        reason: text(&change.origin.reason),
        set_by: text(&change.origin.by),
        set_time: change.origin.set.unwrap_or(SystemTime::UNIX_EPOCH),
    }
}
