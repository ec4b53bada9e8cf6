//! Leaves the host's namespaces: users, mounts, processes, System V IPC, the host's name, the network.

use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;

use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};
use rustix::thread::{
    Gid, Uid, UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::Step;
use crate::cage::kernel::unshare;
use crate::cage::{Failure, User};

/// Becomes the user in a namespace of users that knows nobody else.
pub(super) fn leave_user(user: &User, other: bool) -> Result<(), Failure> {
    if other {
        become_user(user)?;
    }
    // Whoever cannot be traced does not own its entries in /proc, and could not write its maps.
    set_dumpable_behavior(DumpableBehavior::Dumpable).step("own /proc/self")?;
    unshare(UnshareFlags::NEWUSER).step("make a user namespace")?;
    fs::write("/proc/self/setgroups", "deny").step("write setgroups")?;
    for (file, id) in [("uid_map", user.uid), ("gid_map", user.gid)] {
        fs::write(format!("/proc/self/{file}"), format!("{id} {id} 1"))
            .step(format!("write {file}"))?;
    }
    Ok(())
}

/// Where the number is written that the next process of the writer's PID namespace comes after. Of the host's `/proc`:
/// the one of a root cannot be written to. Kernels may be without it.
pub(super) fn numbering() -> Option<OwnedFd> {
    let file = OpenOptions::new()
        .write(true)
        .open("/proc/sys/kernel/ns_last_pid");
    file.ok().map(OwnedFd::from)
}

fn become_user(user: &User) -> Result<(), Failure> {
    if geteuid().is_root() {
        set_thread_groups(&[]).step("leave all groups")?;
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_res_gid(gid, gid, gid).step("change the group")?;
    set_thread_res_uid(uid, uid, uid).step("change the user")
}

/// New namespaces for everything but users; the one for processes is the next child's.
pub(super) fn leave(network: bool) -> Result<(), Failure> {
    let namespaces = [
        ("mount", UnshareFlags::NEWNS),
        ("IPC", UnshareFlags::NEWIPC),
        ("UTS", UnshareFlags::NEWUTS),
        ("PID", UnshareFlags::NEWPID),
        ("network", UnshareFlags::NEWNET),
    ];
    // Empty: not even the loopback is up.
    let asked = if network { 4 } else { namespaces.len() };
    for (name, flag) in &namespaces[..asked] {
        unshare(*flag).step(format!("make a {name} namespace"))?;
    }
    Ok(())
}
