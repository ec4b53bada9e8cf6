//! A worker of a launcher, as the service has it: one socket, and one command at a time.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use super::policy::Plan;
use crate::cage::message::{self, REPORT, Report, What};
use crate::cage::packet;

/// A worker. Dropped, it is killed, and with it all of a command that runs: even one that hears nothing any more.
pub(super) struct Worker {
    socket: AsyncFd<OwnedFd>,
    process: OwnedFd,
    sequence: u32,
    /// The number of the launcher that made it.
    pub(super) launcher: u64,
    /// Counts it for as long as it lives.
    _alive: Arc<()>,
}

impl Worker {
    /// Of its socket and its process.
    pub(super) fn new(
        [socket, process]: [OwnedFd; 2],
        launcher: u64,
        alive: &Arc<()>,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket: crate::net::watch(socket)?,
            process,
            sequence: 0,
            launcher,
            _alive: alive.clone(),
        })
    }

    /// Has a command run with these outputs, and it be told when it takes longer than `short`. When this fails, nothing was started.
    pub(super) fn run(
        &mut self,
        plan: &Plan,
        short: Duration,
        outputs: [BorrowedFd<'_>; 2],
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let program = plan.program.as_os_str().as_bytes();
        let arguments: Vec<&[u8]> = std::iter::once(program)
            .chain(plan.arguments.iter().map(String::as_bytes))
            .collect();
        let packet = message::run(self.sequence, short, program, &arguments);
        Ok(packet::send_bytes(&self.socket, &packet, &outputs)?)
    }

    /// Has the command asked to end, and after `grace` killed with all that it started.
    pub(super) fn end(&self, grace: Duration) {
        let packet = message::end(self.sequence, grace);
        // One that is gone has ended all of it.
        let _ = packet::send_bytes(&self.socket, &packet, &[]);
    }

    /// What becomes of the command; none when the worker is gone, and the command with it. Cancel safe.
    pub(super) async fn report(&self) -> Option<What> {
        loop {
            let mut ready = self.socket.readable().await.ok()?;
            let mut room = [0; REPORT];
            match rustix::net::recv(&self.socket, &mut room, rustix::net::RecvFlags::empty()) {
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) | Ok((_, 0)) => return None,
                Ok((_, length)) => {
                    let report = Report::read(&room[..length])?;
                    if report.sequence == self.sequence {
                        if report.what.is_last() {
                            // Nothing follows it unasked: nobody needs to look for that.
                            ready.clear_ready();
                        }
                        return Some(report.what);
                    }
                }
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It fails when it has ended by itself.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}
