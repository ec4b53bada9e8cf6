//! Sessions that callers close: one, or many at a pace.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sessions::open;
use super::{Error, ListenerName, SessionView, Supervisor};
use crate::net::{Ask, CloseReason, Door, Pace, Session, SessionId};

/// A session that was open when it was looked at.
#[derive(Debug)]
pub struct Visit {
    pub(super) listener: ListenerName,
    pub(super) door: Arc<Door>,
    pub(super) session: Arc<Session>,
}

/// How sessions are closed.
#[derive(Debug, Clone)]
pub struct Closing {
    /// Unset they end at once; with one they may finish what they owe first and are then reset, and zero resets them
    /// now.
    pub grace: Option<Duration>,
    /// What the caller says of it; may be empty.
    pub why: Arc<str>,
}

impl Visit {
    /// Whether it is still open.
    pub fn is_there(&self) -> bool {
        self.door.session(self.session.id).is_some()
    }

    /// The session as it is now.
    pub fn view(&self) -> SessionView {
        SessionView::open(&self.listener, self.session.clone())
    }
}

impl Supervisor {
    /// Sessions of one listener, or of all, that are `wanted`, oldest first; those too that may still finish what they
    /// owe, and not those that are cut.
    ///
    /// # Errors
    /// No such listener.
    pub fn visits(
        &self,
        listener: Option<&str>,
        wanted: impl Fn(&Session) -> bool,
    ) -> Result<Vec<Visit>, Error> {
        let stays = |session: &Session| !matches!(session.asked(), Some(Ask::Cut(_)));
        let mut visits = Vec::new();
        for (listener, door) in self.doors(listener)? {
            door.sessions.each(|session| {
                if stays(session) && wanted(session) {
                    visits.push(Visit {
                        listener: listener.clone(),
                        door: door.clone(),
                        session: session.clone(),
                    });
                }
            });
        }
        visits.sort_by_key(|visit| visit.session.id);
        Ok(visits)
    }

    /// Closes a session. One that closed lately succeeds.
    ///
    /// # Errors
    /// No such session.
    pub fn close_session(&self, name: &str, closing: &Closing) -> Result<SessionView, Error> {
        let (listener, id) = self.locate(name)?;
        let found = self.find(&listener, |listener| open(listener, id))?;
        if let Some((door, session)) = found {
            self.close(&door, &session, closing);
        }
        self.session(name)
    }

    /// Closes sessions: together, or spread over a time. Does not wait for it: what is left when the process drains is
    /// the drain's.
    pub fn close_sessions(&self, visits: Vec<Visit>, over: Duration, closing: Closing) {
        if over.is_zero() {
            for visit in visits {
                self.close(&visit.door, &visit.session, &closing);
            }
            return;
        }
        let began = Instant::now();
        let seed = RandomState::new().hash_one(began);
        let pace = Pace::over(visits.len(), over, seed);
        let (supervisor, stopping) = (self.clone(), self.0.stopping.clone());
        self.0.tasks.spawn(async move {
            for (offset, visit) in pace.zip(visits) {
                let moment = tokio::time::sleep_until((began + offset).into());
                if stopping.run_until_cancelled(moment).await.is_none() {
                    return;
                }
                supervisor.close(&visit.door, &visit.session, &closing);
            }
        });
    }

    fn close(&self, door: &Arc<Door>, session: &Arc<Session>, closing: &Closing) {
        const KICKED: CloseReason = CloseReason::Kicked;
        door.note(session, &closing.why);
        match closing.grace {
            None => door.ask(session, Ask::Cut(KICKED)),
            Some(Duration::ZERO) => door.abort(session, KICKED),
            Some(grace) => {
                door.ask(session, Ask::Finish(KICKED));
                let (door, session) = (door.clone(), session.clone());
                let stopping = self.0.stopping.clone();
                self.0.tasks.spawn(async move {
                    // When the process stops, its drain sees to every session.
                    let outstayed = outstayed(&door, session.id, grace);
                    if stopping.run_until_cancelled(outstayed).await == Some(true) {
                        door.abort(&session, KICKED);
                    }
                });
            }
        }
    }
}

/// True when the session is still there after `grace`; false soon after it has gone.
async fn outstayed(door: &Door, id: SessionId, grace: Duration) -> bool {
    let mut left = grace;
    while !left.is_zero() && door.session(id).is_some() {
        let nap = left.min(Duration::from_secs(1));
        tokio::time::sleep(nap).await;
        left -= nap;
    }
    door.session(id).is_some()
}
