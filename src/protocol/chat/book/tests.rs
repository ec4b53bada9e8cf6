//! The promises of the book: order, one answer each, leases, and what is forgotten when.

use std::time::Duration;

use proptest::prelude::*;

use super::super::message::{ClaimError, ConversationState};
use super::memory::REMEMBERED_BYTES;
use super::*;

const ID: SessionId = SessionId(1);
const LEASE: Duration = Duration::from_secs(120);

fn now() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

fn peer() -> SocketAddr {
    ([127, 0, 0, 1], 9).into()
}

/// Something that is said and kept.
fn hear_of(book: &mut Book, id: SessionId, raw: &[u8]) -> bool {
    match book.hear(id, peer(), raw, now()) {
        Heard::Said(said) => book.kept(&said, true).is_some(),
        _ => false,
    }
}

fn hear(book: &mut Book, text: &str) -> bool {
    hear_of(book, ID, text.as_bytes())
}

fn reply(id: SessionId, text: &str) -> Message {
    Message {
        conversation: id,
        sequence: 0,
        author: Author::Operator,
        operator: "ann".into(),
        raw: text.as_bytes().to_vec(),
        time: SystemTime::now(),
        in_reply_to: 0,
        request_id: String::new(),
    }
}

fn texts(released: Released) -> Vec<String> {
    let text = |m: &Arc<Message>| String::from_utf8(m.raw.clone()).unwrap();
    released.ready.iter().map(text).collect()
}

fn reserve(book: &mut Book, to: u64, text: &str) -> Result<Arc<Message>, Refused> {
    book.reserve(ID, to, reply(ID, text), Instant::now())
}

fn answer(book: &mut Book, to: u64, text: &str) -> Result<Vec<String>, Refused> {
    let answer = reserve(book, to, text)?;
    Ok(texts(book.settle(&answer, true)))
}

fn close_of(book: &mut Book, id: SessionId) {
    assert!(book.close(id).is_some());
}

#[test]
fn a_later_answer_is_held_until_the_earlier_ones_are_given() {
    let mut book = Book::new(true);
    assert!(hear(&mut book, "a") && hear(&mut book, "b") && hear(&mut book, "c"));
    assert_eq!(answer(&mut book, 2, "B").unwrap(), Vec::<String>::new());
    assert_eq!(book.get(ID).unwrap().waiting().count(), 2);
    assert_eq!(answer(&mut book, 0, "A").unwrap(), ["A", "B"]);
    assert_eq!(answer(&mut book, 0, "C").unwrap(), ["C"]);
    assert_eq!(book.get(ID).unwrap().state(), ConversationState::Answered);
}

#[test]
fn nothing_is_answered_twice() {
    let mut book = Book::new(true);
    hear(&mut book, "a");
    answer(&mut book, 1, "A").unwrap();
    assert!(
        matches!(answer(&mut book, 1, "again"), Err(Refused::AnsweredAlready(m)) if m.raw == b"A")
    );
    assert_eq!(answer(&mut book, 0, "more"), Err(Refused::NothingWaits));
    assert_eq!(answer(&mut book, 99, "x"), Err(Refused::NoSuchMessage));
}

#[test]
fn an_answer_on_its_way_keeps_others_out_and_goes_to_nobody() {
    let mut book = Book::new(true);
    hear(&mut book, "a");
    hear(&mut book, "b");
    let first = reserve(&mut book, 1, "A").unwrap();
    let busy = Err(Refused::Answering("ann".into()));
    assert_eq!(answer(&mut book, 1, "again"), busy);
    // For whoever names none it is the next one's turn, whose answer is held.
    assert_eq!(answer(&mut book, 0, "B").unwrap(), Vec::<String>::new());
    assert_eq!(answer(&mut book, 0, "C"), busy);
    assert_eq!(book.get(ID).unwrap().waiting().count(), 1);
    assert_eq!(texts(book.settle(&first, true)), ["A", "B"]);
}

#[test]
fn an_answer_that_is_not_kept_leaves_its_message_waiting() {
    let mut book = Book::new(true);
    hear(&mut book, "a");
    let lost = reserve(&mut book, 0, "A").unwrap();
    assert_eq!(book.settle(&lost, false).ready, []);
    assert_eq!(answer(&mut book, 0, "B").unwrap(), ["B"]);
    // That of the listener itself goes out in any case.
    hear(&mut book, "b");
    let unattended = Message {
        author: Author::Unattended,
        ..reply(ID, "nobody")
    };
    let unattended = book.reserve(ID, 0, unattended, Instant::now()).unwrap();
    assert_eq!(texts(book.settle(&unattended, false)), ["nobody"]);
    assert_eq!(book.get(ID).unwrap().state(), ConversationState::Answered);
}

#[test]
fn nobody_knows_of_a_message_that_is_not_kept_and_it_is_answered_at_its_time() {
    let mut book = Book::new(true);
    let Heard::Said(said) = book.hear(ID, peer(), b"a", now()) else {
        panic!("not heard");
    };
    assert!(book.get(ID).is_none() && book.next_waiting().is_none());
    assert_eq!(answer(&mut book, 0, "A"), Err(Refused::NoConversation));
    assert_eq!(book.kept(&said, false), None);
    assert!(book.get(ID).is_none());
    assert_eq!(book.overdue(Instant::now(), None), [(ID, 1, false)]);
    assert!(hear(&mut book, "b"));
    assert_eq!(book.get(ID).unwrap().waiting().count(), 1);
    assert_eq!(answer(&mut book, 1, "A"), Err(Refused::NothingWaits));
    // The answer to the later one waits for that of the unseen one.
    assert_eq!(answer(&mut book, 0, "B").unwrap(), Vec::<String>::new());
    let unattended = Message {
        author: Author::Unattended,
        ..reply(ID, "nobody")
    };
    let unattended = book.reserve(ID, 1, unattended, Instant::now()).unwrap();
    assert_eq!(texts(book.settle(&unattended, true)), ["nobody", "B"]);
}

#[test]
fn an_answer_that_is_stuck_gives_way() {
    let mut book = Book::new(true);
    hear(&mut book, "a");
    let stuck = reserve(&mut book, 0, "A").unwrap();
    let later = Instant::now() + Duration::from_secs(1);
    assert_eq!(book.overdue(later, None), []);
    assert_eq!(book.overdue(later, Some(later)), [(ID, 1, true)]);
    assert_eq!(texts(book.give_up(ID, 1, reply(ID, "nobody"))), ["nobody"]);
    assert!(book.settle(&stuck, true).late);
    assert_eq!(answer(&mut book, 0, "more"), Err(Refused::NothingWaits));
}

#[test]
fn free_pace_answers_at_once_and_unasked() {
    let mut book = Book::new(false);
    hear(&mut book, "a");
    hear(&mut book, "b");
    assert_eq!(answer(&mut book, 2, "B").unwrap(), ["B"]);
    let to_all = Message {
        author: Author::Broadcast,
        ..reply(ID, "all")
    };
    let to_all = book.reserve(ID, 0, to_all, Instant::now()).unwrap();
    assert_eq!(texts(book.settle(&to_all, true)), ["all"]);
    assert_eq!(answer(&mut book, 1, "A").unwrap(), ["A"]);
    assert_eq!(answer(&mut book, 0, "and?").unwrap(), ["and?"]);
}

#[test]
fn a_closed_conversation_takes_no_answer_and_keeps_what_was_said() {
    let mut book = Book::new(true);
    hear(&mut book, "a");
    hear(&mut book, "b");
    let under_way = reserve(&mut book, 1, "A").unwrap();
    assert_eq!(book.close(ID), Some(2));
    assert_eq!(book.close(ID), None);
    assert_eq!(answer(&mut book, 0, "B"), Err(Refused::Closed));
    assert!(book.settle(&under_way, true).late);
    assert_eq!(book.memory.said.len(), 3);
    assert!(book.overdue(Instant::now(), None).is_empty());
    assert_eq!(book.waiting_bytes, 0);
}

#[test]
fn what_arrives_at_the_disk_behind_its_peer_is_known() {
    let mut book = Book::new(true);
    let Heard::Said(said) = book.hear(ID, peer(), b"bye", now()) else {
        panic!("not heard");
    };
    close_of(&mut book, ID);
    assert_eq!(book.kept(&said, true), Some(Happened::Began));
    assert_eq!(book.get(ID).unwrap().last().unwrap().raw, b"bye");
    // And one that never arrives leaves nothing behind.
    let other = SessionId(2);
    let Heard::Said(said) = book.hear(other, peer(), b"bye", now()) else {
        panic!("not heard");
    };
    close_of(&mut book, other);
    assert_eq!(book.kept(&said, false), None);
    assert!(book.any(other).is_none() && book.take_forgotten().is_empty());
}

#[test]
fn what_waits_is_bounded() {
    let mut book = Book::new(true);
    let heard = (0..1000).filter(|_| hear(&mut book, "x")).count();
    assert_eq!(heard, MAX_PENDING.0);
    let (id, long) = (SessionId(2), vec![0; MAX_PENDING.1 + 1]);
    assert_eq!(book.hear(id, peer(), &long, now()), Heard::TooMany);
    assert!(book.any(id).is_none() && book.close(id).is_none());
}

#[test]
fn what_is_remembered_is_bounded_and_forgets_whole_conversations() {
    let mut book = Book::new(false);
    for id in (0..20_000).map(SessionId) {
        assert!(hear_of(&mut book, id, &[7; 1000]));
        close_of(&mut book, id);
    }
    assert!(book.memory.bytes <= REMEMBERED_BYTES);
    assert_eq!(book.entries.len(), book.memory.said.len());
    assert_eq!(book.take_forgotten().len(), 20_000 - book.entries.len());
}

#[test]
fn the_last_message_is_known_while_it_is_remembered() {
    let mut book = Book::new(false);
    let last = |book: &Book| {
        let last = book.get(ID).unwrap().last();
        last.map(|m| String::from_utf8(m.raw.clone()).unwrap())
    };
    hear(&mut book, "a");
    hear(&mut book, "b");
    assert_eq!(last(&book).as_deref(), Some("b"));
    answer(&mut book, 2, "B").unwrap();
    assert_eq!(last(&book).as_deref(), Some("B"));
    for id in (10..20_010).map(SessionId) {
        hear_of(&mut book, id, &[7; 1000]);
        close_of(&mut book, id);
    }
    // What waits is not forgotten, and is not the newest.
    assert_eq!(last(&book), None);
    assert_eq!(book.get(ID).unwrap().newest, 3);
    assert_eq!(book.get(ID).unwrap().waiting().count(), 1);
    assert!(book.is_forgetful(ID));
}

#[test]
fn an_answered_message_makes_room_for_the_next() {
    let mut book = Book::new(true);
    let long = "x".repeat(300_000);
    assert!(hear(&mut book, &long) && hear(&mut book, &long));
    for _ in 0..20 {
        answer(&mut book, 0, "y").unwrap();
        assert!(hear(&mut book, &long));
    }
    assert_eq!(book.waiting_bytes, 600_000);
    close_of(&mut book, ID);
    assert_eq!(book.waiting_bytes, 0);
}

#[test]
fn a_conversation_that_closes_after_it_was_forgotten_goes_too() {
    let mut book = Book::new(false);
    hear(&mut book, "a");
    answer(&mut book, 0, "A").unwrap();
    let other = SessionId(2);
    for _ in 0..100 {
        hear_of(&mut book, other, &[7; 500_000]);
        let again = reply(other, "B");
        let again = book.reserve(other, 0, again, Instant::now()).unwrap();
        book.settle(&again, true);
    }
    assert_eq!(book.get(ID).unwrap().remembered, 0);
    close_of(&mut book, ID);
    assert!(book.get(ID).is_none() && book.get(other).is_some());
}

#[test]
fn a_claim_keeps_others_out_until_it_lapses() {
    let mut book = Book::new(true);
    let (began, time) = now();
    let at = |seconds| {
        let later = Duration::from_secs(seconds);
        (began + later, time + later)
    };
    assert_eq!(
        book.claim(ID, "ann", false, at(0), LEASE),
        Err(ClaimError::NotFound)
    );
    hear(&mut book, "a");
    assert_eq!(book.claim(ID, "ann", false, at(0), LEASE), Ok(None));
    assert_eq!(book.get(ID).unwrap().state(), ConversationState::Claimed);
    assert_eq!(book.next_waiting(), None);
    let held = || ClaimError::Held {
        operator: "ann".into(),
        until: time + LEASE,
    };
    assert_eq!(book.claim(ID, "bob", false, at(1), LEASE), Err(held()));
    assert_eq!(book.may_answer(ID, "bob"), Err(held()));
    assert_eq!(book.may_answer(ID, "ann"), Ok(true));
    assert_eq!(book.release(ID, Some("bob")), Err(held()));
    // A sign of life holds it for as long again.
    assert_eq!(book.renew("ann", at(60), LEASE), [ID]);
    assert_eq!(book.lapse(at(179).0), []);
    assert_eq!(book.lapse(at(180).0), [ID]);
    assert_eq!(book.next_waiting(), Some(ID));
    assert_eq!(book.claim(ID, "bob", false, at(181), LEASE), Ok(None));
    let taken = book.claim(ID, "ann", true, at(182), LEASE);
    assert_eq!(taken, Ok(Some("bob".into())));
    assert_eq!(book.release(ID, None), Ok(true));
    assert_eq!(book.release(ID, Some("ann")), Ok(false));
    close_of(&mut book, ID);
    assert_eq!(
        book.claim(ID, "ann", false, at(183), LEASE),
        Err(ClaimError::Closed)
    );
}

#[test]
fn the_queue_is_by_the_oldest_wait_whatever_happens_to_it() {
    let mut book = Book::new(true);
    for id in (1..=3).map(SessionId) {
        hear_of(&mut book, id, b"first");
        hear_of(&mut book, id, b"second");
    }
    let [one, two, three] = [1, 2, 3].map(SessionId);
    assert_eq!(book.next_waiting(), Some(one));
    book.claim(one, "ann", false, now(), LEASE).unwrap();
    assert_eq!(book.next_waiting(), Some(two));
    // What comes back stands where its wait puts it.
    book.release(one, None).unwrap();
    assert_eq!(book.next_waiting(), Some(one));
    answer(&mut book, 1, "A").unwrap();
    assert_eq!(
        book.next_waiting(),
        Some(one),
        "its second message came before those of the others"
    );
    close_of(&mut book, two);
    answer(&mut book, 2, "B").unwrap();
    assert_eq!(book.next_waiting(), Some(three));
    assert_eq!(book.waiting(Instant::now()).0, 1);
}

#[test]
fn what_is_due_is_the_next_lapse_or_the_next_wait() {
    let mut book = Book::new(true);
    let then = Instant::now() + Duration::from_secs(1_000);
    assert_eq!(book.due(LEASE, then), None);
    let start = now();
    let Heard::Said(said) = book.hear(ID, peer(), b"a", start) else {
        panic!("not heard");
    };
    book.kept(&said, true);
    assert_eq!(book.due(LEASE, then), Some(start.0 + LEASE));
    book.claim(ID, "ann", false, start, LEASE / 2).unwrap();
    assert_eq!(book.due(LEASE, then), Some(start.0 + LEASE / 2));
    book.release(ID, None).unwrap();
    let answer = reserve(&mut book, 0, "A").unwrap();
    assert_eq!(book.due(LEASE, then), Some(then));
    book.settle(&answer, true);
    assert_eq!(book.due(LEASE, then), None);
}

#[test]
fn a_muted_peer_is_not_heard() {
    let mut book = Book::new(true);
    hear(&mut book, "a");
    assert_eq!(book.mute(ID, true), Ok(true));
    assert_eq!(book.mute(ID, true), Ok(false));
    let waits = Heard::Muted { waits: true };
    assert_eq!(book.hear(ID, peer(), b"b", now()), waits);
    assert_eq!(book.mute(ID, false), Ok(true));
    assert!(hear(&mut book, "c"));
    assert_eq!(book.get(ID).unwrap().waiting().count(), 2);
    // Its client waits for three answers, of which an operator gives two.
    assert_eq!(book.owed(ID), [1, 2, 3]);
    assert!(!book.is_discarded(ID, 1) && book.is_discarded(ID, 2));
    assert_eq!(answer(&mut book, 0, "A").unwrap(), ["A"]);
    assert_eq!(answer(&mut book, 0, "C").unwrap(), Vec::<String>::new());
    let overdue = book.overdue(Instant::now(), None);
    assert_eq!(overdue, [(ID, 2, false)]);
    let released = book.give_up(ID, 2, reply(ID, "nobody"));
    let raw: Vec<_> = released.ready.iter().map(|m| m.raw.clone()).collect();
    assert_eq!(raw, [&b"nobody"[..], b"C"]);
    assert!(!book.is_discarded(ID, 2) && book.owed(ID).is_empty());
}

#[test]
fn a_muted_peer_that_expects_nothing_is_owed_nothing() {
    let mut book = Book::new(false);
    hear(&mut book, "a");
    book.mute(ID, true).unwrap();
    let heard = book.hear(ID, peer(), b"b", now());
    assert_eq!(heard, Heard::Muted { waits: false });
    assert_eq!(book.owed(ID), [1]);
}

#[test]
fn what_waited_in_a_former_process_waits_as_it_did() {
    let line = |sequence, author, in_reply_to| Message {
        sequence,
        author,
        in_reply_to,
        ..reply(ID, &sequence.to_string())
    };
    let lines = vec![
        line(4, Author::Peer, 0),
        line(5, Author::Peer, 0),
        line(6, Author::Operator, 5),
        line(7, Author::Peer, 0),
    ];
    let mut book = Book::new(true);
    book.revive(ID, Entry::new(peer()), lines.clone(), |_| Instant::now());
    assert_eq!(book.owed(ID), [4, 5, 7]);
    assert_eq!(book.get(ID).unwrap().waiting().count(), 2);
    // Its sequence goes on, and the answer that was held still is.
    assert_eq!(answer(&mut book, 0, "A").unwrap(), ["A", "6"]);
    assert_eq!(book.get(ID).unwrap().last_sequence, 8);
    // Where the peer is gone nothing waits.
    let mut gone = Book::new(true);
    let mut closed = Entry::new(peer());
    closed.open = false;
    gone.revive(ID, closed, lines, |_| Instant::now());
    assert_eq!(gone.owed(ID), [0; 0]);
    assert_eq!(gone.get(ID).unwrap().state(), ConversationState::Closed);
    assert_eq!(gone.get(ID).unwrap().last().unwrap().sequence, 7);
}

/// What may happen to a few conversations.
#[derive(Debug, Clone)]
enum Step {
    Hear(u128),
    Claim(u128, u8, bool),
    ClaimNext(u8),
    Release(u128),
    Reply(u128, u8),
    Lapse,
    Close(u128),
}

fn step() -> impl Strategy<Value = Step> {
    let (id, operator) = (0..4u128, 0..3u8);
    prop_oneof![
        4 => id.clone().prop_map(Step::Hear),
        2 => (id.clone(), operator.clone(), any::<bool>()).prop_map(|(i, o, f)| Step::Claim(i, o, f)),
        3 => operator.clone().prop_map(Step::ClaimNext),
        1 => id.clone().prop_map(Step::Release),
        4 => (id.clone(), operator).prop_map(|(i, o)| Step::Reply(i, o)),
        1 => Just(Step::Lapse),
        1 => id.prop_map(Step::Close),
    ]
}

proptest! {
    #[test]
    fn in_lockstep_answers_leave_one_each_and_in_order(order in Just((1u64..=12).collect::<Vec<_>>()).prop_shuffle()) {
        let mut book = Book::new(true);
        let mut sequences = Vec::new();
        for i in 0..order.len() {
            hear(&mut book, &i.to_string());
            sequences.push(book.get(ID).unwrap().last_sequence);
        }
        let mut left = Vec::new();
        for place in &order {
            let sequence = sequences[*place as usize - 1];
            left.extend(answer(&mut book, sequence, &place.to_string()).unwrap());
        }
        let want: Vec<_> = (1..=order.len()).map(|i| i.to_string()).collect();
        prop_assert_eq!(left, want);
    }

    /// Answers reach the disk in any order, or do not: what leaves is in the order of the questions.
    #[test]
    fn however_the_disk_fares_answers_leave_in_order(fates in prop::collection::vec((any::<bool>(), 0..100usize), 1..40)) {
        let mut book = Book::new(true);
        let (mut under_way, mut left) = (Vec::new(), Vec::new());
        for (kept, pick) in &fates {
            hear(&mut book, "?");
            under_way.extend(reserve(&mut book, 0, "!"));
            let done = under_way.swap_remove(pick % under_way.len());
            left.extend(book.settle(&done, *kept).ready);
        }
        for done in under_way {
            left.extend(book.settle(&done, true).ready);
        }
        prop_assert!(left.windows(2).all(|two| two[0].in_reply_to < two[1].in_reply_to));
        let owed = book.owed(ID).len();
        prop_assert_eq!(left.len() + owed, fates.len());
    }

    #[test]
    fn the_clocks_agree_with_the_conversations(steps in prop::collection::vec(step(), 0..120)) {
        let mut book = Book::new(true);
        let start = now();
        for (n, step) in steps.into_iter().enumerate() {
            let later = Duration::from_secs(n as u64);
            let now = (start.0 + later, start.1 + later);
            match step {
                Step::Hear(id) => {
                    if let Heard::Said(said) = book.hear(SessionId(id), peer(), b"?", now) {
                        book.kept(&said, true);
                    }
                }
                Step::Claim(id, operator, force) => {
                    let _ = book.claim(SessionId(id), &operator.to_string(), force, now, LEASE / 10);
                }
                Step::ClaimNext(operator) => {
                    if let Some(id) = book.next_waiting() {
                        book.claim(id, &operator.to_string(), false, now, LEASE / 10).unwrap();
                    }
                }
                Step::Release(id) => {
                    let _ = book.release(SessionId(id), None);
                }
                Step::Reply(id, operator) => {
                    let id = SessionId(id);
                    if book.may_answer(id, &operator.to_string()).is_ok()
                        && let Ok(answer) = book.reserve(id, 0, reply(id, "!"), now.0)
                    {
                        book.settle(&answer, true);
                    }
                }
                Step::Lapse => {
                    book.lapse(now.0);
                }
                Step::Close(id) => {
                    book.close(SessionId(id));
                }
            }
            let open = || book.entries.iter().filter(|(_, e)| e.open);
            let first = open().filter(|(_, e)| e.claim.is_none());
            let first = first.filter_map(|(id, e)| Some((e.waiting().next()?.since, *id)));
            prop_assert_eq!(book.next_waiting(), first.min().map(|(_, id)| id));
            let waiting = open().filter(|(_, e)| e.waiting().next().is_some()).count();
            prop_assert_eq!(book.waiting(now.0).0, waiting);
            let lapse = open().filter_map(|(_, e)| Some(e.claim.as_ref()?.until.0)).min();
            let wait = open().filter_map(|(_, e)| Some(e.waiting().next()?.since + LEASE)).min();
            prop_assert_eq!(book.due(LEASE, now.0), lapse.into_iter().chain(wait).min());
        }
    }
}
