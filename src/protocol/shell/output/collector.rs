//! Reads both outputs of a command at once.
//!
//! A pipe holds 64 KiB before anybody has to wait, so that a short command is read once, when it has ended, and nobody is
//! woken by what it says; who runs it has the pipes watched when it takes longer.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::spool::{Full, SPOOLS};
use super::{Output, SHORT};

/// Reads a command's outputs into memory or spools, up to a number of bytes for both.
pub(in crate::protocol::shell) struct Collector {
    pipes: [Pipe; 2],
    outputs: [Output; 2],
    /// Bytes that it still takes.
    room: u64,
    truncated: bool,
    full: bool,
}

/// What a command said.
#[derive(Debug)]
pub(in crate::protocol::shell) struct Collected {
    pub(in crate::protocol::shell) stdout: Output,
    pub(in crate::protocol::shell) stderr: Output,
    /// It said more than this.
    pub(in crate::protocol::shell) truncated: bool,
    /// That is so because there was no room in the spools of all commands.
    pub(in crate::protocol::shell) full: bool,
}

impl Collector {
    /// Of the reading ends of stdout and stderr, which must not block; `most` bytes of both together.
    pub(in crate::protocol::shell) fn new(pipes: [OwnedFd; 2], most: u64) -> Self {
        Self {
            pipes: pipes.map(Pipe::Quiet),
            outputs: Default::default(),
            room: most,
            truncated: false,
            full: false,
        }
    }

    /// Has the runtime watch the pipes, from now on.
    pub(in crate::protocol::shell) fn watch(&mut self) -> io::Result<()> {
        self.pipes.iter_mut().try_for_each(Pipe::watch)
    }

    /// Waits for something to read, and reads it; for ever when the pipes are not watched, at their end, or cut. Cancel
    /// safe.
    pub(in crate::protocol::shell) async fn read(&mut self) {
        std::future::poll_fn(|cx| {
            let mut polled = Poll::Pending;
            for which in 0..self.pipes.len() {
                polled = polled.min(self.poll_one(which, cx));
            }
            polled
        })
        .await;
    }

    /// Takes what was written by now, however late we came to read it.
    pub(in crate::protocol::shell) fn take_what_is_there(&mut self) {
        for which in 0..self.pipes.len() {
            while !self.is_cut() && self.read_now(which) {}
        }
    }

    /// Whether both are at their end.
    pub(in crate::protocol::shell) fn is_drained(&self) -> bool {
        self.pipes.iter().all(|pipe| matches!(pipe, Pipe::Closed))
    }

    /// Whether there was more than it takes: nothing more is read.
    pub(in crate::protocol::shell) fn is_cut(&self) -> bool {
        self.truncated
    }

    /// What was read.
    pub(in crate::protocol::shell) fn finish(self) -> Collected {
        let [stdout, stderr] = self.outputs;
        Collected {
            stdout,
            stderr,
            truncated: self.truncated,
            full: self.full,
        }
    }

    fn poll_one(&mut self, which: usize, cx: &mut Context<'_>) -> Poll<()> {
        let (Pipe::Watched(pipe), false) = (&self.pipes[which], self.truncated) else {
            return Poll::Pending;
        };
        let Ok(mut ready) = ready!(pipe.poll_read_ready(cx)) else {
            self.pipes[which] = Pipe::Closed;
            return Poll::Ready(());
        };
        let read = take(pipe.get_ref(), &mut self.outputs[which], self.room);
        if matches!(read, Ok(Read { more: false, .. })) {
            ready.clear_ready();
        }
        self.note(which, read);
        Poll::Ready(())
    }

    /// Reads once of one pipe. Whether there may be more now.
    fn read_now(&mut self, which: usize) -> bool {
        let pipe = match &self.pipes[which] {
            Pipe::Quiet(pipe) => pipe,
            Pipe::Watched(pipe) => pipe.get_ref(),
            Pipe::Closed => return false,
        };
        let read = take(pipe, &mut self.outputs[which], self.room);
        self.note(which, read)
    }

    fn note(&mut self, which: usize, read: Result<Read, Full>) -> bool {
        match read {
            Ok(Read { count, more, end }) => {
                self.truncated = count > self.room;
                self.room = self.room.saturating_sub(count);
                if end {
                    self.pipes[which] = Pipe::Closed;
                }
                more
            }
            Err(Full) => {
                (self.truncated, self.full) = (true, true);
                false
            }
        }
    }
}

/// What one reading came to.
struct Read {
    /// So many bytes were there; more than were asked for is more than is kept.
    count: u64,
    /// The pipe may hold more.
    more: bool,
    /// Nobody can write to it any more.
    end: bool,
}

impl Read {
    const NOTHING: Self = Self {
        count: 0,
        more: false,
        end: false,
    };
}

/// Reads once, and appends `room` bytes of it at most.
fn take(pipe: &OwnedFd, output: &mut Output, room: u64) -> Result<Read, Full> {
    match output {
        Output::Spool(spool) if room > 0 => Ok(match spool.take(pipe, room)? {
            None => Read::NOTHING,
            Some(count) => Read {
                count,
                more: count > 0,
                end: count == 0,
            },
        }),
        _ => copy(pipe, output, room),
    }
}

fn copy(pipe: &OwnedFd, output: &mut Output, room: u64) -> Result<Read, Full> {
    let mut scratch = [const { MaybeUninit::uninit() }; SHORT];
    let read = match rustix::io::read(pipe, &mut scratch[..]) {
        Ok((read, _)) => &*read,
        Err(Errno::AGAIN) => return Ok(Read::NOTHING),
        Err(_) => &[],
    };
    let keep = usize::try_from(room).unwrap_or(usize::MAX).min(read.len());
    output.append(&read[..keep], &SPOOLS)?;
    Ok(Read {
        count: read.len() as u64,
        more: read.len() == SHORT,
        end: read.is_empty(),
    })
}

/// One of a command's outputs.
enum Pipe {
    /// Whatever comes waits in it.
    Quiet(OwnedFd),
    /// Readers are woken by what comes.
    Watched(AsyncFd<OwnedFd>),
    /// At its end.
    Closed,
}

impl Pipe {
    fn watch(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Quiet(pipe) => Self::Watched(crate::net::watch(pipe)?),
            other => other,
        };
        Ok(())
    }
}
