//! How the service starts a launcher, and forks nothing for it.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};

use super::{Profile, packet};

/// This very program, even if another one has taken its place by now.
const PROGRAM: &str = "/proc/self/exe";

/// The word that makes it a launcher.
pub const WORD: &str = "launcher";

/// A launcher that was started.
#[derive(Debug)]
pub struct Started {
    /// Our end of its socket; with it the launcher ends. It does not block.
    pub control: OwnedFd,
    /// To be waited for.
    pub child: Child,
}

/// Starts a launcher, which answers with [`packet::Told`] when its first worker is ready. Blocks for as long as the
/// program takes to load. Nothing that is asked for here makes the standard library fork.
pub fn start(profile: &Profile) -> io::Result<Started> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let (ours, its) = socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_send_buffer_size(&ours, packet::LONGEST)?;
    packet::send(&ours, profile, &[])?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let child = Command::new(PROGRAM)
        .arg(WORD)
        .env_clear()
        .stdin(Stdio::from(its))
        .stdout(Stdio::null())
        .spawn()?;
    Ok(Started {
        control: ours,
        child,
    })
}
