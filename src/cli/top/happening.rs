//! What happens to listeners and sessions, as it happens: no faster than it can be read, whatever the service does.

use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::client::{Client, refused};
use super::super::events;
use super::super::exit::Failure;
use super::super::name::ANY_LISTENER;
use super::super::output::Resource;
use super::super::watch::{Event, Watch, event};
use super::link::News;
use super::read::Wanted;
use crate::grpc::api;

/// Events that are read in a second at most; the service leaves the rest out and says how many they were.
const A_SECOND: u32 = 300;

/// How long before a watch that broke is begun anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Debug, Clone)]
pub(super) struct Happening {
    /// When, by the service's clock.
    pub(super) time: Option<SystemTime>,
    /// `created`, `updated` or `deleted`.
    pub(super) change: String,
    /// What to.
    pub(super) name: String,
    /// What it is now, and why.
    pub(super) detail: String,
    /// Events before it that were left out.
    pub(super) missed: u64,
}

/// Tells of listeners all the time, and of sessions while somebody looks, until nobody listens.
pub(super) async fn happenings(
    client: Client,
    mut wanted: watch::Receiver<Wanted>,
    tell: mpsc::Sender<News>,
) {
    let listeners = async {
        loop {
            let asked = api::WatchListenersRequest::default();
            // That the service is gone is told elsewhere.
            let _ = told(&client, asked, &tell, events::listener).await;
            sleep(PAUSE).await;
        }
    };
    let sessions = async {
        while wanted.wait_for(|wanted| wanted.happenings).await.is_ok() {
            tokio::select! {
                _ = told(&client, sessions_from(SystemTime::now()), &tell, events::session) => sleep(PAUSE).await,
                () = async { drop(wanted.wait_for(|wanted| !wanted.happenings).await) } => {}
            }
        }
    };
    tokio::select! {
        () = async { tokio::join!(listeners, sessions); } => {}
        () = tell.closed() => {}
    }
}

/// All that end, and those that begin from now on: of the many that there are, none is told to begin with.
fn sessions_from(now: SystemTime) -> api::WatchSessionsRequest {
    let now = humantime::format_rfc3339_millis(now);
    api::WatchSessionsRequest {
        parent: ANY_LISTENER.to_owned(),
        filter: format!("open_time > \"{now}\" OR state = STATE_CLOSED"),
        ..Default::default()
    }
}

async fn told<W: Watch>(
    client: &Client,
    asked: W,
    tell: &mpsc::Sender<News>,
    detail: fn(&W::Item) -> String,
) -> Result<(), Failure> {
    let Some(mut stream) = client.stream(asked).await? else {
        return Ok(());
    };
    let (mut read, mut full) = (0, Instant::now() + Duration::from_secs(1));
    while let Some(answer) = stream.message().await.map_err(refused)? {
        let told = W::event(&answer);
        if let Some(happening) = happening(&told, detail)
            && tell.send(News::Happened(happening)).await.is_err()
        {
            return Ok(());
        }
        read += 1;
        if read >= A_SECOND {
            sleep_until(full).await;
        }
        if Instant::now() >= full {
            (read, full) = (0, Instant::now() + Duration::from_secs(1));
        }
    }
    Ok(())
}

fn happening<R: Resource>(told: &Event<'_, R>, detail: fn(&R) -> String) -> Option<Happening> {
    let item = told.item.filter(|_| events::is_news(told.change))?;
    Some(Happening {
        time: told.time.and_then(|time| SystemTime::try_from(time).ok()),
        change: event(told.change),
        name: item.name(),
        detail: detail(item),
        missed: told.missed,
    })
}
