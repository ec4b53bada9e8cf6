//! Turns: how many commands of a listener run at once, given in the order of asking. Their number
//! may change while commands run; those above a lowered number end in their own time.

use std::sync::Mutex;

use tokio::sync::Semaphore;

use crate::net::lock;

/// The turns of one listener.
pub(in crate::protocol) struct Turns {
    free: Semaphore,
    count: Mutex<Count>,
}

#[derive(Default)]
struct Count {
    most: usize,
    /// Turns that are taken and above the number: not given on when they end.
    surplus: usize,
}

/// One turn, until it is dropped.
pub(super) struct Turn<'a>(&'a Turns);

impl Default for Turns {
    fn default() -> Self {
        Self {
            free: Semaphore::new(0),
            count: Mutex::default(),
        }
    }
}

impl Turns {
    /// Makes them `most` in all.
    pub(super) fn set_most(&self, most: usize) {
        let mut count = lock(&self.count);
        let (more, fewer) = (
            most.saturating_sub(count.most),
            count.most.saturating_sub(most),
        );
        count.most = most;
        let stay = more.min(count.surplus);
        count.surplus -= stay;
        self.free.add_permits(more - stay);
        count.surplus += fewer - self.free.forget_permits(fewer);
    }

    /// A turn, if one is free.
    pub(super) fn try_take(&self) -> Option<Turn<'_>> {
        self.free.try_acquire().ok()?.forget();
        Some(Turn(self))
    }

    /// Waits for a turn. Cancel safe. Always one: the semaphore is never closed.
    pub(super) async fn take(&self) -> Option<Turn<'_>> {
        self.free.acquire().await.ok()?.forget();
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut count = lock(&self.0.count);
        match count.surplus.checked_sub(1) {
            Some(left) => count.surplus = left,
            None => self.0.free.add_permits(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(turns: &Turns) -> usize {
        turns.free.available_permits()
    }

    #[test]
    fn a_lowered_number_holds_once_those_above_it_have_ended() {
        let turns = Turns::default();
        turns.set_most(3);
        let taken: Vec<_> = (0..2).filter_map(|_| turns.try_take()).collect();
        turns.set_most(1);
        assert_eq!(free(&turns), 0);
        let mut taken = taken.into_iter();
        drop(taken.next());
        assert!(turns.try_take().is_none());
        drop(taken.next());
        assert_eq!(free(&turns), 1);
    }

    #[test]
    fn a_raised_number_holds_at_once() {
        let turns = Turns::default();
        turns.set_most(2);
        let taken: Vec<_> = (0..2).filter_map(|_| turns.try_take()).collect();
        turns.set_most(1);
        turns.set_most(4);
        assert_eq!(free(&turns), 2);
        drop(taken);
        assert_eq!(free(&turns), 4);
    }

    #[tokio::test]
    async fn turns_come_in_the_order_of_asking() {
        let turns = Turns::default();
        turns.set_most(1);
        let first = turns.try_take();
        let (mut second, mut third) = (Box::pin(turns.take()), Box::pin(turns.take()));
        let nobody = futures_util::poll!(&mut second).is_pending();
        assert!(nobody && futures_util::poll!(&mut third).is_pending());
        drop(first);
        // Who asked later is not served first, even when it is asked first.
        assert!(futures_util::poll!(&mut third).is_pending());
        let second = second.await;
        assert!(second.is_some() && futures_util::poll!(&mut third).is_pending());
        drop(second);
        assert!(third.await.is_some());
    }
}
