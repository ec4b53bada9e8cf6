//! The answers that are remembered, and the calls that are to be: by the id that each gave itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::super::status::{internal, invalid_field};
use crate::net::lock;
use crate::store::{Answer, Store};

/// How long an answer is remembered, how many are, and how many bytes of them: what anybody's ids
/// may cost.
const AGE: Duration = Duration::from_secs(24 * 60 * 60);
const MOST: usize = 10_000;
const MOST_BYTES: u64 = 16 << 20;

/// Of a small store answers take no more than a part, and one answer no more than a part of that.
const PART: u64 = 4;

/// What an answer takes besides its bytes.
const OVERHEAD: usize = 128;

/// A UUID has 36 characters.
const LONGEST_ID: usize = 64;

/// What was answered under a request id, and every mutation that is under way.
#[derive(Debug)]
pub struct Answers {
    known: Mutex<Known>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Known {
    given: HashMap<String, Given>,
    /// The ids of those that were answered, oldest first, and the bytes that each takes.
    order: BTreeMap<i64, (String, usize)>,
    bytes: usize,
    most_bytes: usize,
    /// The longest answer that is remembered as it was.
    longest: usize,
    last_stamp: i64,
}

#[derive(Debug)]
struct Given {
    fingerprint: i64,
    stamp: i64,
    said: Said,
}

#[derive(Debug, Clone)]
pub(super) enum Said {
    /// Its call is under way.
    Doing(Answered),
    /// Nothing, when a process died before it could, or when it was too long to be remembered.
    Done(Option<Vec<u8>>),
}

/// An answer's bytes, or the refusal.
pub(super) type Outcome = Result<Vec<u8>, Status>;

/// An outcome that is still to come.
pub(super) type Answered = watch::Receiver<Option<Outcome>>;

impl Answers {
    /// With those that were kept.
    pub fn new(kept: Vec<Answer>, store: &Store) -> Self {
        let most_bytes = MOST_BYTES.min(store.max_bytes() / PART);
        let most_bytes = usize::try_from(most_bytes).unwrap_or(usize::MAX);
        let mut known = Known {
            given: HashMap::new(),
            order: BTreeMap::new(),
            bytes: 0,
            most_bytes,
            longest: most_bytes / PART as usize,
            last_stamp: 0,
        };
        known.stamp();
        for answer in kept {
            known.last_stamp = known.last_stamp.max(answer.stamp);
            known.take_up(answer);
        }
        Self {
            known: Mutex::new(known),
            tasks: TaskTracker::new(),
        }
    }

    /// Tells when a call is made; no two are made at once.
    pub(super) fn stamp(&self) -> i64 {
        lock(&self.known).stamp()
    }

    /// Every mutation that is under way.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }
}

impl Known {
    /// Later than any before, whatever the clock does.
    fn stamp(&mut self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
        self.last_stamp = now.max(self.last_stamp.saturating_add(1));
        self.last_stamp
    }

    /// The stamp from which on nothing is too old.
    fn horizon(&self) -> i64 {
        let age = i64::try_from(AGE.as_nanos()).unwrap_or(i64::MAX);
        self.last_stamp.saturating_sub(age)
    }

    /// An answer that was given before.
    fn take_up(&mut self, answer: Answer) {
        let length = answer.answer.as_ref().map_or(0, Vec::len);
        let given = Given {
            fingerprint: answer.fingerprint,
            stamp: answer.stamp,
            said: Said::Done(answer.answer),
        };
        self.given.insert(answer.request_id.clone(), given);
        self.make_room(answer.stamp, answer.request_id, length);
    }

    /// What was said under an id, if that is still remembered.
    fn find(&mut self, id: &str, fingerprint: i64) -> Result<Option<Said>, Status> {
        let horizon = self.horizon();
        match self.given.get(id) {
            Some(given) if matches!(given.said, Said::Done(_)) && given.stamp < horizon => Ok(None),
            Some(given) if given.fingerprint == fingerprint => Ok(Some(given.said.clone())),
            Some(_) => {
                let rule = "another request was made under it; every request has one of its own";
                Err(invalid_field("REQUEST_ID_REUSED", "request_id", rule))
            }
            None => Ok(None),
        }
    }

    /// What is known under an id, if it is still what it was.
    fn of(&mut self, id: &str, stamp: i64) -> Option<&mut Given> {
        self.given.get_mut(id).filter(|given| given.stamp == stamp)
    }

    /// Gives an answer its place and lets go of those that are too old or too many. The first stamp that stays.
    fn make_room(&mut self, stamp: i64, id: String, length: usize) -> i64 {
        let size = length + id.len() + OVERHEAD;
        self.order.insert(stamp, (id, size));
        self.bytes += size;
        let horizon = self.horizon();
        while let Some((&stamp, (id, size))) = self.order.first_key_value() {
            if stamp >= horizon && self.bytes <= self.most_bytes && self.order.len() <= MOST {
                return stamp;
            }
            let (id, size) = (id.clone(), *size);
            self.order.remove(&stamp);
            self.bytes -= size;
            // Under the same id there may be a later one by now.
            if self.of(&id, stamp).is_some() {
                self.given.remove(&id);
            }
        }
        self.last_stamp
    }
}

/// The place of a call that is the first under its id.
pub(super) struct Place {
    answers: Arc<Answers>,
    id: String,
    fingerprint: i64,
    stamp: i64,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Place {
    /// Remembers an answer and gives it to all who wait; a refusal is given and not remembered: what was in the way may
    /// be gone.
    pub(super) async fn settle(mut self, outcome: Outcome, store: &Store) {
        if let Ok(answer) = &outcome {
            let longest = lock(&self.answers.known).longest;
            let fits = answer.len() <= longest;
            self.keep(fits.then(|| answer.clone()), store).await;
        }
        let _ = self.outcome.send(Some(outcome));
    }

    async fn keep(&mut self, answer: Option<Vec<u8>>, store: &Store) {
        let from = {
            let mut known = lock(&self.answers.known);
            let before = std::mem::replace(&mut self.stamp, known.stamp());
            if let Some(given) = known.of(&self.id, before) {
                given.stamp = self.stamp;
            }
            let length = answer.as_ref().map_or(0, Vec::len);
            known.make_room(self.stamp, self.id.clone(), length)
        };
        let row = Answer {
            request_id: self.id.clone(),
            fingerprint: self.fingerprint,
            stamp: self.stamp,
            answer: answer.clone(),
        };
        store.remember(row, from).await;
        if let Some(given) = lock(&self.answers.known).of(&self.id, self.stamp) {
            given.said = Said::Done(answer);
        }
    }
}

impl Drop for Place {
    /// What was refused, or broke off, is as if it had not been asked for.
    fn drop(&mut self) {
        let mut known = lock(&self.answers.known);
        let own = known.of(&self.id, self.stamp);
        if own.is_some_and(|given| matches!(given.said, Said::Doing(_))) {
            known.given.remove(&self.id);
        }
    }
}

impl Answers {
    /// What was said under an id, or the place of the first to say something, and where that will be.
    pub(super) fn turn(
        self: &Arc<Self>,
        id: &str,
        fingerprint: i64,
    ) -> Result<(Option<Place>, Said), Status> {
        if id.len() > LONGEST_ID {
            let rule = format!("it has at most {LONGEST_ID} characters; a UUID is usual");
            return Err(invalid_field("REQUEST_ID_INVALID", "request_id", rule));
        }
        let mut known = lock(&self.known);
        if let Some(said) = known.find(id, fingerprint)? {
            return Ok((None, said));
        }
        let (outcome, answered) = watch::channel(None);
        let (stamp, said) = (known.stamp(), Said::Doing(answered));
        let given = Given {
            fingerprint,
            stamp,
            said: said.clone(),
        };
        known.given.insert(id.to_owned(), given);
        let place = Place {
            answers: self.clone(),
            id: id.to_owned(),
            fingerprint,
            stamp,
            outcome,
        };
        Ok((Some(place), said))
    }
}

/// For the log: how is there already.
pub(super) const BROKE_OFF: &str = "a mutation broke off";

/// Waits for what the first call is answered.
pub(super) async fn outcome(mut answered: Answered) -> Outcome {
    let settled = answered.wait_for(Option::is_some).await;
    let settled = settled.ok().and_then(|outcome| outcome.clone());
    settled.unwrap_or_else(|| Err(internal(BROKE_OFF)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Options, Store};
    use tonic::Code;

    fn store(max_bytes: u64) -> Store {
        let options = Options {
            path: ":memory:".into(),
            retention: AGE,
            max_bytes,
        };
        Store::open(&options).unwrap().0
    }

    fn answers(store: &Store, kept: Vec<Answer>) -> Arc<Answers> {
        Arc::new(Answers::new(kept, store))
    }

    fn first(answers: &Arc<Answers>, id: &str) -> (Place, Answered) {
        match answers.turn(id, 1).unwrap() {
            (Some(place), Said::Doing(answered)) => (place, answered),
            _ => panic!("{id} is known"),
        }
    }

    fn said(answers: &Arc<Answers>, id: &str) -> Option<Vec<u8>> {
        match answers.turn(id, 1).unwrap() {
            (None, Said::Done(answer)) => answer,
            _ => None,
        }
    }

    #[tokio::test]
    async fn the_first_answer_is_given_again_to_the_same_request_alone() {
        let store = store(4 << 20);
        let answers = answers(&store, Vec::new());
        let (place, _) = first(&answers, "a");
        place.settle(Ok(b"done".to_vec()), &store).await;
        assert_eq!(said(&answers, "a"), Some(b"done".to_vec()));
        assert!(answers.turn("a", 2).is_err());
        assert!(answers.turn(&"x".repeat(65), 1).is_err());
    }

    #[tokio::test]
    async fn whoever_asks_meanwhile_waits_for_the_first() {
        let store = store(4 << 20);
        let answers = answers(&store, Vec::new());
        let (place, waits) = first(&answers, "a");
        let Ok((None, Said::Doing(second))) = answers.turn("a", 1) else {
            panic!("it is under way");
        };
        place.settle(Ok(b"done".to_vec()), &store).await;
        for answered in [waits, second] {
            assert_eq!(outcome(answered).await.unwrap(), b"done");
        }
    }

    #[tokio::test]
    async fn what_was_refused_or_broke_off_may_be_asked_again() {
        let store = store(4 << 20);
        let answers = answers(&store, Vec::new());
        let (place, waits) = first(&answers, "a");
        place.settle(Err(Status::aborted("no")), &store).await;
        assert_eq!(outcome(waits).await.unwrap_err().code(), Code::Aborted);
        let (place, waits) = first(&answers, "a");
        drop(place);
        assert_eq!(outcome(waits).await.unwrap_err().code(), Code::Internal);
        first(&answers, "a");
    }

    #[tokio::test]
    async fn the_oldest_go_when_there_are_too_many_or_they_are_too_long_or_too_old() {
        let store = store(4 << 20);
        let many = answers(&self::store(1 << 30), Vec::new());
        for n in 0..=MOST {
            let given = Answer {
                request_id: n.to_string(),
                fingerprint: 1,
                stamp: lock(&many.known).stamp(),
                answer: Some(Vec::new()),
            };
            lock(&many.known).take_up(given);
        }
        first(&many, "0");
        assert!(said(&many, "1").is_some());

        // A quarter of the store's 4 MiB, and none of more than a quarter of that.
        let long = answers(&store, Vec::new());
        for n in 0..6 {
            let (place, _) = first(&long, &n.to_string());
            place.settle(Ok(vec![7; 200 << 10]), &store).await;
        }
        first(&long, "0");
        assert!(said(&long, "1").is_some());
        let (place, _) = first(&long, "longer");
        place.settle(Ok(vec![7; 300 << 10]), &store).await;
        assert!(matches!(
            long.turn("longer", 1),
            Ok((None, Said::Done(None)))
        ));

        let yesterday = lock(&long.known).stamp() - 2 * AGE.as_nanos() as i64;
        let old = |id: &str, stamp| Answer {
            request_id: id.to_owned(),
            fingerprint: 1,
            stamp,
            answer: None,
        };
        let kept = answers(
            &store,
            vec![
                old("a", yesterday),
                old("b", yesterday + AGE.as_nanos() as i64 * 3 / 2),
            ],
        );
        first(&kept, "a");
        assert!(matches!(kept.turn("b", 1), Ok((None, Said::Done(None)))));
    }
}
