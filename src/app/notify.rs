//! What the service manager that started the process is told (`sd_notify(3)`): that it serves, reloads and leaves, how it
//! fares, and that it lives.
//!
//! A sign of life comes from the runtime itself and only after a look at every listener under the supervisor's lock, so a
//! process whose runtime or supervisor stands still is one that is silent. A manager that does not listen is not waited
//! for, and without one nothing of this is done.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixDatagram;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::supervisor::Supervisor;

/// How long a message may wait for the manager to read those before it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is told of changes at most: many listeners may change at once.
const QUIET: Duration = Duration::from_secs(1);

/// How often a drain says that it goes on, and for how much longer it then may.
const DRAINING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// The way to the manager, if there is one. A cheap handle.
#[derive(Clone)]
pub(super) struct Notify(Option<Arc<Channel>>);

struct Channel {
    socket: UnixDatagram,
    /// How long it waits for a sign of life.
    watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`). Must be called within the runtime.
    pub(super) fn from_environment() -> Self {
        let variable = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
        let Some(place) = variable("NOTIFY_SOCKET") else {
            return Self(None);
        };
        let watchdog = watchdog(std::process::id(), variable);
        let channel = connect(&place).map(|socket| Arc::new(Channel { socket, watchdog }));
        if let Err(error) = &channel {
            warn!(%error, place, "the service manager cannot be told anything");
        }
        Self(channel.ok())
    }

    /// Says that it serves, and from then on how it fares, until `leaving`; then that it goes on leaving, until `over`.
    pub(super) async fn attend(
        self,
        supervisor: Supervisor,
        leaving: CancellationToken,
        over: CancellationToken,
    ) {
        let Some(channel) = self.0 else { return };
        let serves = async {
            let told = format!("READY=1\n{}", status("", &supervisor));
            channel.say(&told).await;
            channel.keep_told(&supervisor).await;
        };
        leaving.run_until_cancelled(serves).await;
        let drained = async {
            let told = format!("STOPPING=1\n{}", status("draining: ", &supervisor));
            channel.say(&told).await;
            channel.keep_told_of_drain(&supervisor).await;
        };
        tokio::select! {
            // First, for it is said even if all is over at once; a manager that does not listen is not waited for.
            biased;
            () = drained => {}
            () = over.cancelled() => {}
        }
    }

    /// Does `work` between saying that the process reloads and that it is ready again.
    pub(super) async fn reloading<T>(&self, work: impl Future<Output = T>) -> T {
        let Some(channel) = &self.0 else {
            return work.await;
        };
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        let began = format!("RELOADING=1\nMONOTONIC_USEC={micros}");
        channel.say(&began).await;
        let done = work.await;
        channel.say("READY=1").await;
        done
    }
}

impl Channel {
    async fn say(&self, what: &str) {
        let said = timeout(PATIENCE, self.socket.send(what.as_bytes())).await;
        if !matches!(said, Ok(Ok(_))) {
            debug!(what, ?said, "the service manager was not told");
        }
    }

    /// Tells of changes when they come, and twice within the time of its watchdog that all is alive.
    async fn keep_told(&self, supervisor: &Supervisor) {
        let mut changes = supervisor.changes();
        let mut beat = beat(self.watchdog.map(|time| time / 2));
        let mut quiet = Instant::now();
        loop {
            let change = async {
                sleep_until(quiet).await;
                changes.changed().await
            };
            let alive = tokio::select! {
                _ = beat.tick() => self.watchdog.map_or("", |_| "WATCHDOG=1\n"),
                changed = change => match changed {
                    Ok(()) => "",
                    Err(_) => return,
                },
            };
            self.say(&format!("{alive}{}", status("", supervisor)))
                .await;
            quiet = Instant::now() + QUIET;
        }
    }

    /// Asks for more time, so that a drain may take as long as its grace.
    async fn keep_told_of_drain(&self, supervisor: &Supervisor) {
        let each = self
            .watchdog
            .map_or(DRAINING.0, |time| DRAINING.0.min(time / 2));
        let mut beat = beat(Some(each));
        loop {
            beat.tick().await;
            let more = DRAINING.1.as_micros();
            let fares = status("draining: ", supervisor);
            self.say(&format!("EXTEND_TIMEOUT_USEC={more}\nWATCHDOG=1\n{fares}"))
                .await;
        }
    }
}

/// A tick at once and then every so often; without a watchdog just often enough that no status is of yesterday.
fn beat(each: Option<Duration>) -> Interval {
    const SELDOM: Duration = Duration::from_secs(3_600);
    // The runtime takes no interval of nothing.
    let mut beat = interval(each.unwrap_or(SELDOM).max(Duration::from_millis(1)));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// How the process fares, in one line.
fn status(what: &str, supervisor: &Supervisor) -> String {
    let tally = supervisor.tally();
    format!(
        "STATUS={what}{} of {} listeners serve, {} sessions",
        tally.serving, tally.listeners, tally.sessions
    )
}

/// A socket whose other end is the manager's: a path, or with `@` an abstract name.
fn connect(place: &str) -> io::Result<UnixDatagram> {
    let address = match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None if place.starts_with('/') => SocketAddr::from_pathname(place)?,
        None => {
            return Err(io::Error::other(
                "NOTIFY_SOCKET is neither an absolute path nor an abstract name with `@`",
            ));
        }
    };
    let socket = StdDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    UnixDatagram::from_std(socket)
}

/// The time of the watchdog, if it watches the process of this number.
fn watchdog(process: u32, variable: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let whose = variable("WATCHDOG_PID").map(|text| text.parse::<u32>());
    let ours = whose.is_none_or(|whose| whose == Ok(process));
    let micros: u64 = variable("WATCHDOG_USEC")?.parse().ok()?;
    (ours && micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_obeyed_by_the_process_that_it_watches() {
        let obeyed = |usec: Option<&str>, pid: Option<&str>| {
            watchdog(7, |name| {
                let value = if name == "WATCHDOG_PID" { pid } else { usec };
                value.map(str::to_owned)
            })
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(obeyed(Some("1000000"), None), second);
        assert_eq!(obeyed(Some("1000000"), Some("7")), second);
        for (usec, pid) in [
            (Some("1000000"), Some("8")),
            (Some("1000000"), Some("x")),
            (Some("0"), None),
            (Some("soon"), None),
            (None, Some("7")),
        ] {
            assert_eq!(obeyed(usec, pid), None, "{usec:?} {pid:?}");
        }
    }

    #[tokio::test]
    async fn a_place_that_is_none_is_said() {
        let error = connect("vsock:2:1234").unwrap_err();
        assert!(error.to_string().contains("absolute path"), "{error}");
        assert!(connect("/nowhere/at/all").is_err());
    }
}
