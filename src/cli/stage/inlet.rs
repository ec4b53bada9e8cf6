//! Bytes that come in, from a terminal, a pipe or a file, without a thread that waits for them: one could not be ended
//! before the next byte came.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::unix::AsyncFd;

use crate::net::watch;

/// How much is read at once.
const PIECE: usize = 4 << 10;

/// Where they come from.
#[derive(Debug)]
pub(in super::super) enum Inlet {
    /// It says when there is something.
    Told(AsyncFd<OwnedFd>),
    /// It has all of it already: a file, or `/dev/null`.
    Whole(OwnedFd),
}

impl Inlet {
    /// Must be made within the runtime.
    pub(in super::super) fn new(from: BorrowedFd<'_>) -> io::Result<Self> {
        match watch(from.try_clone_to_owned()?) {
            Ok(told) => Ok(Self::Told(told)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Ok(Self::Whole(from.try_clone_to_owned()?))
            }
            Err(error) => Err(error),
        }
    }

    /// What has come; nothing at the end. May be dropped while it waits.
    pub(in super::super) async fn read(&self) -> io::Result<Vec<u8>> {
        let fd = match self {
            Self::Whole(fd) => return read(fd),
            Self::Told(fd) => fd,
        };
        loop {
            let mut guard = fd.readable().await?;
            // Another process may have read it, and this one must not wait.
            if is_ready(guard.get_inner())? {
                match read(guard.get_inner()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    done => return done,
                }
            }
            guard.clear_ready();
        }
    }
}

fn read(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; PIECE];
    let length = rustix::io::read(fd, &mut piece)?;
    piece.truncate(length);
    Ok(piece)
}

fn is_ready(fd: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(poll(&mut fds, Some(&now))? > 0)
}
