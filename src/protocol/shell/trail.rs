//! What a listener's commands leave behind: what was asked for, by whom, and what became of it.

use super::super::Ground;

/// Keeps the trail of one listener's commands.
pub(super) struct Trail {
    ground: Ground,
}

impl Trail {
    pub(super) fn new(ground: &Ground) -> Self {
        Self {
            ground: ground.clone(),
        }
    }
}
