//! What callers ask of a listener besides its definition.

use std::time::Duration;

use super::lifecycle::{Desired, Input};
use crate::net::PauseMode;

/// What a caller asks of a listener besides its definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To serve.
    Start,
    /// To let nobody new in.
    Pause,
    /// To take a pause or a drain back.
    Resume,
    /// To stop.
    Stop,
    /// To have its sessions leave, and then be as it is defined.
    Drain(Drain),
}

/// How sessions are made to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Who has not left by then is cut.
    pub deadline: Duration,
    /// Sessions are asked one after the other, spread over this long; without it nobody is asked.
    pub pace_over: Option<Duration>,
    /// Those that have been silent for longest are asked first; else those that have been here for longest.
    pub idle_first: bool,
    /// How new peers are kept away.
    pub mode: PauseMode,
}

impl Asked {
    /// What it is to the life of a listener that should be `desired`.
    pub(super) fn input(asked: Option<&Self>, desired: Desired) -> Input {
        match asked {
            None => Input::Define(desired),
            Some(Self::Start) => Input::Start,
            Some(Self::Pause) => Input::Pause,
            Some(Self::Resume) => Input::Resume,
            Some(Self::Stop) => Input::Stop,
            Some(Self::Drain(_)) => Input::Drain { to: desired },
        }
    }
}
