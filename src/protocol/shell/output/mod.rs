//! What a command said: read from its pipes as it comes, kept in memory while it is short and in a spool when it is
//! not, so that our own memory stays flat whatever commands say.

mod collector;
mod spool;

pub(super) use collector::Collector;
pub(super) use spool::{Full, SPOOLS};

use spool::{Budget, Spool};

use std::io;

use super::policy::Refusal;
use crate::net::Part;

/// What is longer goes to a spool; as much as a pipe holds.
const SHORT: usize = 64 << 10;

/// Why a command was ended whose output there was no room for.
pub(super) fn refusal() -> Refusal {
    let message = "the command was ended, as there was no room to keep more of what it said";
    Refusal::new("spool_full", message)
}

/// One output of a command.
#[derive(Debug)]
pub(super) enum Output {
    /// A short one.
    Memory(Vec<u8>),
    /// A long one.
    Spool(Spool),
}

impl Default for Output {
    fn default() -> Self {
        Self::Memory(Vec::new())
    }
}

impl Output {
    /// Its bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Spool(spool) => spool.len(),
        }
    }

    /// As it is sent.
    pub(super) fn part(&self) -> Part<'_> {
        match self {
            Self::Memory(bytes) => Part::Bytes(bytes),
            Self::Spool(spool) => Part::File(spool.file(), spool.len()),
        }
    }

    /// Appends `bytes`. When there is no room for all of a long output, some of them.
    pub(super) fn append(&mut self, bytes: &[u8], budget: &'static Budget) -> Result<(), Full> {
        match self {
            Self::Spool(spool) => spool.write(bytes),
            Self::Memory(memory) if memory.len() + bytes.len() <= SHORT => {
                memory.extend_from_slice(bytes);
                Ok(())
            }
            Self::Memory(memory) => {
                let spooled = Spool::new(budget).and_then(|mut spool| {
                    spool.write(memory)?;
                    Ok(spool)
                });
                match spooled {
                    Ok(spool) => {
                        *self = Self::Spool(spool);
                        self.append(bytes, budget)
                    }
                    Err(full) => {
                        memory.extend_from_slice(bytes);
                        Err(full)
                    }
                }
            }
        }
    }

    /// Appends a line of our own, for which there is always room.
    pub(super) fn append_line(&mut self, line: &str) {
        let before = if self.ends_a_line() { "" } else { "\n" };
        let line = format!("{before}{line}\n");
        match self {
            Self::Memory(memory) => memory.extend_from_slice(line.as_bytes()),
            // What cannot be said here stands in the header.
            Self::Spool(spool) => drop(spool.put(line.as_bytes())),
        }
    }

    fn ends_a_line(&self) -> bool {
        let mut last = [b'\n'];
        match self {
            Self::Memory(bytes) => bytes.last().is_none_or(|last| *last == b'\n'),
            Self::Spool(spool) => {
                // What cannot be read does not matter here.
                let _ = spool.read(&mut last, spool.len().saturating_sub(1));
                last == [b'\n']
            }
        }
    }

    /// Reads what is `at` bytes from the beginning; less than `into` holds at the end.
    pub(super) fn read(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Self::Spool(spool) => spool.read(into, at),
            Self::Memory(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let count = into.len().min(bytes.len() - from);
                into[..count].copy_from_slice(&bytes[from..from + count]);
                Ok(count)
            }
        }
    }
}
