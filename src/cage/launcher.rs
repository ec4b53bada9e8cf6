//! The launcher: makes workers, and sees to it that nothing of them is left.
//!
//! It has one thread, and all the rights of the service, of which it uses none but to make workers that have fewer. No
//! command ever speaks to it, or knows of it. When the service is gone, however that came, its socket ends: it kills its
//! workers, with which all their commands die, and goes too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal};
use rustix::{process, stdio};

use super::descendants::Children;
use super::kernel::process as bare;
use super::kernel::signals;
use super::kernel::wait::wait;
use super::packet::{self, Born, Hire, Told};
use super::{Failure, Isolation, Offer, Profile, confine, worker};

/// How long a worker may take to be ready.
const READY: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Runs the launcher: the whole life of a process that the service has started for it.
///
/// # Errors
/// It was not the service that started it, or what it had of the service broke off.
pub fn run() -> io::Result<()> {
    let control = take_control()?;
    let profile = packet::receive(&control)?;
    let Some((profile, _)): Option<(Profile, _)> = profile else {
        return Ok(());
    };
    confine::sweep(&profile);
    let mut launcher = Launcher {
        profile,
        isolation: Isolation::None,
        missing: Vec::new(),
        workers: BTreeMap::new(),
        children: Children::open()?,
    };
    let first = launcher.first();
    let told = launcher.tell(&control, first);
    let ended = told.and_then(|()| launcher.serve(&control));
    launcher.kill_all();
    ended
}

/// The service's socket, of a process that has nothing else from whoever started it.
fn take_control() -> io::Result<OwnedFd> {
    let given = bare::inherited(0);
    let kind = rustix::net::sockopt::socket_type(&given);
    if kind != Ok(SocketType::SEQPACKET) {
        return Err(io::Error::other("its input is not the service's socket"));
    }
    signals::reset_signals();
    // Who ends all processes of a service may leave it time: what ends us is the socket.
    signals::outlast_signals();
    bare::close_from(3);
    let control = fcntl_dupfd_cloexec(&given, 3)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // Number 0 is the one that was given.
    drop(given);
    stdio::dup2_stdin(&null)?;
    stdio::dup2_stdout(&null)?;
    process::setsid()?;
    process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    process::set_child_subreaper(Some(process::getpid()))?;
    Ok(control)
}

struct Launcher {
    profile: Profile,
    isolation: Isolation,
    missing: Vec<String>,
    /// By slot.
    workers: BTreeMap<u32, Worker>,
    children: Children,
}

struct Worker {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Launcher {
    /// Makes the first worker, with the strongest cage that can be had.
    fn first(&mut self) -> Result<[OwnedFd; 2], Failure> {
        let only = self.profile.isolation;
        let mut last = None;
        for isolation in Isolation::ALL {
            if only.is_some_and(|only| only != isolation) {
                continue;
            }
            self.isolation = isolation;
            match self.make() {
                Ok((made, missing)) => {
                    self.missing.extend(missing);
                    return Ok(made);
                }
                Err(failure) => {
                    let why = format!("no isolation `{}`: {failure}", isolation.word());
                    self.missing.push(why);
                    last = Some(failure);
                }
            }
        }
        Err(last.unwrap_or_else(|| Failure::of("find an isolation", Errno::NOTSUP)))
    }

    /// Makes a worker in the first free slot; returns the service's end of its socket, its process, and what it could not
    /// have.
    fn make(&mut self) -> Result<([OwnedFd; 2], Vec<String>), Failure> {
        let slot = (0..).find(|slot| !self.workers.contains_key(slot));
        let slot = slot.unwrap_or_default();
        let made = self.make_in(slot);
        if made.is_err() {
            confine::leave_behind(&self.profile, slot);
        }
        made
    }

    fn make_in(&mut self, slot: u32) -> Result<([OwnedFd; 2], Vec<String>), Failure> {
        let failed = |errno| Failure::of("a socket for it", errno);
        let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
        let (ours, its) = socketpair(family, SocketType::SEQPACKET, flags, None).map_err(failed)?;
        let copied = bare::copy(false).map_err(|e| Failure::from_io("a process for it", &e))?;
        if copied == 0 {
            bare::close_but(&its);
            worker::live(&self.profile, self.isolation, slot, its);
        }
        drop(its);
        // Whatever has become of the first process, the worker is told of by its packets alone.
        let _ = wait(Pid::from_raw(copied), true);
        let (worker, missing) = born(&ours)?;
        let process = worker.pidfd.try_clone();
        self.workers.insert(slot, worker);
        let process = process.map_err(|e| Failure::from_io("its process", &e))?;
        Ok(([ours, process], missing))
    }

    fn tell(&self, control: &OwnedFd, made: Result<[OwnedFd; 2], Failure>) -> io::Result<()> {
        match made {
            Ok(made) => {
                let offer = Offer {
                    isolation: self.isolation,
                    missing: self.missing.clone(),
                };
                let made = made.each_ref().map(AsFd::as_fd);
                packet::send(control, &Told::Ready(offer), &made)
            }
            Err(failure) => packet::send(control, &Told::Failed(failure), &[]),
        }
    }

    /// Until the service has gone.
    fn serve(&mut self, control: &OwnedFd) -> io::Result<()> {
        loop {
            let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
            let workers = self.workers.values().map(|worker| worker.pidfd.as_fd());
            let mut watched: Vec<_> = std::iter::once(control.as_fd())
                .chain(workers)
                .map(readable)
                .collect();
            match poll(&mut watched, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            let ready: Vec<bool> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(watched);
            // Before one is made, which changes who is the how-manieth.
            let slots = self.workers.keys().copied().zip(&ready[1..]);
            let ended = slots.filter_map(|(slot, ended)| ended.then_some(slot));
            for slot in ended.collect::<Vec<_>>() {
                self.bury(slot);
            }
            if ready[0] {
                let Some((Hire, _)) = packet::receive(control)? else {
                    return Ok(());
                };
                let made = self.make().map(|(made, _)| made);
                self.tell(control, made)?;
            }
        }
    }

    fn bury(&mut self, slot: u32) {
        if let Some(worker) = self.workers.remove(&slot) {
            worker.kill();
        }
        // Where commands have no PID namespace, they fall to us when their worker is killed.
        let others: Vec<Pid> = self.workers.values().map(|worker| worker.pid).collect();
        self.children.kill(&others);
        confine::leave_behind(&self.profile, slot);
    }

    fn kill_all(&mut self) {
        for worker in self.workers.values() {
            let _ = process::pidfd_send_signal(&worker.pidfd, Signal::KILL);
        }
        confine::hasten(&self.profile);
        let slots: Vec<u32> = self.workers.keys().copied().collect();
        for slot in slots {
            self.bury(slot);
        }
    }
}

impl Worker {
    /// The worker of this number: a child of ours, which has not been reaped.
    fn adopt(pid: i32) -> Option<Self> {
        let pid = Pid::from_raw(pid)?;
        let pidfd = process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Some(Self { pid, pidfd })
    }

    /// Kills and reaps it.
    fn kill(&self) {
        // It fails when it has ended by itself.
        let _ = process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        wait(Some(self.pid), true);
    }
}

/// A worker that is being made, once it is ready, and what it could not have.
fn born(socket: &OwnedFd) -> Result<(Worker, Vec<String>), Failure> {
    let (mut worker, mut ready) = (None, None);
    loop {
        // Two processes speak, and either may be the first.
        match hear(socket, &READY) {
            Ok(Born::Pid(pid)) => worker = Worker::adopt(pid),
            Ok(Born::Ready(missing)) => ready = Some(missing),
            Ok(Born::Failed(failure)) | Err(failure) => {
                // The first of them has ended, and said what it had to say.
                if worker.is_none()
                    && let Ok(Born::Pid(pid)) = hear(socket, &NOW)
                {
                    worker = Worker::adopt(pid);
                }
                worker.iter().for_each(Worker::kill);
                return Err(failure);
            }
        }
        (worker, ready) = match (worker, ready) {
            (Some(worker), Some(missing)) => return Ok((worker, missing)),
            one => one,
        };
    }
}

/// What it has to say, or one of the two before it.
fn hear(socket: &OwnedFd, patience: &Timespec) -> Result<Born, Failure> {
    let failed = |error: io::Error| Failure::from_io("hear of its worker", &error);
    let mut watched = [PollFd::new(socket, PollFlags::IN)];
    let ready = retry_on_intr(|| poll(&mut watched, Some(patience)));
    let ready = ready.map_err(|errno| failed(errno.into()))?;
    if ready == 0 {
        return Err(failed(Errno::TIMEDOUT.into()));
    }
    let born = packet::receive(socket).map_err(failed)?;
    born.map(|(born, _)| born)
        .ok_or_else(|| failed(Errno::PIPE.into()))
}
