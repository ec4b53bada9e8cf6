//! What no safe crate asks of the kernel for the cage: processes that share their memory until the command is loaded,
//! namespaces, what may be done through a mount, and the system's accounts. The only folder of the cage with `unsafe`.
#![expect(
    unsafe_code,
    reason = "clone with a stack of its own, execve, wait4, unshare, mount_setattr and getpwnam_r have no safe wrapper"
)]

mod account;
mod namespaces;
pub(super) mod process;
pub(super) mod signals;
pub(super) mod wait;

pub use account::{account_named, account_numbered};
pub(super) use namespaces::{Without, restrict_mount, unshare};
#[cfg(test)]
pub(super) use namespaces::{can_clone, in_child};
