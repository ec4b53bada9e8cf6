//! What the outputs of all commands may hold at once, in all listeners.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, getrlimit};

/// The most that spools hold, whatever the memory of the machine.
const MOST_SPOOLED: u64 = 1 << 30;

/// The same of our own memory.
const MOST_KEPT: u64 = 64 << 20;

/// The same of what pipes hold beyond their usual size: a quarter of what the system lets a user's pipes hold before it
/// makes them narrower than usual.
const MOST_WIDENED: u64 = 16 << 20;

/// What spools hold.
pub(super) static SPOOLED: Budget = Budget::new(|| {
    // To write past the limit on files would be fatal.
    let file = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
    let spare = file.saturating_sub(1 << 20);
    MOST_SPOOLED.min(memory() / 4).min(spare)
});

/// What our own memory holds of long outputs.
pub(super) static KEPT: Budget = Budget::new(|| MOST_KEPT.min(memory() / 16));

/// What pipes may hold beyond their usual size.
pub(super) static WIDENED: Budget = Budget::new(|| MOST_WIDENED);

/// Bytes of memory of this machine.
fn memory() -> u64 {
    let system = rustix::system::sysinfo();
    system.totalram * u64::from(system.mem_unit)
}

/// A number of bytes that many share.
#[derive(Debug)]
pub(super) struct Budget {
    most: LazyLock<u64>,
    held: AtomicU64,
}

impl Budget {
    pub(super) const fn new(most: fn() -> u64) -> Self {
        Self {
            most: LazyLock::new(most),
            held: AtomicU64::new(0),
        }
    }

    /// What is held of it.
    #[cfg(test)]
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

/// What one output holds of a budget. Dropped, it gives it back.
#[derive(Debug)]
pub(super) struct Share {
    budget: &'static Budget,
    held: u64,
}

impl Share {
    pub(super) fn new(budget: &'static Budget) -> Self {
        Self { budget, held: 0 }
    }

    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Takes so many bytes more; false when there are not as many.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let most = *self.budget.most;
        let more = |held: u64| held.checked_add(bytes).filter(|held| *held <= most);
        let order = Ordering::Relaxed;
        let grown = self.budget.held.fetch_update(order, order, more).is_ok();
        if grown {
            self.held += bytes;
        }
        grown
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.held, Ordering::Relaxed);
    }
}
