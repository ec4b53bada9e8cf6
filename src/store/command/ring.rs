//! The trail of a store in memory: the last commands, as many as there is room for.

use std::collections::VecDeque;
use std::time::SystemTime;

use super::{Command, CommandEnd, Recorded, Slice};

/// Bytes of commands in memory at most, however large the store may grow.
const MOST: u64 = 32 << 20;

/// What one takes besides its texts.
const EACH: usize = size_of::<Recorded>() + 64;

#[derive(Debug)]
pub(super) struct Ring {
    /// The number of the oldest.
    first: i64,
    rows: VecDeque<Recorded>,
    bytes: usize,
    most: usize,
}

impl Ring {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            first: 1,
            rows: VecDeque::new(),
            bytes: 0,
            most: usize::try_from(max_bytes.min(MOST)).unwrap_or(usize::MAX),
        }
    }

    /// Enters one and tells its number; the oldest make room, but never this one.
    pub(super) fn push(&mut self, command: Command, end: Option<CommandEnd>) -> i64 {
        self.bytes += size(&command);
        self.rows.push_back(Recorded { command, end });
        while self.bytes > self.most && self.rows.len() > 1 {
            self.drop_oldest();
        }
        self.next() - 1
    }

    /// The number of the next one.
    fn next(&self) -> i64 {
        self.first + self.rows.len() as i64
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.rows.pop_front() {
            self.bytes -= size(&oldest.command);
            self.first += 1;
        }
    }

    /// Enters an end, unless the command has been forgotten.
    pub(super) fn end(&mut self, id: i64, end: CommandEnd) {
        let at = usize::try_from(id - self.first).ok();
        if let Some(row) = at.and_then(|at| self.rows.get_mut(at)) {
            row.end = Some(end);
        }
    }

    pub(super) fn slice(&self, before: i64, most: usize) -> (Slice, bool) {
        let end = usize::try_from(before.min(self.next()) - self.first).unwrap_or(0);
        let begin = end.saturating_sub(most);
        let numbered = (self.first..).zip(&self.rows).skip(begin).take(end - begin);
        let mut slice: Slice = numbered.map(|(id, row)| (id, row.clone())).collect();
        slice.reverse();
        (slice, begin > 0)
    }

    pub(super) fn forget_before(&mut self, cutoff: SystemTime) {
        let old = self.rows.iter();
        let old = old.take_while(|row| row.command.time < cutoff).count();
        for _ in 0..old.min(self.rows.len().div_ceil(10)) {
            self.drop_oldest();
        }
    }
}

fn size(command: &Command) -> usize {
    let texts = [
        &command.listener,
        &command.session,
        &command.peer,
        &command.trace_id,
    ];
    let texts: usize = texts.iter().map(|text| text.len()).sum();
    EACH + texts + command.text.len()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn command(n: usize) -> Command {
        Command {
            listener: "shell".into(),
            session: "n-1".into(),
            peer: "127.0.0.1:9".into(),
            text: n.to_string().into(),
            time: UNIX_EPOCH + Duration::from_secs(n as u64),
            trace_id: String::new(),
        }
    }

    fn numbers(ring: &Ring, before: i64, most: usize) -> (Vec<i64>, bool) {
        let (slice, more) = ring.slice(before, most);
        (slice.into_iter().map(|(id, _)| id).collect(), more)
    }

    #[test]
    fn slices_go_back_to_the_first() {
        let mut ring = Ring::new(u64::MAX);
        assert_eq!(numbers(&ring, i64::MAX, 3), (vec![], false));
        for n in 1..=5 {
            assert_eq!(ring.push(command(n), None), n as i64);
        }
        assert_eq!(numbers(&ring, i64::MAX, 2), (vec![5, 4], true));
        assert_eq!(numbers(&ring, 4, 2), (vec![3, 2], true));
        assert_eq!(numbers(&ring, 2, 2), (vec![1], false));
        assert_eq!(numbers(&ring, 1, 2), (vec![], false));
    }

    #[test]
    fn the_oldest_make_room_and_their_ends_come_too_late() {
        let mut ring = Ring::new(10_000);
        let first = ring.push(command(0), None);
        for n in 1..1_000 {
            ring.push(command(n), None);
        }
        assert!(ring.bytes <= 10_000 && ring.rows.len() > 5);
        assert_eq!(ring.next(), 1_001);
        ring.end(first, CommandEnd::default());
        ring.end(1_000, CommandEnd::default());
        let ended = |row: &&Recorded| row.end.is_some();
        assert_eq!(ring.rows.iter().filter(ended).count(), 1);
        assert!(ring.slice(i64::MAX, 1).0[0].1.end.is_some());
        let long = Command {
            text: vec![b'x'; 20_000],
            ..command(0)
        };
        ring.push(long, None);
        assert_eq!(numbers(&ring, i64::MAX, 9), (vec![1_001], false));
    }

    #[test]
    fn a_clock_that_jumps_ahead_costs_a_tenth() {
        let mut ring = Ring::new(u64::MAX);
        for n in 0..100 {
            ring.push(command(n), None);
        }
        ring.forget_before(UNIX_EPOCH + Duration::from_secs(5));
        assert_eq!(ring.first, 6);
        ring.forget_before(UNIX_EPOCH + Duration::from_secs(1_000_000));
        assert_eq!((ring.first, ring.rows.len()), (16, 85));
    }
}
