//! A worker: holds itself to what the profile says, and then runs one command at a time.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::exit;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::Signal;
use rustix::{process, stdio};

use super::confine::{self, Confined};
use super::descendants::Children;
use super::kernel::process::{self as bare, Child, Stacks, Start, Texts, Waited};
use super::message::{self, Exit, Order, Report, What, Words};
use super::packet::{self, Born};
use super::{Failure, Isolation, Profile};

/// A command that runs for longer gets less of the processor than those that have just begun.
const DEMOTED_AFTER: Duration = Duration::from_millis(250);

/// How often those are looked for that a command without a PID namespace has left and that end by themselves.
const LOOK: Duration = Duration::from_millis(10);

/// The life of a slot's first process, and in a copy of it of the worker. Neither returns.
pub(super) fn live(profile: &Profile, isolation: Isolation, slot: u32, socket: OwnedFd) -> ! {
    let say = |born: Born| packet::send(&socket, &born, &[]);
    let missing = match confine::leave(profile, isolation, slot) {
        Ok(missing) => missing,
        Err(failure) => quit(say(Born::Failed(failure))),
    };
    match bare::copy(true) {
        Err(error) => quit(say(Born::Failed(Failure::from_io(
            "a process in its place",
            &error,
        )))),
        Ok(0) => {}
        Ok(pid) => quit(say(Born::Pid(pid))),
    }
    // Whatever the launcher dies of, its workers do not outlive it.
    let _ = process::set_parent_process_death_signal(Some(Signal::KILL));
    match Worker::new(profile, isolation, slot, missing, &socket) {
        Err(failure) => quit(say(Born::Failed(failure))),
        Ok((mut worker, missing)) => {
            let told = say(Born::Ready(missing));
            quit(told.and_then(|()| worker.work()))
        }
    }
}

fn quit(result: io::Result<()>) -> ! {
    exit(i32::from(result.is_err()))
}

struct Worker<'a> {
    socket: &'a OwnedFd,
    confined: Confined,
    /// Commands have a PID namespace of their own.
    alone: bool,
    /// Where they do not.
    children: Option<Children>,
    environment: Vec<CString>,
    directory: CString,
    stacks: Stacks,
}

/// What became of a run.
enum End {
    /// Ready for the next.
    Over,
    /// The service has gone.
    Left,
}

impl<'a> Worker<'a> {
    fn new(
        profile: &Profile,
        isolation: Isolation,
        slot: u32,
        mut missing: Vec<String>,
        socket: &'a OwnedFd,
    ) -> Result<(Self, Vec<String>), Failure> {
        let alone = matches!(isolation, Isolation::Full | Isolation::Userns);
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        null.and_then(stdio::dup2_stderr)
            .map_err(|errno| Failure::of("open /dev/null", errno))?;
        let children = match Children::open() {
            _ if alone => None,
            Ok(children) => Some(children),
            Err(error) => return Err(Failure::from_io("list its children", &error)),
        };
        process::set_child_subreaper(Some(process::getpid()))
            .map_err(|errno| Failure::of("adopt orphans", errno))?;
        let mut confined = confine::enter(profile, isolation, slot, std::mem::take(&mut missing))?;
        if alone {
            let user = confined
                .become_user
                .map_or_else(|| process::getuid().as_raw(), |(user, _)| user);
            bare::handle_signals(user);
        }
        let missing = std::mem::take(&mut confined.missing);
        let worker = Self {
            environment: environment(profile, &confined)?,
            directory: text(confined.directory.as_os_str().as_bytes())?,
            socket,
            confined,
            alone,
            children,
            stacks: Stacks::new(),
        };
        Ok((worker, missing))
    }

    /// Runs commands until the service has gone.
    fn work(&mut self) -> io::Result<()> {
        let (mut room, mut outputs) = (vec![0; packet::LONGEST], Vec::new());
        loop {
            let length = packet::receive_bytes(self.socket, &mut room, &mut outputs)?;
            if length == 0 {
                return Ok(());
            }
            match message::order(&room[..length]) {
                Some(Order::Run { sequence, words }) => {
                    let ended = self.run(sequence, words, &mut outputs)?;
                    if matches!(ended, End::Left) {
                        return Ok(());
                    }
                    if !self.confined.scratch.empty() {
                        return Err(io::Error::other("its scratch directory cannot be emptied"));
                    }
                }
                // The run was over before it came.
                Some(Order::End { .. }) => {}
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
            outputs.clear();
        }
    }

    fn report(socket: &OwnedFd, sequence: u32, what: What) {
        let (packet, length) = Report { sequence, what }.packet();
        // Whom it does not reach has gone, which is seen at the next turn.
        let _ = packet::send_bytes(socket, &packet[..length], &[]);
    }

    fn run(
        &mut self,
        sequence: u32,
        words: Words<'_>,
        outputs: &mut Vec<OwnedFd>,
    ) -> io::Result<End> {
        let [stdout, stderr] = &outputs[..] else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let program = words.iter().next().unwrap_or_default();
        let environment = Texts::new(self.environment.iter().map(CString::as_c_str));
        let started = bare::start(
            &mut self.stacks,
            [stdout.as_fd(), stderr.as_fd()],
            Start {
                sequence,
                program,
                arguments: Texts::new(words.iter().skip(1)),
                environment: &environment,
                directory: &self.directory,
                socket: self.socket.as_fd(),
                become_user: self.confined.become_user,
                cpu_seconds: self.confined.cpu_seconds,
                alone: self.alone,
            },
        );
        let run = match started {
            Ok(child) => Run {
                socket: self.socket,
                sequence,
                children: self.children.as_ref(),
                child,
            },
            Err((errno, step)) => {
                Self::report(self.socket, sequence, What::Failed { errno, step });
                return Ok(End::Over);
            }
        };
        // Nobody but the command holds its outputs open.
        outputs.clear();
        run.watch()
    }
}

/// A command that runs.
struct Run<'a> {
    socket: &'a OwnedFd,
    sequence: u32,
    /// Where it has no PID namespace.
    children: Option<&'a Children>,
    child: Child<'a>,
}

impl Run<'_> {
    /// Sees it to its end.
    fn watch(self) -> io::Result<End> {
        let began = Instant::now();
        let mut demote = Some(began + DEMOTED_AFTER);
        let mut kill = None;
        loop {
            let (ended, told) = self.wait_until(earliest(demote, kill))?;
            if ended || self.child.is_over() {
                return self.ended(kill);
            }
            if told {
                match self.listen()? {
                    Heard::End(grace) => kill = Some(self.terminate(grace)),
                    Heard::Stale => {}
                    Heard::Nobody => {
                        self.kill();
                        return Ok(End::Left);
                    }
                }
            }
            let now = Instant::now();
            if kill.is_some_and(|at| at <= now) {
                self.kill();
                Worker::report(self.socket, self.sequence, What::Gone);
                return Ok(End::Over);
            }
            if demote.is_some_and(|at| at <= now) {
                demote = None;
                self.demote();
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
                Some(_) => process::kill_process_group(self.child.pid, Signal::TERM),
            };
        }
        Instant::now() + grace
    }

    fn demote(&self) {
        // Whom it does not reach has ended.
        let _ = match self.children {
            None => process::pidfd_send_signal(&self.child.pidfd, Signal::ALARM),
            Some(_) => process::setpriority_pgrp(Some(self.child.pid), bare::NICE),
        };
    }

    /// Kills all that there is of the command.
    fn kill(&self) {
        match self.children {
            None => {
                let _ = process::pidfd_send_signal(&self.child.pidfd, Signal::KILL);
                let (Waited::Ended(..) | Waited::Later | Waited::Nobody) =
                    bare::wait(Some(self.child.pid), true);
            }
            Some(children) => children.kill(&[]),
        }
    }

    /// The child has ended: an init with its whole namespace, or the command alone.
    fn ended(self, kill: Option<Instant>) -> io::Result<End> {
        let waited = bare::wait(Some(self.child.pid), true);
        let (Waited::Ended(_, exit), Some(children)) = (waited, self.children) else {
            if !self.child.is_over() {
                Worker::report(self.socket, self.sequence, What::Gone);
            }
            return Ok(End::Over);
        };
        let left = matches!(bare::wait(None, false), Waited::Later);
        let what = self.child.what(Exit { left, ..exit });
        Worker::report(self.socket, self.sequence, what);
        if !left {
            return Ok(End::Over);
        }
        let end = self.outlast(children, kill)?;
        Worker::report(self.socket, self.sequence, What::Gone);
        Ok(end)
    }

    /// Until those that a command has left have ended, or are to be.
    fn outlast(&self, children: &Children, mut kill: Option<Instant>) -> io::Result<End> {
        loop {
            match bare::wait(None, false) {
                Waited::Nobody => return Ok(End::Over),
                Waited::Ended(..) => continue,
                Waited::Later => {}
            }
            if kill.is_some_and(|at| at <= Instant::now()) {
                children.kill(&[]);
                return Ok(End::Over);
            }
            let mut watched = [PollFd::new(self.socket, PollFlags::IN)];
            match poll(&mut watched, Some(&time(LOOK))) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            match self.listen()? {
                Heard::End(grace) => kill = Some(Instant::now() + grace),
                Heard::Stale => {}
                Heard::Nobody => {
                    children.kill(&[]);
                    return Ok(End::Left);
                }
            }
        }
    }
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

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}

/// For the kernel, and rounded up to what it is to outlast.
fn time(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs() as i64,
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// The variables of every command, as the kernel takes them.
fn environment(profile: &Profile, confined: &Confined) -> Result<Vec<CString>, Failure> {
    let home = confined.home.as_os_str().as_bytes();
    let given = profile.environment.iter();
    let given = given.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let ours = [("HOME", home), ("TMPDIR", home)].into_iter();
    let ours = ours.filter(|(name, _)| !profile.environment.contains_key(*name));
    let all = given.chain(ours.map(|(name, value)| (name.as_bytes(), value)));
    all.map(|(name, value)| text(&[name, b"=", value].concat()))
        .collect()
}

fn text(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::of("a text with a NUL", Errno::INVAL))
}
