//! One signal's way to its collector: each export is tried within its time, again where the collector allows it, and
//! then lost.

use super::super::sampling::random;
use super::super::settings::{Protocol, Route, Signal};
use super::answer::{Verdict, verdict};
use super::connection::Connection;
use super::encode;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Before the second try, and at most before a later one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// The longest that a collector is left alone because it asks for it: it is to be found within ten seconds of its
/// return.
const LONGEST_ASKED: Duration = Duration::from_secs(5);

/// When the process is to be gone, once it leaves.
pub(super) type Leaving = watch::Receiver<Option<Instant>>;

pub(super) struct Lane {
    route: Route,
    /// Of every request: over HTTP/1.1 the path alone, as nothing stands between.
    target: Uri,
    head: HeaderMap,
    connection: Connection,
    leaving: Leaving,
    /// The collector is to be left alone until then.
    not_before: Instant,
    outage: Outage,
}

impl Lane {
    pub(super) fn new(signal: Signal, route: Route, version: &str, leaving: Leaving) -> Self {
        Self {
            target: match (route.protocol, route.uri.path_and_query()) {
                (Protocol::Http, Some(path)) => path.clone().into(),
                _ => route.uri.clone(),
            },
            head: head(&route, version),
            connection: Connection::new(&route),
            outage: Outage::new(signal.word(), &route),
            route,
            leaving,
            not_before: Instant::now(),
        }
    }

    /// Resolves when the process leaves.
    pub(super) async fn left(&self) {
        // Without anyone to say so it has left.
        let _ = self.leaving.clone().wait_for(Option::is_some).await;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.borrow().is_some()
    }

    /// Resolves when the collector may be spoken to again.
    pub(super) async fn rest(&self) {
        tokio::select! {
            () = sleep_until(self.not_before) => {}
            () = self.left() => {}
        }
    }

    /// Sends a message; says how much of it the collector has rejected, or none when all of it is lost.
    pub(super) async fn send(&mut self, message: Vec<u8>) -> Option<u64> {
        let body = encode::body(&self.route, message);
        let sent = self.try_until_over(body).await;
        let (lost, problem) = match sent {
            Ok((0, _)) => (Some(0), None),
            Ok((rejected, why)) => (Some(rejected), Some(format!("some was rejected: {why}"))),
            Err(why) => (None, Some(why)),
        };
        self.outage.note(problem);
        lost
    }

    async fn try_until_over(&mut self, body: Bytes) -> Result<(u64, String), String> {
        let deadline = Instant::now() + self.route.timeout;
        let mut pause = PAUSES.0;
        loop {
            let last = self.is_leaving();
            let request = self.request(body.clone());
            let answer = tokio::select! {
                answer = self.connection.post(request) => answer,
                () = over(self.leaving.clone(), deadline) => {
                    return Err("no answer in time".to_owned());
                }
            };
            let verdict = match answer {
                Ok(answer) => verdict(self.route.protocol, &answer),
                // It may have been closed for its age.
                Err(failure) if failure.was_old => continue,
                Err(failure) => Verdict::Later {
                    after: None,
                    why: failure.why,
                },
            };
            let (after, why) = match verdict {
                Verdict::Taken { rejected, why } => return Ok((rejected, why)),
                Verdict::Refused(why) => return Err(why),
                Verdict::Later { after, why } => (after, why),
            };
            self.not_before = Instant::now() + rest(after, pause);
            if last || self.not_before >= deadline {
                return Err(why);
            }
            self.rest().await;
            pause = (2 * pause).min(PAUSES.1);
        }
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.head.clone();
        request
    }
}

/// What every request of a route begins with.
fn head(route: &Route, version: &str) -> HeaderMap {
    let mut head = route.headers.clone();
    let agent = HeaderValue::try_from(format!("switchboard/{version}"));
    if let Ok(agent) = agent {
        head.insert(header::USER_AGENT, agent);
    }
    let gzip = HeaderValue::from_static("gzip");
    match route.protocol {
        Protocol::Grpc => {
            let kind = HeaderValue::from_static("application/grpc");
            head.insert(header::CONTENT_TYPE, kind);
            head.insert(header::TE, HeaderValue::from_static("trailers"));
            if route.gzip {
                head.insert("grpc-encoding", gzip);
            }
        }
        Protocol::Http => {
            let kind = HeaderValue::from_static("application/x-protobuf");
            head.insert(header::CONTENT_TYPE, kind);
            let host = route.uri.authority().map(|host| host.as_str().parse());
            if let Some(Ok(host)) = host {
                head.insert(header::HOST, host);
            }
            if route.gzip {
                head.insert(header::CONTENT_ENCODING, gzip);
            }
        }
    }
    head
}

/// Resolves at `deadline`, or before that when the process is to be gone.
async fn over(mut leaving: Leaving, deadline: Instant) {
    loop {
        let left = *leaving.borrow_and_update();
        let until = left.map_or(deadline, |left| left.min(deadline));
        tokio::select! {
            () = sleep_until(until) => return,
            changed = leaving.changed() => if changed.is_err() { return },
        }
    }
}

/// As long as the collector asks for, within bounds: one that asks for no time at all is not asked without end.
fn rest(asked: Option<Duration>, pause: Duration) -> Duration {
    let asked = asked.unwrap_or_default().min(LONGEST_ASKED);
    asked.max(jittered(pause))
}

/// Between half of it and all: many that lost the same collector do not come back at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + random() as f64 / u64::MAX as f64 / 2.0)
}

/// Says once that exports began to fail and once that they work again.
struct Outage {
    signal: &'static str,
    /// The collector's host and port; the rest of the address may hold a secret.
    collector: String,
    failing: bool,
}

impl Outage {
    fn new(signal: &'static str, route: &Route) -> Self {
        let collector = route.uri.authority().map(ToString::to_string);
        Self {
            signal,
            collector: collector.unwrap_or_default(),
            failing: false,
        }
    }

    fn note(&mut self, problem: Option<String>) {
        let (signal, collector) = (self.signal, &self.collector);
        match &problem {
            Some(error) if !self.failing => {
                tracing::warn!(
                    signal,
                    collector,
                    error,
                    "telemetry export fails; what is not sent is dropped and counted"
                );
            }
            None if self.failing => {
                tracing::info!(signal, collector, "telemetry export works again");
            }
            _ => {}
        }
        self.failing = problem.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_ends_with_the_first_success() {
        let mut outage = Outage {
            signal: "traces",
            collector: "c:1".to_owned(),
            failing: false,
        };
        outage.note(None);
        assert!(!outage.failing);
        outage.note(Some("away".to_owned()));
        assert!(outage.failing);
        outage.note(None);
        assert!(!outage.failing);
    }

    #[test]
    fn a_collector_that_asks_for_no_time_is_left_alone_nevertheless() {
        let pause = PAUSES.0;
        for asked in [None, Some(Duration::ZERO)] {
            assert!(rest(asked, pause) >= pause / 2, "{asked:?}");
        }
        assert_eq!(rest(Some(Duration::from_secs(3)), pause).as_secs(), 3);
        assert_eq!(rest(Some(Duration::MAX), pause), LONGEST_ASKED);
    }

    #[test]
    fn a_pause_is_never_longer_than_said_nor_half_as_short() {
        for _ in 0..1_000 {
            let pause = jittered(PAUSES.1);
            assert!(pause >= PAUSES.1 / 2 && pause <= PAUSES.1, "{pause:?}");
        }
    }
}
