//! How the cage of a listener's commands fares, and why there may be none.

use std::{fmt, io};

use crate::cage::{Failure, Isolation, Offer};

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

/// What is wrong with it, for people; nothing is with one that is starting or ready.
impl fmt::Display for Cage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("the launcher of its commands is starting"),
            Self::Ready(offer) => write!(f, "its commands run in `{}`", offer.isolation.word()),
            Self::Unfit { offer, wanted } => write!(
                f,
                "commands are to be held in `{}` here, and this host offers `{}`: {}; give the service what is missing, \
                 or ask for less by sandbox.min_isolation and sandbox.isolation",
                wanted.word(),
                offer.isolation.word(),
                offer.missing.join("; ")
            ),
            Self::Broken(why) => write!(
                f,
                "the launcher of its commands has ended: {why}; it is started again, and commands wait"
            ),
        }
    }
}

/// Why there is no launcher.
pub(super) enum NotStarted {
    /// The host offers less than is asked for.
    Unfit(Offer),
    /// It may be better the next time.
    Broken(io::Error),
}

impl From<io::Error> for NotStarted {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// What a host offers that has not the one cage that was asked for: nothing else was tried.
pub(super) fn lacking(only: Isolation, failure: &Failure) -> Offer {
    Offer {
        isolation: Isolation::None,
        missing: vec![format!("no isolation `{}`: {failure}", only.word())],
    }
}
