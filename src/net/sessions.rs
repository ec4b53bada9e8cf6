//! The sessions of one run of a listener, and the bounded memory of those that closed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::close::CloseReason;
use super::counters::Totals;
use super::id::SessionId;
use super::lock;
use super::session::Session;
use crate::telemetry::Trace;

/// Sessions by the time they opened, and how many each source has.
#[derive(Debug, Default)]
pub struct Sessions {
    live: Mutex<Live>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Live {
    by_id: BTreeMap<SessionId, Arc<Session>>,
    by_source: HashMap<IpAddr, usize>,
    /// What callers said of those that they closed, until these have left.
    noted: HashMap<SessionId, Arc<str>>,
}

impl Sessions {
    /// Enters a session, unless a limit says no; then the limit's word.
    pub(super) fn enter(
        &self,
        source: IpAddr,
        max: usize,
        max_per_source: usize,
        make: impl FnOnce() -> Arc<Session>,
    ) -> Result<Arc<Session>, &'static str> {
        let mut live = lock(&self.live);
        if live.by_id.len() >= max {
            return Err("max_sessions");
        }
        let from_source = live.by_source.entry(source).or_insert(0);
        if *from_source >= max_per_source {
            return Err("per_source");
        }
        *from_source += 1;
        let session = make();
        live.by_id.insert(session.id, session.clone());
        Ok(session)
    }

    /// Whether one more from `source` would be let in if only another left.
    pub(super) fn lack_room(&self, source: IpAddr, max: usize, max_per_source: usize) -> bool {
        let live = lock(&self.live);
        live.by_id.len() >= max
            && live
                .by_source
                .get(&source)
                .is_none_or(|n| *n < max_per_source)
    }

    /// Notes why a session that lives is about to be closed.
    pub(super) fn note(&self, id: SessionId, why: Arc<str>) {
        let mut live = lock(&self.live);
        if live.by_id.contains_key(&id) {
            live.noted.entry(id).or_insert(why);
        }
    }

    /// Takes a session out and does what belongs to it, with what was noted of its end; nothing if it was out already.
    pub(super) fn leave<T>(
        &self,
        session: &Session,
        then: impl FnOnce(Option<Arc<str>>) -> T,
    ) -> Option<T> {
        let mut live = lock(&self.live);
        live.by_id.remove(&session.id)?;
        let source = session.peer.ip();
        if let Some(count) = live.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                live.by_source.remove(&source);
            }
        }
        if live.by_id.is_empty() {
            self.emptied.notify_waiters();
        }
        Some(then(live.noted.remove(&session.id)))
    }

    /// Resolves once there is none, at this moment.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.count() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// How many live.
    pub fn count(&self) -> usize {
        lock(&self.live).by_id.len()
    }

    /// One of them.
    pub fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        lock(&self.live).by_id.get(&id).cloned()
    }

    /// At most `limit` of those that opened after `after`, oldest first.
    pub fn page(&self, after: Option<SessionId>, limit: usize) -> Vec<Arc<Session>> {
        self.page_as_of(after, limit, || ()).0
    }

    /// The same, and what `moment` says while nobody can come or go.
    pub fn page_as_of<T>(
        &self,
        after: Option<SessionId>,
        limit: usize,
        moment: impl FnOnce() -> T,
    ) -> (Vec<Arc<Session>>, T) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let live = lock(&self.live);
        let range = live.by_id.range((from, Bound::Unbounded)).take(limit);
        let page = range.map(|(_, session)| session.clone()).collect();
        (page, moment())
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.page(None, usize::MAX)
    }

    /// Looks at each without taking a copy; `look` must be quick and take no lock of a listener.
    pub fn each(&self, mut look: impl FnMut(&Arc<Session>)) {
        lock(&self.live).by_id.values().for_each(&mut look);
    }
}

/// What is remembered of a session that closed.
#[derive(Debug, Clone)]
pub struct Closed {
    /// Its name.
    pub id: SessionId,
    /// Who visited.
    pub peer: std::net::SocketAddr,
    /// The address that was visited.
    pub local: std::net::SocketAddr,
    /// When it opened.
    pub opened: SystemTime,
    /// When it closed.
    pub closed: SystemTime,
    /// When its last message came.
    pub last_receive: Option<SystemTime>,
    /// When its last bytes left.
    pub last_send: Option<SystemTime>,
    /// Why it ended.
    pub reason: CloseReason,
    /// What the caller said of it who closed it.
    pub detail: Option<Arc<str>>,
    /// What it sent and got.
    pub totals: Totals,
    /// How often sending had to wait for the peer to read.
    pub stalls: u32,
    /// The trace of its set-up.
    pub trace: Trace,
}

impl Closed {
    pub(super) fn new(session: &Session, reason: CloseReason, detail: Option<Arc<str>>) -> Self {
        Self {
            id: session.id,
            peer: session.peer,
            local: session.local,
            opened: session.opened,
            closed: SystemTime::now(),
            last_receive: session.last_receive(),
            last_send: session.last_send(),
            reason,
            detail,
            totals: session.traffic.totals(),
            stalls: session.stalls(),
            trace: session.trace,
        }
    }
}

/// What is told of a session that opens.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Its name.
    pub id: SessionId,
    /// Who visits.
    pub peer: std::net::SocketAddr,
    /// The address that is visited.
    pub local: std::net::SocketAddr,
    /// When it opened.
    pub opened: SystemTime,
    /// The trace of its set-up.
    pub trace: Trace,
}

/// A session came or went. It holds on to no session: it outlives them.
#[derive(Debug, Clone)]
pub enum SessionEvent {
    /// It came, to the listener of this name.
    Opened(Arc<str>, Opened),
    /// It went, from the listener of this name.
    Closed(Arc<str>, Closed),
}

impl SessionEvent {
    /// The listener's name.
    pub fn listener(&self) -> &Arc<str> {
        match self {
            Self::Opened(listener, _) | Self::Closed(listener, _) => listener,
        }
    }

    /// Which session.
    pub fn id(&self) -> SessionId {
        match self {
            Self::Opened(_, opened) => opened.id,
            Self::Closed(_, closed) => closed.id,
        }
    }
}

/// The last sessions that closed, newest last, and how many closed for which reason.
#[derive(Debug, Default)]
pub struct Closures {
    ring: Mutex<Ring>,
    by_reason: [AtomicU64; CloseReason::ALL.len()],
}

#[derive(Debug, Default)]
struct Ring {
    closed: VecDeque<Closed>,
    forgotten: Option<SystemTime>,
}

/// Closed sessions remembered for each listener: about 200 KiB.
const REMEMBERED: usize = 1_000;

impl Closures {
    pub(super) fn push(&self, closed: Closed) {
        self.by_reason[closed.reason as usize - 1].fetch_add(1, Ordering::Relaxed);
        let mut ring = lock(&self.ring);
        if ring.closed.len() == REMEMBERED {
            ring.forgotten = ring.closed.pop_front().map(|c| c.closed);
        }
        ring.closed.push_back(closed);
    }

    /// One of those remembered.
    pub fn get(&self, id: SessionId) -> Option<Closed> {
        lock(&self.ring)
            .closed
            .iter()
            .rev()
            .find(|c| c.id == id)
            .cloned()
    }

    /// At most `limit` of those that opened after `after`, in the order of their opening.
    pub fn page(&self, after: Option<SessionId>, limit: usize) -> Vec<Closed> {
        let ring = lock(&self.ring);
        let behind = ring.closed.iter().filter(|c| Some(c.id) > after);
        let mut behind: Vec<_> = behind.collect();
        if limit < behind.len() {
            behind.select_nth_unstable_by_key(limit, |c| c.id);
            behind.truncate(limit);
        }
        behind.sort_unstable_by_key(|c| c.id);
        behind.into_iter().cloned().collect()
    }

    /// How many are remembered.
    pub fn count(&self) -> usize {
        lock(&self.ring).closed.len()
    }

    /// Sessions that closed up to this moment may be forgotten; none are when it is `None`.
    pub fn horizon(&self) -> Option<SystemTime> {
        lock(&self.ring).forgotten
    }

    /// How many closed for each reason.
    pub fn by_reason(&self) -> impl Iterator<Item = (CloseReason, u64)> + '_ {
        CloseReason::ALL.into_iter().map(|reason| {
            (
                reason,
                self.by_reason[reason as usize - 1].load(Ordering::Relaxed),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::Route;
    use super::super::stream::Wire;
    use super::*;

    fn make(id: u128, source: [u8; 4]) -> Arc<Session> {
        let peer = (source, 9).into();
        Session::new(
            SessionId(id),
            (peer, peer),
            Route::Stream(Wire::default()),
            Trace::default(),
            1,
        )
    }

    #[test]
    fn limits_refuse_by_name_and_leaving_makes_room() {
        let sessions = Sessions::default();
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = sessions.enter(a, 2, 1, || make(1, [127, 0, 0, 1])).unwrap();
        assert_eq!(
            sessions
                .enter(a, 2, 1, || make(2, [127, 0, 0, 1]))
                .unwrap_err(),
            "per_source"
        );
        sessions.enter(b, 2, 1, || make(3, [127, 0, 0, 2])).unwrap();
        assert_eq!(
            sessions
                .enter(b, 2, 9, || make(4, [127, 0, 0, 2]))
                .unwrap_err(),
            "max_sessions"
        );
        sessions.note(first.id, "flood".into());
        sessions.note(SessionId(9), "nobody".into());
        assert_eq!(
            sessions.leave(&first, |noted| noted),
            Some(Some("flood".into()))
        );
        assert_eq!(sessions.leave(&first, |noted| noted), None);
        sessions.enter(a, 2, 1, || make(5, [127, 0, 0, 1])).unwrap();
    }

    #[test]
    fn closed_ones_are_read_in_the_order_of_their_opening() {
        let closures = Closures::default();
        for id in [4, 1, 5, 3, 2] {
            let session = make(id, [127, 0, 0, 1]);
            closures.push(Closed {
                id: session.id,
                peer: session.peer,
                local: session.local,
                opened: session.opened,
                closed: SystemTime::now(),
                last_receive: None,
                last_send: None,
                reason: CloseReason::Idle,
                detail: None,
                totals: Totals::default(),
                stalls: 0,
                trace: session.trace,
            });
        }
        let page = |after: u128, limit| {
            let page = closures.page(Some(SessionId(after)), limit);
            page.iter().map(|c| c.id.0).collect::<Vec<_>>()
        };
        assert_eq!(closures.count(), 5);
        assert_eq!(
            (page(0, 2), page(2, 2), page(4, 9)),
            (vec![1, 2], vec![3, 4], vec![5])
        );
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let sessions = Sessions::default();
        for id in 1..=5 {
            sessions
                .enter([127, 0, 0, 1].into(), 9, 9, || make(id, [127, 0, 0, 1]))
                .unwrap();
        }
        let page = sessions.page(Some(SessionId(2)), 2);
        assert_eq!(page.iter().map(|s| s.id.0).collect::<Vec<_>>(), [3, 4]);
    }
}
