//! The one door through which a listener comes to another state, so that none is come to without a word.

use tracing::info;

use super::lifecycle::{Life, State};
use super::listener::Listener;
use crate::telemetry::event;

impl Listener {
    /// Enters a step of its life, and tells of it when it led somewhere else.
    pub(super) fn enter(&mut self, life: Life) {
        let before = std::mem::replace(&mut self.life, life);
        if before.state != life.state {
            info!(
                event = event::LISTENER_STATE_CHANGE, listener = %self.name,
                from = before.state.word(), to = life.state.word(), desired = State::from(life.desired).word(),
                sessions = self.runs().map(|run| run.door.sessions.count()).sum::<usize>(),
                "listener changed its state"
            );
        }
    }
}
