//! What every list promises: filters, orders, and pages that stay right while what they list comes and goes.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use switchboard::grpc::api;
use switchboard::grpc::api::chat_service_client::ChatServiceClient;
use switchboard::grpc::api::listener_service_client::ListenerServiceClient;
use switchboard::grpc::api::metric_service_client::MetricServiceClient;
use switchboard::grpc::api::session_service_client::SessionServiceClient;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::support::{Service, TIMEOUT, Talk, eventually};

/// One connection of the generated types, whose calls are made one after the other.
struct Client {
    runtime: Runtime,
    channel: Channel,
}

/// What one kind of list is asked for.
#[derive(Debug, Clone, Default)]
struct Asked {
    parent: &'static str,
    filter: &'static str,
    order_by: &'static str,
    closed: bool,
    size: i32,
    token: String,
}

impl Client {
    fn of(service: &Service) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc())).unwrap();
        let channel = runtime.block_on(endpoint.timeout(TIMEOUT).connect());
        let channel = channel.unwrap();
        Self { runtime, channel }
    }

    fn sessions(&self, asked: &Asked) -> Result<api::ListSessionsResponse, Status> {
        let request = api::ListSessionsRequest {
            parent: asked.parent.to_owned(),
            page_size: asked.size,
            page_token: asked.token.clone(),
            filter: asked.filter.to_owned(),
            order_by: asked.order_by.to_owned(),
            show_closed: asked.closed,
            ..api::ListSessionsRequest::default()
        };
        let mut client = SessionServiceClient::new(self.channel.clone());
        let answer = self.runtime.block_on(client.list_sessions(request))?;
        Ok(answer.into_inner())
    }

    /// Every page of them, one after the other, with the totals that each told.
    fn all_sessions(&self, asked: &Asked) -> (Vec<api::Session>, BTreeSet<i32>) {
        let (mut asked, mut all, mut totals) = (asked.clone(), Vec::new(), BTreeSet::new());
        loop {
            let page = self.sessions(&asked).unwrap();
            assert!(page.sessions.len() <= usize::try_from(asked.size.max(50)).unwrap());
            all.extend(page.sessions);
            totals.insert(page.total_size);
            asked.token = page.next_page_token;
            if asked.token.is_empty() {
                return (all, totals);
            }
        }
    }

    fn listeners(&self, asked: &Asked) -> Result<api::ListListenersResponse, Status> {
        let request = api::ListListenersRequest {
            page_size: asked.size,
            page_token: asked.token.clone(),
            filter: asked.filter.to_owned(),
            order_by: asked.order_by.to_owned(),
        };
        let mut client = ListenerServiceClient::new(self.channel.clone());
        let answer = self.runtime.block_on(client.list_listeners(request))?;
        Ok(answer.into_inner())
    }

    fn conversations(&self, asked: &Asked) -> Result<api::ListConversationsResponse, Status> {
        let request = api::ListConversationsRequest {
            parent: asked.parent.to_owned(),
            page_size: asked.size,
            page_token: asked.token.clone(),
            filter: asked.filter.to_owned(),
        };
        let mut client = ChatServiceClient::new(self.channel.clone());
        let answer = self.runtime.block_on(client.list_conversations(request))?;
        Ok(answer.into_inner())
    }

    fn messages(&self, asked: &Asked) -> Result<api::ListMessagesResponse, Status> {
        let request = api::ListMessagesRequest {
            parent: asked.parent.to_owned(),
            page_size: asked.size,
            page_token: asked.token.clone(),
            filter: asked.filter.to_owned(),
        };
        let mut client = ChatServiceClient::new(self.channel.clone());
        let answer = self.runtime.block_on(client.list_messages(request))?;
        Ok(answer.into_inner())
    }

    fn metrics(&self, filter: &str) -> Result<Vec<api::MetricSeries>, Status> {
        let filter = filter.to_owned();
        let request = api::GetMetricSnapshotRequest { filter };
        let mut client = MetricServiceClient::new(self.channel.clone());
        let answer = self.runtime.block_on(client.get_metric_snapshot(request))?;
        Ok(answer.into_inner().snapshot.unwrap().series)
    }
}

/// Code and reason of a refusal, and what it says of each field.
fn refusal<T: std::fmt::Debug>(
    answer: Result<T, Status>,
) -> (Code, String, BTreeMap<String, String>) {
    let status = answer.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    let wrong = status.get_details_bad_request().unwrap().field_violations;
    let wrong = wrong.into_iter().map(|v| (v.field, v.description));
    (status.code(), info.reason, wrong.collect())
}

const SERVED: &str = r#"
    [listeners.ack]
    protocol = "ack"
    bind = "127.0.0.1:0"
    labels = { team = "edge", "zone.name" = "a" }
    [listeners.spare]
    protocol = "ack"
    bind = "127.0.0.1:0"
    desired_state = "stopped"
    limits = { idle_timeout = "10s" }
    [listeners.desk]
    protocol = "chat"
    bind = "127.0.0.1:0"
"#;

#[test]
fn listeners_are_filtered_and_sorted() {
    let service = Service::start(SERVED);
    let client = Client::of(&service);
    let found = |filter, order_by| {
        let asked = Asked {
            filter,
            order_by,
            ..Asked::default()
        };
        let answer = client.listeners(&asked).unwrap();
        assert_eq!(
            answer.total_size,
            i32::try_from(answer.listeners.len()).unwrap()
        );
        let names = answer
            .listeners
            .into_iter()
            .map(|l| l.name.replace("listeners/", ""));
        names.collect::<Vec<_>>().join(" ")
    };
    for (filter, order_by, names) in [
        ("", "", "ack desk spare"),
        ("", "name desc", "spare desk ack"),
        ("state = STATE_ACTIVE", "", "ack desk"),
        ("NOT state = active", "", "spare"),
        (r#"labels.team = "edge""#, "", "ack"),
        (
            r#"labels."zone.name" : 'a' OR chat:*"#,
            "name desc",
            "desk ack",
        ),
        ("limits.idle_timeout < 1m", "", "spare"),
        (
            "status.active_sessions = 0",
            "state desc, name",
            "spare ack desk",
        ),
        ("", "limits.idle_timeout, name desc", "spare desk ack"),
        ("name : nobody", "", ""),
    ] {
        assert_eq!(found(filter, order_by), names, "{filter} {order_by}");
    }
    let wrong = |filter, order_by| {
        let asked = Asked {
            filter,
            order_by,
            ..Asked::default()
        };
        refusal(client.listeners(&asked))
    };
    let (code, reason, fields) = wrong("stat = active AND status.active_sessions > many", "");
    assert_eq!((code, &*reason), (Code::InvalidArgument, "FILTER_INVALID"));
    assert!(
        fields["filter"].contains("at 44: `many` is no value"),
        "{fields:?}"
    );
    let (code, reason, fields) = wrong("", "state, labels");
    assert_eq!(
        (code, &*reason),
        (Code::InvalidArgument, "ORDER_BY_INVALID")
    );
    assert!(fields["order_by"].starts_with("at 8: "), "{fields:?}");
}

#[test]
fn sessions_are_filtered_and_sorted_and_closed_ones_found() {
    let service = Service::start(SERVED);
    let client = Client::of(&service);
    let mut talks: Vec<Talk> = (1..=5)
        .map(|n| {
            let mut talk = service.talk("ack");
            talk.send("x".repeat(n));
            talk.expect("received data!!");
            talk
        })
        .collect();
    let gone = talks.remove(2);
    let gone_peer = gone.local().to_string();
    drop(gone);
    let all = Asked {
        parent: "listeners/-",
        ..Asked::default()
    };
    eventually("one session has closed", || {
        client.sessions(&all).unwrap().total_size == 4
    });
    let bytes = |filter, order_by, closed, size| {
        let asked = Asked {
            filter,
            order_by,
            closed,
            size,
            ..all.clone()
        };
        let (found, totals) = client.all_sessions(&asked);
        let count = i32::try_from(found.len()).unwrap();
        assert_eq!(totals, BTreeSet::from([count]), "{asked:?}");
        found
            .iter()
            .map(|session| session.received_bytes)
            .collect::<Vec<_>>()
    };
    for size in [1, 2, 50] {
        assert_eq!(bytes("", "", false, size), [1, 2, 4, 5]);
        assert_eq!(bytes("", "", true, size), [1, 2, 3, 4, 5]);
        assert_eq!(
            bytes("", "received_bytes desc", true, size),
            [5, 4, 3, 2, 1]
        );
        assert_eq!(
            bytes("received_bytes > 1", "open_time desc", false, size),
            [5, 4, 2]
        );
        assert_eq!(bytes("received_bytes > 1", "", false, size), [2, 4, 5]);
        assert_eq!(
            bytes("state = STATE_CLOSED AND close_time:*", "", true, size),
            [3]
        );
        assert_eq!(
            bytes("close_reason != CLOSE_REASON_UNSPECIFIED", "", true, size),
            [3]
        );
    }
    assert_eq!(
        bytes("close_reason = client_closed", "", false, 50),
        Vec::<u64>::new()
    );
    let filter: &'static str = format!("peer = \"{gone_peer}\"").leak();
    assert_eq!(bytes(filter, "", true, 50), [3]);
}

#[test]
fn conversations_messages_and_metrics_are_filtered() {
    let service = Service::start(SERVED);
    let client = Client::of(&service);
    let mut waiting = service.talk("desk");
    waiting.send("where is \"it\"?");
    let _talk = service.talk("ack");
    let parent = "listeners/desk";
    let conversations = |filter, size| {
        let answer = client.conversations(&Asked {
            parent,
            filter,
            size,
            ..Asked::default()
        });
        let answer = answer.unwrap();
        (answer.conversations.len(), answer.total_size)
    };
    eventually("the message waits", || {
        conversations("state = STATE_WAITING", 0) == (1, 1)
    });
    assert_eq!(
        conversations("unanswered_messages >= 1 AND last_message.text : it", 0),
        (1, 1)
    );
    assert_eq!(conversations("state = answered", 0), (0, 0));
    assert_eq!(conversations("NOT waiting_since_time:*", 0), (0, 0));

    for _ in 0..4 {
        waiting.send("again");
    }
    let parent = "listeners/desk/conversations/-";
    let texts = |filter: &'static str| {
        let (mut asked, mut texts) = (
            Asked {
                parent,
                filter,
                size: 1,
                ..Asked::default()
            },
            Vec::new(),
        );
        loop {
            let answer = client.messages(&asked).unwrap();
            texts.extend(answer.messages.into_iter().map(|said| said.text));
            asked.token = answer.next_page_token;
            if asked.token.is_empty() {
                return texts;
            }
        }
    };
    eventually("all is heard", || {
        texts("").concat().matches("again").count() == 4
    });
    assert_eq!(
        texts(r#"text : "\"it\"" AND author = AUTHOR_PEER"#),
        ["where is \"it\"?"]
    );
    assert_eq!(texts("author = operator"), Vec::<String>::new());

    let named =
        r#"metric : "switchboard.session" AND attributes."switchboard.listener.name" = "ack""#;
    let series = client.metrics(named).unwrap();
    assert!(
        series
            .iter()
            .any(|s| s.metric == "switchboard.session.active" && s.value == 1.0)
    );
    assert!(
        series
            .iter()
            .all(|s| s.metric.contains("switchboard.session"))
    );
    assert!(
        series
            .iter()
            .all(|s| s.attributes["switchboard.listener.name"] == "ack")
    );
    assert_eq!(
        client
            .metrics("attributes.switchboard.listener.name = nobody")
            .unwrap(),
        []
    );
    assert!(
        client
            .metrics("attributes : switchboard.listener.name")
            .unwrap()
            .len()
            > series.len()
    );
    let (_, reason, fields) = refusal(client.metrics("value = much"));
    assert_eq!((&*reason, fields.len()), ("FILTER_INVALID", 1));
}

#[test]
fn a_token_fits_the_very_query_that_it_came_from() {
    let service = Service::start(SERVED);
    let client = Client::of(&service);
    let _talks: Vec<Talk> = (0..3).map(|_| service.talk("ack")).collect();
    let asked = Asked {
        parent: "listeners/ack",
        filter: "received_bytes = 0",
        order_by: "open_time",
        size: 1,
        ..Asked::default()
    };
    eventually("all are there", || {
        client.sessions(&asked).unwrap().total_size == 3
    });
    let token = client.sessions(&asked).unwrap().next_page_token;
    let first = Asked {
        token: token.clone(),
        ..asked.clone()
    };
    assert_eq!(client.sessions(&first).unwrap().sessions.len(), 1);
    // Another size is the same list.
    assert_eq!(
        client
            .sessions(&Asked {
                size: 7,
                ..first.clone()
            })
            .unwrap()
            .sessions
            .len(),
        2
    );
    // Of a token of one's own neither the check nor the place can be made up.
    let flip = |at: usize| {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        String::from_utf8(bytes).unwrap()
    };
    for other in [
        Asked {
            parent: "listeners/-",
            ..first.clone()
        },
        Asked {
            filter: "received_bytes = 1",
            ..first.clone()
        },
        Asked {
            filter: "",
            ..first.clone()
        },
        Asked {
            order_by: "open_time desc",
            ..first.clone()
        },
        Asked {
            order_by: "",
            ..first.clone()
        },
        Asked {
            closed: true,
            ..first.clone()
        },
        Asked {
            token: flip(0),
            ..first.clone()
        },
        Asked {
            token: flip(token.len() - 1),
            ..first.clone()
        },
        Asked {
            token: token[..16].to_owned(),
            ..first.clone()
        },
        Asked {
            token: "nonsense".to_owned(),
            ..first.clone()
        },
    ] {
        let (code, reason, fields) = refusal(client.sessions(&other));
        assert_eq!(
            (code, &*reason),
            (Code::InvalidArgument, "PAGE_TOKEN_INVALID"),
            "{other:?}"
        );
        assert!(fields.contains_key("page_token"), "{other:?}");
    }
    let elsewhere = Asked {
        token: token.clone(),
        ..Asked::default()
    };
    assert_eq!(
        refusal(client.listeners(&elsewhere)).1,
        "PAGE_TOKEN_INVALID"
    );
    // And not in another run of the service.
    let another = Service::start(SERVED);
    assert_eq!(
        refusal(Client::of(&another).sessions(&first)).1,
        "PAGE_TOKEN_INVALID"
    );
    let negative = Asked { size: -1, ..asked };
    assert_eq!(refusal(client.sessions(&negative)).1, "PAGE_SIZE_INVALID");
}

/// The whole size, or one that a machine which is busy carries too.
fn soak() -> bool {
    std::env::var_os("SWITCHBOARD_SOAK").is_some()
}

/// One crowd at a time: two have no room in the descriptors of one process.
static ROOM: Mutex<()> = Mutex::new(());

/// A service of which every session takes one descriptor here too, and its peers, who all said something.
fn crowd(sessions: usize) -> (Service, Vec<TcpStream>) {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    )
    .unwrap();
    let most = 2 * sessions;
    let service = Service::start(&format!(
        "[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n\
         limits = {{ max_sessions = {most}, max_sessions_per_source = {most}, idle_timeout = \"1h\" }}\n"
    ));
    let address = service.address("ack");
    let streams = (0..sessions).map(|_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        exchange(&mut stream);
        stream
    });
    let streams = streams.collect();
    (service, streams)
}

fn exchange(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0; 15]).unwrap();
}

/// Runs `step` so many times a second until `stop`: how many it ran in all. What it was late for, it makes up.
fn paced(per_second: u32, stop: &AtomicBool, mut step: impl FnMut()) -> u32 {
    let (began, mut done) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = began.elapsed().as_secs_f64() * f64::from(per_second);
        while f64::from(done) < due && !stop.load(Ordering::Relaxed) {
            step();
            done += 1;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    done
}

/// Ends what runs beside a test when that ends, however it does.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_page_of_a_thousand_sessions_is_quick_while_messages_flow() {
    let (sessions, pages, rate) = if soak() {
        (15_000, 600, 5_000)
    } else {
        (2_000, 60, 1_000)
    };
    let _room = ROOM.lock().unwrap_or_else(PoisonError::into_inner);
    let (service, mut streams) = crowd(sessions);
    let client = Client::of(&service);
    let stop = AtomicBool::new(false);
    let (mut took, began) = (Vec::new(), Instant::now());
    let messages = std::thread::scope(|scope| {
        let stopping = Stopping(&stop);
        let (talkers, stop) = (streams.len().min(500), &stop);
        let talking = scope.spawn({
            let talkers = &mut streams[..talkers];
            move || {
                let mut next = 0;
                paced(rate, stop, || {
                    exchange(&mut talkers[next]);
                    next = (next + 1) % talkers.len();
                })
            }
        });
        let mut asked = Asked {
            parent: "listeners/ack",
            size: 1_000,
            ..Asked::default()
        };
        while took.len() < pages {
            let asking = Instant::now();
            let page = client.sessions(&asked).unwrap();
            took.push(asking.elapsed());
            assert_eq!(page.total_size, i32::try_from(sessions).unwrap());
            assert_eq!(page.sessions.len(), 1_000);
            asked.token = page.next_page_token;
        }
        drop(stopping);
        talking.join().unwrap()
    });
    let flowed = f64::from(messages) / began.elapsed().as_secs_f64();
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    println!(
        "{sessions} sessions, {flowed:.0} messages a second: a page of 1,000 in {:?}, 99th percentile {p99:?}",
        took[took.len() / 2]
    );
    for (filter, order_by) in [
        ("peer : \"127.0.0.1\" AND send_queue_bytes = 0", ""),
        ("", "received_bytes desc"),
    ] {
        let asked = Asked {
            parent: "listeners/ack",
            filter,
            order_by,
            size: 1_000,
            ..Asked::default()
        };
        let asking = Instant::now();
        assert_eq!(
            client.sessions(&asked).unwrap().total_size,
            i32::try_from(sessions).unwrap()
        );
        println!("with {filter:?} and {order_by:?}: {:?}", asking.elapsed());
    }
    let whole = soak() && cfg!(not(debug_assertions));
    let bound = Duration::from_millis(if whole { 20 } else { 2_000 });
    assert!(p99 < bound, "{p99:?}");
    assert!(!whole || flowed > 0.95 * f64::from(rate), "{flowed}");
}

#[test]
fn paging_repeats_none_and_misses_none_that_stayed_while_others_come_and_go() {
    let (sessions, size, passes) = if soak() {
        (15_000, 970, 10)
    } else {
        (1_000, 97, 5)
    };
    let _room = ROOM.lock().unwrap_or_else(PoisonError::into_inner);
    let (service, streams) = crowd(sessions);
    let client = Client::of(&service);
    let stayed: HashSet<SocketAddr> = streams.iter().map(|s| s.local_addr().unwrap()).collect();
    let stop = AtomicBool::new(false);
    let came = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        scope.spawn(|| {
            let mut visits = VecDeque::new();
            let address = service.address("ack");
            paced(100, &stop, || {
                let mut stream = TcpStream::connect(address).unwrap();
                exchange(&mut stream);
                visits.push_back(stream);
                if visits.len() > 50 {
                    visits.pop_front();
                }
                came.fetch_add(1, Ordering::Relaxed);
            });
        });
        eventually("some have come and gone", || {
            came.load(Ordering::Relaxed) > 60
        });
        for pass in 0..passes {
            let (filter, order_by, closed) = [
                ("", "", false),
                ("received_messages > 0 AND state = active", "", false),
                ("", "peer desc", false),
                ("state = active", "open_time desc", true),
                ("", "", true),
            ][pass % 5];
            let asked = Asked {
                parent: "listeners/-",
                filter,
                order_by,
                closed,
                size,
                ..Asked::default()
            };
            let (found, _) = client.all_sessions(&asked);
            let mut names = HashSet::new();
            let repeated: Vec<_> = found.iter().filter(|s| !names.insert(&s.name)).collect();
            assert!(repeated.is_empty(), "{asked:?}: {repeated:?}");
            let seen: HashSet<SocketAddr> = found.iter().map(|s| s.peer.parse().unwrap()).collect();
            assert_eq!(stayed.difference(&seen).count(), 0, "{asked:?}");
        }
    });
    println!("{} came and went", came.load(Ordering::Relaxed));
}
