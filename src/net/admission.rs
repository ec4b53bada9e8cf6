//! Which datagrams reach their protocol: those that ask us alone and come from where they may, of the right size, at no
//! more than the rate.

use std::sync::atomic::Ordering;

use super::datagram::{Batch, Datagram};
use super::door::Door;

impl Door {
    /// The checks that every datagram passes before its protocol sees it: destination, source, networks, size and rates.
    /// The drop is counted.
    pub fn passes(&self, batch: &Batch<'_>, datagram: &Datagram<'_>) -> bool {
        let (terms, place) = (batch.terms, &batch.socket.place);
        let (peer, asked) = (datagram.peer, || batch.local(datagram).ip());
        // One question must not have all who hear it answer whoever it says it is from.
        let alone = if datagram.is_broadcast() {
            Err("broadcast")
        } else {
            Ok(())
        };
        let passed = alone
            .and_then(|()| place.answers(peer, asked))
            .and_then(|()| self.welcomes(batch, datagram))
            .and_then(|()| terms.pass(datagram, place.is_public(), batch.now));
        if let Err(refusal) = passed {
            self.counters.refuse(refusal);
        }
        passed.is_ok()
    }

    /// Whether anybody may come from there now. Whoever is turned away has come: those let in are the rest.
    fn welcomes(&self, batch: &Batch<'_>, datagram: &Datagram<'_>) -> Result<(), &'static str> {
        let away = self.shut().filter(|_| !batch.terms.has_sessions());
        let open = || away.map_or(Ok(()), |(_, why)| Err(why.word()));
        let source = datagram.peer.ip();
        let welcome = batch
            .terms
            .welcome(batch.bans, source)
            .and_then(|()| open());
        if welcome.is_err() {
            self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        }
        welcome
    }
}
