//! HTTP/2 by hand, for what no client library would send; and an honest client beside it, whose calls are timed.

use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use switchboard::grpc::api;
use switchboard::grpc::api::listener_service_client::ListenerServiceClient;
use switchboard::grpc::api::metric_service_client::MetricServiceClient;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use tonic_types::StatusExt;

use super::support::{TIMEOUT, Talk};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const CHECK: &str = "/grpc.health.v1.Health/Check";
pub(crate) const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// The header block of a call: literals that are not indexed, none of them in Huffman's code.
pub(crate) fn head(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in usual.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "its length has one byte");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A message as gRPC frames it.
pub(crate) fn message(compressed: bool, length: usize, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&[u8::from(compressed)], &length[..], bytes].concat()
}

/// A peer that has begun to speak HTTP/2, and hears only what the test reads: no GOAWAY, no ping.
pub(crate) fn deaf(address: SocketAddr) -> Talk {
    let mut talk = Talk::to(address);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    talk.send([preface, &frame(SETTINGS, 0, 0, &[])[..]].concat());
    talk
}

/// A call of one message, whose request is whole.
pub(crate) fn call(stream: u32, path: &str, more: &[(&str, &str)], said: &[u8]) -> Vec<u8> {
    let headers = frame(HEADERS, END_HEADERS, stream, &head(path, more));
    let data = frame(DATA, END_STREAM, stream, &message(false, said.len(), said));
    [headers, data].concat()
}

/// The next frame: type, stream and payload.
pub(crate) fn next(talk: &mut Talk) -> (u8, u32, Vec<u8>) {
    let head = talk.read(9);
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
    let payload = talk.read(usize::try_from(length).unwrap());
    (head[3], stream, payload)
}

/// What it is told when it has to go: the code, and the words.
pub(crate) fn farewell(talk: &mut Talk) -> (u32, String) {
    loop {
        let (kind, _, payload) = next(talk);
        if kind == GOAWAY {
            let code = u32::from_be_bytes(payload[4..8].try_into().unwrap());
            return (code, String::from_utf8_lossy(&payload[8..]).into_owned());
        }
    }
}

/// A client that asks how the service is.
pub(crate) struct Honest {
    pub(crate) runtime: Runtime,
    channel: Channel,
    client: HealthClient<Channel>,
}

impl Honest {
    /// Connects to an `http://` or a `unix:` URL.
    pub(crate) fn to(url: &str) -> Result<Self, tonic::transport::Error> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
        let endpoint = endpoint.connect_timeout(TIMEOUT);
        let channel = runtime.block_on(endpoint.connect())?;
        let client = HealthClient::new(channel.clone());
        Ok(Self {
            runtime,
            channel,
            client,
        })
    }

    pub(crate) fn over_tcp(address: SocketAddr) -> Self {
        Self::to(&format!("http://{address}")).unwrap()
    }

    /// How it is: the code, and how long the answer took.
    pub(crate) fn ask(&mut self) -> (Code, Duration) {
        let began = Instant::now();
        let call = self.client.check(HealthCheckRequest::default());
        let answer = self
            .runtime
            .block_on(async move { tokio::time::timeout(TIMEOUT, call).await });
        let answer = answer.expect("an answer");
        (
            answer.map_or_else(|status| status.code(), |_| Code::Ok),
            began.elapsed(),
        )
    }

    /// The 99th percentile over so many calls, one behind the other, each of which must be answered.
    pub(crate) fn p99(&mut self, calls: usize) -> Duration {
        let mut took: Vec<_> = (0..calls)
            .map(|_| {
                let (code, took) = self.ask();
                assert_eq!(code, Code::Ok);
                took
            })
            .collect();
        took.sort();
        took[(calls * 99).div_ceil(100) - 1]
    }

    /// So many calls at once, and their codes.
    pub(crate) fn asks(&self, calls: usize) -> Vec<Code> {
        let client = self.client.clone();
        self.runtime.block_on(async move {
            let mut asked = tokio::task::JoinSet::new();
            for _ in 0..calls {
                let mut client = client.clone();
                asked.spawn(async move { client.check(HealthCheckRequest::default()).await });
            }
            let answers = asked.join_all().await;
            let code = |answer: Result<_, Status>| answer.map_or_else(|s| s.code(), |_| Code::Ok);
            answers.into_iter().map(code).collect()
        })
    }

    /// Watches so many times at once, tells of each when it has begun, and holds that it is told NOT_SERVING and then
    /// why it ends.
    pub(crate) fn watches(&self, count: usize, begun: &Sender<()>) {
        self.runtime.block_on(async {
            let mut watches = tokio::task::JoinSet::new();
            for _ in 0..count {
                let (mut client, begun) = (self.client.clone(), begun.clone());
                watches.spawn(async move {
                    let watch = client.watch(HealthCheckRequest::default());
                    let mut updates = watch.await.unwrap().into_inner();
                    let mut last = updates.message().await.unwrap().unwrap().status();
                    begun.send(()).unwrap();
                    let end = end(&mut updates, |update| last = update.status()).await;
                    assert_eq!(last, ServingStatus::NotServing);
                    drained(&end);
                });
            }
            watches.join_all().await;
        });
    }

    /// The same of what changes and of what is measured, which say nothing of how it is.
    pub(crate) fn follows(&self, count: usize, begun: &Sender<()>) {
        self.runtime.block_on(async {
            let mut streams = tokio::task::JoinSet::new();
            for turn in 0..count {
                let (channel, begun) = (self.channel.clone(), begun.clone());
                streams.spawn(async move {
                    let end = if turn % 2 == 0 {
                        let mut client = ListenerServiceClient::new(channel);
                        let request = api::WatchListenersRequest::default();
                        let mut updates =
                            client.watch_listeners(request).await.unwrap().into_inner();
                        begun.send(()).unwrap();
                        end(&mut updates, |_| {}).await
                    } else {
                        let mut client = MetricServiceClient::new(channel);
                        let request = api::StreamMetricSnapshotsRequest::default();
                        let stream = client.stream_metric_snapshots(request).await;
                        begun.send(()).unwrap();
                        end(&mut stream.unwrap().into_inner(), |_| {}).await
                    };
                    drained(&end);
                });
            }
            streams.join_all().await;
        });
    }
}

/// How a stream ends; what comes before is told.
async fn end<T>(updates: &mut Streaming<T>, mut heard: impl FnMut(T)) -> Status {
    loop {
        match updates.message().await {
            Ok(Some(update)) => heard(update),
            Ok(None) => return Status::ok(""),
            Err(status) => return status,
        }
    }
}

fn drained(end: &Status) {
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    let details = end.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "SERVER_DRAINING");
}
