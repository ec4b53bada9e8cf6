//! A listener's life as a pure function: no clock, no lock, no socket.
//!
//! ```text
//!             start                      pause                    start, resume
//!  STOPPED ───────────▶ ACTIVE ─────────────────────▶ PAUSED ─────────────────────▶ ACTIVE
//!     ▲   ╲ bind failed    │  ◀── resume ── DRAINING ◀── drain ──┤
//!     │    ╲               │ stop              │ the last session ended
//!     │     ╲              ▼                   ▼
//!     │      FAILED     STOPPING            STOPPED, or PAUSED, as the drain was to end
//!     │        │           │ the last session ended
//!     └─ stop ─┴───────────┘
//! ```
//!
//! FAILED is tried again while ACTIVE or PAUSED is wanted. A drain keeps its port until its end and can be undone; a stop
//! gives its port away at once and cannot. Asking for what is already so succeeds and does nothing. A step says what is
//! to be done; it is only entered when that was done, so a bind that fails leaves the life as it was.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a listener is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Serving.
    Active,
    /// Bound, and serving those who are inside; nobody new comes in.
    Paused,
    /// As paused, and those inside are on their way out.
    Draining,
    /// Its door is closed, and its sessions are asked to end.
    Stopping,
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
    /// To serve those who are inside, and nobody else.
    Paused,
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
    /// Its definition says this; as a caller would, but for what only a caller can mean.
    Define(Desired),
    /// Somebody wants it to serve.
    Start,
    /// Somebody wants nobody new to come in.
    Pause,
    /// Somebody takes a pause or a drain back.
    Resume,
    /// Somebody wants its sessions to leave, and it to be paused or stopped then.
    Drain {
        /// Paused, or stopped.
        to: Desired,
    },
    /// Somebody wants it not to serve.
    Stop,
    /// Somebody wants it gone; `force` also while it serves.
    Delete {
        /// Whether sessions may be cut for it.
        force: bool,
    },
    /// The address could not be had, though it should be.
    BindFailed(Desired),
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
    /// Bind, and serve with the door as the state has it.
    Bind,
    /// Open the door that is bound, or shut it, as the state has it.
    Turn,
    /// Shut the door and have the sessions leave.
    ThinOut,
    /// Close the door and end the sessions.
    WindDown,
    /// Cut what runs, then forget the listener.
    Remove,
}

/// Why an input is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It cannot start, or pause, before its drain is over or taken back.
    Draining,
    /// It cannot start again before it has stopped.
    Stopping,
    /// There is nobody to keep away.
    NotServing,
    /// It is not stopped, and force was not asked for.
    NotStopped,
}

impl From<Desired> for State {
    /// Where it is as it should be.
    fn from(desired: Desired) -> Self {
        match desired {
            Desired::Active => Self::Active,
            Desired::Paused => Self::Paused,
            Desired::Stopped => Self::Stopped,
        }
    }
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Active,
        Self::Paused,
        Self::Draining,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
    ];

    /// The word for metrics and people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draining => "it is draining; resume it, or wait for its end",
            Self::Stopping => "it is stopping; it can start once it has stopped",
            Self::NotServing => "it does not serve; start it",
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
        self.state != State::from(self.desired)
    }

    /// Whether its sessions are on their way out.
    pub fn winds_down(self) -> bool {
        matches!(self.state, State::Draining | State::Stopping)
    }

    /// The life after `input`, and what must have been done by then.
    pub fn step(self, input: Input) -> Result<(Self, Action), Denied> {
        use Desired as D;
        use State as S;
        let to = |state, desired, action| Ok((Self { state, desired }, action));
        match (input, self.state) {
            (Input::Start | Input::Pause, S::Draining) => Err(Denied::Draining),
            (Input::Pause | Input::Resume, S::Stopped | S::Failed) => Err(Denied::NotServing),
            (Input::Start | Input::Resume, _) => self.step(Input::Define(D::Active)),
            (Input::Pause, _) => self.step(Input::Define(D::Paused)),
            (Input::Stop, S::Draining) => to(S::Stopping, D::Stopped, Action::WindDown),
            (Input::Stop, _) => self.step(Input::Define(D::Stopped)),

            // Its definition has said so since the drain began.
            (Input::Define(desired), S::Draining) if desired == self.desired => {
                Ok((self, Action::None))
            }
            (Input::Define(D::Stopped), S::Active | S::Paused | S::Draining) => {
                to(S::Stopping, D::Stopped, Action::WindDown)
            }
            (Input::Define(D::Stopped), S::Stopping) => to(S::Stopping, D::Stopped, Action::None),
            (Input::Define(D::Stopped), S::Stopped | S::Failed) => {
                to(S::Stopped, D::Stopped, Action::None)
            }
            (Input::Define(_), S::Stopping) => Err(Denied::Stopping),
            (Input::Define(D::Active), S::Active) => to(S::Active, D::Active, Action::None),
            (Input::Define(desired), S::Active | S::Paused | S::Draining) => {
                to(serving(desired), desired, Action::Turn)
            }
            (Input::Define(desired), S::Stopped | S::Failed) => {
                to(serving(desired), desired, Action::Bind)
            }

            (Input::Drain { to: end }, S::Active | S::Paused | S::Draining) => {
                to(S::Draining, end, Action::ThinOut)
            }
            (Input::Drain { to: D::Stopped }, _) => self.step(Input::Stop),
            (Input::Drain { .. }, S::Stopping) => Err(Denied::Stopping),
            (Input::Drain { .. }, _) => Err(Denied::NotServing),

            (Input::Delete { .. }, S::Stopped | S::Failed) | (Input::Delete { force: true }, _) => {
                to(self.state, self.desired, Action::Remove)
            }
            (Input::Delete { force: false }, _) => Err(Denied::NotStopped),

            (Input::BindFailed(desired), S::Stopped | S::Failed) => {
                to(S::Failed, desired, Action::None)
            }
            (Input::Retry, S::Failed) if self.desired != D::Stopped => {
                to(serving(self.desired), self.desired, Action::Bind)
            }
            (Input::Drained, S::Draining) if self.desired != D::Stopped => {
                to(S::Paused, self.desired, Action::None)
            }
            (Input::Drained, S::Draining | S::Stopping) => {
                to(S::Stopped, self.desired, Action::None)
            }
            // What the world says too late.
            (Input::BindFailed(_) | Input::Retry | Input::Drained, _) => Ok((self, Action::None)),
        }
    }
}

/// The state of a listener that is bound.
fn serving(desired: Desired) -> State {
    match desired {
        Desired::Paused => State::Paused,
        _ => State::Active,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn life(state: State, desired: Desired) -> Life {
        Life { state, desired }
    }

    fn any_desired() -> impl Strategy<Value = Desired> {
        prop_oneof![
            Just(Desired::Active),
            Just(Desired::Paused),
            Just(Desired::Stopped)
        ]
    }

    fn any_ask() -> impl Strategy<Value = Input> {
        prop_oneof![
            any_desired().prop_map(Input::Define),
            Just(Input::Start),
            Just(Input::Pause),
            Just(Input::Resume),
            Just(Input::Stop),
            any::<bool>().prop_map(drain),
        ]
    }

    fn drain(pauses: bool) -> Input {
        let to = if pauses {
            Desired::Paused
        } else {
            Desired::Stopped
        };
        Input::Drain { to }
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![
            any_ask(),
            any::<bool>().prop_map(|force| Input::Delete { force }),
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
                Ok((next, Action::Bind)) if !*binds => now
                    .step(Input::BindFailed(next.desired))
                    .map_or(now, |(life, _)| life),
                Ok((_, Action::Remove)) => Life::STOPPED,
                Ok((next, _)) => next,
                Err(_) => now,
            };
            lives.push(now);
        }
        lives
    }

    fn states(inputs: &[Input]) -> Vec<State> {
        let bound: Vec<_> = inputs.iter().map(|input| (*input, true)).collect();
        run(&bound)
            .into_iter()
            .skip(1)
            .map(|life| life.state)
            .collect()
    }

    #[test]
    fn the_ordinary_lives() {
        use Input as I;
        use State as S;
        assert_eq!(
            states(&[I::Start, I::Stop, I::Drained]),
            [S::Active, S::Stopping, S::Stopped]
        );
        assert_eq!(
            states(&[I::Start, I::Pause, I::Resume]),
            [S::Active, S::Paused, S::Active]
        );
        assert_eq!(
            states(&[I::Start, drain(true), I::Drained, I::Start]),
            [S::Active, S::Draining, S::Paused, S::Active]
        );
        assert_eq!(
            states(&[I::Start, drain(false), I::Resume, drain(false), I::Drained]),
            [S::Active, S::Draining, S::Active, S::Draining, S::Stopped]
        );
        assert_eq!(states(&[I::Define(Desired::Paused)]), [S::Paused]);
    }

    #[test]
    fn refusals_are_named() {
        let active = life(State::Active, Desired::Active);
        let draining = life(State::Draining, Desired::Paused);
        let stopping = life(State::Stopping, Desired::Stopped);
        for (life, input, denied) in [
            (draining, Input::Start, Denied::Draining),
            (draining, Input::Pause, Denied::Draining),
            (stopping, Input::Start, Denied::Stopping),
            (stopping, Input::Resume, Denied::Stopping),
            (stopping, drain(true), Denied::Stopping),
            (Life::STOPPED, Input::Pause, Denied::NotServing),
            (Life::STOPPED, Input::Resume, Denied::NotServing),
            (Life::STOPPED, drain(true), Denied::NotServing),
            (active, Input::Delete { force: false }, Denied::NotStopped),
        ] {
            assert_eq!(life.step(input), Err(denied), "{life:?} {input:?}");
        }
        let removed = active.step(Input::Delete { force: true });
        assert_eq!(removed.map(|s| s.1), Ok(Action::Remove));
    }

    #[test]
    fn a_stopped_failure_is_not_retried() {
        let failed = life(State::Failed, Desired::Active);
        let (stopped, action) = failed.step(Input::Stop).unwrap();
        assert_eq!((stopped, action), (Life::STOPPED, Action::None));
        assert_eq!(stopped.step(Input::Retry), Ok((stopped, Action::None)));
    }

    #[test]
    fn what_failed_comes_back_as_it_was_wanted() {
        let failed = life(State::Failed, Desired::Paused);
        let (paused, action) = failed.step(Input::Retry).unwrap();
        assert_eq!((paused.state, action), (State::Paused, Action::Bind));
    }

    proptest! {
        #[test]
        fn what_serves_is_what_was_wanted(inputs in prop::collection::vec((any_input(), any::<bool>()), 0..40)) {
            for life in run(&inputs) {
                let fits = match life.state {
                    State::Active => life.desired == Desired::Active,
                    State::Paused => life.desired == Desired::Paused,
                    State::Draining => life.desired != Desired::Active,
                    State::Failed => life.desired != Desired::Stopped,
                    State::Stopping | State::Stopped => life.desired == Desired::Stopped,
                };
                prop_assert!(fits, "{life:?}");
            }
        }

        #[test]
        fn asking_twice_is_asking_once(inputs in prop::collection::vec((any_input(), any::<bool>()), 0..20), ask in any_ask()) {
            let now = run(&inputs)[inputs.len()];
            if let Ok((next, _)) = now.step(ask)
                && let Ok((again, action)) = next.step(ask)
            {
                prop_assert_eq!(again, next);
                prop_assert!(!matches!(action, Action::Bind | Action::WindDown));
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
        fn what_stops_ends_in_stopped_and_nowhere_else(inputs in prop::collection::vec((any_input(), any::<bool>()), 0..40)) {
            for pair in run(&inputs).windows(2) {
                if pair[0].state == State::Stopping {
                    prop_assert!(matches!(pair[1].state, State::Stopping | State::Stopped));
                }
            }
        }
    }
}
