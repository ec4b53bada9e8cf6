//! Processes: the launcher's children, and a worker's, which share its memory until the command is loaded.
//!
//! A copy of even a small process costs more than the rest of a command's start. So the init and what becomes the
//! command run in the worker's memory, each on a stack of its own, and nobody stops for anybody: a parent that is only
//! let go on when its child has been loaded is woken once more than there is need. That goes well because of three
//! rules. None of them allocates. While one of them lives, the worker only makes system calls that do not go through the
//! C library (those of `rustix`), so that nobody writes to the `errno` that they share; an init waits meanwhile. And all
//! that they are given lives until they are reaped: [`Child`] owns it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

use super::namespaces::{COMMAND_AFTER, INIT_AFTER, number};
use super::wait::{Waited, wait};
use crate::cage::message::{Exit, Report, Step, What};

/// Bytes of a stack: a few frames of small functions, and room for signal frames with all vector registers.
const STACK: usize = 64 << 10;

/// The stacks of the init and of what becomes the command.
pub(in crate::cage) struct Stacks {
    init: Box<[Block]>,
    command: Box<[Block]>,
}

/// As stacks are aligned.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Block([u8; 16]);

impl Stacks {
    pub(in crate::cage) fn new() -> Self {
        let stack = || vec![Block([0; 16]); STACK / 16].into_boxed_slice();
        Self {
            init: stack(),
            command: stack(),
        }
    }
}

/// Texts with a NUL behind each, as the kernel takes them: pointers, and a null at the end.
pub(in crate::cage) struct Texts<'a> {
    pointers: Vec<*const c_char>,
    of: std::marker::PhantomData<&'a CStr>,
}

impl<'a> Texts<'a> {
    pub(in crate::cage) fn new(texts: impl Iterator<Item = &'a CStr>) -> Self {
        let mut pointers: Vec<_> = texts.map(CStr::as_ptr).collect();
        pointers.push(ptr::null());
        Self {
            pointers,
            of: std::marker::PhantomData,
        }
    }
}

/// A command to start.
pub(in crate::cage) struct Start<'a> {
    pub(in crate::cage) sequence: u32,
    pub(in crate::cage) program: &'a CStr,
    pub(in crate::cage) arguments: Texts<'a>,
    pub(in crate::cage) environment: &'a Texts<'a>,
    pub(in crate::cage) directory: &'a CStr,
    /// Where the init reports to.
    pub(in crate::cage) socket: BorrowedFd<'a>,
    /// User and group to become.
    pub(in crate::cage) become_user: Option<(u32, u32)>,
    pub(in crate::cage) cpu_seconds: Option<u64>,
    /// In a PID namespace of its own, with an init.
    pub(in crate::cage) alone: bool,
    /// Where processes of a PID namespace are given their numbers.
    pub(in crate::cage) numbering: Option<BorrowedFd<'a>>,
}

/// What the processes of a command share.
struct Shared<'a> {
    start: Start<'a>,
    /// Numbers of what the processes have copies of.
    outputs: [RawFd; 2],
    command_stack: *mut c_void,
    errno: AtomicI32,
    step: AtomicU8,
    /// The init has told how it ended and that nobody is left.
    is_over: AtomicBool,
}

/// A command, or its init, until it is reaped. It must be reaped before it is dropped.
pub(in crate::cage) struct Child<'a> {
    pub(in crate::cage) pid: rustix::process::Pid,
    pub(in crate::cage) pidfd: OwnedFd,
    shared: Box<Shared<'a>>,
}

impl Child<'_> {
    /// Whether the init has told all that there is to tell.
    pub(in crate::cage) fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::Acquire)
    }

    /// What became of it once it has ended so: it may not have become the command.
    pub(in crate::cage) fn what(&self, exit: Exit) -> What {
        self.shared.what(exit)
    }
}

/// Starts a command. The error is with the step that failed.
pub(in crate::cage) fn start<'a>(
    stacks: &'a mut Stacks,
    outputs: [BorrowedFd<'_>; 2],
    start: Start<'a>,
) -> Result<Child<'a>, (i32, Step)> {
    let top = |stack: &mut Box<[Block]>| stack.as_mut_ptr_range().end.cast::<c_void>();
    let alone = start.alone;
    let shared = Box::new(Shared {
        start,
        outputs: outputs.map(|output| output.as_raw_fd()),
        command_stack: top(&mut stacks.command),
        errno: AtomicI32::new(0),
        step: AtomicU8::new(0),
        is_over: AtomicBool::new(false),
    });
    number(shared.start.numbering, INIT_AFTER);
    let argument = (&raw const *shared).cast_mut().cast::<c_void>();
    let mut pidfd: c_int = -1;
    let (body, flags, stack): (extern "C" fn(*mut c_void) -> c_int, _, _) = if alone {
        (init, libc::CLONE_NEWPID, top(&mut stacks.init))
    } else {
        (become_command, 0, shared.command_stack)
    };
    let flags = flags | libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack is unused and outlives the child, as does what it is given: both belong to what `Child` borrows
    // or owns. The child keeps to the rules above.
    let pid = unsafe { libc::clone(body, stack, flags, argument, &raw mut pidfd) };
    let Some(pid) = rustix::process::Pid::from_raw(pid.max(0)) else {
        return Err((errno(), Step::Process));
    };
    // SAFETY: the kernel has just made it, for us alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd, shared })
}

impl Shared<'_> {
    fn fail(&self, step: Step) -> c_int {
        self.step.store(step as u8, Ordering::Relaxed);
        self.errno.store(errno().max(1), Ordering::Release);
        127
    }

    fn what(&self, exit: Exit) -> What {
        let errno = self.errno.load(Ordering::Acquire);
        let step = Step::of(self.step.load(Ordering::Relaxed)).unwrap_or(Step::Program);
        if errno == 0 {
            What::Exited(exit)
        } else {
            What::Failed { errno, step }
        }
    }

    fn report(&self, what: What) {
        let sequence = self.start.sequence;
        let (packet, length) = Report { sequence, what }.packet();
        // SAFETY: the packet is as long as is said. Whom it does not reach has gone, and the worker will see that.
        unsafe {
            let socket = self.start.socket.as_raw_fd();
            libc::send(socket, packet.as_ptr().cast(), length, libc::MSG_NOSIGNAL);
        }
    }
}

/// The first process of the namespace: starts the command, tells how it ended, and lasts as long as anybody else.
extern "C" fn init(argument: *mut c_void) -> c_int {
    // SAFETY: it is what `start` was given, which outlives this process.
    let shared = unsafe { &*argument.cast::<Shared<'_>>() };
    number(shared.start.numbering, COMMAND_AFTER);
    let flags = libc::CLONE_VM | libc::SIGCHLD;
    // SAFETY: as in `start`; the stack is used for nothing else as long as this process lives.
    let command = unsafe { libc::clone(become_command, shared.command_stack, flags, argument) };
    if command < 0 {
        shared.fail(Step::Process);
    }
    // Their end is to be seen when the command lets go of them.
    for output in shared.outputs {
        // SAFETY: they are this process's own copies, and nothing below uses them.
        unsafe { libc::close(output) };
    }
    let mut exit = None;
    loop {
        match wait(None, exit.is_none()) {
            Waited::Ended(pid, ended) if pid == command => exit = Some(ended),
            Waited::Ended(..) => {}
            Waited::Nobody => break,
            // The command has exited, others have not.
            Waited::Later => {
                if let Some(exit) = exit {
                    shared.report(What::Exited(Exit { left: true, ..exit }));
                }
                while !matches!(wait(None, true), Waited::Nobody) {}
                return 0;
            }
        }
    }
    shared.is_over.store(true, Ordering::Release);
    shared.report(shared.what(exit.unwrap_or_default()));
    0
}

/// What becomes the command, or says why not.
extern "C" fn become_command(argument: *mut c_void) -> c_int {
    // SAFETY: it is what `start` was given, which outlives this process.
    let shared = unsafe { &*argument.cast::<Shared<'_>>() };
    let start = &shared.start;
    let failed = |result: libc::c_long| result < 0;
    // SAFETY: system calls on numbers and on texts that outlive them. The descriptors are this process's own copies.
    // The identity is changed by the bare calls: the C library's would speak to threads that are not ours.
    unsafe {
        libc::setsid();
        let outputs = shared
            .outputs
            .iter()
            .zip([libc::STDOUT_FILENO, libc::STDERR_FILENO]);
        if outputs
            .into_iter()
            .any(|(from, to)| libc::dup2(*from, to) < 0)
        {
            return shared.fail(Step::Outputs);
        }
        libc::syscall(
            libc::SYS_close_range,
            3,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        if let Some(seconds) = start.cpu_seconds {
            // One more until it is killed: SIGXCPU can be caught.
            let limit = libc::rlimit {
                rlim_cur: seconds,
                rlim_max: seconds + 1,
            };
            if libc::setrlimit(libc::RLIMIT_CPU, &raw const limit) < 0 {
                return shared.fail(Step::Limits);
            }
        }
        if let Some((user, group)) = start.become_user
            && (failed(libc::syscall(libc::SYS_setgroups, 1, &raw const group))
                || failed(libc::syscall(libc::SYS_setresgid, group, group, group))
                || failed(libc::syscall(libc::SYS_setresuid, user, user, user)))
        {
            return shared.fail(Step::User);
        }
        if !start.alone {
            // Behind the change of user, which would undo it.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        }
        if libc::chdir(start.directory.as_ptr()) < 0 {
            return shared.fail(Step::Directory);
        }
        let (arguments, environment) = (&start.arguments.pointers, &start.environment.pointers);
        libc::execve(
            start.program.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
        );
    }
    shared.fail(Step::Program)
}

pub(super) fn errno() -> i32 {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or_default()
}

/// A copy of this process, which must have one thread: 0 in the copy, and its number here. A `sibling` is a child of
/// this process's parent.
pub(in crate::cage) fn copy(sibling: bool) -> io::Result<i32> {
    let flags = libc::SIGCHLD | if sibling { libc::CLONE_PARENT } else { 0 };
    // SAFETY: without CLONE_VM it is fork; there is no other thread that could hold a lock in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pid as i32)
}

/// Closes every descriptor from this number on.
pub(in crate::cage) fn close_from(first: u32) {
    // SAFETY: for the start of a process, which knows of none of them yet.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Closes every descriptor but this one and the first three: for a copy of a process, whose are not for it. Nothing of
/// what they belonged to may be used or dropped in it any more.
pub(in crate::cage) fn close_but(kept: &OwnedFd) {
    let kept = kept.as_raw_fd().cast_unsigned();
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: for a process that goes on with the kept one alone.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

/// Makes a descriptor that this process was started with its own.
pub(in crate::cage) fn inherited(descriptor: RawFd) -> OwnedFd {
    // SAFETY: whoever started us gave us this one, and nobody else here knows of it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
