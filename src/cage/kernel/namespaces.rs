//! Leaving the host's namespaces, numbers in those of a command, and taking rights from mounts.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Puts this process into new namespaces, and for PIDs its next child.
pub(in crate::cage) fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    let shared = UnshareFlags::FILES | UnshareFlags::FS | UnshareFlags::SYSVSEM;
    // SAFETY: only a table of descriptors that threads no longer share is unsafe, and none is asked for.
    unsafe { unshare_unsafe(namespaces - shared) }.map_err(Into::into)
}

/// A command is to have the same number in its own namespace and in that of its slot, which is what `/proc` tells of:
/// programs look themselves up there by what they believe is their number. From there on both count alike. In its own
/// namespace there is the init before it, and in the other one the worker and the init.
pub(super) const INIT_AFTER: &[u8] = b"1";
pub(super) const COMMAND_AFTER: &[u8] = b"2";

/// Has the next process of this one's PID namespace come after that number. Without it the numbers differ, which most
/// programs never notice.
pub(super) fn number(numbering: Option<BorrowedFd<'_>>, after: &[u8]) {
    if let Some(numbering) = numbering {
        let (fd, text) = (numbering.as_raw_fd(), after.as_ptr().cast());
        // SAFETY: it is as long as is said.
        unsafe { libc::pwrite(fd, text, after.len(), 0) };
    }
}

/// What may no longer be done through a mount.
#[derive(Debug, Clone, Copy)]
pub(in crate::cage) struct Without {
    pub(in crate::cage) writing: bool,
    pub(in crate::cage) devices: bool,
    /// For the mounts below it too.
    pub(in crate::cage) below: bool,
}

/// Takes rights from the mount at `place`, and that of gaining others' rights through set-user-ID programs always.
pub(in crate::cage) fn restrict_mount(place: &Path, without: Without) -> io::Result<()> {
    let place = std::ffi::CString::new(place.as_os_str().as_bytes())?;
    let mut attributes = libc::MOUNT_ATTR_NOSUID;
    if without.writing {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    if without.devices {
        attributes |= libc::MOUNT_ATTR_NODEV;
    }
    let asked = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if without.below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends with a NUL, and the kernel reads no more than the size of the structure that it is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            place.as_ptr(),
            flags,
            &raw const asked,
            size_of_val(&asked),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a process can be cloned with these flags, as workers do for each command.
#[cfg(test)]
pub(in crate::cage) fn can_clone(flags: libc::c_int) -> io::Result<()> {
    in_child(flags, || {})
}

/// Does something in a child, which has no other thread, and waits for that; not for a sibling.
#[cfg(test)]
pub(in crate::cage) fn in_child(flags: libc::c_int, work: impl FnOnce()) -> io::Result<()> {
    let none = std::ptr::null::<libc::c_void>();
    let all = libc::c_long::from(flags | libc::SIGCHLD);
    let child = match flags {
        // SAFETY: it comes before all other threads' locks are forgotten.
        0 => unsafe { libc::fork() }.into(),
        // SAFETY: without a stack it is fork; whoever uses it has no other thread.
        _ => unsafe { libc::syscall(libc::SYS_clone, all, none, none, none, none) },
    };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: it ends the process at once.
            unsafe { libc::_exit(done.is_err().into()) }
        }
        _ if flags & libc::CLONE_PARENT != 0 => Ok(()),
        child => {
            let child = rustix::process::Pid::from_raw(child as i32);
            let status = rustix::process::waitpid(child, rustix::process::WaitOptions::empty())?;
            match status.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                _ => Err(io::Error::other("the child failed")),
            }
        }
    }
}
