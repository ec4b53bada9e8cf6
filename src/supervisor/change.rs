//! What changes listeners, in two halves: [`prepare`](Supervisor::prepare) checks everything and binds, and changes
//! nothing; [`commit`](Supervisor::commit) cannot fail. Between them the change is put on disk, so that what was
//! answered outlives the process and what was refused has left no trace.
//!
//! One caller at a time: whoever owns the configuration. Only the world (a drain that ends, a retry) comes between.

use std::time::Duration;

use super::asked::Asked;
use super::bind;
use super::bring::End;
use super::commands::step;
use super::lifecycle::{Action, Desired, Input, State};
use super::listener::{Listener, Target};
use super::preview::{Difference, Held, overlaps, released};
use super::{Error, ListenerName, Supervisor};
use crate::net::Bound;

/// What is to become of one listener.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which; there need be none of the name yet.
    pub name: ListenerName,
    /// What it becomes.
    pub to: Becomes,
    /// How long sessions that have to leave may take; unset for the process's own.
    pub grace: Option<Duration>,
    /// Why, for whoever looks at the drain.
    pub reason: String,
}

/// What a listener becomes.
#[derive(Debug, Clone)]
pub enum Becomes {
    /// This; made when there is none of the name.
    Defined {
        /// What it should be.
        target: Box<Target>,
        /// What somebody asked for, and waits for: that it cannot be is then a refusal, whatever else has changed.
        asked: Option<Asked>,
    },
    /// Nothing.
    Gone {
        /// Also when it is not stopped.
        force: bool,
    },
}

/// Changes that are checked, with the sockets that they need. Dropping it gives them back.
#[derive(Debug)]
pub struct Prepared(Vec<Step>);

#[derive(Debug)]
pub(super) struct Step {
    pub(super) change: Change,
    pub(super) socket: Socket,
}

/// How long a change waits for doors to open or shut.
const DOOR_PATIENCE: Duration = Duration::from_secs(2);

/// Where a listener's socket comes from.
#[derive(Debug)]
pub(super) enum Socket {
    /// It needs none, or keeps its own.
    None,
    /// Bound already.
    Bound(Bound),
    /// Bound once another listener of ours has let go of the address.
    Later,
}

impl Supervisor {
    /// Checks changes and binds what they need. Nothing has changed afterwards.
    ///
    /// # Errors
    /// The first refusal of each listener: its state, or its address. None at all when the process is on its way out.
    pub fn prepare(&self, changes: Vec<Change>) -> Result<Prepared, Vec<(ListenerName, Error)>> {
        if self.is_stopping() {
            return Err(Vec::new());
        }
        let listeners = self.lock();
        let released: Vec<_> = changes
            .iter()
            .filter_map(|change| released(change, listeners.get(&change.name)?))
            .collect();
        let (mut steps, mut refused) = (Vec::new(), Vec::new());
        for change in changes {
            match self.socket(&change, listeners.get(&change.name), &released) {
                Ok(socket) => steps.push(Step { change, socket }),
                Err(error) => refused.push((change.name, error)),
            }
        }
        if refused.is_empty() {
            Ok(Prepared(steps))
        } else {
            Err(refused)
        }
    }

    /// Checks one change against the listener as it is, and binds for it.
    fn socket(
        &self,
        change: &Change,
        listener: Option<&Listener>,
        released: &[Held],
    ) -> Result<Socket, Error> {
        let listener = listener.filter(|l| !l.deleting);
        let (target, asked) = match (&change.to, listener) {
            (Becomes::Gone { .. }, None) => return Ok(Socket::None),
            (Becomes::Gone { force }, Some(listener)) => {
                step(listener, Input::Delete { force: *force })?;
                return Ok(Socket::None);
            }
            (Becomes::Defined { target, asked }, _) => (target, asked.as_ref()),
        };
        let desired = target.spec.desired_state;
        let mut vital = true;
        if let Some(listener) = listener {
            let (_, action) = step(listener, Asked::input(asked, desired))?;
            let rebind = Difference::between(&listener.spec, &target.spec).rebind;
            if action != Action::Bind && !rebind {
                return Ok(Socket::None);
            }
            let waits = asked == Some(&Asked::Start);
            vital = listener.life.state != State::Failed || waits || rebind;
        }
        if desired == Desired::Stopped {
            return Ok(Socket::None);
        }
        let bounds = bind::bounds(&target.spec, self.0.most_sessions);
        let wanted = (target.spec.protocol.transport(), target.spec.bind);
        match bind::bind(&change.name, &target.spec, &bounds) {
            Ok(bound) => Ok(Socket::Bound(bound)),
            Err(error) if error.is_in_use() && overlaps(wanted, released) => Ok(Socket::Later),
            Err(error) if vital => Err(Error::Bind(error)),
            // It goes on trying, as before.
            Err(_) => Ok(Socket::None),
        }
    }

    /// Makes the changes. Resolves once all doors are as they should be; sessions that have to leave may take longer,
    /// see [`settled`](Supervisor::settled).
    pub async fn commit(&self, prepared: Prepared) {
        let leaving = self.open_up(&prepared.0);
        if prepared.0.iter().any(|s| matches!(s.socket, Socket::Later)) {
            for running in leaving {
                running.address_let_go().await;
            }
        }
        let (mut doors, mut names) = (Vec::new(), Vec::new());
        {
            let mut listeners = self.lock();
            for Step { change, socket } in prepared.0 {
                let Becomes::Defined { target, asked } = change.to else {
                    continue;
                };
                let entry = listeners.remove(&change.name);
                let (name, reason) = (change.name.clone(), change.reason);
                let (mut listener, rebind) = self.become_target(entry, change.name, *target);
                let end = End {
                    asked,
                    grace: change.grace,
                    reason: &reason,
                };
                self.bring_about(&mut listener, rebind, socket, &end);
                doors.extend(listener.running.clone());
                names.push(name.clone());
                listeners.insert(name, listener);
            }
        }
        self.announce();
        let turned = async {
            for running in doors {
                running.arranged().await;
            }
        };
        // One that cannot open goes on trying, and says so.
        let _ = tokio::time::timeout(DOOR_PATIENCE, turned).await;
        self.caged(Some(&names)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, Origin};
    use crate::net::{Limits, PauseMode};
    use crate::protocol::Protocol;
    use crate::protocol::ack::Settings;
    use crate::store::{Options, Store};
    use crate::supervisor::{Drain, Parts, Spec};
    use crate::telemetry::Telemetry;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn supervisor() -> Supervisor {
        let options = Options {
            path: ":memory:".into(),
            retention: Duration::from_secs(86_400),
            max_bytes: 64 << 20,
        };
        Supervisor::new(Parts {
            node: "local".to_owned(),
            grace: Duration::ZERO,
            most_sessions: 9,
            telemetry: Telemetry::quiet(),
            store: Store::open(&options).unwrap().0,
            bans: Vec::new(),
        })
    }

    fn change(desired: Desired, asked: Option<Asked>) -> Vec<Change> {
        let spec = Spec {
            bind: "127.0.0.1:0".parse().unwrap(),
            desired_state: desired,
            pause_mode: PauseMode::default(),
            resume_time: None,
            display_name: String::new(),
            labels: BTreeMap::new(),
            limits: Limits::default(),
            protocol: Protocol::Ack(Settings::default()),
        };
        let target = Target {
            spec,
            origin: Arc::new(Origin::whole(Layer::Runtime, "test")),
            why: String::new(),
            identity: None,
            updated: None,
        };
        vec![Change {
            name: "ack".parse().unwrap(),
            to: Becomes::Defined {
                target: Box::new(target),
                asked,
            },
            grace: None,
            reason: String::new(),
        }]
    }

    async fn becomes(supervisor: &Supervisor, state: State) {
        let mut changes = supervisor.changes();
        let is = |_: &u64| supervisor.get("ack").unwrap().life.state == state;
        let wait = tokio::time::timeout(Duration::from_secs(10), changes.wait_for(is));
        wait.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_drain_that_ends_while_it_is_taken_back_does_not_take_the_listener_with_it() {
        for (asked, desired) in [
            (Some(Asked::Resume), Desired::Active),
            (None, Desired::Paused),
        ] {
            let supervisor = supervisor();
            let prepared = supervisor.prepare(change(Desired::Active, None)).unwrap();
            supervisor.commit(prepared).await;
            let address = supervisor.get("ack").unwrap().bound.unwrap();
            let peer = tokio::net::TcpStream::connect(address).await.unwrap();
            while supervisor.get("ack").unwrap().status.active_sessions == 0 {
                tokio::task::yield_now().await;
            }
            let drain = Drain {
                deadline: Duration::from_secs(60),
                pace_over: None,
                idle_first: false,
                mode: PauseMode::Queue,
            };
            let drains = change(Desired::Stopped, Some(Asked::Drain(drain)));
            supervisor.commit(supervisor.prepare(drains).unwrap()).await;
            let taken_back = supervisor.prepare(change(desired, asked)).unwrap();
            drop(peer);
            becomes(&supervisor, State::Stopped).await;
            supervisor.commit(taken_back).await;
            let life = supervisor.get("ack").unwrap().life;
            assert_eq!(life.desired, desired);
            assert!(!life.reconciling(), "{life:?}");
        }
    }
}
