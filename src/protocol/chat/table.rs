//! Who is at a desk over UDP, where any datagram may be from a new peer and nobody says goodbye: who makes room when the
//! table is full, and how much the listener itself says to an address that somebody may have forged.
//!
//! A stranger may be nobody. A peer is known once it has spoken after it was answered, for it reads what it is sent, and
//! once a person has answered it. Whoever is owed an answer stays; of the others the one whose last answer is longest ago
//! goes, but known ones are spared for a while, so that a flood of strangers drives out strangers. Both kinds stand in
//! the order of their last answers: making room looks at two peers, however many there are.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::net::{Rate, RateKey, RateTable, Session, SessionId, TokenBucket, lock};

/// Known peers that were answered so lately are spared, as long as they are fewer than half of all that there may be.
const SPARED: Duration = Duration::from_secs(60);

/// The listener's own answers to strangers, a second: from all that there are, and from one network. What is over it
/// is said later.
const OWN_ANSWERS: f64 = 1_000.0;
const OWN_ANSWERS_TO_NETWORK: f64 = 200.0;

/// A stranger is sent no more than this times what it has sent, as it is on the wire (the factor of RFC 9000, 8.1).
const AMPLIFICATION: usize = 3;

/// The peers of one listener.
pub(super) struct Table {
    peers: Mutex<Peers>,
    own_answers: TokenBucket,
    own_answers_to_networks: RateTable,
}

#[derive(Default)]
struct Peers {
    by_address: HashMap<SocketAddr, Peer>,
    /// Those who are owed nothing, the one whose last answer is longest ago first.
    idle: Idle,
    known_idle: Idle,
}

type Idle = BTreeMap<(Instant, SessionId), Arc<Session>>;

struct Peer {
    session: Arc<Session>,
    /// It can only be who it seems, as far as this listener's settings say.
    trusted: bool,
    /// It has spoken after it was answered.
    reads: bool,
    known: bool,
    /// Its place among those who are owed nothing.
    idle_since: Option<Instant>,
}

impl Peers {
    fn idle(&mut self, known: bool) -> &mut Idle {
        if known {
            &mut self.known_idle
        } else {
            &mut self.idle
        }
    }

    /// The peer of this session, unless its address has a newer one.
    fn of(&mut self, session: &Session) -> Option<&mut Peer> {
        let peer = self.by_address.get_mut(&session.peer)?;
        (peer.session.id == session.id).then_some(peer)
    }

    /// Changes what is known of a peer, and its place with it.
    fn change(&mut self, session: &Session, change: impl FnOnce(&mut Peer)) {
        let Some(peer) = self.of(session) else { return };
        let before = (peer.known, peer.idle_since);
        change(peer);
        let (after, session) = ((peer.known, peer.idle_since), peer.session.clone());
        if let (known, Some(since)) = before {
            self.idle(known).remove(&(since, session.id));
        }
        if let (known, Some(since)) = after {
            self.idle(known).insert((since, session.id), session);
        }
    }
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            peers: Mutex::default(),
            own_answers: TokenBucket::new(Rate::new(OWN_ANSWERS)),
            own_answers_to_networks: RateTable::new(Rate::new(OWN_ANSWERS_TO_NETWORK)),
        }
    }

    /// The session of whoever speaks from there, if it has one.
    pub(super) fn speaks(&self, address: SocketAddr) -> Option<Arc<Session>> {
        let mut peers = lock(&self.peers);
        let peer = peers.by_address.get(&address)?;
        let (session, reads) = (peer.session.clone(), peer.reads);
        if !reads && session.traffic.totals().sent_messages > 0 {
            peers.change(&session, |peer| {
                peer.reads = true;
                peer.known = true;
            });
        }
        Some(session)
    }

    /// Enters a peer that has a session from now on.
    pub(super) fn enter(&self, session: &Arc<Session>, trusted: bool) {
        let peer = Peer {
            session: session.clone(),
            trusted: trusted || session.peer.ip().is_loopback(),
            reads: false,
            known: false,
            idle_since: None,
        };
        lock(&self.peers).by_address.insert(session.peer, peer);
    }

    /// Notes that a peer has said something, or that it was answered, maybe by a person; each time after what it is owed
    /// has changed.
    pub(super) fn note(&self, session: &Session, by_person: bool, now: Instant) {
        lock(&self.peers).change(session, |peer| {
            // Looked at under the lock: of several who come at once the last sees how it is.
            let owed = session.owed.load(Ordering::Acquire) > 0;
            peer.idle_since = (!owed).then_some(now);
            peer.known |= by_person;
        });
    }

    /// Takes a session out.
    pub(super) fn leave(&self, session: &Session) {
        let mut peers = lock(&self.peers);
        peers.change(session, |peer| peer.idle_since = None);
        if peers.of(session).is_some() {
            peers.by_address.remove(&session.peer);
        }
    }

    /// Who makes room for a newcomer where there may be `most` peers, if anybody may.
    pub(super) fn makes_room(&self, most: usize, now: Instant) -> Option<Arc<Session>> {
        let peers = lock(&self.peers);
        let few = peers.known_idle.len() < most / 2;
        let spared = |since: Instant| few && now.saturating_duration_since(since) < SPARED;
        let known = peers.known_idle.iter().take(1);
        let known = known.filter(|((since, _), _)| !spared(*since));
        let longest = peers
            .idle
            .iter()
            .take(1)
            .chain(known)
            .min_by_key(|(key, _)| **key);
        longest.map(|(_, session)| session.clone())
    }

    /// How long the listener's own answer to a message of `length` bytes may be.
    pub(super) fn most_said(&self, session: &Session, length: usize) -> usize {
        match self.may_be_forged(session) {
            true => most_said(session.peer, length),
            false => usize::MAX,
        }
    }

    /// Whether the listener may answer a peer of its own accord now, or must do it later.
    pub(super) fn may_speak(&self, session: &Session, now: Instant) -> bool {
        let network = || RateKey::network(session.peer.ip());
        !self.may_be_forged(session)
            || self.own_answers_to_networks.take(network(), now) && self.own_answers.take(now)
    }

    /// Whether its address may be another's: nothing shows that it gets what it is sent.
    pub(super) fn may_be_forged(&self, session: &Session) -> bool {
        let mut peers = lock(&self.peers);
        let peer = peers.of(session);
        peer.is_some_and(|peer| !peer.trusted && !peer.reads)
    }
}

/// The longest answer that a stranger's message of `length` bytes is worth. Counted with the headers of IP and UDP,
/// which are most of a short one: some words are always possible.
fn most_said(stranger: SocketAddr, length: usize) -> usize {
    let headers = if stranger.is_ipv4() { 28 } else { 48 };
    AMPLIFICATION * (length + headers) - headers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions need no socket to be kept in a table.
    fn session(n: u32) -> Arc<Session> {
        let peer = SocketAddr::from((n.to_be_bytes(), 5_000));
        Session::unrouted(SessionId(n.into()), peer)
    }

    /// So many milliseconds after the beginning.
    fn clock() -> impl Fn(u64) -> Instant {
        let began = Instant::now();
        move |ms| began + Duration::from_millis(ms)
    }

    fn owes(session: &Session, messages: u32) {
        session.owed.store(messages, Ordering::Release);
    }

    fn enter(table: &Table, n: u32, now: Instant) -> Arc<Session> {
        let session = session(n);
        table.enter(&session, false);
        owes(&session, 1);
        table.note(&session, false, now);
        session
    }

    fn answer(table: &Table, session: &Session, by_person: bool, now: Instant) {
        owes(session, 0);
        session.traffic.sent(1, 9);
        table.note(session, by_person, now);
    }

    fn goes(table: &Table, now: Instant) -> Option<u128> {
        let session = table.makes_room(100, now)?;
        table.leave(&session);
        Some(session.id.0)
    }

    #[test]
    fn whoever_is_owed_an_answer_stays_and_the_longest_idle_goes() {
        let (table, at) = (Table::new(), clock());
        let all: Vec<_> = (0..4).map(|n| enter(&table, n, at(0))).collect();
        assert_eq!(goes(&table, at(1)), None);
        for (n, ms) in [(2, 10), (0, 20), (1, 30)] {
            answer(&table, &all[n], false, at(ms));
        }
        // It has asked again.
        owes(&all[2], 1);
        table.note(&all[2], false, at(40));
        let order = [(); 3].map(|()| goes(&table, at(50)));
        assert_eq!(order, [Some(0), Some(1), None]);
    }

    #[test]
    fn strangers_go_before_known_ones_that_were_answered_lately() {
        let (table, at) = (Table::new(), clock());
        let known = enter(&table, 1, at(0));
        answer(&table, &known, true, at(0));
        let speaks = enter(&table, 2, at(0));
        answer(&table, &speaks, false, at(1));
        assert!(table.speaks(speaks.peer).is_some());
        let stranger = enter(&table, 3, at(0));
        answer(&table, &stranger, false, at(30_000));
        assert_eq!(goes(&table, at(30_001)), Some(3));
        assert_eq!(goes(&table, at(59_999)), None);
        let later = enter(&table, 4, at(60_000));
        answer(&table, &later, false, at(60_000));
        assert_eq!(
            [goes(&table, at(60_000)), goes(&table, at(60_001))],
            [Some(1), Some(2)]
        );
    }

    #[test]
    fn no_more_than_half_of_all_are_spared() {
        let (table, at) = (Table::new(), clock());
        for n in 0..3 {
            answer(&table, &enter(&table, n, at(0)), true, at(n.into()));
        }
        assert!(table.makes_room(8, at(9)).is_none());
        assert_eq!(table.makes_room(6, at(9)).unwrap().id.0, 0);
    }

    #[test]
    fn a_flood_leaves_nothing_behind() {
        let (table, at) = (Table::new(), clock());
        for n in 0..10_000 {
            if n >= 50 {
                assert_eq!(goes(&table, at(n.into())), Some((n - 50).into()));
            }
            answer(&table, &enter(&table, n, at(n.into())), false, at(n.into()));
        }
        let peers = lock(&table.peers);
        assert_eq!((peers.by_address.len(), peers.idle.len()), (50, 50));
        assert!(peers.known_idle.is_empty());
    }

    #[test]
    fn an_address_that_came_back_is_not_taken_for_who_it_was() {
        let (table, at) = (Table::new(), clock());
        let old = enter(&table, 1, at(0));
        table.leave(&old);
        let new = Session::unrouted(SessionId(99), old.peer);
        table.enter(&new, false);
        table.note(&new, false, at(1));
        table.note(&old, false, at(2));
        table.leave(&old);
        assert_eq!(table.speaks(old.peer).unwrap().id, new.id);
        assert_eq!(goes(&table, at(3)), Some(99));
    }

    #[test]
    fn strangers_are_not_sent_a_multiple_of_what_they_sent() {
        let (table, at) = (Table::new(), clock());
        let stranger = enter(&table, 0x0a00_0001, at(0));
        // 28 bytes of headers and 2 come, so 90 may go, 28 of them headers.
        assert_eq!(table.most_said(&stranger, 2), 62);
        assert_eq!(table.most_said(&stranger, 0), 56);
        // So many from its network, then later.
        assert_eq!(
            (0..300)
                .filter(|_| table.may_speak(&stranger, at(0)))
                .count(),
            200
        );
        let all = (0..300).map(|n| session(0x0b00_0000 + (n << 8)));
        let answered = all.filter(|session| {
            table.enter(session, false);
            table.may_speak(session, at(0))
        });
        assert_eq!(answered.count(), 300);
        answer(&table, &stranger, false, at(1));
        table.speaks(stranger.peer);
        assert!(table.may_speak(&stranger, at(1)));
        assert_eq!(table.most_said(&stranger, 2), usize::MAX);
        for (n, trusted) in [(0x7f00_0001, false), (0x0a00_0002, true)] {
            let session = session(n);
            table.enter(&session, trusted);
            assert_eq!(table.most_said(&session, 0), usize::MAX);
        }
    }
}
