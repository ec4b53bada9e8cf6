//! What happens to a run because of its time, and when: pure, as the clock is asked elsewhere.

use std::time::{Duration, Instant};

/// A command that runs for longer gets less of the processor than those that have just begun.
const DEMOTED_AFTER: Duration = Duration::from_millis(50);

/// A run's course so far.
#[derive(Debug)]
pub(super) struct Course {
    began: Instant,
    /// It is said to last when it takes longer.
    short: Duration,
    next: Option<Next>,
    /// When it is killed.
    pub(super) kill: Option<Instant>,
}

/// What happens to a run because it takes so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is said to last.
    Lasts,
    /// It gets less of the processor.
    Demote,
}

impl Course {
    pub(super) fn new(began: Instant, short: Duration) -> Self {
        Self {
            began,
            short,
            next: Some(Next::Lasts),
            kill: None,
        }
    }

    /// When something is next to happen.
    pub(super) fn due(&self) -> Option<Instant> {
        match (self.next_at(), self.kill) {
            (Some(next), Some(kill)) => Some(next.min(kill)),
            (next, kill) => next.or(kill),
        }
    }

    /// Whether it is to be killed by now.
    pub(super) fn killed_by(&self, now: Instant) -> bool {
        self.kill.is_some_and(|at| at <= now)
    }

    /// What happens now because it has taken so long; each once, in turn.
    pub(super) fn pass(&mut self, now: Instant) -> Option<Next> {
        let due = self.next.filter(|_| self.next_at() <= Some(now))?;
        self.next = match due {
            Next::Lasts => Some(Next::Demote),
            Next::Demote => None,
        };
        Some(due)
    }

    fn next_at(&self) -> Option<Instant> {
        let after = match self.next? {
            Next::Lasts => self.short,
            Next::Demote => self.short.max(DEMOTED_AFTER),
        };
        Some(self.began + after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_lasts_and_is_demoted_and_killed_each_in_its_time() {
        let began = Instant::now();
        let after = |millis| began + Duration::from_millis(millis);
        let mut course = Course::new(began, Duration::from_millis(4));
        assert_eq!(course.due(), Some(after(4)));
        assert_eq!(course.pass(after(3)), None);
        assert_eq!(course.pass(after(4)), Some(Next::Lasts));
        assert_eq!(course.due(), Some(after(50)));
        course.kill = Some(after(20));
        assert_eq!(course.due(), Some(after(20)));
        assert!(!course.killed_by(after(19)) && course.killed_by(after(20)));
        assert_eq!(course.pass(after(49)), None);
        assert_eq!(course.pass(after(90)), Some(Next::Demote));
        assert_eq!(course.pass(after(1000)), None);
        course.kill = None;
        assert_eq!(course.due(), None);
    }
}
