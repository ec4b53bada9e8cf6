//! The share of the processor that a command has beside others that want it: that of its slot's control group.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::pwrite;

/// The share of a slot's commands.
#[derive(Debug)]
pub(in crate::cage) struct Share {
    /// What its group weighs, which is written there.
    file: OwnedFd,
    /// What it weighs when nobody has changed it.
    weight: u64,
}

/// A share that is little for now: a ninth, as that of a process with `nice` 10.
pub(in crate::cage) struct Little<'a>(&'a Share);

impl Share {
    pub(super) fn of(file: &Path, weight: u64) -> io::Result<Self> {
        let file = open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { file, weight })
    }

    /// Makes it little, until that is dropped.
    pub(in crate::cage) fn little(&self) -> Little<'_> {
        self.weigh(self.weight / 9);
        Little(self)
    }

    fn weigh(&self, weight: u64) {
        // It fails when the group has been removed, with whoever was in it.
        let _ = pwrite(&self.file, weight.to_string().as_bytes(), 0);
    }
}

impl Drop for Little<'_> {
    fn drop(&mut self) {
        self.0.weigh(self.0.weight);
    }
}
