//! Where the rest of a long output goes: a file without a name, in memory that is not ours. The kernel moves a pipe into
//! it and it into a socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

use super::budget::{Budget, Share};

/// Taken of the budget at once.
const STEP: u64 = 256 << 10;

/// There is no room for more, in the budget or on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol::shell) struct Full;

/// A file without a name.
#[derive(Debug)]
pub(super) struct Spool {
    file: OwnedFd,
    len: u64,
    share: Share,
}

impl Spool {
    /// An empty one.
    pub(super) fn new(budget: &'static Budget) -> Result<Self, Full> {
        let make = |flags| memfd_create(c"output", MemfdFlags::CLOEXEC | flags);
        let file = match make(MemfdFlags::NOEXEC_SEAL) {
            // Older kernels do not know it.
            Err(Errno::INVAL) => make(MemfdFlags::empty()),
            made => made,
        };
        Ok(Self {
            file: file.map_err(|_| Full)?,
            len: 0,
            share: Share::new(budget),
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// How much may be written now: some, or it is full.
    fn room(&mut self) -> Result<u64, Full> {
        while self.share.held() <= self.len {
            if !self.share.grow(STEP) {
                return Err(Full);
            }
        }
        Ok(self.share.held() - self.len)
    }

    /// Appends `bytes`, all of them or as many as there is room for.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Full> {
        while !bytes.is_empty() {
            let room = usize::try_from(self.room()?).unwrap_or(usize::MAX);
            let some = &bytes[..bytes.len().min(room)];
            bytes = &bytes[self.put(some)?..];
        }
        Ok(())
    }

    /// Appends a few bytes of our own, which the budget need not know.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<usize, Full> {
        let count = rustix::io::pwrite(&self.file, bytes, self.len).map_err(|_| Full)?;
        self.len += count as u64;
        Ok(count)
    }

    /// Moves what a pipe holds to the end, `most` bytes at most. How many; none when the pipe is empty and may yet be
    /// written to, 0 when it is at its end.
    pub(super) fn take(&mut self, pipe: impl AsFd, most: u64) -> Result<Option<u64>, Full> {
        let most = usize::try_from(self.room()?.min(most)).unwrap_or(usize::MAX);
        let mut at = self.len;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match splice(pipe, None, &self.file, Some(&mut at), most, flags) {
            Ok(count) => {
                self.len += count as u64;
                Ok(Some(count as u64))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(_) => Err(Full),
        }
    }

    /// Reads what is `at` bytes from the beginning; less than `into` holds at the end.
    pub(super) fn read(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match rustix::io::pread(&self.file, &mut into[done..], at + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spools_share_one_budget_and_give_it_back() {
        static BUDGET: Budget = Budget::new(|| 2 * STEP);
        let bytes = vec![7; STEP as usize];
        let mut spools: Vec<_> = (0..3).map(|_| Spool::new(&BUDGET).unwrap()).collect();
        let written: Vec<_> = spools.iter_mut().map(|s| s.write(&bytes)).collect();
        assert_eq!(written, [Ok(()), Ok(()), Err(Full)]);
        assert_eq!(spools[0].write(b"x"), Err(Full));
        spools.remove(0);
        assert_eq!(spools[1].write(&bytes), Ok(()));
        drop(spools);
        assert_eq!(BUDGET.held(), 0);
    }

    #[test]
    fn a_full_spool_keeps_what_there_was_room_for() {
        static BUDGET: Budget = Budget::new(|| STEP);
        let mut spool = Spool::new(&BUDGET).unwrap();
        assert_eq!(spool.write(&vec![7; STEP as usize + 1]), Err(Full));
        assert_eq!(spool.len(), STEP);
    }
}
