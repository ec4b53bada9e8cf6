//! The files, watched: their folders, since editors and configuration mounts put another file in the place of one.
//!
//! A change is looked at once nothing has happened for a while, and not while one of the files is still being written:
//! what there is of it may be a configuration too, of fewer listeners. What was tried is told apart by its bytes, so that
//! nothing is taken over twice.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Owner;
use crate::config::{Format, Sources};

/// So long nothing has to happen.
const QUIET: Duration = Duration::from_millis(250);

/// After so long it is looked at though something still happens.
const LONGEST: Duration = Duration::from_secs(2);

/// How often it is seen whether other folders have to be watched, such as one that was not there.
const LOOKING: Duration = Duration::from_secs(5);

/// What is told of a folder. Not that a file of it is opened, read or executed: of the system's folder that is whatever
/// any program of the machine does.
const TOLD: WatchFlags = WatchFlags::ONLYDIR
    .union(WatchFlags::CREATE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// Events that end the writing of a file: it is closed, gone, or another one.
const ENDS: ReadFlags = ReadFlags::CLOSE_WRITE
    .union(ReadFlags::MOVED_FROM)
    .union(ReadFlags::MOVED_TO)
    .union(ReadFlags::DELETE);

/// Room for this many bytes of events at a time; the longest takes 272.
const ROOM: usize = 4096;

/// Looks at the files whenever their folders change, until `stop`.
pub(super) async fn follow(owner: Owner, stop: CancellationToken) {
    let Ok(sources) = owner
        .ask(|state| Box::pin(async { state.sources.clone() }))
        .await
    else {
        return;
    };
    let mut watch = match Watch::new() {
        Ok(watch) => watch,
        Err(fault) => {
            warn!(%fault, "the configuration's files are not watched; SIGHUP and ReloadConfig reload them");
            return;
        }
    };
    loop {
        let others = watch.turn_to(folders(&sources));
        let waiting = tokio::time::timeout(LOOKING, watch.changed());
        match stop.run_until_cancelled(waiting).await {
            None => return,
            // Whatever happened in a folder before it was watched would otherwise never be seen.
            Some(Err(_)) if !others => continue,
            Some(Err(_)) => {}
            Some(Ok(())) => _ = stop.run_until_cancelled(settle(&mut watch)).await,
        }
        // That it is written to its end is seen as well.
        if watch.is_unfinished(&sources) {
            continue;
        }
        let looked = owner.ask(|state| Box::pin(state.reload_if_changed()));
        if stop.run_until_cancelled(looked).await.is_none() {
            return;
        }
    }
}

/// Resolves once nothing has happened for a while.
async fn settle(watch: &mut Watch) {
    let quiet = async { while tokio::time::timeout(QUIET, watch.changed()).await.is_ok() {} };
    // A folder in which something happens all the time is looked at all the same.
    let _ = tokio::time::timeout(LONGEST, quiet).await;
}

/// Folders, and what happens in them.
struct Watch {
    events: AsyncFd<OwnedFd>,
    seen: Seen,
}

impl Watch {
    fn new() -> io::Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self {
            events: crate::net::watch(events)?,
            seen: Seen::default(),
        })
    }

    /// Watches these folders and no others; whether they are others than before, be it under the same names.
    fn turn_to(&mut self, folders: BTreeSet<PathBuf>) -> bool {
        let mut numbers = BTreeMap::new();
        for folder in folders {
            // One that is watched already is told by its number.
            match inotify::add_watch(&self.events, &folder, TOLD) {
                Ok(number) => _ = numbers.insert(folder, number),
                Err(Errno::NOENT) => {}
                Err(fault) => debug!(folder = %folder.display(), %fault, "a folder is not watched"),
            }
        }
        let before = std::mem::replace(&mut self.seen.folders, numbers);
        let now: BTreeSet<i32> = self.seen.folders.values().copied().collect();
        for number in before.values().filter(|number| !now.contains(number)) {
            // It may be gone, and its watch with it.
            let _ = inotify::remove_watch(&self.events, *number);
        }
        self.seen
            .unfinished
            .retain(|(folder, _)| now.contains(folder));
        self.seen.folders != before
    }

    /// Resolves once files may be others than before. Cancel safe.
    async fn changed(&mut self) {
        loop {
            let Ok(mut ready) = self.events.readable().await else {
                // The runtime is ending, and with it whoever waits.
                return std::future::pending().await;
            };
            // All of it is read, and only what comes later makes it ready again.
            ready.clear_ready();
            if self.read() {
                return;
            }
        }
    }

    /// Reads what has happened until now; whether files may be others since.
    fn read(&mut self) -> bool {
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut events = Reader::new(&self.events, &mut room);
        let mut changed = false;
        loop {
            match events.next() {
                Ok(event) => changed |= self.seen.take(&event),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return changed,
                Err(_) => return self.seen.lose(),
            }
        }
    }

    /// Whether a file of the configuration is being written.
    fn is_unfinished(&mut self, sources: &Sources) -> bool {
        // Files may be others since; whoever goes on from here looks at them, or is told of the end.
        self.read();
        self.seen.is_unfinished(sources)
    }
}

/// What has happened in the folders.
#[derive(Default)]
struct Seen {
    /// By the number that stands for each in its events; one of two names has the same for both.
    folders: BTreeMap<PathBuf, i32>,
    /// Files that somebody has begun to write and not closed yet: the number of the folder, and the name in it.
    unfinished: BTreeSet<(i32, OsString)>,
}

impl Seen {
    /// Whether files may be others after an event.
    fn take(&mut self, event: &Event<'_>) -> bool {
        let kind = event.events();
        if kind.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.lose();
        }
        let Some(name) = event.file_name() else {
            // Of the folder itself; the last of them is that nothing more is told.
            return !kind.contains(ReadFlags::IGNORED);
        };
        let (folder, name) = (event.wd(), OsStr::from_bytes(name.to_bytes()));
        if self.begins(kind, folder, name) {
            self.unfinished.insert((folder, name.to_owned()));
            return false;
        }
        if kind.intersects(ENDS) {
            self.unfinished.remove(&(folder, name.to_owned()));
        }
        true
    }

    /// Events were lost: anything may have happened, and the ends of what was begun would not have been seen.
    fn lose(&mut self) -> bool {
        self.unfinished.clear();
        true
    }

    /// Whether an event is the beginning, or the middle, of something: a file that is written to is not yet what it will
    /// be, nor is one that was just made and is empty.
    fn begins(&self, kind: ReadFlags, folder: i32, name: &OsStr) -> bool {
        let is_new = || {
            self.paths(folder, name).next().is_some_and(|path| {
                path.symlink_metadata()
                    .is_ok_and(|file| file.is_file() && file.len() == 0 && file.nlink() == 1)
            })
        };
        kind.contains(ReadFlags::MODIFY) || (kind.contains(ReadFlags::CREATE) && is_new())
    }

    /// What a file in a folder of this number is called.
    fn paths(&self, folder: i32, name: &OsStr) -> impl Iterator<Item = PathBuf> {
        let folders = self.folders.iter();
        let folders = folders.filter(move |(_, number)| **number == folder);
        folders.map(move |(path, _)| path.join(name))
    }

    /// Whether a file of the configuration is being written.
    fn is_unfinished(&self, sources: &Sources) -> bool {
        let unfinished = self.unfinished.iter();
        let mut unfinished = unfinished
            .flat_map(|(folder, name)| self.paths(*folder, name))
            .filter_map(|path| std::path::absolute(path).ok());
        let named = sources.files.iter();
        let named = named.flat_map(|file| [std::path::absolute(file), file.canonicalize()]);
        let named: BTreeSet<_> = named.flatten().collect();
        let folders = sources.system.iter();
        let folders: Vec<_> = folders
            .flat_map(|f| [f.clone(), f.join("conf.d")])
            .collect();
        unfinished.any(|path| {
            let within = |folder: &PathBuf| path.parent() == Some(folder.as_path());
            let of_system = Format::of(&path).is_some() && folders.iter().any(within);
            named.contains(&path) || of_system
        })
    }
}

/// The folders in which a change may be one of the configuration: of every file as it is named, and as what it is when
/// it is a link; for a folder that is not there, the nearest that is.
fn folders(sources: &Sources) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for file in &sources.files {
        folders.insert(folder_of(file));
        if let Ok(real) = file.canonicalize() {
            folders.insert(folder_of(&real));
        }
    }
    if let Some(system) = &sources.system {
        folders.insert(nearest(system));
        folders.insert(nearest(&system.join("conf.d")));
    }
    folders
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => ".".into(),
    }
}

fn nearest(folder: &Path) -> PathBuf {
    let there = folder.ancestors().find(|folder| folder.is_dir());
    there.unwrap_or_else(|| Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use tempfile::TempDir;

    use super::*;

    /// A folder of one file, which is the configuration, and watched.
    struct Place {
        folder: TempDir,
        file: PathBuf,
        sources: Sources,
        watch: Watch,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("switchboard.toml");
            fs::write(&file, "a").unwrap();
            let sources = Sources {
                files: vec![file.clone()],
                ..Sources::default()
            };
            let mut watch = Watch::new().unwrap();
            assert!(watch.turn_to(folders(&sources)));
            Self {
                folder,
                file,
                sources,
                watch,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Whether whoever waits for events is woken.
        fn wakes(&self) -> bool {
            let mut events = [PollFd::new(&self.watch.events, PollFlags::IN)];
            poll(&mut events, Some(&Timespec::default())).unwrap() > 0
        }

        fn is_unfinished(&mut self) -> bool {
            self.watch.is_unfinished(&self.sources)
        }
    }

    #[tokio::test]
    async fn whoever_only_reads_wakes_nobody() {
        let mut place = Place::new();
        for _ in 0..3 {
            assert_eq!(fs::read(&place.file).unwrap(), b"a");
            assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 1);
        }
        assert!(!place.wakes());
        fs::write(&place.file, "b").unwrap();
        assert!(place.wakes());
        place.watch.changed().await;
        assert!(!place.wakes());
    }

    #[tokio::test]
    async fn each_way_to_change_a_file_is_told() {
        let mut place = Place::new();
        let (file, other) = (place.file.clone(), place.path("other"));
        let ways: [(&str, &dyn Fn()); 7] = [
            ("written", &|| fs::write(&file, "b").unwrap()),
            ("beside it", &|| fs::write(&other, "c").unwrap()),
            ("replaced", &|| fs::rename(&other, &file).unwrap()),
            ("its mode", &|| {
                fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            }),
            ("removed", &|| fs::remove_file(&file).unwrap()),
            ("a link", &|| symlink("elsewhere", &file).unwrap()),
            ("a folder", &|| fs::create_dir(&other).unwrap()),
        ];
        for (what, change) in ways {
            change();
            assert!(place.watch.read(), "{what}");
            assert!(!place.watch.read(), "{what}");
            assert!(!place.is_unfinished(), "{what}");
        }
    }

    #[tokio::test]
    async fn a_file_is_unfinished_until_its_writer_closes_it() {
        let mut place = Place::new();
        let mut other = File::create(place.path("other")).unwrap();
        other.write_all(b"of nobody's interest").unwrap();
        assert!(!place.is_unfinished());
        for is_new in [false, true] {
            if is_new {
                fs::remove_file(&place.file).unwrap();
                place.watch.read();
            }
            let mut writer = File::create(&place.file).unwrap();
            assert!(!place.watch.read(), "nothing to be looked at yet");
            assert!(place.is_unfinished());
            writer.write_all(b"b").unwrap();
            assert!(!place.watch.read() && place.is_unfinished());
            drop(writer);
            assert!(place.watch.read() && !place.is_unfinished());
        }
        // Or until it is gone.
        let _writer = File::create(&place.file).unwrap();
        assert!(place.is_unfinished());
        fs::remove_file(&place.file).unwrap();
        assert!(place.watch.read() && !place.is_unfinished());
    }

    #[tokio::test]
    async fn a_folder_under_two_names_is_watched_until_it_has_none() {
        let mut place = Place::new();
        let real = place.path("real");
        fs::create_dir(&real).unwrap();
        let link = place.path("link");
        symlink("real", &link).unwrap();
        place.sources.files = vec![link.join("a.toml")];
        fs::write(real.join("a.toml"), "a").unwrap();
        assert!(place.watch.turn_to(folders(&place.sources)));
        assert!(!place.watch.turn_to(folders(&place.sources)));
        place.watch.read();
        let writer = File::create(real.join("a.toml")).unwrap();
        assert!(place.is_unfinished());
        drop(writer);
        // Under one of its names.
        assert!(place.watch.turn_to([real.clone()].into()));
        assert!(place.watch.read());
        fs::write(real.join("a.toml"), "b").unwrap();
        assert!(place.watch.read());
        // No more.
        assert!(place.watch.turn_to(BTreeSet::new()));
        place.watch.read();
        fs::write(real.join("a.toml"), "c").unwrap();
        assert!(!place.wakes());
    }

    #[tokio::test]
    async fn a_folder_in_the_place_of_one_is_another() {
        let mut place = Place::new();
        let folder = place.folder.path().to_owned();
        fs::remove_dir_all(&folder).unwrap();
        assert!(place.watch.read());
        assert!(place.watch.turn_to(folders(&place.sources)));
        fs::create_dir(&folder).unwrap();
        assert!(place.watch.turn_to(folders(&place.sources)));
        fs::write(&place.file, "b").unwrap();
        assert!(place.watch.read());
    }

    #[tokio::test]
    async fn what_was_lost_is_looked_at() {
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let limit: u32 = limit.trim().parse().unwrap();
        if limit > 100_000 {
            return;
        }
        let mut place = Place::new();
        let writer = File::create(&place.file).unwrap();
        assert!(place.is_unfinished());
        let others = ["one", "two"].map(|name| File::create(place.path(name)).unwrap());
        for index in 0..=limit {
            // In turns: an event that is told twice in a row is told once.
            let mode = Permissions::from_mode(0o600);
            others[index as usize % 2].set_permissions(mode).unwrap();
        }
        drop(writer);
        assert!(place.watch.read());
        assert!(!place.is_unfinished());
    }
}
