//! How the store fares, for metrics and health: written by the writer, read at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::error::WriteError;

/// A moment's figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Bytes on the disk, the write-ahead log's included; 0 in memory.
    pub size: u64,
    /// Writes that wait.
    pub queued: usize,
    /// Writes that were kept.
    pub writes: u64,
    /// Commits that kept them.
    pub commits: u64,
    /// Writes that were not kept, for each of [`WriteError::REASONS`].
    pub failures: [(&'static str, u64); WriteError::REASONS.len()],
    /// Audit events and commands that are not in the trail.
    pub lost_events: u64,
    /// False from the first write that the disk or the file failed until one that it did not.
    pub healthy: bool,
}

#[derive(Debug)]
pub(super) struct Tally {
    size: AtomicU64,
    queued: AtomicUsize,
    writes: AtomicU64,
    commits: AtomicU64,
    failures: [AtomicU64; WriteError::REASONS.len()],
    lost_events: AtomicU64,
    healthy: AtomicBool,
}

impl Tally {
    pub(super) fn new(size: u64) -> Self {
        Self {
            size: AtomicU64::new(size),
            queued: AtomicUsize::default(),
            writes: AtomicU64::default(),
            commits: AtomicU64::default(),
            failures: Default::default(),
            lost_events: AtomicU64::default(),
            healthy: AtomicBool::new(true),
        }
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            size: self.size.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            commits: self.commits(),
            failures: std::array::from_fn(|at| {
                (
                    WriteError::REASONS[at],
                    self.failures[at].load(Ordering::Relaxed),
                )
            }),
            lost_events: self.lost_events.load(Ordering::Relaxed),
            healthy: self.healthy.load(Ordering::Relaxed),
        }
    }

    pub(super) fn resized(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
    }

    pub(super) fn queued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn taken(&self, jobs: usize) {
        self.queued.fetch_sub(jobs, Ordering::Relaxed);
    }

    pub(super) fn written(&self, writes: usize) {
        self.writes.fetch_add(writes as u64, Ordering::Relaxed);
    }

    pub(super) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(super) fn failed(&self, error: &WriteError) {
        self.failures[error.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn event_lost(&self) {
        self.lost_events.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells what was before.
    pub(super) fn set_healthy(&self, healthy: bool) -> bool {
        self.healthy.swap(healthy, Ordering::Relaxed)
    }
}
