//! What a worker and its commands may do with files, TCP ports and other processes: Landlock.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    Scope,
};

use super::Step;
use super::layout::{DEVICES, readable};
use crate::cage::{Failure, Isolation, Profile};

/// The newest that is known here; of a kernel's that is older, what it has is taken.
const NEWEST: ABI = ABI::V10;

/// Puts the restriction on this process and all that it starts. Returns what the kernel's Landlock lacks.
pub(super) fn restrict(
    profile: &Profile,
    tier: Isolation,
    home: &Path,
) -> Result<Vec<String>, Failure> {
    let status = restricted(profile, tier, home)
        .map_err(io::Error::other)
        .step("Landlock")?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => {
            Ok(lacking(effective_abi, tier, profile.network))
        }
        // The new root holds the same; without one there is nothing else.
        _ if tier.is_apart() => Ok(vec![
            "no Landlock: only the root that commands have holds their files".to_owned(),
        ]),
        _ => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)).step("Landlock"),
    }
}

fn restricted(
    profile: &Profile,
    tier: Isolation,
    home: &Path,
) -> Result<RestrictionStatus, RulesetError> {
    let mut asked = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    if !profile.network {
        asked = asked.handle_access(AccessNet::from_all(NEWEST))?;
    }
    let read = AccessFs::from_read(NEWEST);
    let devices = BitFlags::from(AccessFs::MakeChar) | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let write = AccessFs::from_all(NEWEST) & !devices;
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let mut made = asked.create()?;
    // A root of their own holds what may be read and no more, and `ls /` is no secret.
    let read_only = if tier.is_apart() {
        vec![PathBuf::from("/")]
    } else {
        [readable(profile), vec![PathBuf::from("/proc")]].concat()
    };
    for path in &read_only {
        made = allow(made, path, read)?;
    }
    for path in DEVICES {
        made = allow(made, Path::new(path), device)?;
    }
    for path in profile.writable.iter().map(PathBuf::as_path).chain([home]) {
        made = allow(made, path, write)?;
    }
    made.restrict_self()
}

/// What is not there is passed over.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(place) = PathFd::new(path) else {
        return Ok(ruleset);
    };
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(NEWEST)
    };
    ruleset.add_rule(PathBeneath::new(place, access))
}

/// What a kernel of this ABI does not restrict, where nothing else does.
fn lacking(abi: ABI, tier: Isolation, network: bool) -> Vec<String> {
    let bare = !tier.is_apart();
    let lacks = [
        (ABI::V2, true, "files cannot be moved from folder to folder"),
        (
            ABI::V3,
            bare,
            "files that the user may write can be truncated",
        ),
        (
            ABI::V5,
            bare,
            "devices that can be read take commands (ioctl)",
        ),
        (
            ABI::V6,
            bare,
            "processes of the same user can be sent signals",
        ),
        (
            ABI::V6,
            network,
            "abstract unix sockets can be connected to",
        ),
        (
            ABI::V9,
            network && bare,
            "unix sockets can be connected to by path",
        ),
    ];
    let lacks = lacks.iter().filter(|(since, so, _)| *so && abi < *since);
    lacks
        .map(|(_, _, phrase)| format!("Landlock ABI {abi}: {phrase}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_is_said_where_nothing_else_holds_it() {
        let lacks = |abi, tier, network| lacking(abi, tier, network).len();
        assert_eq!(lacks(ABI::V1, Isolation::Landlock, true), 6);
        assert_eq!(lacks(ABI::V1, Isolation::Landlock, false), 4);
        assert_eq!(lacks(ABI::V1, Isolation::Full, false), 1);
        assert_eq!(lacks(ABI::V7, Isolation::Landlock, false), 0);
        assert_eq!(lacks(NEWEST, Isolation::Landlock, true), 0);
        assert_eq!(
            lacking(ABI::V8, Isolation::Landlock, true),
            ["Landlock ABI 8: unix sockets can be connected to by path"]
        );
    }
}
