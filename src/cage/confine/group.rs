//! Control groups: one for each slot, and so for each command, that holds its memory and its processes, and has its
//! share of the processor.
//!
//! The unified hierarchy is asked first, where the service may make groups below its own or beside it; then the older
//! ones, controller by controller; then there is none. The service itself stays where it was put.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::Share;
use crate::cage::{Isolation, Profile};

/// Where the kernel tells this process's groups, and where their hierarchies are mounted.
const GROUPS: &str = "/proc/self/cgroup";
const MOUNTS: &str = "/proc/self/mountinfo";

/// The controller of the processor.
const CPU: &str = "cpu";

/// What groups weigh that nobody has changed.
const WEIGHTS: [(&str, u64); 2] = [("cpu.weight", 100), ("cpu.shares", 1024)];

/// How often the removal of a group is tried, a millisecond apart: whoever is in it has been killed, and goes.
const TRIES: u32 = 100;

/// What a control group holds.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) memory: bool,
    pub(super) processes: bool,
    /// Of the processor.
    pub(super) share: Option<Share>,
}

/// How the names of all groups and folders of a listener begin.
pub(super) fn listener(profile: &Profile) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let name = profile.listener.chars();
    let name: String = name
        .map(|letter| if plain(letter) { letter } else { '_' })
        .collect();
    format!("switchboard-{name}.")
}

/// What the group and the folder of a slot are called.
pub(super) fn name(profile: &Profile, launcher: i32, slot: u32) -> String {
    format!("{}{launcher}.{slot}", listener(profile))
}

/// Makes the groups of that name and joins them. Returns what they hold, and what there is not.
pub(super) fn join(profile: &Profile, tier: Isolation, name: &str) -> (Held, Vec<String>) {
    let hosts = Hosts::read();
    let mut missing = Vec::new();
    let mut take = |controller: &str, files: [(&str, u64); 2]| {
        let joined = hosts.place(controller).and_then(|place| {
            let (file, limit) = files[usize::from(!place.unified)];
            let file = place.folder.join(name).join(file);
            fill(controller, &file, limit).map(|()| (file, limit))
        });
        joined
            .inspect_err(|error| {
                missing.push(format!("no control group for {controller}: {error}"));
            })
            .ok()
    };
    let [memory, processes] = [
        (
            profile.max_memory_bytes,
            0,
            ["memory.max", "memory.limit_in_bytes"],
            "memory",
        ),
        (
            profile.max_processes.into(),
            own(tier),
            ["pids.max"; 2],
            "pids",
        ),
    ]
    .map(|(limit, own, files, controller)| {
        limit > 0 && take(controller, files.map(|file| (file, limit + own))).is_some()
    });
    let weight = take(CPU, WEIGHTS);
    let share = weight.and_then(|(file, weight)| Share::of(&file, weight).ok());
    let held = Held {
        memory,
        processes,
        share,
    };
    (held, missing)
}

/// Our own processes in the group of a command: the worker, and where a command has a namespace the init of that.
pub(super) fn own(tier: Isolation) -> u64 {
    if tier.is_apart() { 2 } else { 1 }
}

/// Makes the group of a file, writes the limit into that and joins it.
fn fill(controller: &str, file: &Path, limit: u64) -> io::Result<()> {
    let group = file.parent().unwrap_or(file);
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let limited = fs::write(file, limit.to_string());
    // Nothing is gained by swapping; where swap is not accounted for there is no such file.
    if controller == "memory" {
        let _ = fs::write(group.join("memory.swap.max"), "0");
        let _ = fs::write(group.join("memory.memsw.limit_in_bytes"), limit.to_string());
    }
    let joined = limited.and_then(|()| fs::write(group.join("cgroup.procs"), "0"));
    if joined.is_err() {
        let _ = fs::remove_dir(group);
    }
    joined
}

/// Removes all groups of ours with such a name, and whoever is still in them.
pub(super) fn remove(is_ours: impl Fn(&str) -> bool) {
    for group in named(is_ours) {
        end(&group);
    }
}

/// Has all groups of ours with such a name weigh what they did at first: whoever is killed there needs the processor once
/// more to be gone.
pub(super) fn hasten(is_ours: impl Fn(&str) -> bool) {
    for group in named(is_ours) {
        for (file, weight) in WEIGHTS {
            // Only one of them is there, and in one group only.
            let _ = fs::write(group.join(file), weight.to_string());
        }
    }
}

/// Where all groups with such a name are.
pub(super) fn named(is_such: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let hosts = Hosts::read();
    let places = ["memory", "pids", CPU].map(|controller| hosts.place(controller).ok());
    let folders: BTreeSet<_> = places
        .into_iter()
        .flatten()
        .map(|place| place.folder)
        .collect();
    let entries = folders.iter().flat_map(fs::read_dir).flatten().flatten();
    let such = entries.filter(|entry| entry.file_name().to_str().is_some_and(&is_such));
    such.map(|entry| entry.path()).collect()
}

fn end(group: &Path) {
    for _ in 0..TRIES {
        let Err(error) = fs::remove_dir(group) else {
            return;
        };
        if error.kind() == io::ErrorKind::NotFound {
            return;
        }
        let inside = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in inside
            .lines()
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        {
            let _ = kill_process(pid, Signal::KILL);
        }
        sleep(Duration::from_millis(1));
    }
}

/// Where groups can be made.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    unified: bool,
}

/// The hierarchies of this host: this process's own group in each, by controller; the unified one has no name.
struct Hosts(BTreeMap<String, PathBuf>);

impl Hosts {
    fn read() -> Self {
        let text = |file| fs::read_to_string(file).unwrap_or_default();
        Self(own_groups(&text(GROUPS), &text(MOUNTS)))
    }

    fn place(&self, controller: &str) -> io::Result<Place> {
        if let Some(own) = self.0.get("")
            && words(&own.join("cgroup.controllers")).any(|word| word == controller)
        {
            let folder = delegated(own, controller)?;
            return Ok(Place {
                folder,
                unified: true,
            });
        }
        let folder = self.0.get(controller).cloned();
        let folder = folder.ok_or_else(|| io::Error::other("the host has none"))?;
        Ok(Place {
            folder,
            unified: false,
        })
    }
}

fn words(file: &Path) -> impl Iterator<Item = String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
    words.into_iter()
}

/// Where the unified hierarchy lets us make groups with that controller: below our own group, which only ever works
/// when nobody is in it, or beside it, when what is above was given to us with it.
fn delegated(own: &Path, controller: &str) -> io::Result<PathBuf> {
    let mut refused = None;
    for folder in [Some(own), own.parent().filter(|above| is_given(above))] {
        let Some(folder) = folder else {
            continue;
        };
        let control = folder.join("cgroup.subtree_control");
        let enabled = words(&control).any(|word| word == controller);
        let enabled = if enabled {
            Ok(())
        } else {
            fs::write(control, format!("+{controller}"))
        };
        match enabled {
            Ok(()) => return Ok(folder.to_owned()),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| io::Error::other("no group is delegated")))
}

/// Whether whoever manages the groups has handed over this one: systemd marks it, others give it to our user.
fn is_given(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let mut mark = [0_u8; 1];
    let marked = ["user.delegate", "trusted.delegate"].iter().any(|name| {
        rustix::fs::getxattr(folder, *name, &mut mark).is_ok_and(|length| length == 1)
            && mark == *b"1"
    });
    let user = geteuid();
    let owned = fs::metadata(folder).is_ok_and(|data| data.uid() == user.as_raw());
    marked || (owned && !user.is_root())
}

/// The folder of our group for each controller.
fn own_groups(groups: &str, mounts: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for line in groups.lines() {
        // 4:memory:/some/group, and 0::/some/group in the unified hierarchy.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        for controller in controllers.split(',') {
            let folder = mounts
                .lines()
                .find_map(|mount| folder(mount, controller, group));
            found.extend(folder.map(|folder| (controller.to_owned(), folder)));
        }
    }
    found
}

/// Where a mount, a line of mountinfo, shows that group; none when it is of something else.
fn folder(mount: &str, controller: &str, group: &str) -> Option<PathBuf> {
    let (place, kind) = mount.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let (kind, _, options) = (kind.next()?, kind.next()?, kind.next()?);
    let fits = match controller {
        "" => kind == "cgroup2",
        name => kind == "cgroup" && options.split(',').any(|option| option == name),
    };
    let below = Path::new(group).strip_prefix(root).ok()?;
    let outside = below.components().any(|part| part.as_os_str() == "..");
    // Blanks in names are written as numbers, which no system's own places have.
    (fits && !outside && !point.contains('\\')).then(|| Path::new(point).join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw
30 25 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
31 25 0:27 /docker/abc /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
32 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn groups_are_made_where_that_is_given_to_us() {
        let host = tempfile::tempdir().unwrap();
        let own = host.path().join("service/main");
        fs::create_dir_all(&own).unwrap();
        let write = |folder: &Path, text: &str| {
            fs::write(folder.join("cgroup.subtree_control"), text).unwrap();
        };
        write(&own, "cpu memory\n");
        assert_eq!(delegated(&own, "memory").unwrap(), own);
        // Like the kernel, which enables nothing below a group with processes in it.
        fs::remove_file(own.join("cgroup.subtree_control")).unwrap();
        fs::create_dir(own.join("cgroup.subtree_control")).unwrap();
        let above = own.parent().unwrap();
        write(above, "pids\n");
        assert!(delegated(&own, "memory").is_err() || !geteuid().is_root());
        let mark = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(above, "trusted.delegate", b"1", mark).is_ok() {
            assert_eq!(delegated(&own, "memory").unwrap(), above);
            assert_eq!(
                fs::read_to_string(above.join("cgroup.subtree_control")).unwrap(),
                "+memory"
            );
        }
    }

    #[test]
    fn own_groups_are_found_in_every_hierarchy() {
        let groups =
            "4:memory:/a/b\n3:pids:/docker/abc/x\n2:cpu,cpuacct:/c\n1:name=systemd:/\n0::/u\n";
        let found = own_groups(groups, HYBRID);
        let found: Vec<_> = found
            .iter()
            .map(|(name, at)| (name.as_str(), at.to_str().unwrap()))
            .collect();
        assert_eq!(
            found,
            [
                ("", "/sys/fs/cgroup/unified/u"),
                ("cpu", "/sys/fs/cgroup/cpu,cpuacct/c"),
                ("cpuacct", "/sys/fs/cgroup/cpu,cpuacct/c"),
                ("memory", "/sys/fs/cgroup/memory/a/b"),
                ("pids", "/sys/fs/cgroup/pids/x"),
            ]
        );
        // A group that the mount does not show.
        assert_eq!(
            own_groups("3:pids:/other\n0::/../x\n", HYBRID),
            BTreeMap::new()
        );
        assert_eq!(own_groups("nonsense\n1\n::\n", "x - y\n"), BTreeMap::new());
    }
}
