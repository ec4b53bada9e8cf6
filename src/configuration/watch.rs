//! The files, watched: their folders, since editors and configuration mounts put another file in the place of one.
//!
//! A change is looked at once nothing has happened for a while, and not while one of the files is still being written:
//! what there is of it may be a configuration too, of fewer listeners. What was tried is told apart by its bytes, so that
//! nothing is taken over twice.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
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

/// The folders that are watched, each with what tells it from another of its name.
type Watched = BTreeMap<PathBuf, (u64, u64)>;

/// Looks at the files whenever their folders change, until `stop`.
pub(super) async fn follow(owner: Owner, stop: CancellationToken) {
    let Ok(sources) = owner
        .ask(|state| Box::pin(async { state.sources.clone() }))
        .await
    else {
        return;
    };
    let seen = Arc::new(Seen::default());
    let Some(mut watcher) = watcher(seen.clone()) else {
        return;
    };
    let mut watched = Watched::new();
    loop {
        let more = watch(&mut watcher, &mut watched, folders(&sources));
        let waiting = tokio::time::timeout(LOOKING, seen.changed.notified());
        match stop.run_until_cancelled(waiting).await {
            None => return,
            // Whatever happened in a folder before it was watched would otherwise never be seen.
            Some(Err(_)) if !more => continue,
            Some(Err(_)) => {}
            Some(Ok(())) => _ = stop.run_until_cancelled(settle(&seen.changed)).await,
        }
        // That it is written to its end is seen as well.
        if seen.is_unfinished(&sources) {
            continue;
        }
        let looked = owner.ask(|state| Box::pin(state.reload_if_changed()));
        if stop.run_until_cancelled(looked).await.is_none() {
            return;
        }
    }
}

/// Resolves once nothing has happened for a while.
async fn settle(changed: &Notify) {
    let quiet = async {
        while tokio::time::timeout(QUIET, changed.notified())
            .await
            .is_ok()
        {}
    };
    // A folder in which something happens all the time is looked at all the same.
    let _ = tokio::time::timeout(LONGEST, quiet).await;
}

fn watcher(seen: Arc<Seen>) -> Option<RecommendedWatcher> {
    match notify::recommended_watcher(move |event| seen.take(event)) {
        Ok(watcher) => Some(watcher),
        Err(fault) => {
            warn!(%fault, "the configuration's files are not watched; SIGHUP and ReloadConfig reload them");
            None
        }
    }
}

/// What has happened in the folders.
#[derive(Default)]
struct Seen {
    changed: Notify,
    /// Files that somebody has begun to write and not closed yet.
    unfinished: Mutex<BTreeSet<PathBuf>>,
}

impl Seen {
    fn take(&self, event: notify::Result<notify::Event>) {
        let mut unfinished = crate::net::lock(&self.unfinished);
        let lost = event.as_ref().map_or(true, notify::Event::need_rescan);
        if lost {
            // Nor would their ends have been seen.
            unfinished.clear();
        }
        let mut changed = lost;
        for (kind, path) in event
            .iter()
            .flat_map(|e| e.paths.iter().map(|p| (&e.kind, p)))
        {
            if begins(kind, path) {
                unfinished.insert(path.clone());
            } else if matters(kind) {
                changed = true;
            }
            if ends(kind) {
                unfinished.remove(path);
            }
        }
        if changed {
            self.changed.notify_one();
        }
    }

    /// Whether a file of the configuration is being written.
    fn is_unfinished(&self, sources: &Sources) -> bool {
        let unfinished = crate::net::lock(&self.unfinished).clone();
        let named = sources.files.iter();
        let named = named.flat_map(|file| [std::path::absolute(file), file.canonicalize()]);
        let named: BTreeSet<_> = named.flatten().collect();
        let folders = sources.system.iter();
        let folders: Vec<_> = folders
            .flat_map(|f| [f.clone(), f.join("conf.d")])
            .collect();
        unfinished.iter().any(|path| {
            let within = |folder: &PathBuf| path.parent() == Some(folder.as_path());
            let of_system = Format::of(path).is_some() && folders.iter().any(within);
            named.contains(path) || of_system
        })
    }
}

/// Whether an event is the beginning, or the middle, of something: a file that is written to is not yet what it will be,
/// nor is one that was just made and is empty.
fn begins(kind: &EventKind, path: &Path) -> bool {
    match kind {
        EventKind::Modify(ModifyKind::Data(_)) => true,
        EventKind::Create(_) => path
            .symlink_metadata()
            .is_ok_and(|file| file.is_file() && file.len() == 0 && file.nlink() == 1),
        _ => false,
    }
}

/// Whether an event ends the writing of a file: it is closed, gone, or another one.
fn ends(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => *access == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(modify) => matches!(modify, ModifyKind::Name(_)),
        kind => kind.is_remove(),
    }
}

/// Whether files may be others after an event.
fn matters(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(_) => ends(kind),
        EventKind::Modify(modify) => !matches!(modify, ModifyKind::Data(_)),
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => true,
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

/// Watches these folders and no others; whether one is another than before.
fn watch(
    watcher: &mut RecommendedWatcher,
    watched: &mut Watched,
    wanted: BTreeSet<PathBuf>,
) -> bool {
    for folder in watched.keys().filter(|folder| !wanted.contains(*folder)) {
        // It may be gone, and its watch with it.
        let _ = watcher.unwatch(folder);
    }
    watched.retain(|folder, _| wanted.contains(folder));
    let mut other = false;
    for folder in wanted {
        let Ok(metadata) = folder.metadata() else {
            continue;
        };
        let identity = (metadata.dev(), metadata.ino());
        if watched.get(&folder) == Some(&identity) {
            continue;
        }
        match watcher.watch(&folder, RecursiveMode::NonRecursive) {
            Ok(()) => other |= watched.insert(folder, identity) != Some(identity),
            Err(fault) => debug!(folder = %folder.display(), %fault, "a folder is not watched"),
        }
    }
    other
}
