//! A worker: holds itself to what the profile says, and then runs one command at a time.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::exit;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::{process, stdio};

use super::confine::{self, Confined, Left};
use super::descendants::Children;
use super::kernel::process::{self as bare, Stacks, Start, Texts};
use super::kernel::signals;
use super::message::{self, Order, What, Words};
use super::packet::{self, Born};
use super::run::{self, End, Run};
use super::{Failure, Isolation, Profile};

/// The life of a slot's first process, and in a copy of it of the worker. Neither returns.
pub(super) fn live(profile: &Profile, isolation: Isolation, slot: u32, socket: OwnedFd) -> ! {
    let say = |born: Born| packet::send(&socket, &born, &[]);
    let left = match confine::leave(profile, isolation, slot) {
        Ok(left) => left,
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
    match Worker::new(profile, isolation, slot, left, &socket) {
        Err(failure) => quit(say(Born::Failed(failure))),
        Ok(mut worker) => {
            let missing = std::mem::take(&mut worker.confined.missing);
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
    /// Where commands have no PID namespace of their own.
    children: Option<Children>,
    environment: Vec<CString>,
    directory: CString,
    stacks: Stacks,
}

impl<'a> Worker<'a> {
    fn new(
        profile: &Profile,
        isolation: Isolation,
        slot: u32,
        left: Left,
        socket: &'a OwnedFd,
    ) -> Result<Self, Failure> {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        null.and_then(stdio::dup2_stderr)
            .map_err(|errno| Failure::of("open /dev/null", errno))?;
        let among = !isolation.is_apart();
        let children = among.then(Children::open).transpose();
        let children = children.map_err(|e| Failure::from_io("list its children", &e))?;
        process::set_child_subreaper(Some(process::getpid()))
            .map_err(|errno| Failure::of("adopt orphans", errno))?;
        let confined = confine::enter(profile, isolation, slot, left)?;
        if children.is_none() {
            let user = confined
                .become_user
                .map_or_else(|| process::getuid().as_raw(), |(user, _)| user);
            signals::handle_signals(user);
        } else {
            signals::wake_at_ends();
        }
        Ok(Self {
            environment: environment(profile, &confined)?,
            directory: text(confined.directory.as_os_str().as_bytes())?,
            socket,
            confined,
            children,
            stacks: Stacks::new(),
        })
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
                Some(Order::Run {
                    sequence,
                    short,
                    words,
                }) => {
                    let ended = self.run(sequence, short, words, &mut outputs)?;
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

    fn run(
        &mut self,
        sequence: u32,
        short: Duration,
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
                alone: self.children.is_none(),
                numbering: self.confined.numbering.as_ref().map(AsFd::as_fd),
            },
        );
        let run = match started {
            Ok(child) => Run {
                socket: self.socket,
                sequence,
                short,
                share: self.confined.share.as_ref(),
                children: self.children.as_ref(),
                child,
            },
            Err((errno, step)) => {
                run::report(self.socket, sequence, What::Failed { errno, step });
                return Ok(End::Over);
            }
        };
        // Nobody but the command holds its outputs open.
        outputs.clear();
        run.watch()
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
