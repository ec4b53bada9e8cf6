//! The cage that commands run in: a launcher process for each shell listener, and what it does to itself and to them.
//!
//! ```text
//!  service ──▶ launcher ──▶ worker ──▶ init ──▶ command
//!              one a        one for     one for   whatever
//!              listener     each that   each      the peer
//!                           may run at  command   asked for
//!                           once
//! ```
//!
//! The service never forks: it has its own program started once more, as the launcher, and asks that for workers. A
//! worker gives up everything that it does not need before the first command comes near it; commands inherit that. The
//! init is the first process of a PID namespace of its own, so that with it all dies that the command has started.

mod confine;
mod course;
mod descendants;
mod kernel;
pub mod launcher;
pub mod message;
pub mod packet;
mod run;
mod start;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use kernel::{account_named, account_numbered};
pub use start::{Started, WORD, start};

/// What a host can hold a command in, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Nothing but a session of its own, resource limits and a clean environment.
    None,
    /// Landlock, seccomp, resource limits and a sweep of descendants.
    Landlock,
    /// The same as `Full`, through a user namespace.
    Userns,
    /// PID and mount namespaces, control group, own user, Landlock, seccomp.
    Full,
}

impl Isolation {
    /// All of them, strongest first.
    pub const ALL: [Self; 4] = [Self::Full, Self::Userns, Self::Landlock, Self::None];

    /// As files and commands have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Landlock => "landlock",
            Self::Userns => "userns",
            Self::Full => "full",
        }
    }
}

/// Who commands run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// As the system knows it; empty for one that it does not know.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its group; commands have no other.
    pub gid: u32,
}

/// What all commands of a listener are held to. It is fixed when the launcher starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The listener's name.
    pub listener: String,
    /// This cage and no other; the strongest that the host offers when there is none.
    pub isolation: Option<Isolation>,
    /// Somebody else than the service's own user.
    pub run_as: Option<User>,
    /// Where commands start; none for the scratch directory, which is also their `HOME` and their `TMPDIR`.
    pub working_directory: Option<PathBuf>,
    /// Every variable of a command but `HOME` and `TMPDIR`, which are only set when they are not here.
    pub environment: BTreeMap<String, String>,
    /// Files and folders, with all below them, that commands may read and run. What is not there is passed over.
    pub readable: Vec<PathBuf>,
    /// The same, and write.
    pub writable: Vec<PathBuf>,
    /// Whether they have the network of the host, or none.
    pub network: bool,
    /// Bytes of memory that one command may have with its children; 0 for no limit.
    pub max_memory_bytes: u64,
    /// Processes and threads of one command; 0 for no limit.
    pub max_processes: u32,
    /// Descriptors of one process; 0 for no limit.
    pub max_open_files: u32,
    /// CPU time of one process; zero for no limit. Whole seconds count, rounded up.
    pub max_cpu_time: Duration,
}

/// What a launcher holds commands in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it came to.
    pub isolation: Isolation,
    /// What there is not, one phrase each: why it is no stronger, and what it leaves open.
    pub missing: Vec<String>,
}

/// What a worker could not do, before it was ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it was about: `mount /proc`.
    pub step: String,
    /// The system's error number.
    pub errno: i32,
}

impl Failure {
    fn of(step: &str, errno: Errno) -> Self {
        Self {
            step: step.to_owned(),
            errno: errno.raw_os_error(),
        }
    }

    fn from_io(step: &str, error: &io::Error) -> Self {
        Self::of(step, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        write!(f, "{}: {error}", self.step)
    }
}
