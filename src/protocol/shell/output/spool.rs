//! Where an output goes that is too long for memory of our own: a file without a name, in memory that the kernel sends
//! from without copying it, and a bound on all of them together.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use rustix::process::{Resource, getrlimit};

/// Taken of the budget at once.
const STEP: u64 = 256 << 10;

/// The most that all spools of this process hold, whatever the memory of the machine.
const MOST: u64 = 1 << 30;

/// The budget of all listeners.
pub(in crate::protocol::shell) static SPOOLS: Budget = Budget::new(spared);

/// How much spools may hold at once.
#[derive(Debug)]
pub(in crate::protocol::shell) struct Budget {
    most: LazyLock<u64>,
    held: AtomicU64,
}

impl Budget {
    const fn new(most: fn() -> u64) -> Self {
        Self {
            most: LazyLock::new(most),
            held: AtomicU64::new(0),
        }
    }

    /// Takes so many bytes; false when they are not there.
    fn take(&self, bytes: u64) -> bool {
        let more = |held: u64| Some(held + bytes).filter(|held| *held <= *self.most);
        let taken = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A quarter of the machine's memory and [`MOST`] at most. To write past the limit on files would be fatal, so that it
/// bounds all of them.
fn spared() -> u64 {
    let system = rustix::system::sysinfo();
    let memory = system.totalram * u64::from(system.mem_unit);
    let file = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
    MOST.min(memory / 4).min(file.saturating_sub(STEP))
}

/// There is no room for more, in the budget or on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol::shell) struct Full;

/// A file without a name. Dropped, it gives back what it held.
#[derive(Debug)]
pub(in crate::protocol::shell) struct Spool {
    file: OwnedFd,
    len: u64,
    /// Taken of the budget.
    held: u64,
    budget: &'static Budget,
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
            held: 0,
            budget,
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// How much may be written now; some, or it is full.
    fn room(&mut self) -> Result<u64, Full> {
        while self.held <= self.len {
            if !self.budget.take(STEP) {
                return Err(Full);
            }
            self.held += STEP;
        }
        Ok(self.held - self.len)
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

impl Drop for Spool {
    fn drop(&mut self) {
        self.budget.give_back(self.held);
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
        assert_eq!(BUDGET.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_spool_keeps_what_there_was_room_for() {
        static BUDGET: Budget = Budget::new(|| STEP);
        let mut spool = Spool::new(&BUDGET).unwrap();
        assert_eq!(spool.write(&vec![7; STEP as usize + 1]), Err(Full));
        assert_eq!(spool.len(), STEP);
    }
}
