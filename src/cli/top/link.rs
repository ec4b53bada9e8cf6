//! The way to the service: what is read of it, again and again, and what is asked of it.
//!
//! One stream of measurements is the clock; with each of them the listeners are read, and a page of what is looked at.
//! Nothing here holds a key up: all of it arrives as news, through a bounded channel, and whoever does not take them
//! is given fewer.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tonic::Code;

use super::super::client::{Client, refused};
use super::super::exit::{Failure, UNAVAILABLE};
use super::super::spec::duration;
use super::super::watch::is_broken;
use super::act::{Act, Asked};
use super::figures;
use super::happening::{Happening, happenings};
use super::read::{Lists, Sample, Server, Wanted, lists, sample, server};
use crate::grpc::api;

/// News on their way.
const ON_THE_WAY: usize = 64;

/// How long before the first try after a break, and before the later ones at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// How long a stream may be silent beyond its interval.
const SILENCE: Duration = Duration::from_secs(10);

/// How often an act whose connection broke is tried; its request id keeps it from being done twice.
const TRIES: u32 = 3;

/// What is heard of the service.
#[derive(Debug)]
pub(super) enum News {
    /// It is there: what it is.
    Found(Box<Server>),
    /// All of it at one moment.
    Sample(Box<Sample>),
    /// What is looked at, read between two samples because something else was wanted.
    Lists(Box<Lists>),
    /// Something happened.
    Happened(Happening),
    /// What was asked with this id came to something, or why it did not.
    Acted(String, Result<(), String>),
    /// It is not there; the next try is made after the pause.
    Lost { why: String, pause: Duration },
    /// It will not be tried again.
    Ended(Failure),
}

/// Something that goes on, and may come to news of its own.
type Work = Pin<Box<dyn Future<Output = Option<News>>>>;

/// One end of it.
pub(super) struct Link {
    client: Client,
    wanted: watch::Sender<Wanted>,
    news: mpsc::Receiver<News>,
    /// What reads, which ends when there is no use in it, and what is being done; it goes on while news are waited for.
    work: FuturesUnordered<Work>,
}

/// What the measurements are asked by.
pub(super) fn measurements(
    interval: Duration,
) -> Result<api::StreamMetricSnapshotsRequest, Failure> {
    Ok(api::StreamMetricSnapshotsRequest {
        filter: figures::filter(),
        interval: duration(Some(interval))?,
    })
}

impl Link {
    /// Begins to read.
    pub(super) fn new(
        client: &Client,
        interval: Duration,
        wanted: Wanted,
    ) -> Result<Self, Failure> {
        let (tell, news) = mpsc::channel(ON_THE_WAY);
        let (wanted, seen) = watch::channel(wanted);
        let reader = Reader {
            client: client.clone(),
            asked: measurements(interval)?,
            silence: interval + SILENCE,
            wanted: seen.clone(),
            tell: tell.clone(),
        };
        let reads = reader.read().map(|()| None);
        let follows = happenings(client.clone(), seen, tell).map(|()| None);
        let work = [Box::pin(reads) as Work, Box::pin(follows)];
        Ok(Self {
            client: client.clone(),
            wanted,
            news,
            work: work.into_iter().collect(),
        })
    }

    /// Says what is looked at from now on.
    pub(super) fn want(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|before| {
            let is_other = *before != wanted;
            *before = wanted;
            is_other
        });
    }

    /// Does something, once.
    pub(super) fn act(&mut self, asked: Asked) {
        let client = self.client.clone();
        self.work.push(Box::pin(async move {
            let done = acted(&client, &asked.act, &asked.id).await;
            Some(News::Acted(asked.id, done.map_err(|failure| why(&failure))))
        }));
    }

    /// What is heard next; nothing when nothing more will be. May be dropped while it waits.
    pub(super) async fn news(&mut self) -> Option<News> {
        loop {
            tokio::select! {
                Some(done) = self.work.next() => if done.is_some() {
                    return done;
                },
                news = self.news.recv() => return news,
            }
        }
    }
}

async fn acted(client: &Client, act: &Act, id: &str) -> Result<(), Failure> {
    let mut tries = 1;
    loop {
        match act.call(client, id).await {
            Err(failure) if is_broken(&failure) && tries < TRIES => {
                sleep(PAUSE.0 * tries).await;
                tries += 1;
            }
            done => return done,
        }
    }
}

/// The sentence, and the word that a script would branch on.
fn why(failure: &Failure) -> String {
    use tonic_types::StatusExt;
    let reason = match failure {
        Failure::Refused(status) => status.get_details_error_info().map(|info| info.reason),
        _ => None,
    };
    match reason {
        Some(reason) => format!("{} ({reason})", failure.sentence()),
        None => failure.sentence(),
    }
}

struct Reader {
    client: Client,
    asked: api::StreamMetricSnapshotsRequest,
    silence: Duration,
    wanted: watch::Receiver<Wanted>,
    tell: mpsc::Sender<News>,
}

impl Reader {
    /// Reads until nobody listens any more, or there is no use in it.
    async fn read(mut self) {
        let mut pause = PAUSE.0;
        loop {
            let Err(failure) = self.follow(&mut pause).await else {
                return;
            };
            if !may_pass(&failure) {
                let _ = self.tell.send(News::Ended(failure)).await;
                return;
            }
            let why = failure.sentence();
            if self.tell.send(News::Lost { why, pause }).await.is_err() {
                return;
            }
            sleep(pause).await;
            pause = (2 * pause).min(PAUSE.1);
        }
    }

    /// Follows one stream to its end; well when nobody listens.
    async fn follow(&mut self, pause: &mut Duration) -> Result<(), Failure> {
        let found = server(&self.client).await?;
        if self.tell.send(News::Found(Box::new(found))).await.is_err() {
            return Ok(());
        }
        let Some(mut stream) = self.client.stream(self.asked.clone()).await? else {
            return Ok(());
        };
        loop {
            let news = tokio::select! {
                heard = timeout(self.silence, stream.message()) => {
                    let silent = || broken("the service has fallen silent");
                    let answer = heard.map_err(|_| silent())?.map_err(refused)?;
                    let snapshot = answer.ok_or_else(|| broken("the service ended the stream"))?;
                    let snapshot = snapshot.snapshot.unwrap_or_default();
                    let wanted = self.wanted.borrow_and_update().clone();
                    let read = sample(&self.client, &snapshot, &wanted).await?;
                    *pause = PAUSE.0;
                    News::Sample(Box::new(read))
                }
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let wanted = self.wanted.borrow_and_update().clone();
                    News::Lists(Box::new(lists(&self.client, &wanted).await?))
                }
            };
            if self.tell.send(news).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn broken(why: &str) -> Failure {
    Failure::Here(UNAVAILABLE, why.to_owned())
}

/// Whether it may be otherwise later.
fn may_pass(failure: &Failure) -> bool {
    let passes = |code| {
        matches!(
            code,
            Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled
        )
    };
    match failure {
        Failure::Refused(status) if passes(status.code()) => true,
        failure => is_broken(failure),
    }
}
