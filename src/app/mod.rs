//! The one composition: everything is bound first, then run, then drained in order.

mod announce;
mod end;
mod measure;
mod notify;
mod signals;
mod sites;
mod start_error;

pub use start_error::StartError;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::config::{Layers, Sources};
use crate::configuration::Owner;
use crate::net::{self, UnixSocket, web};
use crate::settings::{self, Configured};
use crate::store::{Options, Store};
use crate::supervisor::{self, Supervisor};
use crate::telemetry::{self, Identity, Telemetry};
use crate::{configuration, grpc, http};
use measure::Measured;
use notify::Notify;
use signals::Signals;
use sites::sites;

/// How long calls under way may take once the listeners have drained.
const CALLS_GRACE: Duration = Duration::from_secs(1);

/// How long everything may take that comes behind the drain, those calls with it: what is under way is finished, the
/// store brings its file in order (what it has answered is on disk anyway), telemetry hands over the last of what it
/// has. A disk and a collector that both hang are waited for together, and not one after the other.
const LAST: Duration = Duration::from_millis(1_900);

/// What a process is started with: the places of its configuration, what stood there, and what that means.
pub struct Start {
    /// Where a reload looks.
    pub sources: Sources,
    /// What was read there.
    pub layers: Layers,
    /// The same, checked.
    pub configured: Configured,
}

/// A service whose every socket is bound.
pub struct App {
    control: grpc::Control,
    grpc: web::Site,
    http: web::Site,
    signals: Signals,
    notify: Notify,
    owner: Owner,
    /// The owner of the configuration, and when it ends.
    owning: (TaskTracker, CancellationToken),
    store: Store,
    /// Kept for as long as the process runs.
    measured: Measured,
}

impl App {
    /// Opens the store and binds everything. Listeners that cannot bind are FAILED and the rest will serve; the control
    /// plane and the HTTP side must bind. Must be called within the runtime.
    ///
    /// # Errors
    /// What keeps the process from starting at all.
    pub fn bind(start: Start) -> Result<Self, StartError> {
        let started = SystemTime::now();
        let settings = start.configured.settings.clone();
        let signals = Signals::new()?;
        let descriptors = net::raise_descriptor_limit();
        let (telemetry, facts) = telemetry(&settings, started)?;
        let (store, mut kept) =
            Store::open(&options(&settings.store)).map_err(StartError::Store)?;
        let measured = Measured::new(&telemetry, &store);
        let (grpc, http) = sites(&settings, descriptors, &measured.doors)?;
        let supervisor = Supervisor::new(supervisor::Parts {
            node: settings.node.name.clone(),
            grace: settings.shutdown.grace,
            most_sessions: net::most_sessions(descriptors),
            telemetry: telemetry.clone(),
            store: store.clone(),
            bans: std::mem::take(&mut kept.bans),
        });
        let answers = grpc::Answers::new(std::mem::take(&mut kept.answers), &store);
        let owning = (TaskTracker::new(), CancellationToken::new());
        let parts = configuration::Parts {
            sources: start.sources,
            layers: start.layers,
            configured: start.configured,
            store: store.clone(),
            kept,
            supervisor: supervisor.clone(),
            telemetry: telemetry.clone(),
            measures: measured.configuration.clone(),
        };
        let owner = Owner::start(parts, &owning.0, owning.1.clone());
        supervisor.forget_bans_of_none();
        announce::warn_of_doubts(&supervisor, store.keeps());
        announce::warn_of_unused_sockets();
        let control = grpc::Control {
            supervisor,
            watches: grpc::Watches::new(&telemetry),
            telemetry,
            configuration: Arc::new(owner.clone()),
            facts,
            answers: Arc::new(answers),
            store: store.clone(),
            leaving: grpc::Leaving::default(),
            snapshots: Arc::new(Semaphore::new(grpc::STREAMS)),
            closing: CancellationToken::new(),
        };
        Ok(Self {
            control,
            grpc,
            http,
            signals,
            notify: Notify::from_environment(),
            owner,
            owning,
            store,
            measured,
        })
    }

    /// Resolves once it is known whether all that serves can do so; or when that takes too long.
    pub async fn known(&self) {
        self.control.supervisor.caged(None).await;
    }

    /// Says where everything listens, and what could not start and why.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn announce(&self, out: &mut impl Write) -> io::Result<()> {
        let mut own = Vec::new();
        for (name, word, site) in [
            ("grpc", "control", &self.grpc),
            ("http", "metrics", &self.http),
        ] {
            own.push((name, word, "tcp", site.tcp.local_addr()?.to_string()));
            let path = site.unix.as_ref().map(UnixSocket::path);
            own.extend(path.map(|path| (name, word, "unix", path.display().to_string())));
        }
        announce::write(out, &self.control.supervisor, own)
    }

    /// Serves until a signal, then drains. A second signal skips the waiting.
    pub async fn run(self) {
        let Self {
            control,
            grpc,
            http,
            mut signals,
            notify,
            owner,
            owning: (owned, disown),
            store,
            measured,
        } = self;
        let (answers, leaving) = (control.answers.clone(), control.leaving.clone());
        let (supervisor, telemetry) = (control.supervisor.clone(), control.telemetry.clone());
        let (stop, insist) = (control.closing.clone(), CancellationToken::new());
        let still = CancellationToken::new();
        owned.spawn(owner.clone().watch(still.clone()));
        owned.spawn(owner.clone().resume_in_time(still.clone()));
        owned.spawn(signals.reload_at_each(owner, notify.clone(), still.clone()));
        owned.spawn(notify.attend(supervisor.clone(), still.clone(), disown.clone()));
        let counted = measured.doors.calls.clone();
        let calls = tokio::spawn(grpc::serve(grpc, control, counted, insist.clone()));
        let (scraped, told) = (supervisor.clone(), telemetry.clone());
        let pages = http::serve(http, scraped, told, stop.clone(), insist.clone());
        let pages = tokio::spawn(pages);
        let (first, deadline) = end::asked(&mut signals, &leaving, &supervisor).await;
        still.cancel();
        let cut = insist.child_token();
        let hurry = end::hurry(
            signals,
            first,
            leaving.clone(),
            supervisor.clone(),
            insist.clone(),
        );
        let hurry = tokio::spawn(hurry);
        let in_time = tokio::spawn(end::cut_in_time(leaving, cut.clone()));
        // 1. Whoever asks learns that we are leaving. 2. Every door closes. 3. Sessions are asked.
        // 4. The last one leaves, or time is up. 5. The rest is cut.
        let grace = deadline.saturating_duration_since(Instant::now());
        let drained = supervisor.drain_all(grace, cut).await;
        in_time.abort();
        let (sessions, cut) = (drained.sessions, drained.cut);
        info!(sessions, cut, "listeners drained");
        // 6. The control plane goes last, so that the drain could be watched; it has its own time.
        stop.cancel();
        let over = Instant::now() + LAST;
        let timer = tokio::spawn(insist_after(CALLS_GRACE, insist));
        report(calls.await);
        report(pages.await);
        timer.abort();
        hurry.abort();
        finish(answers.tasks(), over).await;
        disown.cancel();
        finish(&owned, over).await;
        info!("stopped");
        // 7. What is left to keep and to tell goes.
        hand_over(store, telemetry, over).await;
    }
}

/// Off the runtime's threads, and not for long.
async fn hand_over(store: Store, telemetry: Telemetry, over: Instant) {
    let left = over.saturating_duration_since(Instant::now());
    let flushed = tokio::task::spawn_blocking(move || telemetry.flush(left));
    // If even that failed there is nothing left to tell it with.
    let (closed, _) = tokio::join!(store.close(left), flushed);
    if !closed {
        warn!("the store is left as it is; all that was answered is in it");
    }
}

/// Telemetry in this process's name, and what there is to tell of it.
fn telemetry(
    settings: &settings::Settings,
    started: SystemTime,
) -> Result<(Telemetry, Arc<grpc::Facts>), StartError> {
    let instance_id = instance_id();
    let identity = Identity {
        version: env!("CARGO_PKG_VERSION"),
        node: settings.node.name.clone(),
        instance_id: instance_id.clone(),
    };
    let telemetry =
        Telemetry::start(&settings.telemetry, &identity).map_err(StartError::Telemetry)?;
    telemetry::log_panics();
    let facts = grpc::Facts {
        instance_id,
        started,
        offer: tokio::sync::OnceCell::new(),
    };
    Ok((telemetry, Arc::new(facts)))
}

fn options(store: &settings::Store) -> Options {
    Options {
        path: store.place(),
        retention: store.retention,
        max_bytes: store.max_bytes,
    }
}

/// Waits for what is under way. Nothing whose disk does not answer was answered either.
async fn finish(tasks: &TaskTracker, over: Instant) {
    tasks.close();
    if tokio::time::timeout_at(over.into(), tasks.wait())
        .await
        .is_err()
    {
        warn!("a change was still under way");
    }
}

async fn insist_after(grace: Duration, insist: CancellationToken) {
    tokio::time::sleep(grace).await;
    insist.cancel();
}

fn report(served: Result<(), JoinError>) {
    if let Err(fault) = served {
        error!(%fault, "the control plane or the HTTP side failed");
    }
}

fn instance_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}
