//! The service's side of the cage: a listener's launcher, its workers, and how they fare.

use tokio::sync::watch;

use crate::cage::{Isolation, Offer, Profile};

/// How the cage of a listener's commands fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cage {
    /// Its launcher is starting, for the first time.
    Starting,
    /// Commands run, and what in.
    Ready(Offer),
    /// The host offers less than is asked for: no command is run.
    Unfit {
        /// What it offers.
        offer: Offer,
        /// What is asked for.
        wanted: Isolation,
    },
    /// The launcher has ended or could not start; it is started again, and commands wait. Why.
    Broken(String),
}

/// The launcher of one listener.
pub struct Launcher {
    profile: Profile,
    minimum: Isolation,
    state: watch::Sender<Cage>,
}

impl Launcher {
    /// One that is not started yet.
    pub(super) fn new(profile: Profile, minimum: Isolation) -> Self {
        Self {
            profile,
            minimum,
            state: watch::Sender::new(Cage::Starting),
        }
    }

    /// Whether it is the launcher for these.
    pub(super) fn serves(&self, profile: &Profile, minimum: Isolation) -> bool {
        (&self.profile, self.minimum) == (profile, minimum)
    }

    /// How it fares, now and from now on.
    pub fn cage(&self) -> watch::Receiver<Cage> {
        self.state.subscribe()
    }
}
