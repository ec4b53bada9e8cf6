//! What signals do to the launcher, to workers and to inits.

use std::ffi::c_int;
use std::mem::zeroed;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Puts every signal back to what it does by default, and lets all of them through.
pub(in crate::cage) fn reset_signals() {
    // The C library keeps two signals to itself, and has those that it spawns ignore them: hence not through it. All
    // zeroes are the default: no handler, no flags, no mask.
    let default = [0_u64; 4];
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the kernel reads no more than that, of a mask of eight bytes. What cannot be changed is as it should be.
        unsafe {
            let (action, none) = (default.as_ptr(), ptr::null::<u64>());
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                action,
                none,
                size_of::<u64>(),
            );
        }
    }
    // SAFETY: an empty set, which is given for its length.
    unsafe {
        let mut none: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Has the signals that ask a process to end do nothing, to this process and its copies; programs that are loaded have
/// the default again.
pub(in crate::cage) fn outlast_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        heed(signal, nothing);
    }
}

/// Has the end of a child wake this process, whatever it waits for.
pub(in crate::cage) fn wake_at_ends() {
    heed(libc::SIGCHLD, nothing);
}

extern "C" fn nothing(_: c_int) {}

fn heed(signal: c_int, handler: extern "C" fn(c_int)) {
    // SAFETY: the handlers here make system calls at most.
    unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
}

/// The user whose processes [`DEMOTE`](libc::SIGALRM) demotes.
static DEMOTED: AtomicU32 = AtomicU32::new(u32::MAX);

/// How much less commands that run for long get of the processor than those that have just begun.
pub(in crate::cage) const NICE: i32 = 10;

/// Has every init from now on hand a SIGTERM on to all of its namespace, and demote all of it at a SIGALRM.
pub(in crate::cage) fn handle_signals(user: u32) {
    DEMOTED.store(user, Ordering::Relaxed);
    heed(libc::SIGTERM, terminate_all);
    heed(libc::SIGALRM, demote_all);
}

extern "C" fn terminate_all(_: c_int) {
    // SAFETY: a system call on numbers. As the first of a PID namespace: for anybody else, all are far too many.
    unsafe {
        if libc::getpid() == 1 {
            libc::kill(-1, libc::SIGTERM);
        }
    }
}

extern "C" fn demote_all(_: c_int) {
    // SAFETY: a system call on numbers, for this PID namespace.
    unsafe {
        if libc::getpid() == 1 {
            libc::setpriority(libc::PRIO_USER, DEMOTED.load(Ordering::Relaxed), NICE);
        }
    }
}
