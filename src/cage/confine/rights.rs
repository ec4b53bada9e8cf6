//! Gives up capabilities: what a worker keeps is what it needs to start and to end commands, and no command gets any.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::Step;
use crate::cage::{Failure, Isolation};

/// Commands that become another user lose what is kept here with that, and others when their program is loaded.
pub(super) fn drop(tier: Isolation, becomes: bool) -> Result<(), Failure> {
    // First, as it takes a right that goes next. Numbers beyond the kernel's last are refused.
    for number in 0..u64::BITS {
        let right = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(right) {
            Ok(()) => {}
            // Without that right there are none to be gained either: new privileges are forbidden next.
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(error) => return Err(error).step("empty the bounding set"),
        }
    }
    clear_ambient_capability_set().step("empty the ambient set")?;
    let held = capabilities(None).step("read the capabilities")?;
    let wanted = wanted(tier, becomes);
    let kept = held.permitted & wanted;
    if kept != wanted {
        return Err(Errno::PERM).step(format!("keep {:?}", wanted - kept));
    }
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).step("give up capabilities")
}

/// A namespace of processes for each command, whatever a command leaves in its folder, and where commands are somebody
/// else's, becoming that user, demoting and ending them.
fn wanted(tier: Isolation, becomes: bool) -> CapabilitySet {
    let files = CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER;
    let users = CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::KILL
        | CapabilitySet::SYS_NICE;
    match tier {
        Isolation::Userns => files | CapabilitySet::SYS_ADMIN,
        Isolation::Full => files | users | CapabilitySet::SYS_ADMIN,
        Isolation::Landlock | Isolation::None if becomes => files | users,
        Isolation::Landlock | Isolation::None => CapabilitySet::empty(),
    }
}
