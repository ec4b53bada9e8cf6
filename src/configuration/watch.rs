//! The files, watched: their folders, since editors and configuration mounts put another file in the place of one.
//!
//! A change is looked at once nothing has happened for a while, and a file that is still being written says nothing until
//! it is closed. What was looked at is told apart by its bytes, so that nothing is taken over twice.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Owner;
use crate::config::Sources;

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
    let changed = Arc::new(Notify::new());
    let Some(mut watcher) = watcher(changed.clone()) else {
        return;
    };
    let mut watched = Watched::new();
    loop {
        let more = watch(&mut watcher, &mut watched, folders(&sources));
        let waited = stop.run_until_cancelled(tokio::time::timeout(LOOKING, changed.notified()));
        match waited.await {
            None => return,
            // Whatever happened in a folder before it was watched would otherwise never be seen.
            Some(Err(_)) if !more => continue,
            Some(Err(_)) => {}
            Some(Ok(())) => settle(&changed).await,
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

fn watcher(changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        if event.as_ref().map_or(true, |event| matters(&event.kind)) {
            changed.notify_one();
        }
    };
    match notify::recommended_watcher(tell) {
        Ok(watcher) => Some(watcher),
        Err(fault) => {
            warn!(%fault, "the configuration's files are not watched; SIGHUP and ReloadConfig reload them");
            None
        }
    }
}

/// Whether an event ends something: a file that is written to is not yet what it will be.
fn matters(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => *access == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(modify) => {
            matches!(modify, ModifyKind::Name(_) | ModifyKind::Metadata(_))
        }
        EventKind::Create(_) | EventKind::Remove(_) => true,
        EventKind::Any | EventKind::Other => true,
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
