//! How sessions are named.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ulid::Ulid;

/// Names a session: sorts by the time it opened, and is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl SessionId {
    /// The same for all sessions of one run of a listener, and for no other.
    pub fn run(self) -> u64 {
        u64::try_from(self.0 & ((1 << 40) - 1)).unwrap_or_default()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; ulid::ULID_LEN];
        let text = Ulid(self.0).array_to_str(&mut text);
        text.make_ascii_lowercase();
        f.write_str(text)
    }
}

impl FromStr for SessionId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ulid::from_string(text).map(|id| Self(id.0)).map_err(|_| ())
    }
}

/// Makes session ids: milliseconds, a count, and what tells this process from others.
#[derive(Debug)]
pub(super) struct Ids {
    last: AtomicU64,
    count: AtomicU64,
    process: u64,
}

impl Ids {
    pub(super) fn new(process: u64) -> Self {
        Self {
            last: AtomicU64::new(0),
            count: AtomicU64::new(0),
            process,
        }
    }

    /// As [`SessionId::run`] of all of them.
    pub(super) fn run(&self) -> u64 {
        SessionId(self.process.into()).run()
    }

    /// The next id. A clock that steps back does not make it smaller.
    pub(super) fn next(&self) -> SessionId {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let ms = self.last.fetch_max(now, Ordering::Relaxed).max(now);
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let bits = |value: u64, width: u32| u128::from(value & ((1 << width) - 1));
        SessionId(bits(ms, 48) << 80 | bits(count, 40) << 40 | bits(self.process, 40))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_as_they_are_shown() {
        let id = SessionId(0x0193_5a2b_3c4d_0000_0000_0123_4567_89ab);
        let text = id.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(text, text.to_lowercase());
        assert_eq!(text.parse(), Ok(id));
        assert_eq!("nonsense".parse::<SessionId>(), Err(()));
    }

    #[test]
    fn ids_only_grow() {
        let ids = Ids::new(0xabcd);
        ids.last.store(u64::MAX >> 17, Ordering::Relaxed);
        let made: Vec<_> = (0..100).map(|_| ids.next()).collect();
        assert!(made.windows(2).all(|w| w[0] < w[1]));
        assert!(made.iter().all(|id| id.run() == ids.run()));
    }
}
