//! A launcher's process, as the service has it: what it is asked, and what it answers.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tracing::warn;

use super::cage::{NotStarted, lacking};
use super::launcher::{Asking, Keep};
use super::worker::Worker;
use crate::cage::packet::{self, Hire, Told};
use crate::cage::{self, Isolation, Offer};
use crate::net::lock;

/// How long a launcher may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// A launcher's process.
pub(super) struct Launched {
    control: AsyncFd<OwnedFd>,
    child: std::process::Child,
    pidfd: Option<AsyncFd<OwnedFd>>,
}

impl Launched {
    /// Starts one, and takes its first worker.
    pub(super) async fn start(keep: &Arc<Keep>) -> Result<(Self, Offer), NotStarted> {
        let profile = keep.profile.clone();
        let started = tokio::task::spawn_blocking(move || cage::start(&profile));
        let started = started.await.map_err(io::Error::other)??;
        let pidfd = watch_child(&started.child).inspect_err(|error| {
            warn!(%error, "a launcher cannot be watched");
        });
        let control = match crate::net::watch(started.control) {
            Ok(control) => control,
            Err(error) => {
                // Without its socket it ends by itself.
                let mut child = started.child;
                let _ = tokio::task::spawn_blocking(move || child.wait()).await;
                return Err(error.into());
            }
        };
        let launched = Self {
            control,
            child: started.child,
            pidfd: pidfd.ok(),
        };
        match launched.told().await {
            Ok((Told::Ready(offer), _)) if offer.isolation < keep.minimum => {
                launched.end().await;
                Err(NotStarted::Unfit(offer))
            }
            Ok((Told::Ready(offer), Some(made))) => {
                let number = lock(&keep.idle).launcher;
                match Worker::new(made, number, &keep.alive) {
                    Ok(worker) => {
                        lock(&keep.idle).workers.push(worker);
                        Ok((launched, offer))
                    }
                    Err(error) => Err(launched.fail(&error.to_string()).await),
                }
            }
            Ok((Told::Ready(_), None)) => Err(launched.fail("it gave no worker").await),
            Ok((Told::Failed(failure), _)) => match keep.profile.isolation {
                Some(only) if only > Isolation::None => {
                    launched.end().await;
                    Err(NotStarted::Unfit(lacking(only, &failure)))
                }
                _ => Err(launched.fail(&failure.to_string()).await),
            },
            Err(error) => {
                launched.kill();
                Err(launched.fail(&error.to_string()).await)
            }
        }
    }

    async fn fail(self, why: &str) -> NotStarted {
        self.end().await;
        NotStarted::Broken(io::Error::other(why.to_owned()))
    }

    /// What it says next, whenever that is. Cancel safe.
    async fn hear(&self) -> io::Result<(Told, Option<[OwnedFd; 2]>)> {
        loop {
            let mut ready = self.control.readable().await?;
            match packet::receive(&self.control) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Err(error),
                Ok(None) => return Err(io::Error::other("it has ended")),
                Ok(Some((told, made))) => return Ok((told, made.try_into().ok())),
            }
        }
    }

    /// What it answers.
    async fn told(&self) -> io::Result<(Told, Option<[OwnedFd; 2]>)> {
        let late = |_| Err(io::Error::other("it does not answer"));
        let told = tokio::time::timeout(PATIENCE, self.hear()).await;
        told.unwrap_or_else(late)
    }

    /// Gets workers from it for those who ask. None when nobody will any more; or why it goes no further.
    pub(super) async fn serve(
        &self,
        keep: &Keep,
        waiting: &mut mpsc::Receiver<Asking>,
    ) -> Option<String> {
        loop {
            let asking = tokio::select! {
                asking = waiting.recv() => asking?,
                // It says nothing unasked: this is its end.
                ended = self.hear() => return Some(match ended {
                    Err(error) => error.to_string(),
                    Ok(_) => "it spoke out of turn".to_owned(),
                }),
            };
            // A worker for somebody who no longer waits would be one too many.
            if asking.is_closed() {
                continue;
            }
            if let Err(error) = packet::send(&self.control, &Hire, &[]) {
                return Some(error.to_string());
            }
            let launcher = lock(&keep.idle).launcher;
            let answer = match self.told().await {
                Ok((Told::Ready(_), Some(made))) => {
                    Worker::new(made, launcher, &keep.alive).map_err(|error| error.to_string())
                }
                Ok((Told::Ready(_), None)) => Err("there was no worker".to_owned()),
                Ok((Told::Failed(failure), _)) => Err(failure.to_string()),
                Err(error) => {
                    self.kill();
                    return Some(error.to_string());
                }
            };
            // Who no longer waits leaves it to others.
            if let Err(Ok(worker)) = asking.send(answer) {
                lock(&keep.idle).workers.push(worker);
            }
        }
    }

    /// For one that does not answer, or not as it should: with it die its workers, and all that they run.
    fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            // It fails when it has ended by itself.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    /// Lets go of it, and waits until it has ended.
    pub(super) async fn end(self) {
        let Self {
            control,
            mut child,
            pidfd,
        } = self;
        drop(control);
        let ended = async || match &pidfd {
            Some(pidfd) => drop(pidfd.readable().await),
            None => tokio::time::sleep(PATIENCE).await,
        };
        if tokio::time::timeout(PATIENCE, ended()).await.is_err() {
            let _ = child.kill();
            let _ = tokio::time::timeout(PATIENCE, ended()).await;
        }
        let _ = child.try_wait();
    }
}

fn watch_child(child: &std::process::Child) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("it has no process number"))?;
    crate::net::watch(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}
