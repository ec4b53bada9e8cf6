//! The cages of shells: a listener's launcher is started when it serves, followed while it does, and let go of when it
//! stops. A host that offers less than is asked for makes the listener FAILED; a launcher that has ended leaves it
//! ACTIVE and ailing, until the next one is ready.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tracing::{info, warn};

use super::lifecycle::State;
use super::listener::Listener;
use super::view::Failure;
use super::{ListenerName, Supervisor};
use crate::cage::Offer;
use crate::protocol::shell::{Cage, Launcher};

/// Why a listener is FAILED whose host offers less than is asked for.
pub(super) const UNFIT: &str = "ISOLATION_UNAVAILABLE";

/// What is the matter with one that is ACTIVE and has no launcher.
const BROKEN: &str = "LAUNCHER_FAILED";

/// How long others wait to know whether commands can run.
const KNOWN_PATIENCE: Duration = Duration::from_secs(2);

/// The cage of a listener's commands, as far as it is known.
#[derive(Default)]
pub(super) struct Followed {
    /// Whose fortunes these are; none while nothing serves.
    launcher: Weak<Launcher>,
    cage: Option<Cage>,
    /// What the host offered last.
    pub(super) offer: Option<Arc<Offer>>,
    /// Launchers that have ended, over the listener's whole life.
    pub(super) restarts: u64,
}

impl Followed {
    /// Whether a launcher is to be and there is none.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.cage, Some(Cage::Broken(_)))
    }

    fn is_known(&self) -> bool {
        !matches!(self.cage, Some(Cage::Starting))
    }

    /// Workers that live.
    pub(super) fn workers(&self) -> usize {
        let launcher = self.launcher.upgrade();
        launcher.map_or(0, |launcher| launcher.workers())
    }
}

impl Supervisor {
    /// Starts the launcher of a listener that serves, unless it was, and follows it.
    pub(super) fn tend(&self, listener: &mut Listener) {
        let Some(launcher) = listener.built.launcher() else {
            return;
        };
        let followed = &mut listener.cage;
        if followed.launcher.as_ptr() == Arc::as_ptr(launcher) {
            return;
        }
        followed.launcher = Arc::downgrade(launcher);
        followed.cage = Some(Cage::Starting);
        launcher.start();
        let (name, launcher, cage) = (
            listener.name.clone(),
            followed.launcher.clone(),
            launcher.cage(),
        );
        self.0
            .tasks
            .spawn(self.clone().follow(name, launcher, cage));
    }

    /// Until the launcher is let go of, or the process is on its way out.
    async fn follow(
        self,
        name: ListenerName,
        launcher: Weak<Launcher>,
        mut cage: watch::Receiver<Cage>,
    ) {
        loop {
            let now = cage.borrow_and_update().clone();
            if now != Cage::Starting {
                self.heed(&name, &launcher, now);
            }
            let changed = self.0.stopping.run_until_cancelled(cage.changed()).await;
            if !matches!(changed, Some(Ok(()))) {
                return;
            }
        }
    }

    fn heed(&self, name: &ListenerName, launcher: &Weak<Launcher>, cage: Cage) {
        let mut listeners = self.lock();
        let ours = |l: &&mut Listener| l.cage.launcher.ptr_eq(launcher);
        let Some(listener) = listeners.get_mut(name).filter(ours) else {
            return;
        };
        let message = cage.to_string();
        listener.cage.cage = Some(cage.clone());
        match cage {
            Cage::Starting => {}
            Cage::Ready(offer) => {
                listener.cage.offer = Some(Arc::new(offer));
                listener.failure.take_if(|failure| failure.reason == BROKEN);
            }
            Cage::Unfit { offer, .. } => {
                listener.cage.offer = Some(Arc::new(offer));
                self.take_down(listener, message);
            }
            Cage::Broken(_) => {
                listener.cage.restarts += 1;
                listener.failure = Some(Failure {
                    reason: BROKEN,
                    message,
                    at: SystemTime::now(),
                    next_try: None,
                });
            }
        }
        drop(listeners);
        self.announce();
    }

    /// The step from serving to FAILED.
    fn take_down(&self, listener: &mut Listener, message: String) {
        if !matches!(listener.life.state, State::Active | State::Paused) {
            return;
        }
        if let Some(running) = listener.running.take() {
            listener.leave_off();
            self.retire(listener, running, Duration::ZERO, UNFIT);
        }
        listener.life.state = State::Stopped;
        self.give_up_for_now(listener, UNFIT, message);
    }

    /// Lets go of the launcher: it ends with the last session that has it. The next to serve has another.
    pub(super) fn let_rest(&self, listener: &mut Listener) {
        if listener.built.launcher().is_some() {
            let ground = self.ground(&listener.name);
            listener.built = listener.spec.protocol.rested(&ground, &listener.built);
            (listener.cage.launcher, listener.cage.cage) = (Weak::new(), None);
        }
    }

    /// Whether a listener that is FAILED for want of a cage can have one now. If not, that is entered.
    pub(super) async fn is_fit(&self, name: &ListenerName, uid: &str, tries: u64) -> bool {
        let ours = |l: &Listener| l.is_try(uid, tries) && l.life.state == State::Failed;
        let unfit = |l: &Listener| l.failure.as_ref().is_some_and(|f| f.reason == UNFIT);
        let launcher = {
            let listeners = self.lock();
            let listener = listeners.get(name).filter(|l| ours(l) && unfit(l));
            listener.and_then(|l| l.built.launcher().cloned())
        };
        let Some(launcher) = launcher else {
            return true;
        };
        let cage = launcher.prepare().await;
        let Cage::Unfit { offer, .. } = &cage else {
            info!(listener = %name, "its commands have a cage now");
            return true;
        };
        let mut listeners = self.lock();
        if let Some(listener) = listeners.get_mut(name).filter(|l| ours(l)) {
            listener.cage.offer = Some(Arc::new(offer.clone()));
            self.give_up_for_now(listener, UNFIT, cage.to_string());
        }
        drop(listeners);
        self.announce();
        false
    }

    /// Resolves once it is known of these listeners, or of all, whether commands can run; or when that takes too long.
    pub async fn caged(&self, names: Option<&[ListenerName]>) {
        let waits = |l: &Listener| {
            let is_asked = names.is_none_or(|names| names.contains(&l.name));
            is_asked && l.running.is_some() && !l.cage.is_known()
        };
        let known = |_: &u64| !self.lock().values().any(waits);
        let mut changes = self.changes();
        let known = changes.wait_for(known);
        if tokio::time::timeout(KNOWN_PATIENCE, known).await.is_err() {
            warn!("a launcher takes long to start; its commands wait for it");
        }
    }

    /// What the host offers the commands of a listener that takes the strongest that there is, if one has been told.
    pub fn offer(&self) -> Option<Offer> {
        let strongest = |l: &Listener| {
            let pinned = l.built.launcher()?.is_pinned();
            let offer = l.cage.offer.as_deref().filter(|_| !pinned)?;
            Some(offer.clone())
        };
        let listeners = self.lock();
        let offers = listeners.values().filter_map(strongest);
        offers.max_by_key(|offer: &Offer| offer.isolation)
    }
}
