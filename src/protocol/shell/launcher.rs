//! The service's side of the cage: a listener's launcher, which one task keeps running, and the workers it made.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::cage::{Cage, NotStarted};
use super::launched::Launched;
use super::policy::Refusal;
use super::worker::Worker;
use crate::cage::{Isolation, Profile};
use crate::net::lock;

/// The launcher of one listener. It runs from the first asking on, and ends when this is dropped.
pub struct Launcher {
    keep: Arc<Keep>,
    asking: mpsc::Sender<Asking>,
    /// Until the keeper is started.
    waiting: Mutex<Option<mpsc::Receiver<Asking>>>,
    tasks: TaskTracker,
}

/// What the launcher's keeper has in common with those who use it.
pub(super) struct Keep {
    pub(super) profile: Profile,
    pub(super) minimum: Isolation,
    state: watch::Sender<Cage>,
    pub(super) idle: Mutex<Idle>,
    /// As many as there are of this, less one, are the workers that live.
    pub(super) alive: Arc<()>,
}

/// Workers that have nothing to do.
#[derive(Default)]
pub(super) struct Idle {
    pub(super) workers: Vec<Worker>,
    /// Counts launchers: a worker does not outlive its own.
    pub(super) launcher: u64,
}

/// Somebody who asks for a further worker.
pub(super) type Asking = oneshot::Sender<Result<Worker, String>>;

/// Those who wait for one; each holds a turn, so that there are never many.
const ASKING: usize = 64;

/// Between two tries to start it: doubled each time.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// After so long it is taken to be well again.
const SETTLED: Duration = Duration::from_secs(10);

impl Launcher {
    /// One that is not started yet.
    pub(super) fn new(profile: Profile, minimum: Isolation) -> Self {
        let (asking, waiting) = mpsc::channel(ASKING);
        Self {
            keep: Arc::new(Keep {
                profile,
                minimum,
                state: watch::Sender::new(Cage::Starting),
                idle: Mutex::default(),
                alive: Arc::default(),
            }),
            asking,
            waiting: Mutex::new(Some(waiting)),
            tasks: TaskTracker::new(),
        }
    }

    /// Whether it is the launcher for these.
    pub(super) fn serves(&self, profile: &Profile, minimum: Isolation) -> bool {
        (&self.keep.profile, self.keep.minimum) == (profile, minimum)
    }

    /// How it fares, now and from now on.
    pub fn cage(&self) -> watch::Receiver<Cage> {
        self.keep.state.subscribe()
    }

    /// Whether it takes one cage and no other.
    pub fn is_pinned(&self) -> bool {
        self.keep.profile.isolation.is_some()
    }

    /// Workers that run commands, or wait for some.
    pub fn workers(&self) -> usize {
        Arc::strong_count(&self.keep.alive) - 1
    }

    /// Workers that run commands.
    pub(super) fn busy(&self) -> usize {
        let idle = lock(&self.keep.idle).workers.len();
        self.workers().saturating_sub(idle)
    }

    /// Starts it unless it was started. Must be called within the runtime.
    pub fn start(&self) {
        if let Some(waiting) = lock(&self.waiting).take() {
            // It ends once this is dropped, when the launcher's process has.
            self.tasks.spawn(keep(self.keep.clone(), waiting));
        }
    }

    /// Starts it unless it was started, and waits until it is known how it fares.
    pub async fn prepare(&self) -> Cage {
        self.start();
        let mut cage = self.cage();
        let known = cage.wait_for(|cage| *cage != Cage::Starting).await;
        known.map_or(Cage::Starting, |cage| cage.clone())
    }

    /// The user that the outputs of its commands must belong to, if it is another than ours.
    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        let user = self.keep.profile.run_as.as_ref()?;
        Some((user.uid, user.gid))
    }

    /// A worker with nothing to do. While the launcher is broken, this waits for the next. Cancel safe.
    pub(super) async fn hire(&self) -> Result<Worker, Refusal> {
        if let Some(worker) = lock(&self.keep.idle).workers.pop() {
            return Ok(worker);
        }
        self.start();
        loop {
            let (asking, answer) = oneshot::channel();
            if self.asking.send(asking).await.is_err() {
                return Err(self.unfit());
            }
            match answer.await {
                Ok(Ok(worker)) => return Ok(worker),
                Ok(Err(why)) => return Err(Refusal::new("spawn_failed", why)),
                // The launcher has ended meanwhile.
                Err(_) => {}
            }
        }
    }

    /// Takes back a worker that has nothing to do any more.
    pub(super) fn release(&self, worker: Worker) {
        let mut idle = lock(&self.keep.idle);
        if worker.launcher == idle.launcher {
            idle.workers.push(worker);
        }
    }

    fn unfit(&self) -> Refusal {
        let message = match &*self.keep.state.borrow() {
            // What exactly is missing is for those who run the service.
            Cage::Unfit { offer, wanted } => format!(
                "commands are to be held in `{}` here, and this host offers `{}`",
                wanted.word(),
                offer.isolation.word()
            ),
            _ => "the listener has ended".to_owned(),
        };
        Refusal::new("isolation_unavailable", message)
    }
}

/// Keeps a launcher running, until nobody can ask for it any more.
async fn keep(keep: Arc<Keep>, mut waiting: mpsc::Receiver<Asking>) {
    let mut wait = BACK_OFF.0;
    let mut was_ready = false;
    while !waiting.is_closed() {
        let began = tokio::time::Instant::now();
        let started = Launched::start(&keep).await;
        let why = match started {
            // What a host has offered before it can offer again: then it is short of something for now.
            Err(NotStarted::Unfit(offer)) if !was_ready => {
                let wanted = keep.profile.isolation.unwrap_or(keep.minimum);
                keep.state.send_replace(Cage::Unfit { offer, wanted });
                return;
            }
            Err(NotStarted::Unfit(offer)) => Some(keep.broken(offer.missing.join("; "))),
            Err(NotStarted::Broken(error)) => Some(keep.broken(error.to_string())),
            Ok((launched, offer)) => {
                was_ready = true;
                info!(
                    listener = keep.profile.listener,
                    isolation = offer.isolation.word(),
                    "launcher ready"
                );
                keep.state.send_replace(Cage::Ready(offer));
                let why = launched.serve(&keep, &mut waiting).await;
                keep.dismiss(why.as_deref());
                launched.end().await;
                why
            }
        };
        let Some(why) = why else {
            return;
        };
        warn!(listener = keep.profile.listener, why, "launcher ended");
        if began.elapsed() > SETTLED {
            wait = BACK_OFF.0;
        }
        tokio::time::sleep(wait).await;
        wait = (2 * wait).min(BACK_OFF.1);
    }
}

impl Keep {
    /// Tells why there is none for now: each that ends, or does not start, counts once.
    fn broken(&self, why: String) -> String {
        self.state.send_replace(Cage::Broken(why.clone()));
        why
    }

    /// Lets go of all workers, and of those who come back later. It is known at once why, if that is not the end.
    fn dismiss(&self, why: Option<&str>) {
        if let Some(why) = why {
            self.broken(why.to_owned());
        }
        let mut idle = lock(&self.idle);
        idle.workers.clear();
        idle.launcher += 1;
    }
}
