//! What attacks are made with: system calls as they are, and the same few moves on files, processes and sockets.

use std::ffi::{CString, c_int, c_long};
use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::attacks::{Attack, Facts};

/// Runs an attack in a process of its own: what stopped it, or nothing.
pub(super) fn attempt(attack: Attack, facts: &Facts) -> Option<String> {
    let (mut told, mut tell) = std::io::pipe().unwrap();
    // SAFETY: the copy has one thread, as this process has.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(told);
        let stopped = attack(facts).err();
        let stopped = stopped.map(|error| match error.raw_os_error() {
            // As the system has it, and without what is lent around it.
            Some(errno) => Error::from_raw_os_error(errno).to_string(),
            None => error.to_string(),
        });
        let stopped = stopped.unwrap_or_else(|| "\0".into());
        tell.write_all(stopped.as_bytes()).unwrap();
        // SAFETY: nothing of the copy is to be cleared up.
        unsafe { libc::_exit(0) };
    }
    drop(tell);
    let mut why = String::new();
    told.read_to_string(&mut why).unwrap();
    let mut status = 0;
    // SAFETY: the number is written.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    match why.as_str() {
        "\0" => None,
        "" => Some(format!("killed by signal {}", libc::WTERMSIG(status))),
        why => Some(why.to_owned()),
    }
}

/// A system call that does what is asked.
pub(super) fn call<const N: usize>(number: c_long, arguments: [usize; N]) -> Result<c_long> {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&arguments);
    let [a, b, c, d, e, f] = all;
    // SAFETY: whoever calls has what it points to for as long.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => Err(Error::last_os_error()),
        result => Ok(result),
    }
}

pub(super) fn address<T>(of: *const T) -> usize {
    of as usize
}

pub(super) fn text(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().to_str().unwrap()).unwrap()
}

/// One that cannot succeed: who is refused for want of a right does not get as far as to fail by itself.
pub(super) fn past(result: Result<c_long>) -> Result<()> {
    match result {
        Err(error)
            if [libc::EPERM, libc::EACCES, libc::ENOSYS]
                .map(Some)
                .contains(&error.raw_os_error()) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

pub(super) fn refuse_unless(so: bool) -> Result<()> {
    if so {
        return Ok(());
    }
    Err(Error::other("it does not do what it is for"))
}

pub(super) fn scratch() -> PathBuf {
    std::env::var_os("TMPDIR").unwrap().into()
}

pub(super) fn read(path: impl AsRef<Path>) -> Result<()> {
    File::open(path).map(drop)
}

pub(super) fn write(path: impl AsRef<Path>) -> Result<()> {
    OpenOptions::new().write(true).open(path).map(drop)
}

pub(super) fn open_both(path: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(libc::O_NONBLOCK);
    options.open(path).map(drop)
}

pub(super) fn create(folder: impl AsRef<Path>) -> Result<()> {
    let folder = fs::canonicalize(folder)?;
    if folder == fs::canonicalize(scratch())? {
        return Err(Error::other("it is the scratch folder"));
    }
    let path = folder.join(format!("switchboard-escape-{}", std::process::id()));
    File::create_new(&path)?;
    fs::remove_file(&path)
}

pub(super) fn first(tries: impl Iterator<Item = Result<()>>) -> Result<()> {
    let mut last = Err(Error::from(ErrorKind::NotFound));
    for attempt in tries {
        if attempt.is_ok() {
            return attempt;
        }
        last = attempt;
    }
    last
}

pub(super) fn succeeds(mut program: Command) -> Result<()> {
    let ended = program.output()?;
    refuse_unless(ended.status.success())
}

/// The number of a process; none of those that the attacker is or has started.
pub(super) fn known(process: i32) -> Result<usize> {
    let own = std::process::id() as i32;
    let started_by = std::os::unix::process::parent_id() as i32;
    if [own, started_by].contains(&process) {
        return Err(Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(process as usize)
}

pub(super) fn seen(process: i32) -> Result<()> {
    read(format!("/proc/{}/cmdline", known(process)?))
}

/// Opens a file of a process, and reads it: some are only refused then.
pub(super) fn read_of(process: i32, file: &str) -> Result<()> {
    let mut file = File::open(format!("/proc/{}/{file}", known(process)?))?;
    match file.read(&mut [0; 16]) {
        // Nothing is mapped at the beginning of its memory, and who learns that may look.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(()),
        // Of one that is about to end, or has no memory of its own.
        Ok(0) => Err(Error::other("nothing is there")),
        other => other.map(drop),
    }
}

/// Whether it could be sent any.
pub(super) fn signal(process: i32) -> Result<()> {
    call(libc::SYS_kill, [known(process)?, 0]).map(drop)
}

pub(super) fn trace(process: i32) -> Result<()> {
    call(
        libc::SYS_ptrace,
        [libc::PTRACE_SEIZE as usize, known(process)?, 0, 0],
    )
    .map(drop)
}

pub(super) fn unshare(namespaces: c_int) -> Result<()> {
    call(libc::SYS_unshare, [namespaces as usize]).map(drop)
}

pub(super) fn clone(namespaces: c_int) -> Result<()> {
    let flags = namespaces | libc::SIGCHLD;
    reap(call(libc::SYS_clone, [flags as usize, 0, 0, 0, 0]))
}

/// A copy of this process has been made, or has not.
pub(super) fn reap(made: Result<c_long>) -> Result<()> {
    match made? {
        // SAFETY: the copy is not to do anything.
        0 => unsafe { libc::_exit(0) },
        child => call(libc::SYS_wait4, [child as usize, 0, 0, 0]).map(drop),
    }
}

/// Joins the mount namespace of a process by its file, and all by its number.
pub(super) fn enter(process: i32) -> Result<()> {
    let process = known(process)?;
    let by_file = File::open(format!("/proc/{process}/ns/mnt"))
        .and_then(|file| call(libc::SYS_setns, [file.as_raw_fd() as usize, 0]));
    let by_number = || {
        let pidfd = call(libc::SYS_pidfd_open, [process, 0])?;
        let all = libc::CLONE_NEWNS | libc::CLONE_NEWNET;
        call(libc::SYS_setns, [pidfd as usize, all as usize])
    };
    by_file.or_else(|_| by_number()).map(drop)
}

/// One more than the most there may be of something.
pub(super) fn raise(resource: libc::__rlimit_resource_t) -> Result<()> {
    let mut limit = [0_u64; 2];
    let at = address(limit.as_mut_ptr());
    call(libc::SYS_prlimit64, [0, resource as usize, 0, at])?;
    if limit[1] == u64::MAX {
        return Ok(());
    }
    limit = [limit[1] + 1; 2];
    let at = address(limit.as_mut_ptr());
    call(libc::SYS_prlimit64, [0, resource as usize, at, 0]).map(drop)
}

/// Ends a process so that it leaves its memory behind.
pub(super) fn dump() -> Result<()> {
    // SAFETY: the copy has one thread, as this process has.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: it ends the process.
        unsafe { libc::abort() };
    }
    let mut status: c_int = 0;
    call(
        libc::SYS_wait4,
        [child as usize, address(&raw mut status), 0, 0],
    )?;
    refuse_unless(libc::WCOREDUMP(status))
}

pub(super) fn connect(to: SocketAddr) -> Result<()> {
    TcpStream::connect_timeout(&to, Duration::from_secs(1)).map(drop)
}

pub(super) fn socket(family: c_int, kind: c_int, protocol: c_int) -> Result<()> {
    let all = [family as usize, kind as usize, protocol as usize];
    call(libc::SYS_socket, all).map(drop)
}
