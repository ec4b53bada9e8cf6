//! Sessions that are watched live: found by name, tapped within the process's bound.

use super::{Error, Supervisor};
use crate::net::{Tap, TapBounds};

impl Supervisor {
    /// Shows what crosses a session's socket from now on.
    ///
    /// # Errors
    /// When there is no such session, it has closed, or there are as many taps as there may be.
    pub fn tap(&self, name: &str, bounds: TapBounds) -> Result<Tap, Error> {
        let Some((door, session)) = self.open_session(name)? else {
            // It closed lately, unless it was never there.
            self.session(name)?;
            return Err(Error::SessionClosed(name.to_owned()));
        };
        let tap = self.0.taps.open(&door, &session, bounds);
        tap.map_err(Error::TooManyTaps)
    }
}
