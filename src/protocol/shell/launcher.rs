//! The service's side of the cage: a listener's launcher, which one task keeps running, and the workers it made.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::cage::{Cage, NotStarted, lacking};
use super::policy::Refusal;
use super::worker::Worker;
use crate::cage::packet::{self, Hire, Told};
use crate::cage::{self, Isolation, Offer, Profile};
use crate::net::lock;

/// The launcher of one listener. It runs from the first asking on, and ends when this is dropped.
pub struct Launcher {
    keep: Arc<Keep>,
    asking: mpsc::Sender<Asking>,
    /// Until the keeper is started.
    waiting: Mutex<Option<mpsc::Receiver<Asking>>>,
}

/// What the launcher's keeper has in common with those who use it.
struct Keep {
    profile: Profile,
    minimum: Isolation,
    state: watch::Sender<Cage>,
    idle: Mutex<Idle>,
    /// As many as there are of this, less one, are the workers that live.
    alive: Arc<()>,
}

/// Workers that have nothing to do.
#[derive(Default)]
struct Idle {
    workers: Vec<Worker>,
    /// Counts launchers: a worker does not outlive its own.
    launcher: u64,
}

/// Somebody who asks for a further worker.
type Asking = oneshot::Sender<Result<Worker, String>>;

/// Those who wait for one; each holds a turn, so that there are never many.
const ASKING: usize = 64;

/// How long a launcher may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

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

    /// Starts it unless it was started. Must be called within the runtime.
    pub fn start(&self) {
        if let Some(waiting) = lock(&self.waiting).take() {
            // It ends once this is dropped, when the launcher's process has.
            tokio::spawn(keep(self.keep.clone(), waiting));
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
        let started = Running::start(&keep).await;
        let why = match started {
            // What a host has offered before it can offer again: then it is short of something for now.
            Err(NotStarted::Unfit(offer)) if !was_ready => {
                let wanted = keep.profile.isolation.unwrap_or(keep.minimum);
                keep.state.send_replace(Cage::Unfit { offer, wanted });
                return;
            }
            Err(NotStarted::Unfit(offer)) => Some(offer.missing.join("; ")),
            Err(NotStarted::Broken(error)) => Some(error.to_string()),
            Ok((running, offer)) => {
                was_ready = true;
                info!(
                    listener = keep.profile.listener,
                    isolation = offer.isolation.word(),
                    "launcher ready"
                );
                keep.state.send_replace(Cage::Ready(offer));
                let why = running.serve(&keep, &mut waiting).await;
                keep.dismiss();
                running.end().await;
                why
            }
        };
        let Some(why) = why else {
            return;
        };
        warn!(listener = keep.profile.listener, why, "launcher ended");
        keep.state.send_replace(Cage::Broken(why));
        if began.elapsed() > SETTLED {
            wait = BACK_OFF.0;
        }
        tokio::time::sleep(wait).await;
        wait = (2 * wait).min(BACK_OFF.1);
    }
}

impl Keep {
    /// Lets go of all workers, and of those who come back later.
    fn dismiss(&self) {
        let mut idle = lock(&self.idle);
        idle.workers.clear();
        idle.launcher += 1;
    }
}

/// A launcher's process.
struct Running {
    control: AsyncFd<OwnedFd>,
    child: std::process::Child,
    pidfd: Option<AsyncFd<OwnedFd>>,
}

impl Running {
    /// Starts one, and takes its first worker.
    async fn start(keep: &Arc<Keep>) -> Result<(Self, Offer), NotStarted> {
        let profile = keep.profile.clone();
        let started = tokio::task::spawn_blocking(move || cage::start(&profile));
        let started = started.await.map_err(io::Error::other)??;
        let pidfd = watch_child(&started.child).inspect_err(|error| {
            warn!(%error, "a launcher cannot be watched");
        });
        let running = Self {
            control: crate::net::watch(started.control)?,
            child: started.child,
            pidfd: pidfd.ok(),
        };
        match running.told().await {
            Ok((Told::Ready(offer), Some(_))) if offer.isolation < keep.minimum => {
                running.end().await;
                Err(NotStarted::Unfit(offer))
            }
            Ok((Told::Ready(offer), Some(socket))) => {
                let mut idle = lock(&keep.idle);
                let worker = Worker::new(socket, idle.launcher, &keep.alive)?;
                idle.workers.push(worker);
                drop(idle);
                Ok((running, offer))
            }
            Ok((Told::Ready(_), None)) => Err(running.fail("it gave no worker").await),
            Ok((Told::Failed(failure), _)) => match keep.profile.isolation {
                Some(only) if only > Isolation::None => {
                    running.end().await;
                    Err(NotStarted::Unfit(lacking(only, &failure)))
                }
                _ => Err(running.fail(&failure.to_string()).await),
            },
            Err(error) => Err(running.fail(&error.to_string()).await),
        }
    }

    async fn fail(self, why: &str) -> NotStarted {
        self.end().await;
        NotStarted::Broken(io::Error::other(why.to_owned()))
    }

    /// What it says next.
    async fn told(&self) -> io::Result<(Told, Option<OwnedFd>)> {
        let told = async {
            loop {
                let mut ready = self.control.readable().await?;
                match packet::receive(&self.control) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                    Err(error) => return Err(error),
                    Ok(None) => return Err(io::Error::other("it has ended")),
                    Ok(Some(told)) => return Ok(told),
                }
            }
        };
        let late = |_| Err(io::Error::other("it does not answer"));
        tokio::time::timeout(PATIENCE, told)
            .await
            .unwrap_or_else(late)
    }

    /// Gets workers from it for those who ask. None when nobody will any more; or why it goes no further.
    async fn serve(&self, keep: &Keep, waiting: &mut mpsc::Receiver<Asking>) -> Option<String> {
        loop {
            let asking = tokio::select! {
                asking = waiting.recv() => asking?,
                // It says nothing unasked: this is its end.
                ended = self.told() => match ended {
                    Err(error) if error.to_string() == "it does not answer" => continue,
                    Err(error) => return Some(error.to_string()),
                    Ok(_) => return Some("it spoke out of turn".to_owned()),
                },
            };
            if let Err(error) = packet::send(&self.control, &Hire, &[]) {
                return Some(error.to_string());
            }
            let launcher = lock(&keep.idle).launcher;
            let answer = match self.told().await {
                Ok((Told::Ready(_), Some(socket))) => {
                    Worker::new(socket, launcher, &keep.alive).map_err(|error| error.to_string())
                }
                Ok((Told::Ready(_), None)) => Err("there was no worker".to_owned()),
                Ok((Told::Failed(failure), _)) => Err(failure.to_string()),
                Err(error) => return Some(error.to_string()),
            };
            // Who no longer waits leaves it to others.
            if let Err(Ok(worker)) = asking.send(answer) {
                lock(&keep.idle).workers.push(worker);
            }
        }
    }

    /// Lets go of it, and waits until it has ended.
    async fn end(self) {
        let Self {
            control,
            mut child,
            pidfd,
        } = self;
        drop(control);
        let ended = async {
            match &pidfd {
                Some(pidfd) => drop(pidfd.readable().await),
                None => tokio::time::sleep(PATIENCE).await,
            }
        };
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            let _ = child.kill();
        }
        let _ = child.try_wait();
    }
}

fn watch_child(child: &std::process::Child) -> io::Result<AsyncFd<OwnedFd>> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("it has no process number"))?;
    crate::net::watch(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}
