//! What a command said: read from its pipes as it comes, and kept until it is sent. A short output and the beginning of a
//! long one are in memory of our own, which is faster than any file; the rest of a long one goes to a spool. Both are
//! bounded for all commands together, so that memory stays flat whatever they say.

mod budget;
mod collector;
mod spool;

use std::io;

use super::policy::Refusal;
use crate::net::Part;
use budget::{KEPT, SPOOLED, Share};
use spool::Spool;

pub(super) use collector::Collector;
pub(super) use spool::Full;

/// What is shorter is always in memory; as much as a pipe holds.
const SHORT: usize = 64 << 10;

/// The most of one output that is in memory.
const LONG: usize = 16 << 20;

/// So many times more memory is taken when there is not enough: what is there is copied then, and what is not yet used
/// costs nothing.
const GROWTH: usize = 16;

/// Why a command was ended whose output there was no room for.
pub(super) fn refusal() -> Refusal {
    let message = "the command was ended, as there was no room to keep more of what it said";
    Refusal::new("spool_full", message)
}

/// One output of a command.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// All of it, or the beginning.
    memory: Vec<u8>,
    /// For what of it is not [`SHORT`].
    share: Option<Share>,
    /// The rest.
    spool: Option<Spool>,
}

impl Output {
    /// Its bytes.
    pub(super) fn len(&self) -> u64 {
        self.memory.len() as u64 + self.spool.as_ref().map_or(0, Spool::len)
    }

    /// Whether it is more than a pipe holds.
    pub(super) fn is_long(&self) -> bool {
        self.memory.len() >= SHORT
    }

    /// As it is sent.
    pub(super) fn parts(&self) -> [Part<'_>; 2] {
        let rest = self.spool.as_ref();
        let rest = rest.map_or(Part::Bytes(&[]), |s| Part::File(s.file(), s.len()));
        [Part::Bytes(&self.memory), rest]
    }

    /// All of a short one.
    pub(super) fn beginning(&self) -> &[u8] {
        &self.memory
    }

    /// Appends `bytes`. When there is no room for all of them, some.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), Full> {
        if self.spool.is_none() && self.has_room(bytes.len()) {
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        self.spool()?.write(bytes)
    }

    /// Appends a line of our own, for which there is always room.
    pub(super) fn append_line(&mut self, line: &str) {
        let before = if self.ends_a_line() { "" } else { "\n" };
        let line = format!("{before}{line}\n");
        match &mut self.spool {
            None => self.memory.extend_from_slice(line.as_bytes()),
            // What cannot be said here stands in the header.
            Some(spool) => drop(spool.put(line.as_bytes())),
        }
    }

    fn ends_a_line(&self) -> bool {
        let mut last = [b'\n'];
        // What cannot be read does not matter here.
        let _ = self.read(&mut last, self.len().saturating_sub(1));
        last == [b'\n']
    }

    /// Reads what is `at` bytes from the beginning; less than `into` holds at the end.
    pub(super) fn read(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let kept = self.memory.len();
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(kept);
        let count = into.len().min(kept - from);
        let (beginning, rest) = into.split_at_mut(count);
        beginning.copy_from_slice(&self.memory[from..from + count]);
        let at = (at + count as u64).saturating_sub(kept as u64);
        match &self.spool {
            Some(spool) if !rest.is_empty() => Ok(count + spool.read(rest, at)?),
            _ => Ok(count),
        }
    }

    /// Whether memory has room for `more` bytes, which is made if there may be.
    fn has_room(&mut self, more: usize) -> bool {
        let (len, capacity) = (self.memory.len(), self.memory.capacity());
        if len + more <= capacity.max(SHORT) {
            return true;
        }
        let wanted = (GROWTH * capacity)
            .max(len + more)
            .max(GROWTH * SHORT)
            .min(LONG.max(len + more));
        let share = self.share.get_or_insert_with(|| Share::new(&KEPT));
        if wanted > LONG || !share.grow((wanted - capacity) as u64) {
            return false;
        }
        self.memory.reserve_exact(wanted - len);
        true
    }

    fn spool(&mut self) -> Result<&mut Spool, Full> {
        if self.spool.is_none() {
            self.spool = Some(Spool::new(&SPOOLED)?);
        }
        self.spool.as_mut().ok_or(Full)
    }
}

#[cfg(test)]
impl From<&[u8]> for Output {
    fn from(bytes: &[u8]) -> Self {
        let mut output = Self::default();
        output.memory.extend_from_slice(bytes);
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_output_is_one_wherever_it_is_kept() {
        let mut output = Output::default();
        let piece: Vec<u8> = (0..SHORT).map(|i| (i % 251) as u8).collect();
        while output.len() < 2 * LONG as u64 {
            output.append(&piece).unwrap();
        }
        assert!(output.memory.len() <= LONG && output.spool.is_some());
        output.append_line("the end");
        let mut all = vec![0; usize::try_from(output.len()).unwrap()];
        // Across the seam too.
        for (at, into) in (0..).step_by(1000).zip(all.chunks_mut(1000)) {
            assert_eq!(output.read(into, at).unwrap(), into.len());
        }
        let rest = all.strip_suffix(b"\nthe end\n").unwrap();
        assert!(rest.chunks(SHORT).all(|chunk| chunk == piece));
    }

    #[test]
    fn a_line_of_ours_begins_at_the_beginning_of_a_line() {
        for (said, then) in [("", "x\n"), ("a", "a\nx\n"), ("a\n", "a\nx\n")] {
            let mut output = Output::from(said.as_bytes());
            output.append_line("x");
            assert_eq!(output.beginning(), then.as_bytes());
        }
    }
}
