//! The flags that every change takes, and ids for those that nobody gave one.

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use clap::Args;

/// How a change is told apart from its own repetition.
#[derive(Debug, Args)]
pub(super) struct Once {
    /// A UUID4 of this change: when its answer was lost, the same change with the same id is not made twice
    #[arg(
        long,
        value_name = "UUID",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) request_id: String,
}

/// The same, of a change that has a reason.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// Why, for the audit trail
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) reason: String,
    #[command(flatten)]
    pub(super) once: Once,
}

/// A UUID4 for what is asked: nothing secret, but the same for no other.
pub(super) fn fresh_id() -> String {
    let half = || RandomState::new().hash_one(SystemTime::now());
    let (high, low) = (half(), half());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_and_no_two_alike() {
        let ids: std::collections::BTreeSet<_> = (0..1_000).map(|_| fresh_id()).collect();
        assert_eq!(ids.len(), 1_000);
        for id in ids {
            let lengths: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
            assert!(
                id[14..].starts_with('4') && "89ab".contains(&id[19..20]),
                "{id}"
            );
        }
    }
}
