//! Bans: networks that are kept away from a listener, or from all, on disk before anybody is told that they are.
//!
//! One change at a time, so that what is on disk and what doors obey came about in the same order. A ban goes with its
//! listener: another one of the name begins without.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{info, warn};

use super::{Error, ListenerName, Supervisor};
use crate::net::{Ask, Bans, CloseReason, Networks, Session, lock};
use crate::store::{Ban, BanKey, Store};

/// Each door looks at all of them.
const MOST_BANS: usize = 10_000;

/// Every ban there is, with the way to the disk.
pub(super) struct BanBook {
    store: Store,
    /// One change at a time.
    turns: Semaphore,
    page: Mutex<Page>,
}

/// Bans as they are listed, and as doors obey them. Those that have ended stay until the next change.
#[derive(Default)]
struct Page {
    standing: BTreeMap<BanKey, Ban>,
    all: Arc<Networks>,
    own: BTreeMap<String, Arc<Networks>>,
}

impl BanBook {
    pub(super) fn new(store: Store, kept: Vec<Ban>) -> Self {
        let mut page = Page::default();
        kept.into_iter().for_each(|ban| page.insert(ban));
        Self {
            store,
            turns: Semaphore::const_new(1),
            page: Mutex::new(page),
        }
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        lock(&self.page)
    }

    /// What the doors of a listener obey.
    pub(super) fn of(&self, listener: &ListenerName) -> Bans {
        self.page().of(listener)
    }
}

impl Page {
    fn of(&self, listener: &ListenerName) -> Bans {
        Bans {
            all: self.all.clone(),
            own: self.own.get(listener.as_str()).cloned().unwrap_or_default(),
        }
    }

    fn networks(&mut self, listener: Option<&str>) -> &mut Networks {
        let networks = match listener {
            None => &mut self.all,
            Some(name) => self.own.entry(name.to_owned()).or_default(),
        };
        Arc::make_mut(networks)
    }

    fn insert(&mut self, ban: Ban) {
        self.networks(ban.listener.as_deref())
            .insert(ban.network, ban.until);
        self.standing.insert(ban.key(), ban);
    }

    fn remove(&mut self, key: &BanKey) {
        if self.standing.remove(key).is_some() {
            self.networks(key.0.as_deref()).remove(&key.1);
        }
    }

    /// Those that have ended.
    fn lapsed(&self, now: SystemTime) -> Vec<BanKey> {
        let over = self.standing.values().filter(|ban| !stands(ban, now));
        over.map(Ban::key).collect()
    }

    /// Those of one listener.
    fn own(&self, listener: &str) -> Vec<BanKey> {
        let own = self.standing.keys();
        own.filter(|(name, _)| name.as_deref() == Some(listener))
            .cloned()
            .collect()
    }
}

fn stands(ban: &Ban, now: SystemTime) -> bool {
    ban.until.is_none_or(|until| now < until)
}

impl Supervisor {
    /// Keeps a network away, instead of what was said of the same network before. Resolves once it is on disk and every
    /// door obeys it.
    ///
    /// # Errors
    /// No such listener, as many bans as there may be, or a store that did not take it. Nothing has changed then.
    pub async fn ban(&self, ban: Ban) -> Result<(), Error> {
        let _turn = self.turn_for_bans().await?;
        self.known(ban.listener.as_deref())?;
        let lapsed = {
            let page = self.0.bans.page();
            let lapsed = page.lapsed(SystemTime::now());
            let is_new = !page.standing.contains_key(&ban.key());
            if is_new && page.standing.len() - lapsed.len() >= MOST_BANS {
                return Err(Error::TooManyBans(MOST_BANS));
            }
            lapsed
        };
        self.change_bans(lapsed, Some(ban)).await
    }

    /// Lifts a ban; one that does not stand is lifted already.
    ///
    /// # Errors
    /// No such listener, or a store that did not take it. Nothing has changed then.
    pub async fn unban(&self, key: BanKey) -> Result<(), Error> {
        let _turn = self.turn_for_bans().await?;
        self.known(key.0.as_deref())?;
        let lifted = {
            let page = self.0.bans.page();
            let mut lifted = page.lapsed(SystemTime::now());
            if page.standing.contains_key(&key) && !lifted.contains(&key) {
                lifted.push(key);
            }
            lifted
        };
        if lifted.is_empty() {
            return Ok(());
        }
        self.change_bans(lifted, None).await
    }

    /// Puts a change on disk, then has every door obey it. The caller's turn lasts until then.
    async fn change_bans(&self, lift: Vec<BanKey>, put: Option<Ban>) -> Result<(), Error> {
        let bans = &self.0.bans;
        let kept = bans
            .store
            .write_bans(lift.clone(), put.clone().into_iter().collect());
        kept.await.map_err(Error::NotKept)?;
        let listeners = self.lock();
        let mut page = bans.page();
        lift.iter().for_each(|key| page.remove(key));
        let mut gone = None;
        match put {
            Some(ban) if !is_there(&listeners, ban.listener.as_deref()) => gone = Some(ban),
            Some(ban) => page.insert(ban),
            None => {}
        }
        for (name, listener) in listeners.iter() {
            let bans = page.of(name);
            for running in listener.runs() {
                running.door.set_bans(bans.clone());
            }
        }
        drop(page);
        drop(listeners);
        match gone {
            None => Ok(()),
            // It was deleted meanwhile.
            Some(ban) => {
                self.take_off_disk(vec![ban.key()]);
                Err(Error::NoListener(ban.listener.unwrap_or_default()))
            }
        }
    }

    /// Bans made for one listener, or all that there are, behind `after`: at most `limit`.
    ///
    /// # Errors
    /// No such listener.
    pub fn bans(
        &self,
        listener: Option<&str>,
        after: Option<BanKey>,
        limit: usize,
    ) -> Result<Vec<Ban>, Error> {
        self.known(listener)?;
        let now = SystemTime::now();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = self.0.bans.page();
        let behind = page.standing.range((from, Bound::Unbounded));
        let asked = behind
            .map(|(_, ban)| ban)
            .filter(|ban| listener.is_none() || ban.listener.as_deref() == listener)
            .filter(|ban| stands(ban, now));
        Ok(asked.take(limit).cloned().collect())
    }

    /// Closes the sessions that a ban would have kept away, those too that may finish what they owe: how many.
    pub fn close_banned(&self, ban: &Ban) -> usize {
        let covered = |session: &Session| ban.network.contains(&session.peer.ip());
        let visits = self.visits(ban.listener.as_deref(), covered);
        // Of a listener that has just been deleted there are none to close.
        let visits = visits.unwrap_or_default();
        let why = ban.reason.as_str().into();
        for visit in &visits {
            visit.door.note(&visit.session, &why);
            visit
                .door
                .ask(&visit.session, Ask::Cut(CloseReason::Denied));
        }
        visits.len()
    }

    /// Drops the bans of a listener that goes. Called under the lock of the listeners.
    pub(super) fn forget_bans(&self, listener: &ListenerName) {
        let mut page = self.0.bans.page();
        let own = page.own(listener.as_str());
        own.iter().for_each(|key| page.remove(key));
        page.own.remove(listener.as_str());
        drop(page);
        self.take_off_disk(own);
    }

    /// Drops the bans of listeners that are not there, at the start: those went while the process did not run.
    pub fn forget_bans_of_none(&self) {
        let listeners = self.lock();
        let page = self.0.bans.page();
        let gone: Vec<ListenerName> = page
            .own
            .keys()
            .filter(|name| !is_there(&listeners, Some(name)))
            .filter_map(|name| name.parse().ok())
            .collect();
        drop(page);
        for name in gone {
            info!(listener = %name, "its bans go: there is no such listener any more");
            self.forget_bans(&name);
        }
    }

    fn take_off_disk(&self, mut keys: Vec<BanKey>) {
        if keys.is_empty() {
            return;
        }
        let supervisor = self.clone();
        self.0.tasks.spawn(async move {
            let bans = &supervisor.0.bans;
            let _turn = bans.turns.acquire().await;
            // What another listener of the name was given meanwhile stays.
            keys.retain(|key| !bans.page().standing.contains_key(key));
            let lifted = bans.store.write_bans(keys, Vec::new());
            match supervisor.0.cut.run_until_cancelled(lifted).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    warn!(%error, "bans of a listener that is gone are still on disk");
                }
                None => warn!("bans of a listener that is gone may still be on disk"),
            }
        });
    }

    /// The right to change bans; none once the process is on its way out.
    async fn turn_for_bans(&self) -> Result<SemaphorePermit<'_>, Error> {
        match self.0.bans.turns.acquire().await {
            Ok(turn) if !self.is_stopping() => Ok(turn),
            _ => Err(Error::Stopping),
        }
    }

    fn known(&self, listener: Option<&str>) -> Result<(), Error> {
        match listener {
            Some(name) if !is_there(&self.lock(), listener) => {
                Err(Error::NoListener(name.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

type Listeners = BTreeMap<ListenerName, super::listener::Listener>;

/// Whether there is such a listener that is not on its way out; all of them are there.
fn is_there(listeners: &Listeners, name: Option<&str>) -> bool {
    let Some(name) = name else {
        return true;
    };
    let name = name.parse::<ListenerName>().ok();
    name.and_then(|name| listeners.get(&name))
        .is_some_and(|listener| !listener.deleting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Kept, Options};
    use crate::supervisor::Parts;
    use crate::telemetry::Telemetry;
    use std::path::Path;
    use std::time::Duration;

    fn open(path: &Path) -> (Supervisor, Store, Vec<Ban>) {
        let options = Options {
            path: path.to_owned(),
            retention: Duration::from_secs(86_400),
            max_bytes: 64 << 20,
        };
        let (store, Kept { bans, .. }) = Store::open(&options).unwrap();
        let supervisor = with(store.clone(), bans.clone());
        (supervisor, store, bans)
    }

    fn with(store: Store, bans: Vec<Ban>) -> Supervisor {
        Supervisor::new(Parts {
            node: "local".to_owned(),
            grace: Duration::ZERO,
            most_sessions: 9,
            telemetry: Telemetry::quiet(),
            store,
            bans,
        })
    }

    fn ban(last: u32, until: Option<SystemTime>) -> Ban {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + last);
        Ban {
            listener: None,
            network: std::net::IpAddr::from(address).into(),
            until,
            reason: String::new(),
            actor: String::new(),
        }
    }

    #[tokio::test]
    async fn as_many_stand_as_may_and_those_that_have_ended_make_room() {
        let (_, store, _) = open(Path::new(":memory:"));
        let over = SystemTime::now() - Duration::from_secs(1);
        let most = u32::try_from(MOST_BANS).unwrap();
        let full = (0..most).map(|n| ban(n, None)).collect();
        let supervisor = with(store.clone(), full);
        let refused = supervisor.ban(ban(most, None)).await.unwrap_err();
        assert!(matches!(refused, Error::TooManyBans(MOST_BANS)));
        supervisor.ban(ban(0, Some(over))).await.unwrap();
        supervisor.ban(ban(most, None)).await.unwrap();
        let listed = supervisor.bans(None, None, usize::MAX).unwrap();
        assert!(listed.len() == MOST_BANS && !listed.contains(&ban(0, Some(over))));
        assert_eq!(supervisor.0.bans.page().standing.len(), MOST_BANS);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn changes_of_one_network_at_once_end_alike_in_memory_and_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("s.db");
        let (supervisor, store, _) = open(&file);
        let changes: Vec<_> = (1..200_u64)
            .map(|n| {
                let supervisor = supervisor.clone();
                tokio::spawn(async move {
                    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000 + n);
                    let ban = ban(u32::try_from(n % 3).unwrap(), Some(until));
                    if n % 7 == 0 {
                        supervisor.unban(ban.key()).await.unwrap();
                    } else {
                        supervisor.ban(ban).await.unwrap();
                    }
                })
            })
            .collect();
        for change in changes {
            change.await.unwrap();
        }
        let mut listed = supervisor.bans(None, None, usize::MAX).unwrap();
        assert!(store.close(Duration::from_secs(10)).await);
        let refused = supervisor.ban(ban(9, None)).await.unwrap_err();
        assert!(matches!(refused, Error::NotKept(_)));
        assert_eq!(supervisor.bans(None, None, usize::MAX).unwrap(), listed);
        let (_, store, mut kept) = open(&file);
        kept.sort_by_key(Ban::key);
        listed.sort_by_key(Ban::key);
        assert_eq!(kept, listed);
        store.close(Duration::from_secs(10)).await;
    }

    #[tokio::test]
    async fn nothing_is_banned_on_the_way_out() {
        let (supervisor, ..) = open(Path::new(":memory:"));
        supervisor.begin_stopping();
        let refused = supervisor.ban(ban(1, None)).await.unwrap_err();
        assert!(matches!(refused, Error::Stopping));
    }
}
