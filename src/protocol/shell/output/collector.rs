//! Reads both outputs of a command at once.
//!
//! A pipe holds 64 KiB before anybody has to wait, so that a short command is read once, when it has ended, and nobody is
//! woken by what it says; who runs it has the pipes watched when it takes longer.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use tokio::io::unix::AsyncFd;

use super::budget::{Share, WIDENED};
use super::{Full, Output, SHORT};

/// What a busy pipe holds: four times the usual.
const WIDE: usize = 256 << 10;

/// Reads a command's outputs into memory or spools, up to a number of bytes for both.
pub(in crate::protocol::shell) struct Collector {
    pipes: [Pipe; 2],
    outputs: [Output; 2],
    /// Of the pipes that proved busy.
    widened: [Option<Share>; 2],
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
            widened: Default::default(),
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
                if self.poll_one(which, cx).is_ready() {
                    polled = Poll::Ready(());
                }
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
        // A pipe that was emptied tells when there is more.
        if matches!(read, Ok(Read { more: false, .. })) {
            ready.clear_ready();
        }
        self.note(which, read);
        Poll::Ready(())
    }

    /// Reads once of one pipe. Whether there may be more now.
    fn read_now(&mut self, which: usize) -> bool {
        let Some(pipe) = self.pipes[which].descriptor() else {
            return false;
        };
        let read = take(pipe, &mut self.outputs[which], self.room);
        self.note(which, read)
    }

    /// Lets a busy pipe hold more, so that its command waits less often for us.
    fn widen(&mut self, which: usize) {
        let share = self.widened[which].insert(Share::new(&WIDENED));
        if let Some(pipe) = self.pipes[which].descriptor()
            && share.grow(WIDE as u64)
        {
            // One that stays as it is does as well, more slowly.
            let _ = fcntl_setpipe_size(pipe, WIDE);
        }
    }

    fn note(&mut self, which: usize, read: Result<Read, Full>) -> bool {
        match read {
            Ok(Read { count, more, end }) => {
                self.truncated = count > self.room;
                self.room = self.room.saturating_sub(count);
                if end {
                    self.pipes[which] = Pipe::Closed;
                } else if self.widened[which].is_none() && self.outputs[which].is_long() {
                    self.widen(which);
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
    /// What reading `most` bytes came to, of which `count` were there.
    fn of(count: usize, most: usize) -> Self {
        Self {
            count: count as u64,
            more: count == most,
            end: count == 0,
        }
    }

    const NOTHING: Self = Self {
        count: 0,
        more: false,
        end: false,
    };
}

/// Reads once, and appends `room` bytes of it at most.
fn take(pipe: &OwnedFd, output: &mut Output, room: u64) -> Result<Read, Full> {
    if output.memory.len() < SHORT || room == 0 {
        return take_little(pipe, output, room);
    }
    if output.spool.is_none() && output.has_room(SHORT) {
        return Ok(take_much(pipe, &mut output.memory, room));
    }
    let taken = output.spool()?.take(pipe, room)?;
    // What is left in the pipe is only known when nothing was.
    Ok(taken.map_or(Read::NOTHING, |count| Read {
        count,
        more: count > 0,
        end: count == 0,
    }))
}

/// By way of the stack: takes no more memory than what is there.
fn take_little(pipe: &OwnedFd, output: &mut Output, room: u64) -> Result<Read, Full> {
    let mut scratch = [const { MaybeUninit::uninit() }; SHORT];
    let bytes = match rustix::io::read(pipe, &mut scratch[..]) {
        Ok((bytes, _)) => &*bytes,
        Err(Errno::AGAIN) => return Ok(Read::NOTHING),
        Err(_) => &[],
    };
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    output.append(&bytes[..bytes.len().min(room)])?;
    Ok(Read::of(bytes.len(), SHORT))
}

/// Into memory that has room for [`SHORT`] bytes.
fn take_much(pipe: &OwnedFd, memory: &mut Vec<u8>, room: u64) -> Read {
    let before = memory.len();
    let space = memory.capacity() - before;
    let count = match rustix::io::read(pipe, spare_capacity(memory)) {
        Err(Errno::AGAIN) => return Read::NOTHING,
        read => read.unwrap_or(0),
    };
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    memory.truncate(before.saturating_add(room));
    Read::of(count, space)
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

    fn descriptor(&self) -> Option<&OwnedFd> {
        match self {
            Self::Quiet(pipe) => Some(pipe),
            Self::Watched(pipe) => Some(pipe.get_ref()),
            Self::Closed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::thread::JoinHandle;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    /// A collector, and who writes so many bytes to each of its pipes, a few at a time.
    fn told(sizes: [usize; 2], most: u64) -> (Collector, [JoinHandle<()>; 2]) {
        let pipes = sizes.map(|size| {
            let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            rustix::io::ioctl_fionbio(&ours, true).unwrap();
            let write = move || {
                let mut theirs = File::from(theirs);
                let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
                // Whoever is cut off cannot write.
                let _ = bytes
                    .chunks(4099)
                    .try_for_each(|some| theirs.write_all(some));
            };
            (ours, std::thread::spawn(write))
        });
        let [(stdout, first), (stderr, second)] = pipes;
        (Collector::new([stdout, stderr], most), [first, second])
    }

    async fn collect(sizes: [usize; 2], most: u64) -> Collected {
        let (mut collector, writers) = told(sizes, most);
        collector.watch().unwrap();
        while !collector.is_drained() && !collector.is_cut() {
            collector.read().await;
        }
        let collected = collector.finish();
        writers.into_iter().for_each(|w| w.join().unwrap());
        collected
    }

    fn assert_as_written(output: &Output) {
        let mut bytes = vec![0; usize::try_from(output.len()).unwrap()];
        assert_eq!(output.read(&mut bytes, 0).unwrap(), bytes.len());
        let wrong = bytes
            .iter()
            .enumerate()
            .find(|(at, b)| **b != (at % 251) as u8);
        assert_eq!(wrong, None);
    }

    #[tokio::test]
    async fn both_outputs_come_whole_whatever_their_size() {
        for sizes in [
            [0, 0],
            [3, 0],
            [SHORT, SHORT + 1],
            [0, 3 << 20],
            [20 << 20, 20 << 20],
        ] {
            let said = collect(sizes, u64::MAX).await;
            let lengths = [said.stdout.len(), said.stderr.len()];
            assert_eq!(lengths, sizes.map(|size| size as u64));
            assert!(!said.truncated);
            assert_as_written(&said.stdout);
            assert_as_written(&said.stderr);
        }
    }

    #[tokio::test]
    async fn so_much_is_taken_and_one_byte_more_is_too_much() {
        for most in [1, 1000, SHORT, SHORT + 1, 1 << 20, 17 << 20] {
            let exact = collect([most, 0], most as u64).await;
            assert_eq!((exact.stdout.len(), exact.truncated), (most as u64, false));
            let cut = collect([most + 1, 0], most as u64).await;
            assert_eq!((cut.stdout.len(), cut.truncated), (most as u64, true));
            assert!(!cut.full);
            assert_as_written(&cut.stdout);
        }
    }

    #[test]
    fn what_waits_in_a_pipe_is_taken_without_watching_it() {
        let (mut collector, writers) = told([SHORT / 2, 5], 1 << 20);
        writers.into_iter().for_each(|w| w.join().unwrap());
        collector.take_what_is_there();
        let said = collector.finish();
        assert_eq!(
            (said.stdout.len(), said.stderr.len()),
            (SHORT as u64 / 2, 5)
        );
    }
}
