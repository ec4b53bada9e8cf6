//! What a slot gives up before the first command comes near it: the host's namespaces and files, all rights that it
//! does not need, and the calls that would get them back. Commands inherit that.
//!
//! Whatever a tier promises and cannot be had fails that tier; what it does without is said.

mod calls;
mod files;
mod group;
mod layout;
mod limits;
mod namespaces;
mod rights;
mod root;
mod scratch;
mod share;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, getegid, geteuid, getgroups, getpid, getppid, set_dumpable_behavior, umask,
};
use rustix::thread::set_no_new_privs;

use super::{Failure, Isolation, Profile, User, WORD};
pub(super) use scratch::Scratch;
pub(super) use share::{Little, Share};

/// What a worker has come to, and what it has to do for each command.
#[derive(Debug)]
pub(super) struct Confined {
    /// What there is not, one phrase each.
    pub(super) missing: Vec<String>,
    /// The folder of the command's own.
    pub(super) scratch: Scratch,
    /// Who each command has to become, user and group; none when the worker is that user already.
    pub(super) become_user: Option<(u32, u32)>,
    /// The command's share of the processor, where the host can hold it to one.
    pub(super) share: Option<Share>,
    /// CPU time of each process of a command.
    pub(super) cpu_seconds: Option<u64>,
    /// Where processes are given their numbers, for commands with a PID namespace of their own.
    pub(super) numbering: Option<OwnedFd>,
    /// Where commands start.
    pub(super) directory: PathBuf,
    /// The scratch folder as commands see it.
    pub(super) home: PathBuf,
}

/// What a slot has come to when it has left the host's groups and namespaces.
pub(super) struct Left {
    /// What it could not have, one phrase each.
    missing: Vec<String>,
    share: Option<Share>,
}

/// What was being done when it failed.
trait Step<T> {
    fn step(self, what: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step: what.into(),
            errno: error.into().raw_os_error().unwrap_or(libc::EIO),
        })
    }
}

impl Isolation {
    /// Whether commands have a root of their own, and processes.
    pub(super) fn is_apart(self) -> bool {
        self >= Self::Userns
    }
}

/// Who commands run as, and whether that is somebody else than we are.
fn runner(profile: &Profile) -> (User, bool) {
    let own = User {
        name: String::new(),
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    };
    match &profile.run_as {
        Some(user) if user.uid != own.uid || user.gid != own.gid => (user.clone(), true),
        _ => (own, false),
    }
}

/// First half, in the slot's first process. After it the next child is PID 1 of the slot's namespace, where the tier
/// has one.
pub(super) fn leave(profile: &Profile, tier: Isolation, slot: u32) -> Result<Left, Failure> {
    let (user, other) = runner(profile);
    if user.uid == 0 && tier != Isolation::None {
        return Err(io::Error::from_raw_os_error(libc::EPERM)).step("run commands as root");
    }
    let launcher = getppid().map_or(0, |pid| pid.as_raw_pid());
    let name = group::name(profile, launcher, slot);
    let (held, mut missing) = group::join(profile, tier, &name);
    if tier == Isolation::Userns {
        namespaces::leave_user(&user, other)?;
    }
    if tier.is_apart() {
        namespaces::leave(profile.network)?;
    }
    missing.extend(limits::instead(profile, tier, &held, other)?);
    if !other && tier != Isolation::None {
        missing.extend(own_user());
    }
    let share = held.share;
    Ok(Left { missing, share })
}

/// Second half, in the worker.
pub(super) fn enter(
    profile: &Profile,
    tier: Isolation,
    slot: u32,
    left: Left,
) -> Result<Confined, Failure> {
    let Left { mut missing, share } = left;
    let (user, other) = runner(profile);
    let numbering = tier.is_apart().then(namespaces::numbering).flatten();
    umask(Mode::from_raw_mode(0o022));
    let (scratch, home) = if tier.is_apart() {
        let mounted = root::enter(profile, &user)?;
        let home = PathBuf::from(layout::SCRATCH);
        let scratch = Scratch::open(&home, &mounted).step("open the scratch folder")?;
        (scratch, home)
    } else {
        let launcher = getppid().map_or(0, |pid| pid.as_raw_pid());
        scratch::make(&group::name(profile, launcher, slot), &user).step("make a scratch folder")?
    };
    limits::set(profile)?;
    umask(Mode::RWXG | Mode::RWXO);
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide from tracers")?;
    let keeps_root = tier == Isolation::None && user.uid == 0;
    if !keeps_root {
        rights::drop(tier, other)?;
        set_no_new_privs(true).step("forbid new privileges")?;
    }
    missing.extend(open_ends(profile, tier));
    if tier != Isolation::None {
        missing.extend(files::restrict(profile, tier, &home)?);
        calls::restrict(calls::Calls {
            network: profile.network,
            among: match other {
                _ if tier.is_apart() => calls::Among::Nobody,
                true => calls::Among::Commands,
                false => calls::Among::Service,
            },
        })?;
    }
    let directory = profile.working_directory.as_ref().unwrap_or(&home);
    let found = fs::metadata(directory).map(drop);
    found.step(format!(
        "find the working directory {}",
        directory.display()
    ))?;
    Ok(Confined {
        missing,
        scratch,
        share,
        become_user: (other && tier != Isolation::Userns).then_some((user.uid, user.gid)),
        cpu_seconds: limits::cpu_seconds(profile.max_cpu_time),
        numbering,
        directory: directory.clone(),
        home,
    })
}

/// What is open to commands because they are the service's own user.
fn own_user() -> Vec<String> {
    let read =
        "no other user: of what they may read, commands read all that the service's own user may";
    let grouped =
        "no right to leave groups: commands are in the supplementary groups of the service";
    let groups = getgroups().unwrap_or_default();
    let in_others = groups.iter().any(|group| *group != getegid());
    let open = [Some(read), in_others.then_some(grouped)];
    open.into_iter().flatten().map(str::to_owned).collect()
}

/// What a tier leaves open on any host.
fn open_ends(profile: &Profile, tier: Isolation) -> Vec<String> {
    let mut open = Vec::new();
    let mut say = |phrase: &str| open.push(phrase.to_owned());
    if tier == Isolation::None {
        say("no cage: commands read, write and reach all that their user may");
    }
    if tier == Isolation::Landlock {
        say(
            "no PID namespace: commands see the host's processes, and what leaves their session is swept up after",
        );
        say("no mount namespace: names, owners and sizes of the host's files can be asked for");
        if profile.network {
            say("unix sockets and UDP: commands reach all that their user may");
        }
    }
    if !tier.is_apart() {
        say("no tmpfs: the scratch folder is as large as its file system");
    }
    open
}

/// Removes the control groups and scratch folders that killed launchers of this listener have left. For the service,
/// or the launcher before its first worker.
pub(super) fn sweep(profile: &Profile) {
    let listener = group::listener(profile);
    let is_left = |name: &str| {
        let launcher = name
            .strip_prefix(&listener)
            .and_then(|rest| rest.split('.').next()?.parse::<i32>().ok());
        launcher.is_some_and(|pid| pid == getpid().as_raw_pid() || !lives(pid))
    };
    group::remove(is_left);
    scratch::remove(profile, is_left);
}

/// Whether that is a launcher: not one that has ended and is not reaped, and nobody else who has its number by now.
fn lives(launcher: i32) -> bool {
    let line = fs::read(format!("/proc/{launcher}/cmdline"));
    line.is_ok_and(|line| line.ends_with(format!("\0{WORD}\0").as_bytes()))
}

/// Lets all commands of this launcher, which are being killed, be gone soon.
pub(super) fn hasten(profile: &Profile) {
    let own = format!("{}{}.", group::listener(profile), getpid().as_raw_pid());
    group::hasten(|name| name.starts_with(&own));
}

/// Removes what a worker of this launcher has left; for the launcher, once that worker has ended.
pub(super) fn leave_behind(profile: &Profile, slot: u32) {
    let name = group::name(profile, getpid().as_raw_pid(), slot);
    let is_its = |other: &str| {
        other
            .strip_prefix(&name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    group::remove(is_its);
    scratch::remove(profile, is_its);
}
