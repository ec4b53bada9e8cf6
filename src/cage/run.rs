//! One run of a worker: waits for the command's end and for the service's word, and sees to it that all of it ends.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process;
use rustix::process::Signal;

use super::confine::{Little, Share};
use super::course::{Course, Next};
use super::descendants::Children;
use super::kernel::process::Child;
use super::kernel::signals::NICE;
use super::kernel::wait::{Waited, wait};
use super::message::{self, Exit, Order, Report, What};
use super::packet;

/// How often those are looked for that a command without a PID namespace has left and that end by themselves.
const LOOK: Duration = Duration::from_millis(10);

/// So many are reaped before the service is listened to again: who goes on to start others ends without end.
const AT_ONCE: usize = 256;

/// What became of a run.
pub(super) enum End {
    /// Ready for the next.
    Over,
    /// The service has gone.
    Left,
}

pub(super) fn report(socket: &OwnedFd, sequence: u32, what: What) {
    let (packet, length) = Report { sequence, what }.packet();
    // Whom it does not reach has gone, which is seen at the next turn.
    let _ = packet::send_bytes(socket, &packet[..length], &[]);
}

/// A command that runs.
pub(super) struct Run<'a> {
    pub(super) socket: &'a OwnedFd,
    pub(super) sequence: u32,
    /// It is said to last when it takes longer.
    pub(super) short: Duration,
    pub(super) share: Option<&'a Share>,
    /// Where it has no PID namespace.
    pub(super) children: Option<&'a Children>,
    pub(super) child: Child<'a>,
}

impl<'a> Run<'a> {
    /// Sees it to its end.
    pub(super) fn watch(self) -> io::Result<End> {
        let mut course = Course::new(Instant::now(), self.short);
        let mut little = None;
        let mut more = false;
        loop {
            let until = if more {
                Some(Instant::now())
            } else {
                course.due()
            };
            let (ended, told) = self.wait_until(until)?;
            if let Some(children) = self.children {
                match self.reap() {
                    Reaped::Command(exit) => {
                        return self.ended_among(children, exit, course, little);
                    }
                    Reaped::Some { more: others } => more = others,
                }
            } else if ended || self.child.is_over() {
                return Ok(self.ended_alone());
            }
            if told {
                match self.listen()? {
                    Heard::End(grace) => course.kill = Some(self.terminate(grace)),
                    Heard::Stale => {}
                    Heard::Nobody => {
                        self.kill();
                        return Ok(End::Left);
                    }
                }
            }
            let now = Instant::now();
            if course.killed_by(now) {
                // Whoever kills is of the group too, and is not to wait.
                drop(little);
                self.kill();
                report(self.socket, self.sequence, What::Gone);
                return Ok(End::Over);
            }
            match course.pass(now) {
                None => {}
                Some(Next::Lasts) => report(self.socket, self.sequence, What::Lasts),
                Some(Next::Demote) => {
                    self.demote();
                    little = self.share.map(Share::little);
                }
            }
        }
    }

    /// Waits for the child's end and for the service's word.
    fn wait_until(&self, until: Option<Instant>) -> io::Result<(bool, bool)> {
        let mut watched = [
            PollFd::new(&self.child.pidfd, PollFlags::IN),
            PollFd::new(self.socket, PollFlags::IN),
        ];
        let wait = until.map(|until| time(until.saturating_duration_since(Instant::now())));
        match poll(&mut watched, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [ended, told] = watched.map(|fd| !fd.revents().is_empty());
        Ok((ended, told))
    }

    fn listen(&self) -> io::Result<Heard> {
        let mut room = [0; 16];
        let (_, length) = rustix::net::recv(self.socket, &mut room, RecvFlags::empty())?;
        if length == 0 {
            return Ok(Heard::Nobody);
        }
        match message::order(&room[..length]) {
            Some(Order::End { sequence, grace }) if sequence == self.sequence => {
                Ok(Heard::End(grace))
            }
            Some(Order::End { .. }) => Ok(Heard::Stale),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Asks the command to end; returns when it is killed.
    fn terminate(&self, grace: Duration) -> Instant {
        if !grace.is_zero() {
            // It fails when it has just ended, which is what was wanted.
            let _ = match self.children {
                None => process::pidfd_send_signal(&self.child.pidfd, Signal::TERM),
                Some(children) => {
                    children.terminate(Some(self.child.pid));
                    process::kill_process_group(self.child.pid, Signal::TERM)
                }
            };
        }
        Instant::now() + grace
    }

    fn demote(&self) {
        // Whom it does not reach has ended.
        let _ = match self.children {
            None => process::pidfd_send_signal(&self.child.pidfd, Signal::ALARM),
            Some(_) => process::setpriority_pgrp(Some(self.child.pid), NICE),
        };
    }

    /// Kills all that there is of the command.
    fn kill(&self) {
        match self.children {
            None => {
                let _ = process::pidfd_send_signal(&self.child.pidfd, Signal::KILL);
                let (Waited::Ended(..) | Waited::Later | Waited::Nobody) =
                    wait(Some(self.child.pid), true);
            }
            Some(children) => children.kill(&[]),
        }
    }

    /// An init has ended, and with it the whole namespace.
    fn ended_alone(self) -> End {
        let (Waited::Ended(..) | Waited::Later | Waited::Nobody) = wait(Some(self.child.pid), true);
        if !self.child.is_over() {
            report(self.socket, self.sequence, What::Gone);
        }
        End::Over
    }

    /// Reaps whoever has ended: they count as processes until then.
    fn reap(&self) -> Reaped {
        for _ in 0..AT_ONCE {
            match wait(None, false) {
                Waited::Ended(pid, exit) if pid == self.child.pid.as_raw_pid() => {
                    return Reaped::Command(exit);
                }
                Waited::Ended(..) => {}
                Waited::Later | Waited::Nobody => return Reaped::Some { more: false },
            }
        }
        Reaped::Some { more: true }
    }

    /// The command has ended, and others that it started may not have.
    fn ended_among(
        self,
        children: &Children,
        exit: Exit,
        course: Course,
        little: Option<Little<'a>>,
    ) -> io::Result<End> {
        let left = !matches!(wait(None, false), Waited::Nobody);
        let what = self.child.what(Exit { left, ..exit });
        report(self.socket, self.sequence, what);
        if !left {
            return Ok(End::Over);
        }
        let end = self.outlast(children, course, little)?;
        report(self.socket, self.sequence, What::Gone);
        Ok(end)
    }

    /// Until those that a command has left have ended, or are to be.
    fn outlast(
        &self,
        children: &Children,
        mut course: Course,
        mut little: Option<Little<'a>>,
    ) -> io::Result<End> {
        loop {
            let look = match wait(None, false) {
                Waited::Nobody => return Ok(End::Over),
                Waited::Ended(..) => Duration::ZERO,
                Waited::Later => LOOK,
            };
            let now = Instant::now();
            if course.killed_by(now) {
                drop(little);
                children.kill(&[]);
                return Ok(End::Over);
            }
            // That it lasts is known by now, and its number may be another's.
            if let Some(Next::Demote) = course.pass(now) {
                little = self.share.map(Share::little);
            }
            let mut watched = [PollFd::new(self.socket, PollFlags::IN)];
            match poll(&mut watched, Some(&time(look))) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            match self.listen()? {
                Heard::End(grace) => {
                    if !grace.is_zero() {
                        children.terminate(None);
                    }
                    course.kill = Some(Instant::now() + grace);
                }
                Heard::Stale => {}
                Heard::Nobody => {
                    children.kill(&[]);
                    return Ok(End::Left);
                }
            }
        }
    }
}

/// Who has ended of a command without a PID namespace.
enum Reaped {
    /// The command itself, so.
    Command(Exit),
    /// Some that it has left, or nobody; and whether there may be more of them.
    Some { more: bool },
}

/// What the service said while a command ran.
enum Heard {
    /// End it, with so much grace.
    End(Duration),
    /// End one that has ended.
    Stale,
    /// It has gone.
    Nobody,
}

/// For the kernel, and rounded up to what it is to outlast.
fn time(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs() as i64,
        tv_nsec: duration.subsec_nanos().into(),
    }
}
