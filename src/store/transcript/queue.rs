//! What waits for the next commit.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::super::error::WriteError;
use super::super::lock;
use super::{Entry, Then};

/// As much as may wait, in entries and in their bytes.
const MOST: (usize, usize) = (1 << 16, 64 << 20);

/// As much as goes into one commit: a millisecond's worth or two, so that the first does not wait long for the last; and
/// less than what one step of the retention removes, so that no flood outgrows it.
const BATCH: (usize, usize) = (400, 256 << 10);

/// Entries in their order, each with what hangs on it.
pub(in crate::store) type Waiting = Vec<(Entry, Then)>;

#[derive(Default)]
pub(in crate::store) struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: VecDeque<(Entry, Then)>,
    bytes: usize,
    /// The writer is going to come by, so that it need not be woken.
    attended: bool,
    closed: bool,
}

impl Queue {
    /// Adds one. Tells whether the writer is to be woken.
    pub(super) fn push(&self, entry: Entry, then: Then) -> Result<bool, WriteError> {
        let (mut state, bytes) = (lock(&self.0), size(&entry));
        if state.closed {
            return Err(WriteError::Closed);
        }
        if state.waiting.len() >= MOST.0 || state.bytes + bytes > MOST.1 && state.bytes > 0 {
            return Err(WriteError::Busy);
        }
        state.bytes += bytes;
        state.waiting.push_back((entry, then));
        Ok(!std::mem::replace(&mut state.attended, true))
    }

    /// Takes as much as one commit has room for, and tells whether there is more, for which to come again.
    pub(in crate::store) fn take(&self) -> (Waiting, bool) {
        let mut state = lock(&self.0);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < BATCH.0 && bytes < BATCH.1 {
            let Some(next) = state.waiting.pop_front() else {
                break;
            };
            bytes += size(&next.0);
            taken.push(next);
        }
        state.bytes -= bytes;
        state.attended = !state.waiting.is_empty();
        (taken, state.attended)
    }

    /// Takes no more from now on.
    pub(in crate::store) fn close(&self) {
        lock(&self.0).closed = true;
    }
}

fn size(entry: &Entry) -> usize {
    let text = match entry {
        Entry::Said(_, line) => line.raw.len() + line.operator.len() + line.request_id.len(),
        Entry::Muted(..) | Entry::Ended(..) => 0,
    };
    size_of::<(Entry, Then)>() + text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(queue: &Queue, id: i64) -> Result<bool, WriteError> {
        let entry = Entry::Ended(id, std::time::SystemTime::now());
        queue.push(entry, Box::new(|_| {}))
    }

    fn taken(queue: &Queue) -> (Vec<i64>, bool) {
        let (taken, more) = queue.take();
        let id = |(entry, _): (Entry, Then)| match entry {
            Entry::Ended(id, _) => id,
            _ => 0,
        };
        (taken.into_iter().map(id).collect(), more)
    }

    #[test]
    fn it_is_taken_in_order_and_only_the_first_wakes() {
        let queue = Queue::default();
        let woken = (0..500).filter(|id| ended(&queue, *id).unwrap()).count();
        assert_eq!(woken, 1);
        assert_eq!(taken(&queue), ((0..400).collect(), true));
        assert!(!ended(&queue, 500).unwrap());
        assert_eq!(taken(&queue), ((400..=500).collect(), false));
        assert!(ended(&queue, 1).unwrap());
    }

    #[test]
    fn it_is_bounded_and_can_be_closed() {
        let queue = Queue::default();
        let entered = (0..100_000).take_while(|id| ended(&queue, *id).is_ok());
        assert_eq!(entered.count(), MOST.0);
        assert_eq!(ended(&queue, 1), Err(WriteError::Busy));
        queue.close();
        assert_eq!(ended(&queue, 1), Err(WriteError::Closed));
    }
}
