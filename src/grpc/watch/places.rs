//! How many watches there may be, and what is counted of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tonic::{Code, Request, Status};

use super::super::status::{quota, status, with_reason};
use crate::net::{lock, web};
use crate::telemetry::{self, Instrument, Sink, Telemetry};

/// Watches and waits at once: in all, and of one address, or one user of this machine.
const MOST: (usize, usize) = (256, 64);

/// The watches that are open.
#[derive(Debug, Default)]
pub struct Watches {
    /// By who watches.
    open: Mutex<HashMap<Option<web::Source>, usize>>,
    active: [AtomicU64; METHODS.len()],
    missed: [AtomicU64; METHODS.len()],
}

/// What takes a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Method {
    WatchListeners,
    WatchSessions,
    WatchConversations,
    AttachDesk,
    WaitListener,
}

/// Their names, in order, as `rpc.method` has them.
const METHODS: [&str; 5] = [
    "switchboard.v1.ListenerService/WatchListeners",
    "switchboard.v1.SessionService/WatchSessions",
    "switchboard.v1.ChatService/WatchConversations",
    "switchboard.v1.ChatService/AttachDesk",
    "switchboard.v1.ListenerService/WaitListener",
];

/// The place of one watch, until it is dropped.
#[derive(Debug)]
pub(in super::super) struct Place {
    watches: Arc<Watches>,
    whose: Option<web::Source>,
    method: Method,
}

impl Watches {
    /// None yet; telemetry counts them.
    pub fn new(telemetry: &Telemetry) -> Arc<Self> {
        let watches = Arc::<Self>::default();
        let source: Weak<Self> = Arc::downgrade(&watches);
        telemetry.observe(source);
        watches
    }

    /// A place for whoever makes this request.
    ///
    /// # Errors
    /// `WATCHER_LIMIT`.
    pub(in super::super) fn place<T>(
        self: &Arc<Self>,
        request: &Request<T>,
        method: Method,
    ) -> Result<Place, Status> {
        let caller = request.extensions().get::<web::Caller>();
        let whose = caller.map(web::Caller::source);
        self.take(whose, method)
    }

    pub(super) fn take(
        self: &Arc<Self>,
        whose: Option<web::Source>,
        method: Method,
    ) -> Result<Place, Status> {
        let mut open = lock(&self.open);
        let own = open.get(&whose).copied().unwrap_or_default();
        if open.values().sum::<usize>() >= MOST.0 {
            let message = format!("{} watches are open, and no more are possible", MOST.0);
            return Err(full("watches", message));
        }
        if own >= MOST.1 {
            let message = format!(
                "{} watches of yours are open, and no more are possible",
                MOST.1
            );
            return Err(full("watches of one client", message));
        }
        open.insert(whose, own + 1);
        self.active[method as usize].fetch_add(1, Ordering::Relaxed);
        Ok(Place {
            watches: self.clone(),
            whose,
            method,
        })
    }
}

fn full(subject: &str, message: String) -> Status {
    let again = Duration::from_secs(5);
    let bare = with_reason("WATCHER_LIMIT", Vec::new());
    let details = quota(bare, subject, &message, again);
    status(Code::ResourceExhausted, message, details)
}

impl Place {
    /// Whoever has it was too slow for so many events.
    pub(in super::super) fn missed(&self, events: u64) {
        self.watches.missed[self.method as usize].fetch_add(events, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.watches.active[self.method as usize].fetch_sub(1, Ordering::Relaxed);
        let mut open = lock(&self.watches.open);
        if let Some(own) = open.get_mut(&self.whose) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.whose);
            }
        }
    }
}

impl telemetry::Source for Watches {
    fn collect(&self, sink: &mut dyn Sink) {
        for (what, counts) in [
            (Instrument::WatchesActive, &self.active),
            (Instrument::WatchEventsDropped, &self.missed),
        ] {
            for (method, count) in METHODS.into_iter().zip(counts) {
                let count = count.load(Ordering::Relaxed) as f64;
                sink.observe(what, None, Some(method), count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::StatusExt;

    #[test]
    fn nobody_takes_all_places_and_those_left_are_free_again() {
        let watches = Arc::new(Watches::default());
        let of = |n: u8| {
            let whose = web::Source::Address([127, 0, 0, n].into());
            watches.take(Some(whose), Method::WatchSessions)
        };
        let mut taken: Vec<_> = (0..MOST.1).map(|_| of(1).unwrap()).collect();
        let error = of(1).unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        let details = error.get_error_details();
        assert!(details.quota_failure().is_some() && details.retry_info().is_some());
        for n in 2..=4 {
            taken.extend((0..MOST.1).map(|_| of(n).unwrap()));
        }
        assert!(of(5).is_err());
        taken.truncate(1);
        taken.push(of(5).unwrap());
        assert_eq!(watches.active[1].load(Ordering::Relaxed), 2);
        drop(taken);
        assert!(lock(&watches.open).is_empty());
    }

    #[test]
    fn methods_are_named_as_they_are() {
        for (method, name) in [
            (Method::WatchListeners, "WatchListeners"),
            (Method::WatchSessions, "WatchSessions"),
            (Method::WatchConversations, "WatchConversations"),
            (Method::AttachDesk, "AttachDesk"),
            (Method::WaitListener, "WaitListener"),
        ] {
            assert!(METHODS[method as usize].ends_with(name));
        }
    }
}
