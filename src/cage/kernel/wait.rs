//! Children that have ended, and what they used.

use std::mem::zeroed;
use std::time::Duration;

use super::process::errno;
use crate::cage::message::Exit;

/// Somebody who was waited for.
pub(in crate::cage) enum Waited {
    /// A child of this number has ended, so.
    Ended(i32, Exit),
    /// There are children, and none has ended.
    Later,
    /// There are none.
    Nobody,
}

/// Reaps a child, any one if none is named. It waits for one if it is to `block`.
pub(in crate::cage) fn wait(child: Option<rustix::process::Pid>, block: bool) -> Waited {
    let which = child.map_or(-1, |pid| pid.as_raw_nonzero().get());
    let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        let mut status = 0;
        // SAFETY: plain numbers; zeroes are some.
        let mut usage: libc::rusage = unsafe { zeroed() };
        // SAFETY: both are written for their length.
        let pid = unsafe { libc::wait4(which, &raw mut status, flags, &raw mut usage) };
        match pid {
            0 => return Waited::Later,
            1.. => return Waited::Ended(pid, exit(status, &usage)),
            // Anything else was an interruption; a handler may have overwritten its number.
            _ if errno() == libc::ECHILD => return Waited::Nobody,
            _ => {}
        }
    }
}

fn exit(status: i32, usage: &libc::rusage) -> Exit {
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    Exit {
        status,
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        peak_kib: usage.ru_maxrss as u64,
        left: false,
    }
}
