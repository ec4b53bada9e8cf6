//! The files, read again: wholly taken over, or not at all.

use tracing::{error, info};

use super::plan::{changes, changing, ending};
use super::state::{State, tell};
use crate::config::{Layer, Layers, Problem, Problems, Reason, Scope};
use crate::grpc::{ReloadOptions, Reloaded, Warning};
use crate::settings::{Configured, configure};
use crate::supervisor::{Error, ListenerName, Prepared};

impl State {
    /// Reads the files and makes what they say so. Listeners that do not change keep their sockets and sessions.
    ///
    /// # Errors
    /// All that is wrong with the files; addresses that cannot be had; sessions that were to be kept. Nothing has changed
    /// then.
    pub(super) async fn reload(&mut self, options: ReloadOptions) -> Result<Reloaded, Error> {
        let seen = self.look().await;
        self.try_files(seen, options).await
    }

    /// The same when the files are others than those that were last tried: whoever only looks at them tries nothing.
    pub(super) async fn reload_if_changed(&mut self) {
        let seen = self.look().await;
        if seen.is_err() || self.on_disk.fingerprint() != self.tried {
            // It says in the log how it went.
            let _ = self.try_files(seen, ReloadOptions::default()).await;
        }
    }

    /// Takes over what was seen, and tells everybody how that went.
    async fn try_files(
        &mut self,
        seen: Result<(), Problems>,
        options: ReloadOptions,
    ) -> Result<Reloaded, Error> {
        let reloaded = match seen {
            Ok(()) => self.take_over(options).await,
            Err(problems) => Err(Error::Configuration(problems)),
        };
        if options.validate_only {
            return reloaded;
        }
        self.tried = self.on_disk.fingerprint();
        self.measures.reloaded(reloaded.as_ref().err().map(reason));
        self.measure_drift();
        match &reloaded {
            Ok(reloaded) => {
                tell(&reloaded.warnings);
                let (generation, changes) = (self.generation, reloaded.changes.len());
                info!(
                    generation,
                    changes,
                    revision = reloaded.revision,
                    "configuration reloaded"
                );
            }
            Err(Error::Configuration(problems)) => {
                for problem in problems {
                    error!(%problem, "configuration not reloaded");
                }
            }
            Err(error) => error!(%error, "configuration not reloaded"),
        }
        reloaded
    }

    async fn take_over(&mut self, options: ReloadOptions) -> Result<Reloaded, Error> {
        let layers = self.on_disk.clone();
        let (configured, waiting) = self.next(&layers)?;
        let before = &self.running.settings;
        let (listeners, sessions) = ending(before, &configured.settings, &self.supervisor);
        if options.keep_sessions && sessions > 0 {
            return Err(Error::WouldClose {
                sessions,
                listeners,
            });
        }
        let told = changing(before, &waiting.settings, &self.supervisor);
        let mut warnings = waiting.warnings.clone();
        warnings.extend(waiting.doubts(self.supervisor.most_sessions()));
        warnings.extend(
            told.iter()
                .filter(|c| c.scope == Scope::Restart)
                .map(needs_restart),
        );
        let prepared = self.prepare_all(&configured)?;
        if !options.validate_only {
            self.supervisor.commit(prepared).await;
            (self.layers, self.running) = (layers, configured);
            self.publish();
            self.generation += 1;
            self.obey();
        }
        Ok(Reloaded {
            revision: self.revision(),
            changes: told,
            warnings,
        })
    }

    /// What the layers make, first with what only a restart changes left as it runs, then as they say.
    fn next(&self, layers: &Layers) -> Result<(Configured, Configured), Error> {
        let waiting =
            configure(layers, &self.runtime, &self.ephemeral).map_err(Error::Configuration)?;
        let mut configured = waiting.clone();
        configured
            .settings
            .keep_what_a_restart_changes(&self.running.settings);
        Ok((configured, waiting))
    }

    fn prepare_all(&self, configured: &Configured) -> Result<Prepared, Error> {
        let changes = changes(&self.running, configured, &self.identities, "reload");
        self.supervisor.prepare(changes).map_err(|mut refused| {
            if refused.is_empty() {
                return Error::Stopping;
            }
            if refused.len() == 1 {
                return refused.remove(0).1;
            }
            let problem = |(name, error): (ListenerName, Error)| {
                let key = match error {
                    Error::Bind(_) => format!("listeners.{name}.bind"),
                    _ => format!("listeners.{name}"),
                };
                let place = configured.origins.get(&key).map(|s| (*s.origin).clone());
                let place = place.filter(|origin| origin.layer != Layer::Default);
                Problem::new(Reason::Invalid, key, error.to_string(), place)
            };
            Error::Configuration(Problems::new(refused.into_iter().map(problem).collect()))
        })
    }
}

fn needs_restart(change: &crate::grpc::Changing) -> Warning {
    Warning {
        key: change.key.clone(),
        reason: "RESTART_NEEDED",
        message: "it takes effect when the process is started again".into(),
        pinned_by: None,
    }
}

/// The word for why a reload was not made.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::Configuration(_) => "config_invalid",
        Error::Bind(_) => "bind_failed",
        Error::WouldClose { .. } => "would_close_sessions",
        _ => "refused",
    }
}
