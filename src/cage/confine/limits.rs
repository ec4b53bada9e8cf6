//! Resource limits: what one process may have, and what stands in where there is no control group.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Step;
use super::group::{self, Held};
use crate::cage::{Failure, Isolation, Profile};

/// The largest file that a command may write.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Address space that a worker needs beside what it has.
const OWN_BYTES: u64 = 64 << 20;

/// The limits of every process of a command that the worker can live with too.
pub(super) fn set(profile: &Profile) -> Result<(), Failure> {
    // Not 0: where the system has a program take core dumps, it is given one all the same, but for this.
    limit(Resource::Core, 1, "core dumps")?;
    limit(Resource::Fsize, MAX_FILE_BYTES, "file sizes")?;
    match profile.max_open_files {
        0 => Ok(()),
        files => limit(Resource::Nofile, files.into(), "open files"),
    }
}

/// Whole seconds, rounded up; none for no limit.
pub(super) fn cpu_seconds(time: Duration) -> Option<u64> {
    let begun = u64::from(time.subsec_nanos() > 0);
    (!time.is_zero()).then(|| time.as_secs().saturating_add(begun))
}

/// Limits for what no control group holds. `other` says that the user of commands is not the service's, whose own
/// processes would count too. Returns what is missing.
pub(super) fn instead(
    profile: &Profile,
    tier: Isolation,
    held: &Held,
    other: bool,
) -> Result<Vec<String>, Failure> {
    let mut missing = Vec::new();
    if profile.max_memory_bytes > 0 && !held.memory {
        let bytes = profile.max_memory_bytes.max(own_bytes() + OWN_BYTES);
        limit(Resource::As, bytes, "address space")?;
        missing.push("memory is limited for each process, not for a command".to_owned());
    }
    if profile.max_processes > 0 && !held.processes {
        let processes = u64::from(profile.max_processes);
        if tier == Isolation::Userns {
            // In a namespace of users they are counted apart.
            limit(Resource::Nproc, processes + group::own(tier), "processes")?;
        } else if other {
            limit(Resource::Nproc, processes, "processes")?;
            missing.push("processes are counted for the user, not for a command".to_owned());
        } else {
            let phrase = "processes are not limited: commands run as the service's own user";
            missing.push(phrase.to_owned());
        }
    }
    Ok(missing)
}

/// The address space of this process; 0 where /proc does not tell.
fn own_bytes() -> u64 {
    let told = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = told
        .split(' ')
        .next()
        .and_then(|pages| pages.parse().ok())
        .unwrap_or_default();
    pages * rustix::param::page_size() as u64
}

/// For good: a limit that is lower already stays.
fn limit(resource: Resource, most: u64, of: &str) -> Result<(), Failure> {
    let most = getrlimit(resource)
        .maximum
        .map_or(most, |now| now.min(most));
    let both = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, both).step(format!("limit {of}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begun_seconds_of_cpu_time_count_whole() {
        let millis = |millis| cpu_seconds(Duration::from_millis(millis));
        assert_eq!(millis(0), None);
        assert_eq!(millis(1), Some(1));
        assert_eq!(millis(1_000), Some(1));
        assert_eq!(millis(1_001), Some(2));
        assert_eq!(cpu_seconds(Duration::MAX), Some(u64::MAX));
    }
}
