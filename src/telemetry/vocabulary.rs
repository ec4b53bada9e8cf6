//! The words by which whoever reads a snapshot finds in it what it is looking for.

use super::instruments::{IO_DIRECTION, Instrument, LISTENER};

/// The attribute that names the listener that a series belongs to.
pub const OF_LISTENER: &str = LISTENER;

/// The attribute that says which way something went: `receive` or `transmit`.
pub const DIRECTION: &str = IO_DIRECTION;

impl Instrument {
    /// What its series are called in a snapshot.
    pub const fn name(self) -> &'static str {
        self.definition().name
    }
}
