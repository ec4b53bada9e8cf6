//! Which datagrams reach their protocol: those of peers that may come, of the right size, at no more than the rate.

use std::sync::atomic::Ordering;

use super::datagram::{Batch, Datagram};
use super::door::Door;

impl Door {
    /// The checks that every datagram passes before its protocol sees it: networks, size and rate.
    /// The drop is counted.
    pub fn passes(&self, batch: &Batch<'_>, datagram: &Datagram<'_>) -> bool {
        let (terms, source) = (batch.terms, datagram.peer.ip());
        let away = self.shut().filter(|_| !terms.has_sessions());
        let open = || away.map_or(Ok(()), |(_, why)| Err(why.word()));
        let welcome = terms.welcome(batch.bans, source).and_then(|()| open());
        if welcome.is_err() {
            // Whoever is turned away has come: those let in are the rest.
            self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        }
        let passed = welcome.and_then(|()| terms.pass(datagram, batch.now));
        if let Err(refusal) = passed {
            self.counters.refuse(refusal);
        }
        passed.is_ok()
    }
}
