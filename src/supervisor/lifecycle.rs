//! A listener's life as a pure function: no clock, no lock, no socket.
//!
//! ```text
//!             start                      stop                   the last session ended
//!  STOPPED ───────────▶ ACTIVE ───────────────────▶ DRAINING ───────────────────────▶ STOPPED
//!     ▲   ╲ bind failed
//!     │    ╲
//!     └──── stop ────── FAILED ── start, or a retry while ACTIVE is wanted ──▶ ACTIVE
//! ```
//!
//! Asking for what is already so succeeds and does nothing. A step says what is to be done; it is
//! only entered when that was done, so a bind that fails leaves the life as it was.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a listener is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Serving.
    Active,
    /// Its door is closed, and its sessions are asked to end.
    Draining,
    /// Not serving.
    Stopped,
    /// It should serve and cannot.
    Failed,
}

/// What the operator wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// To serve.
    #[default]
    Active,
    /// Not to serve.
    Stopped,
}

/// Both together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// What is.
    pub state: State,
    /// What should be.
    pub desired: Desired,
}

/// What a caller, or the world, says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Somebody wants it to serve.
    Start,
    /// Somebody wants it not to.
    Stop,
    /// Somebody wants it gone; `force` also while it serves.
    Delete {
        /// Whether sessions may be cut for it.
        force: bool,
    },
    /// The address could not be had, though it should serve.
    BindFailed,
    /// The time of the next try has come.
    Retry,
    /// Its last session has ended.
    Drained,
}

/// What is to be done before a step is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Bind and serve.
    Bind,
    /// Close the door and drain.
    Drain,
    /// Cut what runs, then forget the listener.
    Remove,
}

/// Why an input is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It cannot start before it has drained.
    Draining,
    /// It is not stopped, and force was not asked for.
    NotStopped,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Active, Self::Draining, Self::Stopped, Self::Failed];

    /// The word for metrics and people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draining => "it is draining; it can start once it has stopped",
            Self::NotStopped => "it is not stopped; stop it first, or force it",
        })
    }
}

impl Life {
    /// A listener that does not serve and need not.
    pub const STOPPED: Self = Self {
        state: State::Stopped,
        desired: Desired::Stopped,
    };

    /// Whether `state` has not caught up with `desired`.
    pub fn reconciling(self) -> bool {
        match self.desired {
            Desired::Active => self.state != State::Active,
            Desired::Stopped => self.state != State::Stopped,
        }
    }

    /// The life after `input`, and what must have been done by then.
    pub fn step(self, input: Input) -> Result<(Self, Action), Denied> {
        use Desired as D;
        use State as S;
        let to = |state, desired, action| Ok((Self { state, desired }, action));
        match (input, self.state) {
            (Input::Start, S::Active) => to(S::Active, D::Active, Action::None),
            (Input::Start, S::Stopped | S::Failed) => to(S::Active, D::Active, Action::Bind),
            (Input::Start, S::Draining) => Err(Denied::Draining),

            (Input::Stop, S::Active) => to(S::Draining, D::Stopped, Action::Drain),
            (Input::Stop, S::Draining) => to(S::Draining, D::Stopped, Action::None),
            (Input::Stop, S::Stopped | S::Failed) => to(S::Stopped, D::Stopped, Action::None),

            (Input::Delete { .. }, S::Stopped | S::Failed) | (Input::Delete { force: true }, _) => {
                to(self.state, self.desired, Action::Remove)
            }
            (Input::Delete { force: false }, _) => Err(Denied::NotStopped),

            (Input::BindFailed, S::Stopped | S::Failed) => to(S::Failed, D::Active, Action::None),
            (Input::BindFailed, _) => Ok((self, Action::None)),

            (Input::Retry, S::Failed) if self.desired == D::Active => {
                to(S::Active, D::Active, Action::Bind)
            }
            (Input::Retry, _) => Ok((self, Action::None)),

            (Input::Drained, S::Draining) => to(S::Stopped, self.desired, Action::None),
            (Input::Drained, _) => Ok((self, Action::None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn life(state: State, desired: Desired) -> Life {
        Life { state, desired }
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![
            Just(Input::Start),
            Just(Input::Stop),
            any::<bool>().prop_map(|force| Input::Delete { force }),
            Just(Input::BindFailed),
            Just(Input::Retry),
            Just(Input::Drained),
        ]
    }

    /// A listener in a world where binding succeeds or not, as the second of each pair says.
    fn run(inputs: &[(Input, bool)]) -> Vec<Life> {
        let mut lives = vec![Life::STOPPED];
        let mut now = Life::STOPPED;
        for (input, binds) in inputs {
            now = match now.step(*input) {
                Ok((next, Action::Bind)) if *binds => next,
                Ok((_, Action::Bind)) => now.step(Input::BindFailed).map_or(now, |(life, _)| life),
                Ok((next, Action::None | Action::Drain)) => next,
                Ok((_, Action::Remove)) => Life::STOPPED,
                Err(_) => now,
            };
            lives.push(now);
        }
        lives
    }

    #[test]
    fn the_ordinary_life() {
        let lives = run(&[
            (Input::Start, true),
            (Input::Stop, true),
            (Input::Drained, true),
        ]);
        let states: Vec<_> = lives.iter().map(|l| l.state).collect();
        assert_eq!(
            states,
            [
                State::Stopped,
                State::Active,
                State::Draining,
                State::Stopped
            ]
        );
    }

    #[test]
    fn refusals_are_named() {
        let draining = life(State::Draining, Desired::Stopped);
        assert_eq!(draining.step(Input::Start), Err(Denied::Draining));
        let active = life(State::Active, Desired::Active);
        assert_eq!(
            active.step(Input::Delete { force: false }),
            Err(Denied::NotStopped)
        );
        assert_eq!(
            active.step(Input::Delete { force: true }).map(|s| s.1),
            Ok(Action::Remove)
        );
    }

    #[test]
    fn a_stopped_failure_is_not_retried() {
        let failed = life(State::Failed, Desired::Active);
        let (stopped, action) = failed.step(Input::Stop).unwrap();
        assert_eq!((stopped, action), (Life::STOPPED, Action::None));
        assert_eq!(stopped.step(Input::Retry), Ok((stopped, Action::None)));
    }

    proptest! {
        #[test]
        fn what_serves_is_what_was_wanted(inputs in prop::collection::vec((any_input(), any::<bool>()), 0..40)) {
            for life in run(&inputs) {
                prop_assert!(life.state != State::Active || life.desired == Desired::Active);
                prop_assert!(life.state != State::Failed || life.desired == Desired::Active);
            }
        }

        #[test]
        fn asking_twice_is_asking_once(inputs in prop::collection::vec((any_input(), any::<bool>()), 0..20), start in any::<bool>()) {
            let ask = if start { Input::Start } else { Input::Stop };
            let now = run(&inputs)[inputs.len()];
            if let Ok((next, _)) = now.step(ask) {
                prop_assert_eq!(next.step(ask), Ok((next, Action::None)));
            }
        }

        #[test]
        fn every_life_can_be_stopped_and_started(inputs in prop::collection::vec((any_input(), any::<bool>()), 0..20)) {
            let mut all = inputs;
            all.extend([(Input::Stop, true), (Input::Drained, true)]);
            prop_assert_eq!(run(&all)[all.len()], Life::STOPPED);
            all.push((Input::Start, true));
            prop_assert_eq!(run(&all)[all.len()].state, State::Active);
        }

        #[test]
        fn a_drain_ends_in_stopped_and_nowhere_else(inputs in prop::collection::vec((any_input(), any::<bool>()), 0..40)) {
            for pair in run(&inputs).windows(2) {
                if pair[0].state == State::Draining {
                    prop_assert!(matches!(pair[1].state, State::Draining | State::Stopped));
                }
            }
        }
    }
}
