//! What should be, and the one place that changes it.
//!
//! ```text
//!  files, variables, flags ─┐
//!  changes kept in the store ├─ settings::configure ─▶ settings ─▶ what differs ─▶ supervisor
//!  changes that are not kept ┘
//! ```
//!
//! One task owns it all and makes one change after the other: it checks the whole, binds, puts the change on disk, and
//! only then makes it so; nothing can come half-way. A change goes on to its end though its caller has left.

mod change;
mod edit;
mod measure;
mod plan;
mod reload;
mod resume;
mod show;
mod state;
mod watch;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::async_trait;

pub use measure::Measures;
pub use show::{revision, rows};
pub use state::Parts;

use crate::config::{Format, Problems};
use crate::grpc::{
    Caller, Changed, Changing, Creation, Deletion, Effective, ReloadOptions, Reloaded, Side,
    Update, Verb, Warning, Wish,
};
use crate::supervisor::{Error, View};
use crate::telemetry::{current_trace, traced};
use state::State;

/// Changes that wait for their turn; whoever comes then waits for a place.
const WAITING: usize = 256;

/// One turn of the owner.
type Turn = Box<dyn for<'s> FnOnce(&'s mut State) -> Working<'s, ()> + Send>;
type Working<'s, T> = Pin<Box<dyn Future<Output = T> + Send + 's>>;

/// The way to the owner of the configuration. A cheap handle.
#[derive(Clone)]
pub struct Owner {
    turns: mpsc::Sender<Turn>,
    supervisor: crate::supervisor::Supervisor,
    revision: Arc<Mutex<String>>,
}

impl Owner {
    /// Takes over what the process was started with: every listener is adopted, and from then on only changed here. The
    /// task ends with `stop`, after the change that is being made.
    pub fn start(parts: Parts, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let supervisor = parts.supervisor.clone();
        let mut state = State::adopt(parts);
        let revision = state.published.clone();
        let (turns, mut waiting) = mpsc::channel::<Turn>(WAITING);
        tasks.spawn(async move {
            while let Some(Some(turn)) = stop.run_until_cancelled(waiting.recv()).await {
                turn(&mut state).await;
            }
        });
        Self {
            turns,
            supervisor,
            revision,
        }
    }

    /// Reloads when the files are others than those that were last looked at, as long as `stop` is not cancelled.
    pub async fn watch(self, stop: CancellationToken) {
        watch::follow(self, stop).await;
    }

    /// Resumes listeners whose pause has an end, as long as `stop` is not cancelled.
    pub async fn resume_in_time(self, stop: CancellationToken) {
        resume::follow(self, stop).await;
    }

    /// Has the owner do something when its turn comes.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl for<'s> FnOnce(&'s mut State) -> Working<'s, T> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let trace = current_trace();
        let turn: Turn = Box::new(move |state| {
            Box::pin(traced(trace, async move {
                // Whoever asked may have left; what was done is done.
                let _ = answer.send(work(state).await);
            }))
        });
        self.turns.send(turn).await.map_err(|_| Error::Stopping)?;
        answered.await.map_err(|_| Error::Stopping)
    }
}

#[async_trait]
impl crate::grpc::Configuration for Owner {
    async fn create(&self, creation: Creation, caller: Caller) -> Result<Changed, Error> {
        self.ask(|state| Box::pin(state.create(creation, caller)))
            .await?
    }

    async fn update(&self, update: Update, caller: Caller) -> Result<Changed, Error> {
        self.ask(|state| Box::pin(state.update(update, caller)))
            .await?
    }

    async fn set_desired(&self, wish: Wish, caller: Caller) -> Result<View, Error> {
        let stops = matches!(wish.verb, Verb::Stop { .. });
        let view = self
            .ask(|state| Box::pin(state.set_desired(wish, caller)))
            .await??;
        if stops {
            self.supervisor.settled(&view.name, &view.uid).await;
        }
        self.supervisor.get(view.name.as_str())
    }

    async fn delete(&self, deletion: Deletion, caller: Caller) -> Result<(), Error> {
        let view = self
            .ask(|state| Box::pin(state.delete(deletion, caller)))
            .await??;
        self.supervisor.settled(&view.name, &view.uid).await;
        Ok(())
    }

    fn revision(&self) -> String {
        crate::net::lock(&self.revision).clone()
    }

    async fn effective(&self) -> Result<Effective, Error> {
        self.ask(|state| Box::pin(state.effective())).await
    }

    async fn validate(
        &self,
        document: Option<(String, Format)>,
    ) -> Result<(Option<Problems>, Vec<Warning>), Error> {
        self.ask(|state| Box::pin(state.validate(document))).await
    }

    async fn diff(&self, from: Side, to: Side) -> Result<Vec<Changing>, Error> {
        self.ask(move |state| Box::pin(state.diff(from, to)))
            .await?
    }

    async fn reload(&self, options: ReloadOptions) -> Result<Reloaded, Error> {
        self.ask(move |state| Box::pin(state.reload(options)))
            .await?
    }

    async fn export(&self, format: Format, include_runtime_state: bool) -> Result<String, Error> {
        self.ask(move |state| Box::pin(state.export(format, include_runtime_state)))
            .await?
    }
}
