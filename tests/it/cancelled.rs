//! Changes that their callers take back while they are made: each is made whole and stands in the trail, or is not made at
//! all. Whatever the trail says, the listeners, the configuration and the sockets agree with it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use switchboard::grpc::api;
use switchboard::grpc::api::config_service_client::ConfigServiceClient;
use switchboard::grpc::api::listener_service_client::ListenerServiceClient;
use switchboard::grpc::api::server_service_client::ServerServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::support::{Service, TIMEOUT, soak};

/// Callers at once, each with a connection and a listener of its own.
const CALLERS: u64 = 8;

/// The longest that a caller waits before it takes its call back, in microseconds.
const PATIENCE: u64 = 20_000;

async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_timeout(TIMEOUT).connect().await.unwrap()
}

/// One call on a listener: which, by `choice`.
async fn call(
    mut client: ListenerServiceClient<Channel>,
    id: String,
    choice: u64,
) -> Result<(), Status> {
    let name = format!("listeners/{id}");
    match choice % 4 {
        0 => {
            let ack = api::listener::Protocol::Ack(api::AckProtocol::default());
            let listener = api::Listener {
                bind: "127.0.0.1:0".to_owned(),
                protocol: Some(ack),
                ..api::Listener::default()
            };
            let request = api::CreateListenerRequest {
                listener_id: id,
                listener: Some(listener),
                ..api::CreateListenerRequest::default()
            };
            client.create_listener(request).await.map(drop)
        }
        1 => {
            let request = api::DeleteListenerRequest {
                name,
                force: true,
                ..api::DeleteListenerRequest::default()
            };
            client.delete_listener(request).await.map(drop)
        }
        2 => {
            let request = api::StopListenerRequest {
                name,
                grace: Some(prost_types::Duration::default()),
                ..api::StopListenerRequest::default()
            };
            client.stop_listener(request).await.map(drop)
        }
        _ => {
            let request = api::StartListenerRequest {
                name,
                ..api::StartListenerRequest::default()
            };
            client.start_listener(request).await.map(drop)
        }
    }
}

/// What a caller was told of its calls.
#[derive(Debug, Default)]
struct Told {
    done: usize,
    refused: usize,
    taken_back: usize,
}

/// Makes changes to one listener, one behind the other, and takes back most that are not answered soon.
async fn change(address: SocketAddr, id: String, calls: usize) -> Told {
    let client = ListenerServiceClient::new(channel(address).await);
    let random = RandomState::new();
    let mut told = Told::default();
    for turn in 0..calls {
        let choice = random.hash_one(turn);
        // Every third is waited for: it finds whatever those before it have left.
        // Some are taken back as soon as they are asked, however fast the machine answers.
        let patience = match turn % 6 {
            2 | 5 => TIMEOUT,
            4 => Duration::ZERO,
            _ => Duration::from_micros(choice.rotate_left(32) % PATIENCE),
        };
        let answer = call(client.clone(), id.clone(), choice);
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(())) => told.done += 1,
            Ok(Err(status)) => {
                // Only what was asked before may be in the way.
                let code = status.code();
                assert!(
                    matches!(
                        code,
                        Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition
                    ),
                    "{status:?}"
                );
                told.refused += 1;
            }
            Err(_) => told.taken_back += 1,
        }
    }
    told
}

/// All of the trail that is about listeners, oldest first.
async fn trail(address: SocketAddr) -> Vec<api::AuditEvent> {
    let mut client = ServerServiceClient::new(channel(address).await);
    let (mut events, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = api::ListAuditEventsRequest {
            page_size: 1_000,
            page_token,
            ..api::ListAuditEventsRequest::default()
        };
        let page = client
            .list_audit_events(request)
            .await
            .unwrap()
            .into_inner();
        events.extend(page.audit_events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            events.reverse();
            return events;
        }
    }
}

/// The listeners that there are, and whether each serves, by what the trail says was done.
fn replayed(events: &[api::AuditEvent]) -> BTreeMap<String, bool> {
    let mut listeners = BTreeMap::new();
    for event in events.iter().filter(|event| event.status_code == "OK") {
        let id = event.resource.trim_start_matches("listeners/").to_owned();
        match event.method.rsplit('/').next().unwrap() {
            "CreateListener" => assert!(listeners.insert(id, true).is_none(), "{event:?}"),
            "DeleteListener" => assert!(listeners.remove(&id).is_some(), "{event:?}"),
            "StopListener" => *listeners.get_mut(&id).unwrap() = false,
            "StartListener" => *listeners.get_mut(&id).unwrap() = true,
            other => panic!("{other} was not called"),
        }
    }
    listeners
}

/// The listeners that callers made, and whether a peer of each is served.
async fn found(address: SocketAddr) -> BTreeMap<String, bool> {
    let mut client = ListenerServiceClient::new(channel(address).await);
    let request = api::ListListenersRequest {
        page_size: 1_000,
        ..api::ListListenersRequest::default()
    };
    let answer = client.list_listeners(request).await.unwrap().into_inner();
    let made = answer.listeners.into_iter().filter_map(|listener| {
        let id = listener.name.trim_start_matches("listeners/").to_owned();
        let wanted = listener.desired_state() == api::listener::DesiredState::Active;
        let served = listener
            .bound
            .parse::<SocketAddr>()
            .is_ok_and(|bound| TcpStream::connect_timeout(&bound, TIMEOUT).is_ok());
        assert_eq!(served, wanted, "{listener:?}");
        id.starts_with("mine-").then_some((id, served))
    });
    made.collect()
}

/// The listeners that callers made, by the configuration.
async fn configured(address: SocketAddr) -> BTreeMap<String, bool> {
    let mut client = ConfigServiceClient::new(channel(address).await);
    let request = api::GetEffectiveConfigRequest {
        key_prefix: "listeners".to_owned(),
        ..api::GetEffectiveConfigRequest::default()
    };
    let answer = client.get_effective_config(request).await.unwrap();
    let settings = answer.into_inner().settings.into_iter();
    let state = settings.filter_map(|setting| {
        let rest = setting.key.strip_prefix("listeners.")?;
        let id = rest.strip_suffix(".desired_state")?;
        let active = setting.value_json == "\"active\"";
        id.starts_with("mine-").then(|| (id.to_owned(), active))
    });
    state.collect()
}

#[test]
fn a_change_that_is_taken_back_is_made_whole_or_not_at_all() {
    let all = if soak() { 2_000 } else { 200 };
    let service = Service::start("[listeners.ack]\nprotocol = \"ack\"\nbind = \"127.0.0.1:0\"\n");
    let address = service.grpc();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let told = runtime.block_on(async {
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..CALLERS {
            let calls = all / usize::try_from(CALLERS).unwrap();
            callers.spawn(change(address, format!("mine-{caller}"), calls));
        }
        callers.join_all().await
    });
    // What was taken back may still be under way: until the trail says no more.
    let mut events = runtime.block_on(trail(address));
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(500) {
        let now = runtime.block_on(trail(address));
        if now.len() != events.len() {
            (events, since) = (now, Instant::now());
        }
    }
    let (done, refused, taken_back) = told.iter().fold((0, 0, 0), |sum, told| {
        (
            sum.0 + told.done,
            sum.1 + told.refused,
            sum.2 + told.taken_back,
        )
    });
    let made = events.iter().filter(|e| e.status_code == "OK").count();
    println!(
        "{done} done, {refused} refused, {taken_back} taken back; {made} made of {} told",
        events.len()
    );
    assert!(
        taken_back > all / 20 && done > all / 20,
        "{done}, {taken_back}"
    );
    // What was answered stands in the trail, and nothing that nobody asked for.
    assert!((done..=all).contains(&made), "{made}");
    let replayed = replayed(&events);
    assert_eq!(runtime.block_on(found(address)), replayed);
    assert_eq!(runtime.block_on(configured(address)), replayed);
}
