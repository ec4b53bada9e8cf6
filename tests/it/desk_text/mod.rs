//! What a peer says is shown to operators and obeyed by nothing: no terminal, no log, no parser. `attacks.tsv` holds what
//! has been tried on terminals and readers, a name and the bytes of each; random text does the rest.

mod encodings;
mod lockstep;
mod people;

use serde_json::{Value, json};
use switchboard::grpc::api;
use switchboard::grpc::api::chat_service_client::ChatServiceClient;
use switchboard::grpc::api::session_service_client::SessionServiceClient;
use tokio::runtime::Builder;
use tonic::transport::Endpoint;

use super::support::{Service, Talk, eventually, no_grpcurl, number, soak};

/// A name and what is sent.
pub(super) fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let lines = include_str!("attacks.tsv").lines();
    let pairs = lines.map(|line| line.split_once('\t').unwrap());
    pairs
        .map(|(name, spelled)| (name, unspelled(spelled)))
        .collect()
}

fn unspelled(text: &str) -> Vec<u8> {
    let mut pieces = text.split('\\');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    while let Some(piece) = pieces.next() {
        match piece.strip_prefix('x') {
            Some(rest) => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                bytes.extend_from_slice(&rest.as_bytes()[2..]);
            }
            // A backslash is doubled.
            None => {
                bytes.push(b'\\');
                bytes.extend_from_slice(pieces.next().unwrap().as_bytes());
            }
        }
    }
    bytes
}

/// Everything that a terminal obeys or that is not seen: written down apart from the program's own list.
fn is_obeyed(c: char) -> bool {
    let c = u32::from(c);
    let bidi = [0x61c, 0x200e, 0x200f];
    let hidden = [
        0xad, 0x34f, 0x115f, 0x1160, 0x17b4, 0x17b5, 0x3164, 0xfeff, 0xffa0, 0x180e,
    ];
    c < 0x20
        || (0x7f..=0x9f).contains(&c)
        || bidi.contains(&c)
        || hidden.contains(&c)
        || (0x202a..=0x202e).contains(&c)
        || (0x2066..=0x2069).contains(&c)
        || (0x200b..=0x200d).contains(&c)
        || (0x2060..=0x206f).contains(&c)
        || (0x2028..=0x2029).contains(&c)
        || (0xfe00..=0xfe0f).contains(&c)
        || (0xfff9..=0xfffb).contains(&c)
        || (0xe0000..=0xe0fff).contains(&c)
        || (0xd800..=0xdfff).contains(&c)
}

/// Line feeds are the only thing in it that is not to be seen.
pub(super) fn assert_plain(what: &str, text: &str) {
    let mut obeyed = text
        .char_indices()
        .filter(|(_, c)| *c != '\n' && is_obeyed(*c));
    if let Some((at, c)) = obeyed.next() {
        let around: String = text
            .chars()
            .skip(text[..at].chars().count().saturating_sub(40))
            .take(80)
            .collect();
        panic!("{what} has {c:?} in {around:?}");
    }
}

const FORMATS: [&str; 5] = ["table", "wide", "json", "yaml", "name"];

/// To keep a transcript in.
const EXPORTS: [&str; 3] = ["ndjson", "csv", "text"];

/// What a command prints in each format, which must be plain in all of them.
fn printed(service: &Service, args: &[&str]) -> Vec<String> {
    let exports: &[_] = match args {
        ["chat", "history", ..] => &EXPORTS,
        _ => &[],
    };
    let all = FORMATS.iter().chain(exports).map(|format| {
        let args = [args, &["-o", format]].concat();
        let ended = service.cli(&args, &[]);
        assert_eq!(ended.code, 0, "{args:?}: {}", ended.stderr);
        // Only CSV ends its lines so.
        let csv = *format == "csv";
        let plain = ended
            .stdout
            .replace("\r\n", if csv { "\n" } else { "\r\n" });
        assert_plain(&format!("{args:?}"), &plain);
        assert_plain(&format!("stderr of {args:?}"), &ended.stderr);
        ended.stdout
    });
    all.collect()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = i32::try_from(message.len()).unwrap().to_le_bytes();
    [&length[..], message].concat()
}

/// Messages of a listener, as the control plane gives them.
fn messages(service: &Service, parent: &str) -> Vec<Value> {
    let (mut all, mut token) = (Vec::new(), Value::from(""));
    loop {
        let request = json!({ "parent": parent, "page_size": 1000, "page_token": token });
        let page = service
            .grpcurl("ChatService/ListMessages", &request)
            .unwrap();
        assert_plain("the control plane's answer", &page.to_string());
        all.extend(page["messages"].as_array().cloned().unwrap_or_default());
        token = page["nextPageToken"].clone();
        if token.as_str().unwrap_or_default().is_empty() {
            return all;
        }
    }
}

const DESKS: &str = r#"
    [telemetry]
    log = "debug"
    [listeners.utf8]
    protocol = "chat"
    framing = "length"
    bind = "127.0.0.1:0"
    limits = { max_sessions_per_source = 1000 }
    [listeners.gb18030]
    protocol = "chat"
    framing = "length"
    encoding = "gb18030"
    bind = "127.0.0.1:0"
    [listeners.auto]
    protocol = "chat"
    framing = "length"
    encoding = "auto"
    bind = "127.0.0.1:0"
    [listeners.bytes]
    protocol = "chat"
    framing = "length"
    encoding = "bytes"
    bind = "127.0.0.1:0"
"#;

/// Says each of them at a listener, so many in a conversation; they are heard when this returns.
fn say(service: &Service, listener: &str, all: &[(&str, Vec<u8>)], together: usize) -> Vec<Talk> {
    let mut talks = Vec::new();
    for some in all.chunks(together) {
        let mut talk = service.talk(listener);
        some.iter().for_each(|(_, bytes)| talk.send(framed(bytes)));
        talks.push(talk);
    }
    let parent = format!("listeners/{listener}/conversations/-");
    eventually("all of them are heard", || {
        messages(service, &parent).len() == all.len()
    });
    talks
}

#[test]
fn no_attack_gets_through_an_outlet() {
    if no_grpcurl() {
        return;
    }
    let all = attacks();
    assert!(all.len() >= 400, "{}", all.len());
    for log in ["json", "text"] {
        let toml = DESKS.replace("log =", &format!("log_format = \"{log}\"\nlog ="));
        let service = Service::start(&toml);
        let mut talks = say(&service, "utf8", &all, 1);
        for listener in ["gb18030", "auto", "bytes"] {
            talks.extend(say(&service, listener, &all, 200));
        }
        for listener in ["utf8", "gb18030", "auto", "bytes"] {
            printed(&service, &["chat", "inbox", listener]);
            let shown = printed(&service, &["chat", "history", listener]);
            assert!(shown[0].lines().count() > all.len(), "{listener}");
            for message in messages(&service, &format!("listeners/{listener}/conversations/-")) {
                assert!(
                    message["text"]
                        .as_str()
                        .is_some_and(|text| !text.is_empty())
                );
            }
        }
        let ended = operators_attack(&service, &all);
        assert!(ended > all.len() / 2, "{ended}");
        for args in [
            &["chat", "history", "utf8"][..],
            &["chat", "inbox"],
            &["session", "ls"],
            &["session", "bans"],
            &["listener", "ls"],
            &["audit"],
        ] {
            printed(&service, args);
        }
        assert_plain("the log", &service.stderr());
        drop(talks);
    }
}

/// Operators are not trusted either: each attack is the name of one, what it answers, and why it bans somebody. Tells
/// how many were taken.
fn operators_attack(service: &Service, all: &[(&str, Vec<u8>)]) -> usize {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc())).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let mut chat = ChatServiceClient::new(channel.clone());
        let mut sessions = SessionServiceClient::new(channel);
        let request = api::ListConversationsRequest {
            parent: "listeners/utf8".into(),
            page_size: 1_000,
            ..Default::default()
        };
        let waiting = chat.list_conversations(request).await.unwrap().into_inner();
        assert_eq!(waiting.conversations.len(), all.len());
        let mut taken = 0;
        for (n, ((_, bytes), talk)) in all.iter().zip(&waiting.conversations).enumerate() {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let answer = api::ReplyConversationRequest {
                name: talk.name.clone(),
                body: Some(api::reply_conversation_request::Body::Text(text.clone())),
                operator: text.clone(),
                ..Default::default()
            };
            // A name that cannot be shown as it is is refused; what is said under a plain one is not.
            let plain = api::ReplyConversationRequest {
                operator: "ann".into(),
                ..answer.clone()
            };
            let said = chat.reply_conversation(answer).await.is_ok()
                || chat.reply_conversation(plain).await.is_ok();
            taken += usize::from(said);
            let ban = api::BanSourceRequest {
                parent: "listeners/utf8".into(),
                cidr: format!("10.9.{}.{}/32", n / 250, n % 250),
                reason: text,
                ..Default::default()
            };
            // What cannot be kept is refused.
            let _ = sessions.ban_source(ban).await;
        }
        taken
    })
}

/// A generator of the same numbers every time (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() >> 33) as usize % most
    }

    /// A text in which what matters is frequent, cut and glued where it hurts.
    fn text(&mut self, all: &[(&str, Vec<u8>)], out: &mut Vec<u8>) {
        for _ in 0..1 + self.below(4) {
            match self.below(4) {
                0 => {
                    let (_, attack) = &all[self.below(all.len())];
                    let (from, to) = (self.below(attack.len()), self.below(attack.len()));
                    out.extend_from_slice(
                        &attack[from.min(to)..from.max(to).min(from.min(to) + 24)],
                    );
                }
                1 => out.extend(
                    (0..self.below(8))
                        .map(|_| self.next() as u8)
                        .collect::<Vec<_>>(),
                ),
                2 => {
                    let c = char::from_u32(self.below(0x11_0000) as u32).unwrap_or('?');
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => out.extend_from_slice(&[0x1b, b"[]P^_X\\(#"[self.below(9)]]),
            }
        }
    }
}

#[test]
fn no_random_text_gets_through_an_outlet() {
    if no_grpcurl() {
        return;
    }
    let all = attacks();
    let service = Service::start(DESKS);
    let (strings, in_message, in_round) = (if soak() { 1_000_000 } else { 50_000 }, 1_000, 25);
    let mut chance = Chance(0x005e_ed0f_7e57);
    let mut said = 0;
    let listeners = ["utf8", "gb18030", "auto", "bytes"];
    for listener in listeners.into_iter().cycle() {
        if said >= strings {
            break;
        }
        let mut talk = service.talk(listener);
        for _ in 0..in_round {
            let mut message = Vec::new();
            (0..in_message).for_each(|_| chance.text(&all, &mut message));
            said += in_message;
            talk.send(framed(&message));
        }
        let parent = format!("listeners/{listener}");
        let request = json!({ "parent": parent });
        let mut conversation = Value::Null;
        eventually("all of them wait", || {
            let found = service.call("ChatService/ListConversations", &request, "conversations");
            conversation = found[0].clone();
            number(&conversation["unansweredMessages"]) == in_round
        });
        let name = conversation["name"].as_str().unwrap();
        printed(&service, &["chat", "history", name]);
        printed(&service, &["chat", "inbox", listener]);
        messages(&service, name);
    }
    assert_plain("the log", &service.stderr());
}
